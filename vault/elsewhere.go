package vault

import (
	gocontext "context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"guard"
)

// Store keeps values by name, in versions that count up from 1. vaulttest.Store says
// what an implementation must do; Local, and hashivault.KV, are two.
type Store interface {
	// Get returns a version of a value, 0 being the newest, and its number. The caller
	// wipes the value. ErrNotFound: there never was one; ErrDeleted: it was deleted and
	// could be brought back; ErrDestroyed: it is gone for good.
	Get(ctx gocontext.Context, name string, version int) (guard.Secret, int, error)
	// Put stores s as the version that follows after, which must be the newest; 0: there
	// is none yet. It returns the new version's number. ErrConflict: after is not the
	// newest, since somebody else wrote meanwhile. s stays the caller's.
	Put(ctx gocontext.Context, name string, after int, s guard.Secret) (int, error)
	// Destroy drops one version's value for good. ErrNotFound. A second time it does nothing.
	Destroy(ctx gocontext.Context, name string, version int) error
}

// What stores answer, besides ErrNotFound.
var (
	ErrConflict  = errors.New("somebody else changed it meanwhile")
	ErrDeleted   = errors.New("it was deleted")
	ErrDestroyed = errors.New("it was destroyed")
)

var (
	// ErrElsewhere is the answer to what cannot be done with a value that is not kept in
	// the vault file.
	ErrElsewhere = errors.New("its value is kept elsewhere")
	// ErrNotHeld: the value is kept elsewhere and was not fetched into this process.
	ErrNotHeld = fmt.Errorf("%w and was not fetched", ErrElsewhere)
)

// Source is where a credential's value comes from, if not from the vault file. One of
// Path and Lease is set.
type Source struct {
	// Path is a place in a store: what its Get takes as name.
	Path string `json:"path,omitempty"`
	// Mount is the engine that Path is in, where it is not the store's own.
	Mount string `json:"mount,omitempty"`
	// Field is the part of what is there; "": the one that guard writes.
	Field string `json:"field,omitempty"`
	// Lease is what a new value is asked for at: "database/creds/ROLE".
	Lease string `json:"lease,omitempty"`
	// Params are sent with a wish for a lease.
	Params map[string]string `json:"params,omitempty"`
}

func (s Source) clone() *Source {
	s.Params = maps.Clone(s.Params)
	return &s
}

// Held is a value that a process holds for a credential with a Source.
type Held struct {
	// At is the version in the store; 0 for a lease: each is a value of its own.
	At int
	// User is the login that came with the value; "": the credential's own.
	User string
	// Expires is when the value stops working; zero: not said.
	Expires time.Time
}

// heldValue is one value in locked memory.
type heldValue struct {
	number int
	held   Held
	mem    *locked
	parts  [][]byte
}

const heldPart = 2048 // bytes; a page of locked memory has room for two

func newHeld(number int, h Held, plain []byte) (*heldValue, error) {
	mem, err := newLocked()
	if err != nil {
		return nil, err
	}
	hv := &heldValue{number: number, held: h, mem: mem}
	for part := range slices.Chunk(slices.Clone(plain), heldPart) {
		p, err := mem.put(part)
		if err != nil {
			mem.free()
			return nil, err
		}
		hv.parts = append(hv.parts, p)
	}
	return hv, nil
}

// copy returns the value as a fresh copy.
func (h *heldValue) copy() []byte {
	n := 0
	for _, p := range h.parts {
		n += len(p)
	}
	out := make([]byte, 0, n) // of the right size: growing would leave copies behind
	for _, p := range h.parts {
		out = append(out, p...)
	}
	return out
}

// heldKey names a credential.
type heldKey struct{ context, name string }

// holdings are the values of a process that are kept elsewhere. Vault.mu guards them.
type holdings map[heldKey][]*heldValue

// newest is the last value that was taken for a credential, or nil.
func (h holdings) newest(c guard.Credential) *heldValue {
	vs := h[heldKey{c.Context, c.Name}]
	if len(vs) == 0 {
		return nil
	}
	return vs[len(vs)-1]
}

func (h holdings) free() {
	for _, vs := range h {
		for _, hv := range vs {
			hv.mem.free()
		}
	}
	clear(h)
}

// meta is what is known about e in this process: of a credential whose value is kept
// elsewhere, the version and the login are those of the value that this process holds.
func (v *Vault) meta(e *entry) guard.Credential {
	c := cloneMeta(e.Meta)
	if e.Source == nil {
		return c
	}
	if hv := v.held.newest(c); hv != nil {
		c.Version = hv.number
		if hv.held.User != "" {
			c.User = hv.held.User
		}
		if !hv.held.Expires.IsZero() {
			c.Expires = hv.held.Expires
		}
	}
	return c
}

