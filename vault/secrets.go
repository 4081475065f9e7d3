package vault

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"guard"
)

const (
	minValue = 8
	maxValue = 64 << 10

	// defaultContext is where a credential goes if the user named no context.
	defaultContext = "default"
)

var (
	namePattern    = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	contextPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(/[A-Za-z0-9][A-Za-z0-9._-]{0,63})?(@daemon)?$`)
	envPattern     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
	hostPattern    = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9_\[\]:-]+(\.[A-Za-z0-9_-]+)*\.?(:[0-9]{1,5})?$`)
)

// Set stores s as the current version of c.Name in c.Context, and returns the
// credential as stored. The version before it becomes Retiring; a value that
// is the current one already makes no new version.
//
// For a credential that is new, empty Kind is guessed from the value, and
// empty Hosts, Env, In and User are the kind's. For one that is there, empty
// fields keep what they have. Version, Placeholder, Created and Updated are
// assigned. The value is 8 bytes to 64 KiB: ErrTooShort, since a shorter one
// would be found everywhere in output, and ErrTooLong. s stays the caller's.
func (v *Vault) Set(c guard.Credential, s guard.Secret) (guard.Credential, error) {
	if c.Context == "" {
		c.Context = defaultContext
	}
	if c.Decoy {
		return guard.Credential{}, fmt.Errorf("credential %q: %w", c.Name, ErrDecoy)
	}
	return v.set(c, s, nil, nil)
}

// set is Set; issued, where there is one, is kept with the credential, and after, where
// there is one, must be the version before this one (ErrConflict).
func (v *Vault) set(c guard.Credential, s guard.Secret, issued *Issued, after *int) (guard.Credential, error) {
	plain := s.Reveal()
	if err := checkValue(c.Name, plain); err != nil {
		return guard.Credential{}, err
	}
	if c.Kind != "" {
		if _, ok := KindByName(c.Kind); !ok {
			return guard.Credential{}, fmt.Errorf("credential %q: unknown kind %q", c.Name, c.Kind)
		}
	}
	if err := check(c); err != nil {
		return guard.Credential{}, err
	}
	var out guard.Credential
	err := v.edit(c.Context, true, func(seg *segment, ck []byte) error {
		e := seg.entry(c.Name)
		if e != nil && e.Source != nil {
			return fmt.Errorf("credential %q: %w: remove it first to keep one here", c.Name, ErrElsewhere)
		}
		if after != nil && (e == nil && *after != 0 || e != nil && *after != e.Meta.Version) {
			return fmt.Errorf("credential %q: %w", c.Name, ErrConflict)
		}
		if e == nil {
			fresh := entry{Meta: complete(c, plain), Last: seg.Gone[c.Name], Issued: issued}
			if issued != nil {
				fresh.Meta.Env = "" // it must not take the place of what the user put there
			}
			fresh.Meta.Created = now()
			var err error
			if fresh.Meta.Placeholder, err = placeholder(deriveKeep(ck, "placeholder"), c.Name, plain); err != nil {
				return fmt.Errorf("credential %q: %w", c.Name, err)
			}
			delete(seg.Gone, c.Name)
			seg.Credentials = append(seg.Credentials, fresh)
			e = &seg.Credentials[len(seg.Credentials)-1]
		} else {
			if e.Meta.Decoy {
				return fmt.Errorf("credential %q: %w", c.Name, ErrDecoy)
			}
			if issued != nil {
				if e.Issued == nil {
					return fmt.Errorf("credential %q: %w, and was not issued in a session", c.Name, ErrExists)
				}
				e.Issued = issued
				e.expire(now())
			} else {
				e.Meta = merge(e.Meta, c, plain)
			}
		}
		if err := checkKind(c.Name, e.Meta.Kind, plain); err != nil {
			return err
		}
		e.Meta.Updated = now()
		if cur := e.version(0); cur != nil {
			old, err := v.value(e, cur, ck)
			if err != nil {
				return err
			}
			same := bytes.Equal(old, plain)
			clear(old)
			if same && cur.State == Current {
				out = e.Meta
				return check(out)
			}
			if cur.State == Current {
				cur.State = Retiring
			}
		}
		e.Meta.Version = v.put(e, ck, plain, Current).Number
		out = e.Meta
		return check(out)
	})
	if err != nil {
		return guard.Credential{}, err
	}
	return cloneMeta(out), nil
}

