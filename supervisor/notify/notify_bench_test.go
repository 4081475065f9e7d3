//go:build linux && (amd64 || arm64)

package notify

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// BenchmarkWrite is what one write to memory costs a program: by itself, handed
// over to a judge that agrees at once, and under strace.
func BenchmarkWrite(b *testing.B) {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{1, 64, 1 << 10, 4 << 10, 64 << 10, 1 << 20} {
		n := strconv.Itoa(min(20000, 2<<30/size))
		report := func(b *testing.B, out string, err error) {
			ns, perr := strconv.ParseFloat(strings.TrimSpace(out), 64)
			if err != nil || perr != nil {
				b.Fatalf("%v, %q", err, out)
			}
			b.ReportMetric(ns, "ns/write")
			b.ReportMetric(0, "ns/op")
		}
		plain := func(b *testing.B, argv ...string) {
			c := exec.Command(argv[0], argv[1:]...)
			c.Env = append(os.Environ(), jobEnv+"=write")
			out, err := c.Output()
			report(b, string(out), err)
		}
		b.Run("none/"+strconv.Itoa(size), func(b *testing.B) { plain(b, self, strconv.Itoa(size), n) })
		b.Run("notify/"+strconv.Itoa(size), func(b *testing.B) {
			out, err, _ := do(b, Options{Judge: func(Write) Verdict { return Allow }}, nil, "write", strconv.Itoa(size), n)
			report(b, out, err)
		})
		b.Run("strace/"+strconv.Itoa(size), func(b *testing.B) {
			if _, err := exec.LookPath("strace"); err != nil {
				b.Skip(err)
			}
			plain(b, "strace", "-f", "-o", "/dev/null", self, strconv.Itoa(size), n)
		})
	}
}
