package vault

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"guard"
)

func TestSetWildcards(t *testing.T) {
	v, _, _ := opened(t)
	for _, h := range []string{"*.internal", "*.internal:22", "*.LAN.", "*.corp", "*.intranet", "*.local", "*.home.arpa", "*.example.com", "*.example.com:22"} {
		if _, err := v.Set(guard.Credential{Name: "a", Hosts: []string{h}}, secret(canary)); err != nil {
			t.Errorf("%s: %v", h, err)
		}
	}
}

func TestSetRefuses(t *testing.T) {
	v, _, _ := opened(t)
	gen := v.Generation()
	ok := secret(canary)
	for _, c := range []guard.Credential{
		{}, {Name: "UPPER"}, {Name: "a/b"}, {Name: "../x"}, {Name: ".a"}, {Name: "a b"}, {Name: strings.Repeat("a", 65)}, {Name: "a\x00"}, {Name: "ä"},
		{Name: "a", Context: "a/b/c"}, {Name: "a", Context: "/a"}, {Name: "a", Context: "a/"}, {Name: "a", Context: "a b"}, {Name: "a", Context: "../x"},
		{Name: "a", Kind: "nope"}, {Name: "a", Env: "A=B"}, {Name: "a", Env: "1A"}, {Name: "a", Hosts: []string{"*"}}, {Name: "a", Hosts: []string{"*.com"}},
		{Name: "a", Hosts: []string{"*.com."}}, {Name: "a", Hosts: []string{"*.com:22"}}, {Name: "a", Hosts: []string{"*.localhost"}}, {Name: "a", Hosts: []string{"*.arpa"}}, {Name: "a", Hosts: []string{"*.xinternal"}},
		{Name: "a", Hosts: []string{"https://x.com"}}, {Name: "a", Hosts: []string{"x.com/y"}}, {Name: "a", Hosts: []string{""}}, {Name: "a", Hosts: []string{"a b"}},
		{Name: "a", In: []guard.Position{{Place: "body"}}}, {Name: "a", In: []guard.Position{{Place: "header"}}},
	} {
		if got, err := v.Set(c, ok); err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%+v: %+v %v", c, got, err)
		}
	}
	for s, target := range map[string]error{"": ErrTooShort, "1234567": ErrTooShort, strings.Repeat("x", maxValue+1): ErrTooLong} {
		_, err := v.Set(guard.Credential{Name: "a"}, secret(s))
		want(t, err, target)
		if s != "" && strings.Contains(err.Error(), s) {
			t.Error("the error holds the value")
		}
	}
	if _, err := v.Set(guard.Credential{Name: "a"}, guard.Secret{}); !errors.Is(err, ErrTooShort) {
		t.Error(err)
	}
	if v.Generation() != gen || len(must(v.List(""))) != 0 {
		t.Fatal("a refusal was written")
	}
}

