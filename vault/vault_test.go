package vault

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"guard"
)

func secret(s string) guard.Secret { return guard.NewSecret([]byte(s)) }

// opened returns a new vault with a key file, and how to open it.
func opened(t testing.TB) (*Vault, string, KeyFile) {
	t.Helper()
	home := t.TempDir()
	dir, key := filepath.Join(home, "vault"), KeyFile{Path: filepath.Join(home, "key"), Create: true}
	v, err := Create(dir, key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v, dir, key
}

func reopen(t testing.TB, dir string, us ...Unlocker) *Vault {
	t.Helper()
	v, err := Open(dir, us...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

func set(t testing.TB, v *Vault, context, name, value string) guard.Credential {
	t.Helper()
	c, err := v.Set(guard.Credential{Context: context, Name: name}, secret(value))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func get(t testing.TB, v *Vault, context, name string, n int) string {
	t.Helper()
	s, err := v.Get(guard.SecretID{Context: context, Name: name, Version: n})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Wipe()
	return string(s.Reveal())
}

func want(t testing.TB, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("got %v, want %v", err, target)
	}
}

const canary = "canary-5f1c9e07b2d84a63"

func TestSetGetReopen(t *testing.T) {
	v, dir, key := opened(t)
	c := set(t, v, "", "db", canary)
	if c.Context != "default" || c.Version != 1 || c.Kind != "generic" || len(c.Placeholder) != len(canary) || c.Created.IsZero() {
		t.Fatalf("stored as %+v", c)
	}
	set(t, v, "acme/prod", "db", canary+"-prod")
	v.Close()
	v.Close()
	if _, err := v.Find("", "db"); !errors.Is(err, os.ErrClosed) || !errors.Is(err, ErrClosed) {
		t.Fatal("a closed vault answered", err)
	}
	w := reopen(t, dir, key)
	if get(t, w, "", "db", 0) != canary || get(t, w, "acme/prod", "db", 1) != canary+"-prod" {
		t.Fatal("another value came back")
	}
	if w.ID() != v.ID() || w.Generation() != 3 {
		t.Fatal("id or generation", w.Generation())
	}
	d, err := w.Find("", "db")
	if err != nil || d.Placeholder != c.Placeholder || !d.Created.Equal(c.Created) {
		t.Fatal("find", d, err)
	}
	all, err := w.List("")
	if err != nil || len(all) != 2 || all[0].Context != "acme/prod" {
		t.Fatal("list", all, err)
	}
	one, _ := w.List("acme/prod")
	none, err := w.List("acme")
	if len(one) != 1 || len(none) != 0 || err != nil {
		t.Fatal("a context is another one", one, none, err)
	}
	for _, id := range []guard.SecretID{{Context: "acme", Name: "db"}, {Name: "other"}, {Name: "db", Version: 2}, {Name: "db", Version: -1}} {
		_, err := w.Get(id)
		want(t, err, ErrNotFound)
	}
	s, _ := w.Get(guard.SecretID{Name: "db"})
	s.Wipe()
	if get(t, w, "", "db", 0) != canary {
		t.Fatal("wiping one copy wiped another")
	}
}

func TestNothingReadableInAnyFile(t *testing.T) {
	v, dir, key := opened(t)
	c, err := v.Set(guard.Credential{Context: "ctx-canary", Name: "name-canary", Hosts: []string{"host-canary.example.com"}, User: "user-canary"}, secret(canary))
	if err != nil {
		t.Fatal(err)
	}
	set(t, v, "ctx-canary", "name-canary", canary+"2")
	box, err := v.Seal("x", []byte(canary))
	if err != nil || bytes.Contains(box, []byte("canary")) {
		t.Fatal("seal", err)
	}
	raw, _ := os.ReadFile(key.Path)
	v.Close()
	n := 0
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		n++
		fi, _ := d.Info()
		if fi.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, fi.Mode())
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(bytes.ToLower(b), []byte("canary")) || bytes.Contains(b, []byte(c.Placeholder)) || bytes.Contains(b, raw) {
			t.Errorf("%s holds something in the clear", path)
		}
		return err
	})
	if err != nil || n < 3 {
		t.Fatalf("%d files, %v", n, err)
	}
}

