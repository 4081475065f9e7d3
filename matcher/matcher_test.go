package matcher

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"guard"
)

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x67756172)) }

func randString(r *rand.Rand, chars string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = chars[r.IntN(len(chars))]
	}
	return string(b)
}

func id(name string) guard.SecretID {
	return guard.SecretID{Context: "default", Name: name, Version: 1}
}

func val(name, value string) guard.Value {
	return guard.Value{ID: id(name), Secret: guard.NewSecret([]byte(value))}
}

func mustNew(t testing.TB, values ...guard.Value) *Matcher {
	t.Helper()
	m, err := New(values)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	})
	return m
}

// samples are values of the shapes that credentials have.
func samples(r *rand.Rand) map[string]string {
	return map[string]string{
		"github-pat": "ghp_" + randString(r, alphabet, 36),
		"password8":  randString(r, alphabet+"!$%&/()=?", 8),
		"password":   `p"w\d/` + randString(r, alphabet, 7) + `<&>'+ ~*`,
		"unicode":    "пароль-" + randString(r, alphabet, 9) + "-🔑é",
		"aws-secret": randString(r, alphabet+"+/", 40),
		"control":    "a\tb\x01c\n" + randString(r, alphabet, 12),
		"binary":     string([]byte{0xff, 0, 0xfe, 1, 0x80}) + randString(r, alphabet, 10),
		"hexkey":     randString(r, "0123456789abcdef", 64),
	}
}

func utf16Bytes(s string, bigEndian bool) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		if bigEndian {
			b = append(b, byte(u>>8), byte(u))
		} else {
			b = append(b, byte(u), byte(u>>8))
		}
	}
	return b
}

func mustJSON(t *testing.T, s string, html bool) string {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(html)
	if err := e.Encode(s); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(b.String())
}

// Every encoding, made by the standard library, with 0 to 5 bytes before and
// after the value inside the encoding, and other text around it.
func TestEveryEncodingIsFound(t *testing.T) {
	r := newRand(1)
	for name, v := range samples(r) {
		m := mustNew(t, val(name, v))
		for before := range 6 {
			for after := range 6 {
				pre, post := randString(r, alphabet+"\n: ", before), randString(r, alphabet+"\n\" ", after)
				whole := pre + v + post
				forms := map[string]string{
					"raw":       whole,
					"base64":    base64.StdEncoding.EncodeToString([]byte(whole)),
					"base64 no": base64.RawStdEncoding.EncodeToString([]byte(whole)),
					"base64url": base64.RawURLEncoding.EncodeToString([]byte(whole)),
					"hex":       hex.EncodeToString([]byte(whole)),
					"hex upper": strings.ToUpper(hex.EncodeToString([]byte(whole))),
					"hex list":  fmt.Sprintf("% x", whole),
					"hex colon": strings.ReplaceAll(fmt.Sprintf("% X", whole), " ", ":"),
					"hex comma": strings.ReplaceAll(fmt.Sprintf("% x", whole), " ", ","),
					"hex 0x":    strings.ReplaceAll(fmt.Sprintf("% #x", whole), " ", ", "),
					"hex 0x,":   strings.ReplaceAll(fmt.Sprintf("% #x", whole), " ", ","),
					"percent":   url.QueryEscape(whole),
					"percent p": url.PathEscape(whole),
					"percent t": url.QueryEscape(url.QueryEscape(whole)),
					"base64 q":  url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(whole))),
				}
				var all, allLower, u, uUpper strings.Builder
				for _, c := range []byte(whole) {
					fmt.Fprintf(&all, "%%%02X", c)
					fmt.Fprintf(&allLower, "%%%02x", c)
				}
				forms["percent all"], forms["percent low"] = all.String(), allLower.String()
				rev := []byte(whole)
				slices.Reverse(rev)
				forms["reversed"] = string(rev)
				if name != "binary" {
					forms["json"] = mustJSON(t, whole, true)
					forms["json plain"] = mustJSON(t, whole, false)
					forms["json php"] = strings.ReplaceAll(mustJSON(t, whole, false), "/", `\/`)
					forms["json twice"] = mustJSON(t, mustJSON(t, whole, false), false)
					for _, c := range utf16.Encode([]rune(whole)) {
						fmt.Fprintf(&u, "\\u%04x", c)
						fmt.Fprintf(&uUpper, "\\u%04X", c)
					}
					forms["json \\u"], forms["json \\U"] = u.String(), uUpper.String()
					forms["utf-16"] = string(utf16Bytes(whole, false))
					if name != "unicode" {
						forms["utf-16 be"] = string(utf16Bytes(whole, true))
					}
				}
				for form, text := range forms {
					// What is not a base64 character on each side: those are the job of
					// the alignments above.
					text = "\x1b[1m key: " + text + "\n$ "
					hits := m.Scan([]byte(text))
					if len(hits) == 0 {
						t.Fatalf("%s as %s, %d bytes before and %d after: not found", name, form, before, after)
					}
					if strings.ContainsAny(form, "jbu") && strings.Contains(string(Mask(nil, []byte(text), hits, 0)), v) {
						t.Fatalf("%s as %s is not masked", name, form)
					}
					want, _, _ := strings.Cut(form, " ")
					if name == "aws-secret" || name == "github-pat" {
						if form != "json twice" && form != "json php" && form != "json" && form != "json plain" && !strings.HasPrefix(form, "percent") && hits[0].Encoding != want && hits[0].Encoding != "base64" {
							t.Fatalf("%s as %s is called %s", name, form, hits[0].Encoding)
						}
					}
				}
			}
		}
	}
}

