//go:build linux && amd64

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"guard/bpf"
	"guard/internal/testutil"
	"guard/internal/testutil/vm"
)

// TestBlockOnOtherKernels boots Debian's kernels with BPF among their LSMs, and runs guard there
// as TestInMachine says: real sessions with --bpf block.
func TestBlockOnOtherKernels(t *testing.T) {
	kernels, err := vm.Kernels("../..")
	if err != nil {
		if os.Getenv("GUARD_TEST_KERNELS") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	static := func(name string, args ...string) string {
		path := filepath.Join(dir, name)
		build := exec.CommandContext(t.Context(), "go", append(append(args, "-ldflags=-s -w"), "-o", path, ".")...)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return path
	}
	init := static("init", "test", "-c")
	files := map[string]string{"/usr/bin/guard": static("guard", "build"), "/etc/passwd": "/etc/passwd", "/etc/group": "/etc/group"}
	if err := vm.Programs(files, "sh", "true", "cat", "cp", "dd", "rm", "tar", "wc", "git"); err != nil {
		t.Fatal(err)
	}
	for _, k := range kernels {
		t.Run(filepath.Base(k), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
			defer cancel()
			o := vm.Options{
				Kernel: k, Init: init, CPUs: 1, Cmdline: "lsm=lockdown,capability,landlock,bpf", Files: files, Memory: 1536,
				Args: []string{"-test.v", "-test.run=^TestInMachine$"},
			}
			if os.Getenv("GUARD_TEST_OLD_SESSION") != "" {
				o.Args = append(o.Args, "old-session")
			}
			if overlay := filepath.Join(filepath.Dir(k), "overlay.ko"); fileExists(overlay) {
				o.Modules = []string{overlay}
			}
			console, err := vm.Run(ctx, o)
			if code, cerr := vm.Exit(console); err != nil || cerr != nil || code != 0 || !strings.Contains(console, "--- PASS: TestInMachine") {
				t.Fatalf("%v, exit %d, %v\n%s", err, code, cerr, console)
			}
			t.Log(console)
		})
	}
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// atHome is a user of guard's in the machine.
type atHome struct {
	t    *testing.T
	home string
	env  []string
	as   *syscall.SysProcAttr
	more []string // flags of guard run
}

func (h *atHome) guard(args ...string) *exec.Cmd {
	c := exec.Command("/usr/bin/guard", args...)
	c.Dir, c.Env, c.SysProcAttr = filepath.Join(h.home, "proj"), h.env, h.as
	return c
}

// run wants the exit status, and returns standard output and standard error.
func (h *atHome) run(status int, stdin string, args ...string) (string, string) {
	h.t.Helper()
	if args[0] == "run" {
		args = append(append([]string{"run", "--no-rotate", "--bpf", "block"}, h.more...), args[1:]...)
	}
	c := h.guard(args...)
	var out, said bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &out, &said
	c.WaitDelay = 20 * time.Second // whoever keeps a pipe open after guard's end is told of, and not waited for
	began := time.Now()
	err := c.Run()
	h.t.Logf("%v: guard %.80q", time.Since(began).Round(time.Millisecond), args)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || shellStatus(c.ProcessState) != status {
		h.t.Errorf("guard %q: %v, want status %d\n%s%s", args, err, status, out.String(), said.String())
	}
	return out.String(), said.String()
}

// newHome is one with a vault that holds value.
func newHome(t *testing.T, uid int, value string) *atHome {
	t.Helper()
	h := &atHome{t: t, home: fmt.Sprintf("/home/%d", uid), as: &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}}
	h.env = []string{"HOME=" + h.home, "GUARD_HOME=" + h.home + "/gh", "GUARD_KEYFILE=" + h.home + "/key", "PATH=/usr/bin", "LANG=C.UTF-8"}
	if err := errors.Join(os.MkdirAll(h.home+"/proj", 0o755), os.Chown(h.home, uid, uid), os.Chown(h.home+"/proj", uid, uid)); err != nil {
		t.Fatal(err)
	}
	h.run(0, "", "init")
	h.set("tok", value)
	return h
}

