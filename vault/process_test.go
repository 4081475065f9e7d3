//go:build linux

package vault

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"guard"
)

// A test may start its own binary again to be another process: see child.
func TestMain(m *testing.M) {
	if os.Getenv("GUARD_AGE_PLUGIN") != "" {
		os.Exit(agePlugin())
	}
	if name := os.Getenv("VAULT_TEST_CHILD"); name != "" {
		os.Exit(children(name))
	}
	os.Exit(m.Run())
}

// children is what this binary does when a test starts it again.
func children(name string) int {
	dir, key := os.Getenv("VAULT_TEST_DIR"), KeyFile{Path: os.Getenv("VAULT_TEST_KEY")}
	run, ok := map[string]func(dir string, key KeyFile) error{
		"writer":  childWriter,
		"full":    childFull,
		"full-fs": childFullFS,
		"step":    childStep,
		"keyring": childKeyring,
	}[name]
	if !ok {
		fmt.Println("no such child:", name)
		return 2
	}
	if err := run(dir, key); err != nil {
		fmt.Println("FAIL:", err)
		return 1
	}
	return 0
}

func child(name, dir string, key KeyFile) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	c := exec.Command(exe)
	c.Env = append(os.Environ(), "VAULT_TEST_CHILD="+name, "VAULT_TEST_DIR="+dir, "VAULT_TEST_KEY="+key.Path)
	return c
}

// childWriter sets one credential again and again, and says so each time.
func childWriter(dir string, key KeyFile) error {
	v, err := Open(dir, key)
	if err != nil {
		return err
	}
	name := os.Getenv("VAULT_TEST_NAME")
	for i := range 1000 {
		c, err := v.Set(guard.Credential{Name: name}, secret(fmt.Sprintf("%s-%s-%d", canary, name, i)))
		if err != nil {
			return err
		}
		fmt.Println("set", c.Version)
		if i+1 == atoi(os.Getenv("VAULT_TEST_COUNT")) {
			break
		}
	}
	return nil
}

func atoi(s string) (n int) {
	fmt.Sscan(s, &n)
	return n
}

// Whatever was said to be stored is there, whenever the writer was killed.
func TestKilledWriterLosesNothing(t *testing.T) {
	_, dir, key := opened(t)
	last := 0
	for round := range 25 {
		c := child("writer", dir, key)
		c.Env = append(c.Env, "VAULT_TEST_NAME=a")
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		sc := bufio.NewScanner(out)
		for n := 0; n <= round%5 && sc.Scan(); n++ {
			last = said(t, sc.Text())
		}
		// Not to wait for anything: to die at another moment of a write each time.
		time.Sleep(time.Duration(round) * 211 * time.Microsecond)
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for sc.Scan() {
			last = said(t, sc.Text())
		}
		c.Wait()
		v, err := Open(dir, key)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		vs, err := v.Versions("", "a")
		if err != nil || len(vs) < last || len(vs) > last+1 {
			t.Fatalf("round %d: %d versions where %d were stored: %v", round, len(vs), last, err)
		}
		last = len(vs)
		for _, ver := range vs {
			if s := get(t, v, "", "a", ver.Number); !strings.HasPrefix(s, canary+"-a-") {
				t.Fatalf("round %d: version %d is another value", round, ver.Number)
			}
		}
		v.Close()
	}
	if _, err := Open(dir, key); err != nil {
		t.Fatal(err)
	}
}