// The hit covers all of the form, as far as it is the value's alone.
func TestHitsCoverTheWholeForm(t *testing.T) {
	v := "ghp_" + randString(newRand(2), alphabet, 36)
	m := mustNew(t, val("gh", v))
	for _, form := range []string{v, hex.EncodeToString([]byte(v)), string(utf16Bytes(v, false)[:2*len(v)-1])} {
		hits := m.Scan([]byte("  " + form + " "))
		if len(hits) != 1 || hits[0].Start != 2 || hits[0].End != int64(2+len(form)) {
			t.Fatalf("hits %v, form of %d bytes", hits, len(form))
		}
	}
	for before := range 6 {
		for after := range 6 {
			text := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", before) + v + strings.Repeat("y", after)))
			hits := m.Scan([]byte(text))
			if len(hits) != 1 {
				t.Fatalf("%d hits", len(hits))
			}
			// Everything that masking leaves decodes to under one byte of v at
			// each end.
			lo, hi := hits[0].Start, hits[0].End
			if int(lo)*6 >= before*8+8 || int(hi)*6 <= (before+len(v))*8-8 {
				t.Fatalf("hit [%d,%d) leaves a byte of the value, %d before", lo, hi, before)
			}
		}
	}
}

func TestPartsOfAValueCount(t *testing.T) {
	r := newRand(3)
	secret, token := randString(r, alphabet, 20), randString(r, alphabet, 24)
	pw := "p@ss:" + randString(r, alphabet, 10)
	key := pemKey(r, "RSA PRIVATE KEY", 13)
	cert := pemKey(r, "CERTIFICATE", 9)
	file, _ := json.MarshalIndent(map[string]any{
		"type": "service_account", "project_id": "some-project-12345", "private_key_id": randString(r, "0123456789abcdef", 40),
		"private_key": key, "client_email": "robot@some-project-12345.iam.gserviceaccount.com",
		"token_uri": "https://oauth2.googleapis.com/token", "nested": map[string]string{"api-key": token},
	}, "", "  ")
	lines := strings.Split(strings.TrimSpace(key), "\n")
	m := mustNew(t, val("url", "postgres://app:"+secret+"@db.example.com:5432/app?sslmode=require"),
		val("url2", "amqp://u:"+url.QueryEscape(pw)+"@h/v"), val("url3", "https://"+token+"@git.example.com/x.git"),
		val("pem", key+cert), val("gcp", string(file)), val("multi", "first-secret-line-1\nshort\nsecond-secret-line-2\n# a comment line here"),
		val("newline", "trailing-"+secret+"\n"), val("quoted", `"quoted-`+secret+`"`))
	// What all OpenSSH keys of a type begin with, and what their headers say, is
	// nobody's secret.
	ssh := "-----BEGIN OPENSSH PRIVATE KEY-----\n" + openSSHStart + "\n" + randString(r, alphabet, 70) + "\n" + randString(r, alphabet, 70) + "\n-----END OPENSSH PRIVATE KEY-----\n"
	old := strings.Replace(pemKey(r, "RSA PRIVATE KEY", 3), "-----\n", "-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF\n\n", 1)
	if err := m.Add(val("ssh", ssh), val("old", old)); err != nil {
		t.Fatal(err)
	}
	has := func(text, name string) bool {
		return slices.ContainsFunc(m.Scan([]byte(text)), func(h Hit) bool { return h.ID.Name == name })
	}
	for text, name := range map[string]string{
		"PGPASSWORD=" + secret + "\n":                              "url",
		base64.StdEncoding.EncodeToString([]byte("app:" + secret)): "url",
		"pw=" + pw:                                      "url2",
		"pw=" + url.QueryEscape(pw):                     "url2",
		"tok " + token + ".":                            "url3",
		"x" + lines[3] + "x":                            "pem",
		strings.ReplaceAll(key, "\n", "\r\n"):           "pem",
		strings.ReplaceAll(key, "\n", ""):               "pem",
		base64.StdEncoding.EncodeToString([]byte(key)):  "pem",
		base64.StdEncoding.EncodeToString(file):         "gcp",
		strings.Join(lines[4:6], `\n`):                  "gcp",
		"T=" + token + "\n":                             "gcp",
		"1: first-secret-line-1":                        "multi",
		"2: second-secret-line-2":                       "multi",
		"a first-secret-line-1\r\nshort\r\nsecond-secr": "multi",
		"a trailing-" + secret + "!":                    "newline",
		"a quoted-" + secret + "!":                      "quoted",
		strings.Split(ssh, "\n")[3]:                     "ssh",
		strings.Split(old, "\n")[5]:                     "old",
	} {
		if !has(text, name) {
			t.Errorf("%s: a part is not found", name)
		}
	}
	for _, text := range []string{cert, "-----BEGIN RSA PRIVATE KEY-----\n-----END RSA PRIVATE KEY-----", "robot@some-project-12345.iam.gserviceaccount.com",
		"https://oauth2.googleapis.com/token", `"type": "service_account",`, "postgres://app:other@db.example.com:5432/app?sslmode=require", "# a comment line here",
		openSSHStart + "\nQyNTUxOQAAACD", "Proc-Type: 4,ENCRYPTED"} {
		if hits := m.Scan([]byte(text)); len(hits) != 0 {
			t.Errorf("%q is no secret: %v", text, hits)
		}
	}
	if masked := Mask(nil, []byte(key), m.Scan([]byte(key)), 0); strings.ContainsAny(strings.NewReplacer("[pem]", "", "[gcp]", "").Replace(string(masked)), "=+/0123456789abdfghijlnoqrstuvwxyz") {
		t.Errorf("a whole key is masked whole: %s", masked)
	}
}

