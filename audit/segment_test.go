package audit

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// openShort opens a log whose files are closed at 2 KiB.
func openShort(t testing.TB, dir string) *Log {
	l := open(t, dir)
	l.segment = 2 << 10
	return l
}

// long makes a log of n records in many files.
func long(t testing.TB, n int) (dir string, segs []segment) {
	t.Helper()
	dir = t.TempDir()
	l := openShort(t, dir)
	for i := range n {
		r := use(i)
		r.Time = time.Date(2026, 1, 1+i/10, 0, 0, i%10, 0, time.UTC)
		mustAppend(t, l, r)
	}
	mustClose(t, l)
	segs, err := segments(dir)
	if err != nil || len(segs) < 4 {
		t.Fatalf("%d files of records, %v", len(segs), err)
	}
	return dir, segs
}

func TestManyFilesAreOneLog(t *testing.T) {
	dir, segs := long(t, 60)
	if r := mustVerify(t, dir); r.Records != 60 || r.First != 1 || r.Files != len(segs) {
		t.Errorf("%+v", r)
	}
	for i, r := range records(t, dir, Filter{}) {
		if r.Seq != uint64(i)+1 {
			t.Fatalf("record %d has seq %d", i+1, r.Seq)
		}
	}
	// A log that is opened again goes on in the same file.
	l := openShort(t, dir)
	if seq := mustAppend(t, l, use(1)); seq != 61 {
		t.Errorf("seq %d", seq)
	}
	mustClose(t, l)
	mustVerify(t, dir)
}

// Two writers, of which each closes files under the other.
func TestFilesClosedByAnother(t *testing.T) {
	dir := t.TempDir()
	a, b := openShort(t, dir), openShort(t, dir)
	for i := range 60 {
		l := a
		if i/7%2 == 1 {
			l = b
		}
		if seq := mustAppend(t, l, use(i)); seq != uint64(i)+1 {
			t.Fatalf("record %d got seq %d", i+1, seq)
		}
	}
	mustClose(t, a)
	mustClose(t, b)
	if r := mustVerify(t, dir); r.Records != 60 || r.Files < 4 {
		t.Errorf("%+v", r)
	}
}

// Killed after the file was closed and before a new one was made.
func TestKilledBetweenTwoFiles(t *testing.T) {
	dir, segs := long(t, 60)
	last := segs[len(segs)-1]
	if err := os.Rename(filepath.Join(dir, logFile), filepath.Join(dir, segmentName(last.first, 60, last.at))); err != nil {
		t.Fatal(err)
	}
	if r := mustVerify(t, dir); r.Records != 60 {
		t.Errorf("%+v", r)
	}
	l := openShort(t, dir)
	mustAppend(t, l, use(1))
	mustClose(t, l)
	if r := mustVerify(t, dir); r.Records != 61 {
		t.Errorf("%+v", r)
	}
}

func TestTamperedFiles(t *testing.T) {
	dir, segs := long(t, 60)
	files := load(t, dir)
	reset := func() {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			os.Remove(filepath.Join(dir, e.Name()))
		}
		for name, b := range files {
			put(t, dir, name, b)
		}
	}
	mid := segs[1]
	for _, c := range []struct {
		name string
		do   func()
		file string
		seq  int
	}{
		{"a byte of a closed file", func() {
			b := slices.Clone(files[mid.name])
			b[len(b)/2] ^= 1
			put(t, dir, mid.name, b)
		}, mid.name, 0},
		{"a closed file is gone", func() { os.Remove(filepath.Join(dir, mid.name)) }, segs[2].name, 0},
		{"the first file is gone", func() { os.Remove(filepath.Join(dir, segs[0].name)) }, segs[1].name, 1},
		{"log.jsonl is gone", func() { os.Remove(filepath.Join(dir, logFile)) }, logFile, int(tail(segs).first)},
		{"a closed file and log.jsonl are gone", func() {
			os.Remove(filepath.Join(dir, logFile))
			os.Remove(filepath.Join(dir, segs[len(segs)-2].name))
		}, logFile, int(segs[len(segs)-2].first)},
		{"a closed file is cut", func() { put(t, dir, mid.name, files[mid.name][:100]) }, segs[2].name, 0},
		{"a name says other records", func() {
			os.Rename(filepath.Join(dir, segs[0].name), filepath.Join(dir, segmentName(2, segs[0].last, 0)))
		}, "", 0},
		{"a record moves to the next file", func() {
			b := files[segs[0].name]
			i := strings.LastIndex(strings.TrimSuffix(string(b), "\n"), "\n") + 1
			put(t, dir, segs[0].name, b[:i])
			put(t, dir, segs[1].name, append(slices.Clone(b[i:]), files[segs[1].name]...))
		}, "", 0},
		{"all closed files are gone", func() {
			for _, s := range segs[:len(segs)-1] {
				os.Remove(filepath.Join(dir, s.name))
			}
		}, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			reset()
			c.do()
			_, err := Verify(dir, "")
			var e *TamperError
			if !errors.As(err, &e) {
				t.Fatalf("Verify: %v", err)
			}
			if c.file != "" && e.File != c.file || c.seq != 0 && int(e.Seq) != c.seq {
				t.Errorf("found in %s, record %d: %v", e.File, e.Seq, e)
			}
		})
	}
}

