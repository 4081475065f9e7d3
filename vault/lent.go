package vault

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"guard"
)

// A session also guards values that nobody stored. Lend gives them to one open
// Vault: they are sealed in memory under a key of their own, are in no file and in
// no other process, and end with Close. Where there is no vault yet, Memory is one
// that holds nothing else.

// seedName is the file of the id and the root key that sessions have in common
// before there is a vault: their log, their originals of files and their
// placeholders hang on these. It opens no value. Create takes both over, so that the
// log goes on, and removes the file.
const seedName = "session.key"

const idSize = 16

// Memory is an empty vault without a file: what is put into it ends with Close. dir
// is made if it is not there, and keeps the key for Key and Seal, which so stay the
// same from one session to the next, and after Create. ErrExists: there is a vault
// file, or the backup of one that is gone.
func Memory(dir string) (*Vault, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	for _, name := range []string{fileName, bakName} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, name), ErrExists)
		}
	}
	id, root, err := readSeed(dir)
	if err != nil {
		return nil, err
	}
	if id == nil {
		id, root = newSeed()
		if _, err := writeNew(filepath.Join(dir, seedName), slices.Concat(id, root), 0o600); err != nil {
			return nil, fmt.Errorf("make the key of sessions: %w", err)
		}
	}
	defer clear(root)
	v := &Vault{dir: dir, id: hex.EncodeToString(id), memory: true}
	mk := make([]byte, keySize)
	rand.Read(mk)
	if err := v.hold(mk); err != nil {
		return nil, err
	}
	v.st = &state{id: v.id, gen: 1, opened: map[string]*segment{}}
	v.st.index.Root = seal(derive(v.mk, "wrap-root"), root, aad(v.id, "", "", 0, "root"))
	return v, nil
}

func newSeed() (id, root []byte) {
	id, root = make([]byte, idSize), make([]byte, keySize)
	rand.Read(id)
	rand.Read(root)
	return id, root
}

// readSeed returns nil where there is none.
func readSeed(dir string) (id, root []byte, err error) {
	f, fi, err := openRegular(filepath.Join(dir, seedName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open the key of sessions: %w", err)
	}
	defer f.Close()
	if err := mend(f, 0o600); err != nil {
		return nil, nil, err
	}
	b := make([]byte, idSize+keySize)
	if _, err := io.ReadFull(f, b); err != nil || fi.Size() != int64(len(b)) {
		return nil, nil, fmt.Errorf("%s: %w: it is not %d bytes; the log of sessions before there was a vault is signed with it: put it back, or move the folder away", f.Name(), ErrCorrupt, len(b))
	}
	return b[:idSize], b[idSize:], nil
}

// dropSeed removes the file that Create took over.
func dropSeed(dir string) error {
	err := os.Remove(filepath.Join(dir, seedName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Stored says whether v has a file: Memory's has none.
func (v *Vault) Stored() bool { return !v.memory }

// Lend adds a credential to what v alone has, until Close. Name, Kind and the rest
// are as given; Version, Placeholder, Created and Updated are assigned. Its
// placeholder is the same for the same name, context and vault. No method that
// writes finds it. ErrExists: there is one of that name. s stays the caller's.
func (v *Vault) Lend(c guard.Credential, s guard.Secret) (guard.Credential, error) {
	plain := s.Reveal()
	c = cloneMeta(c)
	c.Context = inContext(c.Context)
	if err := checkValue(c.Name, plain); err != nil {
		return guard.Credential{}, err
	}
	if _, ok := KindByName(c.Kind); !ok {
		return guard.Credential{}, fmt.Errorf("credential %q: unknown kind %q", c.Name, c.Kind)
	}
	if err := errors.Join(check(c), checkKind(c.Name, c.Kind, plain)); err != nil {
		return guard.Credential{}, err
	}
	key, err := v.purpose("lent/" + c.Context)
	if err != nil {
		return guard.Credential{}, err
	}
	if c.Placeholder, err = placeholder(key, c.Name, plain); err != nil {
		return guard.Credential{}, fmt.Errorf("credential %q: %w", c.Name, err)
	}
	c.Created = now()
	c.Updated = c.Created
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.refresh(); err != nil {
		return guard.Credential{}, err
	}
	seg, _, err := v.read(c.Context)
	if err != nil {
		return guard.Credential{}, err
	}
	if seg != nil && seg.entry(c.Name) != nil || v.lentEntry(c.Context, c.Name) != nil {
		return guard.Credential{}, fmt.Errorf("credential %q: %w", c.Name, ErrExists)
	}
	if v.lent == nil {
		k := make([]byte, keySize)
		rand.Read(k)
		wrap, err := v.rootKey("lent-key")
		if err != nil {
			return guard.Credential{}, err
		}
		v.lentBox = seal(wrap, k, aad(v.id, "", "", 0, "lent-key"))
		clear(k)
		v.lent = map[string]*segment{}
	}
	ck, err := v.openLent()
	if err != nil {
		return guard.Credential{}, err
	}
	if seg = v.lent[c.Context]; seg == nil {
		seg = &segment{}
		v.lent[c.Context] = seg
	}
	e := entry{Meta: c}
	e.Meta.Version = v.put(&e, ck, plain, Current).Number
	seg.Credentials = append(seg.Credentials, e)
	slices.SortFunc(seg.Credentials, func(a, b entry) int { return strings.Compare(a.Meta.Name, b.Meta.Name) })
	return cloneMeta(e.Meta), nil
}

// Lent says that a credential is in memory alone.
func (v *Vault) Lent(context, name string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.lentEntry(inContext(context), name) != nil
}

// LentValues is Values for what is lent.
func (v *Vault) LentValues(context string) ([]guard.Value, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.values(func(f func(seg *segment, ck []byte) error) error { return v.eachLent(context, f) })
}

// openLent returns the key of what is lent: after the vault was locked, it is opened
// again. Caller holds mu.
func (v *Vault) openLent() ([]byte, error) {
	if v.lentKey != nil {
		return v.lentKey, nil
	}
	wrap, err := v.rootKey("lent-key")
	if err != nil {
		return nil, err
	}
	k, err := open(wrap, v.lentBox, aad(v.id, "", "", 0, "lent-key"))
	if err != nil {
		return nil, corrupt("the key of what a session found does not open")
	}
	v.lentKey, err = v.master.put(k)
	return v.lentKey, err
}

// lentEntry is nil where there is none. Caller holds mu.
func (v *Vault) lentEntry(context, name string) *entry {
	if seg := v.lent[context]; seg != nil {
		return seg.entry(name)
	}
	return nil
}

// eachLent is each for what is lent. Caller holds mu.
func (v *Vault) eachLent(context string, f func(seg *segment, ck []byte) error) error {
	for name, seg := range v.lent {
		if context != "" && context != name {
			continue
		}
		ck, err := v.openLent()
		if err != nil {
			return err
		}
		if err := f(seg, ck); err != nil {
			return err
		}
	}
	return nil
}
