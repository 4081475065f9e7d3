// Package vault keeps credentials sealed at rest.
//
// # Keys
//
// Any one unlock slot opens the vault. Every key has one job.
//
//	unlocker's 32 bytes --HKDF(salt)--> slot key --wraps--> MK (random)
//	MK --HKDF "index"----------> seals the index: which contexts there are
//	MK --HKDF "wrap-root"------> wraps the root key (random)
//	MK --HKDF "wrap-context"---> wraps CK, one random key per context
//	SK --HKDF "wrap-sealed-context" wraps the CK of a sealed context first: SK is random,
//	                             and the context's own slots open it as the vault's open MK
//	CK --HKDF "segment"--------> seals the context's metadata
//	CK --HKDF "wrap-version"---> wraps DEK, one random key per secret version
//	CK --HKDF "placeholder"----> makes the context's placeholders
//	DEK -----------------------> seals one value
//	root --HKDF "key/P"--------> Key(P); "seal/P" -> Seal(P), Unseal(P)
//
// Slots are added and removed without touching values. A context's metadata is
// opened only when something in that context is asked for. A context is PROJECT or
// PROJECT/ENVIRONMENT, with @daemon behind it for what daemons use: each of these has
// its own key, names and placeholders.
//
// Boxes are XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) with a random
// 24-byte nonce in front; keys are derived with HKDF-SHA256 (RFC 5869). The
// associated data of each is the format version, the vault's id, the context,
// the credential's name, the version's number and the box's purpose, each with
// its length, so that no box can stand in for another one.
//
// # File
//
// DIR/vault.gv1, mode 0600 in a folder of mode 0700; numbers are big-endian:
//
//	magic       8 bytes   "GUARDVLT"
//	format      uint16    1; 2 where a context is sealed
//	generation  uint64    goes up by one with every write
//	header      uint32 length, then JSON: vault id, slots
//	index       uint32 length, then a box of JSON: wrapped root key; each
//	            context's name, wrapped CK, and its segment's size and SHA-256
//	segments    one box of JSON per context, in the index's order
//	checksum    SHA-256 of everything before it
//
// The index is bound to the bytes before it, and the segments to the index, so
// that nothing but a whole older file can be put in the place of a newer one.
// The checksum is there to tell damage from a wrong key; it keeps no one out.
//
// A write makes vault.gv1.tmp (O_EXCL), syncs it, links the previous file to
// vault.gv1.bak, renames, and syncs the folder, all under flock on vault.lock.
// Every operation looks at the file first and takes in what another process
// wrote. A file that cannot be read whole and authentic is never written over.
//
// # What does not hold
//
// A whole file put back from an earlier day opens: Generation is for the
// caller to record elsewhere. A running process does notice (ErrRolledBack).
// The .bak file and any copy made elsewhere still hold what was removed since.
// MK and the CKs are in locked memory that core dumps leave out; the AEAD's
// own copies and the values given out are in ordinary memory. Root, and a
// debugger of the same user, can read all of them.
package vault

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"guard"
)

// What callers branch on.
var (
	ErrNoVault    = errors.New("there is no vault")
	ErrExists     = errors.New("it exists already")
	ErrWrongKey   = errors.New("wrong passphrase or key")
	ErrNoUnlocker = errors.New("no way to unlock the vault worked")
	ErrCorrupt    = errors.New("the vault file is damaged")
	ErrNewer      = errors.New("the vault was written by a newer guard")
	ErrOlder      = errors.New("the vault's format is older than this guard reads")
	ErrRolledBack = errors.New("the vault file was replaced by an older or a different one")
	ErrUnsafe     = errors.New("unsafe owner or mode")
	ErrBusy       = errors.New("another process is writing to the vault")
	ErrNotFound   = errors.New("not found")
	ErrTooShort   = errors.New("the value is too short")
	ErrDecoy      = errors.New("it is a decoy: no value belongs to it")
	ErrTooLong    = errors.New("the value is too long")
	ErrSameValue  = errors.New("the value is not a new one")
	ErrState      = errors.New("the version is not in a state that allows this")
	ErrLastSlot   = errors.New("the last unlock slot cannot be removed")
	ErrNoKeyring  = errors.New("no keychain answers")
	ErrClosed     = fmt.Errorf("the vault is closed: %w", os.ErrClosed)
	ErrLocked     = errors.New("the vault is locked")
	errBox        = errors.New("a sealed box does not open")
	errUnchanged  = errors.New("nothing to write")
)

