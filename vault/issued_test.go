package vault

import (
	"errors"
	"hash/crc32"
	"strings"
	"testing"
	"time"

	"guard"
)

func TestDecoy(t *testing.T) {
	v, _, _ := opened(t)
	for _, k := range Kinds() {
		c, err := v.Decoy(guard.Credential{Name: "bait-" + k.Name, Kind: k.Name})
		if err != nil {
			t.Fatalf("%s: %v", k.Name, err)
		}
		if !c.Decoy || c.Version != 1 || len(c.Placeholder) < 24 || c.Env != k.Env || c.Context != "default" {
			t.Errorf("%s: %+v", k.Name, c)
		}
		if got := guessKind([]byte(c.Placeholder)); len(k.Formats) > 0 && got != k.Name {
			t.Errorf("%s: what was made looks like %s", k.Name, got)
		}
		if k.Name == "github-pat" {
			body := c.Placeholder[4:]
			var sum [6]byte
			number(sum[:], crc32.ChecksumIEEE([]byte(body[:30])), base62)
			if len(body) != 36 || body[30:] != string(sum[:]) {
				t.Errorf("the checksum of %s is wrong", c.Placeholder)
			}
		}
		s, err := v.Get(c.ID())
		if err != nil || string(s.Reveal()) != c.Placeholder {
			t.Errorf("%s: what stands for it is not its value: %v", k.Name, err)
		}
	}
	values, err := v.Values("default")
	if err != nil || len(values) != len(Kinds()) {
		t.Fatalf("%d values, %v", len(values), err)
	}
	for _, val := range values {
		if val.Class != guard.Decoy {
			t.Errorf("%s is searched for as %v", val.ID.Name, val.Class)
		}
	}
	if _, err := v.Decoy(guard.Credential{Name: "bait-npm", Kind: "npm"}); !errors.Is(err, ErrExists) {
		t.Errorf("a second one of that name: %v", err)
	}
	if _, err := v.Decoy(guard.Credential{Name: "x", Kind: "nonsense"}); err == nil {
		t.Error("an unknown kind was taken")
	}
	if _, err := v.Decoy(guard.Credential{Name: "x", Kind: "npm", Rotate: "exec,cmd=/bin/true"}); err == nil {
		t.Error("a rotation was taken")
	}
	// Nothing makes a credential of a decoy, or a decoy of a credential.
	real := guard.NewSecret([]byte("a real value of somebody's"))
	if _, err := v.Set(guard.Credential{Name: "bait-npm"}, real); !errors.Is(err, ErrDecoy) {
		t.Errorf("a value for a decoy: %v", err)
	}
	if _, err := v.SetIssued(guard.Credential{Name: "bait-npm"}, real, Issued{}); !errors.Is(err, ErrDecoy) {
		t.Errorf("an issued value for a decoy: %v", err)
	}
	if _, err := v.Propose("", "bait-npm", real); !errors.Is(err, ErrDecoy) {
		t.Errorf("a version of a decoy: %v", err)
	}
	if _, err := v.Set(guard.Credential{Name: "real", Decoy: true}, real); !errors.Is(err, ErrDecoy) {
		t.Errorf("a decoy with a value: %v", err)
	}
	c, err := v.Edit("", "bait-npm", func(c *guard.Credential) error { c.Decoy = false; c.Hosts = []string{"a.example"}; return nil })
	if err != nil || !c.Decoy || c.Hosts[0] != "a.example" {
		t.Errorf("edited: %+v, %v", c, err)
	}
}

