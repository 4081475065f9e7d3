package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"guard"
)

// TestMain is also the program of the tests that need another process.
func TestMain(m *testing.M) {
	switch os.Getenv("AUDIT_TEST_CHILD") {
	case "append":
		childAppend()
	case "":
		os.Exit(m.Run())
	}
}

// childAppend appends records until it has made AUDIT_TEST_COUNT of them, from
// AUDIT_TEST_WRITERS goroutines, and prints the seq of each after Append returned.
func childAppend() {
	limitFileSize(os.Getenv("AUDIT_TEST_FSIZE"))
	l, err := Open(os.Getenv("AUDIT_TEST_DIR"), testKey(1), nil)
	if err != nil {
		fmt.Println("open:", err)
		os.Exit(1)
	}
	if n, err := strconv.ParseInt(os.Getenv("AUDIT_TEST_SEGMENT"), 10, 64); err == nil {
		l.segment = n
	}
	count, _ := strconv.Atoi(os.Getenv("AUDIT_TEST_COUNT"))
	writers, _ := strconv.Atoi(os.Getenv("AUDIT_TEST_WRITERS"))
	var wg sync.WaitGroup
	var mu sync.Mutex
	for range writers {
		wg.Go(func() {
			for i := 0; count == 0 || i < count; i++ {
				seq, err := l.Append(use(i))
				mu.Lock()
				if err != nil {
					fmt.Printf("error: full=%v %v\n", errors.Is(err, ErrFull), err)
					os.Exit(3)
				}
				fmt.Println(seq)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		fmt.Println("close:", err)
		os.Exit(1)
	}
}

func child(t *testing.T, dir string, count, writers int, env ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe)
	c.Env = append(os.Environ(), "AUDIT_TEST_CHILD=append", "AUDIT_TEST_DIR="+dir,
		fmt.Sprint("AUDIT_TEST_COUNT=", count), fmt.Sprint("AUDIT_TEST_WRITERS=", writers))
	c.Env = append(c.Env, env...)
	c.Stderr = os.Stderr
	return c
}

func testKey(n byte) guard.Secret { return guard.NewSecret(bytes.Repeat([]byte{n}, 32)) }

// encodeClean is the line of a record.
func encodeClean(r Record) ([]byte, error) {
	r = clean(r)
	return encode(nil, &r)
}

func use(i int) Record {
	return Record{Type: TypeUse, Session: "s1", Credential: fmt.Sprintf("github-pat-%d", i), Context: "shop/dev", Decision: "pass", Method: "GET", Host: "api.github.com", Path: "/user"}
}

func open(t testing.TB, dir string) *Log {
	t.Helper()
	l, err := Open(dir, testKey(1), nil)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustAppend(t testing.TB, l *Log, r Record) uint64 {
	t.Helper()
	seq, err := l.Append(r)
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func mustClose(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustVerify(t testing.TB, dir string) Report {
	t.Helper()
	r, err := Verify(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func records(t testing.TB, dir string, f Filter) (out []Record) {
	t.Helper()
	if err := Read(dir, f, func(r Record) error { out = append(out, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAppendReadVerify(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	var tee bytes.Buffer
	l, err := Open(dir, testKey(1), &tee)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if seq := mustAppend(t, l, use(i)); seq != uint64(i+1) {
			t.Fatalf("seq %d, want %d", seq, i+1)
		}
	}
	size, root := l.Head()
	mustClose(t, l)
	if _, err := l.Append(use(0)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
	if err := l.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second close: %v", err)
	}

	l = open(t, dir)
	if seq := mustAppend(t, l, use(5)); seq != 6 {
		t.Fatalf("seq after reopening %d", seq)
	}
	mustClose(t, l)
	rep := mustVerify(t, dir)
	if rep.Records != 6 || !rep.OwnKey || rep.Pending != 0 || rep.Torn != 0 {
		t.Errorf("report %+v", rep)
	}
	pub, err := PublicKey(testKey(1))
	if err != nil {
		t.Fatal(err)
	}
	if rep, err := VerifyAgainst(dir, pub, size, root); err != nil || rep.AnchoredAt != 5 || rep.OwnKey {
		t.Errorf("against the head: %+v, %v", rep, err)
	}
	b, err := os.ReadFile(filepath.Join(dir, logFile))
	if err != nil {
		t.Fatal(err)
	}
	if lines := bytes.SplitAfter(b, []byte("\n")); !bytes.Equal(bytes.Join(lines[:5], nil), tee.Bytes()) {
		t.Errorf("tee got\n%swant\n%s", tee.Bytes(), b)
	}
	got := records(t, dir, Filter{})
	for i, r := range got {
		if r.Seq != uint64(i+1) || r.Time.IsZero() || r.Time.Location() != time.UTC || r.Credential != use(i).Credential {
			t.Errorf("record %d: %+v", i, r)
		}
	}
	for name, mode := range map[string]os.FileMode{"": 0o700, logFile: 0o600, hashFile: 0o600, checkpointFile: 0o600, keyFile: 0o600} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || os.PathSeparator == '/' && st.Mode().Perm() != mode {
			t.Errorf("%q: %v %v", name, st.Mode(), err)
		}
	}
}

// The keys that scripts rely on are there in every line, also when empty.
func TestKeysOfALine(t *testing.T) {
	line, err := encodeClean(Record{Type: TypeLeak})
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(line, &m); err != nil {
		t.Fatal(err)
	}
	for _, k := range strings.Fields("time session seq type credential channel context task pid exe host method path decision rule result duration_ms wiped") {
		if _, ok := m[k]; !ok {
			t.Errorf("no %s in %s", k, line)
		}
	}
	if len(m) != 18 {
		t.Errorf("%d keys in %s", len(m), line)
	}
}

// Every string field is bounded and printable, whatever goes in: reflection
// finds a new field that clean forgets.
func TestCleanCoversEveryString(t *testing.T) {
	bad := "a\x1b[2J\n\u202eb\xff\x00\u0085" + strings.Repeat("é\x07", 3000)
	var r Record
	v := reflect.ValueOf(&r).Elem()
	for i := range v.NumField() {
		if v.Field(i).Kind() == reflect.String {
			v.Field(i).SetString(bad)
		}
	}
	c := reflect.ValueOf(clean(r))
	for i := range c.NumField() {
		if c.Field(i).Kind() != reflect.String {
			continue
		}
		s := c.Field(i).String()
		if len(s) > maxText || !strings.HasPrefix(s, `a\x1b[2J\x0a\u202eb\xff\x00\x85é`) || strings.ContainsAny(s, "\x1b\n\x00\x07\u202e\u0085") {
			t.Errorf("%s: %d bytes, %.80q", c.Type().Field(i).Name, len(s), s)
		}
	}
	if line, err := encodeClean(r); err != nil || bytes.ContainsRune(line, '\n') {
		t.Errorf("encode: %v", err)
	}
	canary := "c4n4ry-s3cr3t"
	line, err := encodeClean(Record{Type: TypeUse, Path: "/a?token=" + canary, Resource: "/b#" + canary, Host: "user:" + canary + "@example.com"})
	if err != nil || bytes.Contains(line, []byte(canary)) {
		t.Errorf("%v: a query, fragment or user part stayed: %s", err, line)
	}
}

func TestAppendRefuses(t *testing.T) {
	l := open(t, t.TempDir())
	defer mustClose(t, l)
	if _, err := l.Append(Record{}); err == nil {
		t.Error("a record without a type was taken")
	}
	if _, err := Open(t.TempDir(), guard.NewSecret([]byte("short")), nil); err == nil || strings.Contains(err.Error(), "short") {
		t.Errorf("a short key: %v", err)
	}
}

// One record that cannot be written as it is does not fail those that share its
// commit.
func TestAnImpossibleTime(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	for _, year := range []int{-5, 10000} {
		r := use(0)
		r.Time = time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
		r.DurationMS = math.NaN()
		mustAppend(t, l, r)
	}
	mustClose(t, l)
	for _, r := range records(t, dir, Filter{}) {
		if time.Since(r.Time) > time.Hour {
			t.Errorf("time %v", r.Time)
		}
	}
}

// A log in use verifies, and does not stand still while it is read.
func TestVerifyWhileAppending(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := l.Append(use(i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	size, root := l.Head()
	for range 8 {
		if _, err := VerifyAgainst(dir, "", size, root); err != nil {
			t.Error(err)
		}
		records(t, dir, Filter{Session: "s1"})
		size, root = l.Head()
	}
	close(stop)
	wg.Wait()
	mustClose(t, l)
}

func TestAKeyIsNotPrinted(t *testing.T) {
	l := open(t, t.TempDir())
	defer mustClose(t, l)
	for _, f := range []string{"%v", "%+v", "%#v"} {
		s := fmt.Sprintf(f, l.key)
		if strings.Contains(s, "1 1 1 1 1") || strings.Contains(s, "0x1, 0x1, 0x1, 0x1") {
			t.Errorf("%s prints the key: %s", f, s)
		}
	}
}

func TestConcurrentAppends(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	const n = 1000
	seqs := make([]uint64, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			seq, err := l.Append(use(i))
			if err != nil {
				t.Error(err)
			}
			seqs[i] = seq
		})
	}
	wg.Wait()
	mustClose(t, l)
	if rep := mustVerify(t, dir); rep.Records != n {
		t.Fatalf("%d records", rep.Records)
	}
	got := records(t, dir, Filter{})
	for i, seq := range seqs {
		if got[seq-1].Credential != use(i).Credential {
			t.Fatalf("append %d was told seq %d, where %s is", i, seq, got[seq-1].Credential)
		}
	}
}

func TestCloseWaitsForAppends(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for i := range 100 {
		wg.Go(func() {
			if _, err := l.Append(use(i)); err == nil {
				mu.Lock()
				done++
				mu.Unlock()
			} else if !errors.Is(err, os.ErrClosed) {
				t.Error(err)
			}
		})
	}
	mustClose(t, l)
	wg.Wait()
	if rep := mustVerify(t, dir); int(rep.Records) != done {
		t.Errorf("%d appends returned well, %d records", done, rep.Records)
	}
}

// Two processes and two Logs of this one append to one log.
func TestSeveralProcesses(t *testing.T) {
	dir := t.TempDir()
	a, b := open(t, dir), open(t, dir)
	c1, c2 := child(t, dir, 50, 2), child(t, dir, 50, 2)
	o1, err1 := c1.StdoutPipe()
	o2, err2 := c2.StdoutPipe()
	if err := errors.Join(err1, err2, c1.Start(), c2.Start()); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i := range 50 {
		for _, l := range []*Log{a, b} {
			seen[fmt.Sprint(mustAppend(t, l, use(i)))] = true
		}
	}
	for _, o := range []interface{ Read([]byte) (int, error) }{o1, o2} {
		for s := bufio.NewScanner(o); s.Scan(); {
			if seen[s.Text()] {
				t.Errorf("seq %s given twice", s.Text())
			}
			seen[s.Text()] = true
		}
	}
	if err := errors.Join(c1.Wait(), c2.Wait()); err != nil {
		t.Fatal(err)
	}
	mustClose(t, a)
	mustClose(t, b)
	if rep := mustVerify(t, dir); rep.Records != 300 || len(seen) != 300 {
		t.Errorf("%d records, %d seqs; want 300", rep.Records, len(seen))
	}
}

func TestTeeErrorIsNotLost(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
	l, err := Open(t.TempDir(), testKey(1), w)
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, use(1))
	if err := l.Close(); !errors.Is(err, os.ErrClosed) || !strings.Contains(err.Error(), "events") {
		t.Errorf("close: %v", err)
	}
}

func TestFilters(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	at := time.Date(2026, 2, 26, 14, 0, 0, 0, time.UTC)
	for i, r := range []Record{
		{Type: TypeUse, Credential: "a", Session: "s1", Context: "shop", Decision: "pass"},
		{Type: TypeUse, Credential: "a", Session: "s2", Context: "shop/dev", Decision: "block"},
		{Type: TypeLeak, Credential: "ab", Session: "s2", Context: "shopping", Decision: "redact", Reason: `"credential":"a"`},
		{Type: TypeLeak, Credential: `<&"é`, Session: "s3", Context: "x", Decision: "kill"},
	} {
		r.Time = at.Add(time.Duration(i) * time.Hour)
		mustAppend(t, l, r)
	}
	mustClose(t, l)
	for _, c := range []struct {
		f    Filter
		want string
	}{
		{Filter{}, "[1 2 3 4]"},
		{Filter{Credential: "a"}, "[1 2]"},
		{Filter{Credential: `<&"é`}, "[4]"},
		{Filter{Session: "s2"}, "[2 3]"},
		{Filter{Context: "shop"}, "[1 2]"},
		{Filter{Context: "shop/dev"}, "[2]"},
		{Filter{Type: TypeLeak}, "[3 4]"},
		{Filter{Decision: "block"}, "[2]"},
		{Filter{Since: at.Add(time.Hour)}, "[2 3 4]"},
		{Filter{Until: at.Add(time.Hour)}, "[1]"},
		{Filter{Type: TypeUse, Session: "s2", Since: at, Until: at.Add(9 * time.Hour)}, "[2]"},
		{Filter{Credential: "none"}, "[]"},
	} {
		got := []uint64{}
		for _, r := range records(t, dir, c.f) {
			got = append(got, r.Seq)
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("%+v: %v, want %s", c.f, got, c.want)
		}
	}
}
