package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"guard/audit"
	"guard/vault"
)

var lockCommand = command{
	name: "lock", args: "", short: "lock the vault: every running session drops its keys, and nothing opens it but guard unlock",
	example: "guard lock", run: runLock,
}

var unlockCommand = command{
	name: "unlock", args: "", short: "open a locked vault, also for the sessions that run",
	example: "guard unlock\nguard unlock --passphrase-file /run/secrets/guard", run: runUnlock,
}

// lockWait bounds how long guard lock waits for the processes that have keys.
const lockWait = 10 * time.Second

func runLock(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	if err := parse(f, args); err != nil {
		return err
	}
	if f.NArg() != 0 {
		return usagef("lock takes no argument")
	}
	if err := a.outside("guard lock"); err != nil {
		return err
	}
	if !vault.Exists(a.home()) {
		return fmt.Errorf("%w in %s", vault.ErrNoVault, a.home())
	}
	if err := a.setLock("guard lock", time.Now()); err != nil {
		return err
	}
	return a.awaitShut()
}

// awaitShut waits until every process that had keys has dropped them.
func (a *app) awaitShut() error {
	var open []string
	total := 0
	for end := time.Now().Add(lockWait); ; time.Sleep(10 * time.Millisecond) {
		ids, err := a.holders()
		if err != nil {
			return err
		}
		total = max(total, len(ids))
		open = slices.DeleteFunc(ids, func(id string) bool {
			_, err := os.Lstat(a.lockPath(id + ticketEnd))
			return err == nil
		})
		if len(open) == 0 {
			a.say("locked. %d running guard processes dropped their keys; uses are refused until guard unlock", total)
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("locked, and these have not said that they dropped their keys: %s: they are stopped or hang, and use nothing more; end them", strings.Join(open, ", "))
		}
	}
}

func runUnlock(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	if err := parse(f, args); err != nil {
		return err
	}
	if f.NArg() != 0 {
		return usagef("unlock takes no argument")
	}
	if err := a.outside("guard unlock"); err != nil {
		return err
	}
	us, err := a.realUnlockers()
	if err != nil {
		return err
	}
	v, err := vault.Open(a.home(), us...)
	if err != nil {
		return err
	}
	defer v.Close()
	if err := a.checkGeneration(v); err != nil {
		return err
	}
	// People are asked before the others are kept waiting.
	waiting, err := a.tickets()
	if err != nil {
		return err
	}
	refused := map[string]bool{}
	for _, b := range waiting {
		names, err := vault.TicketContexts(b)
		if err != nil {
			continue
		}
		for _, name := range names {
			if refused[name] {
				continue
			}
			if err := a.openContext(v, name); err != nil {
				refused[name] = true
				a.say("what is in %s stays locked: %v", name, err)
			}
		}
	}
	n := 0
	if err := a.withLock(func() error {
		waiting, err := a.tickets()
		if err != nil {
			return err
		}
		for id, b := range waiting {
			answer, err := v.Admit(b)
			if errors.Is(err, vault.ErrSealed) {
				continue
			}
			if err != nil {
				a.say("%s is not a process that had the vault open, and stays locked: %v", id, err)
				continue
			}
			if err := writeFile(a.lockPath(id+answerEnd), answer); err != nil {
				return err
			}
			n++
		}
		a.keepUsed(time.Now())
		if err := os.Remove(a.lockPath(lockState)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}); err != nil {
		return err
	}
	if err := a.note(v, audit.Record{Type: "vault.unlock", Result: fmt.Sprintf("%d running processes", n)}); err != nil {
		return err
	}
	a.say("unlocked, with %d running guard processes", n)
	return nil
}

// realUnlockers are ways to open the vault that are the user's own act: what is named, a
// passphrase typed now, or, where there is only what opens by itself, a yes on the terminal.
func (a *app) realUnlockers() ([]vault.Unlocker, error) {
	if a.unlock.explicit(a) {
		return a.offers(nil)
	}
	slots, err := vault.Slots(a.home())
	if err != nil {
		return nil, err
	}
	if !term.IsTerminal(int(a.stdin.Fd())) {
		return nil, fmt.Errorf("%w: a keychain alone does not unlock; give --passphrase-file, --keyfile or --age-identity", errNoTerminal)
	}
	if slices.Contains(slots, "passphrase") {
		return []vault.Unlocker{askPassphrase}, nil
	}
	us, err := a.offers(slots)
	if err != nil || len(us) == 0 {
		return us, err
	}
	ok, err := confirm("guard: unlock the vault, also for the sessions that run?")
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errors.New("it stays locked")
	}
	return us, nil
}
