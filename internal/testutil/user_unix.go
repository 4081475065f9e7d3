//go:build unix

package testutil

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// AsUser returns a function that has a command run as the ordinary user uid
// (and the group of the same number, with no others), with a HOME, an
// XDG_RUNTIME_DIR and a TMPDIR of its own, all below one folder that uid owns
// and that is gone after the test. The command's Env is replaced by these,
// PATH, USER, and the variables of Env other than them. Dir, if none is set, is HOME.
//
// It works for root only; for anybody else the command runs as who runs the
// test, with the same folders.
func AsUser(t testing.TB, uid int) func(*exec.Cmd) {
	t.Helper()
	if uid <= 0 {
		t.Fatalf("uid %d is no ordinary user's", uid)
	}
	// Not t.TempDir: the folders above it are closed to others.
	base, err := os.MkdirTemp("", "guard-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(base); err != nil {
			t.Error(err)
		}
	})
	root := os.Geteuid() == 0
	own := map[string]string{
		"HOME": filepath.Join(base, "home"), "XDG_RUNTIME_DIR": filepath.Join(base, "run"), "TMPDIR": filepath.Join(base, "tmp"),
	}
	dirs := []string{base}
	for _, dir := range own {
		dirs = append(dirs, dir)
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if root {
			if err := os.Chown(dir, uid, uid); err != nil {
				t.Fatal(err)
			}
		}
	}
	own["PATH"] = os.Getenv("PATH")
	own["USER"] = "user" + strconv.Itoa(uid)
	return func(cmd *exec.Cmd) {
		env := cmd.Env
		cmd.Env = nil
		for _, kv := range env {
			if name, _, _ := strings.Cut(kv, "="); own[name] == "" {
				cmd.Env = append(cmd.Env, kv)
			}
		}
		for name, value := range own {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
		if cmd.Dir == "" {
			cmd.Dir = own["HOME"]
		}
		if !root {
			return
		}
		if cmd.SysProcAttr == nil {
			cmd.SysProcAttr = &syscall.SysProcAttr{}
		}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid), Groups: []uint32{}}
	}
}
