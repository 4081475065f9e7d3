package vault

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"guard"
)

// full is a small vault with everything in it, and what it should answer.
func full(t testing.TB) (dir string, key KeyFile, raw []byte) {
	v, dir, key := opened(t)
	set(t, v, "", "a", canary+"1")
	set(t, v, "", "a", canary+"2")
	set(t, v, "x/prod", "b", canary+"3")
	v.Close()
	return dir, key, must(readFileOf(dir))
}

// resum makes the checksum right again, as someone who tampers would.
func resum(b []byte) []byte {
	sum := sha256.Sum256(b[:len(b)-sha256.Size])
	return append(b[:len(b)-sha256.Size:len(b)-sha256.Size], sum[:]...)
}

// openRaw goes through all that a vault does with a file.
func openRaw(raw []byte, key guard.Secret) (values []guard.Value, err error) {
	st, err := parse(raw)
	if err != nil {
		return nil, err
	}
	mk, err := st.unlock([]Unlocker{fixedKey{key}})
	if err != nil {
		return nil, err
	}
	v := &Vault{id: st.id}
	if err := v.hold(mk); err != nil {
		return nil, err
	}
	defer v.Close()
	if err := st.openIndex(v.mk); err != nil {
		return nil, err
	}
	v.st = st
	var out []guard.Value
	for i := range st.index.Contexts {
		seg, ck, err := v.unseal(st, i)
		if err != nil {
			return nil, err
		}
		for j := range seg.Credentials {
			e := &seg.Credentials[j]
			for k := range e.Versions {
				p, err := v.value(e, &e.Versions[k], ck)
				if err != nil {
					return nil, err
				}
				out = append(out, guard.Value{ID: e.Meta.ID(), Secret: guard.NewSecret(p)})
			}
		}
	}
	return out, nil
}

type fixedKey struct{ s guard.Secret }

func (fixedKey) Name() string { return "keyfile" }
func (f fixedKey) Enrol(string) (guard.Secret, []byte, error) {
	return f.s.Clone(), nil, nil
}
func (f fixedKey) Unlock(string, []byte) (guard.Secret, error) { return f.s.Clone(), nil }

func TestEveryByteFlipped(t *testing.T) {
	_, key, raw := full(t)
	k := must(key.Unlock("", nil))
	if vals, err := openRaw(raw, k); err != nil || len(vals) != 3 {
		t.Fatal(vals, err)
	}
	known := []error{ErrCorrupt, ErrNewer, ErrOlder, ErrWrongKey, ErrNoUnlocker}
	for i := range raw {
		for _, mask := range []byte{1, 0x20, 0x80} {
			damaged := bytes.Clone(raw)
			damaged[i] ^= mask
			for name, b := range map[string][]byte{"damage": damaged, "tampering": resum(bytes.Clone(damaged))} {
				if bytes.Equal(b, raw) {
					continue // the checksum itself, made right again
				}
				vals, err := openRaw(b, k)
				if err == nil || !slices.ContainsFunc(known, func(e error) bool { return errors.Is(err, e) }) {
					t.Fatalf("%s: byte %d ^ %#x: %d values, %v", name, i, mask, len(vals), err)
				}
				if name == "damage" && errors.Is(err, ErrWrongKey) {
					t.Fatalf("byte %d ^ %#x: damage is called a wrong key", i, mask)
				}
			}
		}
	}
	for n := range raw {
		if vals, err := openRaw(bytes.Clone(raw[:n]), k); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d: %d values, %v", n, len(vals), err)
		}
		if n > sha256.Size {
			if vals, err := openRaw(resum(bytes.Clone(raw[:n])), k); err == nil {
				t.Fatalf("cut at %d and summed: %d values", n, len(vals))
			}
		}
	}
}

