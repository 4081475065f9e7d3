package sandbox

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

// The agent's uid owns the socket, and it can be neither taken away nor replaced, nor made
// useless to others, in any way that is known: nor by those of a namespace of its own.
func TestUnixSocketCannotBeTakenAway(t *testing.T) {
	w := newWorld(t)
	w.c.Unix = []string{"/run/guard/test.sock", "/run/alone.sock"}
	w.c.Files = append(w.c.Files, File{Path: "/run/guard/other.pem", Content: []byte("other\n")})
	r, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w.c.Stdout, w.c.Stderr = wr, wr
	s := w.start(t, "python3", "-c", `
import ctypes, os, socket, subprocess
libc = ctypes.CDLL(None, use_errno=True)
def must(r):
    if r != 0: raise OSError(ctypes.get_errno(), "")
def bind(p):
    socket.socket(socket.AF_UNIX).bind(p)
attacks = {}
for p in ["/run/guard/test.sock", "/run/alone.sock"]:
    attacks.update({
        "unlink " + p: lambda p=p: os.unlink(p),
        "rename " + p: lambda p=p: os.rename(p, "/run/away"),
        "rename over " + p: lambda p=p: (open("/run/mine", "w").close(), os.rename("/run/mine", p)),
        "chmod " + p: lambda p=p: os.chmod(p, 0),
        "chown " + p: lambda p=p: os.chown(p, os.getuid(), os.getgid()),
        "bind " + p: lambda p=p: bind(p),
        "umount " + p: lambda p=p: must(libc.umount2(p.encode(), 2)),
    })
attacks.update({
    "rename the folder": lambda: os.rename("/run/guard", "/run/gone"),
    "exchange the folder": lambda: (os.mkdir("/run/x"), must(libc.syscall(316 if os.uname().machine == "x86_64" else 276, -100, b"/run/x", -100, b"/run/guard", 2))),
    "remove the folder": lambda: os.rmdir("/run/guard"),
    "chmod the folder": lambda: os.chmod("/run/guard", 0),
    "bind beside": lambda: bind("/run/guard/false.sock"),
    "unlink the file": lambda: os.unlink("/run/guard/other.pem"),
    "umount the folder": lambda: must(libc.umount2(b"/run/guard", 2)),
    "mount over": lambda: must(libc.mount(b"none", b"/run/guard", b"tmpfs", 0, None)),
    "remount": lambda: must(libc.mount(b"none", b"/run/guard", None, 32 | 4096, None)),
    "rename /run": lambda: os.rename("/run", "/run2"),
})
for name, f in attacks.items():
    try:
        f()
        print("done:", name)
    except OSError as e:
        pass
print(len(attacks), "tried")
subprocess.run(["unshare", "-Urm", "sh", "-c", "umount /run/guard/test.sock; umount -l /run/guard; rm -f /run/guard/test.sock /run/alone.sock; mount -o remount,rw /run/guard; rm -f /run/guard/test.sock; mv /run/guard /run/gone"], stderr=subprocess.DEVNULL)
print(open("/run/guard/other.pem").read(), end="")
for p in ["/run/guard/test.sock", "/run/alone.sock"]:
    c = socket.socket(socket.AF_UNIX)
    c.connect(p)
    print(c.makefile().read())
`)
	wr.Close()
	var wg sync.WaitGroup
	for _, path := range w.c.Unix {
		wg.Go(func() {
			c, err := s.Unix[path].Accept()
			if err != nil {
				return
			}
			if c.(*UnixConn).Peer() <= 0 {
				t.Error("nobody has connected")
			}
			io.WriteString(c, "answer")
			c.Close()
		})
	}
	out, _ := io.ReadAll(r)
	last(t, s)
	for _, l := range s.Unix {
		l.Close()
	}
	wg.Wait()
	if want := "24 tried\nother\nanswer\nanswer\n"; string(out) != want {
		t.Errorf("the agent could: %q, want %q", out, want)
	}
}
