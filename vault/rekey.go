package vault

import (
	"crypto/rand"
	"errors"
	"fmt"
)

// SlotInfo is a slot as a person sees it.
type SlotInfo struct {
	Name   string // "keyring", "age-2", ...
	Kind   string
	Params []byte // what Unlocker.Enrol returned; public
}

// SlotInfos lists the slots, in order.
func (v *Vault) SlotInfos() ([]SlotInfo, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.refresh(); err != nil {
		return nil, err
	}
	var out []SlotInfo
	for _, s := range v.st.slots {
		out = append(out, SlotInfo{Name: s.Name, Kind: s.Kind, Params: s.Params})
	}
	return out, nil
}

// Again says how a slot gets through a Rekey.
type Again struct {
	Unlocker Unlocker // nil: the slot is dropped
	// Enrol makes the slot's key anew, where unlocking it would want a person or a
	// token. It must not be set for a keychain: its key is replaced before the
	// file is, and is the old file's as well.
	Enrol bool
}

// ErrRekeyed: another process re-keyed the vault. Open it again.
var ErrRekeyed = errors.New("the vault was re-keyed by another process: open it again")

// Rekey replaces the master key. Values are not encrypted again: the keys of the
// contexts, which are random, are wrapped anew, and each slot that again names an
// unlocker for gets the new key. A slot's key comes from the same unlock key with a
// new salt, so that whoever had the old master key cannot make it. The last
// slot is never dropped (ErrLastSlot). The backup is made to be of the new key
// too; copies of the file that are elsewhere open as before, so that a value in
// them which others may have needs to be rotated.
func (v *Vault) Rekey(again func(SlotInfo) (Again, error)) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.refresh(); err != nil {
		return err
	}
	mk := make([]byte, keySize)
	rand.Read(mk)
	defer clear(mk)
	// People and tokens are asked before the lock is taken.
	var slots []slot
	for _, old := range v.st.slots {
		a, err := again(SlotInfo{Name: old.Name, Kind: old.Kind, Params: old.Params})
		if err != nil {
			return fmt.Errorf("slot %s: %w", old.Name, err)
		}
		if a.Unlocker == nil {
			continue
		}
		s, err := v.renew(old, a, mk)
		if err != nil {
			return fmt.Errorf("slot %s: %w", old.Name, err)
		}
		slots = append(slots, s)
	}
	if len(slots) == 0 {
		return fmt.Errorf("re-key: %w", ErrLastSlot)
	}
	unlock, err := lockDir(v.dir)
	if err != nil {
		return err
	}
	defer unlock()
	seen := v.st.gen
	if err := v.refresh(); err != nil {
		return err
	}
	if v.st.gen != seen {
		return fmt.Errorf("re-key: another process wrote to the vault meanwhile: %w: try again", ErrBusy)
	}
	next := v.st.clone()
	next.slots = slots
	if err := next.rewrap(v.mk, mk); err != nil {
		return err
	}
	for range 2 { // the second write makes the backup one of the new key
		next.gen++
		raw, err := next.encode(mk)
		if err != nil {
			return err
		}
		if next.stamp, err = replace(v.dir, raw); err != nil {
			return fmt.Errorf("write vault: %w", err)
		}
		copy(v.mk, mk) // in locked memory
		v.st = next
		next = next.clone()
	}
	return nil
}

// renew makes the slot old wrap mk.
func (v *Vault) renew(old slot, a Again, mk []byte) (slot, error) {
	s := slot{Name: old.Name, Kind: old.Kind, Params: old.Params, Salt: make([]byte, 16)}
	rand.Read(s.Salt)
	if a.Unlocker.Name() != old.Kind {
		return s, fmt.Errorf("a %s does not open a slot of kind %s", a.Unlocker.Name(), old.Kind)
	}
	var kek onceKey
	if a.Enrol {
		k, params, err := a.Unlocker.Enrol(v.id)
		if err != nil {
			return s, err
		}
		s.Params = params
		if kek, err = slotKey(k, s.Salt); err != nil {
			return s, err
		}
	} else {
		k, err := a.Unlocker.Unlock(v.id, old.Params)
		if err != nil {
			return s, err
		}
		was, err := slotKey(k.Clone(), old.Salt)
		if err != nil {
			k.Wipe()
			return s, err
		}
		// A key that does not open the slot now would lock it.
		got, err := open(was, old.Key, old.aad(v.id))
		clear(got)
		if err != nil {
			k.Wipe()
			return s, ErrWrongKey
		}
		if kek, err = slotKey(k, s.Salt); err != nil {
			return s, err
		}
	}
	s.Key = seal(kek, mk, s.aad(v.id))
	return s, nil
}

// rewrap moves what from wraps under to.
func (st *state) rewrap(from, to []byte) error {
	root, err := open(derive(from, "wrap-root"), st.index.Root, aad(st.id, "", "", 0, "root"))
	if err != nil {
		return fmt.Errorf("root key: %w: %w", ErrCorrupt, err)
	}
	st.index.Root = seal(derive(to, "wrap-root"), root, aad(st.id, "", "", 0, "root"))
	clear(root)
	for i, c := range st.index.Contexts {
		job := "context-key"
		if len(c.Slots) > 0 {
			job = "sealed-context" // what is in it stays sealed
		}
		ck, err := open(derive(from, "wrap-context"), c.Key, aad(st.id, c.Name, "", 0, job))
		if err != nil {
			return fmt.Errorf("key of context %s: %w: %w", c.Name, ErrCorrupt, err)
		}
		st.index.Contexts[i].Key = seal(derive(to, "wrap-context"), ck, aad(st.id, c.Name, "", 0, job))
		clear(ck)
	}
	return nil
}