const openSSHStart = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW"

func pemKey(r *rand.Rand, label string, lines int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "-----BEGIN %s-----\n", label)
	for range lines {
		b.WriteString(randString(r, alphabet+"+/", 64) + "\n")
	}
	fmt.Fprintf(&b, "%s==\n-----END %s-----\n", randString(r, alphabet, 6), label)
	return b.String()
}

func TestRefuse(t *testing.T) {
	for _, v := range []string{"", "short", "1234567", "       x       ", `"abc"`, "********", "zzzzzzzzzzzzzzzz", "------------====", "123456789", "Password", "PASSWORD123", "localhost", strings.Repeat("ab", maxValue)} {
		err := Refuse(guard.NewSecret([]byte(v)))
		if !errors.Is(err, ErrRefused) {
			t.Errorf("a value of %d bytes is not refused", len(v))
		} else if len(v) >= 5 && strings.Contains(err.Error(), strings.Trim(v, ` "`)) {
			t.Errorf("the error holds the value: %v", err)
		}
		if _, err := New([]guard.Value{val("n", v)}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "default:n#1") {
			t.Errorf("New must name what it refuses: %v", err)
		}
	}
	for _, v := range []string{"abcdefgh", "hunter2hunter2", "1234509876", "ab ab ab ab", "пароль"} {
		if err := Refuse(guard.NewSecret([]byte(v))); err != nil {
			t.Errorf("%s: %v", v, err)
		}
	}
	m := mustNew(t, val("a", "first-value-1"))
	if err := m.Set([]guard.Value{val("b", "second-value-2"), val("c", "short")}); !errors.Is(err, ErrRefused) {
		t.Fatal(err)
	}
	if len(m.Scan([]byte("first-value-1 second-value-2"))) != 1 {
		t.Fatal("a refused Set must change nothing")
	}
}

