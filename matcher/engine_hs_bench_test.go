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
	for _, n := range benchSizes {
		m := benchMatcher(b, goName, n)
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
		for _, kind := range benchKinds {
			data := corpus(kind)
			for _, chunk := range benchChunks {
				b.Run(fmt.Sprintf("values=%d/%s/chunk=%d", n, kind, chunk), func(b *testing.B) {
					measure(b, len(data), func() {
						for i := 0; i < len(data); i += chunk {
							err := db.Scan(data[i:i+chunk], scratch, func(uint, uint64, uint64, uint, any) error { return nil }, nil)
							if err != nil {
								b.Fatal(err)
							}
						}
					})
				})
			}
		}
	}
}
