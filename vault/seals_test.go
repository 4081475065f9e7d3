package vault

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"guard"
)

// own is a way to open a context that the vault's key file is not.
func own(t testing.TB, name string) KeyFile {
	return KeyFile{Path: filepath.Join(t.TempDir(), name), Create: true}
}

func TestSealedContext(t *testing.T) {
	v, dir, key := opened(t)
	set(t, v, "acme/dev", "tok", canary+"-dev")
	set(t, v, "acme/prod", "tok", canary+"-prod-1")
	c := set(t, v, "acme/prod", "tok", canary+"-prod-2")
	prod := own(t, "prod")
	if err := v.SealContext("acme/prod", prod); err != nil {
		t.Fatal(err)
	}
	if get(t, v, "acme/prod", "tok", 1) != canary+"-prod-1" || get(t, v, "acme/prod", "tok", 0) != canary+"-prod-2" {
		t.Fatal("values are not what they were")
	}
	if must(v.Find("acme/prod", "tok")).Placeholder != c.Placeholder {
		t.Fatal("sealing changed the placeholder")
	}

	w := reopen(t, dir, key)
	if get(t, w, "acme/dev", "tok", 0) != canary+"-dev" {
		t.Fatal("another context")
	}
	// Nothing that speaks of it says more than that it is sealed, whatever name is asked for.
	for name, f := range map[string]func() error{
		"get":         func() error { _, err := w.Get(guard.SecretID{Context: "acme/prod", Name: "tok"}); return err },
		"get no name": func() error { _, err := w.Get(guard.SecretID{Context: "acme/prod", Name: "none"}); return err },
		"find":        func() error { _, err := w.Find("acme/prod", "tok"); return err },
		"list":        func() error { _, err := w.List("acme/prod"); return err },
		"values":      func() error { _, err := w.Values("acme/prod"); return err },
		"versions":    func() error { _, err := w.Versions("acme/prod", "tok"); return err },
		"set": func() error {
			_, err := w.Set(guard.Credential{Context: "acme/prod", Name: "new"}, secret(canary))
			return err
		},
		"remove":  func() error { return w.Remove("acme/prod", "tok") },
		"propose": func() error { _, err := w.Propose("acme/prod", "tok", secret(canary)); return err },
		"seal":    func() error { return w.SealContext("acme/prod", own(t, "x")) },
		"unseal":  func() error { return w.UnsealContext("acme/prod") },
		"issued":  func() error { _, err := w.Issued("acme/prod"); return err },
	} {
		if err := f(); !errors.Is(err, ErrSealed) || err.Error() != sealedError("acme/prod").Error() {
			t.Errorf("%s: %v", name, err)
		}
	}
	if l := must(w.List("")); len(l) != 1 || l[0].Context != "acme/dev" {
		t.Errorf("all: %v", l)
	}
	for _, val := range must(w.Values("")) {
		if val.ID.Context != "acme/dev" {
			t.Errorf("values of %s", val.ID)
		}
	}
	if len(w.cks) != 1 || len(w.st.opened) != 1 {
		t.Error("more was opened than was asked for")
	}
	// Writing to another context, and re-keying the vault, leave the seal as it is.
	set(t, w, "acme/dev", "b", canary+"-b")
	if err := w.Rekey(func(SlotInfo) (Again, error) { return Again{Unlocker: key}, nil }); err != nil {
		t.Fatal(err)
	}
	x := reopen(t, dir, key)
	want(t, x.OpenContext("acme/prod"), ErrNoUnlocker)
	want(t, x.OpenContext("acme/prod", key), ErrWrongKey)
	if err := x.OpenContext("acme/prod", prod); err != nil {
		t.Fatal(err)
	}
	if get(t, x, "acme/prod", "tok", 0) != canary+"-prod-2" {
		t.Fatal("after re-keying")
	}
	set(t, x, "acme/prod", "later", canary+"-later")

	// A second way, and a context that is sealed before anything is in it.
	pass := passphrase("correct horse battery")
	if err := x.SealContext("acme/prod", pass); err != nil {
		t.Fatal(err)
	}
	if err := x.SealContext("acme/new", pass); err != nil {
		t.Fatal(err)
	}
	y := reopen(t, dir, key)
	if err := errors.Join(y.OpenContext("acme/prod", pass), y.OpenContext("acme/new", pass), y.OpenContext("acme/dev"), y.OpenContext("acme/none")); err != nil {
		t.Fatal(err)
	}
	if get(t, y, "acme/prod", "later", 0) != canary+"-later" {
		t.Fatal("by the second slot")
	}
	seals := must(y.SealedContexts())
	if len(seals) != 2 || seals[1].Context != "acme/prod" || !seals[1].Open || len(seals[1].Slots) != 2 || seals[1].Slots[1].Name != "passphrase" {
		t.Fatalf("%+v", seals)
	}
	if err := y.UnsealContext("acme/prod"); err != nil {
		t.Fatal(err)
	}
	if get(t, reopen(t, dir, key), "acme/prod", "tok", 1) != canary+"-prod-1" {
		t.Fatal("unsealed")
	}
	// x knows the seal's key of before.
	want(t, y.SealContext("acme/prod", own(t, "again")), nil)
	_, err := x.Get(guard.SecretID{Context: "acme/prod", Name: "tok"})
	want(t, err, ErrSealed)
}