func TestOverlaps(t *testing.T) {
	for _, c := range []struct {
		values []string
		text   string
		want   []string // name:start-end
	}{
		{[]string{"abcdefgh", "defghijk"}, "..abcdefghijk..", []string{"a:2-10", "b:5-13"}},
		{[]string{"ababcabab"}, "ababababcabababcabab", []string{"a:4-13", "a:11-20"}},
		{[]string{"abcabcabc"}, "abcabcabcabcabc", []string{"a:0-9", "a:3-12", "a:6-15"}},
		{[]string{"secretvalue", "secretvalue-longer"}, "secretvalue-longer", []string{"b:0-18", "a:0-11"}},
		{[]string{"samevalue", "samevalue"}, " samevalue", []string{"a:1-10", "b:1-10"}},
	} {
		var values []guard.Value
		for i, v := range c.values {
			values = append(values, val(string(rune('a'+i)), v))
		}
		m := mustNew(t, values...)
		var got []string
		for _, h := range m.Scan([]byte(c.text)) {
			got = append(got, fmt.Sprintf("%s:%d-%d", h.ID.Name, h.Start, h.End))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q in %q: %v, want %v", c.values, c.text, got, c.want)
		}
		everySplit(t, m, []byte(c.text))
	}
	// Inside another hit of the same credential: only the longer one.
	m := mustNew(t, val("u", "https://user:pass-word-99@h"))
	if hits := m.Scan([]byte("https://user:pass-word-99@h")); len(hits) != 1 || hits[0].End != 27 {
		t.Errorf("%v", hits)
	}
}

func TestNoFalsePositives(t *testing.T) {
	r := newRand(4)
	var values []guard.Value
	for name, v := range samples(r) {
		values = append(values, val(name, v))
	}
	for i := range 50 {
		values = append(values, val(fmt.Sprint("p", i), randString(r, alphabet, 8+i%5)))
	}
	m := mustNew(t, values...)
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	wrapped := base64.StdEncoding.EncodeToString(noise)
	var lines strings.Builder
	for i := 0; i+76 <= len(wrapped); i += 76 {
		lines.WriteString(wrapped[i:i+76] + "\n")
	}
	for what, b := range map[string][]byte{"random": noise, "base64": []byte(wrapped), "lines": []byte(lines.String()), "hex": []byte(hex.EncodeToString(noise)), "percent": []byte(url.QueryEscape(string(noise[:1<<18])))} {
		if hits := m.Scan(b); len(hits) != 0 {
			t.Errorf("%s: %d hits, one is %s", what, len(hits), hits[0].Encoding)
		}
	}
}

