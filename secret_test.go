package guard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// A Secret nested any way that a careless line of code might print it.
func TestSecretIsNeverPrinted(t *testing.T) {
	const canary = "canary-2c1b0f9e7d"
	s := NewSecret([]byte(canary))
	type inner struct{ s Secret }
	type outer struct {
		Public  Secret
		private Secret
		In      inner
		P       *Secret
		M       map[string]Secret
		L       []Secret
		A       any
	}
	o := outer{Public: s, private: s, In: inner{s}, P: &s, M: map[string]Secret{"k": s}, L: []Secret{s}, A: s}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
		fmt.Fprintf(&out, verb, o)
		fmt.Fprintf(&out, verb, &o)
		fmt.Fprintf(&out, verb, s)
	}
	if b, err := json.Marshal(o); err == nil {
		out.Write(b)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "o", o, "s", s)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "o", o, "s", s)
	fmt.Fprint(&out, fmt.Errorf("wrap %v: %w", o, errors.New("e")))
	hexed := fmt.Sprintf("%x", canary)
	if strings.Contains(out.String(), canary) || strings.Contains(strings.ToLower(out.String()), hexed) {
		t.Fatal("a secret was printed")
	}
	if string(s.Reveal()) != canary {
		t.Fatal("reveal lost the value")
	}
	c := s.Clone()
	s.Wipe()
	if s.Len() != 0 || o.Public.Len() != 0 || string(c.Reveal()) != canary {
		t.Fatal("wipe must empty every copy of one secret, and no clone")
	}
}

func TestZeroValuesAreStrict(t *testing.T) {
	var d Decision
	if d.Allowed() || !d.Action.Stops() || d.Action != Kill {
		t.Fatal("the zero decision must be the strictest")
	}
	if Stricter(Pass, Block) != Block || Action(200).String() != "kill" {
		t.Fatal("stricter")
	}
}
