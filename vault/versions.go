package vault

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"guard"
)

// State is where a version is in its life.
type State uint8

const (
	Pending  State = iota // made for a rotation, not in use yet
	Current               // the one in use
	Retiring              // replaced, and not proven dead
	Dead                  // proven dead, or past its expiry; kept sealed so that it can be recognised
)

var stateNames = [...]string{Pending: "pending", Current: "current", Retiring: "retiring", Dead: "dead"}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "unknown"
}

// MarshalText is String.
func (s State) MarshalText() ([]byte, error) {
	if int(s) >= len(stateNames) {
		return nil, fmt.Errorf("no such version state: %d", s)
	}
	return []byte(s.String()), nil
}

// UnmarshalText reads what String gives.
func (s *State) UnmarshalText(b []byte) error {
	i := slices.Index(stateNames[:], string(b))
	if i < 0 {
		return fmt.Errorf("no such version state: %q", b)
	}
	*s = State(i)
	return nil
}

// maxDead is how many dead versions of a credential are kept.
const maxDead = 64

// Version is one value that a credential has or had, without the value.
type Version struct {
	Number  int       `json:"number"` // from 1
	State   State     `json:"state"`
	Created time.Time `json:"created"`
}

// Versions returns a credential's versions by number. ErrNotFound.
func (v *Vault) Versions(context, name string) ([]Version, error) {
	var out []Version
	err := v.view(inContext(context), name, func(e *entry, _ []byte) error {
		for _, ver := range e.Versions {
			out = append(out, Version{ver.Number, ver.State, ver.Created})
		}
		return nil
	})
	return out, err
}

// Propose seals s as a pending version, durably, so that a candidate exists
// here before it is used anywhere. The same value as one that is pending gives
// that one's id, so that a step can be repeated; the same as any other
// version's is ErrSameValue. s stays the caller's. ErrNotFound, ErrTooShort,
// ErrTooLong.
func (v *Vault) Propose(context, name string, s guard.Secret) (guard.SecretID, error) {
	plain := s.Reveal()
	if err := checkValue(name, plain); err != nil {
		return guard.SecretID{}, err
	}
	var id guard.SecretID
	err := v.edit(inContext(context), false, func(seg *segment, ck []byte) error {
		e := seg.entry(name)
		if e == nil {
			return notFound(context, name)
		}
		if e.Meta.Decoy {
			return fmt.Errorf("propose a version of %q: %w", name, ErrDecoy)
		}
		if e.Source != nil {
			return fmt.Errorf("propose a version of %q: %w", name, ErrElsewhere)
		}
		if err := checkKind(name, e.Meta.Kind, plain); err != nil {
			return err
		}
		id = e.Meta.ID()
		for i := range e.Versions {
			ver := &e.Versions[i]
			p, err := v.value(e, ver, ck)
			if err != nil {
				return err
			}
			same := bytes.Equal(p, plain)
			clear(p)
			if !same {
				continue
			}
			if ver.State == Pending {
				id.Version = ver.Number
				return errUnchanged
			}
			return fmt.Errorf("propose a version of %q: %w: version %d, which is %s, has it", name, ErrSameValue, ver.Number, ver.State)
		}
		id.Version = v.put(e, ck, plain, Pending).Number
		return nil
	})
	if err != nil {
		return guard.SecretID{}, err
	}
	return id, nil
}

// change hands one version to f, as one write.
func (v *Vault) change(id guard.SecretID, f func(e *entry, ver *version) error) error {
	return v.edit(inContext(id.Context), false, func(seg *segment, _ []byte) error {
		e := seg.entry(id.Name)
		if e == nil {
			return notFound(id.Context, id.Name)
		}
		i := slices.IndexFunc(e.Versions, func(ver version) bool { return ver.Number == id.Version })
		if i < 0 {
			return fmt.Errorf("version %d: %w", id.Version, notFound(id.Context, id.Name))
		}
		if err := f(e, &e.Versions[i]); err != nil {
			return err
		}
		e.Meta.Updated = now()
		return nil
	})
}

// Promote makes a pending version the current one; the one before becomes
// Retiring. Again for the current one, it does nothing. ErrState, ErrNotFound.
func (v *Vault) Promote(id guard.SecretID) error {
	return v.change(id, func(e *entry, ver *version) error {
		switch ver.State {
		case Current:
			return errUnchanged
		case Pending:
		default:
			return fmt.Errorf("promote %s, which is %s: %w", id, ver.State, ErrState)
		}
		if cur := e.version(0); cur != nil && cur.State == Current {
			cur.State = Retiring
		}
		ver.State = Current
		e.Meta.Version = ver.Number
		return nil
	})
}

// Bury marks a retiring or pending version as dead: it was tried, and refused.
// The value stays, sealed, so that it can still be recognised; of more than 64
// dead ones, the oldest go. Again for a dead one, it does nothing. ErrState
// (the current one), ErrNotFound.
func (v *Vault) Bury(id guard.SecretID) error {
	return v.change(id, func(e *entry, ver *version) error {
		switch ver.State {
		case Dead:
			return errUnchanged
		case Retiring, Pending:
		default:
			return fmt.Errorf("bury %s, which is %s: %w", id, ver.State, ErrState)
		}
		ver.State = Dead
		e.forget()
		return nil
	})
}

// forget drops dead versions beyond maxDead, the oldest first.
func (e *entry) forget() {
	dead := 0
	for i := len(e.Versions) - 1; i >= 0; i-- {
		if e.Versions[i].State != Dead {
			continue
		}
		if dead++; dead > maxDead {
			e.Versions = slices.Delete(e.Versions, i, i+1)
		}
	}
}

// Discard drops a pending version, value and all: one that no issuer ever
// accepted. ErrState, ErrNotFound.
func (v *Vault) Discard(id guard.SecretID) error {
	return v.change(id, func(e *entry, ver *version) error {
		if ver.State != Pending {
			return fmt.Errorf("discard %s, which is %s: %w", id, ver.State, ErrState)
		}
		e.Versions = slices.DeleteFunc(e.Versions, func(o version) bool { return o.Number == id.Version })
		return nil
	})
}