// Boxes that open, in places that are not theirs.
func TestSwapsAreRefused(t *testing.T) {
	v, _, _ := opened(t)
	set(t, v, "", "a", canary+"1")
	set(t, v, "", "a", canary+"2")
	set(t, v, "", "b", canary+"3")
	set(t, v, "x", "a", canary+"4")
	other, _, _ := opened(t)
	set(t, other, "", "a", canary+"5")

	// Values and their keys, by someone who can even seal metadata.
	swap := func(name string, f func(a, b *entry)) {
		t.Helper()
		v.mu.Lock()
		defer v.mu.Unlock()
		seg, ck, err := v.unseal(v.st, v.st.find("default"))
		if err != nil {
			t.Fatal(err)
		}
		e := seg.entry("a")
		f(e, seg.entry("b"))
		if p, err := v.value(e, e.version(0), ck); !errors.Is(err, ErrCorrupt) || p != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	swap("two credentials' versions", func(a, b *entry) { a.Versions[1] = b.Versions[0]; a.Versions[1].Number = 2 })
	swap("two credentials' values", func(a, b *entry) { a.Versions[1].Box = b.Versions[0].Box })
	swap("two credentials' keys", func(a, b *entry) { a.Versions[1].Key = b.Versions[0].Key })
	swap("an older version for a newer", func(a, b *entry) { a.Versions[1].Box, a.Versions[1].Key = a.Versions[0].Box, a.Versions[0].Key })
	swap("key for value", func(a, b *entry) { a.Versions[1].Box = a.Versions[1].Key })
	swap("another name", func(a, b *entry) { a.Meta.Name = "c" })
	swap("another context", func(a, b *entry) { a.Meta.Context = "x" })
	swap("the other context's value", func(a, b *entry) {
		seg, _, err := v.unseal(v.st, v.st.find("x"))
		if err != nil {
			t.Fatal(err)
		}
		a.Versions[1] = seg.entry("a").Versions[0]
		a.Versions[1].Number = 2
	})
	swap("another vault's value", func(a, b *entry) {
		seg, _, err := other.unseal(other.st, 0)
		if err != nil {
			t.Fatal(err)
		}
		a.Versions[0] = seg.entry("a").Versions[0]
		a.Meta.Version = 1
	})

	// Whole contexts, by someone who can even seal the index.
	for name, f := range map[string]func(st *state){
		"two contexts' segments": func(st *state) { st.sealed[0], st.sealed[1] = st.sealed[1], st.sealed[0] },
		"two contexts' keys": func(st *state) {
			c := st.index.Contexts
			c[0].Key, c[1].Key = c[1].Key, c[0].Key
		},
		"two contexts' names": func(st *state) {
			c := st.index.Contexts
			c[0].Name, c[1].Name = c[1].Name, c[0].Name
		},
		"another vault's context": func(st *state) {
			st.sealed[0] = other.st.sealed[0]
			st.index.Contexts[0].Key = other.st.index.Contexts[0].Key
		},
	} {
		st := v.st.clone()
		f(st)
		v.ctx.reset()
		clear(v.cks)
		if _, _, err := v.unseal(st, 0); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		v.ctx.reset()
		clear(v.cks)
	}

	// Parts of an older file of the same vault, by someone with the file only.
	old := must(v.st.encode(v.mk))
	set(t, v, "", "b", canary+"6")
	cur := must(readFileOf(v.dir))
	co, cc := cuts(t, old), cuts(t, cur)
	for name, b := range map[string][]byte{
		"old index":    slices.Concat(cur[:cc[0]], old[co[0]:co[1]], cur[cc[1]:]),
		"old segments": slices.Concat(cur[:cc[1]], old[co[1]:]),
		"old header":   slices.Concat(old[:co[0]], cur[cc[0]:]),
	} {
		if len(b) < sha256.Size {
			t.Fatal("short")
		}
		if err := os.WriteFile(filepath.Join(v.dir, fileName), resum(b), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := v.List(""); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// An older segment of the same length, under the newer index.
func TestOldSegmentIsRefused(t *testing.T) {
	v, dir, key := opened(t)
	set(t, v, "", "a", canary)
	user := func(u string) []byte {
		must(v.Edit("", "a", func(c *guard.Credential) error { c.User = u; return nil }))
		return must(readFileOf(dir))
	}
	old := user("old-user")
	cur := user("new-user")
	for len(cur) != len(old) { // a time with fewer digits
		cur = user("new-user")
	}
	at := cuts(t, cur)[1]
	if err := os.WriteFile(filepath.Join(dir, fileName), resum(slices.Concat(cur[:at], old[at:])), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir, key)
	want(t, err, ErrCorrupt)
	_, err = v.Find("", "a")
	want(t, err, ErrCorrupt)
}

// No two lists of parts have the same associated data.
func TestAssociatedData(t *testing.T) {
	seen := map[string]int{}
	for i, ad := range [][]byte{
		aad("v", "c", "n", 1, "p"), aad("w", "c", "n", 1, "p"), aad("v", "d", "n", 1, "p"), aad("v", "c", "m", 1, "p"),
		aad("v", "c", "n", 2, "p"), aad("v", "c", "n", 1, "q"), aad("vc", "", "n", 1, "p"), aad("", "vc", "n", 1, "p"), aad("v", "cn", "", 1, "p"),
		aad("v", "", "cn", 1, "p"), aad("v", "c", "", 1, "np"), aad("v", "c", "np", 1, ""), aad("v", "n", "c", 1, "p"), aad("v", "c", "n", -1, "p"),
	} {
		if j, ok := seen[string(ad)]; ok {
			t.Errorf("%d and %d are the same", i, j)
		}
		seen[string(ad)] = i
		if !bytes.HasPrefix(ad, []byte{'g', 'u', 'a', 'r', 'd', 0, formatVersion}) {
			t.Errorf("%d has no format version", i)
		}
	}
}

// cuts are where a file's index and its segments start.
func cuts(t *testing.T, raw []byte) [2]int {
	t.Helper()
	st := must(parse(raw))
	return [2]int{len(st.head), len(st.head) + 4 + len(st.box)}
}

// A whole older file is noticed by who saw the newer one.
func TestRollbackIsNoticed(t *testing.T) {
	v, dir, key := opened(t)
	set(t, v, "", "a", canary+"1")
	old := must(readFileOf(dir))
	set(t, v, "", "a", canary+"2")
	if err := os.WriteFile(filepath.Join(dir, fileName), old, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := v.Get(guard.SecretID{Name: "a"})
	want(t, err, ErrRolledBack)
	_, err = v.Set(guard.Credential{Name: "b"}, secret(canary))
	want(t, err, ErrRolledBack)
	if b := must(readFileOf(dir)); !bytes.Equal(b, old) {
		t.Fatal("written over")
	}
	if g := reopen(t, dir, key).Generation(); g != v.Generation()-1 {
		t.Fatal("the generation does not tell", g, v.Generation())
	}
	// Nor is another vault taken for this one.
	_, dir2, _ := opened(t)
	if err := os.WriteFile(filepath.Join(dir, fileName), must(readFileOf(dir2)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = v.List("")
	want(t, err, ErrRolledBack)
}

// goldenKey opens testdata/v1.gv1, which must open for as long as format 1 is
// read.
const goldenKey = "32 bytes or more that open a test"

func TestFormat1(t *testing.T) {
	vals, err := openRaw(must(os.ReadFile("testdata/v1.gv1")), secret(goldenKey))
	if err != nil || len(vals) != 3 {
		t.Fatal(len(vals), err)
	}
	for i, want := range []string{"golden-value-1", "golden-value-3", "golden-value-2"} {
		if got := string(vals[i].Secret.Reveal()); got != want {
			t.Errorf("value %d is %q", i, got)
		}
	}
}

func FuzzOpen(f *testing.F) {
	raw := must(os.ReadFile("testdata/v1.gv1"))
	f.Add(raw)
	f.Add(raw[:len(raw)-sha256.Size])
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, sealSum(b)} {
			vals, err := openRaw(b, secret(goldenKey))
			if err == nil && !bytes.Equal(b, raw) {
				t.Fatalf("%d values out of a file that guard did not write", len(vals))
			}
		}
	})
}

// sealSum takes b for a file without its checksum.
func sealSum(b []byte) []byte {
	sum := sha256.Sum256(b)
	return slices.Concat(b, sum[:])
}
