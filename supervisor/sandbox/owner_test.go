//go:build linux

package sandbox

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The start of each agent here. say tells on a connection which process should be named
// (0: none may be), and waits until it was asked.
const ownersPrelude = `
import array, os, socket, sys, threading, time
def to(n):
    if n % 2:
        return socket.create_connection(("2001:db8::%x" % (n + 1), 443))
    return socket.create_connection(("203.0.113.%d" % (n % 200 + 1), 443))
def say(c, pid, wait=True):
    c.sendall(b"%d\n" % pid)
    if wait:
        assert c.recv(1) == b"."
`

// innerPid is the id of a process in the session's namespace; 0 if it is gone.
func innerPid(pid int) (id int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f, ok := strings.CutPrefix(line, "NSpid:"); ok {
			ids := strings.Fields(f)
			fmt.Sscan(ids[len(ids)-1], &id)
		}
	}
	return id
}

// owners runs an agent that is the Python program, and checks who is named for each of
// its connections. early asks before the agent has said anything. It returns how many
// connections there were, and how many of them nobody was named for.
func (w *world) owners(t *testing.T, early, diag bool, program string) (n, nobody int) {
	t.Helper()
	r, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w.c.Stdout, w.c.Stderr = wr, wr
	s := w.start(t, "python3", "-c", ownersPrelude+program)
	wr.Close()
	if !diag {
		s.s.owners.diag.tcp.Close() // it fails from now on, and /proc has to do
	}
	var mu sync.Mutex
	var conns sync.WaitGroup
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		for {
			c, err := s.TCP.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				gc := c.(*Conn)
				var pid, want int
				var exe string
				if early {
					pid, exe = gc.Process()
				}
				in := bufio.NewReader(c)
				if _, err := fmt.Fscan(in, &want); err != nil {
					t.Errorf("the agent said nothing: %v", err)
					return
				}
				if want == 0 { // it is gone when the connection ends
					io.Copy(io.Discard, in)
				}
				if !early {
					pid, exe = gc.Process()
				}
				got := 0
				if pid != 0 {
					got = innerPid(pid)
				}
				mu.Lock()
				n++
				if pid == 0 {
					nobody++
				}
				mu.Unlock()
				if got != want || (pid != 0) != strings.HasPrefix(filepath.Base(exe), "python3") {
					t.Errorf("process %d (inside %d, %q) for a connection of %d to %s", pid, got, exe, want, gc.Dst())
				}
				c.Write([]byte("."))
			})
		}
	}()
	out, _ := io.ReadAll(r)
	if e := last(t, s); e.Code != 0 {
		t.Errorf("%+v: %s", e, out)
	}
	s.TCP.Close()
	<-accepting
	conns.Wait()
	return n, nobody
}

func TestOwnersOfManyConnections(t *testing.T) {
	const program = `
kids = []
for k in range(20):
    if os.fork() == 0:
        def run(n):
            for i in range(4):
                c = to(n + i)
                say(c, os.getpid())
                if i % 2:
                    c.close()
                else:
                    keep.append(c)
        keep = []
        threads = [threading.Thread(target=run, args=(k * 4 + t,)) for t in range(4)]
        for t in threads: t.start()
        for t in threads: t.join()
        os._exit(0 if len(keep) == 8 else 1)
for k in range(20):
    assert os.wait()[1] == 0
`
	for _, diag := range []bool{true, false} {
		n, nobody := newWorld(t).owners(t, diag, diag, program)
		if n != 320 || nobody != 0 {
			t.Errorf("%d connections, %d of nobody, with diag %t", n, nobody, diag)
		}
	}
}

