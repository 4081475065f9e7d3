package audit

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
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

// BenchmarkShow asks a log of GUARD_BENCH_RECORDS records (a million if it is not set)
// for what a person would ask.
func BenchmarkShow(b *testing.B) {
	n := 1_000_000
	if s := os.Getenv("GUARD_BENCH_RECORDS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	dir := b.TempDir()
	l := open(b, dir)
	recs := make([]Record, maxGroup)
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := 0; i < n; i += len(recs) {
		for k := range recs {
			j := i + k
			at := began.Add(time.Duration(j) * time.Second)
			r := Record{
				Time: at, Type: TypeUse, Credential: fmt.Sprintf("github-%d", j/2%200), Session: fmt.Sprintf("20260101-%06d", j/2000),
				Context: fmt.Sprintf("client-%d/dev", j/2000%50), Channel: "http", Task: "fix the login page", PID: 4000 + j%1000, Exe: "/usr/bin/node",
				Host: "api.github.com", Method: "GET", Path: fmt.Sprintf("/repos/o/r/issues/%d", j), Decision: "pass", Rule: "--allow github-pat", Scope: "read",
			}
			if j%2 == 1 {
				r.Type, r.Of, r.Result, r.DurationMS, r.Wiped = TypeResult, uint64(j), "200", 51.25, true
			}
			if j%10007 == 0 {
				r.Type, r.Decision, r.Of = TypeLeak, "block", 0
			}
			recs[k] = clean(r)
		}
		if _, _, err := l.write(recs[:min(len(recs), n-i)]); err != nil {
			b.Fatal(err)
		}
	}
	began2 := time.Now()
	if err := l.Index(); err != nil {
		b.Fatal(err)
	}
	b.Logf("%d records, %d bytes each; indexed in %v", n, l.at.bytes/int64(n), time.Since(began2))
	mustClose(b, l)
	for _, c := range []struct {
		name string
		f    Filter
	}{
		{"credential", Filter{Credential: "github-77", Last: 1000}},
		{"session", Filter{Session: fmt.Sprintf("20260101-%06d", n/4000)}},
		{"context", Filter{Context: "client-7", Last: 1000}},
		{"since", Filter{Since: began.Add(time.Duration(n-2000) * time.Second)}},
		{"decision", Filter{Decision: "block"}},
		{"last", Filter{Last: 1000}},
	} {
		b.Run(c.name, func(b *testing.B) {
			shown := 0
			for b.Loop() {
				var w countingWriter
				if err := Show(&w, dir, c.f); err != nil || w.lines == 0 {
					b.Fatal(w.lines, err)
				}
				shown = w.lines
			}
			b.ReportMetric(float64(shown), "lines")
		})
	}
	b.Run("verify", func(b *testing.B) {
		for b.Loop() {
			mustVerify(b, dir)
		}
		b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "records/s")
	})
}

type countingWriter struct{ lines int }

func (w *countingWriter) Write(p []byte) (int, error) {
	w.lines += bytes.Count(p, []byte("\n"))
	return len(p), nil
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
