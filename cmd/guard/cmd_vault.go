package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"guard"
	"guard/audit"
	"guard/vault"
)

var vaultCommand = command{
	name: "vault", args: "ls | add SLOT | rm SLOT | rekey | backup FILE | verify FILE | restore FILE | accept | idle DURATION | store [URL|none] | leases", short: "ways to open the vault, its master key, backups",
	example: "guard vault add recovery\nguard vault add age --recipient age1...\nguard vault rekey --drop keyfile\nguard vault backup /media/stick/guard.gv1\n" +
		"guard vault store vault://vault.example.com/secret/guard --ca ca.pem",
	run: runVault,
}

// slotKinds are what opens a vault.
const slotKinds = "keyring, passphrase, keyfile, recovery, age, systemd or transit"

// slotFlags are what a new slot may need to know.
type slotFlags struct {
	recipients                 []string
	transitKey, transitMount   string
	systemdID                  string
	drop                       []string
	json, other, renewKeychain bool
}

func (o *slotFlags) add(f *pflag.FlagSet) {
	f.StringArrayVar(&o.recipients, "recipient", nil, "age: a recipient, age1..., an ssh public key or a plugin's (repeatable)")
	f.StringVar(&o.transitKey, "transit-key", "", "transit: name of the key in the transit engine of the Vault or OpenBao at $VAULT_ADDR")
	f.StringVar(&o.transitMount, "transit-mount", "transit", "transit: where the engine is mounted")
}

func runVault(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	var o slotFlags
	o.add(f)
	f.StringArrayVar(&o.drop, "drop", nil, "rekey: a slot that does not get the new key (repeatable)")
	var so storeFlags
	so.add(f)
	f.BoolVar(&o.other, "other", false, "restore: also over another vault than the one in the backup")
	f.BoolVar(&o.json, "json", false, "ls: one JSON object a slot; verify, restore: one JSON object")
	if err := parse(f, args); err != nil {
		return err
	}
	want := map[string]int{"ls": 1, "rekey": 1, "add": 2, "rm": 2, "backup": 2, "verify": 2, "restore": 2, "accept": 1, "idle": 2, "store": 2, "leases": 1}
	verb := f.Arg(0)
	if n, ok := want[verb]; !ok || f.NArg() != n && !(verb == "store" && f.NArg() == 1) {
		return usagef("vault wants %s", c.args)
	}
	if err := a.outside("guard vault"); err != nil {
		return err
	}
	switch verb {
	case "idle":
		if err := a.setIdle(f.Arg(1)); err != nil {
			return err
		}
		a.say("idle_lock = %s, in %s: of sessions that start from now on", f.Arg(1), a.configPath())
		return nil
	case "verify", "restore":
		return a.vaultRestore(o, verb == "restore", f.Arg(1))
	}
	a.acceptOld = verb == "accept"
	var u vault.Unlocker
	if verb == "add" {
		// What the new slot is made with does not open the vault yet.
		var err error
		if u, err = a.newUnlocker(f.Arg(1), o); err != nil {
			return err
		}
		switch f.Arg(1) {
		case "passphrase":
			a.unlock.passphraseFile = ""
		case "keyfile":
			a.unlock.keyfile = ""
		}
	}
	v, err := a.openVault()
	if err != nil {
		return err
	}
	defer v.Close()
	switch verb {
	case "accept":
		return a.vaultAccept(v)
	case "ls":
		return a.vaultSlots(v, o)
	case "store":
		so.url = f.Arg(1)
		return a.vaultStore(ctx, v, so)
	case "leases":
		return a.vaultLeases(ctx, v)
	case "add":
		if err := v.AddSlot(u); err != nil {
			return err
		}
		if err := a.note(v, audit.Record{Type: "vault.slot.add", Resource: u.Name()}); err != nil {
			return err
		}
		a.say("the vault opens with %s too", u.Name())
		return nil
	case "rm":
		if err := v.RemoveSlot(f.Arg(1)); err != nil {
			return err
		}
		if err := a.note(v, audit.Record{Type: "vault.slot.rm", Resource: f.Arg(1)}); err != nil {
			return err
		}
		if f.Arg(1) == "keyring" {
			if err := (vault.Keyring{}).Forget(v.ID()); err != nil {
				a.say("the keychain's key could not be removed, and opens nothing any more: %v", err)
			}
		}
		a.say("%s opens the vault no more. Copies of the file made before do open with it: guard vault rekey, and guard rotate what may be in other hands", f.Arg(1))
		return nil
	case "backup":
		if err := v.Backup(f.Arg(1)); err != nil {
			return err
		}
		if err := a.note(v, audit.Record{Type: "vault.backup", Path: f.Arg(1)}); err != nil {
			return err
		}
		a.say("backed up to %s, sealed as the vault is: it opens with the same slots. A key file, a keychain or an identity is not in it", f.Arg(1))
		return nil
	}
	return a.vaultRekey(v, o)
}

