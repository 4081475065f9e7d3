//go:build linux && (amd64 || arm64)

package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"guard"
)

// outside is a child that no detector knows of.
func outside(t *testing.T) *watch {
	w := &watch{t: t, marker: random(24)}
	w.cmd, w.jobs, w.reply, _ = start(t)
	return w
}

func (w *watch) watched(o Options, needles ...Needle) {
	w.t.Helper()
	o.Needles = w.with(needles)
	w.d = open(w.t, o)
}

func TestScope(t *testing.T) {
	secret := random(30)
	w := newWatch(t, []Needle{needle(1, secret)}, Options{})
	// Not this process, whatever it does.
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	for range 100 {
		if _, err := unix.Write(p[1], secret); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.do(job{}); len(got) != 0 {
		t.Fatalf("a process outside was reported: %+v", got)
	}
	// But what the child starts, in its namespace and in one below.
	for _, op := range []string{"exec", "nested"} {
		got := w.do(job{Op: op, To: "null", Calls: [][][]byte{{secret}}})
		if len(got) != 2 || got[0].Channel != guard.ChannelExec || got[1].PID == w.cmd.Process.Pid || got[1].Comm != "sh" {
			t.Fatalf("%s: %+v", op, got)
		}
	}
}

func TestScopeOfCgroup(t *testing.T) {
	canWatch(t)
	root, err := cgroup2()
	if err != nil {
		t.Fatalf("no cgroup v2 to test with: %v", err)
	}
	dir, err := os.MkdirTemp(root, "guard-test-*")
	if err != nil {
		t.Fatal(err)
	}
	below := dir + "/below"
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd, jobs, reply, _ := start(t)
	t.Cleanup(func() { // after the child moved out: a cgroup with tasks stays
		os.WriteFile(root+"/cgroup.procs", fmt.Append(nil, cmd.Process.Pid), 0)
		if err := errors.Join(os.Remove(below), os.Remove(dir)); err != nil {
			t.Error(err)
		}
	})
	id, err := CgroupID(dir)
	if err != nil {
		t.Fatal(err)
	}
	w := &watch{t: t, cmd: cmd, jobs: jobs, reply: reply, marker: random(20)}
	secret := random(30)
	w.d = open(t, Options{Cgroup: id, Needles: w.with([]Needle{needle(1, secret)})})
	write := job{Op: "write", To: "pipe", Calls: [][][]byte{{secret}}}
	w.order(write)
	for i, d := range []string{dir, below} {
		if err := os.WriteFile(d+"/cgroup.procs", fmt.Append(nil, cmd.Process.Pid), 0); err != nil {
			t.Fatal(err)
		}
		got := w.do(write)
		if len(got) != 1 || (i == 0) != (got[0].Cgroup == id) {
			t.Fatalf("in %s: %+v", d, got)
		}
	}
	if _, err := CgroupID(t.TempDir()); err == nil {
		t.Fatal("a folder that is no cgroup has an ID")
	}
}

// A process that was named, what it starts, and a daemon that left parent,
// session and group behind and gets the value over a socket, masked.
func TestScopeOfProcesses(t *testing.T) {
	secret := random(30)
	w, other := outside(t), outside(t)
	w.watched(Options{Processes: []int{w.cmd.Process.Pid}}, needle(1, secret))
	write := job{Op: "write", To: "pipe", Calls: [][][]byte{{secret}}}
	other.order(write)
	if got := w.do(write); len(got) != 1 || got[0].PID != w.cmd.Process.Pid || got[0].Exe == "" {
		t.Fatalf("%+v", got)
	}
	got := w.do(job{Op: "daemon", Calls: [][][]byte{{secret}}})
	if len(got) != 1 || got[0].PID == w.cmd.Process.Pid || got[0].Name != "null" {
		t.Fatalf("a daemon: %+v", got)
	}
	// What ended is forgotten: its number may be another's next time.
	var tgid, one uint32
	n := 0
	for it := w.d.coll.Maps["members"].Iterate(); it.Next(&tgid, &one); n++ {
		if err := unix.Kill(int(tgid), 0); err != nil {
			t.Errorf("%d is a member: %v", tgid, err)
		}
	}
	if n == 0 {
		t.Error("no members")
	}
}

func TestScopeOfAll(t *testing.T) {
	secret := random(30)
	w, other := outside(t), outside(t)
	w.watched(Options{All: true}, needle(1, secret))
	write := job{Op: "write", To: "pipe", Calls: [][][]byte{{secret}}}
	// Not this process: who reads the events writes too.
	if err := os.WriteFile("/dev/null", secret, 0); err != nil {
		t.Fatal(err)
	}
	other.order(write)
	var pids []int
	for _, e := range w.do(write) {
		pids = append(pids, e.PID)
	}
	if want := []int{other.cmd.Process.Pid, w.cmd.Process.Pid}; fmt.Sprint(pids) != fmt.Sprint(want) {
		t.Fatalf("events of %v, want %v", pids, want)
	}
}

// A namespace's daemon is in scope, wherever it went.
func TestScopeOfNamespaceHoldsDaemons(t *testing.T) {
	secret := random(30)
	w := newWatch(t, []Needle{needle(1, secret)}, Options{})
	got := w.do(job{Op: "daemon", Calls: [][][]byte{{secret}}})
	if len(got) != 1 || got[0].PID == w.cmd.Process.Pid || got[0].Name != "null" {
		t.Fatalf("%+v", got)
	}
}

// Who moves out of the cgroup stays in scope, and so does what he starts there.
func TestLeavingACgroup(t *testing.T) {
	canWatch(t)
	root, err := cgroup2()
	if err != nil {
		t.Fatalf("no cgroup v2 to test with: %v", err)
	}
	dir, err := os.MkdirTemp(root, "guard-test-*")
	if err != nil {
		t.Fatal(err)
	}
	w := outside(t)
	move := func(to string) {
		t.Helper()
		if err := os.WriteFile(to+"/cgroup.procs", fmt.Append(nil, w.cmd.Process.Pid), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := errors.Join(os.Remove(dir)); err != nil {
			t.Error(err)
		}
	})
	id, err := CgroupID(dir)
	if err != nil {
		t.Fatal(err)
	}
	secret := random(30)
	w.watched(Options{Cgroup: id}, needle(1, secret))
	write := job{Op: "write", To: "pipe", Calls: [][][]byte{{secret}}}
	w.order(write)
	move(dir)
	if got := w.do(write); len(got) != 1 || got[0].Cgroup != id {
		t.Fatalf("inside: %+v", got)
	}
	move(root)
	if got := w.do(write); len(got) != 1 || got[0].Cgroup == id {
		t.Fatalf("after it left: %+v", got)
	}
	if got := w.do(job{Op: "daemon", Calls: [][][]byte{{secret}}}); len(got) != 1 {
		t.Fatalf("a daemon: %+v", got)
	}
}

func TestCgroupV1(t *testing.T) {
	const v1 = "/sys/fs/cgroup/pids"
	dir := v1
	if os.Getenv(cgroup1Env) != "" {
		dir = "/sys/fs/cgroup" // of a machine that has nothing else
	} else if _, err := os.Stat(v1); err != nil {
		t.Skip("no cgroup v1 is mounted here")
	}
	if id, err := CgroupID(dir); err == nil || !strings.Contains(err.Error(), "not a folder of the cgroup v2 hierarchy") {
		t.Fatalf("%d, %v", id, err)
	}
}

// What stores to a shared mapping leave in a file is found when it is synced or
// ended.
func TestMappings(t *testing.T) {
	secret := random(30)
	w := newWatch(t, []Needle{needle(1, secret)}, Options{})
	for _, how := range []string{"msync", "munmap"} {
		got := w.do(job{Op: "mapping", To: how, Path: filepath.Join(t.TempDir(), "f"), Calls: [][][]byte{{secret}}})
		if len(got) != 1 || got[0].Syscall != how || got[0].Channel != ChannelMapping || got[0].Offset != 4090 || got[0].Inode == 0 {
			t.Fatalf("%s: %+v", how, got)
		}
	}
	s, err := w.d.Stats()
	if n := s.Channels[ChannelMapping]; err != nil || n.Calls != 2 || n.Seen != n.Scanned+n.Unreadable {
		t.Fatalf("%+v, %v", n, err)
	}
}

// Arguments, environments, names, attributes and targets are seen from the
// tracepoint too, where they are arguments of the call.
func TestNamesAndArguments(t *testing.T) {
	secret := random(30)
	w := newWatch(t, []Needle{needle(1, secret)}, Options{})
	check := func(op string, want ...string) {
		t.Helper()
		var got []string
		for _, e := range w.do(job{Op: op, Want: "seen", Calls: [][][]byte{{secret}}}) {
			if e.Refused || e.FD != -1 {
				t.Errorf("%+v", e)
			}
			got = append(got, string(e.Channel)+" "+e.Syscall)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", op, got, want)
		}
	}
	check("args", slices.Repeat([]string{"exec execve"}, 5)...)
	check("names", "name openat", "name mkdirat", "name mknodat", "name linkat", "name renameat", "link symlinkat", "xattr setxattr")
}

// Values that are too short for the full stride, at every place.
func TestShortNeedles(t *testing.T) {
	for _, n := range []int{14, 11, 10, 9, 8} {
		short, long, middle := random(n), random(40), random(n+1)
		w := newWatch(t, []Needle{needle(1, short), needle(2, long), needle(3, middle)}, Options{})
		for i, s := range [][]byte{short, long, middle} {
			j := job{Op: "writev", To: "file"}
			for at := range 24 {
				b := append(append(random(4080+at), s...), random(at%9)...)
				cut := 4080 + at + len(s)/2
				j.Calls = append(j.Calls, [][]byte{b[:cut], b[cut:]})
			}
			got := w.do(j)
			if len(got) != 24 {
				t.Fatalf("a value of %d bytes, the shortest has %d: found %d times of 24", len(s), n, len(got))
			}
			for at, e := range got {
				if e.Needle != uint32(i+1) || e.Offset != int64(4080+at) || e.Length != len(s) {
					t.Fatalf("at %d: %+v", at, e)
				}
			}
			// Split over two calls, at every place.
			for cut := 1; cut < len(s); cut++ {
				got := w.do(job{Op: "write", To: "pipe", Same: true, Calls: [][][]byte{{s[:cut]}, {s[cut:]}}})
				if len(got) != 1 || got[0].Channel != guard.ChannelPipe {
					t.Fatalf("%d of %d bytes cut at %d: %+v", len(s), n, cut, got)
				}
			}
		}
		w.d.Close()
	}
}
