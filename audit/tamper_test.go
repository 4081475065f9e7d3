package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// small makes a log of n records and returns its files.
func small(t testing.TB, n int) (dir string, files map[string][]byte) {
	t.Helper()
	dir = t.TempDir()
	l := open(t, dir)
	for i := range n {
		mustAppend(t, l, use(i))
	}
	mustClose(t, l)
	return dir, load(t, dir)
}

func load(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == lockFile {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = b
	}
	return files
}

func put(t testing.TB, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// tampered verifies dir and wants it refused, in file, at seq (0: any).
func tampered(t *testing.T, what, dir, file string, seq int) *TamperError {
	t.Helper()
	_, err := Verify(dir, "")
	var e *TamperError
	if !errors.Is(err, ErrTampered) || !errors.As(err, &e) {
		t.Fatalf("%s: not found out: %v", what, err)
	}
	if file != "" && e.File != file || seq > 0 && int(e.Seq) != seq {
		t.Fatalf("%s: found in %s at %d, want %s at %d: %v", what, e.File, e.Seq, file, seq, err)
	}
	if e.File == logFile && e.Line != int64(e.Seq) {
		t.Fatalf("%s: line %d is not record %d", what, e.Line, e.Seq)
	}
	return e
}

func TestEveryByteFlipped(t *testing.T) {
	dir, files := small(t, 3)
	for name, b := range files {
		for i := range b {
			for _, x := range []byte{0x01, 0x20} {
				m := bytes.Clone(b)
				m[i] ^= x
				put(t, dir, name, m)
				what := fmt.Sprintf("%s byte %d ^ %#x", name, i, x)
				switch name {
				case logFile:
					tampered(t, what, dir, logFile, 1+bytes.Count(b[:i], []byte("\n")))
				case hashFile:
					level, n := tlog.SplitStoredHashIndex(int64(i / tlog.HashSize))
					tampered(t, what, dir, hashFile, int((n+1)<<level))
				case checkpointFile:
					tampered(t, what, dir, checkpointFile, 0)
				default:
					tampered(t, what, dir, "", 0)
				}
			}
		}
		put(t, dir, name, b)
	}
	mustVerify(t, dir)
}

func TestRecordsDroppedSwappedRepeated(t *testing.T) {
	dir, files := small(t, 9)
	lines := bytes.SplitAfter(files[logFile], []byte("\n"))
	lines = lines[:len(lines)-1]
	write := func(ls ...[][]byte) {
		var b []byte
		for _, l := range ls {
			b = append(b, bytes.Join(l, nil)...)
		}
		put(t, dir, logFile, b)
	}
	words := func(e *TamperError, w string) {
		t.Helper()
		if !strings.Contains(e.Error(), w) {
			t.Errorf("want %q in %v", w, e)
		}
	}
	for i := range lines {
		write(lines[:i], lines[i+1:])
		e := tampered(t, fmt.Sprint("drop ", i+1), dir, logFile, i+1)
		if i < len(lines)-1 {
			words(e, "deleted")
		} else {
			words(e, "truncated")
		}
		write(lines[:i+1], lines[i:])
		words(tampered(t, fmt.Sprint("repeat ", i+1), dir, logFile, i+2), "guard did not write")
		write(lines[:i], [][]byte{[]byte("{\"seq\":1}\n")}, lines[i:])
		words(tampered(t, fmt.Sprint("insert at ", i+1), dir, logFile, i+1), "guard did not write")
		if i > 0 {
			write(lines[:i], nil)
			words(tampered(t, fmt.Sprint("truncate after ", i), dir, logFile, i+1), "truncated")
		}
		for j := i + 1; j < len(lines); j++ {
			m := append([][]byte(nil), lines...)
			m[i], m[j] = m[j], m[i]
			write(m)
			e := tampered(t, fmt.Sprintf("swap %d and %d", i+1, j+1), dir, logFile, i+1)
			if j == i+1 {
				words(e, "changed places")
			}
		}
	}
	put(t, dir, logFile, nil)
	words(tampered(t, "empty", dir, logFile, 1), "truncated")
	for cut := 1; cut < len(files[logFile]); cut += 13 {
		put(t, dir, logFile, files[logFile][:cut])
		tampered(t, fmt.Sprint("cut to ", cut), dir, logFile, 1+bytes.Count(files[logFile][:cut], []byte("\n")))
		if _, err := Open(dir, testKey(1), nil); !errors.Is(err, ErrTampered) {
			t.Fatalf("Open took a log cut to %d: %v", cut, err)
		}
	}
}

// Who changes the hashes to match is still found, though not where.
func TestHashesChangedToMatch(t *testing.T) {
	dir, files := small(t, 8)
	forged := bytes.Replace(files[logFile], []byte("github-pat-3"), []byte("github-pat-x"), 1)
	var tr tree
	var hashes []byte
	for _, line := range bytes.Split(bytes.TrimSuffix(forged, []byte("\n")), []byte("\n")) {
		for _, h := range tr.add(tlog.RecordHash(line)) {
			hashes = append(hashes, h[:]...)
		}
	}
	put(t, dir, logFile, forged)
	put(t, dir, hashFile, hashes)
	tampered(t, "log and hashes", dir, logFile, 1)
	if _, err := Open(dir, testKey(1), nil); !errors.Is(err, ErrTampered) {
		t.Errorf("Open took it: %v", err)
	}
}

func TestHashesFile(t *testing.T) {
	dir, files := small(t, 8)
	h := files[hashFile]
	for what, b := range map[string][]byte{"empty": nil, "short": h[:len(h)-1], "long": append(bytes.Clone(h), 0)} {
		put(t, dir, hashFile, b)
		tampered(t, what, dir, hashFile, 0)
	}
	// The records are intact, so that Open can make the hashes again, and says so.
	put(t, dir, hashFile, h[:40])
	mustClose(t, open(t, dir))
	got := records(t, dir, Filter{Type: TypeHealed})
	if mustVerify(t, dir); len(got) != 1 || !strings.Contains(got[0].Reason, "hashes") {
		t.Errorf("notes %+v", got)
	}
}

func TestSplicedLogs(t *testing.T) {
	dir, a := small(t, 6)
	_, b := small(t, 6) // the same key and records, other times
	cutA, cutB := bytes.SplitAfter(a[logFile], []byte("\n")), bytes.SplitAfter(b[logFile], []byte("\n"))
	for i := range 6 {
		put(t, dir, logFile, append(bytes.Join(cutA[:i], nil), bytes.Join(cutB[i:], nil)...))
		tampered(t, fmt.Sprint("splice at ", i+1), dir, logFile, i+1)
	}
	put(t, dir, logFile, b[logFile])
	put(t, dir, hashFile, b[hashFile])
	tampered(t, "another log's records", dir, logFile, 0)
}

func TestForeignKey(t *testing.T) {
	dir, files := small(t, 3)
	other, err := newSigner(testKey(2))
	if err != nil {
		t.Fatal(err)
	}
	mine, err := newSigner(testKey(1))
	if err != nil {
		t.Fatal(err)
	}
	c, err := openCheckpoint(files[checkpointFile], mine)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := other.encode(c)
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, checkpointFile, msg)
	tampered(t, "foreign checkpoint", dir, checkpointFile, 0)
	// Two signatures, ours and another, are not what guard writes.
	put(t, dir, checkpointFile, append(files[checkpointFile], msg[bytes.LastIndex(msg, []byte("— ")):]...))
	tampered(t, "second signature", dir, checkpointFile, 0)
	// With the key in the folder replaced too, only who knows the key finds out.
	put(t, dir, checkpointFile, msg)
	put(t, dir, keyFile, []byte(other.pub+"\n"))
	if rep, err := Verify(dir, ""); err != nil || !rep.OwnKey {
		t.Errorf("%+v %v", rep, err)
	}
	if _, err := Verify(dir, mine.pub); !errors.Is(err, ErrTampered) {
		t.Errorf("with the true key: %v", err)
	}
	for name, key := range map[string]byte{"the true key": 1, "another key": 3} {
		if _, err := Open(dir, testKey(key), nil); !errors.Is(err, ErrTampered) {
			t.Errorf("Open with %s: %v", name, err)
		}
	}
	if _, err := Verify(dir, "nonsense"); err == nil || errors.Is(err, ErrTampered) {
		t.Errorf("a bad key given: %v", err)
	}
}

