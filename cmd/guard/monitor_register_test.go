//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"guard"
	"guard/bpf"
	"guard/internal/testutil"
)

// user is one with a vault, whose guard is a plain copy of this program.
type user struct {
	t     *testing.T
	uid   int
	dir   string
	plain string
}

func newUser(t *testing.T, uid int, plain string) *user {
	t.Helper()
	u := &user{t: t, uid: uid, dir: t.TempDir(), plain: plain}
	for d := u.dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(u.dir, "proj"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{u.dir, filepath.Join(u.dir, "proj")} {
		if err := os.Chown(p, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	return u
}

func (u *user) command(path string, args ...string) *exec.Cmd {
	c := exec.CommandContext(u.t.Context(), path, args...)
	c.Dir = filepath.Join(u.dir, "proj")
	c.Env = []string{"HOME=" + u.dir, "GUARD_HOME=" + u.dir + "/gh", "GUARD_KEYFILE=" + u.dir + "/key", "PATH=" + os.Getenv("PATH")}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(u.uid), Gid: uint32(u.uid)}}
	return c
}

func (u *user) guard(args ...string) string {
	u.t.Helper()
	out, err := u.guardCmd(args...).CombinedOutput()
	if err != nil {
		u.t.Fatalf("guard %q: %v\n%s", args, err, out)
	}
	return string(out)
}

func (u *user) guardCmd(args ...string) *exec.Cmd {
	c := u.command(u.plain, args...)
	c.Args[0] = "guard"
	return c
}

func (u *user) set(name, value string) {
	u.t.Helper()
	c := u.guardCmd("secret", "set", name, "--kind", "generic", "--from-env", "VALUE", "--host", "a.example.com")
	c.Env = append(c.Env, "VALUE="+value)
	if out, err := c.CombinedOutput(); err != nil {
		u.t.Fatalf("guard secret set: %v\n%s", err, out)
	}
}

// write has a process of the user's write value to a new file.
func (u *user) write(name, value string) {
	u.t.Helper()
	c := u.command("/bin/sh", "-c", `read v; echo "$v" >`+name)
	c.Stdin = strings.NewReader(value + "\n")
	if out, err := c.CombinedOutput(); err != nil {
		u.t.Fatalf("write: %v\n%s", err, out)
	}
}

// running is a guard that goes on, and what it prints.
type running struct {
	t   *testing.T
	cmd *exec.Cmd
	mu  sync.Mutex
	out bytes.Buffer
}

func (r *running) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Write(p)
}

func (r *running) has(s string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Contains(r.out.String(), s)
}

func (u *user) start(wait string, args ...string) *running {
	u.t.Helper()
	r := &running{t: u.t, cmd: u.guardCmd(args...)}
	r.cmd.Stdout, r.cmd.Stderr = r, r
	if err := r.cmd.Start(); err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() {
		r.cmd.Process.Kill()
		r.cmd.Wait()
		if u.t.Failed() {
			u.t.Logf("guard %q:\n%s", args, r.out.String())
		}
	})
	testutil.WaitFor(u.t, wait, func() bool { return r.has(wait) })
	return r
}

func (r *running) end() {
	r.t.Helper()
	r.cmd.Process.Signal(os.Interrupt)
	if err := r.cmd.Wait(); err != nil {
		r.t.Errorf("%q ended: %v\n%s", r.cmd.Args, err, r.out.String())
	}
}

// rawGuard speaks the wire as somebody's guard, or somebody who is none.
type rawGuard struct {
	net.Conn
	lines *bufio.Reader
	key   bpf.HashKey
	epoch uint64
}