func TestCheckFindsABlindEngine(t *testing.T) {
	m := mustNew(t, val("a", "some-value-1"), val("b", "other-value-2"))
	if err := m.Check(); err != nil {
		t.Fatal(err)
	}
	if name, _, _ := strings.Cut(m.Engine(), " "); name != "go" && name != "hyperscan" {
		t.Fatal(m.Engine())
	}
	good := m.set.eng
	for what, needles := range map[string][][]byte{"the canary": m.set.needles[1:], "the last needle": m.set.needles[:len(m.set.needles)-1]} {
		m.set.eng = newGoEngine(needles)
		if err := m.Check(); !errors.Is(err, errBlind) {
			t.Errorf("an engine without %s passes: %v", what, err)
		}
	}
	m.set.eng = good
}

// broken is an engine that fails.
type broken struct{}

func (broken) scan(_ []byte, out []match) ([]match, error) {
	return append(out, match{1, 5}), errors.New("broken")
}
func (broken) close() {}

func TestAnEngineThatFailsIsReplacedBySlowSearch(t *testing.T) {
	m := mustNew(t, val("a", "some-value-1"), val("b", "aab-aab-aab-aab"))
	text := []byte("x some-value-1 aab-aab-aab-aab-aab some-value-1")
	want := m.Scan(text)
	m.set.eng.close()
	m.set.eng = broken{}
	if got := m.Scan(text); !slices.Equal(got, want) || len(want) != 4 {
		t.Fatalf("%v, want %v", got, want)
	}
}

func TestClosedFailsClosed(t *testing.T) {
	m := mustNew(t, val("a", "some-value-1"))
	s := m.Stream()
	s.Write([]byte("hello "))
	needles := m.set.needles
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if hits, safe := s.Write([]byte("some-value-1")); hits != nil || safe != 6 {
		t.Fatalf("a closed matcher released bytes: %v, %d", hits, safe)
	}
	if hits := m.Scan([]byte("anything")); len(hits) != 1 || hits[0].End != 8 {
		t.Fatalf("a closed matcher called bytes clean: %v", hits)
	}
	for _, err := range []error{m.Set(nil), m.Add(), m.Remove(), m.Check(), m.Close()} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("%v", err)
		}
	}
	for _, n := range needles {
		if len(bytes.Trim(n, "\x00")) != 0 {
			t.Fatal("a value is still in memory")
		}
	}
}

func TestAddAndRemove(t *testing.T) {
	m := mustNew(t)
	text := []byte("one-value-1 two-value-2 two-again-2")
	names := func() (out []string) {
		for _, h := range m.Scan(text) {
			out = append(out, h.ID.Name+":"+h.Class.String())
		}
		return out
	}
	steps := []struct {
		do   func() error
		want string
	}{
		{func() error { return nil }, ""},
		{func() error { return m.Add(val("one", "one-value-1")) }, "one:live"},
		{func() error { return m.Add(val("two", "two-value-2"), val("two", "two-again-2")) }, "one:live two:live two:live"},
		{func() error { return m.Add(val("one", "one-value-1")) }, "one:live two:live two:live"},
		{func() error { v := val("one", "one-value-1"); v.Class = guard.Retired; return m.Add(v) }, "one:retired two:live two:live"},
		{func() error { return m.Remove(id("two"), id("none")) }, "one:retired"},
		{func() error { return m.Set(nil) }, ""},
	}
	for i, s := range steps {
		old := m.set.entries[1:]
		if err := s.do(); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(names(), " "); got != s.want {
			t.Errorf("step %d: %q, want %q", i, got, s.want)
		}
		for _, e := range missing(old, m.set.entries) {
			if len(bytes.Trim(e.needles[0].b, "\x00")) != 0 {
				t.Errorf("step %d: a removed value is still in memory", i)
			}
		}
		if err := m.Check(); err != nil {
			t.Error(err)
		}
	}
}

func TestCallerMayWipe(t *testing.T) {
	v := val("a", "some-value-1")
	m := mustNew(t, v)
	v.Secret.Wipe()
	if err := m.Add(val("b", "other-value-2")); err != nil {
		t.Fatal(err)
	}
	if hits := m.Scan([]byte("some-value-1 other-value-2")); len(hits) != 2 {
		t.Fatalf("%v", hits)
	}
}