// vaultAccept takes a vault that is older than what was seen, on the user's word: its
// generation goes above all that is remembered.
func (a *app) vaultAccept(v *vault.Vault) error {
	seen, err := a.seen(v)
	if err != nil {
		return err
	}
	was := v.Generation()
	if was >= seen {
		a.say("the vault is not older than what was seen: there is nothing to accept")
		return nil
	}
	if err := v.Advance(seen + 1); err != nil {
		return err
	}
	if err := a.note(v, audit.Record{Type: "vault.accept", Result: fmt.Sprintf("generation %d, after %d", was, seen)}); err != nil {
		return err
	}
	a.say("accepted. Values that were replaced since may be in it: guard rotate --due finishes what is open, guard secret ls shows versions")
	return nil
}

func (a *app) vaultSlots(v *vault.Vault, o slotFlags) error {
	slots, err := v.SlotInfos()
	if err != nil {
		return err
	}
	seals, err := v.SealedContexts()
	if err != nil {
		return err
	}
	of := map[string]string{}
	for _, c := range seals {
		for _, s := range c.Slots {
			s.Name = c.Context + ":" + s.Name
			of[s.Name] = strings.TrimSpace("context " + c.Context + " " + slotWords(s))
			slots = append(slots, s)
		}
	}
	rows := [][]string{{"SLOT", "KIND", "OF"}}
	for _, s := range slots {
		of := cmp.Or(of[s.Name], slotWords(s))
		if o.json {
			if err := a.printJSON(struct {
				Slot string `json:"slot"`
				Kind string `json:"kind"`
				Of   string `json:"of,omitempty"`
			}{s.Name, s.Kind, of}); err != nil {
				return err
			}
		}
		rows = append(rows, []string{s.Name, s.Kind, of})
	}
	if o.json {
		return nil
	}
	return a.table(rows)
}

// slotWords says whose a slot is, as far as its parameters do.
func slotWords(s vault.SlotInfo) string {
	var p struct {
		Recipients       []string `json:"recipients"`
		Addr, Mount, Key string
	}
	if json.Unmarshal(s.Params, &p) != nil {
		return ""
	}
	switch s.Kind {
	case "age":
		return strings.Join(p.Recipients, ", ")
	case "transit":
		return p.Key + " of " + p.Mount + " at " + p.Addr
	}
	return ""
}

// newUnlocker is for a slot that is to be made.
func (a *app) newUnlocker(kind string, o slotFlags) (vault.Unlocker, error) {
	switch kind {
	case "keyring":
		return vault.Keyring{}, nil
	case "passphrase":
		pf := a.unlock.passphraseFile
		if pf == "" && a.getenv("GUARD_KEYFILE") != "" {
			pf = a.getenv("GUARD_PASSPHRASE_FILE")
		}
		if pf != "" {
			return passphraseFile(pf), nil
		}
		return askPassphrase, nil
	case "keyfile":
		kf := a.unlock.keyfile
		if kf == "" {
			kf = a.getenv("GUARD_KEYFILE")
		}
		if kf == "" {
			return nil, usagef("a keyfile needs --keyfile PATH")
		}
		return vault.KeyFile{Path: kf, Create: true}, nil
	case "recovery":
		return a.recovery(), nil
	case "age":
		if len(o.recipients) == 0 {
			return nil, usagef("age needs --recipient: `age-keygen` makes an identity and prints it")
		}
		return vault.Age{Recipients: o.recipients, Say: func(s string) { a.say("%s", s) }}, nil
	case "systemd":
		return vault.SystemdCredential{Dir: a.getenv("CREDENTIALS_DIRECTORY")}, nil
	case "transit":
		if o.transitKey == "" {
			return nil, usagef("transit needs --transit-key NAME")
		}
		t, err := a.transit()
		t.Key, t.Mount = o.transitKey, o.transitMount
		return t, err
	}
	return nil, usagef("%q: want %s", kind, slotKinds)
}

