//go:build linux

package sandbox

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// BenchmarkProcess finds who made a new connection, in a session with that many other
// processes: connections of one process that keeps them, and each of a new process.
func BenchmarkProcess(b *testing.B) {
	for _, c := range []struct {
		name    string
		others  int
		program string
	}{
		{"one", 0, "keep = []\nwhile True:\n    c = to(len(keep)); keep.append(c); say(c, os.getpid())\n"},
		{"one, closed", 0, "while True:\n    c = to(0); say(c, os.getpid()); c.close()\n"},
		{"new", 0, "while True:\n    if os.fork() == 0:\n        say(to(0), os.getpid())\n        os._exit(0)\n    os.wait()\n"},
		{"one of 1000", 1000, "keep = []\nwhile True:\n    c = to(len(keep)); keep.append(c); say(c, os.getpid())\n"},
		{"new of 1000", 1000, "while True:\n    if os.fork() == 0:\n        say(to(0), os.getpid())\n        os._exit(0)\n    os.wait()\n"},
		{"each of 1000", 0, `
pipes = []
for k in range(1000):
    r, w = os.pipe()
    if os.fork() == 0:
        os.close(w)
        for p in pipes: os.close(p)
        while True:
            os.read(r, 1)
            say(to(k), os.getpid())
    os.close(r)
    pipes.append(w)
k = 0
while True:
    os.write(pipes[k * 7 % 1000], b".")
    k += 1
    time.sleep(0.003)
`},
	} {
		b.Run(strings.ReplaceAll(c.name, ", ", "-"), func(b *testing.B) {
			w := newWorld(b)
			r, wr, err := os.Pipe()
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			w.c.Stderr = wr
			s := w.start(b, "python3", "-c", ownersPrelude+fmt.Sprintf("for k in range(%d):\n    if os.fork() == 0:\n        time.sleep(10000)\n", c.others)+c.program)
			wr.Close()
			var all time.Duration
			for n := 0; n < b.N; n++ {
				conn, err := s.TCP.Accept()
				if err != nil {
					out, _ := io.ReadAll(r)
					b.Fatal(err, string(out))
				}
				began := time.Now()
				pid, _ := conn.(*Conn).Process()
				all += time.Since(began)
				line, _ := bufio.NewReader(conn).ReadString('\n')
				if fmt.Sprintln(innerPid(pid)) != line {
					b.Fatalf("%d for %q", pid, line)
				}
				conn.Write([]byte("."))
			}
			b.ReportMetric(float64(all.Microseconds())/float64(b.N), "us/conn")
			s.Close()
		})
	}
}
