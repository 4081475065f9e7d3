//go:build linux

package screen

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// record runs a program on a terminal of 24 rows and 80 columns, types what keys
// says, each when the program is silent, and returns what it wrote.
func record(t *testing.T, keys []string, name string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if _, err := exec.LookPath(name + ".tiny"); err != nil {
			t.Skipf("%s is not installed", name)
		}
		name += ".tiny"
	}
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "TERM=xterm-256color", "LC_ALL=C.UTF-8", "HOME="+t.TempDir())
	started, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		t.Fatal(err)
	}
	// In the poller, so that reads have a deadline.
	fd, err := unix.FcntlInt(started.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	started.Close()
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	m := os.NewFile(uintptr(fd), "terminal")
	defer m.Close()
	var all bytes.Buffer
	buf := make([]byte, 64<<10)
	silence := func(d time.Duration) bool {
		for end := time.Now().Add(5 * d); ; {
			late := time.Now().Add(d)
			if late.After(end) { // it is never silent
				late = end
			}
			m.SetReadDeadline(late)
			n, err := m.Read(buf)
			all.Write(buf[:n])
			if err != nil {
				return os.IsTimeout(err)
			}
		}
	}
	for _, k := range keys {
		if !silence(150 * time.Millisecond) {
			break
		}
		if _, err := io.WriteString(m, k); err != nil {
			break
		}
	}
	if silence(3 * time.Second) {
		cmd.Process.Kill()
	}
	_ = cmd.Wait()
	return all.Bytes()
}

func textFile(t *testing.T) string {
	file := filepath.Join(t.TempDir(), "text")
	var b strings.Builder
	for i := range 400 {
		fmt.Fprintf(&b, "line %d of a file with words in it, func f(x int) string { return %q } // 漢字 %d\n", i, "text", i*i)
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// What programs write when no value is in it passes byte for byte, however it is
// cut.
func TestCleanOutputIsUnchanged(t *testing.T) {
	file := textFile(t)
	var bar strings.Builder
	for i := range 200 {
		fmt.Fprintf(&bar, "\r\x1b[K\x1b[32m%3d%%\x1b[0m [%s%s] %d/200 items", i/2, strings.Repeat("=", i/5), strings.Repeat(" ", 40-i/5), i)
	}
	var tool strings.Builder // a tool that draws its last lines again and again
	for i := range 60 {
		fmt.Fprintf(&tool, "\x1b[?2026h\x1b[2K\x1b[1A\x1b[2K\x1b[1A\x1b[2K\x1b[G┌──────┐\r\n│ %4d │\r\n└──────┘\x1b[?2026l", i)
		if i%7 == 0 {
			tool.WriteString("\r\nsome output\r\n\r\n\r\n")
		}
	}
	outputs := map[string][]byte{
		"bar": []byte(bar.String()), "tool": []byte(tool.String()),
		"lines": []byte(strings.Repeat("\x1b[1mname\x1b[m  12.3\t ✓ done\r\n", 3000)),
		"modes": []byte("\x1b[?1049h\x1b[?2004h\x1b[?1006h\x1b[?1003h\x1b]0;title\x07\x1b]8;;https://example.com/a\x1b\\link\x1b]8;;\x1b\\\x1b]52;c;aGVsbG8=\x07" +
			"\x1bPq#0;2;0;0;0#0~~@@vv@@~~$-\x1b\\\x1b_Gf=24,s=1,v=1;AAAA\x1b\\\x1b[?2026h\x1b[5;10r\x1b[?69h\x1b[3;40s\x1b[?6h\x1b[Habc\x1b[?6l\x1b[?69l\x1b[r\x1b[?2026l\x1b[?25h\x1b[>1u\x1b[<u\x1b[?1049l"),
		"repeat": []byte("\x1b[H\x1b[2Jx\x1b[20b\r\n-\x1b[300b\r\nfull" + strings.Repeat("=\x1b[79b\x1b[K\r\n", 40)),
	}
	for _, p := range []struct {
		name string
		keys []string
		args []string
	}{
		{"vim", []string{"", "20Gdd", "ihello\x1b", ":set number\r", "\x06", ":sp\r", "G", "\x15", "/line 3\r", ":q!\r", ":q!\r"}, []string{"-u", "NONE", "-n", file}},
		{"less", []string{" ", " ", "b", "/line 200\r", "G", "g", "q"}, []string{file}},
		{"top", []string{"1", "c", "q"}, []string{"-d", "0.1"}},
	} {
		t.Run(p.name, func(t *testing.T) { unchanged(t, record(t, p.keys, p.name, p.args...)) })
	}
	for name, b := range outputs {
		t.Run(name, func(t *testing.T) { unchanged(t, b) })
	}
}

func unchanged(t *testing.T, b []byte) {
	t.Helper()
	if len(b) < 50 {
		t.Fatalf("only %q was recorded", b)
	}
	for _, n := range []int{1, 7, 100, 4096, len(b)} {
		s := New(24, 80, finder(value), redact)
		f := s.Wrap(passAll)
		var got bytes.Buffer
		for i := 0; i < len(b); i += n {
			out, _ := f(b[i:min(i+n, len(b))], 0)
			got.Write(out)
		}
		out, _ := f(nil, 2)
		got.Write(out)
		if !bytes.Equal(got.Bytes(), b) {
			i := 0
			for i < len(b) && i < got.Len() && got.Bytes()[i] == b[i] {
				i++
			}
			t.Fatalf("in pieces of %d: changed at %d: %q, was %q", n, i, got.Bytes()[max(0, i-30):min(got.Len(), i+60)], b[max(0, i-30):min(len(b), i+60)])
		}
	}
}