func checkValue(name string, plain []byte) error {
	if len(plain) < minValue {
		return fmt.Errorf("credential %q: %w: %d bytes where at least %d are needed to tell it from ordinary text in output",
			name, ErrTooShort, len(plain), minValue)
	}
	if len(plain) > maxValue {
		return fmt.Errorf("credential %q: %w: more than %d KiB", name, ErrTooLong, maxValue>>10)
	}
	return nil
}

// check validates what is stored about a credential.
func check(c guard.Credential) error {
	if !namePattern.MatchString(c.Name) {
		return fmt.Errorf("credential name %q: want a-z, 0-9, '.', '_' and '-', starting with a letter or digit, at most 64", c.Name)
	}
	if !contextPattern.MatchString(c.Context) {
		return fmt.Errorf("context %q: want PROJECT or PROJECT/ENVIRONMENT, each of letters, digits, '.', '_' and '-', and @daemon for the daemon's", c.Context)
	}
	if c.Env != "" && !envPattern.MatchString(c.Env) {
		return fmt.Errorf("credential %q: %q is no name for an environment variable", c.Name, c.Env)
	}
	for _, h := range c.Hosts {
		if !hostPattern.MatchString(h) || strings.HasPrefix(h, "*.") && !narrow(h[2:]) {
			return fmt.Errorf("credential %q: host %q: want HOST, HOST:PORT, *.EXAMPLE.COM, or of a private network *.internal, *.local, *.lan, *.intranet or *.corp", c.Name, h)
		}
	}
	for _, p := range c.In {
		if _, err := guard.ParsePosition(p.String()); err != nil {
			return fmt.Errorf("credential %q: %w", c.Name, err)
		}
	}
	return nil
}

// narrow says whether a wildcard over suffix, which may have a port, leaves out other
// people's names, as policy.CheckHost has it: two labels, or one that no registry gives out.
func narrow(suffix string) bool {
	name, _, _ := strings.Cut(suffix, ":")
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return strings.Contains(name, ".") || slices.Contains([]string{"local", "internal", "lan", "intranet", "corp"}, name)
}

func cloneMeta(c guard.Credential) guard.Credential {
	c.Hosts, c.In, c.Scopes = slices.Clone(c.Hosts), slices.Clone(c.In), slices.Clone(c.Scopes)
	return c
}

// complete fills what a new credential's user left open.
func complete(c guard.Credential, plain []byte) guard.Credential {
	c = cloneMeta(c)
	if c.Kind == "" {
		c.Kind = guessKind(plain)
	}
	d := defaults(c.Kind, plain)
	if len(c.Hosts) == 0 {
		c.Hosts = d.Hosts
	}
	if c.Env == "" {
		c.Env = d.Env
	}
	if len(c.In) == 0 {
		c.In = d.In
	}
	if c.User == "" {
		c.User = d.User
	}
	return c
}

// merge lays what the user says now over what is stored. Where the kind
// changes, what came from the old kind goes: the new kind's hosts come instead,
// so that a value is not sent to the old one's.
func merge(have, c guard.Credential, plain []byte) guard.Credential {
	out := cloneMeta(have)
	if c.Kind != "" && c.Kind != have.Kind {
		old := defaults(have.Kind, plain)
		if slices.Equal(out.Hosts, old.Hosts) {
			out.Hosts = nil
		}
		if slices.Equal(out.In, old.In) {
			out.In = nil
		}
		if out.Env == old.Env {
			out.Env = ""
		}
		if out.User == old.User {
			out.User = ""
		}
		out.Kind = c.Kind
		out = complete(out, plain)
	}
	if len(c.Hosts) > 0 {
		out.Hosts = slices.Clone(c.Hosts)
	}
	if c.Env != "" {
		out.Env = c.Env
	}
	if len(c.In) > 0 {
		out.In = slices.Clone(c.In)
	}
	if len(c.Scopes) > 0 {
		out.Scopes = slices.Clone(c.Scopes)
	}
	if !c.Expires.IsZero() {
		out.Expires = c.Expires
	}
	if c.Rotate != "" {
		out.Rotate = c.Rotate
	}
	if c.User != "" {
		out.User = c.User
	}
	return out
}