// What an agent does to be taken for another process, or for none.
func TestOwnersAttacked(t *testing.T) {
	const unshare = `
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
`
	for _, c := range []struct {
		name, program string
		conns, nobody int
	}{
		{"one that is gone", `
for n in range(20):
    if os.fork() == 0:
        say(to(n), 0, wait=False)
        os._exit(0)
    os.wait()
    c = to(n) # at the descriptor that the other one had
    say(c, os.getpid())
`, 40, 20},
		{"a child that inherited it", `
for n in range(4):
    c = to(n)
    if os.fork() == 0:
        own = to(n)
        say(own, os.getpid()) # so that this process is looked at first
        say(c, os.getppid())
        os._exit(0)
    os.wait()
`, 8, 0},
		{"a grandchild, and one between that let go", `
c = to(2)
if os.fork() == 0:
    top = os.getppid()
    if os.fork() == 0:
        say(to(4), os.getpid())
        say(c, top)
        os._exit(0)
    c.close()
    os.wait()
    os._exit(0)
os.wait()
`, 2, 0},
		{"a child alone", `
for n in range(4):
    say(to(n), os.getpid())
    c = to(n)
    r, w = os.pipe()
    if os.fork() == 0:
        os.read(r, 1)
        say(c, os.getpid())
        os._exit(0)
    c.close()
    os.write(w, b".")
    os.wait()
`, 8, 0},
		{"passed over", `
for n in range(4):
    a, b = socket.socketpair()
    (r, w), (r2, w2) = os.pipe(), os.pipe()
    if os.fork() == 0:
        c = to(n)
        a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [c.fileno()]))])
        c.close()
        os.write(w, b".")
        os.read(r2, 1)
        os._exit(0)
    os.read(r, 1)
    _, anc, _, _ = b.recvmsg(1, socket.CMSG_SPACE(4))
    c = socket.socket(fileno=array.array("i", anc[0][2])[0])
    say(c, os.getpid())
    os.write(w2, b".")
    os.wait()
`, 4, 0},
		{"bound to the interface", `
for fam, addr in ((socket.AF_INET, "203.0.113.7"), (socket.AF_INET6, "2001:db8::7")):
    c = socket.socket(fam)
    c.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    c.connect((addr, 443))
    say(c, os.getpid())
`, 2, 0},
		{"an IPv4 address of an IPv6 socket", `
c = socket.socket(socket.AF_INET6)
c.connect(("::ffff:203.0.113.9", 443))
say(c, os.getpid())
`, 1, 0},
		{"one port, two processes", `
def at(port, addr):
    c = socket.socket()
    c.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    c.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    c.bind(("127.0.0.1", port))
    c.connect((addr, 443))
    return c
r, w = os.pipe()
c = at(40001, "203.0.113.1")
if os.fork() == 0:
    c.close()
    os.read(r, 1)
    d = at(40001, "203.0.113.2")
    say(d, os.getpid())
    os._exit(0)
os.write(w, b".")
os.wait()
say(c, os.getpid())
`, 2, 0},
		{"a thread with its own descriptors", unshare + `
done = []
def run():
    assert libc.unshare(0x400) == 0, ctypes.get_errno()
    for n in range(2):
        say(to(n), os.getpid())
    done.append(1)
t = threading.Thread(target=run)
t.start()
t.join()
assert done
`, 2, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, nobody := newWorld(t).owners(t, false, true, c.program)
			if n != c.conns || nobody != c.nobody {
				t.Errorf("%d connections, %d of nobody; want %d and %d", n, nobody, c.conns, c.nobody)
			}
		})
	}
}

// A process that has the id of one that was looked at is another one.
func TestOwnersKnowProcessesApart(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, "sleep", "1000")
	o := &owners{places: map[uint32]place{}, seen: map[int]process{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	first := o.list()
	if first[s.Pid()] == 0 || first[s.Pid()] != o.list()[s.Pid()] {
		t.Fatal("a process has no number of its own")
	}
	// What is remembered is only where to look.
	o.places[4242], o.recent = place{s.Pid(), 0}, []place{{s.Pid(), 1}, {1 << 22, 3}}
	if pid, exe := o.confirm(s.s, o.places[4242], 4242); pid != 0 || exe != "" {
		t.Errorf("%d %q for a socket that is not there", pid, exe)
	}
	if pid, _ := o.guess(s.s, 4242); pid != 0 {
		t.Errorf("%d was guessed", pid)
	}
	if len(o.recent) != 1 {
		t.Errorf("one that is gone is remembered: %v", o.recent)
	}
	for i := range 2 * maxConnect {
		o.note(place{i, 3})
		o.note(place{i / 2, i})
	}
	if len(o.recent) != maxConnect || o.recent[0] != (place{maxConnect - 1, 2*maxConnect - 1}) && o.recent[0].pid != maxConnect-1 {
		t.Errorf("%d are remembered, %v first", len(o.recent), o.recent[0])
	}
	pids := []int{}
	for _, r := range o.recent {
		pids = append(pids, r.pid)
	}
	slices.Sort(pids)
	if len(slices.Compact(pids)) != maxConnect {
		t.Error("one is remembered twice")
	}
}