func TestErrorsOfOpen(t *testing.T) {
	v, dir, key := opened(t)
	file := filepath.Join(dir, fileName)
	_, err := Create(dir, key)
	want(t, err, ErrExists)
	_, err = Open(t.TempDir(), key)
	want(t, err, ErrNoVault)
	_, err = Open(filepath.Join(t.TempDir(), "none"), key)
	want(t, err, ErrNoVault)
	other := KeyFile{Path: filepath.Join(t.TempDir(), "k"), Create: true}
	other.Enrol("")
	_, err = Open(dir, other)
	want(t, err, ErrWrongKey)
	_, err = Open(dir, KeyFile{Path: filepath.Join(t.TempDir(), "gone")})
	want(t, err, ErrNoUnlocker)
	want(t, err, os.ErrNotExist)
	_, err = Open(dir)
	want(t, err, ErrNoUnlocker)
	if !strings.Contains(err.Error(), "keyfile") {
		t.Fatal("the error does not say how it opens:", err)
	}
	reopen(t, dir, other, key) // the second one fits

	set(t, v, "", "a", canary)
	raw, _ := os.ReadFile(file)
	newer := bytes.Clone(raw)
	newer[9] = 3
	older := bytes.Clone(raw)
	older[9] = 0
	for name, c := range map[string]struct {
		b   []byte
		err error
	}{
		"empty": {nil, ErrCorrupt}, "half": {raw[:len(raw)/2], ErrCorrupt}, "one short": {raw[:len(raw)-1], ErrCorrupt},
		"longer": {append(bytes.Clone(raw), 0), ErrCorrupt}, "text": {[]byte("hello, world, this is no vault at all"), ErrCorrupt},
		"newer": {newer, ErrNewer}, "older": {older, ErrOlder},
	} {
		if err := os.WriteFile(file, c.b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, key); !errors.Is(err, c.err) || errors.Is(err, ErrWrongKey) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Create(dir, key); !errors.Is(err, ErrExists) {
			t.Errorf("%s: create: %v", name, err)
		}
		// A vault that is open does not write over it either.
		if _, err := v.Set(guard.Credential{Name: "b"}, secret(canary)); !errors.Is(err, c.err) {
			t.Errorf("%s: set: %v", name, err)
		}
		if b, _ := os.ReadFile(file); !bytes.Equal(b, c.b) {
			t.Errorf("%s: the file was written over", name)
		}
	}
	os.Remove(file)
	_, err = Open(dir, key)
	want(t, err, ErrNoVault)
	_, err = Create(dir, key)
	want(t, err, ErrExists)
	if !strings.Contains(err.Error(), bakName) {
		t.Fatal("nothing about the backup:", err)
	}
	if _, err := v.Set(guard.Credential{Name: "b"}, secret(canary)); !errors.Is(err, ErrNoVault) || Exists(dir) {
		t.Fatal("an open vault came back from the dead", err)
	}
	os.Rename(filepath.Join(dir, bakName), file)
	if n := len(must(reopen(t, dir, key).List(""))); n != 0 {
		t.Fatal("the backup is not the generation before:", n)
	}
	_, err = v.Find("", "a")
	want(t, err, ErrRolledBack)
}

func must[T any](x T, err error) T {
	if err != nil {
		panic(err)
	}
	return x
}

func TestSlots(t *testing.T) {
	v, dir, key := opened(t)
	set(t, v, "", "a", canary)
	before := must(readFileOf(dir))
	words := func(s string) Passphrase {
		return Passphrase{Ask: func(bool) (guard.Secret, error) { return secret(s), nil }}
	}
	want(t, v.AddSlot(words("short")), ErrTooShort)
	for _, p := range []string{"correct horse", "battery staple"} {
		if err := v.AddSlot(words(p)); err != nil {
			t.Fatal(err)
		}
	}
	if got := fmt.Sprint(must(Slots(dir))); got != "[keyfile passphrase passphrase-2]" {
		t.Fatal(got)
	}
	after := must(readFileOf(dir))
	if !bytes.Equal(segments(t, before), segments(t, after)) {
		t.Fatal("a new slot sealed values anew")
	}
	for _, u := range []Unlocker{key, words("correct horse"), words("battery staple")} {
		if get(t, reopen(t, dir, u), "", "a", 0) != canary {
			t.Fatal("another value")
		}
	}
	_, err := Open(dir, words("wrong horse"))
	want(t, err, ErrWrongKey)
	_, err = Open(dir, Passphrase{Ask: func(bool) (guard.Secret, error) { return guard.Secret{}, os.ErrDeadlineExceeded }})
	want(t, err, os.ErrDeadlineExceeded)

	want(t, v.RemoveSlot("keyring"), ErrNotFound)
	for _, s := range []string{"keyfile", "passphrase"} {
		if err := v.RemoveSlot(s); err != nil {
			t.Fatal(err)
		}
	}
	want(t, v.RemoveSlot("passphrase-2"), ErrLastSlot)
	_, err = Open(dir, key)
	want(t, err, ErrNoUnlocker)
	_, err = Open(dir, words("correct horse"))
	want(t, err, ErrWrongKey)
	reopen(t, dir, words("battery staple"))
	os.Rename(filepath.Join(dir, bakName), filepath.Join(dir, fileName))
	_, err = Open(dir, words("correct horse"))
	want(t, err, ErrWrongKey) // nor by the backup
}