// Edit lets f change what is stored about a credential besides its value.
// Name, Context, Version, Placeholder, Decoy and Created stay as they are. f must not
// call v. ErrNotFound.
func (v *Vault) Edit(context, name string, f func(*guard.Credential) error) (guard.Credential, error) {
	var out guard.Credential
	err := v.edit(inContext(context), false, func(seg *segment, _ []byte) error {
		e := seg.entry(name)
		if e == nil {
			return notFound(context, name)
		}
		c := cloneMeta(e.Meta)
		if err := f(&c); err != nil {
			return err
		}
		m := e.Meta
		c.Name, c.Context, c.Version, c.Placeholder, c.Decoy, c.Created = m.Name, m.Context, m.Version, m.Placeholder, m.Decoy, m.Created
		if _, ok := KindByName(c.Kind); !ok {
			return fmt.Errorf("credential %q: unknown kind %q", name, c.Kind)
		}
		if err := check(c); err != nil {
			return err
		}
		c.Updated = now()
		e.Meta = cloneMeta(c)
		out = c
		return nil
	})
	return out, err
}

func inContext(c string) string {
	if c == "" {
		return defaultContext
	}
	return c
}

func notFound(context, name string) error {
	return fmt.Errorf("credential %q in context %q: %w", name, inContext(context), ErrNotFound)
}

// Find returns what is known about a credential, without its value.
// ErrNotFound.
func (v *Vault) Find(context, name string) (guard.Credential, error) {
	var out guard.Credential
	err := v.view(inContext(context), name, func(e *entry, _ []byte) error {
		out = v.meta(e)
		return nil
	})
	return out, err
}

// view hands one credential to f, which must not change it.
func (v *Vault) view(context, name string, f func(e *entry, ck []byte) error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.refresh(); err != nil {
		return err
	}
	if e := v.lentEntry(context, name); e != nil {
		ck, err := v.openLent()
		if err != nil {
			return err
		}
		return f(e, ck)
	}
	seg, ck, err := v.read(context)
	if err != nil {
		return err
	}
	e := seg.entry(name)
	if e == nil {
		return notFound(context, name)
	}
	return f(e, ck)
}

// each hands every segment of one context, or of all that are not sealed if it is "",
// to f. There may be no such context.
func (v *Vault) each(context string, f func(seg *segment, ck []byte) error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.refresh(); err != nil {
		return err
	}
	for _, c := range v.st.index.Contexts {
		if context != "" && c.Name != context {
			continue
		}
		seg, ck, err := v.read(c.Name)
		if context == "" && errors.Is(err, ErrSealed) {
			continue
		}
		if err != nil {
			return err
		}
		if err := f(seg, ck); err != nil {
			return err
		}
	}
	return v.eachLent(context, f)
}

