package formats

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

func load(t testing.TB, text string) Rules {
	t.Helper()
	rules, err := LoadTOML(strings.NewReader(text), "test.toml")
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

const own = `
provider = "acme"
[[rule]]
id = "acme-token"
kind = "token"
regex = 'acme_[0-9a-z]{24}'
random = true
positive = ["acme_{[0-9a-z]:24}"]

[[rule.allow]]
reason = "the key of the demo account"
until = "UNTIL"
regexes = ['^acme_demo']

[[allow]]
reason = "recorded answers"
paths = ['(^|/)cassettes/']
`

func TestOwnRules(t *testing.T) {
	in := strings.Replace(own, "UNTIL", time.Now().AddDate(0, 0, 1).Format(time.DateOnly), 1)
	s := newSet(t, Options{Rules: load(t, in)})
	token := "acme_7h3jk2l9q8w4e5r6t1y0u2i8"
	if list := s.Scan([]byte("x="+token+"\n"), ""); len(list) != 1 || list[0].Rule != "acme-token" || list[0].Provider != "acme" || list[0].Kind != "token" {
		t.Errorf("a rule of the user: %v", list)
	}
	demo := []byte("x=acme_demo3jk2l9q8w4e5r6t1y0u2\n")
	if list := s.Scan(demo, ""); len(list) != 0 {
		t.Errorf("allowed, and found: %v", list)
	}
	if list := s.Scan([]byte(token+" "+Sample("github-pat", 1)), "a/cassettes/b.json"); len(list) != 0 {
		t.Errorf("in an allowed path: %v", list)
	}
	if list := s.Scan([]byte(token+" "+Sample("github-pat", 1)), "a/b.json"); len(list) != 2 {
		t.Errorf("in another path: %v", list)
	}
	// What was allowed until yesterday is found again.
	s = newSet(t, Options{Rules: load(t, strings.Replace(own, "UNTIL", time.Now().AddDate(0, 0, -1).Format(time.DateOnly), 1))})
	if list := s.Scan(demo, ""); len(list) != 1 {
		t.Errorf("the allowance expired: %v", list)
	}
}

func TestAUsersRuleTakesTheBuiltInOnesPlace(t *testing.T) {
	s := newSet(t, Options{Rules: load(t, "provider='me'\n[[rule]]\nid='github-pat'\nkind='mine'\nregex='ghp_[a-z]{4}'\nplain=true\npositive=['ghp_abcd']")})
	if list := s.Scan([]byte("ghp_abcd\n"), ""); len(list) != 1 || list[0].Kind != "mine" {
		t.Errorf("%v", list)
	}
}

func TestNear(t *testing.T) {
	s := newSet(t, Options{Rules: load(t, "provider='me'\n[[rule]]\nid='word'\nregex='wrd-[0-9]{6}'\nnear=['Gizmo']\nplain=true")})
	for text, want := range map[string]bool{"gizmo: wrd-142536\n": true, "GIZMO=wrd-142536\n": true, "wrd-142536\n": false, "wrd-142536 gizmo\n": false, "gizmo" + strings.Repeat(" ", 300) + "wrd-142536": false} {
		if got := has(s.Scan([]byte(text), ""), "word"); got != want {
			t.Errorf("in %q found is %v", text, got)
		}
	}
}

func TestIgnore(t *testing.T) {
	token := Sample("github-pat", 4)
	s := newSet(t, Options{Ignore: func(b []byte) bool { return string(b) == token }})
	if list := s.Scan([]byte(token+"\n"+Sample("github-pat", 5)+"\n"), ""); len(list) != 1 || list[0].Start != 41 {
		t.Errorf("%v", list)
	}
}

func TestRefusesBadFiles(t *testing.T) {
	secret := Sample("github-pat", 11)
	for name, text := range map[string]string{
		"no TOML":               "[[rule",
		"a secret in a line":    "x = " + secret,
		"unknown key":           "provider='a'\n[[rule]]\nid='a'\nregex='b'\nkeyword='c'",
		"no id":                 "provider='a'\n[[rule]]\nregex='b'",
		"no regex":              "provider='a'\n[[rule]]\nid='b'",
		"unknown confidence":    "provider='a'\n[[rule]]\nid='b'\nregex='c'\nconfidence='sure'",
		"allow without reason":  "[[allow]]\nregexes=['a']",
		"allow of everything":   "[[allow]]\nreason='because'",
		"allow until some day":  "[[allow]]\nreason='because'\nregexes=['a']\nuntil='soon'",
		"extends a file":        "[extend]\npath='base.toml'\n[[rules]]\nid='a'\nregex='b'",
		"regex of another kind": "[[rules]]\nid='a'\nregex='(?=b)'",
	} {
		_, err := LoadTOML(strings.NewReader(text), "test.toml")
		if err == nil || !strings.Contains(err.Error(), "test.toml") {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error quotes the input", name)
		}
	}
	for name, text := range map[string]string{
		"regex":     "provider='a'\n[[rule]]\nid='b'\nregex='('",
		"group":     "provider='a'\n[[rule]]\nid='b'\nregex='abcd'\ngroup=2",
		"checksum":  "provider='a'\n[[rule]]\nid='b'\nregex='abcd'\nchecksum='md5'",
		"structure": "provider='a'\n[[rule]]\nid='b'\nregex='abcd'\nstructure='cube'",
		"left":      "provider='a'\n[[rule]]\nid='b'\nregex='abcd'\nleft='ab'",
		"at":        "provider='a'\n[[rule]]\nid='b'\nregex='abcd'\nat='[a-z]'\n",
		"finder":    "provider='a'\n[[rule]]\nid='b'\nregex='abcd'\nfinder='keepers'\n",
		"twice":     "provider='a'\n[[rule]]\nid='b'\nregex='abcd'\n[[rule]]\nid='b'\nregex='abcd'",
	} {
		if s, err := New(Options{Rules: load(t, text)}); err == nil {
			s.Close()
			t.Errorf("%s: no error", name)
		} else if !strings.Contains(err.Error(), `"b"`) {
			t.Errorf("%s: the error does not name the rule: %v", name, err)
		}
	}
}

// leaks has what Gitleaks 8 files have.
const leaks = `
title = "gitleaks config"
minVersion = "v8.25.0"
[extend]
useDefault = true
disabledRules = ["stripe-test-key"]

[[allowlists]]
description = "global"
paths = ['''(?:^|/)vendor/''']
stopwords = ["014df517"]

[[rules]]
id = "initech-api-key"
description = "An Initech key"
regex = '''(?i)[\w.-]{0,50}?(?:initech)(?:[ \t\w.-]{0,20})[\s'"]{0,3}(?:=|:)[\x60'"\s=]{0,5}([a-z0-9]{32})(?:[\x60'"\s;]|\\[nr]|$)'''
entropy = 3
keywords = ["initech"]
tags = ["key"]

[[rules]]
id = "initech-file"
path = '''\.initech$'''
regex = '''tps-[0-9]{6}'''
secretGroup = 0

[[rules]]
id = "initech-word"
regex = '''\bnkw:(\w+)-(\w+)\b'''
secretGroup = 2
[[rules.allowlists]]
condition = "AND"
regexTarget = "line"
regexes = ['''# fine''']
stopwords = ["abc"]

[[rules]]
id = "initech-paths-only"
path = '''\.p12$'''
`

func TestGitleaksFile(t *testing.T) {
	s := newSet(t, Options{Rules: load(t, leaks)})
	key := "8f3k2l9q7w4e5r6t1y0u2i8o3p5a6s7d"
	far := strings.Repeat("lorem ipsum dolor\n", 2000)
	for name, c := range map[string]struct {
		text, path, rule string
	}{
		"keyword":                {"initech_token = '" + key + "'\n", "", "initech-api-key"},
		"at the end of the text": {"INITECH: " + key, "", "initech-api-key"},
		"far into a text":        {far + "initech_token = '" + key + "'\n" + far, "", "initech-api-key"},
		"too little entropy":     {"initech_token = '" + strings.Repeat("a1", 16) + "'\n", "", ""},
		"stopword":               {"initech_token = '014df517" + key[:24] + "'\n", "", ""},
		"allowed path":           {"initech_token = '" + key + "'\n", "vendor/x.go", ""},
		"other path":             {"initech_token = '" + key + "'\n", "src/x.go", "initech-api-key"},
		"path of the rule":       {"a tps-123456 report\n", "a/b.initech", "initech-file"},
		"another path":           {"a tps-123456 report\n", "a/b.txt", ""},
		"no path":                {"a tps-123456 report\n", "", ""},
		"no keyword at all":      {far + "nkw:one-two\n" + far, "", "initech-word"},
		"one condition of two":   {"nkw:one-two # fine\n", "", "initech-word"},
		"both conditions":        {"nkw:one-abc # fine\n", "", ""},
		"disabled":               {Sample("stripe-test-key", 0), "", ""},
		"built in":               {Sample("github-pat", 0), "", "github-pat"},
	} {
		list := s.Scan([]byte(c.text), c.path)
		switch {
		case c.rule == "" && len(list) != 0:
			t.Errorf("%s: %v", name, list)
		case c.rule != "" && (len(list) != 1 || list[0].Rule != c.rule):
			t.Errorf("%s: %v", name, list)
		}
		if c.path == "" {
			for _, step := range []int{1, 7, 4096, 5000} {
				var cuts []int
				for i := step; i < len(c.text); i += step {
					cuts = append(cuts, i)
				}
				if got := feed(t, s, []byte(c.text), cuts); !sameFindings(got, list) {
					t.Errorf("%s, in pieces of %d: %v, but Scan: %v", name, step, got, list)
				}
			}
		}
	}
	if list := s.Scan([]byte("nkw:one-two\n"), ""); len(list) != 1 || list[0].Start != 8 || list[0].End != 11 {
		t.Errorf("secretGroup: %v", list)
	}
	// A rule of the file that finds what a built-in one found says nothing new.
	both := load(t, "[[rules]]\nid='github-pat'\nregex='''ghp_[0-9a-zA-Z]{36}'''\nkeywords=['ghp_']")
	s = newSet(t, Options{Rules: both})
	if list := s.Scan([]byte(Sample("github-pat", 2)+"\n"), ""); len(list) != 1 || list[0].Confidence != Verified {
		t.Errorf("a rule that is also built in: %v", list)
	}
}

func TestCellsMeetAtTheirEdges(t *testing.T) {
	s := newSet(t, Options{Rules: load(t, "[[rules]]\nid='edge'\nregex='''edge-[0-9]{2,900}x'''\nkeywords=['edge-']")})
	for _, at := range []int{0, 1, 4090, 4095, 4096, 8191, 12288} {
		for _, n := range []int{2, 700} {
			var b bytes.Buffer
			b.WriteString(strings.Repeat(".", at))
			fmt.Fprintf(&b, "edge-%sx", strings.Repeat("1", n))
			b.WriteString(strings.Repeat(".", 9000))
			list := s.Scan(b.Bytes(), "")
			if len(list) != 1 || list[0].Start != int64(at) || list[0].End != int64(at+n+6) {
				t.Errorf("at %d, %d digits: %v", at, n, list)
			}
		}
	}
}
