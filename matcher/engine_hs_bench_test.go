//go:build cgo && hyperscan

package matcher

import (
	"fmt"
	"strings"
	"testing"

	"github.com/flier/gohs/hyperscan"
)

// BenchmarkHyperscan: Hyperscan as it is, with every needle in full, one call a
// chunk: what BenchmarkStream is measured against.
func BenchmarkHyperscan(b *testing.B) {
	data := corpus("text")
	for _, n := range []int{10, 200} {
		m := mustNew(b, benchValues(n)...)
		var patterns hyperscan.Patterns
		for i, d := range m.set.needles {
			var e strings.Builder
			for _, c := range d {
				fmt.Fprintf(&e, "\\x%02x", c)
			}
			patterns = append(patterns, &hyperscan.Pattern{Expression: e.String(), Flags: hyperscan.DotAll, Id: i})
		}
		db, err := hyperscan.NewBlockDatabase(patterns...)
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		scratch, err := hyperscan.NewScratch(db)
		if err != nil {
			b.Fatal(err)
		}
		defer scratch.Free()
		for _, chunk := range []int{512, 4 << 10, 64 << 10} {
			b.Run(fmt.Sprintf("values=%d/chunk=%d", n, chunk), func(b *testing.B) {
				b.SetBytes(int64(len(data)))
				for b.Loop() {
					for i := 0; i < len(data); i += chunk {
						err := db.Scan(data[i:i+chunk], scratch, func(uint, uint64, uint64, uint, any) error { return nil }, nil)
						if err != nil {
							b.Fatal(err)
						}
					}
				}
			})
		}
	}
}