func TestMissingFiles(t *testing.T) {
	for _, name := range []string{logFile, hashFile, checkpointFile} {
		dir, _ := small(t, 2)
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		tampered(t, name, dir, name, 0)
		if name == hashFile {
			continue // can be made again
		}
		if _, err := Open(dir, testKey(1), nil); !errors.Is(err, ErrTampered) {
			t.Errorf("Open without %s: %v", name, err)
		}
	}
}

// A log cut and given an older checkpoint is valid by itself: who kept the head
// finds out. The same for a log rewritten with the key.
func TestRollBack(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	mustAppend(t, l, use(0))
	old := load(t, dir)
	mustAppend(t, l, use(1))
	size, root := l.Head()
	for name, b := range old {
		put(t, dir, name, b)
	}
	if _, err := l.Append(use(2)); !errors.Is(err, ErrTampered) {
		t.Errorf("a running guard went on: %v", err)
	}
	mustClose(t, l)
	if rep, err := Verify(dir, ""); err != nil || rep.Records != 1 {
		t.Errorf("package doc says that this is a valid log: %+v %v", rep, err)
	}
	var e *TamperError
	if _, err := VerifyAgainst(dir, "", size, root); !errors.As(err, &e) || e.Seq != 2 {
		t.Errorf("against the head: %v", err)
	}
	l = open(t, dir)
	mustAppend(t, l, use(7))
	mustAppend(t, l, use(8))
	mustClose(t, l)
	if _, err := VerifyAgainst(dir, "", size, root); !errors.Is(err, ErrTampered) {
		t.Errorf("rewritten with the key, against the head: %v", err)
	}
	if _, err := VerifyAgainst(dir, "", 1, "x"); err == nil || errors.Is(err, ErrTampered) {
		t.Errorf("a bad head: %v", err)
	}
}

// Another file in the log's place, or one cut while it is open, stops appends.
func TestTamperedWhileOpen(t *testing.T) {
	for what, f := range map[string]func(path string, b []byte) error{
		"replaced": func(p string, b []byte) error {
			return errors.Join(os.WriteFile(p+".x", b, 0o600), os.Rename(p+".x", p))
		},
		"cut":     func(p string, b []byte) error { return os.Truncate(p, int64(len(b)-3)) },
		"longer":  func(p string, b []byte) error { return os.WriteFile(p, append(b, "{}\n"...), 0o600) },
		"removed": func(p string, _ []byte) error { return os.Remove(p) },
	} {
		dir := t.TempDir()
		l := open(t, dir)
		mustAppend(t, l, use(0))
		if err := f(filepath.Join(dir, logFile), load(t, dir)[logFile]); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Append(use(1)); !errors.Is(err, ErrTampered) {
			t.Errorf("%s: %v", what, err)
		}
		l.Close()
	}
}
