package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"guard"
	"guard/policy"
)

var runCommand = command{
	name: "run", args: "[FLAGS] -- CMD [ARG...]", short: "run an agent that can use credentials without seeing them",
	example: "guard run --allow github-pat:repo:push --task \"fix the flaky test\" -- claude",
	exits: "; the agent's own otherwise,\n  128+N when signal N ended it, 126 not executable, 127 not found,\n" +
		"  125 guard failed before the agent ran, 120 guard ended the agent because of a leak",
	run: runRun,
}

// runFlags are the flags of `guard run`.
type runFlags struct {
	allow, deny, allowHosts, modelHosts, publish, resolve, ca, env, share []string
	logins                                                                []string
	clientCerts, pins, sshKnownHosts                                      []string
	sshSource                                                             string
	hostPorts                                                             []int
	task, context, profile, onLeak, egress, approve, boundary             string
	bpfStrict, lockEnds                                                   bool
	bpf, events, input, find                                              string
	show                                                                  []string
	userPolicy
	noRotate, verbose bool
	approveWait       time.Duration
}

func (o *runFlags) add(f *pflag.FlagSet) {
	f.StringArrayVar(&o.allow, "allow", nil, "credential the agent may use: NAME or NAME:SCOPE, or env:VAR for the value of a variable, and limits after commas: count=N uses, bytes=N[K|M|G] sent to its hosts, for=DURATION, until=HH:MM (or a date, or RFC 3339), between=HH:MM-HH:MM (repeatable; without it, none but a model's API key that the environment holds)")
	f.StringArrayVar(&o.deny, "deny", nil, "credential it may not use, whatever else says (repeatable)")
	f.StringVar(&o.task, "task", "", "what the agent is to do, for the log")
	f.StringVar(&o.context, "context", "", "PROJECT or PROJECT/ENV (default: the context of this folder, see guard context)")
	f.StringVar(&o.profile, "profile", "", "whose credentials: interactive or daemon, which has its own beside (default: interactive)")
	f.StringVar(&o.onLeak, "on-leak", "", "redact, block, kill or warn, everywhere (default: redact on the terminal, in files and towards a model's API; block on the network)")
	f.StringVar(&o.input, "input", "redact", "redact, warn or allow: what happens to a known value that you type or paste into the agent's terminal (redact: the agent gets its placeholder or a mask)")
	f.StringVar(&o.egress, "egress", "web", "web (HTTP and HTTPS to any public host), list (listed hosts only), ask (list, and you are asked about others) or any")
	f.StringArrayVar(&o.allowHosts, "allow-host", nil, "HOST or HOST:PORT that may be reached, also with other protocols than HTTP (repeatable)")
	f.StringArrayVar(&o.modelHosts, "model-host", nil, "HOST or HOST:PORT of a model's API besides Anthropic's, OpenAI's and Google's: values in prompts are redacted there, placeholders may be named (repeatable)")
	f.StringArrayVar(&o.publish, "publish", nil, "[HOSTPORT:]PORT that the agent listens on, made reachable on the host's loopback (repeatable)")
	f.StringArrayVar(&o.logins, "allow-login", nil, "HOST, HOST:PORT or *.DOMAIN at which the agent may log in (OAuth and like it): the tokens go into the vault, and it gets placeholders that work at HOST's domain, in later sessions with this flag too (repeatable)")
	f.IntSliceVar(&o.hostPorts, "host-port", nil, "port of a service on the host's loopback that the agent may reach (repeatable)")
	f.StringArrayVar(&o.resolve, "resolve", nil, "HOST:PORT:ADDR[:PORT], send connections for HOST:PORT to that address (repeatable)")
	f.StringArrayVar(&o.ca, "ca", nil, "file of further roots that upstreams may be certified by (repeatable)")
	f.StringArrayVar(&o.clientCerts, "client-cert", nil, "name of a credential that holds a certificate and its key (PEM): shown to its hosts when they ask, if it is allowed (repeatable)")
	f.StringArrayVar(&o.pins, "pin", nil, "HOST=sha256//BASE64, a public key one of which HOST's certificates must have (repeatable)")
	f.StringArrayVar(&o.sshKnownHosts, "ssh-known-hosts", nil, "file of the SSH host keys that keys may log in to, instead of your own known_hosts (repeatable; /etc/ssh/ssh_known_hosts counts too)")
	f.StringVar(&o.sshSource, "ssh-source-address", "", "ADDRESS[/BITS],... from which the session's SSH certificates are good (credentials of kind ssh-ca)")
	f.BoolVar(&o.lockEnds, "lock-ends-session", false, "end the agent when the vault is locked (default: it goes on, its output is scanned, and uses of credentials are refused)")
	f.BoolVar(&o.noRotate, "no-rotate", false, "do not replace a credential that leaked")
	f.StringVar(&o.approve, "approve", "", "what happens to what nothing allows: ask (the request waits, and you are asked on this terminal or by guard request), queue (you are asked by guard request, also later) or deny (default: deny)")
	f.DurationVar(&o.approveWait, "approve-wait", approveWait, "how long a request waits for your answer")
	f.StringVar(&o.boundary, "boundary", "auto", "auto, namespace, landlock, proxy or none")
	f.StringVar(&o.bpf, "bpf", "auto", "search what processes write, in the kernel: off, detect (report), block (the write fails) or auto (what the machine and --on-leak allow)")
	f.BoolVar(&o.bpfStrict, "bpf-strict", false, "with --bpf block: refuse also what the kernel could not search whole (bytes that are not in memory, more than 1 MiB in one call)")
	o.userPolicy.add(f)
	f.StringVar(&o.events, "events", "", "write leaks, uses and decisions to this file as they happen, one JSON object a line")
	f.StringVar(&o.find, "find", "auto", "auto or off: hide and watch also values that are not in the vault, in the environment, in .env and its like, and where tools keep credentials")
	f.StringArrayVar(&o.show, "show", nil, "NAME of a variable or PATH of which the agent sees what it holds, unless it is in the vault (repeatable; also a line of $XDG_CONFIG_HOME/guard/show)")
	f.StringArrayVar(&o.env, "env", nil, "KEY=VALUE for the agent's environment (repeatable)")
	f.StringArrayVar(&o.share, "share", nil, "path of the host that the agent may write, besides this folder (repeatable)")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "say what protects this session")
}

