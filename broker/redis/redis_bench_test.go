package redis

import (
	"fmt"
	"io"
	"net"
	osexec "os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"guard"
	"guard/matcher"
)

// finder is a filter as dear as a session's.
type finder struct {
	st   *matcher.Stream
	held []byte
	rel  int64
	out  int
}

func (f *finder) filter(p []byte, s guard.Step) ([]byte, guard.Decision) {
	f.held = f.held[:copy(f.held, f.held[f.out:])]
	f.held = append(f.held, p...)
	hits, safe := f.st.Write(p)
	if s == guard.End {
		hits = append(hits, f.st.Close()...)
	}
	if len(hits) > 0 {
		return nil, guard.Decision{Action: guard.Block}
	}
	if end := f.rel + int64(len(f.held)); s == guard.End || s == guard.Pause && end-safe < 8 {
		safe = end
	}
	f.out = int(max(0, safe-f.rel))
	f.rel += int64(f.out)
	return f.held[:f.out], guard.Decision{Action: guard.Pass}
}

// realLine has such filters both ways: for 20 values of a session, and for the one
// that was sent.
func realLine(b *testing.B, w *world) {
	var values []guard.Value
	for i := range 20 {
		values = append(values, guard.Value{ID: guard.SecretID{Context: "c", Name: fmt.Sprint("v", i), Version: 1}, Secret: guard.NewSecret([]byte(fmt.Sprintf("value-%02d-of-the-session-0a1b2c3d", i)))})
	}
	all, err := matcher.New(values)
	must(b, err)
	one, err := matcher.New([]guard.Value{{ID: guard.SecretID{Name: "cache"}, Secret: guard.NewSecret([]byte("value-one-of-the-user"))}})
	must(b, err)
	b.Cleanup(func() { all.Close(); one.Close() })
	w.h.Open = func(guard.Origin) guard.Filter { return (&finder{st: all.Stream()}).filter }
	w.h.Scrub = func([]guard.SecretID) guard.Filter { return (&finder{st: one.Stream()}).filter }
}

// relay copies bytes both ways and looks at none.
func relay(b *testing.B, to string) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(b, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				continue
			}
			both := func() { c.Close(); up.Close() }
			// Without splice, which a broker that reads has not.
			wg.Go(func() { defer both(); io.Copy(struct{ io.Writer }{up}, struct{ io.Reader }{c}) })
			wg.Go(func() { defer both(); io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{up}) })
		}
	})
	b.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().(*net.TCPAddr).Port
}

// BenchmarkRedisBenchmark runs redis-benchmark against the server, through a relay
// and through guard in turns; rps is what counts.
func BenchmarkRedisBenchmark(b *testing.B) {
	srv := startServer(b)
	w := newWorld(b, srv)
	realLine(b, w)
	between := relay(b, srv.addr())
	rps := regexp.MustCompile(`([0-9.]+) requests per second, p50=([0-9.]+)`)
	for _, c := range []struct {
		name string
		args []string
	}{
		{"plain", []string{"-n", "40000", "-c", "50"}},
		{"pipelined16", []string{"-n", "400000", "-c", "50", "-P", "16"}},
		{"pipelined64", []string{"-n", "800000", "-c", "50", "-P", "64", "-d", "64"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			best := map[string][]float64{}
			for range 5 {
				for name, port := range map[string]int{"direct": srv.port, "relay": between, "guard": w.port} {
					out, err := osexec.Command("redis-benchmark", append(c.args, "-q", "-t", "set,get", "-p", strconv.Itoa(port), "--user", realUser, "-a", map[string]string{"direct": "value-one-of-the-user", "relay": "value-one-of-the-user", "guard": holder}[name])...).CombinedOutput()
					must(b, err)
					lines := rps.FindAllStringSubmatch(strings.ReplaceAll(string(out), "\r", "\n"), -1)
					if len(lines) != 2 {
						b.Fatalf("%s", out)
					}
					for i, cmd := range []string{"set", "get"} {
						f, _ := strconv.ParseFloat(lines[i][1], 64)
						best[name+"-"+cmd] = append(best[name+"-"+cmd], f)
					}
				}
			}
			for _, cmd := range []string{"set", "get"} {
				d, g := slices.Max(best["direct-"+cmd]), slices.Max(best["guard-"+cmd])
				b.ReportMetric(d, cmd+"-direct-rps")
				b.ReportMetric(g, cmd+"-guard-rps")
				b.ReportMetric(g/d, cmd+"-ratio")
				b.ReportMetric(g/slices.Max(best["relay-"+cmd]), cmd+"-of-relay")
			}
		})
	}
}

// BenchmarkLatency asks one GET at a time.
func BenchmarkLatency(b *testing.B) {
	srv := startServer(b)
	w := newWorld(b, srv)
	realLine(b, w)
	conns := map[string]*client{"direct": dial(b, srv.port), "guard": dial(b, w.port)}
	conns["direct"].do("AUTH", realUser, "value-one-of-the-user")
	took := map[string][]time.Duration{}
	for _, c := range conns {
		c.SetDeadline(time.Time{})
	}
	for range 20000 {
		for name, c := range conns {
			begin := time.Now()
			c.do("GET", "k")
			took[name] = append(took[name], time.Since(begin))
		}
	}
	for name, t := range took {
		slices.Sort(t)
		b.ReportMetric(float64(t[len(t)/2].Microseconds()), name+"-p50-us")
		b.ReportMetric(float64(t[len(t)*99/100].Microseconds()), name+"-p99-us")
	}
}

// BenchmarkIdle is what a connection costs that was used once.
func BenchmarkIdle(b *testing.B) {
	srv := startServer(b)
	w := newWorld(b, srv)
	realLine(b, w)
	dial(b, w.port).want("+PONG", "PING")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const n = 500
	for range n {
		dial(b, w.port).want("+PONG", "PING")
	}
	for range 4 { // stacks shrink by half at a time
		runtime.GC()
	}
	runtime.ReadMemStats(&after)
	// The client's side is in it: a bufio.Reader of 4 KiB each.
	b.ReportMetric(float64(after.HeapInuse+after.StackInuse-before.HeapInuse-before.StackInuse)/n-4096, "B/conn")
}