// plain opens a version, wherever it is kept. The caller wipes it. ErrNotHeld.
func (v *Vault) plain(e *entry, ver *version, ck []byte) ([]byte, error) {
	if e.Source == nil {
		return v.value(e, ver, ck)
	}
	for _, hv := range v.held[heldKey{e.Meta.Context, e.Meta.Name}] {
		if hv.number == ver.Number {
			return hv.copy(), nil
		}
	}
	return nil, fmt.Errorf("credential %q in context %q, version %d: %w", e.Meta.Name, e.Meta.Context, ver.Number, ErrNotHeld)
}

// current is the version that a use gets: of what this process holds, the newest.
func (v *Vault) current(e *entry, number int) *version {
	if number == 0 && e.Source != nil {
		if hv := v.held.newest(e.Meta); hv != nil {
			number = hv.number
		}
	}
	return e.version(number)
}

// SetSource makes a credential whose value is kept where from says: no value of it is
// ever in the vault file. sample is a value, to guess the kind and shape the placeholder
// by, as Set does; an empty one makes the placeholder by the kind alone. For a credential
// that is there, and has a Source, from and what c says replace what it had. ErrElsewhere: there is one of that
// name whose value is in the file. sample stays the caller's.
func (v *Vault) SetSource(c guard.Credential, sample guard.Secret, from Source) (guard.Credential, error) {
	c.Context = inContext(c.Context)
	switch {
	case c.Decoy:
		return guard.Credential{}, fmt.Errorf("credential %q: %w", c.Name, ErrDecoy)
	case c.Rotate != "":
		return guard.Credential{}, fmt.Errorf("credential %q: it cannot be rotated by guard: %w", c.Name, ErrElsewhere)
	case (from.Path == "") == (from.Lease == ""):
		return guard.Credential{}, fmt.Errorf("credential %q: a source is a path or a lease", c.Name)
	}
	plain := slices.Clone(sample.Reveal())
	defer clear(plain)
	if len(plain) > 0 {
		if err := checkValue(c.Name, plain); err != nil {
			return guard.Credential{}, err
		}
	}
	if c.Kind != "" {
		if _, ok := KindByName(c.Kind); !ok {
			return guard.Credential{}, fmt.Errorf("credential %q: unknown kind %q", c.Name, c.Kind)
		}
	}
	var out guard.Credential
	err := v.edit(c.Context, true, func(seg *segment, ck []byte) error {
		e := seg.entry(c.Name)
		if e != nil && e.Source == nil {
			return fmt.Errorf("credential %q: %w: one of that name is kept in the vault itself: remove it first", c.Name, ErrExists)
		}
		if e == nil {
			fresh := entry{Meta: complete(c, plain), Last: seg.Gone[c.Name]}
			fresh.Meta.Created = now()
			shape := plain
			if len(shape) == 0 {
				text, err := decoyText(fresh.Meta.Kind)
				if err != nil {
					return fmt.Errorf("credential %q: %w", c.Name, err)
				}
				shape = []byte(text)
			}
			var err error
			if fresh.Meta.Placeholder, err = placeholder(deriveKeep(ck, "placeholder"), c.Name, shape); err != nil {
				return fmt.Errorf("credential %q: %w", c.Name, err)
			}
			delete(seg.Gone, c.Name)
			seg.Credentials = append(seg.Credentials, fresh)
			e = &seg.Credentials[len(seg.Credentials)-1]
		} else {
			e.Meta = merge(e.Meta, c, plain)
		}
		e.Source, e.Meta.Updated = from.clone(), now()
		out = e.Meta
		return check(out)
	})
	if err != nil {
		return guard.Credential{}, err
	}
	return cloneMeta(out), nil
}

// Sources says where the values of a context's credentials are kept, by name, of those
// that are not in the vault file.
func (v *Vault) Sources(context string) (map[string]Source, error) {
	out := map[string]Source{}
	err := v.each(inContext(context), func(seg *segment, _ []byte) error {
		for i := range seg.Credentials {
			if e := &seg.Credentials[i]; e.Source != nil {
				out[e.Meta.Name] = *e.Source.clone()
			}
		}
		return nil
	})
	return out, err
}