func runRun(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	f.SetInterspersed(false)
	var o runFlags
	o.add(f)
	if err := parse(f, args); err != nil {
		return err
	}
	o.asks = o.approve == "" || o.approve == "ask"
	argv := f.Args()
	if len(argv) == 0 {
		return usagef("run needs a command: guard run [FLAGS] -- CMD [ARG...]")
	}
	s, err := a.newSession(o, argv)
	if err != nil {
		var usage usageError
		var exit exitError
		if errors.As(err, &usage) || errors.As(err, &exit) {
			return err
		}
		return exitError{125, err}
	}
	defer s.close()
	if err := s.checkUpstream(); err != nil {
		return err
	}
	code, err := s.run(ctx)
	if err != nil {
		return exitError{code, err}
	}
	if code != 0 {
		return exitError{code: code}
	}
	return nil
}

// check refuses what the flags may not say.
func (o *runFlags) check() error {
	for _, e := range []struct {
		flag, value string
		ok          []string
	}{
		{"profile", o.profile, []string{"", profileInteractive, profileDaemon}},
		{"egress", o.egress, []string{"web", "list", "ask", "any"}},
		{"find", o.find, []string{"auto", "off"}},
		{"input", o.input, []string{"redact", "warn", "allow"}},
		{"approve", o.approve, []string{"", "ask", "queue", "deny"}},
		{"boundary", o.boundary, []string{"auto", "namespace", "landlock", "proxy", "none"}},
		{"bpf", o.bpf, []string{"auto", "off", "detect", "block"}},
	} {
		if !slices.Contains(e.ok, e.value) {
			return usagef("--%s %q: want one of %s", e.flag, e.value, strings.Join(e.ok, ", "))
		}
	}
	if o.approveWait <= 0 {
		return usagef("--approve-wait wants a time to come")
	}
	if o.bpfStrict && o.bpf != "block" {
		return usagef("--bpf-strict says what --bpf block does: give it with that")
	}
	for _, kv := range o.env {
		if k, _, ok := strings.Cut(kv, "="); !ok || k == "" {
			return usagef("--env wants KEY=VALUE")
		}
	}
	if _, err := parsePins(o.pins); err != nil {
		return err
	}
	for flag, hosts := range map[string][]string{"allow-host": o.allowHosts, "allow-login": o.logins, "model-host": o.modelHosts} {
		for _, h := range hosts {
			if err := policy.CheckHost(h); err != nil {
				return usagef("--%s %q: %v", flag, h, err)
			}
		}
	}
	for _, p := range o.hostPorts {
		if p < 1 || p > 65535 {
			return usagef("--host-port %d is not a port", p)
		}
	}
	return nil
}

