package vault

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"guard"
)

func lend(t *testing.T, v *Vault, name, value string) guard.Credential {
	t.Helper()
	c, err := v.Lend(guard.Credential{Name: name, Kind: "generic"}, guard.NewSecret([]byte(value)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What is lent is found by everything that reads, by nothing that writes, and is in no file.
func TestLend(t *testing.T) {
	dir := t.TempDir()
	v, err := Create(dir, KeyFile{Path: filepath.Join(dir, "..", "key"), Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	const value = "qN5tVb81Lw0Zk3Pd"
	c := lend(t, v, "found.x", value)
	if c.Version != 1 || len(c.Placeholder) != len(value) || c.Placeholder == value || c.Context != "default" {
		t.Errorf("lent as %+v", c)
	}
	got, err := v.Get(guard.SecretID{Context: "default", Name: "found.x"})
	if err != nil || string(got.Reveal()) != value {
		t.Errorf("Get: %v", err)
	}
	if cs, err := v.List("default"); err != nil || len(cs) != 1 || !v.Lent("", "found.x") || v.Lent("other", "found.x") {
		t.Errorf("List: %v, %v", cs, err)
	}
	if cs, _ := v.List("other"); len(cs) != 0 {
		t.Error("another context sees it")
	}
	values, err := v.Values("default")
	if err != nil || len(values) != 2 {
		t.Errorf("%d values, %v", len(values), err)
	}
	if values, err := v.LentValues("default"); err != nil || len(values) != 2 {
		t.Errorf("%d values that are lent, %v", len(values), err)
	}
	if _, err := v.Lend(guard.Credential{Name: "found.x", Kind: "generic"}, guard.NewSecret([]byte("another-value"))); !errors.Is(err, ErrExists) {
		t.Errorf("lent twice: %v", err)
	}
	if err := v.Remove("default", "found.x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Remove: %v", err)
	}
	if _, err := v.Edit("default", "found.x", func(c *guard.Credential) error { return nil }); !errors.Is(err, ErrNotFound) {
		t.Errorf("Edit: %v", err)
	}
	if _, err := v.Set(guard.Credential{Name: "y", Kind: "generic"}, guard.NewSecret([]byte("yyyyyyyy-stored"))); err != nil {
		t.Fatal(err)
	}
	if cs, _ := v.List("default"); len(cs) != 2 {
		t.Errorf("after a write there are %d", len(cs))
	}
	if _, err := v.Lend(guard.Credential{Name: "y", Kind: "generic"}, guard.NewSecret([]byte("another-value"))); !errors.Is(err, ErrExists) {
		t.Errorf("lent under a stored name: %v", err)
	}
	w, err := Open(dir, KeyFile{Path: filepath.Join(dir, "..", "key")})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if cs, _ := w.List(""); len(cs) != 1 {
		t.Errorf("another holder sees %v", cs)
	}
	w2 := lend(t, w, "found.x", "aB3dE5gH7jK9mN1p")
	if len(w2.Placeholder) == len(c.Placeholder) && w2.Placeholder != c.Placeholder {
		t.Error("the placeholder is another one in the next session")
	}
	v.Close()
	if _, err := v.Get(guard.SecretID{Name: "found.x"}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// Before there is a vault, sessions have a key in common and nothing else, and the
// vault takes it over.
func TestMemory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "home")
	v, err := Memory(dir)
	if err != nil {
		t.Fatal(err)
	}
	const value = "qN5tVb81Lw0Zk3Pd"
	if _, err := v.Set(guard.Credential{Name: "x", Kind: "generic"}, guard.NewSecret([]byte(value))); err != nil {
		t.Fatal(err)
	}
	first := lend(t, v, "found.x", value)
	if v.Stored() || v.Generation() != 2 {
		t.Errorf("stored %v, generation %d", v.Stored(), v.Generation())
	}
	if got, err := v.Get(guard.SecretID{Name: "x"}); err != nil || string(got.Reveal()) != value {
		t.Errorf("Get: %v", err)
	}
	key, _ := v.Key("audit")
	box, err := v.Seal("original", []byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	id := v.ID()
	v.Close()
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(value)) || d.Name() == fileName {
			t.Errorf("%s was made", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(filepath.Join(dir, seedName)); err != nil || hasModes && fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}

	again, err := Memory(dir)
	if err != nil {
		t.Fatal(err)
	}
	if cs, _ := again.List(""); len(cs) != 0 {
		t.Errorf("the next one has %v", cs)
	}
	if c := lend(t, again, "found.x", value); c.Placeholder != first.Placeholder {
		t.Error("the placeholder is another one in the next session")
	}
	again.Close()

	made, err := Create(dir, KeyFile{Path: filepath.Join(dir, "..", "key"), Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	if now, _ := made.Key("audit"); !bytes.Equal(now.Reveal(), key.Reveal()) || made.ID() != id {
		t.Error("the vault has another key than the sessions before it")
	}
	if p, err := made.Unseal("original", box); err != nil || string(p) != "text" {
		t.Errorf("what a session sealed: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, seedName)); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the key of sessions is still there")
	}
	if _, err := Memory(dir); !errors.Is(err, ErrExists) {
		t.Errorf("Memory beside a vault: %v", err)
	}
}

// A key of sessions that is damaged, a link or somebody else's is not taken, and not
// written over: the log hangs on it.
func TestSeedRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, seedName)
	for name, make := range map[string]func() error{
		"short": func() error { return os.WriteFile(path, []byte("short"), 0o600) },
		"long":  func() error { return os.WriteFile(path, bytes.Repeat([]byte("x"), 49), 0o600) },
		"link":  func() error { return os.Symlink("/dev/zero", path) },
		"dir":   func() error { return os.Mkdir(path, 0o700) },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if _, err := Memory(dir); err == nil {
			t.Errorf("%s: Memory took it", name)
		}
		if _, err := Create(dir, KeyFile{Path: filepath.Join(dir, "k"), Create: true}); err == nil {
			t.Errorf("%s: Create took it", name)
		}
		if Exists(dir) {
			t.Fatalf("%s: a vault was made", name)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// A vault that is locked wipes the key of what it lends too, and has it again after.
func TestLentThroughLock(t *testing.T) {
	dir := t.TempDir()
	key := KeyFile{Path: filepath.Join(dir, "..", "key"), Create: true}
	v, err := Create(dir, key)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	const value = "qN5tVb81Lw0Zk3Pd"
	lend(t, v, "found.x", value)
	held := v.lentKey
	if held == nil {
		t.Fatal("no key")
	}
	ticket, err := v.Shut()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Get(guard.SecretID{Name: "found.x"}); !errors.Is(err, ErrLocked) {
		t.Errorf("while it is locked: %v", err)
	}
	if _, err := v.LentValues(""); !errors.Is(err, ErrLocked) {
		t.Errorf("while it is locked: %v", err)
	}
	w, err := Open(dir, KeyFile{Path: key.Path})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	answer, err := w.Admit(ticket)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Reopen(answer); err != nil {
		t.Fatal(err)
	}
	if got, err := v.Get(guard.SecretID{Name: "found.x"}); err != nil || string(got.Reveal()) != value {
		t.Errorf("after it was opened again: %v", err)
	}
	if values, err := v.Values("default"); err != nil || len(values) != 2 {
		t.Errorf("%d values, %v", len(values), err)
	}
}
