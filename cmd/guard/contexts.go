package main

import (
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"guard"
	"guard/audit"
	"guard/vault"
)

// What a daemon uses is in a context of its own beside the interactive one: it has its own key,
// placeholders, home, rules and records.
const (
	daemonContext      = "@daemon"
	profileInteractive = "interactive"
	profileDaemon      = "daemon"
)

func checkProfile(p string) error {
	if p != profileInteractive && p != profileDaemon {
		return usagef("--profile %q: want one of interactive, daemon", p)
	}
	return nil
}

// profileFlag adds --profile for commands that are about one context.
func profileFlag(f *pflag.FlagSet) *string {
	return f.String("profile", "", "whose credentials: interactive or daemon (default: interactive); daemon is short for --context ...@daemon")
}

// world is the context of this invocation for a profile, and the profile that it is for.
func (a *app) world(flag, profile string) (context, of string, err error) {
	if profile != "" {
		if err := checkProfile(profile); err != nil {
			return "", "", err
		}
	}
	if context, err = a.resolveContext(flag); err != nil {
		return "", "", err
	}
	switch daemon := strings.HasSuffix(context, daemonContext); {
	case daemon && profile == profileInteractive:
		return "", "", usagef("--context %s is the daemon's, and --profile says interactive", context)
	case daemon:
		return context, profileDaemon, nil
	case profile == profileDaemon:
		return context + daemonContext, profileDaemon, nil
	}
	return context, profileInteractive, nil
}

// homeName is the folder of a context in GUARD_HOME/homes. No name in a context has an @, so that
// no two contexts have the same.
func homeName(context string) string {
	name, daemon := strings.CutSuffix(context, daemonContext)
	name = strings.ReplaceAll(name, "/", "@")
	if daemon {
		name += "@@daemon"
	}
	return name
}

// contextFiles open sealed contexts.
func (a *app) contextFiles() []string {
	out := []string{a.unlock.contextPassphrase, a.unlock.contextKeyfile, a.getenv("GUARD_CONTEXT_PASSPHRASE_FILE"), a.getenv("GUARD_CONTEXT_KEYFILE")}
	return append(append(out, a.unlock.contextAge...), filepath.SplitList(a.getenv("GUARD_CONTEXT_AGE_IDENTITY"))...)
}

// openContext opens a context, if it is sealed, with what this invocation offers for it, or what is
// typed on the terminal. Nothing that opens the vault is tried.
func (a *app) openContext(v *vault.Vault, name string) error {
	seals, err := v.SealedContexts()
	if err != nil {
		return err
	}
	for _, s := range seals {
		if s.Context == name && !s.Open {
			return v.OpenContext(name, a.contextOffers(name, s)...)
		}
	}
	return nil
}

func (a *app) contextOffers(name string, s vault.ContextSeal) (us []vault.Unlocker) {
	or := func(flag, env string) string {
		if flag != "" {
			return flag
		}
		return a.getenv(env)
	}
	if kf := or(a.unlock.contextKeyfile, "GUARD_CONTEXT_KEYFILE"); kf != "" {
		us = append(us, vault.KeyFile{Path: kf})
	}
	if pf := or(a.unlock.contextPassphrase, "GUARD_CONTEXT_PASSPHRASE_FILE"); pf != "" {
		us = append(us, passphraseFile(pf))
	}
	age := a.age()
	age.Identities = a.unlock.contextAge
	if len(age.Identities) == 0 {
		age.Identities = filepath.SplitList(a.getenv("GUARD_CONTEXT_AGE_IDENTITY"))
	}
	if len(age.Identities) > 0 {
		us = append(us, age)
	}
	if len(us) > 0 {
		return us
	}
	for _, sl := range s.Slots {
		switch sl.Kind {
		case "systemd":
			if dir := a.getenv("CREDENTIALS_DIRECTORY"); dir != "" {
				us = append(us, vault.SystemdCredential{Dir: dir, ID: systemdContextID(name)})
			}
		case "passphrase":
			us = append(us, vault.Passphrase{Ask: func(bool) (guard.Secret, error) {
				lines, err := askHidden("guard: passphrase of context " + name + ": ")
				if err != nil {
					return guard.Secret{}, err
				}
				return guard.NewSecret(lines[0]), nil
			}})
		case "recovery":
			us = append(us, a.recovery())
		}
	}
	return us
}

