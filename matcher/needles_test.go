package matcher

import (
	"bytes"
	"os"
	"testing"

	"guard"
)

func TestNeedles(t *testing.T) {
	value, other, stand := []byte("kJ8#mQ2vX9pL4wR7tZ"), []byte("qW3eR5tY7uI9oP1aS2"), []byte("pH4gT6nB8vC0xZ2lK5")
	m, err := New([]guard.Value{
		{ID: guard.SecretID{Name: "one"}, Secret: guard.NewSecret(bytes.Clone(value))},
		{ID: guard.SecretID{Name: "old"}, Class: guard.Retired, Secret: guard.NewSecret(bytes.Clone(other))},
		{ID: guard.SecretID{Name: "stand-in"}, Class: guard.Placeholder, Secret: guard.NewSecret(bytes.Clone(stand))},
	})
	if err != nil {
		t.Fatal(err)
	}
	ns := m.Needles()
	if len(ns) < 20 || !bytes.Equal(ns[0].Bytes.Reveal(), value) || !bytes.Equal(ns[1].Bytes.Reveal(), other) || ns[1].Class != guard.Retired {
		t.Fatalf("%d needles, and the first two are not the raw values", len(ns))
	}
	for i, n := range ns {
		if n.ID.Name == "stand-in" || bytes.Contains(n.Bytes.Reveal(), stand) {
			t.Errorf("needle %d is of a placeholder", i)
		}
		// Each is what the matcher itself would find, whole.
		hits := m.Scan(n.Bytes.Reveal())
		if len(hits) == 0 || hits[0].ID != n.ID || hits[0].Start != 0 {
			t.Errorf("needle %d (%s of %s) is not found by the matcher: %v", i, n.Encoding, n.ID.Name, hits)
		}
	}
	// A copy: wiping it changes nothing of the matcher's.
	for _, n := range ns {
		n.Bytes.Wipe()
	}
	if err := m.Check(); err != nil {
		t.Error(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if ns := m.Needles(); ns != nil {
		t.Errorf("%d needles after Close (%v)", len(ns), os.ErrClosed)
	}
}
