package vault

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// key returns the key of a context in st, in locked memory that the next load
// wipes. Caller holds mu.
func (v *Vault) key(st *state, i int) ([]byte, error) {
	c := st.index.Contexts[i]
	if ck, ok := v.cks[c.Name]; ok {
		return ck, nil
	}
	p, err := v.unwrap(c)
	if err != nil {
		return nil, err
	}
	ck, err := v.ctx.put(p)
	if err != nil {
		return nil, err
	}
	v.cks[c.Name] = ck
	return ck, nil
}

// unseal returns a fresh copy of a context's segment.
func (v *Vault) unseal(st *state, i int) (*segment, []byte, error) {
	ck, err := v.key(st, i)
	if err != nil {
		return nil, nil, err
	}
	name := st.index.Contexts[i].Name
	p, err := open(derive(ck, "segment"), st.sealed[i], aad(v.id, name, "", 0, "segment"))
	if err != nil {
		return nil, nil, corrupt("context %q does not open", name)
	}
	var seg segment
	if err := decode(p, &seg); err != nil {
		return nil, nil, corrupt("context %q is unreadable", name)
	}
	return &seg, ck, nil
}

// read returns a context's segment, which the caller must not change, and its
// key; nil where there is no such context. Caller holds mu and has refreshed.
func (v *Vault) read(name string) (*segment, []byte, error) {
	i := v.st.find(name)
	if i < 0 {
		return nil, nil, nil
	}
	if seg := v.st.opened[name]; seg != nil {
		ck, err := v.key(v.st, i)
		return seg, ck, err
	}
	seg, ck, err := v.unseal(v.st, i)
	if err != nil {
		return nil, nil, err
	}
	v.st.opened[name] = seg
	return seg, ck, nil
}

func (st *state) find(name string) int {
	return slices.IndexFunc(st.index.Contexts, func(c context) bool { return c.Name == name })
}

// edit changes one context as one write. create makes a context that is not
// there; without it, f sees an empty one, and nothing is written.
func (v *Vault) edit(name string, create bool, f func(seg *segment, ck []byte) error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.update(func(next *state) error {
		i := next.find(name)
		if i < 0 && !create {
			return f(&segment{}, nil)
		}
		if i < 0 {
			p := make([]byte, keySize)
			rand.Read(p)
			box := v.wrap(name, p, nil)
			clear(p)
			i = len(next.index.Contexts)
			next.index.Contexts = append(next.index.Contexts, context{Name: name, Key: box})
			next.sealed = append(next.sealed, nil)
			ck, err := v.key(next, i)
			if err != nil {
				return err
			}
			// Until the write succeeds, no one may find this key by its name.
			delete(v.cks, name)
			return v.reseal(next, i, &segment{}, ck, f)
		}
		seg, ck, err := v.unseal(next, i)
		if err != nil {
			return err
		}
		return v.reseal(next, i, seg, ck, f)
	})
}

func (v *Vault) reseal(next *state, i int, seg *segment, ck []byte, f func(*segment, []byte) error) error {
	if err := f(seg, ck); err != nil {
		return err
	}
	slices.SortFunc(seg.Credentials, func(a, b entry) int { return strings.Compare(a.Meta.Name, b.Meta.Name) })
	p, err := json.Marshal(seg)
	if err != nil {
		return fmt.Errorf("encode context: %w", err)
	}
	name := next.index.Contexts[i].Name
	next.sealed[i] = seal(derive(ck, "segment"), p, aad(v.id, name, "", 0, "segment"))
	next.opened[name] = seg
	return nil
}

// entry returns the credential called name, or nil.
func (s *segment) entry(name string) *entry {
	if s == nil {
		return nil
	}
	for i := range s.Credentials {
		if s.Credentials[i].Meta.Name == name {
			return &s.Credentials[i]
		}
	}
	return nil
}

// version returns the version with a number, 0 being the current one, or nil.
func (e *entry) version(n int) *version {
	if n == 0 {
		n = e.Meta.Version
	}
	for i := range e.Versions {
		if e.Versions[i].Number == n {
			return &e.Versions[i]
		}
	}
	return nil
}

// put seals plain as the next version of e.
func (v *Vault) put(e *entry, ck, plain []byte, s State) *version {
	dek := make([]byte, keySize)
	rand.Read(dek)
	e.Last++
	c, n := e.Meta, e.Last
	nv := version{
		Number: n, State: s, Created: now(),
		Key: seal(derive(ck, "wrap-version"), dek, aad(v.id, c.Context, c.Name, n, "version-key")),
		Box: seal(dek, plain, aad(v.id, c.Context, c.Name, n, "value")),
	}
	e.Versions = append(e.Versions, nv)
	return &e.Versions[len(e.Versions)-1]
}

// value opens a version. The caller wipes it.
func (v *Vault) value(e *entry, ver *version, ck []byte) ([]byte, error) {
	c := e.Meta
	dek, err := open(derive(ck, "wrap-version"), ver.Key, aad(v.id, c.Context, c.Name, ver.Number, "version-key"))
	if err == nil {
		var p []byte
		if p, err = open(dek, ver.Box, aad(v.id, c.Context, c.Name, ver.Number, "value")); err == nil {
			return p, nil
		}
	}
	return nil, corrupt("version %d of %q in context %q does not open", ver.Number, c.Name, c.Context)
}