func (h *atHome) set(name, value string) {
	h.t.Helper()
	c := h.guard("secret", "set", name, "--kind", "generic", "--from-env", "VALUE", "--host", "a.example.com")
	c.Env = append(slices.Clone(c.Env), "VALUE="+value)
	if out, err := c.CombinedOutput(); err != nil {
		h.t.Fatalf("guard secret set: %v\n%s", err, out)
	}
}

// writing is a session whose agent is writesProgram.
type writing struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	said bytes.Buffer
}

func (h *atHome) writing() *writing {
	h.t.Helper()
	w := &writing{t: h.t, cmd: h.guard(append(append([]string{"run", "-v", "--no-rotate", "--bpf", "block"}, h.more...), "--", "writes")...)}
	var err error
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		h.t.Fatal(err)
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	w.out, w.cmd.Stderr = bufio.NewReader(out), &w.said
	if err := w.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	return w
}

// ask returns what the agent says until it is done with line.
func (w *writing) ask(line string) (said []string) {
	w.t.Helper()
	if _, err := io.WriteString(w.in, line+"\n"); err != nil {
		w.t.Fatalf("%v\n%s", err, w.said.String())
	}
	verb, _, _ := strings.Cut(line, " ")
	for {
		l, err := w.out.ReadString('\n')
		if err != nil {
			w.cmd.Wait()
			w.t.Fatalf("the agent is gone after %q: %v\n%s", said, err, w.said.String())
		}
		if l == "end of "+verb+"\n" {
			return said
		}
		said = append(said, strings.TrimSuffix(l, "\n"))
	}
}

func (w *writing) end(status int) {
	w.t.Helper()
	w.in.Close()
	rest, _ := io.ReadAll(w.out)
	w.cmd.Wait()
	if got := shellStatus(w.cmd.ProcessState); got != status {
		w.t.Errorf("guard run ended with %d, want %d\n%s%s", got, status, rest, w.said.String())
	}
}

// refusedAll wants that no way got the value out.
func (w *writing) refusedAll(value string) {
	w.t.Helper()
	said := w.ask("try " + value)
	if len(said) < 25 {
		w.t.Errorf("only %d ways: %q", len(said), said)
	}
	for _, s := range said {
		if !strings.HasSuffix(s, ": EPERM held=false") {
			w.t.Errorf("not refused: %s", s)
		}
	}
}