// allows says that the agent is told of a credential. Whether it may use it is
// the policy's to say.
func (o *runFlags) allows(name string) bool {
	return !slices.Contains(o.deny, name) && (o.permitted[name] || slices.ContainsFunc(o.allow, func(a string) bool {
		g, err := policy.ParseGrant(a)
		return err == nil && g.Name == name
	}))
}

// leakAction is --on-leak, nil where it was not given.
func (o *runFlags) leakAction() (*guard.Action, error) {
	if o.onLeak == "" {
		return nil, nil
	}
	act, err := guard.ParseAction(o.onLeak)
	if err != nil || act == guard.Pass {
		return nil, usagef("--on-leak %q: want redact, block, kill or warn", o.onLeak)
	}
	return &act, nil
}

func (o *runFlags) grants() ([]policy.Grant, error) {
	var gs []policy.Grant
	for _, s := range o.allow {
		g, err := policy.ParseGrant(s)
		if err != nil {
			return nil, usageError{fmt.Errorf("--allow %s: %w", s, err)}
		}
		gs = append(gs, g)
	}
	return gs, nil
}

// override is one --resolve.
type override struct {
	host string
	port int
	to   netip.AddrPort
}

// parseResolve reads HOST:PORT:ADDR[:PORT], as curl's; an IPv6 address is in
// brackets.
func parseResolve(s string) (override, error) {
	bad := usagef("--resolve %q: want HOST:PORT:ADDR[:PORT], an IPv6 address in brackets", s)
	host, rest, ok := strings.Cut(s, ":")
	portText, addr, ok2 := strings.Cut(rest, ":")
	if !ok || !ok2 || host == "" {
		return override{}, bad
	}
	port, err := strconv.Atoi(portText)
	if err != nil || port < 1 || port > 65535 {
		return override{}, bad
	}
	o := override{host: strings.ToLower(strings.TrimSuffix(host, ".")), port: port}
	if ap, err := netip.ParseAddrPort(addr); err == nil {
		o.to = ap
		return o, nil
	}
	ip, err := netip.ParseAddr(strings.Trim(addr, "[]"))
	if err != nil {
		return override{}, bad
	}
	o.to = netip.AddrPortFrom(ip, uint16(port))
	return o, nil
}

// published is one --publish.
type published struct{ host, inside int }

func parsePublish(s string) (published, error) {
	h, p, two := strings.Cut(s, ":")
	if !two {
		p = h
	}
	hn, err1 := strconv.Atoi(h)
	pn, err2 := strconv.Atoi(p)
	if err1 != nil || err2 != nil || hn < 0 || hn > 65535 || pn < 1 || pn > 65535 {
		return published{}, usagef("--publish %q: want [HOSTPORT:]PORT", s)
	}
	return published{hn, pn}, nil
}

// newSessionID is 8 random bytes in hex, with the time before it so that a list
// of sessions is in order.
func newSessionID(now time.Time) string {
	var b [5]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return now.UTC().Format("20060102T150405Z") + "-" + hex.EncodeToString(b[:])
}

// findRepoFile is the guard.toml of dir or of the nearest folder above it,
// within the user's home or, outside of it, in dir itself.
func findRepoFile(dir, home string) string {
	for d := dir; ; d = filepath.Dir(d) {
		p := filepath.Join(d, "guard.toml")
		// What is no file, or a link to none, is an error when it is read: it must not be
		// a way to have a project's rules left out.
		if _, err := os.Lstat(p); err == nil {
			return p
		}
		if d == home || d == filepath.Dir(d) || !strings.HasPrefix(d, home+string(filepath.Separator)) {
			return ""
		}
	}
}

// lookPath finds the agent as a shell would, so that the common mistakes are
// answered before anything is set up.
func lookPath(name string) (string, error) {
	p, err := exec.LookPath(name)
	switch {
	case err == nil, errors.Is(err, exec.ErrDot):
		return p, nil
	case errors.Is(err, os.ErrPermission):
		return "", exitError{126, fmt.Errorf("%s is not executable", name)}
	case strings.ContainsRune(name, filepath.Separator):
		if fi, serr := os.Stat(name); serr == nil {
			if fi.IsDir() {
				return "", exitError{126, fmt.Errorf("%s is a folder", name)}
			}
			if runtime.GOOS != "windows" && fi.Mode()&0o111 == 0 {
				return "", exitError{126, fmt.Errorf("%s is not executable", name)}
			}
		}
	}
	return "", exitError{127, fmt.Errorf("%s: command not found", name)}
}
