//go:build linux

package sandbox

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Sockets with names that do not say where they are, and pipes with names.
func TestSocketsByOtherNames(t *testing.T) {
	w := newWorld(t)
	dirs := []string{w.dir, filepath.Join(w.dir, "deep", "er")}
	if os.Geteuid() == 0 {
		d, err := os.MkdirTemp("/var/lib", "guard-test-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(d)
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, d)
	}
	var args []string
	listen := func(dir, name string) {
		t.Helper()
		l, err := net.Listen("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		if err := os.Chmod(name, 0o777); err != nil {
			t.Fatal(err)
		}
		args = append(args, "unix:"+filepath.Join(dir, filepath.Base(name)))
	}
	rename := func(to string) {
		t.Helper()
		last := &args[len(args)-1]
		from := strings.TrimPrefix(*last, "unix:")
		*last = "unix:" + filepath.Join(filepath.Dir(from), to)
		if err := os.Rename(from, strings.TrimPrefix(*last, "unix:")); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Chdir(dir)
		listen(dir, filepath.Join(dir, "moved"))
		rename("moved to")
		if dir == dirs[len(dirs)-1] { // where this process stays
			listen(dir, "relative one")
			listen(dir, "./relative")
			rename("renamed")
		}
	}
	// One that only the caller's walk finds.
	hidden := filepath.Join(w.dir, "walked")
	os.Mkdir(hidden, 0o755)
	listen(w.dir, filepath.Join(w.dir, "from"))
	if err := os.Rename(filepath.Join(w.dir, "from"), filepath.Join(hidden, "to")); err != nil {
		t.Fatal(err)
	}
	args[len(args)-1] = "unix:" + filepath.Join(hidden, "to")
	fifo := filepath.Join(w.dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w.c.Sockets = []string{filepath.Join(hidden, "to"), fifo, filepath.Join(w.dir, "gone")}
	w.holds(t, "connect", args...)
	if out, e := w.run(t, "sh", "-c", "echo out >"+fifo); e.Code == 0 {
		t.Errorf("wrote to a pipe of the host: %s", out)
	}
	// Without the list the attack works: it is not held by something else.
	w.c.Sockets = nil
	if out, _ := w.run(t, w.attack("connect", args[len(args)-1])...); !strings.Contains(out, "BROKEN") {
		t.Errorf("the attack does not work: %s", out)
	}
	// And one that is shared on purpose is there.
	w.c.Writable = append(w.c.Writable, strings.TrimPrefix(args[0], "unix:"))
	if out, _ := w.run(t, w.attack("connect", args[0])...); !strings.Contains(out, "BROKEN: got <nil>") {
		t.Errorf("a socket that is shared: %s", out)
	}
}

func TestUnixName(t *testing.T) {
	for line, want := range map[string]string{
		"0000000000000000: 00000002 00000000 00010000 0001 01 12345 /run/a b":  "/run/a b",
		"0000000000000000: 00000002 00000000 00010000 0001 01   345  lead":     " lead",
		"0000000000000000: 00000003 00000000 00000000 0001 03 27915":           "",
		"0000000000000000: 00000002 00000000 00010000 0001 01 12345 @abstract": "@abstract",
		"0000000000000000: 00000002 00000000 00010000 0001 01 12345 ./\xff":    "./\xff",
		"": "",
	} {
		if got := unixName(line); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}
