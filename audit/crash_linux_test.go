package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func limitFileSize(s string) {
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
			panic(err)
		}
	}
}

// A writer is killed at a random point, 50 times on the same log: no record
// that Append acknowledged is lost, and the log verifies before and after healing.
func TestKilledWriter(t *testing.T) {
	dir := t.TempDir()
	acked := map[uint64]bool{}
	running := open(t, dir) // heals in Append what others left; every other round Open does
	for round := range 50 {
		// A file is closed every few records: many are killed while one is.
		c := child(t, dir, 0, 1+round%4, "AUDIT_TEST_SEGMENT=1500")
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		br := bufio.NewReader(out)
		left := 1 + rand.IntN(30)
		for {
			line, err := br.ReadString('\n')
			if err != nil {
				break
			}
			seq, err := strconv.ParseUint(strings.TrimSpace(line), 10, 64)
			if err != nil {
				t.Fatalf("round %d: child said %q", round, line)
			}
			acked[seq] = true
			if left--; left == 0 {
				if err := c.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := c.Wait(); err == nil {
			t.Fatal("the child ended by itself")
		}
		if _, err := Verify(dir, ""); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if round%2 == 0 {
			acked[mustAppend(t, running, use(round))] = true
		}
	}
	mustClose(t, running)
	l := open(t, dir)
	mustAppend(t, l, use(0))
	mustClose(t, l)
	rep := mustVerify(t, dir)
	if rep.Files < 10 {
		t.Errorf("only %d files", rep.Files)
	}
	if rep.Pending != 0 || rep.Torn != 0 {
		t.Errorf("not healed: %+v", rep)
	}
	for seq := range acked {
		if seq > rep.Records {
			t.Fatalf("record %d was acknowledged, and the log has %d", seq, rep.Records)
		}
	}
	// Records not acknowledged are at most the last group of each round, and notes.
	if extra := int(rep.Records) - len(acked); extra > 50*(4+1)+50*4+1 {
		t.Errorf("%d records that nobody was told of", extra)
	}
}

// killedAt makes a log whose last commit was killed when keep bytes of its
// lines were written.
func killedAt(t *testing.T, keep int) (dir string, total int) {
	t.Helper()
	dir = t.TempDir()
	l := open(t, dir)
	mustAppend(t, l, use(0))
	mustAppend(t, l, use(1))
	before, err := os.ReadFile(filepath.Join(dir, checkpointFile))
	if err != nil {
		t.Fatal(err)
	}
	old := l.at
	if _, _, err := l.write([]Record{clean(use(2)), clean(use(3)), clean(use(4))}); err != nil {
		t.Fatal(err)
	}
	total = int(l.at.bytes - old.bytes)
	mustClose(t, l)
	err = errors.Join(
		os.Rename(filepath.Join(dir, checkpointFile), filepath.Join(dir, pendingFile)),
		os.WriteFile(filepath.Join(dir, checkpointFile), before, 0o600),
		os.Truncate(filepath.Join(dir, logFile), old.bytes+int64(keep)))
	if err != nil {
		t.Fatal(err)
	}
	return dir, total
}

// A commit cut short anywhere is healed: whole records stay, the torn one
// goes, and a note says so.
func TestTornAnywhere(t *testing.T) {
	_, total := killedAt(t, 0)
	for _, keep := range cuts(total) {
		dir, _ := killedAt(t, keep)
		b, err := os.ReadFile(filepath.Join(dir, logFile))
		if err != nil {
			t.Fatal(err)
		}
		whole := bytes.Count(b, []byte("\n"))
		torn := len(b) - bytes.LastIndexByte(b, '\n') - 1
		if rep := mustVerify(t, dir); int(rep.Pending) != whole-2 || int(rep.Torn) != torn {
			t.Fatalf("keep %d: before healing: %+v", keep, rep)
		}
		l := open(t, dir)
		mustAppend(t, l, use(9))
		mustClose(t, l)
		mustVerify(t, dir)
		got := records(t, dir, Filter{})
		want := whole + 1
		if keep > 0 {
			want++
			note := got[whole]
			if note.Type != TypeHealed || int(note.Bytes) != torn {
				t.Fatalf("keep %d: note %+v", keep, note)
			}
		}
		if len(got) != want || got[len(got)-1].Credential != use(9).Credential {
			t.Fatalf("keep %d: %d records, want %d", keep, len(got), want)
		}
	}
}

// Where the killed commit's pending is not there, whole lines are not taken in
// (anyone could have written them), and a torn one is cut.
func TestUnannouncedTail(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	mustAppend(t, l, use(0))
	mustClose(t, l)
	add := func(s string) {
		f, err := os.OpenFile(filepath.Join(dir, logFile), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(s); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	add(`{"time":"2026-`)
	if _, err := Verify(dir, ""); !errors.Is(err, ErrTampered) {
		t.Errorf("verify: %v", err)
	}
	mustClose(t, open(t, dir))
	if got := records(t, dir, Filter{}); len(got) != 2 || got[1].Type != TypeHealed || got[1].Bytes != 14 {
		t.Fatalf("healed to %+v", got)
	}
	add("{\"seq\":3}\n")
	var te *TamperError
	if _, err := Open(dir, testKey(1), nil); !errors.As(err, &te) || te.Seq != 3 {
		t.Errorf("open took in a forged line: %v", err)
	}
	if got := records(t, dir, Filter{}); len(got) != 2 {
		t.Errorf("read shows a forged line: %+v", got[2:])
	}
}

// A full disk refuses in words, the log stays valid, and goes on after.
func TestFullDisk(t *testing.T) {
	for _, limit := range []int{100, 700, 5000, 5001, 5100, 5200, 9999} {
		dir := t.TempDir()
		mustClose(t, open(t, dir))
		c := child(t, dir, 0, 3, fmt.Sprint("AUDIT_TEST_FSIZE=", limit))
		out, _ := c.Output()
		if c.ProcessState.ExitCode() != 3 && !bytes.Contains(out, []byte("open:")) {
			t.Fatalf("limit %d: %v, %s", limit, c.ProcessState, out)
		}
		if !bytes.Contains(out, []byte("full=true")) && limit > 100 || !bytes.Contains(out, []byte("free space")) {
			t.Errorf("limit %d: %s", limit, out)
		}
		n := uint64(bytes.Count(out, []byte("\n"))) - 1
		rep := mustVerify(t, dir)
		if rep.Records < n || rep.Torn != 0 {
			t.Errorf("limit %d: acknowledged %d, log has %+v", limit, n, rep)
		}
		l := open(t, dir)
		mustAppend(t, l, use(0))
		mustClose(t, l)
		mustVerify(t, dir)
	}
}

// The same on a file system that is really full.
func TestFullFileSystem(t *testing.T) {
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=65536")
	if errors.Is(err, syscall.EPERM) {
		t.Skip("mounting needs CAP_SYS_ADMIN")
	} else if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	ballast, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(ballast, zeros{}, 30000); err != nil {
		t.Fatal(err)
	}
	ballast.Close()
	l := open(t, dir)
	n := 0
	for {
		if _, err = l.Append(use(n)); err != nil {
			break
		}
		n++
	}
	if !errors.Is(err, ErrFull) || !errors.Is(err, syscall.ENOSPC) || n == 0 {
		t.Fatalf("after %d records: %v", n, err)
	}
	if rep := mustVerify(t, dir); int(rep.Records) != n || rep.Torn != 0 {
		t.Errorf("acknowledged %d, log has %+v", n, rep)
	}
	if err := os.Remove(ballast.Name()); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, use(n))
	mustClose(t, l)
	if rep := mustVerify(t, dir); int(rep.Records) != n+1 {
		t.Errorf("%+v", rep)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// cuts are places in a commit of total bytes: many, and both of its ends.
func cuts(total int) (out []int) {
	for n := 0; n < total-1; n += 31 {
		out = append(out, n)
	}
	return append(out, 1, total-1, total)
}
