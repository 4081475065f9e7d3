package scan

import (
	"bytes"
	"encoding/base64"
	"reflect"
	"testing"

	"guard"
	"guard/matcher"
)

// What a stream that was used before finds is what a search of all of it does,
// wherever the value is, and after a panic as well.
func TestValuesAreThoseOfScan(t *testing.T) {
	value := []byte("tkn_Q7w2Zx9Lm4Rt6Yb1Nc8Vd3Kf5Hg0")
	m, err := matcher.New([]guard.Value{{ID: guard.SecretID{Name: "tok", Version: 1}, Secret: guard.NewSecret(bytes.Clone(value))}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	l := &looker{s: &Scanner{o: Options{Values: m}}}
	for _, form := range [][]byte{value, []byte(base64.StdEncoding.EncodeToString(value)), value[:20]} {
		for at := 64<<10 - 50; at < 64<<10+5; at++ {
			b := append(append(bytes.Repeat([]byte(" some words\n"), 8<<10)[:at], form...), "\nmore"...)
			want := m.Scan(b)
			if got := l.values(b); !reflect.DeepEqual(got, want) || len(want) == 0 && len(form) > 20 {
				t.Fatalf("%d at %d: %v, want %v", len(form), at, got, want)
			}
		}
		l.values(form[:12]) // a beginning, of which nothing may be left
		if got := l.values(form[12:]); len(got) > 0 && len(m.Scan(form[12:])) == 0 {
			t.Errorf("two files are taken for one: %v", got)
		}
	}
}
