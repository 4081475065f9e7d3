package testutil

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// Canary returns a random value in the shape of a GitHub token: "ghp_" and 36
// characters from base62. It is no credential of anybody's.
func Canary(t testing.TB) string {
	t.Helper()
	return "ghp_" + Random(36)
}

// Random returns n characters from base62.
func Random(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	for i := range b {
		b[i] = base62[int(b[i])%len(base62)] // a bias is no harm here
	}
	return string(b)
}

// needles returns what Search looks for, by the name of the encoding.
func needles(value string) map[string][]byte {
	n := map[string][]byte{
		"raw": []byte(value),
		"hex": []byte(hex.EncodeToString([]byte(value))),
		"HEX": []byte(strings.ToUpper(hex.EncodeToString([]byte(value)))),
	}
	rev := []byte(value)
	slices.Reverse(rev)
	n["reversed"] = rev
	for align := range 3 {
		// The middle of what base64 makes of the value, at this offset in
		// whatever surrounds it: the characters that the value alone decides.
		p := append(make([]byte, align), value...)
		first, last := (align*8+5)/6, len(p)*8/6
		for name, enc := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
			n[fmt.Sprintf("%s at offset %d", name, align)] = []byte(enc.EncodeToString(p)[first:last])
		}
	}
	return n
}

// Found is a place where the value is.
type Found struct {
	Where    string // "file PATH", "name PATH", "bytes #1"
	Encoding string // "raw", "hex", "HEX", "reversed", "base64 at offset 1", ...
	Offset   int
}

func (f Found) String() string {
	return fmt.Sprintf("%s, %s, at byte %d", f.Where, f.Encoding, f.Offset)
}

// Find looks for value (raw, reversed, in hex, in base64 at each alignment) in
// places: a string is the path of a file or of a folder, which is walked, names
// and targets of symbolic links included; a []byte, a *bytes.Buffer or an
// io.Reader is looked through itself. What cannot be read is an error, since
// it was not searched; a path that does not exist, too. Sockets, pipes and
// devices are skipped.
func Find(value string, places ...any) ([]Found, error) {
	if len(value) < 8 {
		return nil, fmt.Errorf("search for a value of %d bytes: want at least 8", len(value))
	}
	needles := needles(value)
	var found []Found
	look := func(where string, p []byte) {
		for _, enc := range slices.Sorted(maps.Keys(needles)) {
			if i := bytes.Index(p, needles[enc]); i >= 0 {
				found = append(found, Found{where, enc, i})
			}
		}
	}
	for i, place := range places {
		switch p := place.(type) {
		case []byte:
			look(fmt.Sprintf("bytes #%d", i), p)
		case *bytes.Buffer:
			look(fmt.Sprintf("bytes #%d", i), p.Bytes())
		case io.Reader:
			b, err := io.ReadAll(p)
			if err != nil {
				return found, fmt.Errorf("search bytes #%d: %w", i, err)
			}
			look(fmt.Sprintf("bytes #%d", i), b)
		case string:
			err := filepath.WalkDir(p, func(path string, d fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				look(fmt.Sprintf("name #%d of %s", len(found), filepath.Base(p)), []byte(path))
				switch {
				case d.Type()&fs.ModeSymlink != 0:
					target, err := os.Readlink(path)
					look("link "+path, []byte(target))
					return err
				case d.Type().IsRegular():
					b, err := os.ReadFile(path)
					look("file "+path, b)
					return err
				}
				return nil
			})
			if err != nil {
				return found, fmt.Errorf("search %s: %w", p, err)
			}
		default:
			return found, fmt.Errorf("search a %T: want a path, bytes or a reader", place)
		}
	}
	return found, nil
}

// Search fails the test if Find finds value in places, naming where, and never
// printing the value.
func Search(t testing.TB, value string, places ...any) {
	t.Helper()
	found, err := Find(value, places...)
	for _, f := range found {
		t.Errorf("the canary is in %s", strings.ReplaceAll(f.String(), value, "[canary]"))
	}
	if err != nil {
		t.Error(strings.ReplaceAll(err.Error(), value, "[canary]"))
	}
}
