//go:build linux && (amd64 || arm64)

package bpf

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What a write to /dev/null costs a watched process. "off": nobody watches. One
// secret is ten needles, as its encodings are. Where there is BPF LSM, also what it costs
// to be asked before.
func BenchmarkWrite(b *testing.B) {
	vias := []string{Tracepoint}
	for _, via := range []string{LSM, FmodRet} {
		if probed().Has(via) {
			vias = append(vias, via)
		}
	}
	secrets := []int{0, 10, 200, 1000}
	sizes := []int{1, 64, 1 << 10, 4 << 10, 64 << 10, 1 << 20}
	if os.Getpid() == 1 { // emulated: what counts is how they compare
		secrets = []int{0, 200, 1000}
		sizes = []int{1, 64, 4 << 10, 64 << 10}
	}
	noise := random(1 << 20)
	run := func(name string, jobs func(b *testing.B) *watch) {
		for _, size := range sizes {
			b.Run(fmt.Sprintf("%s/%dB", name, size), func(b *testing.B) {
				w := jobs(b)
				b.SetBytes(int64(size))
				b.ResetTimer()
				w.order(job{Op: "bench", N: b.N, Calls: [][][]byte{{noise[:size]}}})
			})
		}
	}
	run("off", func(b *testing.B) *watch {
		w := &watch{t: b}
		w.cmd, w.jobs, w.reply, _ = start(b)
		return w
	})
	for _, via := range vias {
		for _, n := range secrets {
			var needles []Needle
			for i := range n * 10 {
				needles = append(needles, needle(uint32(i), random(40)))
			}
			b.Run(fmt.Sprintf("%s/%dsecrets", via, n), func(b *testing.B) {
				w := newWatch(b, needles, Options{Refuse: via != Tracepoint, via: via})
				for _, size := range sizes {
					b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
						b.SetBytes(int64(size))
						w.order(job{Op: "bench", N: b.N, Calls: [][][]byte{{noise[:size]}}})
					})
				}
			})
		}
	}
}

// What a needle that is shorter than the full stride allows costs.
func BenchmarkShortNeedles(b *testing.B) {
	noise := random(4096)
	for _, n := range []int{15, 11, 9, 8} {
		b.Run(fmt.Sprintf("%dB", n), func(b *testing.B) {
			w := newWatch(b, []Needle{needle(1, random(n))}, Options{})
			b.SetBytes(4096)
			b.ResetTimer()
			w.order(job{Op: "bench", N: b.N, Calls: [][][]byte{{noise}}})
		})
	}
}

// From the kernel's finding a needle to the event in the hands of who reads.
func BenchmarkLeakToEvent(b *testing.B) {
	secret := random(40)
	w := newWatch(b, []Needle{needle(1, secret)}, Options{})
	var took []time.Duration
	for b.Loop() {
		if err := w.jobs.Encode(job{Op: "write", To: "null", Calls: [][][]byte{{secret}}}); err != nil {
			b.Fatal(err)
		}
		e, err := w.d.Read()
		if err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(e.At))
		if _, err := w.reply.ReadString('\n'); err != nil {
			b.Fatal(err)
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
}

// What a call that does not write costs the rest of the machine.
func BenchmarkOtherCalls(b *testing.B) {
	for _, on := range []bool{false, true} {
		b.Run(fmt.Sprintf("watching=%v", on), func(b *testing.B) {
			if on {
				newWatch(b, nil, Options{})
			}
			for b.Loop() {
				unix.Getppid()
			}
		})
	}
}

// What a session waits for at its start and at its end.
func BenchmarkOpenClose(b *testing.B) {
	for _, via := range []string{Tracepoint, LSM, FmodRet} {
		if !probed().Has(via) {
			continue
		}
		b.Run(via, func(b *testing.B) {
			var opening, closing time.Duration
			for b.Loop() {
				start := time.Now()
				d, err := OpenDetector(Options{PIDNamespace: 1, Refuse: via != Tracepoint, via: via})
				if err != nil {
					b.Fatal(err)
				}
				opened := time.Now()
				if err := d.Close(); err != nil {
					b.Fatal(err)
				}
				opening, closing = opening+opened.Sub(start), closing+time.Since(opened)
			}
			b.ReportMetric(float64(opening.Milliseconds())/float64(b.N), "ms-open")
			b.ReportMetric(float64(closing.Milliseconds())/float64(b.N), "ms-close")
		})
	}
}

func BenchmarkNewTable(b *testing.B) {
	for _, n := range []int{200, 1000} {
		b.Run(fmt.Sprintf("%dsecrets", n), func(b *testing.B) {
			var needles []Needle
			for i := range n * 10 {
				needles = append(needles, needle(uint32(i), random(40)))
			}
			w := newWatch(b, needles, Options{})
			for b.Loop() {
				if _, err := w.d.SetNeedles(needles); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPrepare has the two parts of OpenDetector, of which a session waits for the second alone if the first ends
// while it is set up.
func BenchmarkPrepare(b *testing.B) {
	canWatch(b)
	var needles []Needle
	for i := range 100 {
		needles = append(needles, needle(uint32(i), random(40)))
	}
	var preparing, least time.Duration
	for b.Loop() {
		start := time.Now()
		p, err := Prepare(Options{})
		if err != nil {
			b.Fatal(err)
		}
		prepared := time.Now()
		d, err := p.Watch(1, needles)
		if err != nil {
			b.Fatal(err)
		}
		watching := time.Since(prepared)
		if took := prepared.Sub(start); preparing == 0 || took < preparing {
			preparing = took
		}
		if least == 0 || watching < least {
			least = watching
		}
		if err := d.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(preparing.Microseconds())/1000, "least-ms-prepare")
	b.ReportMetric(float64(least.Microseconds())/1000, "least-ms-watch")
}
