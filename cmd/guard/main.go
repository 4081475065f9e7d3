// Command guard runs an AI agent so that it can use credentials without ever
// seeing them. This package is the wiring: one file per command, and the only
// place where guard's parts meet.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"guard/internal/attack"
	"guard/supervisor/sandbox"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == argHelper {
		os.Exit(bpfHelper(os.Stdin, os.Stdout))
	}
	if gainedRights() {
		// The helper's copy, which anybody may run, is nothing but the helper.
		fmt.Fprintln(os.Stderr, "guard: this copy has rights of its own and is a part of guard run, not a command")
		os.Exit(exitUsage)
	}
	if len(os.Args) > 2 && os.Args[1] == attack.Argument {
		os.Exit(attack.Inside(os.Args[2:])) // the agent of guard doctor --attack
	}
	// Inside a sandbox this binary is also its first processes.
	if handled, code := sandbox.Stage(os.Args); handled {
		os.Exit(code)
	}
	// A reader that goes away ends that output, not guard: the session's end, its
	// records and rotations come after it. A handler is set, since ignoring the
	// signal would be inherited by the agent.
	catchBrokenPipe()
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv}
	os.Exit(a.run(context.Background(), os.Args[1:]))
}

// app is one invocation.
type app struct {
	stdin, stdout, stderr *os.File
	getenv                func(string) string
	unlock                unlockFlags
	acceptOld             bool // the user takes a vault that is older than the last one
}

// command is one row of guard's table.
type command struct {
	name    string
	args    string // after the name, in the usage line
	short   string
	example string
	exits   string // exit statuses besides 0, 1 and 2
	run     func(a *app, ctx context.Context, c *command, args []string) error
}

func commands() []command {
	return []command{
		initCommand, vaultCommand, secretCommand, importCommand, loginCommand, runCommand, execCommand, monitorCommand, contextCommand, requestCommand, grantCommand, lockCommand, unlockCommand, auditCommand, notifyCommand, policyCommand, scanCommand,
		rotateCommand, revokeCommand, incidentCommand, doctorCommand, statusCommand, versionCommand, completionCommand(),
		taskCommand, daemonCommand,
	}
}

// Exit statuses. `guard run` has more of its own: see its help.
const (
	exitDone    = 0
	exitRefused = 1
	exitUsage   = 2
)

// usageError is a wrong flag or argument.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, v ...any) error { return usageError{fmt.Errorf(format, v...)} }

// exitError ends guard with a status and, if err is set, a message.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}
func (e exitError) Unwrap() error { return e.err }

// run is guard: everything that ends it comes back here.
func (a *app) run(ctx context.Context, args []string) int {
	err := a.dispatch(ctx, args)
	var exit exitError
	var usage usageError
	switch {
	case err == nil, errors.Is(err, pflag.ErrHelp):
		return exitDone
	case errors.As(err, &exit):
		if exit.err != nil {
			a.complain(exit.err)
		}
		return exit.code
	case errors.As(err, &usage):
		a.complain(err)
		return exitUsage
	}
	a.complain(err)
	return exitRefused
}

func (a *app) complain(err error) {
	fmt.Fprintf(a.stderr, "guard: %v\n", err)
	if h := hint(err); h != "" {
		fmt.Fprintf(a.stderr, "guard: hint: %s\n", h)
	}
}

func (a *app) dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		usage(a.stderr)
		return exitError{code: exitUsage}
	}
	name := args[0]
	switch name {
	case "-h", "--help", "help":
		if len(args) > 1 {
			for _, c := range commands() {
				if c.name == args[1] {
					return c.run(a, ctx, &c, []string{"--help"})
				}
			}
		}
		usage(a.stdout)
		return nil
	case "--version":
		name = "version"
	}
	for _, c := range commands() {
		if c.name != name {
			continue
		}
		if name != "run" && name != "doctor" { // they start namespaces first
			if err := sandbox.Harden(); err != nil {
				return fmt.Errorf("make guard undumpable: %w", err)
			}
		}
		return c.run(a, ctx, &c, args[1:])
	}
	return usagef("unknown command %q (see guard --help)%s", name, nearest(name))
}

func nearest(name string) string {
	for _, c := range commands() {
		if strings.HasPrefix(c.name, name) || strings.HasPrefix(name, c.name) || sameLetters(c.name, name) {
			return fmt.Sprintf("; did you mean %q?", c.name)
		}
	}
	return ""
}

func sameLetters(a, b string) bool {
	x, y := []byte(a), []byte(b)
	slices.Sort(x)
	slices.Sort(y)
	return string(x) == string(y)
}

func usage(w io.Writer) {
	fmt.Fprint(w, `guard runs an AI agent so that it can use credentials without ever seeing them.

Usage:
  guard COMMAND [FLAGS] [ARGS]

Commands:
`)
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-11s %s\n", c.name, c.short)
	}
	fmt.Fprint(w, `
First steps:
  guard init
  guard secret set github-pat --kind github-pat
  guard run --allow github-pat -- claude

guard COMMAND --help has flags, an example and the exit statuses.
`)
}

// flags makes the flag set of c, with what every command that opens the vault takes.
func (a *app) flags(c *command) *pflag.FlagSet {
	f := pflag.NewFlagSet("guard "+c.name, pflag.ContinueOnError)
	f.SortFlags = false
	f.SetOutput(a.stderr)
	f.Usage = func() {
		w := a.stdout
		fmt.Fprintf(w, "%s\n\nUsage:\n  guard %s %s\n", c.short, c.name, c.args)
		if f.HasFlags() {
			fmt.Fprintf(w, "\nFlags:\n%s", f.FlagUsages())
		}
		if c.example != "" {
			fmt.Fprintf(w, "\nExample:\n%s", indent(c.example))
		}
		fmt.Fprintf(w, "\nExit status:\n  0 done, 1 refused or failed, 2 usage%s\n", c.exits)
	}
	f.StringVar(&a.unlock.passphraseFile, "passphrase-file", "", "read the vault's passphrase from this file")
	f.StringVar(&a.unlock.keyfile, "keyfile", "", "open the vault with this key file")
	f.StringArrayVar(&a.unlock.age, "age-identity", nil, "open the vault with an identity in this file, age's or an ssh key (repeatable)")
	f.BoolVar(&a.unlock.recovery, "recovery", false, "ask for the recovery code to open the vault")
	f.StringVar(&a.unlock.contextPassphrase, "context-passphrase-file", "", "open a sealed context with the passphrase in this file")
	f.StringVar(&a.unlock.contextKeyfile, "context-keyfile", "", "open a sealed context with this key file")
	f.StringArrayVar(&a.unlock.contextAge, "context-age-identity", nil, "open a sealed context with an identity in this file, age's or an ssh key (repeatable)")
	return f
}

// parse parses args and turns pflag's errors into usage errors.
func parse(f *pflag.FlagSet, args []string) error {
	err := f.Parse(args)
	if err != nil && !errors.Is(err, pflag.ErrHelp) {
		return usageError{fmt.Errorf("%w (see %s --help)", err, f.Name())}
	}
	return err
}

func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n  ") + "\n"
}
