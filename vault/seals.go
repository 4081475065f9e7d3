package vault

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrSealed: a context has unlock slots of its own, and none of them was opened here.
var ErrSealed = errors.New("the context is sealed")

// ContextSeal is a sealed context as a person sees it.
type ContextSeal struct {
	Context string
	Open    bool // here, by OpenContext
	Slots   []SlotInfo
}

// SealContext makes u a way to open a context, which then opens with such a way and the
// vault's key, and not with the vault's key alone. Its key is a new one. For a context
// that is sealed already, and open here, u is one more way. A context that there is not
// is made. Copies of the file from before open as they did: the backup beside the file
// is made to be of the sealed state too, and what others may have a copy of needs to be
// rotated. ErrSealed: it is sealed, and not open here.
func (v *Vault) SealContext(name string, u Unlocker) error {
	name = inContext(name)
	if !contextPattern.MatchString(name) {
		return fmt.Errorf("context %q: want PROJECT or PROJECT/ENVIRONMENT, each of letters, digits, '.', '_' and '-'", name)
	}
	if u.Name() == keyringName {
		return errors.New("a keychain opens whenever the user is logged in, and so would the context: take a passphrase, a key file or an age identity")
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.refresh(); err != nil {
		return err
	}
	// People and tokens are asked before the lock is taken.
	sk := make([]byte, keySize)
	defer clear(sk)
	sealed := v.st.isSealed(name)
	if sealed {
		if v.seals[name] == nil {
			return sealedError(name)
		}
		copy(sk, v.seals[name])
	} else {
		rand.Read(sk)
	}
	s, err := enrolSlot(sealOwner(v.id, name), sk, u, nil)
	if err != nil {
		return err
	}
	err = v.update(func(next *state) error {
		if next.isSealed(name) != sealed {
			return fmt.Errorf("seal context %q: another process changed its seal meanwhile: %w: try again", name, ErrBusy)
		}
		if sealed {
			c := next.index.Contexts[next.find(name)]
			if _, err := v.unwrap(c); err != nil {
				return err
			}
			s.name(c.Slots)
			next.index.Contexts[next.find(name)].Slots = append(slices.Clone(c.Slots), s)
			return nil
		}
		s.name(nil)
		return v.rekeyContext(next, name, sk, []slot{s})
	})
	if err != nil {
		return err
	}
	if !sealed {
		delete(v.cks, name) // the key before
		if v.seals[name], err = v.sealKeys.put(slices.Clone(sk)); err != nil {
			return err
		}
	}
	return v.update(func(*state) error { return nil }) // the backup
}

// UnsealContext makes a context that is open here one that the vault's key opens.
func (v *Vault) UnsealContext(name string) error {
	name = inContext(name)
	v.mu.Lock()
	defer v.mu.Unlock()
	err := v.update(func(next *state) error {
		if !next.isSealed(name) {
			return fmt.Errorf("context %q is not sealed: %w", name, ErrNotFound)
		}
		return v.rekeyContext(next, name, nil, nil)
	})
	if err == nil {
		delete(v.cks, name) // the key before
	}
	return err
}

// OpenContext opens a sealed context with the first of us that fits, until Close. One that
// is not sealed, or is open, needs nothing. Errors are those of Open.
func (v *Vault) OpenContext(name string, us ...Unlocker) error {
	name = inContext(name)
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.refresh(); err != nil {
		return err
	}
	return v.openSeal(name, us)
}

// openSeal is OpenContext for who holds mu.
func (v *Vault) openSeal(name string, us []Unlocker) error {
	if !v.st.isSealed(name) {
		return nil
	}
	c := v.st.index.Contexts[v.st.find(name)]
	if ck, err := v.unwrap(c); err == nil {
		clear(ck)
		return nil
	}
	sk, err := unlockSlots(sealOwner(v.id, name), c.Slots, us)
	if err != nil {
		return fmt.Errorf("open context %s: %w", name, err)
	}
	if v.seals[name], err = v.sealKeys.put(sk); err != nil {
		return err
	}
	ck, err := v.unwrap(c)
	clear(ck)
	return err
}

// SealedContexts lists the contexts that are sealed, by name.
func (v *Vault) SealedContexts() ([]ContextSeal, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.refresh(); err != nil {
		return nil, err
	}
	var out []ContextSeal
	for _, c := range v.st.index.Contexts {
		if len(c.Slots) == 0 {
			continue
		}
		s := ContextSeal{Context: c.Name, Open: v.seals[c.Name] != nil}
		for _, sl := range c.Slots {
			s.Slots = append(s.Slots, SlotInfo{Name: sl.Name, Kind: sl.Kind, Params: sl.Params})
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b ContextSeal) int { return strings.Compare(a.Context, b.Context) })
	return out, nil
}

func sealedError(name string) error {
	return fmt.Errorf("context %q: %w: it opens with a key of its own", name, ErrSealed)
}

// sealOwner is what the slots of a context are bound to. A vault's id has no slash.
func sealOwner(vault, context string) string { return vault + "/" + context }

func (st *state) isSealed(name string) bool {
	i := st.find(name)
	return i >= 0 && len(st.index.Contexts[i].Slots) > 0
}

// wrap wraps a context's key; sk is its seal's key, nil for one that is not sealed.
func (v *Vault) wrap(name string, ck, sk []byte) []byte {
	if sk == nil {
		return seal(derive(v.mk, "wrap-context"), ck, aad(v.id, name, "", 0, "context-key"))
	}
	inner := seal(derive(sk, "wrap-sealed-context"), ck, aad(v.id, name, "", 0, "sealed-context-key"))
	return seal(derive(v.mk, "wrap-context"), inner, aad(v.id, name, "", 0, "sealed-context"))
}

// unwrap opens a context's key. ErrSealed, ErrCorrupt.
func (v *Vault) unwrap(c context) ([]byte, error) {
	bad := corrupt("the key of context %q does not open", c.Name)
	if len(c.Slots) == 0 {
		p, err := open(derive(v.mk, "wrap-context"), c.Key, aad(v.id, c.Name, "", 0, "context-key"))
		if err != nil || len(p) != keySize {
			return nil, bad
		}
		return p, nil
	}
	inner, err := open(derive(v.mk, "wrap-context"), c.Key, aad(v.id, c.Name, "", 0, "sealed-context"))
	if err != nil {
		return nil, bad
	}
	sk := v.seals[c.Name]
	if sk == nil {
		return nil, sealedError(c.Name)
	}
	p, err := open(derive(sk, "wrap-sealed-context"), inner, aad(v.id, c.Name, "", 0, "sealed-context-key"))
	if err != nil || len(p) != keySize {
		// What MK bound is whole: the seal is another one by now.
		clear(sk)
		delete(v.seals, c.Name)
		return nil, sealedError(c.Name)
	}
	return p, nil
}

// rekeyContext gives a context, which is made where there is none, a new key that sk and slots
// seal, or none. Values are not encrypted again: their keys are wrapped anew.
func (v *Vault) rekeyContext(next *state, name string, sk []byte, slots []slot) error {
	ck := make([]byte, keySize)
	rand.Read(ck)
	defer clear(ck)
	i := next.find(name)
	seg := &segment{}
	if i < 0 {
		i = len(next.index.Contexts)
		next.index.Contexts = append(next.index.Contexts, context{Name: name})
		next.sealed = append(next.sealed, nil)
	} else {
		var old []byte
		var err error
		if seg, old, err = v.unseal(next, i); err != nil {
			return err
		}
		if err := v.rewrapVersions(seg, old, ck); err != nil {
			return err
		}
	}
	next.index.Contexts[i].Key, next.index.Contexts[i].Slots = v.wrap(name, ck, sk), slots
	// Until the write succeeds, the key that is known by the name is the old one's.
	return v.reseal(next, i, seg, ck, func(*segment, []byte) error { return nil })
}

func (v *Vault) rewrapVersions(seg *segment, from, to []byte) error {
	for i := range seg.Credentials {
		e := &seg.Credentials[i]
		for j := range e.Versions {
			ver := &e.Versions[j]
			ad := aad(v.id, e.Meta.Context, e.Meta.Name, ver.Number, "version-key")
			dek, err := open(derive(from, "wrap-version"), ver.Key, ad)
			if err != nil {
				return corrupt("version %d of %q in context %q does not open", ver.Number, e.Meta.Name, e.Meta.Context)
			}
			ver.Key = seal(derive(to, "wrap-version"), dek, ad)
			clear(dek)
		}
	}
	return nil
}

// enrolSlot makes a slot of owner that u opens to key, named apart from those in taken.
func enrolSlot(owner string, key []byte, u Unlocker, taken []slot) (slot, error) {
	k, params, err := u.Enrol(owner)
	if err != nil {
		return slot{}, fmt.Errorf("set up the %s: %w", u.Name(), err)
	}
	s := slot{Kind: u.Name(), Params: params, Salt: make([]byte, 16)}
	rand.Read(s.Salt)
	kek, err := slotKey(k, s.Salt)
	if err != nil {
		return slot{}, fmt.Errorf("set up the %s: %w", u.Name(), err)
	}
	s.Key = seal(kek, key, s.aad(owner))
	s.name(taken)
	return s, nil
}
