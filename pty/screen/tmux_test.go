//go:build linux

package screen

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tmux is a terminal of real use: what is sent to it, and what it shows then.
type tmux struct {
	t    *testing.T
	dir  string
	n    int
	sock string
}

func newTmux(t *testing.T) *tmux {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("tmux is not installed")
	}
	dir := t.TempDir()
	x := &tmux{t: t, dir: dir, sock: filepath.Join(dir, "s")}
	t.Cleanup(func() { x.cmd("kill-server") })
	// A server without a session stays for the next one.
	if out, err := x.cmd("start-server", ";", "set", "-g", "exit-empty", "off", ";", "set", "-g", "status", "off", ";", "set", "-g", "history-limit", "1000"); err != nil {
		t.Fatal(err, out)
	}
	return x
}

func (x *tmux) cmd(args ...string) (string, error) {
	c := exec.Command("tmux", append([]string{"-f", "/dev/null", "-S", x.sock}, args...)...)
	c.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TMUX=", "TERM=screen")
	b, err := c.CombinedOutput()
	return string(b), err
}

// show returns the history and the rows that a terminal of this size has after
// all of parts, and after each of them.
func (x *tmux) show(rows, cols int, parts ...string) [][]string {
	x.t.Helper()
	x.n++
	name := fmt.Sprint("w", x.n)
	var script strings.Builder
	script.WriteString("stty raw -echo\n")
	for i, p := range parts {
		file := filepath.Join(x.dir, fmt.Sprint(name, ".", i))
		if err := os.WriteFile(file, []byte(p), 0o600); err != nil {
			x.t.Fatal(err)
		}
		fmt.Fprintf(&script, "cat %s\ntmux -S %s wait-for -S %s.%d\ntmux -S %s wait-for %s.%d.go\n", file, x.sock, name, i, x.sock, name, i)
	}
	file := filepath.Join(x.dir, name+".sh")
	if err := os.WriteFile(file, []byte(script.String()), 0o600); err != nil {
		x.t.Fatal(err)
	}
	if out, err := x.cmd("new-session", "-d", "-s", name, "-x", fmt.Sprint(cols), "-y", fmt.Sprint(rows), "sh "+file); err != nil {
		x.t.Fatal(err, out)
	}
	var shown [][]string
	for i := range parts {
		if out, err := x.cmd("wait-for", fmt.Sprintf("%s.%d", name, i)); err != nil {
			x.t.Fatal(err, out)
		}
		out, err := x.cmd("capture-pane", "-p", "-t", name, "-S", "-", "-N")
		if err != nil {
			x.t.Fatal(err, out)
		}
		l := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		for i := range l {
			l[i] = strings.TrimRight(l[i], " ")
		}
		shown = append(shown, l)
		x.cmd("wait-for", "-S", fmt.Sprintf("%s.%d.go", name, i))
	}
	return shown
}

// The model shows what tmux does.
func TestModelIsLikeTmux(t *testing.T) {
	x := newTmux(t)
	for seed := range uint64(40) {
		r := newRand(seed)
		rows, cols := 4+r.IntN(20), 8+r.IntN(90)
		text := "\x1b[H\x1b[2J" + noise(r, rows, cols, 60, true)
		s := New(rows, cols, none, redact)
		out, _ := s.Wrap(passAll)([]byte(text), 0)
		got := s.current().text()
		want := x.show(rows, cols, string(out))[0]
		want = want[max(0, len(want)-rows):]
		if strings.Join(got, "\n") != strings.Join(want, "\n") && !s.among(want) {
			t.Fatalf("seed %d: %dx%d %q\n got %q\nwant %q", seed, rows, cols, text, got, want)
		}
	}
}
