package vault

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"guard"
)

// Unlocker is a way to open a vault: Keyring, Passphrase, KeyFile.
type Unlocker interface {
	// Name is the kind of slot that it opens: lower case, no digits at the end.
	Name() string
	// Enrol makes the key of a new slot of the vault with this id, at least 32
	// bytes, and what Unlock will need to find it again. params are stored in
	// the clear, as JSON or any other text, and are bound to the slot.
	Enrol(vault string) (key guard.Secret, params []byte, err error)
	// Unlock returns the key that Enrol made. It may take as long as a person
	// takes to type.
	Unlock(vault string, params []byte) (guard.Secret, error)
}

// slot is one way in: MK, wrapped with what an Unlocker gives.
type slot struct {
	Name   string `json:"name"` // the kind; "-2" and so on from the second of a kind
	Kind   string `json:"kind"`
	Params []byte `json:"params,omitempty"`
	Salt   []byte `json:"salt"`
	Key    []byte `json:"key"`
}

func (s slot) aad(vault string) []byte {
	return aad(vault, string(s.Params), s.Kind, 0, "slot:"+string(s.Salt))
}

// slotKey makes the key that wraps MK, and wipes k.
func slotKey(k guard.Secret, salt []byte) (onceKey, error) {
	defer k.Wipe()
	b := k.Reveal()
	if len(b) < keySize {
		return nil, fmt.Errorf("the unlock key has %d bytes; %d are needed", len(b), keySize)
	}
	return derive(b, "slot/"+string(salt)), nil
}

// enrol makes a slot that u opens, named apart from those in taken.
func (v *Vault) enrol(u Unlocker, taken []slot) (slot, error) {
	return enrolSlot(v.id, v.mk, u, taken)
}

func (s *slot) name(taken []slot) {
	s.Name = s.Kind
	for n := 2; slices.ContainsFunc(taken, func(o slot) bool { return o.Name == s.Name }); n++ {
		s.Name = fmt.Sprintf("%s-%d", s.Kind, n)
	}
}

// unlock gets MK out of the first slot that one of us opens.
func (st *state) unlock(us []Unlocker) ([]byte, error) { return unlockSlots(st.id, st.slots, us) }

// unlockSlots gets the key of owner, a vault or a sealed context, out of its slots.
func unlockSlots(owner string, slots []slot, us []Unlocker) ([]byte, error) {
	var tried []error
	wrong := false
	for _, u := range us {
		for _, s := range slots {
			if s.Kind != u.Name() {
				continue
			}
			k, err := u.Unlock(owner, s.Params)
			if err != nil {
				tried = append(tried, fmt.Errorf("%s: %w", s.Name, err))
				continue
			}
			kek, err := slotKey(k, s.Salt)
			if err != nil {
				tried = append(tried, fmt.Errorf("%s: %w", s.Name, err))
				continue
			}
			mk, err := open(kek, s.Key, s.aad(owner))
			if err == nil && len(mk) == keySize {
				return mk, nil
			}
			clear(mk)
			wrong = true
			tried = append(tried, fmt.Errorf("%s: %w", s.Name, ErrWrongKey))
		}
	}
	switch {
	case wrong:
		return nil, errors.Join(tried...)
	case len(tried) > 0:
		return nil, fmt.Errorf("%w: %w", ErrNoUnlocker, errors.Join(tried...))
	}
	var names []string
	for _, s := range slots {
		names = append(names, s.Name)
	}
	return nil, fmt.Errorf("%w: it opens with: %s", ErrNoUnlocker, strings.Join(names, ", "))
}

// AddSlot makes u another way to open the vault. A keychain holds one key per
// vault: a second such slot is refused with ErrExists.
func (v *Vault) AddSlot(u Unlocker) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.refresh(); err != nil {
		return err
	}
	// Before Enrol, which would write over the key of the slot there is.
	if err := v.st.single(u.Name()); err != nil {
		return err
	}
	s, err := v.enrol(u, nil)
	if err != nil {
		return err
	}
	return v.update(func(next *state) error {
		if err := next.single(u.Name()); err != nil {
			return err
		}
		s.name(next.slots)
		next.slots = append(next.slots, s)
		return nil
	})
}

func (st *state) single(kind string) error {
	if kind == keyringName && slices.ContainsFunc(st.slots, func(s slot) bool { return s.Kind == kind }) {
		return fmt.Errorf("the %s slot: %w: remove it first to make a new one", kind, ErrExists)
	}
	return nil
}

// RemoveSlot takes away the slot that Slots calls name, also from the backup.
// It is no cure for a key that was stolen together with the file: the values
// in that copy stay readable, and need to be rotated. ErrNotFound,
// ErrLastSlot.
func (v *Vault) RemoveSlot(name string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	err := v.update(func(next *state) error {
		i := slices.IndexFunc(next.slots, func(s slot) bool { return s.Name == name })
		if i < 0 {
			return fmt.Errorf("unlock slot %q: %w", name, ErrNotFound)
		}
		if len(next.slots) == 1 {
			return fmt.Errorf("unlock slot %q: %w: add another one first", name, ErrLastSlot)
		}
		next.slots = slices.Delete(next.slots, i, i+1)
		return nil
	})
	if err != nil {
		return err
	}
	// A second write makes the backup one that the slot does not open.
	return v.update(func(*state) error { return nil })
}
