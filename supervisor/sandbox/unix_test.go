package sandbox

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A socket inside is served from outside, by whoever has its listener; the
// process at its other end is known.
func TestUnixSocketIsHandedOver(t *testing.T) {
	w := newWorld(t)
	const path = "/run/guard/test.sock"
	w.c.Unix = []string{path}
	r, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w.c.Stdout, w.c.Stderr = wr, wr
	s := w.start(t, "python3", "-c", `
import socket
s = socket.socket(socket.AF_UNIX)
s.connect("`+path+`")
s.sendall(b"question\n")
s.shutdown(socket.SHUT_WR)
print(s.makefile().read())
`)
	wr.Close()
	l := s.Unix[path]
	if l == nil {
		t.Fatal("no listener came")
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	pid, exe := c.(*UnixConn).Process()
	q, err := io.ReadAll(c)
	if err != nil || string(q) != "question\n" || pid <= 0 || !strings.HasPrefix(filepath.Base(exe), "python3") {
		t.Errorf("%q from %d, %q: %v", q, pid, exe, err)
	}
	io.WriteString(c, "answer")
	c.Close()
	out, _ := io.ReadAll(r)
	last(t, s)
	if strings.TrimSpace(string(out)) != "answer" {
		t.Errorf("the agent got %q", out)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Errorf("%s is on the host", path)
	}
}

func TestUnixSocketElsewhereIsRefused(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"relative", "/etc/x", "/run/../etc/x", w.c.Dir + "/x", "/run/" + strings.Repeat("x", 120)} {
		c := w.c
		c.Argv, c.Unix = []string{"true"}, []string{path}
		if s, err := Start(t.Context(), c); err == nil {
			s.Close()
			t.Errorf("%s was taken", path)
		} else if Unavailable(err) {
			t.Errorf("%s leads to a weaker tier: %v", path, err)
		}
	}
}