func TestSetAgain(t *testing.T) {
	v, _, _ := opened(t)
	a, err := v.Set(guard.Credential{Name: "a", Hosts: []string{"h.example.com"}, Scopes: []string{"read"}, Expires: time.Now().Add(time.Hour).UTC()}, secret(canary))
	if err != nil {
		t.Fatal(err)
	}
	b := set(t, v, "", "a", canary+"-longer")
	if b.Version != 2 || b.Placeholder != a.Placeholder || fmt.Sprint(b.Hosts, b.Scopes) != "[h.example.com] [read]" || !b.Expires.Equal(a.Expires) {
		t.Fatalf("%+v", b)
	}
	c := set(t, v, "", "a", canary+"-longer")
	if c.Version != 2 {
		t.Fatal("the same value is a new version: to revoke the old one would revoke the new one")
	}
	if s := states(t, v, "a"); s != "1:retiring 2:current" {
		t.Fatal(s)
	}
	if get(t, v, "", "a", 1) != canary || get(t, v, "", "a", 2) != canary+"-longer" || get(t, v, "", "a", 0) != canary+"-longer" {
		t.Fatal("another value")
	}
	// What the caller does to its copies does nothing to the vault's.
	b.Hosts[0] = "evil.example"
	must(v.Find("", "a")).Hosts[0] = "evil.example"
	if must(v.Find("", "a")).Hosts[0] != "h.example.com" {
		t.Fatal("changed from outside")
	}
	// Removed and set anew: version numbers go on, the placeholder is the same.
	if err := v.Remove("", "a"); err != nil {
		t.Fatal(err)
	}
	_, err = v.Find("", "a")
	want(t, err, ErrNotFound)
	want(t, v.Remove("", "a"), ErrNotFound)
	want(t, v.Remove("none", "a"), ErrNotFound)
	if d := set(t, v, "", "a", canary+"-3"); d.Version != 3 || len(d.Hosts) != 0 {
		t.Fatalf("%+v", d)
	}
	if e := set(t, v, "", "a2", canary); e.Placeholder == a.Placeholder {
		t.Fatal("two credentials, one placeholder")
	}
	if f := set(t, v, "other", "a", canary); f.Placeholder == a.Placeholder {
		t.Fatal("two contexts, one placeholder")
	}
}

func TestEdit(t *testing.T) {
	v, dir, key := opened(t)
	a := set(t, v, "", "a", canary)
	b, err := v.Edit("", "a", func(c *guard.Credential) error {
		c.Name, c.Context, c.Version, c.Placeholder, c.Created = "b", "c", 7, "p", time.Time{}
		c.Hosts = []string{"h.example.com"}
		return nil
	})
	if err != nil || b.ID() != a.ID() || b.Placeholder != a.Placeholder || !b.Created.Equal(a.Created) || b.Hosts[0] != "h.example.com" {
		t.Fatalf("%+v %v", b, err)
	}
	for _, f := range []func(*guard.Credential) error{
		func(c *guard.Credential) error { c.Hosts = nil; return os.ErrInvalid },
		func(c *guard.Credential) error { c.Hosts = []string{"*"}; return nil },
		func(c *guard.Credential) error { c.Hosts[0] = "evil.example"; return os.ErrInvalid },
		func(c *guard.Credential) error { c.Kind = ""; return nil },
	} {
		if _, err := v.Edit("", "a", f); err == nil {
			t.Error("edited")
		}
	}
	if c := must(reopen(t, dir, key).Find("", "a")); fmt.Sprint(c.Hosts) != "[h.example.com]" {
		t.Fatalf("%+v", c)
	}
	_, err = v.Edit("", "none", func(*guard.Credential) error { return nil })
	want(t, err, ErrNotFound)
}

func states(t testing.TB, v *Vault, name string) string {
	t.Helper()
	var s []string
	for _, ver := range must(v.Versions("", name)) {
		s = append(s, fmt.Sprintf("%d:%v", ver.Number, ver.State))
	}
	return strings.Join(s, " ")
}

