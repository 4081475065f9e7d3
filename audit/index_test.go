package audit

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"
)

// mixed makes a log of many files whose records differ in every field that
// filters know; completions are in later files than what they complete.
func mixed(t testing.TB, n int) string {
	t.Helper()
	dir := t.TempDir()
	l := openShort(t, dir)
	defer mustClose(t, l)
	for i := range n {
		r := Record{
			Type: []string{TypeUse, TypeLeak, TypeRotation}[i%3], Credential: string(rune('a' + i%7)), Session: string(rune('s' + i/40)),
			Context: []string{"shop", "shop/dev", "shopping", "bank"}[i%4], Decision: []string{"pass", "block"}[i%2],
			Channel: []string{"http", "terminal", "file"}[i/5%3], Fingerprint: []string{"", "aa", "bb"}[i%3], Host: "h",
			Time: time.Date(2026, 1, 1, 0, i, 0, 0, time.UTC),
		}
		if i%5 == 4 && i > 30 {
			r = Record{Type: TypeResult, Of: uint64(i - 30), Session: r.Session, Credential: r.Credential, Result: "200", DurationMS: float64(i), Time: r.Time}
		}
		mustAppend(t, l, r)
	}
	return dir
}

var filters = []Filter{
	{}, {Credential: "c"}, {Session: "s"}, {Context: "shop"}, {Context: "shop/dev"}, {Context: "sho"}, {Type: TypeLeak}, {Decision: "block"},
	{Channel: "file"}, {Fingerprint: "bb"}, {Credential: "c", Type: TypeUse}, {Credential: "a", Decision: "block", Context: "bank"},
	{Since: time.Date(2026, 1, 1, 1, 30, 0, 0, time.UTC)}, {Until: time.Date(2026, 1, 1, 0, 20, 0, 0, time.UTC)},
	{Credential: "b", Since: time.Date(2026, 1, 1, 1, 0, 0, 0, time.UTC), Until: time.Date(2026, 1, 1, 2, 0, 0, 0, time.UTC)},
	{Credential: "nobody"}, {From: 100}, {Credential: "a", From: 77},
}

// Whatever is asked, an index gives what reading everything gives.
func TestIndexFindsWhatReadingFinds(t *testing.T) {
	dir := mixed(t, 200)
	segs, err := segments(dir)
	if err != nil || len(segs) < 5 {
		t.Fatal(segs, err)
	}
	indexes, _ := filepath.Glob(filepath.Join(dir, "*.idx"))
	if len(indexes) != len(segs)-1 {
		t.Fatalf("%d indexes of %d closed files", len(indexes), len(segs)-1)
	}
	bare := t.TempDir()
	for name, b := range load(t, dir) {
		if filepath.Ext(name) != ".idx" {
			put(t, bare, name, b)
		}
	}
	for _, f := range filters {
		var all []Record
		for _, r := range records(t, bare, Filter{}) {
			if f.Match(r) {
				all = append(all, r)
			}
		}
		for _, last := range []int{0, 1, 3, 50, 1000} {
			f.Last = last
			want := all
			if last > 0 {
				want = all[max(0, len(all)-last):]
			}
			for _, d := range []string{dir, bare} {
				got := records(t, d, f)
				if !slices.EqualFunc(got, want, func(a, b Record) bool { return reflect.DeepEqual(a, b) }) {
					t.Errorf("%+v (indexes: %v): %d records, want %d", f, d == dir, len(got), len(want))
				}
			}
			var a, b bytes.Buffer
			o := ShowOptions{Location: time.UTC}
			if err := o.Show(&a, dir, f); err != nil {
				t.Fatal(err)
			}
			if err := o.Show(&b, bare, f); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(a.Bytes(), b.Bytes()) {
				t.Errorf("%+v: shown differently with indexes", f)
			}
		}
	}
}

// An index that the log's key did not sign hides nothing.
func TestForgedIndex(t *testing.T) {
	dir := mixed(t, 200)
	want := records(t, dir, Filter{Credential: "c"})
	segs, _ := segments(dir)
	name := indexName(segs[1])
	good := load(t, dir)[name]
	other := mixed(t, 100) // under the same key: an index of another log
	foreign, _ := segments(other)
	for what, b := range map[string][]byte{
		"empty": {}, "cut": good[:len(good)/2], "of another file": load(t, dir)[indexName(segs[0])], "of another log": load(t, other)[indexName(foreign[2])],
	} {
		put(t, dir, name, b)
		if got := records(t, dir, Filter{Credential: "c"}); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %d records of %d", what, len(got), len(want))
		}
	}
	for i := 0; i < len(good); i += 13 {
		b := slices.Clone(good)
		b[i] ^= 1
		put(t, dir, name, b)
		if got := records(t, dir, Filter{Credential: "c"}); !reflect.DeepEqual(got, want) {
			t.Fatalf("byte %d changed: %d records of %d", i, len(got), len(want))
		}
	}
	os.Remove(filepath.Join(dir, name))
	mustClose(t, openShort(t, dir))
	if !bytes.Equal(load(t, dir)[name], good) {
		t.Error("the index was not made again as it was")
	}
}

func FuzzIndex(f *testing.F) {
	dir := mixed(f, 60)
	segs, _ := segments(dir)
	good := load(f, dir)[indexName(segs[0])]
	n := binary.BigEndian.Uint32(good[len(indexMagic):])
	f.Add(good[len(indexMagic)+4:][:n], good[len(indexMagic)+4+int(n)+signatureBytes:])
	f.Fuzz(func(t *testing.T, head, parts []byte) {
		d := t.TempDir()
		put(t, d, indexName(segs[0]), slices.Concat(indexTop(head), make([]byte, signatureBytes), parts))
		x, ok := readIndex(d, segs[0], alwaysVerifier{})
		if !ok {
			return
		}
		defer x.close()
		for _, flt := range filters {
			x.selected(flt)
		}
		x.completing([]uint64{1, 5, 9})
		x.locateRecords()
	})
}

type alwaysVerifier struct{}

func (alwaysVerifier) Name() string                { return "" }
func (alwaysVerifier) KeyHash() uint32             { return 0 }
func (alwaysVerifier) Verify(msg, sig []byte) bool { return true }