// What a killed writer can leave behind is no obstacle to the next one.
func TestLeftovers(t *testing.T) {
	v, dir, key := opened(t)
	set(t, v, "", "a", canary)
	file, tmp, bak := filepath.Join(dir, fileName), filepath.Join(dir, tmpName), filepath.Join(dir, bakName)
	for name, f := range map[string]func() error{
		"half a temporary file":           func() error { return os.WriteFile(tmp, []byte("GUARDVLT"), 0o600) },
		"a backup that is the file":       func() error { return errors.Join(os.Remove(bak), os.Link(file, bak)) },
		"a backup's second name":          func() error { return os.Link(file, bak+".tmp") },
		"the same with the same file":     func() error { return errors.Join(os.Remove(bak), os.Link(file, bak), os.Link(file, bak+".tmp")) },
		"no backup":                       func() error { return os.Remove(bak) },
		"a temporary file that is a link": func() error { return os.Symlink("/etc/passwd", tmp) },
	} {
		if err := f(); err != nil {
			t.Fatal(name, err)
		}
		gen := v.Generation()
		before := must(readFileOf(dir))
		set(t, v, "", "b", canary+name)
		if v.Generation() != gen+1 || get(t, reopen(t, dir, key), "", "b", 0) != canary+name {
			t.Error(name)
		}
		if string(must(os.ReadFile(bak))) != string(before) {
			t.Errorf("%s: the backup is not the generation before", name)
		}
		if n := len(must(os.ReadDir(dir))); n != 3 {
			t.Errorf("%s: %d files", name, n)
		}
	}
}

func said(t *testing.T, line string) (n int) {
	t.Helper()
	if _, err := fmt.Sscanf(line, "set %d", &n); err != nil {
		t.Fatalf("the child says %q", line)
	}
	return n
}

// Processes and goroutines that write at once lose nothing of each other's.
func TestManyWriters(t *testing.T) {
	v, dir, key := opened(t)
	const each = 10
	var wg sync.WaitGroup
	for i := range 3 {
		c := child("writer", dir, key)
		c.Env = append(c.Env, fmt.Sprintf("VAULT_TEST_NAME=p%d", i), fmt.Sprintf("VAULT_TEST_COUNT=%d", each))
		wg.Go(func() {
			if out, err := c.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	for i := range 3 {
		wg.Go(func() {
			for n := range each {
				if _, err := v.Set(guard.Credential{Name: fmt.Sprint("g", i)}, secret(fmt.Sprintf("%s-%d", canary, n))); err != nil {
					t.Error(err)
				}
				if _, err := v.Values(""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if g := v.Generation(); g != 1+6*each {
		t.Errorf("generation %d", g)
	}
	w := reopen(t, dir, key)
	for _, name := range []string{"p0", "p1", "p2", "g0", "g1", "g2"} {
		if n := len(must(w.Versions("", name))); n != each {
			t.Errorf("%s has %d versions", name, n)
		}
	}
	names := must(os.ReadDir(dir))
	if len(names) != 3 {
		t.Errorf("left behind: %v", names)
	}
}

// A writer that hangs does not hang the others for ever: it is told apart.
func TestLockIsExclusive(t *testing.T) {
	_, dir, _ := opened(t)
	unlock, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := tryLock(f); got || err != nil {
		t.Fatal("two have the lock", err)
	}
	unlock()
	if got, err := tryLock(f); !got || err != nil {
		t.Fatal("no one has the lock, and it is not to be had", err)
	}
}

// A running session sees what another process stores, at its next look.
func TestOtherProcessIsSeen(t *testing.T) {
	v, dir, key := opened(t)
	set(t, v, "", "a", canary)
	gen := v.Generation()
	c := child("writer", dir, key)
	c.Env = append(c.Env, "VAULT_TEST_NAME=a", "VAULT_TEST_COUNT=1")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if v.Generation() != gen+1 || get(t, v, "", "a", 0) != canary+"-a-0" || len(must(v.Values(""))) != 3 {
		t.Fatal("not seen")
	}
}

// A disk that is full, wherever in a write, leaves what was there.
func TestFullDiskKeepsTheOldFile(t *testing.T) {
	v, dir, key := opened(t)
	set(t, v, "", "a", canary)
	before := must(readFileOf(dir))
	out, err := child("full", dir, key).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if string(must(readFileOf(dir))) != string(before) || get(t, v, "", "a", 0) != canary {
		t.Fatal("the old file is gone")
	}
	if _, err := os.Stat(filepath.Join(dir, tmpName)); !errors.Is(err, os.ErrNotExist) {
		t.Fatal("half a file is left")
	}
	set(t, v, "", "a", canary+"2") // and with room again, it goes on
}