func TestRotation(t *testing.T) {
	v, dir, key := opened(t)
	set(t, v, "", "a", canary+"1")
	_, err := v.Propose("", "none", secret(canary))
	want(t, err, ErrNotFound)
	_, err = v.Propose("", "a", secret("short"))
	want(t, err, ErrTooShort)
	_, err = v.Propose("", "a", secret(canary+"1"))
	want(t, err, ErrSameValue)

	p, err := v.Propose("", "a", secret(canary+"2"))
	if err != nil || p != (guard.SecretID{Context: "default", Name: "a", Version: 2}) {
		t.Fatal(p, err)
	}
	again, err := v.Propose("", "a", secret(canary+"2"))
	if err != nil || again != p {
		t.Fatal("a step repeated makes another candidate", again, err)
	}
	// Durable, and not in use yet.
	w := reopen(t, dir, key)
	if get(t, w, "", "a", 2) != canary+"2" || get(t, w, "", "a", 0) != canary+"1" || states(t, w, "a") != "1:current 2:pending" {
		t.Fatal(states(t, w, "a"))
	}
	old := guard.SecretID{Context: "default", Name: "a", Version: 1}
	want(t, w.Bury(old), ErrState)
	want(t, w.Discard(old), ErrState)
	for range 2 { // a step repeated changes nothing
		if err := w.Promote(p); err != nil {
			t.Fatal(err)
		}
	}
	want(t, w.Promote(old), ErrState)
	// The vault that was open before sees it.
	if get(t, v, "", "a", 0) != canary+"2" || must(v.Find("", "a")).Version != 2 || states(t, v, "a") != "1:retiring 2:current" {
		t.Fatal(states(t, v, "a"))
	}
	for range 2 {
		if err := v.Bury(old); err != nil {
			t.Fatal(err)
		}
	}
	want(t, v.Promote(old), ErrState)
	_, err = v.Propose("", "a", secret(canary+"1"))
	want(t, err, ErrSameValue) // a dead value does not come back
	if get(t, v, "", "a", 1) != canary+"1" {
		t.Fatal("a dead value can no longer be recognised")
	}
	q := must(v.Propose("", "a", secret(canary+"3")))
	if err := v.Discard(q); err != nil {
		t.Fatal(err)
	}
	want(t, v.Discard(q), ErrNotFound)
	if r := must(v.Propose("", "a", secret(canary+"4"))); r.Version != 4 {
		t.Fatal("a version number was given twice", r)
	}
	if s := states(t, v, "a"); s != "1:dead 2:current 4:pending" {
		t.Fatal(s)
	}
	for _, f := range []func(guard.SecretID) error{v.Promote, v.Bury, v.Discard} {
		want(t, f(guard.SecretID{Context: "default", Name: "a", Version: 0}), ErrNotFound)
		want(t, f(guard.SecretID{Context: "default", Name: "a", Version: 99}), ErrNotFound)
		want(t, f(guard.SecretID{Context: "default", Name: "b", Version: 1}), ErrNotFound)
		want(t, f(guard.SecretID{Context: "other", Name: "a", Version: 1}), ErrNotFound)
	}
}

