//go:build linux

package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// replaceFile does what editors do: a new file, renamed over the old one.
func replaceFile(t *testing.T, path, content string) {
	t.Helper()
	err := os.WriteFile(path+"~", []byte(content), 0o644)
	if err == nil {
		err = os.Rename(path+"~", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestMaskDuringSession(t *testing.T) {
	w := newWorld(t)
	env := filepath.Join(w.dir, ".env")
	rc := filepath.Join(w.home, ".npmrc")
	for _, p := range []string{env, rc} {
		replaceFile(t, p, canary)
	}
	w.c.Files = []File{{Path: env, Content: []byte("shown-0")}}
	inR, in, _ := os.Pipe()
	out, outW, _ := os.Pipe()
	w.c.Stdin, w.c.Stdout, w.c.Stderr = inR, outW, outW
	defer out.Close()
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	s := w.start(t, w.attack("live")...)
	inR.Close()
	outW.Close()
	lines := bufio.NewScanner(out)
	lines.Scan()
	if lines.Text() != "ready <nil>" {
		t.Errorf("programs that make mounts private fail: %s", lines.Text())
	}
	look := func(path, want string) {
		t.Helper()
		fmt.Fprintln(in, path)
		if !lines.Scan() {
			t.Fatal("the agent is gone")
		}
		self, nested, _ := strings.Cut(lines.Text(), " | ")
		prefix := fmt.Sprintf("%q <nil>", want)
		if !strings.HasPrefix(self, prefix) || !strings.HasPrefix(nested, prefix) || want != canary && strings.Contains(lines.Text(), canary) {
			t.Errorf("%s shows %s, want %q", path, lines.Text(), want)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	look(env, "shown-0")
	for _, next := range []string{"shown-1", "shown-2, which is longer", "shown"} {
		replaceFile(t, env, canary)
		look(env, canary) // the kernel dropped the mask: what this is all about
		do(s.Mask(File{Path: env, Content: []byte(next)}))
		look(env, next)
		do(s.Mask(File{Path: env, Content: []byte(next + "+"), Mode: 0o400})) // still there
		look(env, next+"+")
		do(s.Mask(File{Path: env, Content: []byte(next)}))
		look(env, next)
	}
	do(s.Hide(env))
	look(env, "")

	// Paths that had no mask before, one of them on the overlay.
	made := filepath.Join(w.dir, "a", "b", "made")
	os.MkdirAll(filepath.Dir(made), 0o755)
	replaceFile(t, made, canary)
	look(made, canary)
	do(s.Mask(File{Path: made, Content: []byte("placeholder")}))
	look(made, "placeholder")
	do(s.Mask(File{Path: rc, Content: []byte("token=")}))
	look(rc, "token=")
	secrets := filepath.Join(w.dir, "secrets")
	os.Mkdir(secrets, 0o755)
	replaceFile(t, filepath.Join(secrets, "key"), canary)
	do(s.Hide(secrets))
	do(s.Hide(secrets))
	fmt.Fprintln(in, filepath.Join(secrets, "key"))
	lines.Scan()
	if strings.Contains(lines.Text(), canary) {
		t.Error(lines.Text())
	}

	// The agent swaps a folder for a link; what is gone; what is no file.
	if err := os.Rename(filepath.Join(w.dir, "a"), filepath.Join(w.dir, "c")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(w.home, filepath.Join(w.dir, "a")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(rc, filepath.Join(w.dir, "link")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		filepath.Join(w.dir, "a", ".npmrc"): unix.ELOOP, filepath.Join(w.dir, "link"): unix.ELOOP, filepath.Join(w.dir, "missing"): fs.ErrNotExist,
		"relative": nil, w.dir: unix.EISDIR, "/": unix.EINVAL, "/proc/self/cwd/.env": unix.ELOOP,
	} {
		if err := s.Mask(File{Path: path, Content: []byte("x")}); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
	look(rc, "token=")
	look(filepath.Join(w.dir, "c", "b", "made"), "placeholder")

	// The host has what it had.
	for _, p := range []string{env, rc, filepath.Join(secrets, "key")} {
		if b, _ := os.ReadFile(p); string(b) != canary {
			t.Errorf("%s on the host: %q", p, b)
		}
	}
	if now, _ := os.ReadFile("/proc/self/mountinfo"); string(now) != string(mounts) {
		t.Errorf("mounts came out of the session: %s", now)
	}
	in.Close()
	io.Copy(io.Discard, out)
	last(t, s)
	if err := s.Mask(File{Path: env}); err == nil {
		t.Error("masked in a session that is over")
	}
}

// A namespace that the agent makes after the mask has it locked as well.
func TestLiveMaskIsLocked(t *testing.T) {
	for _, attack := range []string{"hidden", "unmask"} {
		w := newWorld(t)
		p := filepath.Join(w.dir, "config", ".env")
		os.Mkdir(filepath.Dir(p), 0o755)
		replaceFile(t, p, canary)
		inR, in, _ := os.Pipe()
		out, outW, _ := os.Pipe()
		w.c.Stdin, w.c.Stdout, w.c.Stderr = inR, outW, outW
		s := w.start(t, append([]string{"sh", "-c", `read x; exec "$@"`, "sh"}, w.attack(attack, p, canary)...)...)
		inR.Close()
		outW.Close()
		if err := s.Mask(File{Path: p, Content: []byte("placeholder")}); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(in, "go")
		in.Close()
		b, _ := io.ReadAll(out)
		out.Close()
		if strings.Contains(string(b), "BROKEN") || !strings.Contains(string(b), "held") {
			t.Errorf("%s: %s", attack, b)
		}
		last(t, s)
	}
}

func TestMaskNeedsNamespaces(t *testing.T) {
	w := newWorld(t)
	w.c.Boundary = "none"
	s := w.start(t, "true")
	if err := s.Mask(File{Path: filepath.Join(w.dir, ".env")}); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}