// TestInMachine is what TestBlockOnOtherKernels runs: sessions with --bpf block, of root's and of an
// ordinary user's, whose guard has the kernel's help by the helper that make install-system installs.
func TestInMachine(t *testing.T) {
	if os.Args[0] != machineInit {
		t.Skip("this is for the machine that TestBlockOnOtherKernels boots")
	}
	for name, from := range map[string]string{"writes": machineInit, "term": machineInit} {
		if err := os.Link(from, "/usr/bin/"+name); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile("/usr/bin/guard")
	if err == nil {
		err = errors.Join(os.Symlink("git", "/usr/bin/git-upload-pack"), os.MkdirAll("/usr/libexec/guard", 0o755),
			os.WriteFile("/usr/libexec/guard/guard-bpf", program, 0o755), setHelperRights("/usr/libexec/guard/guard-bpf"))
	}
	if err != nil {
		t.Fatal(err)
	}
	if !bpf.Probe().Has(bpf.Loop) {
		value := testutil.Canary(t)
		h := newHome(t, 0, value)
		oldKernelDetects(h, value)
		return
	}
	t.Run("root", func(t *testing.T) {
		value := testutil.Canary(t)
		h := newHome(t, 0, value)
		if !idmapsTmpfs() {
			// Root's sessions with a file tree of their own need that: this one has none, and is
			// searched by its cgroup.
			h.more = []string{"--boundary", "proxy"}
		}
		doctorBlocks(h)
		programsWork(h)
		agentTries(h, value)
	})
	t.Run("user", func(t *testing.T) {
		value := testutil.Canary(t)
		h := newHome(t, ordinaryUser(t), value)
		agentTries(h, value)
		shellTries(h, value)
		terminalRedacts(h, value)
	})
}

// idmapsTmpfs says that this kernel can show files of a tmpfs as another user's: since 6.3.
func idmapsTmpfs() bool {
	var major, minor int
	fmt.Sscanf(bpf.Probe().Kernel, "%d.%d", &major, &minor)
	return major > 6 || major == 6 && minor >= 3
}

// oldKernelDetects is for kernels before 5.17, which cannot refuse by BPF: doctor says how they are searched, and
// --bpf-strict starts nothing. A whole session is tried with GUARD_TEST_OLD_SESSION alone: in an emulated machine on
// a busy host it did not end in some runs, and why is not known. Package bpf's tests search there.
func oldKernelDetects(h *atHome, value string) {
	t := h.t
	out, _ := h.run(0, "", "doctor")
	for _, want := range []string{"by bounded loops, since this kernel has no bpf_loop", "but not what it hands to a TLS library"} {
		if !strings.Contains(out, want) {
			t.Errorf("doctor does not say %q\n%s", want, out)
		}
	}
	h.more = []string{"--boundary", "proxy"}
	if slices.Contains(os.Args, "old-session") {
		h.run(0, value, "run", "--bpf", "detect", "--", "sh", "-c", "cat | cat >/dev/null")
		log, _ := h.run(0, "", "audit", "show", "--json", "--type", "leak")
		if !strings.Contains(log, `"channel":"pipe"`) || !strings.Contains(log, `"method":"write"`) || strings.Contains(log, value) {
			t.Errorf("the log: %s", log)
		}
		coverage, _ := h.run(0, "", "audit", "show", "--json", "--type", "coverage")
		if !strings.Contains(coverage, `"resource":"bpf"`) {
			t.Errorf("coverage: %s", coverage)
		}
	}
	if _, said := h.run(125, "", "run", "--bpf", "block", "--bpf-strict", "--", "true"); !strings.Contains(said, "bpf_loop") {
		t.Errorf("--bpf-strict: %s", said)
	}
}

func doctorBlocks(h *atHome) {
	h.t.Helper()
	out, _ := h.run(0, "", "doctor", "--json")
	var doctor struct {
		Channels []channel `json:"channels"`
	}
	if err := json.Unmarshal([]byte(out), &doctor); err != nil {
		h.t.Fatal(err)
	}
	if !slices.ContainsFunc(doctor.Channels, func(c channel) bool { return c.Channel == "file" && c.Source == "bpf" && c.Power == "block" }) {
		h.t.Errorf("doctor: %s", out)
	}
}

// agentTries has an agent try everything with a value, with one that comes while it runs, and with
// one that takes the first one's place.
func agentTries(h *atHome, value string) {
	t := h.t
	later, after := testutil.Canary(t), testutil.Canary(t)
	began := time.Now()
	w := h.writing()
	w.refusedAll(value)
	t.Logf("%v: until all was refused", time.Since(began).Round(time.Millisecond))
	for _, s := range w.ask("try clean-" + testutil.Random(34)) {
		// Extended attributes of users are not kept by every kernel's tmpfs.
		if !strings.HasPrefix(s, "xattr: ENOTSUP") && !strings.Contains(s, ": none held=") {
			t.Errorf("a clean value: %s", s)
		}
	}
	refused := func(name, v string) {
		t.Helper()
		testutil.WaitFor(t, name+" is refused", func() bool {
			s := w.ask("is " + v)
			return len(s) == 1 && s[0] == "is: EPERM held=false"
		})
	}
	h.set("second", later)
	refused("a new value", later)
	h.set("tok", after)
	refused("a replaced value", after)
	refused("the value before it", value)
	w.refusedAll(after)
	if _, err := io.WriteString(w.in, "exit 7\n"); err != nil {
		t.Error(err)
	}
	began = time.Now()
	w.end(7)
	t.Logf("%v: the end", time.Since(began).Round(time.Millisecond))
	said := w.said.String()
	if !strings.Contains(said, "kernel: block. What holds a known value fails with EPERM") {
		t.Errorf("-v: %s", said)
	}

	log, _ := h.run(0, "", "audit", "show", "--json", "--type", "leak")
	for _, v := range []string{value, later, after} {
		if strings.Contains(said, v) || strings.Contains(log, v) {
			t.Error("standard error or the log has a value")
		}
	}
	// The path is whole only as long as the process has the file open.
	for _, want := range []string{
		`"credential":"tok"[^\n]*"channel":"file"[^\n]*"pid":[0-9]+[^\n]*"exe":"/usr/bin/writes"[^\n]*"method":"write","path":"[^"]*/proj/kept","decision":"block","rule":"refused in the kernel","result":"contained"`,
		`"credential":"second"[^\n]*"path":"[^"]*is"`, `"version":2`,
		`"method":"write","path":"[^"]*out"`, `"method":"pwrite64","path":"[^"]*out"`, `"method":"writev"`,
		`"channel":"pipe"[^\n]*"method":"write"`, `"channel":"socket"[^\n]*"method":"sendmsg"`, `"channel":"socket"[^\n]*"method":"sendto"`,
		`"channel":"exec"[^\n]*"method":"execve`, `"channel":"name"`, `"channel":"xattr"`, `"channel":"link"`,
		`"encoding":"base64`, `"encoding":"hex"`,
	} {
		if !regexp.MustCompile(want).MatchString(log) {
			t.Errorf("the log has no %s\n%.3000s", want, log)
		}
	}
	coverage, _ := h.run(0, "", "audit", "show", "--json", "--type", "coverage")
	if !regexp.MustCompile(`"channel":"file"[^\n]* refused=[1-9][^\n]*"resource":"bpf"`).MatchString(coverage) {
		t.Errorf("coverage: %s", coverage)
	}
}

// shellTries: a program that is refused says so, and its status is the session's.
func shellTries(h *atHome, value string) {
	t := h.t
	_, said := h.run(1, value+"\n", "run", "--bpf-strict", "-v", "--", "sh", "-c", `read v; echo "$v" >stolen`)
	if !strings.Contains(said, "I/O error") || !strings.Contains(said, "and so does what cannot be searched whole") {
		t.Errorf("sh says %q", said)
	}
	if b, err := os.ReadFile(h.home + "/proj/stolen"); err != nil || len(b) != 0 {
		t.Errorf("stolen holds %d bytes, %v", len(b), err)
	}
	log, _ := h.run(0, "", "audit", "show", "--json", "--type", "leak")
	if !regexp.MustCompile(`"exe":"(/usr/bin/)?sh"`).MatchString(log) { // its name, if it is gone already
		t.Error("the log has no leak of sh")
	}
}

// terminalRedacts: what goes to the terminal is masked and refused to nobody.
func terminalRedacts(h *atHome, value string) {
	script := filepath.Join(h.home, "script")
	if err := os.WriteFile(script, []byte("wait ready\nsend $VALUE\\r\nwait after\n"), 0o644); err != nil {
		h.t.Fatal(err)
	}
	c := h.guard(script, "/usr/bin/guard", "run", "--no-rotate", "--bpf", "block", "--input", "warn", "--", "writes", "-echo")
	c.Path, c.Env = "/usr/bin/term", append(slices.Clone(c.Env), "VALUE="+value, "TERM=xterm")
	c.Args[0] = "term"
	shown, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(shown), "seen [tok]*") || !strings.Contains(string(shown), "after: none") || strings.Contains(string(shown), value) {
		h.t.Errorf("the terminal: %v\n%s", err, strings.ReplaceAll(string(shown), value, "<value>"))
	}
}

// programsWork: what knows no value does its work, also without the calls that are taken away.
func programsWork(h *atHome) {
	h.run(0, "", "run", "--", "sh", "-c", strings.Join([]string{
		"set -e", "dd if=/usr/bin/guard of=big bs=64k count=32 2>/dev/null", "cp big big2", "cat big | cat >big3", "tar -cf big.tar big big2", "tar -xf big.tar",
		"git init -q r", "cp big r/", "cd r", "git add big", "git -c user.name=x -c user.email=x@y commit -qm m", "git clone -q . ../c", "cd ..",
		"test $(cat big c/big big2 big3 | wc -c) = 8388608 || exit 9", "rm -rf big* r c",
	}, "\n"))
}
