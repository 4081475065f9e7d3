package postgres

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"guard"
	"guard/matcher"
	"guard/rotate/rotatetest"
)

// cpu is the time that this process spent, all threads, both modes.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// relayTo copies bytes and looks at none: the least that anything between client and
// server costs.
func relayTo(b *testing.B, port int) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(b, err)
	var wg sync.WaitGroup
	b.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				up, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
				if err != nil {
					c.Close()
					return
				}
				var both sync.WaitGroup
				// Read and write, not splice, which looks at nothing and so cannot be compared.
				both.Go(func() { _, _ = io.Copy(struct{ io.Writer }{up}, struct{ io.Reader }{c}); up.Close() })
				both.Go(func() { _, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{up}); c.Close() })
				both.Wait()
			})
		}
	})
	return l.Addr().(*net.TCPAddr).Port
}

// searching is a filter that looks for 50 values as a session does.
func searching(b *testing.B) guard.OpenFilter {
	var values []guard.Value
	for i := range 50 {
		values = append(values, guard.Value{ID: guard.SecretID{Name: fmt.Sprint("s", i)}, Secret: guard.NewSecret(fmt.Appendf(nil, "Qz%dxKv%08dPwLmTr%dYh", i, i*7919, i*31))})
	}
	m, err := matcher.New(values)
	must(b, err)
	b.Cleanup(func() { m.Close() })
	return func(guard.Origin) guard.Filter {
		st := m.Stream()
		var held []byte
		released, spent := int64(0), 0
		return func(p []byte, s guard.Step) ([]byte, guard.Decision) {
			held = append(held[:copy(held, held[spent:])], p...)
			hits, safe := st.Write(p)
			end := released + int64(len(held))
			if len(hits) > 0 {
				return nil, guard.Decision{Action: guard.Block}
			}
			if s == guard.End || s == guard.Pause && end-safe < 8 {
				safe = end
			}
			spent = int(max(0, safe-released))
			released += int64(spent)
			return held[:spent], guard.Decision{Action: guard.Pass}
		}
	}
}

// BenchmarkPgbench runs pgbench against the server, through a relay that only copies,
// and through guard, in turns; tps is what counts, and us-cpu, what a transaction
// costs this process. ms is the mean latency of one client alone.
func BenchmarkPgbench(b *testing.B) {
	srv := rotatetest.StartPostgres(b, "log_statement=none")
	w := newWorld(b, srv)
	w.h.Open = searching(b)
	must(b, srv.Exec(`GRANT CREATE ON SCHEMA public TO `+realUser))
	run := func(b *testing.B, port int, args ...string) []byte {
		cmd := exec.Command("/usr/bin/pgbench", append(args, "-h", "127.0.0.1", "-p", strconv.Itoa(port), "-U", realUser, "postgres")...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PGPASSWORD=value-one-of-the-role", "PGSSLMODE=disable"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		return out
	}
	run(b, w.port, "-i", "-q")
	tps, done := regexp.MustCompile(`tps = ([0-9.]+)`), regexp.MustCompile(`processed: ([0-9]+)`)
	number := func(r *regexp.Regexp, out []byte) float64 {
		f, err := strconv.ParseFloat(string(r.FindSubmatch(out)[1]), 64)
		must(b, err)
		return f
	}
	relay := relayTo(b, srv.Port)
	for _, mode := range []struct {
		name string
		args []string
	}{
		{"select-prepared", []string{"-S", "-M", "prepared"}},
		{"select-simple", []string{"-S"}},
		{"tpcb-simple", nil},
		{"tpcb-prepared", []string{"-M", "prepared"}},
	} {
		for _, c := range []struct {
			name string
			port int
		}{{"direct", srv.Port}, {"relay", relay}, {"guard", w.port}} {
			b.Run(mode.name+"/"+c.name, func(b *testing.B) {
				args := append([]string{"-n", "-c", "4", "-j", "2", "-T", "2"}, mode.args...)
				before := cpu()
				out := run(b, c.port, args...)
				b.ReportMetric(float64((cpu()-before).Microseconds())/number(done, out), "us-cpu")
				b.ReportMetric(number(tps, out), "tps")
				one := run(b, c.port, append([]string{"-n", "-c", "1", "-t", "1500"}, mode.args...)...)
				b.ReportMetric(number(regexp.MustCompile(`latency average = ([0-9.]+)`), one), "ms")
			})
		}
	}
}

// BenchmarkIdle reports what a connection that does nothing holds of memory, both
// sides and their buffers, in KiB.
func BenchmarkIdle(b *testing.B) {
	srv := rotatetest.StartPostgres(b, "log_statement=none", "max_connections=120")
	w := newWorld(b, srv)
	w.h.Open = searching(b)
	const n = 100
	held := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	hello, err := (&pgproto3.StartupMessage{ProtocolVersion: 196608, Parameters: map[string]string{"user": "agent", "database": "postgres"}}).Encode(nil)
	must(b, err)
	before := held()
	for range n {
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(w.port)))
		must(b, err)
		defer c.Close()
		_, err = c.Write(hello)
		must(b, err)
		for got := []byte(nil); !bytes.HasSuffix(got, []byte("Z\x00\x00\x00\x05I")); {
			p := make([]byte, 4096)
			k, err := c.Read(p)
			must(b, err)
			got = append(got, p[:k]...)
		}
	}
	b.ReportMetric(float64(held()-before)/n/1024, "KiB")
}
