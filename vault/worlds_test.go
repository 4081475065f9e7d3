package vault

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"guard"
)

// Every pair of projects, environments and profiles: what one asks for of another is not found in
// the words, and by the work, of what there is nowhere.
func TestContextsDoNotCross(t *testing.T) {
	v, dir, key := opened(t)
	var worlds []string
	for _, project := range []string{"a", "b"} {
		for _, env := range []string{"/dev", "/prod", "/staging", ""} {
			worlds = append(worlds, project+env, project+env+"@daemon")
		}
	}
	only := func(w string) string { return "only-" + strings.NewReplacer("/", ".", "@", "-").Replace(w) }
	placeholders := map[string]string{}
	for _, w := range worlds {
		c := set(t, v, w, "tok", "ghp_"+strings.Repeat("x", 28)+fixed(w))
		if other, ok := placeholders[c.Placeholder]; ok {
			t.Errorf("%s and %s have one placeholder", w, other)
		}
		placeholders[c.Placeholder] = w
		set(t, v, w, only(w), canary+w)
		if _, err := v.SetIssued(guard.Credential{Name: "login-" + only(w), Context: w}, secret(canary+"-issued-"+w), Issued{Login: "l"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range worlds {
		w := reopen(t, dir, key)
		must(w.List(b))
		ask := map[string]func(name string) error{
			"find":     func(n string) error { _, err := w.Find(b, n); return err },
			"get":      func(n string) error { _, err := w.Get(guard.SecretID{Context: b, Name: n}); return err },
			"versions": func(n string) error { _, err := w.Versions(b, n); return err },
			"remove":   func(n string) error { return w.Remove(b, n) },
			"propose":  func(n string) error { _, err := w.Propose(b, n, secret(canary)); return err },
			"promote":  func(n string) error { return w.Promote(guard.SecretID{Context: b, Name: n, Version: 1}) },
			"edit": func(n string) error {
				_, err := w.Edit(b, n, func(*guard.Credential) error { return nil })
				return err
			},
		}
		for _, a := range worlds {
			if a == b {
				continue
			}
			for what, f := range ask {
				theirs, nobody := f(only(a)), f("only-nobody")
				if !errors.Is(theirs, ErrNotFound) || strings.ReplaceAll(theirs.Error(), only(a), "only-nobody") != nobody.Error() {
					t.Errorf("%s: %s of %s's: %v", b, what, a, theirs)
				}
			}
		}
		for what, names := range map[string][]string{"issued": slices.Collect(maps.Keys(must(w.Issued(b)))), "list": namesOf(must(w.List(b)))} {
			for _, n := range names {
				if n != "tok" && !strings.HasSuffix(n, only(b)) {
					t.Errorf("%s: %s holds %s", b, what, n)
				}
			}
		}
		for _, val := range must(w.Values(b)) {
			if val.ID.Context != b {
				t.Errorf("%s: a value of %s", b, val.ID)
			}
		}
		// The same work: no box of another context was opened for any of it.
		if !slices.Equal(slices.Collect(maps.Keys(w.cks)), []string{b}) || len(w.st.opened) != 1 || w.st.opened[b] == nil {
			t.Errorf("%s: opened %v", b, slices.Collect(maps.Keys(w.cks)))
		}
	}
}

func namesOf(cs []guard.Credential) (out []string) {
	for _, c := range cs {
		out = append(out, c.Name)
	}
	return out
}

// fixed is w as eight letters.
func fixed(w string) string {
	out := []byte("aaaaaaaa")
	for i := range len(w) {
		out[i%8] = 'a' + (out[i%8]+w[i])%26
	}
	return string(out)
}

// goldenSeal opens the sealed context of testdata/v2/vault.gv1.
const goldenSeal = "32 bytes or more that open a seal"

// A vault with a sealed context opens for as long as format 2 is read.
func TestFormat2(t *testing.T) {
	raw := must(readFileOf("testdata/v2"))
	st := must(parse(raw))
	mk := must(st.unlock([]Unlocker{fixedKey{secret(goldenKey)}}))
	v := &Vault{id: st.id}
	if err := v.hold(mk); err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if err := st.openIndex(v.mk); err != nil {
		t.Fatal(err)
	}
	v.st = st
	if _, _, err := v.unseal(st, st.find("acme/prod")); !errors.Is(err, ErrSealed) {
		t.Fatal(err)
	}
	if err := v.openSeal("acme/prod", []Unlocker{fixedKey{secret(goldenSeal)}}); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{"acme/dev": "golden-dev-value", "acme/prod": "golden-prod-value", "acme/prod@daemon": "golden-daemon-value"} {
		seg, ck, err := v.unseal(st, st.find(in))
		if err != nil {
			t.Fatal(err)
		}
		e := seg.entry("tok")
		if p := must(v.value(e, e.version(0), ck)); string(p) != want {
			t.Errorf("%s: %q", in, p)
		}
	}
}
