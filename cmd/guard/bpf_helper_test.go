//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"guard/bpf"
	"guard/internal/testutil"
)

// installHelper makes a copy of this program with the capabilities that make
// install-system gives it.
func installHelper(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file capabilities")
	}
	d, err := bpf.OpenDetector(bpf.Options{PIDNamespace: ownPIDNamespace()})
	if errors.Is(err, bpf.ErrNotSupported) {
		var major, minor int
		fmt.Sscanf(bpf.Probe().Kernel, "%d.%d", &major, &minor)
		if major > 5 || major == 5 && minor >= 17 {
			t.Fatalf("this kernel is new enough: %v", err)
		}
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for d := dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "guard-bpf")
	if err := os.WriteFile(path, self, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := setHelperRights(path); err != nil {
		t.Fatal(err)
	}
	return path
}

func setHelperRights(path string) error {
	// struct vfs_cap_data of linux/capability.h, revision 2, effective.
	caps := make([]byte, 20)
	binary.LittleEndian.PutUint32(caps, 0x02000001)
	binary.LittleEndian.PutUint32(caps[12:], 1<<(unix.CAP_BPF-32)|1<<(unix.CAP_PERFMON-32))
	return unix.Setxattr(path, "security.capability", caps, 0)
}

// TestHelperWatchesItsUsersOwn asks the helper for namespaces that are not its
// user's.
func TestHelperWatchesItsUsersOwn(t *testing.T) {
	testutil.Leftovers(t)
	path := installHelper(t)
	uid := ordinaryUser(t)
	inside := exec.Command("sleep", "infinity")
	inside.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	if err := inside.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		inside.Process.Kill()
		inside.Wait()
	}()
	for _, c := range []struct {
		name string
		ask  helperAsk
		want string
	}{
		{"the machine", helperAsk{Op: "open", PID: os.Getpid()}, "not"},
		{"root's namespace", helperAsk{Op: "open", PID: inside.Process.Pid}, "not"},
		{"no process", helperAsk{Op: "open", PID: 1 << 30}, "find the session's pid namespace"},
	} {
		cmd := exec.Command(path, argHelper)
		cmd.Args[0] = "guard"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := gob.NewEncoder(in).Encode(c.ask); err != nil {
			t.Fatal(err)
		}
		var s helperSays
		err = gob.NewDecoder(out).Decode(&s)
		in.Close()
		werr := cmd.Wait()
		if err != nil || s.Err == "" || werr == nil {
			t.Errorf("%s: %q, %v, %v", c.name, s.Err, err, werr)
		}
		t.Log(c.name, ": ", s.Err)
	}
}

// TestHelperInSession has an ordinary user's session searched in the kernel.
func TestHelperInSession(t *testing.T) {
	testutil.Leftovers(t)
	path := installHelper(t)
	uid := ordinaryUser(t)
	as := testutil.AsUser(t, uid)
	value := testutil.Canary(t)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(filepath.Dir(path), "guard") // without rights
	if err := os.WriteFile(plain, self, 0o755); err != nil {
		t.Fatal(err)
	}
	guard := func(stdin string, args ...string) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), "guard", args...)
		as(c)
		c.Path, c.Err = plain, nil
		c.Args[0] = "guard"
		c.Stdin = strings.NewReader(stdin)
		c.Env = append(c.Env, "GUARD_HOME="+c.Dir+"/gh", "GUARD_KEYFILE="+c.Dir+"/key", "VALUE="+value, "GUARD_BPF_HELPER="+path)
		c.Dir = filepath.Join(c.Dir, "proj")
		if err := os.MkdirAll(c.Dir, 0o755); err != nil {
			t.Fatal(err)
		}
		var out, said bytes.Buffer // two streams, which may come in each other's lines
		c.Stdout, c.Stderr = &out, &said
		err := c.Run()
		all := out.String() + said.String()
		if err != nil {
			t.Fatalf("guard %q: %v\n%s", args, err, strings.ReplaceAll(all, value, "[value]"))
		}
		return all
	}
	guard("", "init")
	guard("", "secret", "set", "tok", "--from-env", "VALUE", "--host", "a.example.com")
	out := guard(value+"\n", "run", "-v", "--no-rotate", "--bpf", "detect", "--", "sh", "-c", `read v; echo "$v" >/tmp/seen; echo done`)
	if !strings.Contains(out, "kernel: detect") || !strings.Contains(out, ", by "+path) || !strings.Contains(out, "done\n") {
		t.Error(out)
	}
	log := guard("", "audit", "show", "--json")
	for _, want := range []string{`"type":"leak"`, `"rule":"seen in the kernel, inside the session"`, `"resource":"bpf"`} {
		if !strings.Contains(log, want) {
			t.Errorf("%s is not in the log", want)
		}
	}
}

// TestHelperIsNothingElse runs the copy that has rights as the program that it is
// a copy of.
func TestHelperIsNothingElse(t *testing.T) {
	path := installHelper(t)
	uid := ordinaryUser(t)
	for _, args := range [][]string{{"run", "--", "true"}, {"version"}, {"doctor"}, {"monitor", "--all"}, {argHelper, "x"}, nil} {
		cmd := exec.Command(path, args...)
		cmd.Args[0] = "guard"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != exitUsage || !strings.Contains(string(out), "a part of guard run, not a command") {
			t.Errorf("%q: %v, %s", args, err, out)
		}
	}
}