// Hold takes s, which came from the credential's Source, into locked memory until Drop
// or Close: this process's Get, Values, Find and List have it from then on. The file
// learns a version's number and where it is in the store, never the value: the number of
// the version that has h.At already, else the next. s stays the caller's. ErrNotFound,
// ErrTooShort, ErrTooLong, ErrElsewhere (it has no Source).
func (v *Vault) Hold(context, name string, s guard.Secret, h Held) (guard.SecretID, error) {
	plain := slices.Clone(s.Reveal())
	defer clear(plain)
	if err := checkValue(name, plain); err != nil {
		return guard.SecretID{}, err
	}
	var number int
	context = inContext(context)
	err := v.edit(context, false, func(seg *segment, ck []byte) error {
		e := seg.entry(name)
		if e == nil {
			return notFound(context, name)
		}
		if e.Source == nil {
			return fmt.Errorf("credential %q has its value in the vault itself: %w", name, ErrElsewhere)
		}
		if err := checkKind(name, e.Meta.Kind, plain); err != nil {
			return err
		}
		if h.At > 0 {
			for i := range e.Versions {
				if at, err := v.at(e, &e.Versions[i], ck); err != nil {
					return err
				} else if at == h.At {
					number = e.Versions[i].Number
					return errUnchanged
				}
			}
			if cur := e.version(0); cur != nil && cur.State == Current {
				cur.State = Retiring
			}
		} else {
			e.expire(now()) // leases of guards that ended: what is over has no one to say so
		}
		note, err := json.Marshal(storeNote{At: h.At, Salt: salt()})
		if err != nil {
			return err
		}
		ver := v.put(e, ck, note, Current)
		if h.At == 0 {
			ver.State = Retiring // several guards have leases of their own: none is the current one
		}
		number = ver.Number
		e.Meta.Version = number
		return nil
	})
	if err != nil {
		return guard.SecretID{}, err
	}
	hv, err := newHeld(number, h, plain)
	if err != nil {
		return guard.SecretID{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		hv.mem.free()
		return guard.SecretID{}, ErrClosed
	}
	key := heldKey{context, name}
	v.drop(key, number)
	if v.held == nil {
		v.held = holdings{}
	}
	v.held[key] = append(v.held[key], hv)
	return guard.SecretID{Context: context, Name: name, Version: number}, nil
}

// storeNote is what the file has in the place of a value that is kept elsewhere.
type storeNote struct {
	At   int    `json:"at,omitempty"`
	Salt []byte `json:"salt"` // so that no two are the same
}

func salt() []byte {
	b := make([]byte, 8)
	rand.Read(b)
	return b
}

// at is where in its store a version is, 0 if it is a lease's.
func (v *Vault) at(e *entry, ver *version, ck []byte) (int, error) {
	p, err := v.value(e, ver, ck)
	if err != nil {
		return 0, err
	}
	var n storeNote
	if err := decode(p, &n); err != nil {
		return 0, corrupt("version %d of %q in context %q has an unreadable note", ver.Number, e.Meta.Name, e.Meta.Context)
	}
	return n.At, nil
}

// drop forgets one held value. Caller holds mu.
func (v *Vault) drop(key heldKey, number int) {
	vs := v.held[key]
	for i, hv := range vs {
		if hv.number == number {
			hv.mem.free()
			v.held[key] = slices.Delete(slices.Clone(vs), i, i+1)
			return
		}
	}
}

// Drop wipes a value that Hold took; dead says that it stopped working: its version is
// marked so.
func (v *Vault) Drop(id guard.SecretID, dead bool) error {
	id.Context = inContext(id.Context)
	v.mu.Lock()
	v.drop(heldKey{id.Context, id.Name}, id.Version)
	v.mu.Unlock()
	if !dead {
		return nil
	}
	return v.Bury(id)
}

// Local is a context of a vault as a Store: what is kept in the file itself. Its
// versions are the credential's.
type Local struct {
	Vault   *Vault
	Context string
}

// Get is Store's.
func (l Local) Get(_ gocontext.Context, name string, number int) (s guard.Secret, n int, err error) {
	context := inContext(l.Context)
	err = l.Vault.view(context, name, func(e *entry, ck []byte) error {
		if e.Source != nil {
			return fmt.Errorf("credential %q: %w", name, ErrElsewhere)
		}
		if n = number; n == 0 {
			n = e.Meta.Version
		}
		ver := e.version(n)
		if ver == nil && n > 0 && n <= e.Last {
			return fmt.Errorf("version %d of credential %q: %w", n, name, ErrDestroyed)
		}
		if ver == nil {
			return fmt.Errorf("version %d: %w", n, notFound(context, name))
		}
		p, err := l.Vault.value(e, ver, ck)
		s = guard.NewSecret(p)
		return err
	})
	if err != nil {
		return guard.Secret{}, 0, err
	}
	return s, n, nil
}

// Put is Store's. The value that is the newest already makes no new version.
func (l Local) Put(_ gocontext.Context, name string, after int, s guard.Secret) (int, error) {
	c, err := l.Vault.set(guard.Credential{Name: name, Context: inContext(l.Context)}, s, nil, &after)
	return c.Version, err
}

// Destroy is Store's.
func (l Local) Destroy(_ gocontext.Context, name string, number int) error {
	context := inContext(l.Context)
	return l.Vault.edit(context, false, func(seg *segment, _ []byte) error {
		e := seg.entry(name)
		switch {
		case e == nil || number < 1 || number > e.Last:
			return fmt.Errorf("version %d: %w", number, notFound(context, name))
		case e.Source != nil:
			return fmt.Errorf("credential %q: %w", name, ErrElsewhere)
		case e.version(number) == nil:
			return errUnchanged
		}
		e.Versions = slices.DeleteFunc(e.Versions, func(ver version) bool { return ver.Number == number })
		return nil
	})
}
