package matcher

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// remains is text that leaves something behind in every part of a stream: escapes, line
// breaks, what shows nothing, encodings on top of each other, lists, something compressed,
// beginnings of all of that, and values in it.
func remains(r *rand.Rand, value string) []byte {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write([]byte("some text before it, " + value + " and some after it"))
	w.Close()
	encoded := base64.StdEncoding.EncodeToString([]byte("so much text before it: " + value + "\n"))
	pieces := []string{
		value, value[:len(value)/2], "\\u0067\\u0068", "%67%68p", "&#103;", "\x1b[31m", "\x1b]0;", "a\bb", value[:6] + "\n" + value[6:], value[:7] + "\x00" + value[7:],
		value[:7] + "\u200b" + value[7:], value[:5] + `" + "` + value[5:], "=67=68", "\r\n", "\n    ", encoded, base64.StdEncoding.EncodeToString([]byte(encoded)), wrap(encoded, 40, "\n"),
		hex.EncodeToString([]byte(value)), hex.EncodeToString([]byte(encoded)), z.String(), z.String()[:z.Len()/2], base64.StdEncoding.EncodeToString(z.Bytes()), "\x1f\x8b", "PK\x03", "\x78\x9c\x4b",
		strings.Trim(fmt.Sprint([]byte(value)), "[]"), "12, 13, 14, 15, 16, 17, 18, 19, 20, 21", "00000000: 6768 705f", "\\", "%", "%2", "\\x", "&am", "0x67, 0x68, ", "some plain words ", strings.Repeat("A", 50),
		"\\\\u0067", strings.Repeat("%25", 20) + "67", "\x8b\x02\x80", "=\r\n", "'\"", "MFRGG43FMZ", "\xe2\x80",
	}
	var b []byte
	for range 1 + r.IntN(12) {
		b = append(b, pieces[r.IntN(len(pieces))]...)
		if r.IntN(3) == 0 {
			b = append(b, " \n,"[r.IntN(3)])
		}
	}
	return b
}

// A stream that was reset does what a new one does, whatever it had been used for.
func TestReset(t *testing.T) {
	r := newRand(60)
	value := "ghp_" + randString(r, alphabet, 20)
	m := mustNew(t, val("gh", value), val("other", "sk-"+randString(r, alphabet, 40)))
	old := m.Stream()
	for round := range 600 {
		if round == 300 {
			if err := m.Add(val("late", "glpat-"+randString(r, alphabet, 20))); err != nil {
				t.Fatal(err)
			}
		}
		for range r.IntN(4) {
			old.Write(remains(r, value))
			old.Pause()
		}
		if r.IntN(3) == 0 {
			old.Close()
		}
		old.Reset()
		fresh := m.Stream()
		same(t, reflect.ValueOf(old).Elem(), reflect.ValueOf(fresh).Elem(), "stream")
		text := remains(r, value)
		for len(text) > 0 {
			n := 1 + r.IntN(len(text))
			hits, safe := old.Write(text[:n])
			want, to := fresh.Write(text[:n])
			if !slices.Equal(hits, want) || safe != to || old.Pause() != fresh.Pause() {
				t.Fatalf("round %d: %v up to %d, a new one %v up to %d, in %q", round, hits, safe, want, to, text[:n])
			}
			text = text[n:]
		}
		if hits, want := old.Close(), fresh.Close(); !slices.Equal(hits, want) {
			t.Fatalf("round %d: %v at the end, a new one %v", round, hits, want)
		}
	}
}

// same compares all fields of a stream that was reset with those of a new one. It may
// have made something that the new one has not; that must be as when it was made.
func same(t *testing.T, a, b reflect.Value, name string) {
	t.Helper()
	switch a.Kind() {
	case reflect.Struct:
		for i := range a.NumField() {
			if f := a.Type().Field(i).Name; f != "m" && f != "lang" && f != "a" {
				same(t, a.Field(i), b.Field(i), name+"."+f)
			}
		}
	case reflect.Pointer:
		switch {
		case a.IsNil() && b.IsNil():
		case b.IsNil():
			b = reflect.ValueOf(asMade(t, a, name))
			same(t, a.Elem(), b.Elem(), name)
		default:
			same(t, a.Elem(), b.Elem(), name)
		}
	case reflect.Array:
		for i := range a.Len() {
			same(t, a.Index(i), b.Index(i), name)
		}
	case reflect.Slice:
		if a.Type().Elem().Kind() == reflect.Uint8 {
			if i := bytes.IndexFunc(a.Slice(0, a.Cap()).Bytes(), func(r rune) bool { return r != 0 }); i >= 0 {
				t.Fatalf("%s holds what was written", name)
			}
		}
		if strings.HasSuffix(name, ".room") || strings.HasSuffix(name, ".spares") {
			return // written before it is read
		}
		made := b.Len() == 0 && (strings.HasSuffix(name, ".lanes") || strings.HasSuffix(name, ".bits") || strings.HasSuffix(name, ".first") || strings.HasSuffix(name, ".broken"))
		if a.Len() != b.Len() && !made {
			t.Fatalf("%s has %d elements, a new one %d", name, a.Len(), b.Len())
		}
		for i := range a.Len() {
			switch {
			case !made:
				same(t, a.Index(i), b.Index(i), name)
			case strings.HasSuffix(name, ".lanes"):
				same(t, a.Index(i).Elem(), reflect.ValueOf(asMade(t, a.Index(i), name)).Elem(), name)
			}
		}
	case reflect.Func, reflect.Interface:
		if a.IsNil() != b.IsNil() {
			t.Fatalf("%s: %v, a new one %v", name, a, b)
		}
	default:
		if !a.Equal(b) {
			t.Fatalf("%s is %v, of a new one %v", name, a, b)
		}
	}
}

// asMade is what a points to, as it is when it is made.
func asMade(t *testing.T, a reflect.Value, name string) any {
	e := a.Elem()
	switch a.Type() {
	case reflect.TypeFor[*fold]():
		// Of the view that it hangs on only what it was made with is in it.
		return &fold{window: window{and: marks(e.FieldByName("and").Uint()), lean: true, as: e.FieldByName("as").String()}, min: int(e.FieldByName("min").Int())}
	case reflect.TypeFor[*view]():
		return newView(&escapeLang, 1, int(e.FieldByName("shift").Int())/markCount, e.FieldByName("as").String())
	case reflect.TypeFor[*lane]():
		l := newLane(int(e.FieldByName("depth").Int()), e.FieldByName("as").String())
		l.skip = encoding(e.FieldByName("skip").Uint())
		return l
	case reflect.TypeFor[*layers]():
		depth := 0
		if runs := e.FieldByName("runs"); runs.Len() > 0 {
			depth = int(runs.Index(0).Elem().FieldByName("depth").Int())
		}
		return newLayers(depth, e.FieldByName("fold").FieldByName("as").String())
	}
	t.Fatalf("%s: the test does not know %v", name, a.Type())
	return nil
}