func readFileOf(dir string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, fileName)) }

// segments are the bytes after the index.
func segments(t *testing.T, raw []byte) []byte {
	t.Helper()
	return must(parse(raw)).sealed[0]
}

func TestArgonLimits(t *testing.T) {
	ok := argon{Time: 3, Memory: 64 << 10, Lanes: 4, Salt: make([]byte, 16)}
	if err := ok.check(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []func(*argon){
		func(a *argon) { a.Time = 1 }, func(a *argon) { a.Time = 1 << 30 }, func(a *argon) { a.Memory = 8 },
		func(a *argon) { a.Memory = 1<<32 - 1 }, func(a *argon) { a.Lanes = 0 }, func(a *argon) { a.Lanes = 255 }, func(a *argon) { a.Salt = nil },
	} {
		a := ok
		f(&a)
		want(t, a.check(), ErrCorrupt)
	}
}

func TestKeyFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte, mode os.FileMode) KeyFile {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, mode); err != nil {
			t.Fatal(err)
		}
		os.Chmod(p, mode)
		return KeyFile{Path: p, Create: true}
	}
	rnd := []byte("0123456789abcdef0123456789abcdef")
	good := write("good", rnd, 0o400)
	if s, _, err := good.Enrol(""); err != nil || string(s.Reveal()) != string(rnd) {
		t.Fatal("a file that was there must be used as it is", err)
	}
	os.Symlink(good.Path, filepath.Join(dir, "link"))
	for _, k := range []KeyFile{
		write("group", rnd, 0o640), write("world", rnd, 0o604), write("short", rnd[:31], 0o600), write("same", make([]byte, 64), 0o600),
		write("long", bytes.Repeat(rnd, 200), 0o600), {Path: filepath.Join(dir, "link")}, {Path: filepath.Join(dir, "none")}, {Path: dir}, {},
	} {
		if _, _, err := k.Enrol(""); err == nil {
			t.Errorf("%s was taken", k.Path)
		} else if strings.Contains(err.Error(), "0123") {
			t.Errorf("the error holds the key: %v", err)
		}
		if _, err := k.Unlock("", nil); err == nil {
			t.Errorf("%s opens", k.Path)
		}
	}
}

func TestModesAreMended(t *testing.T) {
	v, dir, key := opened(t)
	set(t, v, "", "a", canary)
	file := filepath.Join(dir, fileName)
	os.Chmod(file, 0o644)
	os.Chmod(dir, 0o755)
	reopen(t, dir, key)
	for p, m := range map[string]os.FileMode{file: 0o600, dir: 0o700} {
		if fi, _ := os.Stat(p); fi.Mode().Perm() != m {
			t.Errorf("%s has %v", p, fi.Mode())
		}
	}
	if os.Geteuid() == 0 {
		os.Chown(file, 65534, 65534)
		_, err := Open(dir, key)
		want(t, err, ErrUnsafe)
		os.Chown(file, 0, 0)
		os.Chown(dir, 65534, 65534)
		_, err = Open(dir, key)
		want(t, err, ErrUnsafe)
		if !strings.Contains(err.Error(), "65534") {
			t.Error("whose is it?", err)
		}
		os.Chown(dir, 0, 0)
	}
	os.Rename(file, file+".real")
	os.Symlink(file+".real", file)
	if _, err := Open(dir, key); err == nil {
		t.Fatal("a link was followed")
	}
}

func TestGuardHome(t *testing.T) {
	for want, env := range map[string]map[string]string{
		"/g":                    {"GUARD_HOME": "/g", "XDG_DATA_HOME": "/x", "HOME": "/h"},
		"/x/guard":              {"XDG_DATA_HOME": "/x", "HOME": "/h"},
		"/h/.local/share/guard": {"HOME": "/h", "XDG_DATA_HOME": "relative"},
		"":                      {},
	} {
		if got := GuardHome(func(k string) string { return env[k] }); got != want {
			t.Errorf("%v: %q", env, got)
		}
	}
}