// Vault is an open vault. Its methods may be called by several goroutines at
// once, and several processes may have the same vault open.
type Vault struct {
	dir string
	id  string

	mu     sync.Mutex
	closed bool
	master *locked // holds MK
	mk     []byte
	ctx    *locked           // holds what cks points into
	cks    map[string][]byte // keys of the contexts opened since the last load
	held   holdings          // values that are kept elsewhere

	sealKeys *locked           // holds what seals points into
	seals    map[string][]byte // keys of the seals that were opened, by context
	ticket   *ticketKey        // set while it is locked
	st       *state

	memory  bool                // there is no file: see Memory
	lent    map[string]*segment // by context: see Lend
	lentKey []byte              // nil while lentBox has not been opened since the vault was locked
	lentBox []byte              // lentKey, sealed by the root key
}

// GuardHome is where guard keeps its things: $GUARD_HOME, else
// $XDG_DATA_HOME/guard, else ~/.local/share/guard. It is empty if the
// environment names no home at all. The XDG specification says to ignore a
// relative XDG_DATA_HOME.
func GuardHome(getenv func(string) string) string {
	if d := getenv("GUARD_HOME"); d != "" {
		return d
	}
	if d := getenv("XDG_DATA_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "guard")
	}
	home := getenv("HOME")
	if home == "" && runtime.GOOS == "windows" {
		home = getenv("USERPROFILE")
	}
	if home == "" {
		return ""
	}
	return filepath.Join(home, ".local", "share", "guard")
}

// Exists says whether dir holds a vault file, in whatever condition.
func Exists(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, fileName))
	return err == nil
}

// Slots returns the names of the unlock slots, without unlocking: "keyring",
// "passphrase", "keyfile"; a second one of the same kind is "passphrase-2".
// Nothing proves them authentic before Open did.
func Slots(dir string) ([]string, error) {
	raw, _, err := readVault(dir)
	if err != nil {
		return nil, err
	}
	st, err := parse(raw)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range st.slots {
		names = append(names, s.Name)
	}
	return names, nil
}

// IDOf returns the id of the vault in dir, without unlocking: nothing proves it
// authentic. ErrNoVault.
func IDOf(dir string) (string, error) {
	raw, _, err := readVault(dir)
	if err != nil {
		return "", err
	}
	st, err := parse(raw)
	if err != nil {
		return "", err
	}
	return st.id, nil
}

// Create makes an empty vault in dir that u opens. ErrExists: there is a vault
// file already, or the backup of one that is gone.
func Create(dir string, u Unlocker) (*Vault, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if Exists(dir) {
		return nil, fmt.Errorf("create vault %s: %w", filepath.Join(dir, fileName), ErrExists)
	}
	if _, err := os.Lstat(filepath.Join(dir, bakName)); err == nil {
		return nil, fmt.Errorf("create vault in %s: a backup: %w, though %s is gone: rename %s to %s to restore it, or move it away to start anew",
			dir, ErrExists, fileName, bakName, fileName)
	}
	id, root, err := readSeed(dir) // what sessions had before, so that their log goes on
	if err != nil {
		return nil, err
	}
	if id == nil {
		id, root = newSeed()
	}
	mk := make([]byte, keySize)
	rand.Read(mk)
	v := &Vault{dir: dir, id: hex.EncodeToString(id)}
	if err := v.hold(mk); err != nil {
		return nil, err
	}
	st := &state{id: v.id, gen: 1, opened: map[string]*segment{}}
	st.index.Root = seal(derive(v.mk, "wrap-root"), root, aad(v.id, "", "", 0, "root"))
	clear(root)
	s, err := v.enrol(u, nil)
	if err != nil {
		v.Close()
		return nil, err
	}
	st.slots = []slot{s}
	raw, err := st.encode(v.mk)
	if err == nil {
		st.stamp, err = replace(dir, raw)
	}
	if err == nil {
		err = dropSeed(dir)
	}
	if err != nil {
		v.Close()
		return nil, fmt.Errorf("create vault: %w", err)
	}
	v.st = st
	return v, nil
}

