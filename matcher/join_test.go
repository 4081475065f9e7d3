package matcher

import (
	"slices"
	"strings"
	"testing"

	"guard"
)

// Every cut of a value in two and in three, the parts in any order and in any
// stream, in pieces.
func TestJoinEveryCut(t *testing.T) {
	r := newRand(90)
	for _, v := range []string{"ghp_" + randString(r, alphabet, 36), randString(r, alphabet, 16), randString(r, "0123456789abcdef", 64)} {
		for i := joinPart; i <= len(v)-joinPart; i++ {
			parts := []string{v[:i], v[i:]}
			if len(v)-i >= 2*joinPart {
				parts = []string{v[:i], v[i : i+joinPart], v[i+joinPart:]}
			}
			for turn := range 3 {
				j := NewJoin([]guard.Value{val("v", v), val("other", randString(r, alphabet, 30))})
				streams := []*Part{j.Stream(), j.Stream(), j.Stream()}
				var found []Split
				for k := range parts {
					part := parts[(k+turn)%len(parts)]
					s := streams[k%(turn+1)]
					found = append(found, s.Write([]byte("\nsome noise "))...)
					for _, p := range cut(r, []byte(part)) {
						found = append(found, s.Write(p)...)
					}
					found = append(found, s.Write([]byte(" and more\n"))...)
					if k == 0 && len(found) > 0 && len(part) < len(v)-joinGap {
						t.Fatalf("half of it is reported: %v", found)
					}
				}
				if len(found) != 1 || found[0].ID != id("v") || found[0].Streams != min(turn+1, len(parts)) {
					t.Fatalf("cut at %d of %d, order %d: %v", i, len(v), turn, found)
				}
				if err := j.Close(); err != nil {
					t.Fatal(err)
				}
				if streams[0].Write([]byte(v)) != nil {
					t.Fatal("a join that is closed reports")
				}
			}
		}
	}
}

// What honest programs print of values, and values that words make up.
func TestJoinHonest(t *testing.T) {
	r := newRand(91)
	v := "glpat-" + randString(r, alphabet, 20)
	phrase := "correct-horse-battery-staple-production"
	j := NewJoin([]guard.Value{val("v", v), val("phrase", phrase), val("short", randString(r, alphabet, 12))})
	a, b := j.Stream(), j.Stream()
	for _, s := range []string{"token glpat-****, " + v[:10] + "..." + v[len(v)-4:] + "\n", v[:12] + "\n", v[:16] + "****\n", v[12:20] + "\n" + strings.Repeat("glpat- ", 50), phrase[:20], phrase[20:], phrase, string(corpus("text")), string(corpus("base64"))} {
		for _, p := range []*Part{a, b, a} {
			if found := p.Write([]byte(s)); len(found) > 0 {
				t.Fatalf("%.60q: %v", s, found)
			}
		}
	}
	// One more character than can be done without.
	if found := b.Write([]byte(" " + v[14:22])); len(found) != 1 {
		t.Fatalf("%v", found)
	}
	// A value that is added later, and one that is removed.
	late := randString(r, alphabet, 40)
	j.Add(val("late", late))
	a.Write([]byte(late[:20]))
	if found := b.Write([]byte(late[20:])); len(found) != 1 || found[0].Streams != 2 {
		t.Fatalf("%v", found)
	}
	j.Remove(id("late"))
	if found := slices.Concat(a.Write([]byte(late[:20])), b.Write([]byte(late[20:]))); len(found) != 0 {
		t.Fatalf("%v", found)
	}
}

func BenchmarkJoin(b *testing.B) {
	data := corpus("text")
	j := NewJoin(benchValues(200))
	p := j.Stream()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		for i := 0; i < len(data); i += 4096 {
			p.Write(data[i : i+4096])
		}
	}
}