// List returns the credentials of one context, or of all that are not sealed if it is "", by
// context and name.
func (v *Vault) List(context string) ([]guard.Credential, error) {
	var out []guard.Credential
	err := v.each(context, func(seg *segment, _ []byte) error {
		for i := range seg.Credentials {
			out = append(out, v.meta(&seg.Credentials[i]))
		}
		return nil
	})
	slices.SortFunc(out, func(a, b guard.Credential) int {
		if n := strings.Compare(a.Context, b.Context); n != 0 {
			return n
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out, err
}

// Get opens one value; Version 0 is the current one. It is a fresh copy, which
// the caller wipes. ErrNotFound; ErrNotHeld: it has a Source, and Hold did not take it.
func (v *Vault) Get(id guard.SecretID) (guard.Secret, error) {
	var out guard.Secret
	err := v.view(inContext(id.Context), id.Name, func(e *entry, ck []byte) error {
		ver := v.current(e, id.Version)
		if ver == nil && e.Source != nil {
			return fmt.Errorf("credential %q: %w", id.Name, ErrNotHeld)
		}
		if ver == nil {
			return fmt.Errorf("version %d: %w", id.Version, notFound(id.Context, id.Name))
		}
		p, err := v.plain(e, ver, ck)
		out = guard.NewSecret(p)
		return err
	})
	return out, err
}

// Remove drops a credential and all its values; they stay in the backup until
// the next write. Its version numbers are not given again. ErrNotFound.
func (v *Vault) Remove(context, name string) error {
	return v.edit(inContext(context), false, func(seg *segment, _ []byte) error {
		e := seg.entry(name)
		if e == nil {
			return notFound(context, name)
		}
		if seg.Gone == nil {
			seg.Gone = map[string]int{}
		}
		seg.Gone[name] = e.Last
		seg.Credentials = slices.DeleteFunc(seg.Credentials, func(e entry) bool { return e.Meta.Name == name })
		return nil
	})
}

// Values returns everything that the scanner should know in a context, or in
// all that are not sealed if it is "": the values of current, pending and retiring versions
// (Live), of dead ones (Retired), the placeholders, and the decoys. Of a URL, the
// password in it is a value of its own, also as it reads decoded. No two have the same bytes; the one worth most
// is kept. The caller wipes them.
func (v *Vault) Values(context string) ([]guard.Value, error) {
	return v.values(func(f func(seg *segment, ck []byte) error) error { return v.each(context, f) })
}

// values is Values for what each hands out.
func (v *Vault) values(each func(f func(seg *segment, ck []byte) error) error) ([]guard.Value, error) {
	var out []guard.Value
	seen := map[[sha256.Size]byte]int{} // by hash: a string could not be wiped
	add := func(id guard.SecretID, c guard.Class, p []byte) {
		sum := sha256.Sum256(p)
		i, ok := seen[sum]
		switch {
		case !ok:
			seen[sum] = len(out)
			out = append(out, guard.Value{ID: id, Class: c, Secret: guard.NewSecret(p)})
		case c < out[i].Class:
			out[i].Secret.Wipe()
			out[i] = guard.Value{ID: id, Class: c, Secret: guard.NewSecret(p)}
		default:
			clear(p)
		}
	}
	both := func(id guard.SecretID, c guard.Class, p []byte) {
		if from, to, ok := urlPassword(p); ok && to-from >= minValue {
			add(id, c, bytes.Clone(p[from:to]))
			if dec := unescape(p[from:to]); len(dec) >= minValue && len(dec) != to-from {
				add(id, c, dec)
			}
		}
		if c != guard.Placeholder {
			for _, k := range []string{kindAWS, kindGCP} {
				_, secrets := keyFile(k, p)
				for _, s := range secrets {
					add(id, c, s)
				}
			}
		}
		add(id, c, p)
	}
	err := each(func(seg *segment, ck []byte) error {
		for i := range seg.Credentials {
			e := &seg.Credentials[i]
			for j := range e.Versions {
				ver := &e.Versions[j]
				p, err := v.plain(e, ver, ck)
				if errors.Is(err, ErrNotHeld) {
					continue // this process has nothing that could leak
				}
				if err != nil {
					return err
				}
				id := e.Meta.ID()
				id.Version = ver.Number
				c := guard.Live
				switch {
				case e.Meta.Decoy:
					c = guard.Decoy
				case e.Source != nil: // held: it works
				case ver.State == Dead:
					c = guard.Retired
				}
				both(id, c, searched(e.Meta.Kind, p))
			}
			if e.Meta.Decoy {
				continue // its placeholder is its value
			}
			both(v.meta(e).ID(), guard.Placeholder, []byte(e.Meta.Placeholder))
		}
		return nil
	})
	if err != nil {
		for _, o := range out {
			o.Secret.Wipe()
		}
		return nil, err
	}
	return out, nil
}