func passphrase(s string) Passphrase {
	return Passphrase{Ask: func(bool) (guard.Secret, error) { return secret(s), nil }}
}

// What the vault's key and every byte on the disk give, without the seal's.
func TestSealedFromTheVaultsKey(t *testing.T) {
	v, dir, _ := opened(t)
	set(t, v, "acme/prod", "tok", canary)
	if err := v.SealContext("acme/prod", own(t, "prod")); err != nil {
		t.Fatal(err)
	}
	for _, e := range must(os.ReadDir(dir)) {
		raw := must(os.ReadFile(filepath.Join(dir, e.Name())))
		if len(raw) == 0 {
			continue
		}
		st := must(parse(raw))
		if err := st.openIndex(v.mk); err != nil {
			t.Fatal(e.Name(), err)
		}
		w := &Vault{id: v.id, mk: v.mk, seals: map[string][]byte{}, cks: map[string][]byte{}}
		if _, _, err := w.unseal(st, 0); !errors.Is(err, ErrSealed) {
			t.Errorf("%s: %v", e.Name(), err)
		}
		// Nor as one that is not sealed, nor under another context's name.
		st.index.Contexts[0].Slots = nil
		if _, _, err := w.unseal(st, 0); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s without its slots: %v", e.Name(), err)
		}
	}
	raw := must(readFileOf(dir))
	if raw[9] != formatSealed {
		t.Errorf("format %d: a guard that knows no seals would write it anew", raw[9])
	}
	if err := v.UnsealContext("acme/prod"); err != nil || must(readFileOf(dir))[9] != formatVersion {
		t.Error("an unsealed vault is not one that every guard reads", err)
	}
}

