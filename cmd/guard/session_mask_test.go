package main

import (
	"strconv"
	"strings"
	"testing"

	"guard"
	"guard/matcher"
)

// A text that held no value is looked through again when there are other values.
func TestRecordsAreMaskedAfterValuesChange(t *testing.T) {
	value := func(s string) guard.Value {
		return guard.Value{ID: guard.SecretID{Context: "default", Name: "tok", Version: 1}, Secret: guard.NewSecret([]byte(s))}
	}
	first, second := strings.Repeat("q7Z", 5), strings.Repeat("w4K", 5)
	m, err := matcher.New([]guard.Value{value(first)})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	s := &session{matcher: m, conceal: &conceal{matcher: m, placeholders: map[string][]string{}}, folded: &foldedValues{}}
	masked := func(text string) bool {
		got := text
		s.maskEach(&got)
		return got != text
	}
	for range 3 {
		if !masked("/a/"+first+"/b") || masked("/a/"+second+"/b") || masked("") {
			t.Fatal("what is masked changes by itself")
		}
	}
	if err := m.Set([]guard.Value{value(second)}); err != nil {
		t.Fatal(err)
	}
	s.folded = &foldedValues{} // as refresh does
	for range 3 {
		if masked("/a/"+first+"/b") || !masked("/a/"+second+"/b") {
			t.Fatal("the values of before are looked for")
		}
	}
	for i := range 3 * maxEmpty {
		masked("/repos/" + strconv.Itoa(i))
	}
	masked(strings.Repeat("/long", maxEmptyText))
	if n := len(s.folded.empty); n > maxEmpty || s.folded.clean(strings.Repeat("/long", maxEmptyText)) || !s.folded.clean("/repos/"+strconv.Itoa(3*maxEmpty-1)) {
		t.Errorf("%d texts are kept", n)
	}
	s.folded = nil // of a monitor
	if !masked("/a/" + second + "/b") {
		t.Error("without a memory")
	}
}