func TestOldestDeadGo(t *testing.T) {
	v, _, _ := opened(t)
	e := entry{Meta: guard.Credential{Name: "a", Context: "default", Kind: "generic"}}
	if err := v.edit("default", true, func(seg *segment, ck []byte) error {
		for i := range maxDead + 1 {
			v.put(&e, ck, fmt.Appendf(nil, "%s-%d", canary, i), Dead)
		}
		v.put(&e, ck, []byte(canary), Retiring)
		seg.Credentials = append(seg.Credentials, e)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := v.Bury(guard.SecretID{Name: "a", Version: maxDead + 2}); err != nil {
		t.Fatal(err)
	}
	vs := must(v.Versions("", "a"))
	if len(vs) != maxDead || vs[0].Number != 3 {
		t.Fatal(len(vs), vs[0])
	}
}

func TestValues(t *testing.T) {
	v, _, _ := opened(t)
	a := set(t, v, "", "a", canary+"1")
	set(t, v, "", "a", canary+"2")
	set(t, v, "", "a", canary+"3")
	must(v.Propose("", "a", secret(canary+"4")))
	if err := v.Bury(guard.SecretID{Name: "a", Version: 1}); err != nil {
		t.Fatal(err)
	}
	set(t, v, "", "twin", canary+"1")  // dead there, alive here
	set(t, v, "", "twin2", canary+"3") // alive twice
	u := set(t, v, "", "url", "postgres://app:s3cretpassw0rd@h/d")
	set(t, v, "x/prod", "b", canary+"-prod")

	vals := must(v.Values("default"))
	got := map[string]guard.Class{}
	for _, val := range vals {
		s := string(val.Secret.Reveal())
		if _, twice := got[s]; twice {
			t.Errorf("twice: %v", val.ID)
		}
		got[s] = val.Class
	}
	for s, c := range map[string]guard.Class{
		canary + "1": guard.Live, canary + "2": guard.Live, canary + "3": guard.Live, canary + "4": guard.Live, a.Placeholder: guard.Placeholder,
		"postgres://app:s3cretpassw0rd@h/d": guard.Live, "s3cretpassw0rd": guard.Live, u.Placeholder: guard.Placeholder,
		u.Placeholder[len("postgres://app:") : len(u.Placeholder)-len("@h/d")]: guard.Placeholder,
	} {
		if have, ok := got[s]; !ok || have != c {
			t.Errorf("a value is %v (%v), want %v", have, ok, c)
		}
	}
	if _, ok := got[canary+"-prod"]; ok {
		t.Error("production's value in another context")
	}
	if n := len(must(v.Values(""))); n != len(vals)+2 {
		t.Error("all contexts:", n, len(vals))
	}
	if n := len(must(v.Values("none"))); n != 0 {
		t.Error("no such context:", n)
	}
	if err := v.Remove("", "twin"); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(must(v.Values("default")), func(val guard.Value) bool { return string(val.Secret.Reveal()) == canary+"1" })
	if i < 0 || must(v.Values("default"))[i].Class != guard.Retired {
		t.Error("a dead value is not known as such")
	}
	vals[0].Secret.Wipe()
	if len(must(v.Values("default"))) == 0 || get(t, v, "", "a", 0) != canary+"3" {
		t.Error("wiping a copy wiped the vault's")
	}
}

// Only what is asked for is opened.
func TestOtherContextsStaySealed(t *testing.T) {
	v, dir, key := opened(t)
	set(t, v, "x/dev", "a", canary)
	set(t, v, "x/prod", "a", canary+"-prod")
	w := reopen(t, dir, key)
	must(w.Values("x/dev"))
	set(t, w, "x/dev", "b", canary+"b")
	if len(w.st.opened) != 1 || len(w.cks) != 1 {
		t.Fatalf("opened: %v", w.st.opened)
	}
	before, i := w.st.sealed[w.st.find("x/prod")], w.st.find("x/dev")
	if string(before) != string(v.st.sealed[v.st.find("x/prod")]) || i < 0 {
		t.Fatal("a write to one context touched another")
	}
}

func TestPurposes(t *testing.T) {
	v, dir, key := opened(t)
	a, b := must(v.Key("audit")), must(v.Key("fingerprint"))
	if a.Len() != 32 || string(a.Reveal()) == string(b.Reveal()) {
		t.Fatal("keys")
	}
	box := must(v.Seal("state", []byte(canary)))
	w := reopen(t, dir, key)
	if string(must(w.Key("audit")).Reveal()) != string(a.Reveal()) {
		t.Fatal("another key the second time")
	}
	if p, err := w.Unseal("state", box); err != nil || string(p) != canary {
		t.Fatal(err)
	}
	if p, err := w.Unseal("state", must(w.Seal("state", nil))); err != nil || len(p) != 0 {
		t.Fatal(err)
	}
	other, _, _ := opened(t)
	for i := range box {
		bad := slices.Clone(box)
		bad[i] ^= 1
		_, err := v.Unseal("state", bad)
		want(t, err, ErrCorrupt)
	}
	for _, f := range []func() ([]byte, error){
		func() ([]byte, error) { return v.Unseal("other", box) },
		func() ([]byte, error) { return v.Unseal("state", nil) },
		func() ([]byte, error) { return v.Unseal("state", box[:30]) },
		func() ([]byte, error) { return other.Unseal("state", box) },
	} {
		p, err := f()
		want(t, err, ErrCorrupt)
		if p != nil {
			t.Fatal("something came out")
		}
	}
	v.Close()
	_, err := v.Key("audit")
	want(t, err, ErrClosed)
	_, err = v.Unseal("state", box)
	want(t, err, ErrClosed)
}