// recovery shows a code on the terminal, and asks for it there.
func (a *app) recovery() vault.Recovery {
	return vault.Recovery{
		Show: func(code guard.Secret) error {
			tty, err := openTTY()
			if err != nil {
				return fmt.Errorf("a recovery code is shown on a terminal and nowhere else: %w", err)
			}
			defer tty.Close()
			b := []byte("\nguard: recovery code. Write it down: it is not shown again, and opens the vault by itself.\n\n    ")
			b = append(append(b, code.Reveal()...), "\n\n"...)
			defer clear(b)
			_, err = tty.Write(b)
			return err
		},
		Ask: func() (guard.Secret, error) {
			lines, err := askHidden("guard: recovery code: ")
			if err != nil {
				return guard.Secret{}, err
			}
			return guard.NewSecret(lines[0]), nil
		},
	}
}

// transit is the server that the environment names, as Vault's own program takes it.
func (a *app) transit() (vault.Transit, error) {
	t := vault.Transit{Addr: a.getenv("VAULT_ADDR"), Namespace: a.getenv("VAULT_NAMESPACE")}
	b, err := os.ReadFile(a.transitToken())
	if err != nil {
		return t, fmt.Errorf("transit: the token's file: %w", err)
	}
	t.Token = guard.NewSecret(oneLine(b))
	return t, nil
}

func (a *app) transitToken() string {
	if f := a.getenv("GUARD_TRANSIT_TOKEN_FILE"); f != "" {
		return f
	}
	return filepath.Join(a.userHome(), ".vault-token")
}

// age are the identities that this invocation offers.
func (a *app) age() vault.Age {
	ids := a.unlock.age
	if len(ids) == 0 && a.getenv("GUARD_AGE_IDENTITY") != "" {
		ids = filepath.SplitList(a.getenv("GUARD_AGE_IDENTITY"))
	}
	return vault.Age{
		Identities: ids,
		Ask: func(prompt string) (guard.Secret, error) {
			lines, err := askHidden("guard: " + prompt + ": ")
			if err != nil {
				return guard.Secret{}, err
			}
			return guard.NewSecret(lines[0]), nil
		},
		Say: func(s string) { a.say("%s", s) },
	}
}

// vaultRekey makes a new master key for all slots that are not dropped.
func (a *app) vaultRekey(v *vault.Vault, o slotFlags) error {
	slots, err := v.SlotInfos()
	if err != nil {
		return err
	}
	for _, d := range o.drop {
		if !slices.ContainsFunc(slots, func(s vault.SlotInfo) bool { return s.Name == d }) {
			return fmt.Errorf("--drop %s: there is no such slot: guard vault ls", d)
		}
	}
	err = v.Rekey(func(s vault.SlotInfo) (vault.Again, error) {
		if slices.Contains(o.drop, s.Name) {
			return vault.Again{}, nil
		}
		u, enrol, err := a.unlockerOf(s)
		return vault.Again{Unlocker: u, Enrol: enrol}, err
	})
	if err != nil {
		return fmt.Errorf("%w (a slot that cannot be opened now can be left out with --drop SLOT)", err)
	}
	if err := a.note(v, audit.Record{Type: "vault.rekey", Reason: "without: " + strings.Join(o.drop, ", ")}); err != nil {
		return err
	}
	a.say("the vault has a new master key. Sessions that are open have to be started anew")
	return nil
}

