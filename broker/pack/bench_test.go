package pack

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"guard"
	"guard/internal/testutil"
	"guard/matcher"
)

// BenchmarkPack is what the inspection of a push costs, in bytes that its files
// have: 2,000 files of 10 kB that are stored whole, and 200 versions of each of ten
// as deltas.
func BenchmarkPack(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	text := func(n int) string {
		var s strings.Builder
		for s.Len() < n {
			fmt.Fprintf(&s, "line %d of %x\n", r.IntN(1000), r.Uint32())
		}
		return s.String()[:n]
	}
	const size = 10000
	whole, deltas := &testutil.Packfile{}, &testutil.Packfile{}
	for range 2000 {
		whole.Blob(text(size))
	}
	for range 10 {
		base := text(size)
		at := deltas.Add(3, nil, []byte(base), size)
		for range 199 {
			d := delta(size, size, [2]int{0, 4000}, text(100), [2]int{4100, size - 4100})
			at2 := deltas.Add(6, ofs(deltas.Len()-at), d, len(d))
			at = at2
		}
	}
	m, err := matcher.New([]guard.Value{{ID: guard.SecretID{Name: "x"}, Secret: guard.NewSecret([]byte(value))}})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	for name, p := range map[string]*testutil.Packfile{"whole": whole, "deltas": deltas} {
		b.Run(name, func(b *testing.B) {
			s := spooled(b, p)
			defer s.Close()
			b.SetBytes(int64(p.N) * size)
			for b.Loop() {
				err := (&pack{src: s, size: s.Size(), hash: 20}).each(func(byte, string) guard.Filter {
					st := m.Stream()
					return func(p []byte, step guard.Step) ([]byte, guard.Decision) {
						st.Write(p)
						if step == guard.End {
							st.Close()
						}
						return p, guard.Decision{Action: guard.Pass}
					}
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