// Seals and slots of one context are none of another's.
func TestSealsAreNotSwapped(t *testing.T) {
	v, dir, key := opened(t)
	a, b := own(t, "a"), own(t, "b")
	set(t, v, "a", "tok", canary+"-a")
	set(t, v, "b", "tok", canary+"-b")
	if err := errors.Join(v.SealContext("a", a), v.SealContext("b", b)); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(x, y *context){
		"slots":          func(x, y *context) { x.Slots, y.Slots = y.Slots, x.Slots },
		"slots and keys": func(x, y *context) { x.Slots, y.Slots, x.Key, y.Key = y.Slots, x.Slots, y.Key, x.Key },
		"a slot of the vault's": func(x, _ *context) {
			x.Slots = slices.Clone(v.st.slots)
		},
	} {
		w := reopen(t, dir, key)
		w.st = w.st.clone()
		f(&w.st.index.Contexts[0], &w.st.index.Contexts[1])
		if err := w.OpenContext("a", a, b, key); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestBackupOfSealedContext(t *testing.T) {
	v, dir, key := opened(t)
	prod := own(t, "prod")
	set(t, v, "acme/dev", "tok", canary+"-dev")
	set(t, v, "acme/prod", "tok", canary+"-prod")
	if err := v.SealContext("acme/prod", prod); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "b")
	if err := v.Backup(file); err != nil {
		t.Fatal(err)
	}
	c := must(Verify(file, key))
	if c.Values != 1 || c.Contexts != 2 || !slices.Equal(c.Sealed, []string{"acme/prod"}) {
		t.Errorf("%+v", c)
	}
	// A passphrase that opens the vault is asked for the seal too, and is none of its.
	if c = must(Verify(file, key, passphrase("something else"))); len(c.Sealed) != 1 {
		t.Errorf("%+v", c)
	}
	must(Restore(dir, file, false, key))
	w := reopen(t, dir, key)
	if err := w.OpenContext("acme/prod", prod); err != nil || get(t, w, "acme/prod", "tok", 0) != canary+"-prod" {
		t.Error("restored:", err)
	}
}

func TestShut(t *testing.T) {
	v, dir, key := opened(t)
	prod := own(t, "prod")
	set(t, v, "a", "tok", canary)
	set(t, v, "p", "tok", canary+"-p")
	if err := v.SealContext("p", prod); err != nil {
		t.Fatal(err)
	}
	mk := bytes.Clone(v.mk)
	held := v.mk // in locked memory
	ticket, err := v.Shut("kept")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(held, mk) || v.mk != nil || len(v.cks)+len(v.seals)+len(v.st.opened) != 0 || !v.Locked() {
		t.Fatal("keys are left")
	}
	for name, f := range map[string]func() error{
		"get":    func() error { _, err := v.Get(guard.SecretID{Context: "a", Name: "tok"}); return err },
		"values": func() error { _, err := v.Values(""); return err },
		"set":    func() error { _, err := v.Set(guard.Credential{Name: "n"}, secret(canary)); return err },
		"key":    func() error { _, err := v.Key("audit"); return err },
		"seal":   func() error { _, err := v.Seal("x", nil); return err },
		"slot":   func() error { return v.AddSlot(own(t, "n")) },
		"rekey":  func() error { return v.Rekey(nil) },
		"admit":  func() error { _, err := v.Admit(ticket); return err },
		"shut":   func() error { _, err := v.Shut(); return err },
		"back":   func() error { return v.Backup(filepath.Join(t.TempDir(), "b")) },
	} {
		if err := f(); !errors.Is(err, ErrLocked) {
			t.Errorf("%s: %v", name, err)
		}
	}
	box := must(v.Seal("kept", []byte("found")))
	if _, err := v.Unseal("kept", box); !errors.Is(err, ErrLocked) {
		t.Errorf("unseal: %v", err)
	}
	if v.Generation() == 0 {
		t.Error("the generation is forgotten")
	}

	w := reopen(t, dir, key)
	if _, err := w.Admit(ticket); !errors.Is(err, ErrSealed) {
		t.Errorf("a seal that is not open: %v", err)
	}
	if err := w.OpenContext("p", prod); err != nil {
		t.Fatal(err)
	}
	set(t, w, "a", "tok", canary+"-2") // meanwhile
	reply := must(w.Admit(ticket))
	if bytes.Contains(reply, mk) {
		t.Error("the answer shows the key")
	}
	// What is not exactly this answer does not open it; nor does another vault's.
	other, _, _ := opened(t)
	foreign := must(other.Shut())
	if _, err := w.Admit(foreign); !errors.Is(err, ErrTicket) {
		t.Errorf("another vault's ticket: %v", err)
	}
	for i := range reply {
		bad := bytes.Clone(reply)
		bad[i] ^= 1
		var a, b answer
		if decode(bad, &a) == nil && decode(reply, &b) == nil && reflect.DeepEqual(a, b) {
			continue // bits that base64 does not use
		}
		if err := v.Reopen(bad); err == nil || !v.Locked() {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	for i := range ticket {
		bad := bytes.Clone(ticket)
		bad[i] ^= 1
		if same, err := readTicket(bad); err == nil && reflect.DeepEqual(same, must(readTicket(ticket))) {
			continue // bits that base64 does not use
		}
		if _, err := w.Admit(bad); err == nil {
			t.Fatalf("byte %d of the ticket changed: taken", i)
		}
	}
	if err := v.Reopen(reply); err != nil {
		t.Fatal(err)
	}
	if get(t, v, "a", "tok", 0) != canary+"-2" || get(t, v, "p", "tok", 0) != canary+"-p" {
		t.Error("not what the file has")
	}
	if string(must(v.Unseal("kept", box))) != "found" {
		t.Error("what was sealed while it was locked is lost")
	}
	// The same answer opens nothing the next time.
	if _, err := v.Shut(); err != nil {
		t.Fatal(err)
	}
	want(t, v.Reopen(reply), ErrTicket)
	want(t, v.Reopen(nil), ErrTicket)
	v.Close()
	want(t, v.Reopen(reply), ErrClosed)
}

// A process that never had the vault open gets nothing from the one that unlocks it.
func TestForgedTicket(t *testing.T) {
	v, dir, key := opened(t)
	real := must(readTicket(must(v.Shut())))
	w := reopen(t, dir, key)
	mine := must(readTicket(must(must(Create(t.TempDir(), own(t, "k"))).Shut())))
	mine.Vault, mine.MAC = real.Vault, real.MAC
	b := []byte(must(jsonOf(mine)))
	_, err := w.Admit(b)
	want(t, err, ErrTicket)
	mine.MAC = mine.sum(nil)
	_, err = w.Admit([]byte(must(jsonOf(mine))))
	want(t, err, ErrTicket)
}

// An interactive credential is not the daemon's of the same name.
func TestDaemonContexts(t *testing.T) {
	v, _, _ := opened(t)
	a := set(t, v, "acme/dev", "tok", "ghp_"+"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
	b := set(t, v, "acme/dev@daemon", "tok", "ghp_"+"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb")
	must(v.List(""))
	if a.Placeholder == b.Placeholder || len(v.cks) != 2 || bytes.Equal(v.cks["acme/dev"], v.cks["acme/dev@daemon"]) {
		t.Error("they share a key or a placeholder")
	}
	if len(must(v.List("acme/dev"))) != 1 || len(must(v.Values("acme/dev@daemon"))) != 2 {
		t.Error("one lists the other's")
	}
	for _, bad := range []string{"a@b", "a@daemon/b", "@daemon", "a@daemon@daemon", "a/b@interactive"} {
		if _, err := v.Set(guard.Credential{Context: bad, Name: "x"}, secret(canary)); err == nil {
			t.Errorf("context %q: taken", bad)
		}
	}
}

func jsonOf(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}
