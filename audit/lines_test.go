package audit

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestVerifyLines(t *testing.T) {
	dir := t.TempDir()
	l := openShort(t, dir)
	var checkpoints [][]byte
	take := func() {
		c, err := Checkpoint(dir)
		if err != nil {
			t.Fatal(err)
		}
		checkpoints = append(checkpoints, c)
	}
	take()
	for i := range 40 {
		mustAppend(t, l, use(i))
		if i%7 == 0 {
			take()
		}
	}
	mustClose(t, l)
	var lines [][]byte
	if err := Lines(dir, 1, func(seq uint64, b []byte) error {
		lines = append(lines, bytes.Clone(b))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	pub := strings.TrimSpace(string(load(t, dir)[keyFile]))
	slices.Reverse(checkpoints)
	got, err := VerifyLines(lines, checkpoints, pub)
	if err != nil || got.Records != 36 || got.Beyond != 4 || got.Checked != len(checkpoints) {
		t.Fatalf("%+v, %v", got, err)
	}
	take()
	if got, err := VerifyLines(lines, checkpoints, pub); err != nil || got.Records != 40 || got.Beyond != 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	if n, ok := CheckpointSize(checkpoints[0]); !ok || n != 36 {
		t.Error(n, ok)
	}
	for what, do := range map[string]func() ([][]byte, [][]byte, string){
		"a line changed": func() ([][]byte, [][]byte, string) {
			x := slices.Clone(lines)
			x[3] = []byte("{}")
			return x, checkpoints, pub
		},
		"a line missing":  func() ([][]byte, [][]byte, string) { return slices.Delete(slices.Clone(lines), 3, 4), checkpoints, pub },
		"the end missing": func() ([][]byte, [][]byte, string) { return lines[:20], checkpoints, pub },
		"two swapped": func() ([][]byte, [][]byte, string) {
			x := slices.Clone(lines)
			x[3], x[4] = x[4], x[3]
			return x, checkpoints, pub
		},
		"a checkpoint changed": func() ([][]byte, [][]byte, string) {
			x := slices.Clone(checkpoints)
			x[1] = bytes.Replace(x[1], []byte("bytes "), []byte("bytes 1"), 1)
			return lines, x, pub
		},
	} {
		if _, err := VerifyLines(do()); !errors.Is(err, ErrTampered) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
