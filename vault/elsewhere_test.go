package vault_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"guard"
	"guard/vault"
	"guard/vault/vaulttest"
)

func keyFileVault(t *testing.T, dir string) *vault.Vault {
	t.Helper()
	u := vault.KeyFile{Path: filepath.Join(t.TempDir(), "key"), Create: true}
	v, err := vault.Create(dir, u)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

func again(t *testing.T, dir string, key string) *vault.Vault {
	t.Helper()
	v, err := vault.Open(dir, vault.KeyFile{Path: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

func TestLocalIsAStore(t *testing.T) {
	vaulttest.Store(t, vault.Local{Vault: keyFileVault(t, filepath.Join(t.TempDir(), "gh")), Context: "shop/dev"}, "x-")
}

// What is kept elsewhere is in no file, and in this process alone.
func TestHold(t *testing.T) {
	dir, key := filepath.Join(t.TempDir(), "gh"), filepath.Join(t.TempDir(), "key")
	v, err := vault.Create(dir, vault.KeyFile{Path: key, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	long := strings.Repeat(rand.Text(), 300) // more than a page
	first, second := guard.NewSecret([]byte(rand.Text())), guard.NewSecret([]byte(long))
	c, err := v.SetSource(guard.Credential{Name: "db", Kind: "postgres", Hosts: []string{"db.example.com:5432"}}, guard.Secret{}, vault.Source{Lease: "database/creds/app"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Placeholder == "" || c.Version != 0 || c.Env != "PGPASSWORD" {
		t.Fatalf("stored as %+v", c)
	}
	if _, err := v.Get(guard.SecretID{Name: "db"}); !errors.Is(err, vault.ErrNotHeld) || !errors.Is(err, vault.ErrElsewhere) {
		t.Fatalf("before it is held: %v", err)
	}
	other := again(t, dir, key)
	id, err := v.Hold("", "db", first, vault.Held{User: "v-app-1", Expires: time.Now().Add(time.Hour)})
	if err != nil || id.Version != 1 {
		t.Fatalf("hold: %v, %v", id, err)
	}
	// Another guard's lease of the same credential: neither gets the other's.
	oid, err := other.Hold("", "db", second, vault.Held{User: "v-app-2"})
	if err != nil || oid.Version != 2 {
		t.Fatalf("another's: %v, %v", oid, err)
	}
	for _, w := range []struct {
		v    *vault.Vault
		s    guard.Secret
		user string
		n    int
	}{{v, first, "v-app-1", 1}, {other, second, "v-app-2", 2}} {
		got, err := w.v.Get(guard.SecretID{Name: "db"})
		if err != nil || !bytes.Equal(got.Reveal(), w.s.Reveal()) {
			t.Fatalf("%s: another value, or %v", w.user, err)
		}
		if c, err := w.v.Find("", "db"); err != nil || c.User != w.user || c.Version != w.n {
			t.Fatalf("Find: %+v, %v", c, err)
		}
		if cs, err := w.v.List(""); err != nil || cs[0].User != w.user {
			t.Fatalf("List: %+v, %v", cs, err)
		}
		values, err := w.v.Values("")
		if err != nil {
			t.Fatal(err)
		}
		live := 0
		for _, val := range values {
			if val.Class == guard.Live {
				live++
				if val.ID.Version != w.n || !bytes.Equal(val.Secret.Reveal(), w.s.Reveal()) {
					t.Fatalf("%s looks for another value, of version %d", w.user, val.ID.Version)
				}
			}
		}
		if live != 1 {
			t.Fatalf("%d values are looked for, want 1", live)
		}
	}
	if _, err := v.Get(guard.SecretID{Name: "db", Version: 2}); !errors.Is(err, vault.ErrNotHeld) {
		t.Fatalf("another guard's lease: %v", err)
	}
	// The file has no value, even for who has the key.
	third := again(t, dir, key)
	if values, err := third.Values(""); err != nil || len(values) != 1 {
		t.Fatalf("a guard that holds nothing looks for %d values, %v", len(values), err)
	}
	if _, err := third.Get(guard.SecretID{Name: "db"}); !errors.Is(err, vault.ErrNotHeld) {
		t.Fatal(err)
	}
	if err := v.Drop(id, true); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Get(guard.SecretID{Name: "db"}); !errors.Is(err, vault.ErrNotHeld) {
		t.Fatalf("after it was dropped: %v", err)
	}
	vs, err := other.Versions("", "db")
	if err != nil || vs[0].State != vault.Dead || vs[1].State == vault.Dead {
		t.Fatalf("versions %+v, %v", vs, err)
	}
	// Re-keyed and backed up as ever.
	copied := filepath.Join(t.TempDir(), "copy")
	if err := other.Backup(copied); err != nil {
		t.Fatal(err)
	}
	if err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			b, rerr := os.ReadFile(p)
			if rerr == nil && bytes.Contains(b, first.Reveal()) {
				t.Errorf("%s has the value", p)
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// Versions of a store are versions here, each once.
func TestHoldVersions(t *testing.T) {
	v := keyFileVault(t, filepath.Join(t.TempDir(), "gh"))
	s := func() guard.Secret { return guard.NewSecret([]byte(rand.Text())) }
	if _, err := v.SetSource(guard.Credential{Name: "tok", Hosts: []string{"api.example.com"}}, s(), vault.Source{Path: "default/tok"}); err != nil {
		t.Fatal(err)
	}
	for _, w := range []struct{ at, number int }{{4, 1}, {4, 1}, {6, 2}, {4, 1}, {7, 3}} {
		id, err := v.Hold("", "tok", s(), vault.Held{At: w.at})
		if err != nil || id.Version != w.number {
			t.Fatalf("the store's version %d: %v, %v; want %d", w.at, id, err, w.number)
		}
	}
	// What cannot be done to it here.
	if _, err := v.Set(guard.Credential{Name: "tok"}, s()); !errors.Is(err, vault.ErrElsewhere) {
		t.Errorf("Set: %v", err)
	}
	if _, err := v.Propose("", "tok", s()); !errors.Is(err, vault.ErrElsewhere) {
		t.Errorf("Propose: %v", err)
	}
	if _, _, err := (vault.Local{Vault: v}).Get(t.Context(), "tok", 0); !errors.Is(err, vault.ErrElsewhere) {
		t.Errorf("Local: %v", err)
	}
	if _, err := v.Set(guard.Credential{Name: "here"}, s()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.SetSource(guard.Credential{Name: "here"}, s(), vault.Source{Path: "x"}); !errors.Is(err, vault.ErrExists) {
		t.Errorf("SetSource over a value: %v", err)
	}
	if _, err := v.Hold("", "here", s(), vault.Held{}); !errors.Is(err, vault.ErrElsewhere) {
		t.Errorf("Hold: %v", err)
	}
	for _, from := range []vault.Source{{}, {Path: "a", Lease: "b"}} {
		if _, err := v.SetSource(guard.Credential{Name: "new"}, s(), from); err == nil {
			t.Errorf("a source %+v was taken", from)
		}
	}
	v.Close()
	if _, err := v.Hold("", "tok", s(), vault.Held{}); !errors.Is(err, vault.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// A lease of AWS is JSON; the parts of it that are secret are looked for by themselves.
func TestHoldAWS(t *testing.T) {
	v := keyFileVault(t, filepath.Join(t.TempDir(), "gh"))
	if _, err := v.SetSource(guard.Credential{Name: "aws", Kind: "aws"}, guard.Secret{}, vault.Source{Lease: "aws/sts/deploy"}); err != nil {
		t.Fatal(err)
	}
	key, session := rand.Text()+"abcdefghijklmn", rand.Text()+rand.Text()
	id := "ASIA" + strings.Repeat("Q", 16)
	value := `{"AccessKeyId":"` + id + `","SecretAccessKey":"` + key + `","SessionToken":"` + session + `"}`
	if _, err := v.Hold("", "aws", guard.NewSecret([]byte(value)), vault.Held{User: id}); err != nil {
		t.Fatal(err)
	}
	if c, err := v.Find("", "aws"); err != nil || c.User != id || len(c.Hosts) == 0 {
		t.Fatalf("%+v, %v", c, err)
	}
	values, err := v.Values("")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{key, session} {
		found := false
		for _, val := range values {
			found = found || val.Class == guard.Live && string(val.Secret.Reveal()) == want
		}
		if !found {
			t.Error("a part of the value is not looked for by itself")
		}
	}
}

// A version that is over in a process that does not hold it is none of its business: a
// crashed guard's lease is taken for dead in time, and the file does not grow for ever.
func TestHoldForgets(t *testing.T) {
	v := keyFileVault(t, filepath.Join(t.TempDir(), "gh"))
	if _, err := v.SetSource(guard.Credential{Name: "db", Kind: "postgres"}, guard.Secret{}, vault.Source{Lease: "database/creds/app"}); err != nil {
		t.Fatal(err)
	}
	for i := range 80 {
		id, err := v.Hold("", "db", guard.NewSecret([]byte(rand.Text())), vault.Held{User: "u"})
		if err != nil || id.Version != i+1 {
			t.Fatal(id, err)
		}
		if err := v.Drop(id, true); err != nil {
			t.Fatal(err)
		}
	}
	vs, err := v.Versions("", "db")
	if err != nil || len(vs) != 64 {
		t.Fatalf("%d versions are kept, %v", len(vs), err)
	}
}