// unlockerOf gets a slot that is there through a re-key.
func (a *app) unlockerOf(s vault.SlotInfo) (u vault.Unlocker, enrol bool, err error) {
	switch s.Kind {
	case "keyring":
		return vault.Keyring{}, false, nil
	case "keyfile":
		u, err := a.newUnlocker("keyfile", slotFlags{})
		return u, false, err
	case "passphrase":
		if pf := a.unlock.newPassphraseFile(a); pf != "" {
			return passphraseFile(pf), false, nil
		}
		return askPassphrase, false, nil
	case "recovery":
		return a.recovery(), true, nil // a new code, which is shown
	case "age":
		var p struct {
			Recipients []string `json:"recipients"`
		}
		err := json.Unmarshal(s.Params, &p)
		return vault.Age{Recipients: p.Recipients, Say: func(s string) { a.say("%s", s) }}, true, err
	case "systemd":
		return vault.SystemdCredential{Dir: a.getenv("CREDENTIALS_DIRECTORY")}, false, nil
	case "transit":
		var p struct{ Mount, Key string }
		if err := json.Unmarshal(s.Params, &p); err != nil {
			return nil, false, err
		}
		t, err := a.transit()
		t.Mount, t.Key = p.Mount, p.Key
		return t, true, err
	}
	return nil, false, errors.New("this guard does not know that kind")
}

// setAside moves another vault than the one with this id out of the way, with its log
// and all else that only it opens: nothing of it is lost.
func (a *app) setAside(id string) error {
	old, err := vault.IDOf(a.home())
	if errors.Is(err, vault.ErrNoVault) || err == nil && old == id {
		return nil
	}
	if err != nil {
		old = "unreadable"
	}
	to, err := os.MkdirTemp(a.home(), "replaced-"+old[:min(len(old), 10)]+"-")
	if err != nil {
		return err
	}
	// The vault last: until then, it is there.
	for _, name := range []string{"audit.head", "audit", "rotate", "incidents", "originals", "vault.gv1.bak", "vault.gv1"} {
		if err := os.Rename(filepath.Join(a.home(), name), filepath.Join(to, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set the other vault aside: %w", err)
		}
	}
	a.say("the other vault, and its log, are in %s", to)
	return nil
}

// vaultRestore looks through a backup, and puts it in the vault's place.
func (a *app) vaultRestore(o slotFlags, restore bool, path string) error {
	us, err := a.offers([]string{"keyring", "age", "systemd", "transit"})
	if err != nil {
		return err
	}
	us = append(us, a.contextOffers("", vault.ContextSeal{})...) // for seals
	if !a.unlock.explicit(a) {
		us = append(us, askPassphrase)
	}
	var c vault.Contents
	if c, err = vault.Verify(path, us...); err != nil {
		return err
	}
	if restore {
		if o.other {
			if err := a.setAside(c.Vault); err != nil {
				return err
			}
		}
		if c, err = vault.Restore(a.home(), path, false, us...); err != nil {
			return err
		}
	}
	if o.json {
		return a.printJSON(map[string]any{"vault": c.Vault, "generation": c.Generation, "contexts": c.Contexts, "values": c.Values, "sealed": c.Sealed})
	}
	what := "every value in it was decrypted"
	if restore {
		v, err := vault.Open(a.home(), us...)
		if err != nil {
			return err
		}
		defer v.Close()
		if seen, err := a.seen(v); err != nil {
			return err
		} else if err := v.Advance(seen + 1); err != nil {
			return err
		}
		if err := a.note(v, audit.Record{Type: "vault.restore", Path: path, Result: fmt.Sprintf("generation %d", c.Generation)}); err != nil {
			return err
		}
		what = "restored, after " + what
	}
	if len(c.Sealed) > 0 {
		a.say("these are sealed by keys of their own and were not looked into: %s", strings.Join(c.Sealed, ", "))
	}
	a.say("%s: %d values in %d contexts, generation %d", what, c.Values, c.Contexts, c.Generation)
	return nil
}
