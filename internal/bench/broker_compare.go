//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// driven is a client that drive runs in, by one way to the server.
type driven struct {
	b   *bench
	way way
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (b *bench) drive(w way) *driven {
	cmd := b.command(w.under, b.self, "drive", w.addr)
	if !w.under {
		cmd.Env = append(slices.Clone(cmd.Env), "SSL_CERT_FILE="+filepath.Join(b.work, "roots.pem"))
	}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	b.must(err)
	out, err := cmd.StdoutPipe()
	b.must(err)
	b.must(cmd.Start())
	if w.under {
		w.pid = cmd.Process.Pid
	}
	return &driven{b: b, way: w, cmd: cmd, in: in, out: bufio.NewReader(out)}
}

func (d *driven) close() {
	d.b.must(d.in.Close())
	_, err := io.Copy(io.Discard, d.out)
	d.b.must(err)
	d.b.must(d.cmd.Wait())
}

// took is what drive answers, and what the proxy's processors did for it.
type took struct{ all, p50, p99, cpu time.Duration }

func (d *driven) do(line string) (t took) {
	before := d.b.cpu(d.way.pid)
	_, err := io.WriteString(d.in, line+"\n")
	d.b.must(err)
	answer, err := d.out.ReadString('\n')
	d.b.must(err)
	t.cpu = d.b.cpu(d.way.pid) - before
	f := strings.Fields(strings.ReplaceAll(answer, ",", ""))
	for i, to := range []*time.Duration{&t.all, &t.p50, &t.p99} {
		*to, err = time.ParseDuration(f[i])
		d.b.must(err)
	}
	return t
}

// cpu is the processor time of process pid so far (proc_pid_stat(5)), in ticks of
// 10 ms; 0 for no process.
func (b *bench) cpu(pid int) time.Duration {
	if pid == 0 {
		return 0
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	b.must(err)
	f := strings.Fields(string(stat)[strings.LastIndexByte(string(stat), ')')+1:])
	user, err := strconv.ParseInt(f[11], 10, 64)
	b.must(err)
	sys, err := strconv.ParseInt(f[12], 10, 64)
	b.must(err)
	return time.Duration(user+sys) * 10 * time.Millisecond
}

// ways are what is compared.
func (b *bench) ways() []way {
	plain, pid := b.startPlain()
	ws := []way{{name: "direct", addr: b.server}, {name: "guard", under: true, addr: "-"}, {name: "plain Go reverse proxy", addr: plain, pid: pid}}
	if addr, pid := b.startMitm(); addr != "" {
		ws = append(ws, way{name: "mitmproxy", addr: addr, pid: pid})
	}
	return ws
}

// kinds are loads of small requests.
var kinds = []struct {
	name     string
	conns    int
	version  int
	requests int
	use      int
}{
	{"1 connection, HTTP/1.1", 1, 1, 2000, 0},
	{"16", 16, 1, 6000, 0},
	{"64", 64, 1, 6000, 0},
	{"1 connection, HTTP/2", 1, 2, 2000, 0},
	{"16", 16, 2, 6000, 0},
	{"64", 64, 2, 6000, 0},
	{"16, HTTP/1.1, with a credential", 16, 1, 4000, 1},
}

// brokers compares the broker with a direct connection, Go's own reverse proxy and
// mitmproxy, each in turn, three times.
func (b *bench) brokers() {
	ws := b.ways()
	const rounds, big = 3, 256 << 20
	got := make([][][]took, len(kinds)+2) // by kind, way, round
	for i := range got {
		got[i] = make([][]took, len(ws))
	}
	for range rounds {
		for w, way := range ws {
			d := b.drive(way)
			for k, kind := range kinds {
				n := kind.requests
				if way.name == "mitmproxy" {
					n /= 4
				}
				line := func(n int) string { return fmt.Sprintf("load %d %d %d %d", kind.conns, kind.version, n, kind.use) }
				d.do(line(4 * kind.conns)) // connections are made
				t := d.do(line(n))
				t.all, t.cpu = t.all*1000/time.Duration(n), t.cpu*1000/time.Duration(n) // for 1,000
				got[k][w] = append(got[k][w], t)
			}
			for k, what := range []string{"download", "upload"} {
				got[len(kinds)+k][w] = append(got[len(kinds)+k][w], d.do(fmt.Sprint(what, " ", big)))
			}
			d.close()
		}
	}
	mid := func(k, w int, f func(took) time.Duration) time.Duration {
		var all []time.Duration
		for _, t := range got[k][w] {
			all = append(all, f(t))
		}
		return median(all)
	}
	fmt.Printf("\n| small requests, median of %d rounds | way | requests/s | p50 | p99 | CPU seconds of the proxy for 1,000 |\n|---|---|---|---|---|---|\n", rounds)
	for k, kind := range kinds {
		for w, way := range ws {
			fmt.Printf("| %s | %s | %.0f | %s | %s | %.3f |\n", kind.name, way.name, 1000/mid(k, w, func(t took) time.Duration { return t.all }).Seconds(),
				us(mid(k, w, func(t took) time.Duration { return t.p50 })), us(mid(k, w, func(t took) time.Duration { return t.p99 })), mid(k, w, func(t took) time.Duration { return t.cpu }).Seconds())
		}
	}
	fmt.Printf("\n| 256 MiB, median of %d rounds | way | MB/s | CPU seconds of the proxy for 1 GB |\n|---|---|---|---|\n", rounds)
	for k, what := range []string{"download", "upload"} {
		for w, way := range ws {
			fmt.Printf("| %s | %s | %.0f | %.2f |\n", what, way.name, float64(big)/1e6/mid(len(kinds)+k, w, func(t took) time.Duration { return t.all }).Seconds(),
				mid(len(kinds)+k, w, func(t took) time.Duration { return t.cpu }).Seconds()*1e9/big)
		}
	}
	b.idleMemory(ws)
	b.large()
}

// idleMemory is what a connection costs that nothing is asked on, with the one to
// the server that it led to.
func (b *bench) idleMemory(ws []way) {
	const n = 1000
	for _, w := range ws[1:] {
		d := b.drive(w)
		d.do("idle 1")
		one := b.memory(d.way.pid, "VmRSS")
		d.do(fmt.Sprint("idle ", n))
		many := b.memory(d.way.pid, "VmRSS")
		d.close()
		fmt.Printf("\n%s: resident memory %.1f MiB with 1 idle connection, %.1f MiB with %d: %.0f KiB for each.\n", w.name, float64(one)/(1<<20), float64(many)/(1<<20), n+1, float64(many-one)/n/1024)
	}
}

// large is a body of 5 GiB in each direction, and the most memory that guard took.
func (b *bench) large() {
	for _, what := range []string{"download", "upload"} {
		d := b.drive(way{under: true, addr: "-"})
		t := d.do(fmt.Sprint(what, " ", int64(5)<<30))
		fmt.Printf("%s of 5 GiB: %.0f MB/s, guard's resident memory at most %.1f MiB.\n", what, float64(5<<30)/1e6/t.all.Seconds(), float64(b.memory(d.way.pid, "VmHWM"))/(1<<20))
		d.close()
	}
}
