package main

import (
	"context"
	"errors"
	"fmt"

	"guard/vault"
)

var initCommand = command{
	name: "init", args: "[--unlock keyring|passphrase|keyfile|age|systemd|transit] [--store URL]", short: "make the vault",
	example: "guard init\nguard init --store vault://vault.example.com/secret/guard --auth approle --role ROLE-ID --auth-file secret-id\nguard init --unlock keyfile --keyfile ~/.guard-key",
	run:     runInit,
}

func runInit(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	unlock := f.String("unlock", "", "how the vault is opened: keyring, passphrase, keyfile, age, systemd or transit (default: keyring where one answers, else asks); guard vault add makes further ways")
	var o slotFlags
	o.add(f)
	var so storeFlags
	so.add(f)
	f.StringVar(&so.url, "store", "", "vault://HOST[:PORT]/MOUNT[/PREFIX]: values are kept in that HashiCorp Vault or OpenBao (KV version 2), and leases come from it; guard vault store sets it later")
	if err := parse(f, args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return usagef("init takes no argument, got %q", f.Arg(0))
	}
	if so.url != "" {
		if _, err := parseStore(so.url); err != nil {
			return err
		}
	}
	if *unlock == "" {
		switch {
		case a.unlock.keyfile != "" || a.getenv("GUARD_KEYFILE") != "":
			*unlock = "keyfile"
		case a.unlock.passphraseFile != "" || a.getenv("GUARD_PASSPHRASE_FILE") != "":
			*unlock = "passphrase"
		}
	}
	offered, err := a.unlockers(true)
	if err != nil {
		return err
	}
	var v *vault.Vault
	switch *unlock {
	case "", "keyring":
		v, err = vault.Create(a.home(), vault.Keyring{})
		if err != nil && *unlock == "" && !errors.Is(err, vault.ErrExists) {
			a.say("no keychain answers (%v): the vault gets a passphrase", err)
			v, err = vault.Create(a.home(), askPassphrase)
			*unlock = "passphrase"
		} else {
			*unlock = "keyring"
		}
	case "passphrase", "keyfile":
		var u vault.Unlocker = askPassphrase
		for _, o := range offered {
			if o.Name() == *unlock {
				u = o
			}
		}
		if u.Name() != *unlock {
			return usagef("--unlock keyfile needs --keyfile PATH")
		}
		v, err = vault.Create(a.home(), u)
	case "age", "systemd", "transit":
		u, uerr := a.newUnlocker(*unlock, o)
		if uerr != nil {
			return uerr
		}
		v, err = vault.Create(a.home(), u)
	default:
		return usagef("--unlock %q: want keyring, passphrase, keyfile, age, systemd or transit", *unlock)
	}
	if err != nil {
		return err
	}
	defer v.Close()
	log, err := a.openAudit(v, nil)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(a.stdout, "vault made in %s, opened by %s\n", a.home(), *unlock)
	if so.url != "" {
		log.Close()
		ctx, cancel := context.WithTimeout(ctx, storeWait)
		defer cancel()
		if err := a.setStore(ctx, v, so); err != nil {
			return fmt.Errorf("%w (the vault is made: guard vault store URL sets its store)", err)
		}
	}
	return nil
}