func TestIssued(t *testing.T) {
	v, _, _ := opened(t)
	set := func(name, value string, hosts ...string) guard.Credential {
		t.Helper()
		c, err := v.SetIssued(guard.Credential{Name: name, Kind: "oauth", Hosts: hosts, Env: ""}, guard.NewSecret([]byte(value)),
			Issued{Login: "l", Part: "access_token", Endpoint: "https://a.example/token", Client: "client_id=x", At: now()})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := set("login", "first-value-of-a-token", "a.example")
	if _, err := v.Edit("", "login", func(c *guard.Credential) error { c.Hosts = append(c.Hosts, "b.example"); return nil }); err != nil {
		t.Fatal(err)
	}
	second := set("login", "second-value-that-is-longer-than-it", "a.example")
	if second.Version != 2 || second.Placeholder != first.Placeholder || len(second.Hosts) != 2 {
		t.Errorf("what replaces a value keeps its placeholder and the user's hosts: %+v", second)
	}
	if again := set("login", "second-value-that-is-longer-than-it"); again.Version != 2 {
		t.Errorf("the same value is version %d", again.Version)
	}
	all, err := v.Issued("")
	if err != nil || all["login"].Client != "client_id=x" || len(all) != 1 {
		t.Errorf("%+v, %v", all, err)
	}
	if all, err := v.Issued("another"); err != nil || len(all) != 0 {
		t.Errorf("in another context: %v, %v", all, err)
	}
	if _, err := v.Set(guard.Credential{Name: "mine"}, guard.NewSecret([]byte("what the user stored"))); err != nil {
		t.Fatal(err)
	}
	if _, err := v.SetIssued(guard.Credential{Name: "mine"}, guard.NewSecret([]byte("what a reply brought")), Issued{}); !errors.Is(err, ErrExists) {
		t.Errorf("the user's credential was replaced by a reply: %v", err)
	}
	// A token with the prefix of a kind does not take that kind's variable.
	c, err := v.SetIssued(guard.Credential{Name: "gh", Kind: "github-pat"}, guard.NewSecret([]byte("gho_"+strings.Repeat("a", 36))), Issued{})
	if err != nil || c.Env != "" {
		t.Errorf("%+v, %v", c, err)
	}
	// What was replaced long ago is dead.
	e := entry{Meta: guard.Credential{Name: "x", Version: 3}, Versions: []version{
		{Number: 1, State: Retiring, Created: now().Add(-2 * keepIssued)}, {Number: 2, State: Retiring, Created: now()}, {Number: 3, State: Current, Created: now().Add(-2 * keepIssued)}}}
	e.expire(now())
	if e.Versions[0].State != Dead || e.Versions[1].State != Retiring || e.Versions[2].State != Current {
		t.Errorf("%+v", e.Versions)
	}
}

func TestLockKeepsOthersOut(t *testing.T) {
	v, _, _ := opened(t)
	release, err := v.Lock(nil, "a")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	close(done)
	if _, err := v.Lock(done, "a"); !errors.Is(err, ErrBusy) {
		t.Errorf("taken twice: %v", err)
	}
	other, err := v.Lock(done, "b")
	if err != nil {
		t.Errorf("another one: %v", err)
	} else {
		other()
	}
	time.AfterFunc(time.Millisecond, release)
	again, err := v.Lock(nil, "a")
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestPart(t *testing.T) {
	for _, c := range []struct{ value, written, decoded string }{
		{"postgres://app:longpassword@db/x", "longpassword", "longpassword"},
		{"https://u:long%40pass%3Aword@h/", "long%40pass%3Aword", "long@pass:word"},
		{"https://u:long%zzpassword@h/", "long%zzpassword", "long%zzpassword"},
		{"https://u:short@h/", "", ""},
		{"https://host/path", "", ""},
		{"no URL at all", "", ""},
	} {
		w, d, ok := Part(c.value)
		if w != c.written || d != c.decoded || ok != (c.written != "") {
			t.Errorf("%s: %q %q %v", c.value, w, d, ok)
		}
		ps := Parts(guard.NewSecret([]byte(c.value)))
		want := 0
		if ok {
			want = 1
			if w != d {
				want = 2
			}
		}
		if len(ps) != want || want > 0 && string(ps[0].Reveal()) != w || want > 1 && string(ps[1].Reveal()) != d {
			t.Errorf("%s: %d parts", c.value, len(ps))
		}
	}
}
