package audit

import (
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// BenchmarkUse appends what a use of a credential does, its record and its result's, by
// 16 writers: to the disk, and to memory, where the processor's time alone counts.
func BenchmarkUse(b *testing.B) {
	dirs := map[string]string{"disk": b.TempDir()}
	if d, err := os.MkdirTemp("/dev/shm", "guard-test-"); err == nil {
		defer os.RemoveAll(d)
		dirs["memory"] = d
	}
	for name, dir := range dirs {
		b.Run(name, func(b *testing.B) {
			l := open(b, b.TempDir())
			if name == "memory" {
				mustClose(b, l)
				l = open(b, dir+"/"+b.Name()[len("BenchmarkUse/"):]+time.Now().Format("150405.000000000"))
			}
			var before, after syscall.Rusage
			var wg sync.WaitGroup
			syscall.Getrusage(syscall.RUSAGE_SELF, &before)
			b.ReportAllocs()
			b.ResetTimer()
			const writers = 16
			for w := range writers {
				wg.Go(func() {
					for i := w; i < b.N; i += writers {
						r := fullUse(i)
						seq, err := l.Append(r)
						if err != nil {
							b.Error(err)
							return
						}
						r.Type, r.Of, r.Result, r.Reason, r.Wiped, r.DurationMS, r.Time = TypeResult, seq, "success", "status 200", true, 1.25, time.Time{}
						if _, err := l.Append(r); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			syscall.Getrusage(syscall.RUSAGE_SELF, &after)
			used := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
			b.ReportMetric(float64(used)/float64(b.N)/1000, "cpu-us/use")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "uses/s")
			mustClose(b, l)
		})
	}
}

// fullUse is a use as a session records it.
func fullUse(i int) Record {
	return Record{
		Time: time.Now(), Type: TypeUse, Session: "20260101-abcdef12", Credential: "github-pat", Context: "shop/dev", Profile: "interactive", Task: "fix the login page", Channel: "http",
		PID: 40000 + i%100, Exe: "/usr/bin/node", Host: "api.github.com", Method: "GET", Path: "/repos/o/r/issues/77", Decision: "pass", Rule: "--allow github-pat", Scope: "http:read",
		Version: 1, Fingerprint: "0123456789abcdef", ExeSHA256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", Ancestors: "bash[41] < node[40]",
	}
}
