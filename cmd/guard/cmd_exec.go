package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	brokerexec "guard/broker/exec"
	rotateexec "guard/rotate/exec"
)

var execCommand = command{
	name: "exec", args: "--with NAME[,NAME...] -- CMD [ARG...] | allow NAME ... | ls | rm NAME", short: "run a listed command with the real credential, out of the agent's reach",
	example: "guard exec allow plan --with aws --input '*.tf' --host '*.amazonaws.com:443' -- /usr/bin/terraform plan '-var=*'\n" +
		"guard exec --with aws --input main.tf -- terraform plan -var=region=eu-west-1    (inside a session)",
	exits: "; inside a session the command's own,\n  128+N when signal N ended it",
	run:   runExec,
}

// controlHost is how a session's programs reach guard: a name that is answered inside
// and nowhere else.
const (
	controlHost = "session.guard.internal"
	execPort    = 1
)

func runExec(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	var o execFlags
	o.add(f)
	if err := parse(f, args); err != nil {
		return err
	}
	argv := f.Args()
	if f.ArgsLenAtDash() != 0 {
		switch f.Arg(0) {
		case "allow":
			return a.execAllow(o, argv[1:], f.ArgsLenAtDash())
		case "ls":
			return a.execList(o)
		case "rm":
			return a.execRemove(o, argv[1:])
		}
		return usagef("exec needs a command after --: guard exec --with NAME -- CMD [ARG...]; or allow, ls or rm")
	}
	switch {
	case len(argv) == 0:
		return usagef("exec needs a command: guard exec --with NAME -- CMD [ARG...]")
	case len(o.with) == 0:
		return usagef("exec without --with needs no guard: run the command by itself")
	case a.getenv("GUARD_SESSION") == "":
		return errors.New("this is not inside a session: guard exec asks the guard of a `guard run` to run a command; guard exec allow says which")
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	d := net.Dialer{Timeout: 30 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(controlHost, strconv.Itoa(execPort)))
	if err != nil {
		return fmt.Errorf("the session's guard cannot be reached, which it can in the contained boundary only: %w", err)
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	code, err := brokerexec.Run(conn, brokerexec.Call{
		Request: brokerexec.Request{With: o.with, Argv: argv, Outputs: o.outputs}, Inputs: o.inputs, Dir: dir,
		Stdin: a.stdin, Stdout: a.stdout, Stderr: a.stderr, Signals: signals,
	})
	var refused *brokerexec.RefusedError
	if errors.As(err, &refused) {
		for _, n := range refused.Refusal.NextSteps {
			err = fmt.Errorf("%w\nguard: next: %s", err, n)
		}
		return fmt.Errorf("%s: %w", argv[0], err)
	}
	if err != nil {
		return exitError{max(code, exitRefused), err}
	}
	if code != 0 {
		return exitError{code: code}
	}
	return nil
}

func (a *app) commandsPath() string { return filepath.Join(a.home(), "commands.json") }

// execRules are the commands that the user allowed, of all contexts.
func (a *app) execRules() ([]brokerexec.Rule, error) {
	b, err := os.ReadFile(a.commandsPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var rules []brokerexec.Rule
	if err := json.Unmarshal(b, &rules); err != nil {
		return nil, fmt.Errorf("%s is not valid: %w", a.commandsPath(), err)
	}
	return rules, nil
}

func (a *app) writeRules(rules []brokerexec.Rule) error {
	b, err := json.MarshalIndent(rules, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(a.commandsPath(), append(b, '\n'))
}

// outside refuses what only the user may say. The list lies where a session
// cannot reach, so this is a better answer and not the boundary.
func (a *app) outside(what string) error {
	if id := a.getenv("GUARD_SESSION"); id != "" {
		return fmt.Errorf("%s is for the user, outside of a session; this is inside session %s", what, id)
	}
	return nil
}

// execFlags are what a rule is made of.
type execFlags struct {
	with, files, set, hosts, inputs, outputs []string
	context, profile                         string
	timeout                                  time.Duration
	json                                     bool
}

func (o *execFlags) add(f *pflag.FlagSet) {
	f.StringSliceVar(&o.with, "with", nil, "names of the credentials that the command needs; for allow NAME or NAME=VAR: the command's variable VAR is the value (default: the credential's own variable)")
	f.StringArrayVar(&o.inputs, "input", nil, "pattern of files below this folder that the command gets copies of; for allow, that an agent may send (repeatable)")
	f.StringArrayVar(&o.outputs, "output", nil, "pattern of files that are copied back from the command's folder, redacted; for allow, that an agent may get back (repeatable)")
	f.StringArrayVar(&o.files, "with-file", nil, "allow: CREDENTIAL=VAR, where VAR is the path of a file with the value, which only the command sees (repeatable)")
	f.StringArrayVar(&o.set, "set", nil, "allow: KEY=VALUE for the command's environment, which is otherwise empty (repeatable)")
	f.StringArrayVar(&o.hosts, "host", nil, "allow: HOST, HOST:PORT or *.DOMAIN that the command may reach besides the credentials' own (repeatable)")
	f.StringVar(&o.context, "context", "", "allow, rm: PROJECT or PROJECT/ENV (default: the context of this folder)")
	f.StringVar(&o.profile, "profile", "", "allow, rm: whose sessions: interactive or daemon (default: interactive)")
	f.DurationVar(&o.timeout, "timeout", brokerexec.Timeout, "allow: how long the command may run")
	f.BoolVar(&o.json, "json", false, "ls: one JSON object a command")
}

// execAllow puts a command on the list; args are its name, the program and its
// patterns, of which dash-1 come before the --.
func (a *app) execAllow(o execFlags, args []string, dash int) error {
	if err := a.outside("guard exec allow"); err != nil {
		return err
	}
	if dash != 2 || len(args) < 2 {
		return usagef("guard exec allow NAME --with CREDENTIAL -- PROGRAM [PATTERN...]")
	}
	rule := brokerexec.Rule{
		Name: args[0], Path: args[1], Args: args[2:], Set: o.set, Hosts: o.hosts, Inputs: o.inputs, Outputs: o.outputs, Timeout: o.timeout,
	}
	var err error
	if rule.Context, _, err = a.world(o.context, o.profile); err != nil {
		return err
	}
	if rule.With, err = a.places(rule.Context, o); err != nil {
		return err
	}
	if err := rule.Check(); err != nil {
		return usageError{err}
	}
	if within(rule.Path, a.userHome()) {
		return fmt.Errorf("%s lies in your home folder, which commands do not see: install it outside, such as in /usr/local/bin", rule.Path)
	}
	if rule.SHA256, err = rotateexec.Hash(rule.Path); err != nil {
		return fmt.Errorf("%s cannot be allowed: %w", rule.Path, err)
	}
	rules, err := a.execRules()
	if err != nil {
		return err
	}
	rules = slices.DeleteFunc(rules, func(r brokerexec.Rule) bool { return r.Name == rule.Name && r.Context == rule.Context })
	if err := a.writeRules(append(rules, rule)); err != nil {
		return err
	}
	a.say("an agent in %q that may use %s can run %s as %s; sha256 %s", rule.Context, strings.Join(rule.Names(), ", "), rule.Path, rule.Name, rule.SHA256)
	if n := len(rule.Args); n > 0 && rule.Args[n-1] == "..." {
		a.say("... lets any further arguments in, options too: what %s can be told to do with the credential, the agent can", filepath.Base(rule.Path))
	}
	return nil
}

// places reads --with and --with-file.
func (a *app) places(in string, o execFlags) ([]brokerexec.Place, error) {
	v, err := a.openVault()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	if err := a.openContext(v, in); err != nil {
		return nil, err
	}
	creds, err := v.List(in)
	if err != nil {
		return nil, err
	}
	var out []brokerexec.Place
	for i, spec := range slices.Concat(o.with, o.files) {
		p := brokerexec.Place{File: i >= len(o.with)}
		p.Credential, p.Env, _ = strings.Cut(spec, "=")
		found := false
		for _, c := range creds {
			if c.Name == p.Credential && !c.Decoy {
				found = true
				if p.Env == "" && !p.File {
					p.Env = c.Env
				}
			}
		}
		if !found {
			return nil, fmt.Errorf("there is no credential %s in context %s: guard secret ls", p.Credential, in)
		}
		if p.Env == "" {
			return nil, usagef("%s has no variable of its own: say --with %s=VAR", p.Credential, p.Credential)
		}
		out = append(out, p)
	}
	return out, nil
}

func (a *app) execList(o execFlags) error {
	rules, err := a.execRules()
	if err != nil {
		return err
	}
	rows := [][]string{{"COMMAND", "CONTEXT", "CREDENTIALS", "STATE", "PROGRAM AND ARGUMENTS"}}
	for _, r := range rules {
		state := "ok"
		if sum, err := rotateexec.Hash(r.Path); err != nil {
			state = "cannot be run: " + err.Error()
		} else if sum != r.SHA256 {
			state = "changed since: allow it again"
		}
		if o.json {
			if err := a.printJSON(struct {
				brokerexec.Rule
				State string `json:"state"`
			}{r, state}); err != nil {
				return err
			}
		}
		rows = append(rows, []string{r.Name, r.Context, strings.Join(r.Names(), ","), state, strings.Join(append([]string{r.Path}, r.Args...), " ")})
	}
	switch {
	case o.json:
		return nil
	case len(rules) == 0:
		a.say("no command is allowed yet: guard exec allow NAME --with CREDENTIAL -- PROGRAM [PATTERN...]")
		return nil
	}
	return a.table(rows)
}

func (a *app) execRemove(o execFlags, args []string) error {
	if err := a.outside("guard exec rm"); err != nil {
		return err
	}
	if len(args) != 1 {
		return usagef("guard exec rm NAME")
	}
	name, _, err := a.world(o.context, o.profile)
	if err != nil {
		return err
	}
	rules, err := a.execRules()
	if err != nil {
		return err
	}
	n := len(rules)
	rules = slices.DeleteFunc(rules, func(r brokerexec.Rule) bool { return r.Name == args[0] && r.Context == name })
	if len(rules) == n {
		return fmt.Errorf("no command %s is allowed in context %s: guard exec ls", args[0], name)
	}
	return a.writeRules(rules)
}
