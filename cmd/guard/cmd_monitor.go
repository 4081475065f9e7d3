package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"guard"
	"guard/bpf"
	"guard/supervisor"
)

var monitorCommand = command{
	name: "monitor", args: "[--all | --cgroup PATH | --pid N]... [--json]", short: "find known values in what any process of this machine writes or sends",
	example: "sudo guard monitor --cgroup /sys/fs/cgroup/system.slice --json", exits: "; Ctrl-C ends it with 0",
	run: runMonitor,
}

// monitorFlags are the flags of `guard monitor`.
type monitorFlags struct {
	all, block, json, noRotate, formats, verbose bool
	cgroups                                      []string
	pids                                         []int
	trust                                        []string
	onLeak                                       string
	listen, register                             string
}

func (o *monitorFlags) add(f *pflag.FlagSet) {
	f.BoolVar(&o.all, "all", false, "every process of this machine (the default)")
	f.StringArrayVar(&o.cgroups, "cgroup", nil, "the processes of this folder of the cgroup v2 hierarchy, of those below it, and what they start")
	f.IntSliceVar(&o.pids, "pid", nil, "this process and what it starts from now on (repeatable)")
	f.BoolVar(&o.block, "block", false, "a write that holds a value fails (needs BPF LSM; TLS is detected only)")
	f.BoolVar(&o.json, "json", false, "records as JSON, one a line")
	f.BoolVar(&o.noRotate, "no-rotate", false, "do not replace a credential that leaked")
	f.StringVar(&o.onLeak, "on-leak", "", "warn (the default) or block (as --block)")
	f.BoolVar(&o.formats, "formats", false, "find also credentials that guard does not know, by their form; reads every byte that the chosen cgroup or processes write")
	f.StringArrayVar(&o.trust, "trust", nil, "program that rightly uses credentials: what it writes is counted and not judged (repeatable)")
	f.StringVar(&o.listen, "listen", "", "look also for what other users' guards register at this socket: they are told of finds in their own processes")
	f.StringVar(&o.register, "register", "", "watch nothing oneself: have the monitor that listens at this socket look for hashes of your long random values in your processes")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "say what is watched and what is not")
}

func (o *monitorFlags) check() error {
	switch o.onLeak {
	case "", "warn":
	case "block":
		o.block = true
	default:
		return usagef("--on-leak %q: want warn or block: what other programs write cannot be redacted, and guard does not end them", o.onLeak)
	}
	scopes := len(o.cgroups) > 0 || len(o.pids) > 0
	switch {
	case o.all && scopes:
		return usagef("--all is everything: give it without --cgroup and --pid")
	case len(o.cgroups) > 1:
		return usagef("--cgroup can be given once: name the folder above, or run a monitor for each")
	case o.formats && !scopes:
		return usagef("--formats reads every byte that is written: say whose with --cgroup or --pid")
	}
	if o.register != "" && (scopes || o.all || o.block || o.formats || o.listen != "") {
		return usagef("--register watches what the monitor at that socket watches: give it without --all, --cgroup, --pid, --block, --formats and --listen")
	}
	if o.listen != "" && o.block {
		return usagef("--listen with --block would let any user have others' writes refused")
	}
	o.all = !scopes && o.register == ""
	for _, p := range o.pids {
		if p <= 0 {
			return usagef("--pid %d is not a process", p)
		}
	}
	for i, p := range o.trust {
		c, err := filepath.EvalSymlinks(p)
		if err == nil {
			c, err = filepath.Abs(c)
		}
		if err != nil {
			return usageError{fmt.Errorf("--trust: %w", err)}
		}
		o.trust[i] = c
	}
	return nil
}

// words are what is watched, for the log and for people.
func (o *monitorFlags) words() string {
	var parts []string
	if o.register != "" {
		parts = append(parts, "this user's processes, by the monitor at "+o.register)
	}
	if o.all {
		parts = append(parts, "every process of this machine")
	}
	for _, c := range o.cgroups {
		parts = append(parts, "cgroup "+c)
	}
	for _, p := range o.pids {
		parts = append(parts, fmt.Sprintf("process %d", p))
	}
	s := strings.Join(parts, ", ")
	if o.block {
		s += "; writes are refused"
	}
	return s
}

// scope is what the kernel is told of it.
func (o *monitorFlags) scope() (bpf.Options, error) {
	b := bpf.Options{All: o.all, Refuse: o.block, Lenient: o.block, RingBytes: 16 << 20, Streams: 1 << 16}
	for _, c := range o.cgroups {
		id, err := bpf.CgroupID(c)
		if err != nil {
			return b, err
		}
		b.Cgroup = id
	}
	for _, p := range o.pids {
		family, err := familyOf(p)
		if err != nil {
			return b, err
		}
		b.Processes = append(b.Processes, family...)
	}
	slices.Sort(b.Processes)
	b.Processes = slices.Compact(b.Processes)
	return b, nil
}

func runMonitor(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	var o monitorFlags
	o.add(f)
	if err := parse(f, args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return usagef("monitor takes no arguments: to watch a program that you start, use guard run")
	}
	if err := o.check(); err != nil {
		return err
	}
	if o.register != "" {
		return runRegistered(a, ctx, o)
	}
	if why := monitorLacks(); why != "" {
		return fmt.Errorf("guard monitor: %s", why)
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	m, err := a.openMonitor(o)
	if err != nil {
		if o.block && errors.Is(err, bpf.ErrNotSupported) {
			return fmt.Errorf("--block: writes cannot be refused here, and are not watched in its place: %w", err)
		}
		return err
	}
	defer m.close()
	live := !o.json && term.IsTerminal(int(a.stdout.Fd())) && term.IsTerminal(int(a.stdin.Fd()))
	return m.run(ctx, live)
}

// monitorLacks says why this process cannot watch others, "" if it can.
func monitorLacks() string {
	if why := kernelLacks(); why != "" {
		return why
	}
	if !firstPIDNamespace() {
		return "this is a pid namespace of its own (a container): the kernel counts processes otherwise; run it on the host, or with the host's pid namespace"
	}
	return ""
}

// leakAction is --on-leak as policy takes it.
func (o *monitorFlags) leakAction() *guard.Action {
	act := guard.Warn
	if o.block {
		act = guard.Block
	}
	return &act
}

// monitorChannel is what doctor says of guard monitor.
func monitorChannel(rep bpf.Report) channel {
	c := channel{"tls", supervisor.SourceKernel, "detect", "with guard monitor: what programs hand to OpenSSL, GnuTLS, Go's crypto/tls and Node before it is encrypted, and what any process of the machine writes"}
	why := monitorLacks()
	if err := rep.Need(bpf.Capabilities, bpf.BTF, bpf.RingBuffer, bpf.Tracepoint); err != nil {
		why = err.Error()
	} else if err := rep.Need(bpf.Loop, bpf.Uprobe); err != nil && why == "" {
		c.Power, c.Reason = "none", "guard monitor finds what any process of the machine writes, but not what it hands to a TLS library, nor formats: "+err.Error()
		return c
	}
	if why != "" {
		c.Power, c.Reason = "none", "guard monitor: "+why
	}
	return c
}
