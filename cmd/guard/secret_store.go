package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"guard"
	"guard/audit"
	"guard/vault"
	"guard/vault/hashivault"
)

// setElsewhere stores a credential whose value is not kept in the vault file: in the
// team's store, as a reference into it, or as a lease. done is false if it belongs into the file.
func (a *app) setElsewhere(ctx context.Context, v *vault.Vault, cname, name string, o credentialFlags) (done bool, err error) {
	sources, err := v.Sources(cname)
	if err != nil {
		return false, err
	}
	had, elsewhere := sources[name]
	cr, err := v.Find(cname, name)
	fresh := errors.Is(err, vault.ErrNotFound)
	if err != nil && !fresh {
		return false, err
	}
	if !fresh && !elsewhere {
		if o.store != "" && o.store != "none" || o.lease != "" {
			return false, fmt.Errorf("%s has its value in the vault itself: guard secret rm %s first", name, name)
		}
		return false, nil
	}
	if o.store == "none" && o.lease == "" {
		if elsewhere {
			return false, fmt.Errorf("%s has its value elsewhere: guard secret rm %s first", name, name)
		}
		return false, nil
	}
	set, err := a.storeSettings(v)
	if errors.Is(err, errNoStore) && o.store == "" && o.lease == "" && !elsewhere {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if fresh {
		cr = guard.Credential{Name: name, Context: cname}
	} else {
		cr.Version, cr.Rotate = 0, ""
	}
	if err := o.apply(&cr); err != nil {
		return false, err
	}
	if o.rotate != "" {
		return false, usagef("--rotate: guard does not replace values that it does not keep: a lease is new in each session, and a store's value is changed with guard secret set")
	}
	ctx, cancel := context.WithTimeout(ctx, storeWait)
	defer cancel()
	switch {
	case o.lease != "":
		return true, a.setLease(ctx, v, set, cr, o)
	case o.store != "":
		return true, a.setReference(ctx, v, set, cr, o)
	case had.Lease != "":
		return false, usagef("%s is a lease: give --lease, or remove it first", name)
	case had.Field != "":
		return false, usagef("%s refers to a field in the store, which is changed there", name)
	}
	b, err := a.value(name, o)
	if err != nil {
		return false, err
	}
	s := guard.NewSecret(b)
	defer s.Wipe()
	st, err := set.open(ctx)
	if err != nil {
		return false, err
	}
	defer st.close()
	from := vault.Source{Path: cname + "/" + name}
	kv := st.kv(from)
	if cr.Kind == "" {
		cr.Kind = vault.GuessKind(s)
	}
	newest, err := kv.Newest(ctx, from.Path)
	if err != nil {
		return false, fmt.Errorf("store: %w", err)
	}
	// Metadata first: a value that nothing here leads to would be lost sight of.
	if cr, err = v.SetSource(cr, s, from); err != nil {
		return false, err
	}
	at, err := kv.Put(ctx, from.Path, newest, s)
	if errors.Is(err, vault.ErrConflict) {
		return false, fmt.Errorf("store: %w: run it again if yours is the newer value", err)
	}
	if err != nil {
		return false, fmt.Errorf("store: %w", err)
	}
	if newest > 0 && fresh {
		a.say("the store had a value of that name, which is its version %d now: was it a colleague's?", newest)
	}
	id, err := v.Hold(cname, name, s, vault.Held{At: at})
	if err != nil {
		return false, err
	}
	return true, a.saidElsewhere(v, id, cr, st.place.where(from), fmt.Sprintf("version %d", at))
}

// saidElsewhere records and says what was stored.
func (a *app) saidElsewhere(v *vault.Vault, id guard.SecretID, cr guard.Credential, where, what string) error {
	r := audit.Record{Type: "secret.set", Credential: cr.Name, Context: cr.Context, Version: id.Version, Resource: where}
	if id.Version > 0 {
		r.Fingerprint = a.fingerprintOf(v, id)
	}
	if err := a.note(v, r); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "stored %s (%s, %s) in context %s, its value at %s\n", cr.Name, cr.Kind, what, cr.Context, where)
	if len(cr.Hosts) == 0 {
		a.say("%s has no host yet, so it can be used nowhere: guard secret edit %s --host HOST", cr.Name, cr.Name)
	}
	return nil
}

// parseReference reads vault://MOUNT/PATH#FIELD.
func parseReference(s string) (vault.Source, error) {
	rest, ok := strings.CutPrefix(s, "vault://")
	place, field, ok2 := strings.Cut(rest, "#")
	mount, path, ok3 := strings.Cut(place, "/")
	if !ok || !ok2 || !ok3 || mount == "" || path == "" || field == "" {
		return vault.Source{}, usagef("--store: want vault://MOUNT/PATH#FIELD, a field of what is in the store that guard vault store names, or none to keep the value in the vault itself")
	}
	return vault.Source{Mount: mount, Path: path, Field: field}, nil
}

