package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"guard/internal/testutil"
)

// What is remembered of a process holds for that process and that program alone.
func TestAboutAProcess(t *testing.T) {
	file := func(path string) []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	sum := func(path string) string {
		h := sha256.Sum256(file(path))
		return hex.EncodeToString(h[:])
	}
	tail, err := filepath.EvalSymlinks("/usr/bin/tail")
	if err != nil {
		t.Fatal(err)
	}
	cat, _ := filepath.EvalSymlinks("/usr/bin/cat")
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.WriteFile(copied, file(tail), 0o755); err != nil {
		t.Fatal(err)
	}
	// A process that is a shell, until a line comes, then cat.
	cmd := exec.Command("/bin/sh", "-c", "echo up; read x; exec "+cat)
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); cmd.Process.Kill(); cmd.Wait() }()
	pid := cmd.Process.Pid
	fmt.Fscanln(out)
	sh := exeOf(pid)
	p := &processes{}
	for range 3 {
		hash, above := p.about(pid, sh, 1)
		if hash != sum(sh) || !strings.Contains(above, fmt.Sprintf("[%d]", os.Getpid())) {
			t.Fatalf("%q %q", hash, above)
		}
	}
	if hash, above := p.about(pid, cat, 1); hash != "" || above != "" {
		t.Errorf("%q %q for a program that it is not", hash, above)
	}
	if hash, _ := p.about(pid, sh+deleted, 1); hash != sum(sh) {
		t.Error("a program whose file is gone has another name, and is the same")
	}
	fmt.Fprintln(in, "go on")
	testutil.WaitFor(t, "it becomes cat", func() bool { return exeOf(pid) == cat })
	if hash, above := p.about(pid, sh, 1); hash != "" || above != "" {
		t.Errorf("%q %q: the program that it was is told of by what is remembered", hash, above)
	}
	if hash, _ := p.about(pid, cat, 1); hash != sum(cat) {
		t.Errorf("%q is not the hash of what it is now", hash)
	}
	if hash, _ := p.about(pid, "cat", 1); hash != sum(cat) { // a name alone says nothing else
		t.Errorf("%q", hash)
	}

	// Another process of that id: what was remembered has another folder.
	p.mu.Lock()
	k := p.known[pid]
	k.proc.ino--
	k.hash = "of the other one"
	p.known[pid] = k
	p.mu.Unlock()
	if hash, _ := p.about(pid, cat, 1); hash != sum(cat) {
		t.Errorf("%q is of a process that had the id before", hash)
	}

	// A program whose file is written over.
	run := func() *exec.Cmd {
		c := exec.Command(copied, "-f", "/dev/null")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		testutil.WaitFor(t, "it runs", func() bool { return exeOf(c.Process.Pid) == copied })
		return c
	}
	c := run()
	if hash, _ := p.about(c.Process.Pid, copied, 1); hash != sum(copied) {
		t.Errorf("%q", hash)
	}
	c.Process.Kill()
	c.Wait()
	if hash, above := p.about(c.Process.Pid, copied, 1); hash != "" || above != "" {
		t.Errorf("%q %q of a process that is gone", hash, above)
	}
	if err := os.WriteFile(copied, append(file(tail), 0), 0o755); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	os.Chtimes(copied, later, later)
	c = run()
	defer func() { c.Process.Kill(); c.Wait() }()
	if hash, _ := p.about(c.Process.Pid, copied, 1); hash != sum(copied) {
		t.Errorf("%q is not of what the file holds now", hash)
	}
	if hash, _ := p.about(0, copied, 1); hash != "" {
		t.Error("of nobody")
	}
	for i := range maxKnown {
		p.known[1<<23+i] = known{}
	}
	if p.about(os.Getpid(), "", 1); len(p.known) > maxKnown {
		t.Errorf("%d are remembered", len(p.known))
	}
}

func BenchmarkAbout(b *testing.B) {
	p := &processes{}
	pid, exe := os.Getpid(), exeOf(os.Getpid())
	b.Run("before", func(b *testing.B) {
		for b.Loop() {
			p.hash(pid)
			ancestors(pid, 1)
		}
	})
	b.Run("now", func(b *testing.B) {
		for b.Loop() {
			p.about(pid, exe, 1)
		}
	})
}