// Open unlocks the vault in dir with the first of us that fits a slot. Errors:
// ErrNoVault, ErrWrongKey (a key was had and does not fit), ErrNoUnlocker (no
// key was to be had; the reasons are wrapped), ErrCorrupt, ErrNewer, ErrOlder,
// ErrUnsafe.
func Open(dir string, us ...Unlocker) (*Vault, error) {
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	raw, stamp, err := readVault(dir)
	if err != nil {
		return nil, err
	}
	st, err := parse(raw)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", filepath.Join(dir, fileName), err)
	}
	st.stamp = stamp
	mk, err := st.unlock(us)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", filepath.Join(dir, fileName), err)
	}
	v := &Vault{dir: dir, id: st.id}
	if err := v.hold(mk); err != nil {
		return nil, err
	}
	if err := st.openIndex(v.mk); err != nil {
		v.Close()
		return nil, fmt.Errorf("open %s: %w", filepath.Join(dir, fileName), err)
	}
	v.st = st
	return v, nil
}

// hold moves mk into locked memory.
func (v *Vault) hold(mk []byte) (err error) {
	defer clear(mk)
	if v.master, err = newLocked(); err != nil {
		return err
	}
	if v.ctx, err = newLocked(); err != nil {
		v.master.free()
		return err
	}
	if v.sealKeys, err = newLocked(); err != nil {
		v.master.free()
		v.ctx.free()
		return err
	}
	v.cks, v.seals = map[string][]byte{}, map[string][]byte{}
	v.mk, err = v.master.put(mk)
	return err
}

// Close wipes the keys. Everything else then answers ErrClosed.
func (v *Vault) Close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return
	}
	v.closed = true
	v.mk, v.cks, v.st, v.lent, v.lentKey = nil, nil, nil, nil, nil
	v.held.free()
	v.master.free()
	v.ctx.free()
}

// ID is the vault's random id, 32 hex digits. It never changes.
func (v *Vault) ID() string { return v.id }

// Generation is the number of the vault's last write, also if another process
// did it. It is the last one known if the file cannot be read now, and 0 if
// the vault is closed.
func (v *Vault) Generation() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.refresh() != nil && v.st == nil {
		return 0
	}
	return v.st.gen
}

// Advance makes the vault's generation at least to, for who takes an older file on
// purpose.
func (v *Vault) Advance(to uint64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.update(func(next *state) error {
		if next.gen >= to {
			return errUnchanged
		}
		next.gen = to - 1 // update adds one
		return nil
	})
}

