package main

import (
	"strings"
	"testing"

	"guard/approve"
)

// Without the letters that are shown, no key answers but Ctrl-C, which is a no.
func TestPanelKeys(t *testing.T) {
	r := approve.Request{Kind: approve.KindUse, Credential: "tok", Action: "http:read", ExeSHA256: "aa"}
	for range 50 {
		p := newPanel(r)
		for k := range 256 {
			if k != 3 && !strings.ContainsRune(p.code, rune(k)) && p.key(byte(k)) {
				t.Fatalf("%q answers", rune(k))
			}
		}
		p = newPanel(r)
		for _, k := range []byte(p.code) {
			if p.key(k) {
				t.Fatal("a letter of the code answers")
			}
		}
		if !p.key('o') || !p.ok || !p.answer.Allow || p.answer.Life != approve.Once {
			t.Fatalf("code and key: %+v", p.answer)
		}
		p = newPanel(r)
		if !p.key(3) || p.answer.Allow {
			t.Fatalf("Ctrl-C: %+v", p.answer)
		}
	}
	r.ExeSHA256 = ""
	p := newPanel(r)
	for _, k := range []byte(p.code) {
		p.key(k)
	}
	if p.key('a') || p.key('s') {
		t.Error("an unknown program is allowed for longer")
	}
}
