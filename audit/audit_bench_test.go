package audit

import (
	"slices"
	"sync"
	"testing"
	"time"
)

func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct {
		name    string
		writers int
	}{{"1", 1}, {"64", 64}} {
		b.Run(c.name, func(b *testing.B) {
			l := open(b, b.TempDir())
			var wg sync.WaitGroup
			took := make([][]time.Duration, c.writers)
			b.ResetTimer()
			for w := range c.writers {
				n := b.N / c.writers
				if w < b.N%c.writers {
					n++
				}
				wg.Go(func() {
					for i := range n {
						begin := time.Now()
						if _, err := l.Append(use(i)); err != nil {
							b.Error(err)
							return
						}
						took[w] = append(took[w], time.Since(begin))
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			all := slices.Sorted(slices.Values(slices.Concat(took...)))
			b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
			mustClose(b, l)
		})
	}
}

func big(b *testing.B) (dir string, n int) {
	b.Helper()
	dir, n = b.TempDir(), 20000
	l := open(b, dir)
	recs := make([]Record, maxGroup)
	for i := 0; i < n; i += len(recs) {
		for k := range recs {
			recs[k] = clean(use(i + k))
		}
		if _, _, err := l.write(recs[:min(len(recs), n-i)]); err != nil {
			b.Fatal(err)
		}
	}
	mustClose(b, l)
	return dir, n
}

func BenchmarkVerify(b *testing.B) {
	dir, n := big(b)
	for b.Loop() {
		if r := mustVerify(b, dir); int(r.Records) != n {
			b.Fatal(r)
		}
	}
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "records/s")
}

func BenchmarkReadFilter(b *testing.B) {
	dir, n := big(b)
	for b.Loop() {
		if got := records(b, dir, Filter{Credential: "github-pat-77"}); len(got) != 1 {
			b.Fatal(got)
		}
	}
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "records/s")
}

func BenchmarkOpen(b *testing.B) {
	dir, _ := big(b)
	for b.Loop() {
		mustClose(b, open(b, dir))
	}
}