func systemdContextID(context string) string { return "guard.context." + homeName(context) }

// sealFlags are what `context seal` takes.
type sealFlags struct {
	unlock, profile string
	recipients      []string
}

func (o *sealFlags) add(f *pflag.FlagSet) {
	f.StringVar(&o.unlock, "unlock", "", "seal: passphrase, keyfile, age, recovery or systemd; for a sealed context, one more way to open it")
	f.StringArrayVar(&o.recipients, "recipient", nil, "seal --unlock age: a recipient, age1..., an ssh public key or a plugin's (repeatable)")
	f.StringVar(&o.profile, "profile", "", "seal, unseal: the context of this profile, interactive or daemon (default: interactive)")
}

// outsideUnless refuses what a session may not do, which is all but one verb.
func (a *app) outsideUnless(verb, got string) error {
	if verb == got {
		return nil
	}
	return a.outside("guard context " + got)
}

func (a *app) sealContext(verb string, args []string, o sealFlags) error {
	if err := a.outside("guard context " + verb); err != nil {
		return err
	}
	if len(args) != 1 {
		return usagef("context %s needs one context", verb)
	}
	name, _, err := a.world(args[0], o.profile)
	if err != nil {
		return err
	}
	var u vault.Unlocker
	if verb == "seal" {
		if u, err = a.newSeal(name, o); err != nil {
			return err
		}
	}
	v, err := a.openVault()
	if err != nil {
		return err
	}
	defer v.Close()
	if verb == "unseal" {
		if err := a.openContext(v, name); err != nil {
			return err
		}
		if err := v.UnsealContext(name); err != nil {
			return err
		}
		if err := a.note(v, audit.Record{Type: "context.unseal", Context: name}); err != nil {
			return err
		}
		a.say("%s opens with the vault's key", name)
		return nil
	}
	seals, err := v.SealedContexts()
	if err != nil {
		return err
	}
	for _, s := range seals {
		if s.Context != name {
			continue
		}
		// Another way to open it than the new one, which opens nothing yet.
		opener := a.contextOffers(name, s)
		if u.Name() == "keyfile" || u.Name() == "passphrase" {
			b := *a
			b.unlock.contextKeyfile, b.unlock.contextPassphrase = "", ""
			opener = b.contextOffers(name, s)
		}
		if err := v.OpenContext(name, opener...); err != nil {
			return err
		}
	}
	if err := v.SealContext(name, u); err != nil {
		return err
	}
	if err := a.note(v, audit.Record{Type: "context.seal", Context: name, Resource: u.Name()}); err != nil {
		return err
	}
	a.say("%s is sealed: the vault's key does not open it without its %s. Copies of the vault made before open as they did", name, u.Name())
	return nil
}

// newSeal is for a slot of a context that is to be made.
func (a *app) newSeal(name string, o sealFlags) (vault.Unlocker, error) {
	switch o.unlock {
	case "passphrase":
		if pf := a.unlock.contextPassphrase; pf != "" {
			return passphraseFile(pf), nil
		}
		return askPassphrase, nil
	case "keyfile":
		if a.unlock.contextKeyfile == "" {
			return nil, usagef("seal --unlock keyfile needs --context-keyfile PATH")
		}
		return vault.KeyFile{Path: a.unlock.contextKeyfile, Create: true}, nil
	case "age":
		return a.newUnlocker("age", slotFlags{recipients: o.recipients})
	case "recovery":
		return a.recovery(), nil
	case "systemd":
		return vault.SystemdCredential{Dir: a.getenv("CREDENTIALS_DIRECTORY"), ID: systemdContextID(name)}, nil
	}
	return nil, usagef("seal --unlock %q: want passphrase, keyfile, age, recovery or systemd", o.unlock)
}