// setReference makes a credential of a field that is in the store already.
func (a *app) setReference(ctx context.Context, v *vault.Vault, set storeSettings, cr guard.Credential, o credentialFlags) error {
	if o.fromEnv != "" || o.fromFile != "" || o.fromRef != "" || o.stdin {
		return usagef("--store names where the value is: no other place for it goes with that")
	}
	from, err := parseReference(o.store)
	if err != nil {
		return err
	}
	st, err := set.open(ctx)
	if err != nil {
		return err
	}
	defer st.close()
	s, at, err := st.kv(from).Get(ctx, from.Path, 0)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer s.Wipe()
	if cr.Kind == "" {
		cr.Kind = vault.GuessKind(s)
	}
	if cr, err = v.SetSource(cr, s, from); err != nil {
		return err
	}
	id, err := v.Hold(cr.Context, cr.Name, s, vault.Held{At: at})
	if err != nil {
		return err
	}
	return a.saidElsewhere(v, id, cr, st.place.where(from), fmt.Sprintf("version %d", at))
}

// parseLease reads PATH[,KEY=VALUE]...
func parseLease(s string) (vault.Source, error) {
	path, rest, more := strings.Cut(s, ",")
	from := vault.Source{Lease: strings.Trim(path, "/")}
	certificate, err := hashivault.CheckLease(from.Lease)
	if err != nil {
		return from, usageError{fmt.Errorf("--lease: %w", err)}
	}
	if more {
		from.Params = map[string]string{}
		for kv := range strings.SplitSeq(rest, ",") {
			k, val, ok := strings.Cut(kv, "=")
			if !ok || k == "" {
				return from, usagef("--lease: want PATH[,KEY=VALUE]...")
			}
			from.Params[k] = val
		}
	}
	if certificate && from.Params["common_name"] == "" {
		return from, usagef("--lease %s: a certificate needs a name: %s,common_name=NAME", from.Lease, from.Lease)
	}
	return from, nil
}

// setLease makes a credential that is new in each session. The first one is taken and
// given back, so that what is wrong with it shows now.
func (a *app) setLease(ctx context.Context, v *vault.Vault, set storeSettings, cr guard.Credential, o credentialFlags) error {
	if o.fromEnv != "" || o.fromFile != "" || o.fromRef != "" || o.stdin || o.store != "" || o.user != "" || o.expires != "" {
		return usagef("--lease gets value, user and end from the store: no other place for them goes with it")
	}
	from, err := parseLease(o.lease)
	if err != nil {
		return err
	}
	st, err := set.open(ctx)
	if err != nil {
		return err
	}
	defer st.close()
	l, err := a.tryLease(ctx, v, st, from)
	if err != nil {
		return err
	}
	defer l.Value.Wipe()
	switch {
	case cr.Kind != "":
	case l.Serial != "":
		cr.Kind = "generic"
	case strings.Contains(string(from.Lease), "/sts/") || strings.HasPrefix(l.User, "AKIA") || strings.HasPrefix(l.User, "ASIA"):
		cr.Kind = "aws"
	default:
		return usagef("--lease %s: say what it is for with --kind postgres, mysql, mongodb, redis or aws", from.Lease)
	}
	// A sample, and no more: the user that goes with it has gone with it.
	sample := l.Value
	if cr.Kind == "aws" {
		sample = guard.Secret{}
	}
	if cr, err = v.SetSource(cr, sample, from); err != nil {
		return err
	}
	return a.saidElsewhere(v, guard.SecretID{}, cr, st.place.where(from), "new in each session")
}

// holdStored fetches a value that is in the store, for this process. It does nothing to a
// credential whose value is in the vault, and refuses a lease.
func (a *app) holdStored(ctx context.Context, v *vault.Vault, cname, name string) error {
	sources, err := v.Sources(cname)
	if err != nil {
		return err
	}
	from, ok := sources[name]
	if !ok {
		return nil
	}
	if from.Lease != "" {
		return fmt.Errorf("%s is a lease, new in each session: there is nothing to show", name)
	}
	ctx, cancel := context.WithTimeout(ctx, storeWait)
	defer cancel()
	st, err := a.openStore(ctx, v)
	if err != nil {
		return err
	}
	defer st.close()
	return st.hold(ctx, v, cname, name, from)
}

// hold fetches the newest value into locked memory.
func (s *store) hold(ctx context.Context, v *vault.Vault, cname, name string, from vault.Source) error {
	val, at, err := s.kv(from).Get(ctx, from.Path, 0)
	if err != nil {
		return fmt.Errorf("%s: store: %w", name, err)
	}
	defer val.Wipe()
	_, err = v.Hold(cname, name, val, vault.Held{At: at})
	return err
}

// keptWhere is a row for guard secret show: where the value is.
func (a *app) keptWhere(v *vault.Vault, cname, name string) string {
	sources, err := v.Sources(cname)
	from, ok := sources[name]
	if err != nil || !ok {
		return "in the vault"
	}
	set, err := a.storeSettings(v)
	if err != nil {
		return err.Error()
	}
	place, err := parseStore(set.URL)
	if err != nil {
		return err.Error()
	}
	return place.where(from)
}
