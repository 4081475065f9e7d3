package vault

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Backup writes the vault as it is now to a new file of mode 0600, whole and
// durable. The copy is sealed as the vault is, and opens with the same slots.
// fs.ErrExist: there is a file of that name.
func (v *Vault) Backup(path string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.refresh(); err != nil {
		return err
	}
	unlock, err := lockDir(v.dir)
	if err != nil {
		return err
	}
	raw, _, err := readVault(v.dir)
	unlock()
	if err != nil {
		return err
	}
	if _, err := writeNew(path, raw, 0o600); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("back up to %s: %w: a backup is never written over", path, fs.ErrExist)
		}
		return fmt.Errorf("back up: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// Verify reads the backup in path, opens it with the first of us that fits, and
// decrypts every value in it. It says what it holds.
func Verify(path string, us ...Unlocker) (Contents, error) {
	_, _, c, err := readBackup(path, us)
	return c, err
}

// Contents is what a backup holds.
type Contents struct {
	Vault      string // the vault's id
	Generation uint64
	Contexts   int
	Values     int // versions of credentials
	// Sealed are the contexts that were not looked into: nothing of us opens their seals.
	Sealed []string
}

// Restore puts the backup in path in the place of the vault in dir, after every
// value in it was decrypted. The vault that was there stays as the backup file
// beside it, and a damaged one is kept under another name. The generation goes
// up, so that what kept the last one does not take this for a rollback. Restoring
// over another vault is refused with ErrExists, unless other is true.
func Restore(dir, path string, other bool, us ...Unlocker) (Contents, error) {
	st, mk, c, err := readBackup(path, us)
	if err != nil {
		return c, err
	}
	defer clear(mk)
	if err := makeDir(dir); err != nil {
		return c, err
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return c, err
	}
	defer unlock()
	if raw, _, err := readVault(dir); err == nil {
		now, perr := parse(raw)
		switch {
		case perr == nil && now.id != st.id && !other:
			return c, fmt.Errorf("restore %s: the vault in %s is another one: %w", path, dir, ErrExists)
		case perr == nil:
			st.gen = max(st.gen, now.gen)
		default:
			if err := setAside(dir); err != nil {
				return c, err
			}
		}
	} else if !errors.Is(err, ErrNoVault) {
		if err := setAside(dir); err != nil {
			return c, err
		}
	}
	st.gen++
	raw, err := st.encode(mk)
	if err != nil {
		return c, err
	}
	if _, err := replace(dir, raw); err != nil {
		return c, fmt.Errorf("restore: %w", err)
	}
	c.Generation = st.gen
	return c, nil
}

// setAside keeps a vault file that cannot be read, under a name of its own.
func setAside(dir string) error {
	for n := 1; n < 1000; n++ {
		to := filepath.Join(dir, fmt.Sprintf("%s.damaged-%d", fileName, n))
		if _, err := os.Lstat(to); err == nil {
			continue
		}
		return os.Rename(filepath.Join(dir, fileName), to)
	}
	return fmt.Errorf("a thousand damaged vaults are in %s", dir)
}

// readBackup opens a file with all that is in it.
func readBackup(path string, us []Unlocker) (*state, []byte, Contents, error) {
	fail := func(err error) (*state, []byte, Contents, error) {
		return nil, nil, Contents{}, fmt.Errorf("backup %s: %w", path, err)
	}
	f, fi, err := openRegular(path)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	if fi.Size() > maxFile+64 {
		return fail(corrupt("%d bytes are too many for a vault", fi.Size()))
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(f); err != nil {
		return fail(err)
	}
	st, err := parse(b.Bytes())
	if err != nil {
		return fail(err)
	}
	mk, err := st.unlock(us)
	if err != nil {
		return fail(err)
	}
	v := &Vault{id: st.id}
	if err := v.hold(bytes.Clone(mk)); err != nil {
		clear(mk)
		return fail(err)
	}
	defer v.Close()
	c := Contents{Vault: st.id, Generation: st.gen}
	err = st.openIndex(v.mk)
	v.st = st
	for i := 0; err == nil && i < len(st.index.Contexts); i++ {
		var n int
		name := st.index.Contexts[i].Name
		if st.isSealed(name) {
			if oerr := v.openSeal(name, us); errors.Is(oerr, ErrNoUnlocker) || errors.Is(oerr, ErrWrongKey) {
				c.Contexts, c.Sealed = c.Contexts+1, append(c.Sealed, name)
				continue
			}
		}
		n, err = v.tryAll(st, i)
		c.Contexts, c.Values = c.Contexts+1, c.Values+n
	}
	if err != nil {
		clear(mk)
		return fail(err)
	}
	return st, mk, c, nil
}

// tryAll decrypts every value of a context, and says how many there are.
func (v *Vault) tryAll(st *state, i int) (int, error) {
	seg, ck, err := v.unseal(st, i)
	if err != nil {
		return 0, err
	}
	n := 0
	for i := range seg.Credentials {
		e := &seg.Credentials[i]
		for j := range e.Versions {
			p, err := v.value(e, &e.Versions[j], ck)
			clear(p)
			if err != nil {
				return n, err
			}
			n++
		}
	}
	return n, nil
}
