package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"guard"
	"guard/audit"
	"guard/vault"
)

// checkProof checks a proof that guard audit prove made.
func (a *app) checkProof(file, key string, asJSON bool) error {
	b, err := a.readInput(file)
	if err != nil {
		return err
	}
	if key == "" {
		v, k, err := a.vaultKey()
		if err != nil {
			return err
		}
		if v == nil {
			return errors.New("a proof is checked with the log's public key: give --key (it is in key.pub beside the log), or open the vault")
		}
		v.Close()
		key = k
	}
	p, err := audit.CheckProof(b, key)
	if err != nil {
		return err
	}
	if asJSON {
		return a.printJSON(map[string]any{"ok": true, "size": p.Size, "root": p.Root, "record": p.Record})
	}
	fmt.Fprintf(a.stdout, "proven: record %d is in the log of %d records with root %s\n", p.Record.Seq, p.Size, p.Root)
	return audit.ShowRecord(a.stdout, p.Record)
}

// maxInput bounds what is read as one value or proof.
const maxInput = 1 << 20

func (a *app) readInput(file string) ([]byte, error) {
	r := io.Reader(a.stdin)
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err == nil && len(b) > maxInput {
		err = fmt.Errorf("more than %d bytes", maxInput)
	}
	return b, err
}

// fingerprintOf ties records to a version's value without holding it.
func (a *app) fingerprintOf(v *vault.Vault, id guard.SecretID) string {
	s, err := v.Get(id)
	if err != nil {
		return ""
	}
	defer s.Wipe()
	p, err := a.fingerprint(v, s)
	if err != nil {
		return ""
	}
	return p
}

func (a *app) fingerprint(v *vault.Vault, s guard.Secret) (string, error) {
	key, err := v.Key("fingerprint")
	if err != nil {
		return "", err
	}
	defer key.Wipe()
	return s.Fingerprint(key.Reveal()), nil
}

// used is what guard audit find says of one version of a credential.
type used struct {
	Credential  string    `json:"credential"`
	Context     string    `json:"context"`
	Version     int       `json:"version"`
	State       string    `json:"state"` // "stored": the vault has it; "gone"
	Stored      time.Time `json:"stored,omitzero"`
	Uses        int       `json:"uses"`
	Leaks       int       `json:"leaks"`
	FirstUse    time.Time `json:"first_use,omitzero"`
	LastUse     time.Time `json:"last_use,omitzero"`
	Hosts       []string  `json:"hosts"`
	Sessions    []string  `json:"sessions"`
	Fingerprint string    `json:"fingerprint"`
}

// findValue says whether a string on standard input is, or was, one of ours,
// and who used it. The string is not stored, and only its keyed hash is compared.
func (a *app) findValue(dir string, asJSON bool) error {
	b, err := a.readInput("-")
	if err != nil {
		return fmt.Errorf("read the value from standard input: %w", err)
	}
	s := guard.NewSecret(oneLine(b))
	defer s.Wipe()
	if s.Len() == 0 {
		return usagef("find reads a value from standard input, and it is empty")
	}
	v, err := a.openVault()
	if err != nil {
		return err
	}
	defer v.Close()
	print, err := a.fingerprint(v, s)
	if err != nil {
		return err
	}
	found := map[guard.SecretID]*used{}
	values, err := v.Values("")
	if err != nil {
		return err
	}
	for _, x := range values {
		if x.Class >= guard.Placeholder {
			continue
		}
		if p, err := a.fingerprint(v, x.Secret); err == nil && p == print {
			found[x.ID] = &used{State: "stored"}
		}
		x.Secret.Wipe()
	}
	if err := audit.Read(dir, audit.Filter{Fingerprint: print}, func(r audit.Record) error {
		id := guard.SecretID{Context: r.Context, Name: r.Credential, Version: r.Version}
		if found[id] == nil {
			found[id] = &used{State: "gone"}
		}
		if r.Type == "secret.set" || r.Type == audit.TypeRotation {
			found[id].Stored = r.Time
		}
		return nil
	}); err != nil {
		return err
	}
	ids := slices.SortedFunc(maps.Keys(found), func(x, y guard.SecretID) int { return strings.Compare(x.String(), y.String()) })
	for _, id := range ids {
		u := found[id]
		u.Credential, u.Context, u.Version, u.Fingerprint = id.Name, id.Context, id.Version, print
		hosts, sessions := map[string]bool{}, map[string]bool{}
		if err := audit.Read(dir, audit.Filter{Credential: id.Name, Context: id.Context}, func(r audit.Record) error {
			if r.Version != id.Version || r.Context != id.Context {
				return nil
			}
			switch {
			case r.Type == audit.TypeLeak:
				u.Leaks++
			case r.Type == audit.TypeUse && (r.Decision == guard.Pass.String() || r.Decision == guard.Warn.String()):
				u.Uses++
				if u.FirstUse.IsZero() {
					u.FirstUse = r.Time
				}
				u.LastUse = r.Time
				hosts[r.Host], sessions[r.Session] = true, true
			}
			return nil
		}); err != nil {
			return err
		}
		u.Hosts, u.Sessions = slices.Sorted(maps.Keys(hosts)), slices.Sorted(maps.Keys(sessions))
		if asJSON {
			if err := a.printJSON(u); err != nil {
				return err
			}
			continue
		}
		state := "the vault has it"
		if u.State == "gone" {
			state = "the vault no longer has it"
		}
		fmt.Fprintf(a.stdout, "yes: credential %s of context %s, version %d (%s)\n", u.Credential, u.Context, u.Version, state)
		if u.Uses > 0 {
			fmt.Fprintf(a.stdout, "  used %d times in %d sessions, from %s to %s, at %s\n", u.Uses, len(u.Sessions),
				u.FirstUse.Local().Format(time.DateTime), u.LastUse.Local().Format(time.DateTime), strings.Join(u.Hosts, ", "))
		} else {
			fmt.Fprintln(a.stdout, "  no use is recorded")
		}
		if u.Leaks > 0 {
			fmt.Fprintf(a.stdout, "  leaked %d times: guard audit show --type leak --credential %s\n", u.Leaks, u.Credential)
		}
	}
	if len(ids) == 0 {
		if !asJSON {
			fmt.Fprintln(a.stdout, "no: it is not in the vault, and no record is about it")
		}
		return nil
	}
	return exitError{code: 3}
}

// pruneAudit removes old files of the log, after it recorded that.
func (a *app) pruneAudit(keep string, own, asJSON bool) error {
	if !own {
		return usagef("prune works on guard's own log: --dir is for reading")
	}
	d, err := time.ParseDuration(keep)
	if err != nil || d <= 0 {
		return usagef("--keep %q: say how old records must be to be removed, such as 2160h", keep)
	}
	v, err := a.openVault()
	if err != nil {
		return err
	}
	defer v.Close()
	log, err := a.openAudit(v, nil)
	if err != nil {
		return err
	}
	p, err := log.Prune(time.Now().Add(-d))
	if err != nil {
		return errors.Join(err, log.Close())
	}
	if err := errors.Join(a.keepHead(v, log), log.Close()); err != nil {
		return err
	}
	if asJSON {
		return a.printJSON(p)
	}
	if p.Records == 0 {
		fmt.Fprintln(a.stdout, "nothing to remove: a file of the log goes when all of its records are that old, and the newest file stays")
		return nil
	}
	fmt.Fprintf(a.stdout, "removed %d records, up to number %d (%d bytes); a record says so, and their hashes stay\n", p.Records, p.Through, p.Bytes)
	return nil
}