// refresh takes in the file if it is not the one that v knows. Caller holds mu.
func (v *Vault) refresh() error {
	if err := v.usable(); err != nil {
		return err
	}
	if v.memory {
		return nil
	}
	same, err := unchanged(v.dir, v.st.stamp, v.st.gen)
	if err != nil || same {
		return err
	}
	raw, stamp, err := readVault(v.dir)
	if err != nil {
		return err
	}
	st, err := parse(raw)
	if err != nil {
		return fmt.Errorf("read %s again: %w", filepath.Join(v.dir, fileName), err)
	}
	if st.id != v.id {
		return fmt.Errorf("read %s again: it is another vault: %w", filepath.Join(v.dir, fileName), ErrRolledBack)
	}
	if st.gen < v.st.gen {
		return fmt.Errorf("read %s again: generation %d where %d was seen: %w", filepath.Join(v.dir, fileName), st.gen, v.st.gen, ErrRolledBack)
	}
	st.stamp = stamp
	if err := st.openIndex(v.mk); err != nil {
		if st.gen > v.st.gen {
			return fmt.Errorf("read %s again: %w: %w", filepath.Join(v.dir, fileName), ErrRekeyed, err)
		}
		return fmt.Errorf("read %s again: %w", filepath.Join(v.dir, fileName), err)
	}
	v.ctx.reset()
	clear(v.cks)
	v.st = st
	return nil
}

// update changes a copy of the state and makes it the file, as one step among
// all processes. If f or the write fails, nothing changed. Caller holds mu.
func (v *Vault) update(f func(next *state) error) error {
	if err := v.usable(); err != nil {
		return err
	}
	if !v.memory {
		unlock, err := lockDir(v.dir)
		if err != nil {
			return err
		}
		defer unlock()
	}
	if err := v.refresh(); err != nil {
		return err
	}
	next := v.st.clone()
	if err := f(next); errors.Is(err, errUnchanged) {
		return nil
	} else if err != nil {
		return err
	}
	next.gen++
	if v.memory {
		v.st = next
		return nil
	}
	raw, err := next.encode(v.mk)
	if err != nil {
		return err
	}
	if next.stamp, err = replace(v.dir, raw); err != nil {
		return fmt.Errorf("write vault: %w", err)
	}
	v.st = next
	return nil
}

// Key returns a 32-byte key for one purpose, for example "audit": the same one
// for as long as the vault lives. The caller wipes it.
func (v *Vault) Key(purpose string) (guard.Secret, error) {
	k, err := v.purpose("key/" + purpose)
	return guard.NewSecret(k), err
}

// Seal encrypts plain so that only Unseal of this vault with the same purpose
// opens it.
func (v *Vault) Seal(purpose string, plain []byte) ([]byte, error) {
	v.mu.Lock()
	if v.ticket != nil && v.ticket.seals[purpose] != nil {
		k := append(onceKey(nil), v.ticket.seals[purpose]...)
		v.mu.Unlock()
		return seal(k, plain, aad(v.id, "", purpose, 0, "sealed")), nil
	}
	v.mu.Unlock()
	k, err := v.purpose("seal/" + purpose)
	if err != nil {
		return nil, err
	}
	return seal(k, plain, aad(v.id, "", purpose, 0, "sealed")), nil
}

// Unseal opens what Seal made. ErrCorrupt: it is not, or not for this purpose.
func (v *Vault) Unseal(purpose string, box []byte) ([]byte, error) {
	k, err := v.purpose("seal/" + purpose)
	if err != nil {
		return nil, err
	}
	p, err := open(k, box, aad(v.id, "", purpose, 0, "sealed"))
	if err != nil {
		return nil, fmt.Errorf("unseal for %q: %w: %w", purpose, ErrCorrupt, err)
	}
	return p, nil
}

// purpose derives a key from the root key.
func (v *Vault) purpose(info string) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.rootKey(info)
}

// rootKey is purpose for who holds mu.
func (v *Vault) rootKey(info string) ([]byte, error) {
	if err := v.usable(); err != nil {
		return nil, err
	}
	root, err := open(derive(v.mk, "wrap-root"), v.st.index.Root, aad(v.id, "", "", 0, "root"))
	if err != nil {
		return nil, fmt.Errorf("root key: %w: %w", ErrCorrupt, err)
	}
	defer clear(root)
	return deriveKeep(root, info), nil
}

func now() time.Time { return time.Now().UTC().Round(0) }
