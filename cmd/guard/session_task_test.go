package main

import (
	"strings"
	"testing"
)

func TestVariant(t *testing.T) {
	for _, p := range []string{
		"ghp_" + strings.Repeat("aB3", 12), "0123456789abcdef0123456789abcdef", "short1", "postgres://user:" + strings.Repeat("x7", 9) + "@averylonghostname1234567890.example:5432/database",
		"-----BEGIN OPENSSH PRIVATE KEY-----\n" + strings.Repeat("Ab9", 20) + "\n-----END OPENSSH PRIVATE KEY-----\n", "AKIA" + strings.Repeat("Q7", 8),
	} {
		seen := map[string]bool{}
		for range 20 {
			v := variant(p)
			if len(v) != len(p) || v == p || seen[v] && len(p) > 12 {
				t.Errorf("%q gave %q", p, v)
			}
			seen[v] = true
			for i := range p {
				if alphanumeric(p[i]) != alphanumeric(v[i]) || !alphanumeric(p[i]) && p[i] != v[i] {
					t.Errorf("%q gave %q: not of its shape", p, v)
					break
				}
			}
			if at := strings.LastIndexByte(p, '@'); at > 0 && v[at:] != p[at:] {
				t.Errorf("%q gave %q: another host", p, v)
			}
			if strings.HasPrefix(p, "-----BEGIN") && !strings.HasPrefix(v, "-----BEGIN OPENSSH PRIVATE KEY-----\n") {
				t.Errorf("%q gave %q", p, v)
			}
		}
	}
}

func TestDifference(t *testing.T) {
	got := difference("a = 1\nb = 2\n", "a = 1\nb = 3\nc\x1b[2J\u202ex\n")
	want := "    a = 1\n  - b = 2\n  + b = 3\n  + c\\u001b[2J\\u202ex\n"
	if got != want {
		t.Errorf("%q, want %q", got, want)
	}
	long := strings.Repeat("x\n", 5000)
	if n := strings.Count(difference("y\n", long), "\n"); n != maxShown+1 {
		t.Errorf("%d lines", n)
	}
	if n := strings.Count(difference(long, "y\n"), "\n"); n != 1 {
		t.Errorf("%d lines", n)
	}
	if got := difference("", strings.Repeat("w", 10000)); len(got) > 2*maxWide {
		t.Errorf("%d bytes", len(got))
	}
}

func TestWords(t *testing.T) {
	o := runFlags{allow: []string{"tok:http:read/a b/%20/[x?]#/**,count=3"}, deny: []string{"x"}, userPolicy: userPolicy{presets: []string{"logs"}, policyFiles: []string{"/a b/c.cedar"}}}
	var back runFlags
	if !back.parseWords(o.words()) || back.words() != o.words() || back.allow[0] != o.allow[0] || back.policyFiles[0] != o.policyFiles[0] {
		t.Errorf("%q gave %+v", o.words(), back)
	}
	if strings.ContainsAny(o.words(), "?#") {
		t.Error("the log would cut it")
	}
	o.allow = []string{strings.Repeat("x", 2000)}
	if (&runFlags{}).parseWords(o.words()) {
		t.Error("a part was taken for all")
	}
}
