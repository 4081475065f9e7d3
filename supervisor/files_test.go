package supervisor

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"guard"
	"guard/internal/testutil"
)

// watched is a Files at work on a temporary folder.
type watched struct {
	*Files
	dir  string
	ev   *events
	mu   sync.Mutex
	kept map[string][]byte
	said []string
	stop func() error
}

func watch(t *testing.T, prepare func(dir string), change ...func(*Files)) *watched {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if prepare != nil {
		prepare(dir)
	}
	line, ev := newLine(t, guard.Redact)
	w := &watched{dir: dir, ev: ev, kept: map[string][]byte{}}
	w.Files = &Files{
		Root: dir, Line: line,
		Keep: func(path string, whole []byte, spans []Span, found []guard.Leak) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.kept[path] = bytes.Clone(whole)
			for _, s := range spans {
				w.kept[path] = append(w.kept[path], s.Bytes...)
			}
			if len(found) == 0 {
				t.Error("kept without a leak")
			}
			return nil
		},
		Say: func(s string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.said = append(w.said, s)
		},
	}
	for _, c := range change {
		c(w.Files)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- w.Run(ctx, ready) }()
	<-ready
	w.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		if err := w.stop(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *watched) path(name string) string { return filepath.Join(w.dir, name) }

func (w *watched) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(w.path(name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.path(name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (w *watched) clean(name string) bool {
	b, err := os.ReadFile(w.path(name))
	return err == nil && !bytes.Contains(b, []byte(canary))
}

func (w *watched) leaks() []guard.Leak {
	w.ev.mu.Lock()
	defer w.ev.mu.Unlock()
	return append([]guard.Leak(nil), w.ev.leaks...)
}

func TestFileIsRedactedInPlace(t *testing.T) {
	w := watch(t, nil)
	text := "a\ntoken=" + canary + "\nz\n"
	w.write(t, "notes.txt", text)
	if err := os.Link(w.path("notes.txt"), w.path("other-name.txt")); err != nil {
		t.Fatal(err)
	}
	testutil.WaitFor(t, "the redaction", func() bool { return w.clean("notes.txt") })
	b, _ := os.ReadFile(w.path("notes.txt"))
	if len(b) != len(text) || !strings.HasPrefix(string(b), "a\ntoken=") || !strings.HasSuffix(string(b), "\nz\n") {
		t.Fatalf("%q", b)
	}
	if !w.clean("other-name.txt") {
		t.Fatal("a hard link still has the value")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if string(w.kept[w.path("notes.txt")])+string(w.kept[w.path("other-name.txt")]) != text {
		t.Fatal("the original was not kept")
	}
}

// Folders made during the session, one in the other, with files in them before
// anybody can watch them.
func TestNewFolders(t *testing.T) {
	w := watch(t, nil)
	for _, name := range []string{"a/b/c/d.txt", "e/f.txt", "e/g/h.txt"} {
		w.write(t, name, canary)
	}
	testutil.WaitFor(t, "the redaction of all", func() bool { return w.clean("a/b/c/d.txt") && w.clean("e/f.txt") && w.clean("e/g/h.txt") })
}

// What is written as the session ends is found all the same.
func TestLastWrite(t *testing.T) {
	for range 20 {
		w := watch(t, nil)
		w.write(t, "last.txt", canary)
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
		if !w.clean("last.txt") {
			t.Fatal("the last file still has the value")
		}
	}
}

func TestEncodedInFile(t *testing.T) {
	w := watch(t, nil)
	out, err := exec.Command("sh", "-c", "printf %s '"+canary+"' | base64 -w0 > "+w.path("b64")).CombinedOutput()
	if err != nil {
		t.Fatal(string(out))
	}
	testutil.WaitFor(t, "a leak", func() bool { return len(w.leaks()) > 0 })
	if l := w.leaks()[0]; l.Encoding != "base64" || l.Channel != guard.ChannelFile || l.Path != w.path("b64") {
		t.Fatalf("%+v", l)
	}
}

// The user's own file, that held the value before, is never changed.
func TestKnownFileIsLeftAlone(t *testing.T) {
	var replaced []string
	var mu sync.Mutex
	w := watch(t, func(dir string) { os.WriteFile(filepath.Join(dir, ".env"), []byte(canary), 0o600) }, func(f *Files) {
		f.Known = []string{filepath.Join(f.Root, ".env")}
		f.Replaced = func(p string, _ *os.File) { mu.Lock(); defer mu.Unlock(); replaced = append(replaced, p) }
	})
	w.write(t, ".env.new", "x")
	if err := os.WriteFile(w.path(".env.tmp"), []byte(strings.Repeat("y", 40)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(w.path(".env.tmp"), w.path(".env")); err != nil {
		t.Fatal(err)
	}
	testutil.WaitFor(t, "word that it was replaced", func() bool { mu.Lock(); defer mu.Unlock(); return len(replaced) == 1 })
	w.write(t, ".env", canary)
	w.write(t, "end.txt", canary)
	testutil.WaitFor(t, "the end", func() bool { return w.clean("end.txt") })
	if w.clean(".env") {
		t.Fatal("the user's file was changed")
	}
}

// A folder above a known file is replaced as a whole.
func TestReplacedFolder(t *testing.T) {
	replaced := make(chan string, 10)
	w := watch(t, func(dir string) {
		for _, d := range []string{"conf", "conf.new"} {
			if err := os.MkdirAll(filepath.Join(dir, d, "sub"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, d, "sub", ".env"), []byte(canary), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}, func(f *Files) {
		f.Known = []string{filepath.Join(f.Root, "conf/sub/.env"), filepath.Join(f.Root, "conf.new/sub/.env")}
		f.Replaced = func(p string, _ *os.File) { replaced <- p }
	})
	for _, r := range [][2]string{{"conf", "conf.old"}, {"conf.new", "conf"}} {
		if err := os.Rename(w.path(r[0]), w.path(r[1])); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-replaced; got != w.path("conf/sub/.env") {
		t.Fatal(got)
	}
}

func TestGitIsReportedAndLeft(t *testing.T) {
	w := watch(t, nil)
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Dir, cmd.Env = w.dir, testutil.GitEnv(w.dir)
		cmd.Stdin = strings.NewReader("password " + canary)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %s", args, out)
		}
	}
	run("init", "-q", ".")
	run("hash-object", "-w", "--stdin")
	testutil.WaitFor(t, "the object's leak", func() bool {
		for _, l := range w.leaks() {
			if strings.Contains(l.Path, "/.git/objects/") {
				return true
			}
		}
		return false
	})
	run("fsck", "--full")
	w.ev.mu.Lock()
	defer w.ev.mu.Unlock()
	for i, l := range w.ev.leaks {
		if strings.Contains(l.Path, ".git") && w.ev.did[i].Action != guard.Block {
			t.Fatalf("%v for %s", w.ev.did[i].Action, l.Path)
		}
	}
}

func TestNamesAndLinksAreJudged(t *testing.T) {
	w := watch(t, nil)
	w.write(t, canary, "x")
	testutil.WaitFor(t, "the name's leak", func() bool { return len(w.leaks()) == 1 })
	if err := os.Symlink("/nowhere/"+canary, w.path("link")); err != nil {
		t.Fatal(err)
	}
	testutil.WaitFor(t, "the link's leak", func() bool { return len(w.leaks()) == 2 })
	for _, l := range w.leaks() {
		if strings.Contains(l.Path, canary) {
			t.Fatal("the record's path is the value")
		}
	}
}

// A mode of 000 keeps neither the agent nor guard out, whose uid is the same.
func TestModeDoesNotHide(t *testing.T) {
	w := watch(t, nil)
	if err := os.WriteFile(w.path("shut"), []byte(canary), 0o000); err != nil {
		t.Fatal(err)
	}
	testutil.WaitFor(t, "the leak", func() bool { return len(w.leaks()) > 0 })
	testutil.WaitFor(t, "the mode", func() bool { fi, err := os.Stat(w.path("shut")); return err == nil && fi.Mode().Perm() == 0 })
}

// Between the event and the scan a parent becomes a symlink out of the folder:
// guard, which is outside of the boundary, must not follow it.
func TestSwappedParentIsNotFollowed(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(outside, []byte(canary), 0o644); err != nil {
		t.Fatal(err)
	}
	w := watch(t, nil)
	for range 50 {
		w.write(t, "d/file", canary)
		if err := os.RemoveAll(w.path("d")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Dir(outside), w.path("d")); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(w.path("d")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Dir(outside), w.path("d")); err != nil {
		t.Fatal(err)
	}
	w.write(t, "end.txt", canary)
	testutil.WaitFor(t, "the end", func() bool { return w.clean("end.txt") })
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(outside); string(b) != canary {
		t.Fatal("a file outside of the folder was changed")
	}
}

func TestNoPlaceNoChange(t *testing.T) {
	w := watch(t, nil, func(f *Files) {
		f.Keep = func(string, []byte, []Span, []guard.Leak) error { return os.ErrPermission }
	})
	w.write(t, "f", canary)
	testutil.WaitFor(t, "word of the failure", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.said) > 0
	})
	if w.clean("f") {
		t.Fatal("a file was changed whose original could not be kept")
	}
	testutil.WaitFor(t, "the escape's record", func() bool { return len(w.leaks()) == 2 })
}

// The agent makes the path of a known file lead to a file outside, or to one that
// never opens, and has guard look at it.
func TestReplacedLeadsNowhere(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(outside, []byte("[default]\n"+canary), 0o600); err != nil {
		t.Fatal(err)
	}
	given := make(chan string, 100)
	w := watch(t, func(dir string) {
		os.Mkdir(filepath.Join(dir, "config"), 0o755)
		os.WriteFile(filepath.Join(dir, "config", ".env"), []byte(canary), 0o600)
	}, func(f *Files) {
		f.Known = []string{filepath.Join(f.Root, "config/.env")}
		f.Replaced = func(p string, file *os.File) {
			if file == nil {
				given <- "nothing"
				return
			}
			b := make([]byte, 100)
			n, _ := file.Read(b)
			given <- string(b[:n])
		}
	})
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(os.Rename(w.path("config"), w.path("old")))
	do(os.Mkdir(w.path("new"), 0o755))
	do(os.Symlink(outside, w.path("new/.env")))
	do(os.Rename(w.path("new"), w.path("config")))
	if got := <-given; got != "nothing" {
		t.Fatalf("guard read %q", got)
	}
	do(os.RemoveAll(w.path("config")))
	do(os.Mkdir(w.path("new"), 0o755))
	do(exec.Command("mkfifo", w.path("new/.env")).Run())
	do(os.Rename(w.path("new"), w.path("config")))
	if got := <-given; got != "nothing" {
		t.Fatalf("guard read %q", got)
	}
	// And what the agent writes under the known name in a folder of its own is a leak.
	do(os.RemoveAll(w.path("config")))
	w.write(t, "config/.env", canary)
	testutil.WaitFor(t, "the redaction", func() bool { return w.clean("config/.env") })
}

// A file full of a value is masked, and does not keep guard from the next.
func TestManyInOneFile(t *testing.T) {
	w := watch(t, nil)
	w.write(t, "many", strings.Repeat(canary+"\n", 20000))
	w.write(t, "next", canary)
	testutil.WaitFor(t, "both redactions", func() bool { return w.clean("many") && w.clean("next") })
	if n := len(w.leaks()); n > 3*maxRecords {
		t.Fatalf("%d records", n)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := len(w.kept[w.path("many")]); got != 20000*len(canary) {
		t.Fatalf("%d bytes kept of large file", got)
	}
}