// TestRegisteredWire runs in another user's process: see TestRegistered.
func TestRegisteredWire(t *testing.T) {
	path := os.Getenv("GUARD_TEST_REGISTER")
	if path == "" {
		t.Skip("this is a part of TestRegistered")
	}
	value, err := io.ReadAll(os.Stdin)
	if err != nil {
		t.Fatal(err)
	}
	dial := func() *rawGuard {
		t.Helper()
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(time.Minute))
		r := &rawGuard{Conn: c, lines: bufio.NewReader(c)}
		if s := r.says(t); s.Key != nil {
			r.key, r.epoch = *s.Key, s.Epoch
		}
		return r
	}
	ends := func(what string, r *rawGuard) {
		t.Helper()
		b, err := io.ReadAll(r.lines)
		if len(b) > 0 && !bytes.Contains(b, []byte(`"error"`)) || err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: %q, %v", what, b, err)
		}
		r.Close()
	}
	hash := func(r *rawGuard, n int) (list []bpf.HashedNeedle) {
		for i := range n {
			h, err := r.key.Hash(bpf.Needle{ID: uint32(i), Bytes: guard.NewSecret([]byte(testutil.Random(30)))})
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, h)
		}
		return list
	}

	// Garbage, and lists that are not what they say: the connection ends.
	for name, garbage := range map[string][]byte{
		"noise": []byte(strings.Repeat("GET / HTTP/1.1\r\n", 10)), "too many": {0x67, 0x72, 0x64, 0x31, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0},
		"zeros in it": append([]byte{0x67, 0x72, 0x64, 0x31, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 88)...),
	} {
		r := dial()
		if _, err := r.Write(garbage); err != nil {
			t.Error(name, err)
		}
		ends(name, r)
	}

	// No more connections, and no more needles, than a user may have.
	var held []*rawGuard
	for range maxUserConns {
		held = append(held, dial())
	}
	over := dial()
	if over.epoch != 0 {
		t.Error("one connection too many is served")
	}
	over.Close()
	if err := writeList(held[0], held[0].epoch, hash(held[0], maxRegistered)); err != nil {
		t.Error(err)
	}
	if s := held[0].says(t); s.Watching == nil || *s.Watching != maxRegistered {
		t.Errorf("a full list: %+v", s)
	}
	if err := writeList(held[1], held[1].epoch, hash(held[1], 1)); err != nil {
		t.Error(err)
	}
	ends("one needle too many", held[1])

	// The same value as somebody else's, known by whatever way: of processes of others that write it, whose they are
	// and which program is told, and nothing of their bytes. Of a part of it nothing is told: or it could be guessed a byte at a time.
	h, err := held[0].key.Hash(bpf.Needle{ID: 1, Bytes: guard.NewSecret(bytes.TrimSpace(value))})
	if err != nil {
		t.Fatal(err)
	}
	list := []bpf.HashedNeedle{h}
	for i, part := range [][]byte{bytes.TrimSpace(value)[:len(bytes.TrimSpace(value))-1], bytes.TrimSpace(value)[1:], bytes.TrimSpace(value)[:20]} {
		h, err := held[0].key.Hash(bpf.Needle{ID: uint32(2 + i), Bytes: guard.NewSecret(part)})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, h)
	}
	if err := writeList(held[0], held[0].epoch, list); err != nil {
		t.Error(err)
	}
	if s := held[0].says(t); s.Watching == nil || *s.Watching != len(list) {
		t.Errorf("a list of %d: %+v", len(list), s)
	}
	os.WriteFile("registered", nil, 0o644)
	testutil.WaitFor(t, "others have written it", func() bool { return fileExists("written") })
	// What another process of this user's writes is told of: all that was before would have been.
	mine := exec.Command("/bin/sh", "-c", `read v; echo "$v" >mine`)
	mine.Stdin = bytes.NewReader(append(bytes.TrimSpace(value), '\n'))
	if err := mine.Run(); err != nil {
		t.Error(err)
	}
	s, elsewhere := watchSays{}, map[int]bool{}
	for s = held[0].says(t); s.Elsewhere != nil; s = held[0].says(t) {
		elsewhere[s.Elsewhere.UID] = true
		if s.Elsewhere.Handle != 1 || s.Hit != nil || s.Elsewhere.Exe == "" {
			t.Errorf("of another user's process: %+v", *s.Elsewhere)
		}
	}
	if !elsewhere[0] || !elsewhere[41001] {
		t.Errorf("told of processes of users %v", elsewhere)
	}
	if s.Hit == nil || s.Hit.Event.PID != mine.Process.Pid || !bytes.Contains(s.Hit.Event.Window, bytes.TrimSpace(value)) {
		t.Errorf("the first hit is not this user's own: %+v", s)
	}
	for _, r := range held {
		r.Close()
	}
}