func TestPrune(t *testing.T) {
	dir, segs := long(t, 100)
	cut := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC) // records 41 and later
	l := openShort(t, dir)
	p, err := l.Prune(cut)
	if err != nil {
		t.Fatal(err)
	}
	if p.Through == 0 || p.Through > 40 || p.Records != p.Through || p.Bytes == 0 {
		t.Errorf("%+v", p)
	}
	again, err := l.Prune(cut)
	if err != nil || again.Through != 0 {
		t.Errorf("pruned twice: %+v, %v", again, err)
	}
	mustAppend(t, l, use(7))
	mustClose(t, l)
	r := mustVerify(t, dir)
	if r.Records != 102 || r.First != p.Through+1 || r.Files >= len(segs)+1 {
		t.Errorf("%+v", r)
	}
	got := records(t, dir, Filter{})
	if got[0].Seq != p.Through+1 || len(got) != int(102-p.Through) {
		t.Errorf("%d records from %d", len(got), got[0].Seq)
	}
	if _, err := Prove(dir, 1); !errors.Is(err, ErrNoRecord) {
		t.Errorf("proved a record that is gone: %v", err)
	}
	if b, err := Prove(dir, 50); err != nil {
		t.Error(err)
	} else if _, err := CheckProof(b, strings.TrimSpace(string(load(t, dir)[keyFile]))); err != nil {
		t.Error(err)
	}
	files := load(t, dir)
	// The hashes of what was removed cannot be changed, and more cannot be removed.
	b := slices.Clone(files[hashFile])
	b[3*tlog.HashSize] ^= 1
	put(t, dir, hashFile, b)
	if _, err := Verify(dir, ""); !errors.Is(err, ErrTampered) {
		t.Errorf("a hash of a removed record was changed: %v", err)
	}
	put(t, dir, hashFile, files[hashFile])
	segs, _ = segments(dir)
	os.Remove(filepath.Join(dir, segs[0].name))
	if _, err := Verify(dir, ""); !errors.Is(err, ErrTampered) {
		t.Errorf("more was removed: %v", err)
	}
	put(t, dir, segs[0].name, files[segs[0].name])
	// An inner hash that is wrong is made again, also over what was removed.
	for i := range b {
		b[i] = files[hashFile][i]
	}
	b[tlog.StoredHashIndex(2, 3)*tlog.HashSize] ^= 1
	b[tlog.StoredHashIndex(6, 0)*tlog.HashSize] ^= 1
	put(t, dir, hashFile, b)
	mustClose(t, openShort(t, dir))
	mustVerify(t, dir)
}

func TestProof(t *testing.T) {
	dir, _ := long(t, 60)
	pub := strings.TrimSpace(string(load(t, dir)[keyFile]))
	for _, seq := range []uint64{1, 2, 31, 59, 60} {
		b, err := Prove(dir, seq)
		if err != nil {
			t.Fatal(err)
		}
		p, err := CheckProof(b, pub)
		if err != nil || p.Record.Seq != seq || p.Size != 60 {
			t.Fatalf("record %d: %+v, %v", seq, p, err)
		}
		// No byte of it can be changed. The checkpoint's extra lines and signature
		// are covered too.
		for i := range b {
			c := slices.Clone(b)
			c[i] ^= 1
			if q, err := CheckProof(c, pub); err == nil {
				t.Fatalf("record %d: byte %d of the proof changed, and it holds: %+v", seq, i, q)
			}
		}
	}
	if _, err := Prove(dir, 0); !errors.Is(err, ErrNoRecord) {
		t.Error(err)
	}
	if _, err := Prove(dir, 61); !errors.Is(err, ErrNoRecord) {
		t.Error(err)
	}
	b, _ := Prove(dir, 5)
	other, err := PublicKey(testKey(9))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CheckProof(b, other); err == nil {
		t.Error("a proof under another key holds")
	}
	for _, bad := range []string{"", "x", proofHeader, proofHeader + "\n\n", strings.Repeat("A", maxProof+1), string(b[:len(b)-10])} {
		if _, err := CheckProof([]byte(bad), pub); err == nil {
			t.Errorf("%.30q holds", bad)
		}
	}
}
