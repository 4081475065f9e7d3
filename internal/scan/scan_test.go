package scan

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"

	"guard"
	"guard/internal/testutil"
	"guard/matcher"
)

var tokID = guard.SecretID{Context: "default", Name: "tok", Version: 1}

// scanner looks for value, and nothing else.
func scanner(t testing.TB, value string, o Options) *Scanner {
	t.Helper()
	m, err := matcher.New([]guard.Value{{ID: tokID, Secret: guard.NewSecret([]byte(value))}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	o.Values = m
	return New(o)
}

// places are what a scan found, as FILE:LINE:COLUMN.
func places(t testing.TB, value string, scan func(emit func(Finding) error) error) (out []string) {
	t.Helper()
	err := scan(func(f Finding) error {
		if s := fmt.Sprintf("%#v %+v", f, f); strings.Contains(s, value) {
			t.Errorf("a finding holds the value")
		}
		place := fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column)
		if f.In == "name" {
			place = f.File + ":name"
		}
		out = append(out, place)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func files(t testing.TB, s *Scanner, value string, roots ...string) []string {
	t.Helper()
	return places(t, value, func(emit func(Finding) error) error { return s.Files(t.Context(), roots, emit) })
}

func want(t testing.TB, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("found\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// TestLineAndColumn is about places at every kind of line end, and where a value
// lies over the pieces in which a large file is read.
func TestLineAndColumn(t *testing.T) {
	v := testutil.Canary(t)
	dir := t.TempDir()
	t.Chdir(dir)
	write(t, "a", v)
	write(t, "b", "\n\n"+v+"\n")
	write(t, "c", "x\r\ny"+v+"\r\n")
	write(t, "d", "é "+v)
	write(t, "e", "\x00\x01\n\xff"+v)
	write(t, "empty", "")
	want(t, files(t, scanner(t, v, Options{}), v, "."), "a:1:1", "b:3:1", "c:2:2", "d:1:4", "e:2:2")

	// Around each place where a stream is cut, and where what came before is dropped.
	line := strings.Repeat("some text that is no secret at all. ", 3) + "\n"
	for _, cut := range []int{wholeFile - 1, wholeFile, wholeFile + 1, wholeFile + chunk, wholeFile + 2*chunk, wholeFile + 3*chunk + 7} {
		for _, before := range []int{0, 1, len(v) / 2, len(v), len(v) + 1} {
			lines := (cut - before) / len(line)
			text := strings.Repeat(line, lines) + strings.Repeat("y", cut-before-lines*len(line)) + " " + v + "\n" + line
			column := cut - before - lines*len(line) + 2
			place := fmt.Sprintf("%d:%d", lines+1, column)
			write(t, "big", text)
			want(t, files(t, scanner(t, v, Options{}), v, "big"), "big:"+place)
			got := places(t, v, func(emit func(Finding) error) error {
				return scanner(t, v, Options{}).Reader(t.Context(), "-", &bits{r: strings.NewReader(text), n: 100_003}, emit)
			})
			want(t, got, "-:"+place)
		}
	}
	// One line of many megabytes.
	write(t, "long", strings.Repeat("z", 7<<20)+" "+v)
	want(t, files(t, scanner(t, v, Options{}), v, "long"), fmt.Sprintf("long:1:%d", 7<<20+2))
}

// bits reads at most n bytes at a time.
type bits struct {
	r io.Reader
	n int
}

func (b *bits) Read(p []byte) (int, error) { return b.r.Read(p[:min(len(p), b.n)]) }

// TestReaderDoesNotWait: what is found in a stream is said before more comes.
func TestReaderDoesNotWait(t *testing.T) {
	v := testutil.Canary(t)
	r, w := io.Pipe()
	found := make(chan string, 4)
	ended := make(chan error, 1)
	s := scanner(t, v, Options{})
	go func() {
		ended <- s.Reader(t.Context(), "-", r, func(f Finding) error {
			found <- fmt.Sprintf("%d:%d", f.Line, f.Column)
			return nil
		})
	}()
	for i := range 3 {
		fmt.Fprintf(w, "%s\n%s\n", strings.Repeat("x", 600), v)
		if got, line := <-found, fmt.Sprintf("%d:1", 2*i+2); got != line {
			t.Errorf("found %s, want %s", got, line)
		}
	}
	w.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestOrder: findings come in the order of the walk, whatever takes long.
func TestOrder(t *testing.T) {
	v := testutil.Canary(t)
	t.Chdir(t.TempDir())
	var all []string
	for i := range 60 {
		name := fmt.Sprintf("d%d/f%02d", i/10, i)
		text := v
		if i%7 == 0 {
			text += strings.Repeat("x", 1<<20)
		}
		write(t, name, text)
		all = append(all, name+":1:1")
	}
	for _, jobs := range []int{1, 2, 16} {
		want(t, files(t, scanner(t, v, Options{Jobs: jobs}), v, "."), all...)
	}
}

func TestWhatIsLeftOut(t *testing.T) {
	v := testutil.Canary(t)
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(home, ".config"))
	t.Chdir(t.TempDir())
	write(t, "seen", v)
	write(t, "sub/ignored", v)
	write(t, "sub/.gitignore", "ign*\n")
	write(t, "large", strings.Repeat("x", 4096)+v)
	write(t, "closed", v)
	for link, to := range map[string]string{"link": "seen", "loop": ".", "dangling": "nowhere"} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	special := 0
	if runtime.GOOS != "windows" {
		if out, err := exec.Command("mkfifo", "pipe").CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
		special = 1
	}
	s := scanner(t, v, Options{MaxSize: 4096})
	if err := os.Chmod("closed", 0); err != nil {
		t.Fatal(err)
	}
	unread := int64(1)
	if f, err := os.Open("closed"); err == nil { // root
		f.Close()
		unread = 0
		if err := os.Remove("closed"); err != nil {
			t.Fatal(err)
		}
	}
	want(t, files(t, s, v, "."), "seen:1:1")
	sum := s.Summary()
	if sum.Links != 3 || sum.Special != int64(special) || sum.Ignored != 1 || sum.Oversize != 1 || sum.Unread != unread || len(sum.Problems) != int(unread) {
		t.Errorf("%+v", sum)
	}
	want(t, files(t, scanner(t, v, Options{NoIgnore: true, MaxSize: 4096}), v, "."), "seen:1:1", "sub/ignored:1:1")
	// What the user names is looked into.
	want(t, files(t, scanner(t, v, Options{}), v, "sub/ignored"), "sub/ignored:1:1")
	want(t, files(t, scanner(t, v, Options{}), v, "link"), "link:1:1")
	for _, missing := range []string{"missing", "dangling"} {
		if err := scanner(t, v, Options{}).Files(t.Context(), []string{missing}, nil); err == nil {
			t.Errorf("%s: no error", missing)
		}
	}
}

// TestTrackedIsNotIgnored: what is in the index is looked into whatever
// .gitignore says, and a repository within another one has rules of its own.
func TestTrackedIsNotIgnored(t *testing.T) {
	v := testutil.Canary(t)
	home, dir := t.TempDir(), t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(home, ".config"))
	t.Chdir(dir)
	git(t, dir, home, "init", "-q")
	for _, name := range []string{"a/tracked", "a/not", "env", "inner/env", "vendor/inner/env"} {
		write(t, name, v)
	}
	git(t, dir, home, "add", "a/tracked")
	git(t, filepath.Join(dir, "inner"), home, "init", "-q")
	git(t, filepath.Join(dir, "vendor", "inner"), home, "init", "-q")
	write(t, ".gitignore", "a/\nenv\nvendor/\n")
	want(t, files(t, scanner(t, v, Options{}), v, "."), "a/tracked:1:1", "inner/env:1:1")
	// From further down the rules above hold too, but what the user names is looked into.
	write(t, "b/env", v)
	write(t, "b/other", v)
	want(t, files(t, scanner(t, v, Options{}), v, "b"), "b/other:1:1")
	want(t, files(t, scanner(t, v, Options{}), v, "a"), "a/not:1:1", "a/tracked:1:1")
	run(t, "rm -r b")
	// An index that cannot be read hides nothing.
	write(t, ".git/index", "nonsense")
	s := scanner(t, v, Options{})
	want(t, files(t, s, v, "."), "a/not:1:1", "a/tracked:1:1", "env:1:1", "inner/env:1:1", "vendor/inner/env:1:1")
	if sum := s.Summary(); sum.Unread != 1 {
		t.Errorf("%+v", sum)
	}
	// A URL with a password stays in .git/config.
	write(t, ".git/index", "")
	_ = os.Remove(".git/index")
	git(t, dir, home, "remote", "add", "origin", "https://u:"+v+"@example.com/r")
	if got := files(t, scanner(t, v, Options{}), v, "."); len(got) != 2 || !strings.HasPrefix(got[0], ".git/config:") {
		t.Errorf("found %v", got)
	}
}

// TestNames: a value in a name is found, and no name that is printed holds it.
func TestNames(t *testing.T) {
	v := testutil.Canary(t)
	dir := t.TempDir()
	t.Chdir(dir)
	write(t, v+"/x-"+v+".txt", v)
	write(t, "plain", "x")
	got := files(t, scanner(t, v, Options{}), v, ".")
	want(t, got, "[tok]:name", "[tok]/x-[tok].txt:name", "[tok]/x-[tok].txt:1:1")
	want(t, files(t, scanner(t, v, Options{}), v, v+"/x-"+v+".txt"), "[tok]/x-[tok].txt:name", "[tok]/x-[tok].txt:1:1")
	if os.Geteuid() != 0 {
		if err := os.Chmod(v+"/x-"+v+".txt", 0); err != nil {
			t.Fatal(err)
		}
		s := scanner(t, v, Options{})
		files(t, s, v, ".")
		if p := s.Summary().Problems; len(p) != 1 || strings.Contains(p[0].Name, v) {
			t.Error("a problem's name holds the value, or is missing")
		}
	}
}

func run(t testing.TB, script string, env ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", script)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// TestArchives opens what the real tools make.
func TestArchives(t *testing.T) {
	v := testutil.Canary(t)
	t.Chdir(t.TempDir())
	write(t, "src/dir/f", "one\ntwo "+v+"\n")
	write(t, "src/big", strings.Repeat("0123456789abcdef\n", 200_000)+v)
	for _, c := range []struct{ tool, script, file string }{
		{"tar", "tar cf a.tar -C src dir/f", "a.tar!dir/f:2:5"},
		{"tar", "tar --format=v7 -cf a.v7 -C src dir/f", "a.v7!dir/f:2:5"},
		{"tar", "tar --format=posix -cf a.pax -C src dir/f", "a.pax!dir/f:2:5"},
		{"gzip", "tar czf a.tar.gz -C src dir/f", "a.tar.gz!dir/f:2:5"},
		{"gzip", "tar czf a.tgz -C src dir/f", "a.tgz!dir/f:2:5"},
		{"bzip2", "tar cjf a.tar.bz2 -C src dir/f", "a.tar.bz2!dir/f:2:5"},
		{"zstd", "tar c -C src dir/f | zstd -q >a.tar.zst", "a.tar.zst!dir/f:2:5"},
		{"zstd", "zstd -q --ultra -22 -o f.zst src/dir/f", "f.zst!f:2:5"},
		{"gzip", "gzip -c src/dir/f >f.gz", "f.gz!f:2:5"},
		{"gzip", "cat src/dir/f | gzip >noname", "noname!noname:2:5"},
		{"gzip", "(printf 'x\\n' | gzip; gzip -c src/dir/f) >two.gz", "two.gz!two:3:5"},
		{"bzip2", "bzip2 -c src/dir/f >f.bz2", "f.bz2!f:2:5"},
		{"zip", "cd src && zip -q ../a.zip dir/f", "a.zip!dir/f:2:5"},
		{"zip", "cd src && zip -q0 ../stored.zip dir/f", "stored.zip!dir/f:2:5"},
		{"python3", `python3 -c 'import zipfile; zipfile.ZipFile("b.zip","w",zipfile.ZIP_BZIP2).write("src/dir/f","dir/f")'`, "b.zip!dir/f:2:5"},
		{"python3", `python3 -c 'import zipfile; zipfile.ZipFile("x-1-py3-none-any.whl","w",zipfile.ZIP_DEFLATED).write("src/dir/f","x/f.py")'`, "x-1-py3-none-any.whl!x/f.py:2:5"},
		{"gzip", "gzip -c src/big >big.gz", "big.gz!big:200001:1"},
		{"zip", "cd src && zip -q ../big.zip big", "big.zip!big:200001:1"},
		{"zip", "cd src && zip -q - dir/f | cat >../piped.zip", "piped.zip!dir/f:2:5"},
		{"zip", "tar cf in.tar -C src dir/f && gzip in.tar && zip -q out.zip in.tar.gz && rm in.tar.gz", "out.zip!in.tar.gz!dir/f:2:5"},
		{"zip", "cd src && zip -q in.zip big && tar cf ../out.tar in.zip && rm in.zip", "out.tar!in.zip!big:200001:1"},
	} {
		if _, err := exec.LookPath(c.tool); err != nil {
			t.Logf("%s is not here: %s is not tried", c.tool, c.file)
			continue
		}
		run(t, c.script)
		name, _, _ := strings.Cut(c.file, "!")
		s := scanner(t, v, Options{})
		want(t, files(t, s, v, name), c.file)
		if sum := s.Summary(); sum.Unopened+sum.Unread != 0 {
			t.Errorf("%s: %+v", name, sum)
		}
		// And from standard input.
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got := places(t, v, func(emit func(Finding) error) error {
			return scanner(t, v, Options{}).Reader(t.Context(), name, bytes.NewReader(b), emit)
		})
		want(t, got, c.file)
	}
	var br bytes.Buffer
	w := brotli.NewWriter(&br)
	fmt.Fprintf(w, "x\n%s", v)
	w.Close()
	write(t, "f.br", br.String())
	want(t, files(t, scanner(t, v, Options{}), v, "f.br"), "f.br!f:2:1")
	write(t, "text.br", v) // named so, and none
	want(t, files(t, scanner(t, v, Options{}), v, "text.br"), "text.br:1:1")
}

func gz(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestHostileArchives: each is survived, bounded and said.
func TestHostileArchives(t *testing.T) {
	v := testutil.Canary(t)
	t.Chdir(t.TempDir())
	write(t, "f", v)
	check := func(name string, places []string, unopened int64, o Options) {
		t.Helper()
		s := scanner(t, v, o)
		want(t, files(t, s, v, name), places...)
		if sum := s.Summary(); sum.Unopened != unopened || len(sum.Problems) != int(unopened) {
			t.Errorf("%s: %+v", name, sum)
		}
	}
	// Names that lead out, and links: nothing is written, nothing followed.
	run(t, `ln -s /etc/passwd link; ln f hard; tar cPf slip.tar --transform 's,^f$,../../etc/cron.d/x,' f; tar cf links.tar link f hard`)
	check("slip.tar", []string{"slip.tar!../../etc/cron.d/x:1:1"}, 0, Options{})
	check("links.tar", []string{"links.tar!f:1:1"}, 0, Options{})
	run(t, `tar cf name.tar --transform "s,^f$,$V," f`, "V="+v)
	check("name.tar", []string{"name.tar![tok]:1:1", "name.tar![tok]:name"}, 0, Options{})

	// Archives in archives, too deep.
	b := []byte(v)
	for range maxDepth {
		b = gz(t, b)
	}
	write(t, "deep.gz", string(b))
	check("deep.gz", []string{"deep.gz!deep" + strings.Repeat("!deep", maxDepth-1) + ":1:1"}, 0, Options{})
	// The last of them is not opened here, and the search itself looks into it.
	write(t, "deeper.gz", string(gz(t, b)))
	check("deeper.gz", []string{"deeper.gz" + strings.Repeat("!deeper", maxDepth) + ":1:1"}, 1, Options{})

	// Bombs: 40 MB of nothing before the value, and one of bombs.
	bomb := gz(t, append(make([]byte, 40<<20), v...))
	write(t, "bomb.gz", string(bomb))
	check("bomb.gz", nil, 1, Options{})
	if s := scanner(t, v, Options{}); true {
		files(t, s, v, "bomb.gz")
		if n := s.Summary().Bytes; n > leastBudget+chunk {
			t.Errorf("%d bytes of a bomb were read", n)
		}
	}
	write(t, "bombs.gz", string(gz(t, bytes.Repeat(bomb, 20))))
	check("bombs.gz", nil, 1, Options{})
	check("bomb.gz", nil, 1, Options{MaxArchive: 1 << 20})

	// Damaged: what is there is searched.
	whole := gz(t, []byte(strings.Repeat("x\n", 1000)+v+strings.Repeat(testutil.Random(64), 2000)))
	write(t, "cut.gz", string(whole[:len(whole)-20]))
	// And since it cannot be opened whole, its bytes are searched too, which opens it once more.
	check("cut.gz", []string{"cut.gz!cut:1001:1", "cut.gz:1:1"}, 1, Options{})
	write(t, "trail.gz", string(gz(t, []byte("x")))+" "+v)
	if got := files(t, scanner(t, v, Options{}), v, "trail.gz"); len(got) != 1 || !strings.HasPrefix(got[0], "trail.gz:1:") {
		t.Errorf("after the end of a gzip: %v", got)
	}
	write(t, "bad.zip", "PK\x03\x04"+strings.Repeat("x", 40)+v)
	check("bad.zip", []string{"bad.zip:1:45"}, 1, Options{})
	write(t, "x.xz", "\xfd7zXZ\x00"+v)
	check("x.xz", []string{"x.xz:1:7"}, 1, Options{})
	if _, err := exec.LookPath("zip"); err == nil {
		run(t, `printf x >secret; zip -q -P "$PW" sealed.zip secret; zip -q sealed.zip f`, "PW="+testutil.Random(8))
		check("sealed.zip", []string{"sealed.zip!f:1:1"}, 1, Options{})
	}
	// A zip that contains itself, as droste.zip does, in effect: bounded by depth and size.
	if _, err := exec.LookPath("python3"); err == nil {
		run(t, `python3 - <<'X'
import zipfile, io
b = io.BytesIO()
with zipfile.ZipFile(b, "w", zipfile.ZIP_DEFLATED) as z:
    z.writestr("0", bytes(30 << 20))
for depth in range(12):
    inner = b.getvalue()
    b = io.BytesIO()
    with zipfile.ZipFile(b, "w", zipfile.ZIP_DEFLATED) as z:
        for i in range(16):
            z.writestr("%d.zip" % i, inner)
open("quine.zip", "wb").write(b.getvalue())
X`)
		s := scanner(t, v, Options{})
		files(t, s, v, "quine.zip")
		fi, err := os.Stat("quine.zip")
		if err != nil {
			t.Fatal(err)
		}
		if sum := s.Summary(); sum.Unopened == 0 || sum.Bytes > max(leastBudget, bombRatio*fi.Size())+chunk {
			t.Errorf("%+v", sum)
		}
	}
}

// TestShrinks: a file that gets shorter while it is read ends early, and no more.
func TestShrinks(t *testing.T) {
	v := testutil.Canary(t)
	name := filepath.Join(t.TempDir(), "log")
	write(t, name, v+"\n"+strings.Repeat("x", 8<<20)+v)
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	got := places(t, v, func(emit func(Finding) error) error {
		return scanner(t, v, Options{}).Reader(t.Context(), "log", readFunc(func(p []byte) (int, error) {
			if n++; n == 2 {
				if err := os.Truncate(name, 100); err != nil {
					return 0, err
				}
			}
			return f.Read(p)
		}), emit)
	})
	want(t, got, "log:1:1")
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// TestReadErrors: what came before an error is searched, and the error is counted.
func TestReadErrors(t *testing.T) {
	v := testutil.Canary(t)
	for _, size := range []int{10, 5 << 20} {
		s := scanner(t, v, Options{})
		r := io.MultiReader(strings.NewReader(v+"\n"+strings.Repeat("x", size)), readFunc(func([]byte) (int, error) { return 0, errors.New("disk on fire") }))
		want(t, places(t, v, func(emit func(Finding) error) error { return s.Reader(t.Context(), "-", r, emit) }), "-:1:1")
		if sum := s.Summary(); sum.Unread != 1 || sum.Problems[0].Reason != "disk on fire" {
			t.Errorf("%+v", sum)
		}
	}
}

// TestStops: a scan ends when it is told to, and leaves nothing running.
func TestStops(t *testing.T) {
	testutil.Leftovers(t)
	v := testutil.Canary(t)
	t.Chdir(t.TempDir())
	for i := range 200 {
		write(t, fmt.Sprintf("f%03d", i), v)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err := scanner(t, v, Options{}).Files(ctx, []string{"."}, func(Finding) error {
		n++
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) || n == 200 {
		t.Errorf("%d findings, %v", n, err)
	}
	full := errors.New("disk full")
	if err := scanner(t, v, Options{}).Files(t.Context(), []string{"."}, func(Finding) error { return full }); !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
	if err := scanner(t, v, Options{}).Reader(t.Context(), "-", strings.NewReader(v), func(Finding) error { return full }); !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
}

// TestEncodings: what package matcher finds is found here in blocks and streams.
func TestEncodings(t *testing.T) {
	v := testutil.Canary(t)
	t.Chdir(t.TempDir())
	write(t, "small", base64.StdEncoding.EncodeToString([]byte("x"+v+"y")))
	write(t, "large", strings.Repeat("x ", 3<<20)+base64.StdEncoding.EncodeToString([]byte("x"+v+"y")))
	want(t, files(t, scanner(t, v, Options{}), v, "."), fmt.Sprintf("large:1:%d", 6<<20+3), "small:1:3")
}