func (r *rawGuard) says(t *testing.T) (s watchSays) {
	t.Helper()
	line, err := r.lines.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &s)
	}
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return s
}

// TestRegistered has root's monitor look for the value of a user, who is told and whose guard answers; another user who
// attacks it; and set-user-ID programs.
func TestRegistered(t *testing.T) {
	testutil.Leftovers(t)
	helper := installHelper(t) // skips without root and the kernel for it
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(filepath.Dir(helper), "guard")
	if err := os.WriteFile(plain, self, 0o755); err != nil {
		t.Fatal(err)
	}
	root, a, b := newUser(t, 0, plain), newUser(t, 41001, plain), newUser(t, 41002, plain)
	value, later := testutil.Canary(t), testutil.Canary(t)
	for _, u := range []*user{root, a} {
		u.guard("init")
	}
	a.set("tok", value)
	socket := filepath.Join(root.dir, "monitor.sock")
	server := root.start("guard: ready: watching every process", "monitor", "--listen", socket, "--json", "--no-rotate")
	if out, err := root.guardCmd("monitor", "--listen", socket, "--no-rotate").CombinedOutput(); err == nil || !strings.Contains(string(out), "another monitor listens") {
		t.Errorf("a second one: %v, %s", err, out)
	}
	client := a.start("forms of values are registered", "monitor", "--register", socket, "--json", "--no-rotate")

	a.write("leaked", value)
	testutil.WaitFor(t, "the user's guard is told", func() bool { return client.has(`leaked"`) })
	a.set("tok2", later)
	testutil.WaitFor(t, "a value of later is found", func() bool {
		a.write("later", later)
		return client.has(`later"`)
	})

	// The other user knows the value, and registers it too.
	attack := b.command(plain, "-test.run=^TestRegisteredWire$", "-test.v")
	attack.Args[0] = "guard.test"
	attack.Env = append(attack.Env, "GUARD_TEST_REGISTER="+socket)
	attack.Stdin = strings.NewReader(value)
	attackSays := &running{t: t, cmd: attack}
	attack.Stdout, attack.Stderr = attackSays, attackSays
	if err := attack.Start(); err != nil {
		t.Fatal(err)
	}
	attacked := make(chan error, 1)
	go func() { attacked <- attack.Wait() }()
	registered := filepath.Join(b.dir, "proj", "registered")
	testutil.WaitFor(t, "the other user has registered", func() bool { return fileExists(registered) || len(attacked) > 0 })
	a.write("again", value)
	root.write("roots", value)
	testutil.WaitFor(t, "the user's guard is still told", func() bool { return client.has(`again"`) })
	testutil.WaitFor(t, "root's log has what root wrote", func() bool { return server.has(`roots"`) })
	testutil.WaitFor(t, "the user's guard is told that a process of root's wrote it", func() bool { return client.has("in a process of user 0: ") })
	if err := os.WriteFile(filepath.Join(b.dir, "proj", "written"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := <-attacked; err != nil || !attackSays.has("--- PASS: TestRegisteredWire") {
		t.Errorf("the other user: %v\n%s", err, strings.ReplaceAll(attackSays.out.String(), value, "[value]"))
	}
	// A program with more rights than its caller: what it writes may be what the caller must not see.
	suid := exec.Command("python3", "-c", `
import os, sys
v = sys.stdin.read().encode()
os.setresuid(41001, 0, 0)
os.write(os.open("suid", os.O_CREAT | os.O_WRONLY), v)`)
	suid.Dir, suid.Stdin = filepath.Join(root.dir, "proj"), strings.NewReader(value)
	if out, err := suid.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	testutil.WaitFor(t, "root's log has what that wrote", func() bool { return server.has("suid") })
	// One of the user's that no other may look into.
	closed := a.command("/usr/bin/python3", "-c", `
import ctypes, os, sys
v = sys.stdin.read().encode()
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) # PR_SET_DUMPABLE
os.write(os.open("undumpable", os.O_CREAT | os.O_WRONLY), v)`)
	closed.Stdin = strings.NewReader(value)
	if out, err := closed.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	testutil.WaitFor(t, "root's log has that, too", func() bool { return server.has(`undumpable"`) })
	// What runs in a session may not ask.
	said, err := root.guardCmd("run", "--no-rotate", "--boundary", "none", "--bpf", "off", "--", "/usr/bin/python3", "-c", `
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
print(s.recv(1000).decode())`, socket).CombinedOutput()
	if err != nil || !strings.Contains(string(said), "a process of a session may not register") {
		t.Errorf("a session's process: %v, %s", err, said)
	}
	a.write("last", value) // after it, all that was before is there
	testutil.WaitFor(t, "the user's guard is told after it was attacked", func() bool { return client.has(`last"`) })
	client.end()
	server.end()

	log := a.guard("audit", "show", "--json")
	for _, want := range []string{`"type":"leak","credential":"tok"`, `"type":"leak","credential":"tok2"`, `"rule":"seen in the kernel, not stopped","result":"escaped"`, "in a process of user 0: ", "unproven=0 lost=0"} {
		if !strings.Contains(log, want) {
			t.Errorf("the user's log has no %s\n%s", want, log)
		}
	}
	for _, no := range []string{`roots"`, `suid"`, `undumpable"`, `mine"`} {
		if strings.Contains(log, no) {
			t.Errorf("the user's log has %s", no)
		}
	}
	rootLog := root.guard("audit", "show", "--json")
	for _, want := range []string{`"type":"leak.registered"`, "a value that user 41001 registered", "a value that user 41002 registered", "its guard is told whose process and which program", "its guard is not told"} {
		if !strings.Contains(rootLog, want) {
			t.Errorf("root's log has no %s\n%s", want, rootLog)
		}
	}
	for _, out := range []string{log, rootLog, client.out.String(), server.out.String()} {
		for _, v := range []string{value, later} {
			if strings.Contains(out, v) {
				t.Error("a value was printed or logged")
			}
		}
	}
}

// What a session wrote is that session's also where it was over before the monitor came to it; what its guard left behind is not.
func TestMonitorLeavesShortSessions(t *testing.T) {
	testutil.Leftovers(t)
	helper := installHelper(t)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(filepath.Dir(helper), "guard")
	if err := os.WriteFile(plain, self, 0o755); err != nil {
		t.Fatal(err)
	}
	root := newUser(t, 0, plain)
	value := testutil.Canary(t)
	root.guard("init")
	root.set("tok", value)
	monitor := root.start("guard: ready: watching every process", "monitor", "--json", "--no-rotate")
	const sessions = 5
	for range sessions {
		c := root.guardCmd("run", "--no-rotate", "--bpf", "off", "--input", "allow", "--", "sh", "-c", `read v; echo "$v" >/tmp/short`)
		c.Stdin = strings.NewReader(value + "\n")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	root.write("outside", value)
	testutil.WaitFor(t, "what no session wrote is recorded", func() bool { return monitor.has(`outside"`) })
	monitor.end()
	if monitor.has(`short"`) {
		t.Error("the monitor recorded what a session wrote")
	}
	m := regexp.MustCompile(`sessions=([0-9]+)`).FindStringSubmatch(monitor.out.String())
	if m == nil {
		t.Fatal("the monitor says nothing of sessions")
	}
	if n, err := strconv.Atoi(m[1]); err != nil || n < sessions {
		t.Errorf("%s finds of %d sessions", m[1], sessions)
	}
}

// Another user's bytes are told of only where all of a word was known, and not too often.
func TestElsewhere(t *testing.T) {
	word := "a1B2c3D4e5F6g7H8i9J0"
	for _, c := range []struct {
		before, word, after string
		want                bool
	}{
		{"", word, "", true}, {"TOKEN=", word, "\n", true}, {"TOKEN: \"", word, "\"", true}, {" ", word, " x", true}, {"x ", word, "\n", true},
		{"x", word, "", false}, {"", word, "x", false}, {"", word, "=", false}, {"", word, "é", false}, {"", word[:19], "", false},
		{"", "aaaaaaaaaaaaaaaaaaaaaaaaa", "", false}, {"", word[:10] + ":" + word[10:], "", false}, {"", word + "\x00", "", false},
	} {
		e := bpf.Event{Offset: int64(100 + len(c.before)), WindowAt: 100, Length: len(c.word), Window: []byte(c.before + c.word + c.after)}
		if got := standsAlone(e); got != c.want {
			t.Errorf("%q%q%q: %v", c.before, c.word, c.after, got)
		}
	}
	for _, e := range []bpf.Event{{Offset: -1, Length: 20, Window: []byte(word)}, {Offset: 1, Length: 20, Window: []byte(word)}, {Length: 20}} {
		if standsAlone(e) {
			t.Errorf("%+v", e)
		}
	}

	r := &registry{told: map[int][]time.Time{}}
	g := &registrant{uid: 7, out: make(chan watchSays, 100)}
	f := seen{alone: true, owner: owner{of: g, handle: 3, whole: true}, Event: bpf.Event{User: 8, Exe: "/bin/x", Path: "/secret/path", Window: []byte("w")}}
	for _, not := range []func(*seen){func(f *seen) { f.alone = false }, func(f *seen) { f.User = -1 }, func(f *seen) { f.User = 7 }} {
		f := f
		not(&f)
		if r.elsewhere(f) {
			t.Errorf("told of %+v", f)
		}
	}
	told := 0
	for range 100 {
		if r.elsewhere(f) {
			told++
		}
	}
	b, err := json.Marshal(<-g.out)
	if told != elsewhereMost || err != nil || bytes.Contains(b, []byte("secret")) || !bytes.Contains(b, []byte(`"uid":8,"exe":"/bin/x"`)) {
		t.Errorf("%d told, %s, %v", told, b, err)
	}
}

// A find is a session's if the call was made before its guard ended.
func TestEndedGuard(t *testing.T) {
	m := &monitor{ran: map[int]*ranGuard{}, guardsEnd: make(chan struct{})}
	m.ran[7] = &ranGuard{ok: true, guardProcess: guardProcess{session: true, context: "c"}}
	m.ran[8] = &ranGuard{}
	done := make(chan bool)
	go func() {
		_, ok := m.endedGuard(7, 100) // waits for the news
		done <- ok
	}()
	m.noteGuard(7, true, 200)
	if !<-done {
		t.Error("a call before the end is not the session's")
	}
	for _, c := range []struct {
		pid  int
		call uint64
		want bool
	}{{7, 200, true}, {7, 201, false}, {8, 100, false}, {9, 100, false}} {
		if g, ok := m.endedGuard(c.pid, c.call); ok != c.want || ok && g.context != "c" {
			t.Errorf("%d at %d: %v", c.pid, c.call, ok)
		}
	}
	m.ran[10] = &ranGuard{ok: true}
	if _, ok := m.endedGuard(10, 1); ok || m.ran[10].ok {
		t.Error("who never ended is believed to have")
	}
}

// A socket of anybody's but root's is told nothing.
func TestRegisterAtAnotherUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can listen as somebody else")
	}
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "fake"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := (&monitor{}).connect(filepath.Join(dir, "none")); err == nil {
		t.Error("connected to nobody")
	}
	c, err := (&monitor{}).connect(filepath.Join(dir, "fake"))
	if err != nil {
		t.Fatal(err)
	}
	c.close()
}
