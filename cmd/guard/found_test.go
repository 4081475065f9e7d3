package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"guard"
	"guard/internal/testutil"
)

func realDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// What a person writes is not taken for what was drawn, which would be masked
// wherever it is printed.
func TestRandom(t *testing.T) {
	for _, s := range []string{
		"", "postgres", "correct-horse-battery", "supersecret123", "myDatabasePassword1", "development-password", "my-dev-password-1", "2024-01-15-release",
		"localhost:5432/app", "aaaaaaaaaaaaaaaa", "ANOTHER_CONSTANT_NAME", "version-1-beta-2", "Password1234", "111122223333", "sk-learn-toolkit",
	} {
		if random([]byte(s)) {
			t.Errorf("%q is taken for random", s)
		}
	}
	taken := 0
	for range 200 {
		if random([]byte(testutil.Random(24))) {
			taken++
		}
	}
	if taken < 195 {
		t.Errorf("%d of 200 values of 24 random letters and digits are taken", taken)
	}
	for _, s := range []string{"da39a3ee5e6b4b0d3255bfef95601890", "550e8400-e29b-41d4-a716-446655440000", "Zm9vYmFyYmF6cXV4MTIz"} {
		if !random([]byte(s)) {
			t.Errorf("%q is not taken for random", s)
		}
	}
}

func TestParseEnviron(t *testing.T) {
	got := parseEnviron([]byte("A=1\x00B=\x00C=x=y\x00bad\x00=z\x00BASH_FUNC_f%%=() { :; }\x00SSH_AUTH_SOCK=/x\x00D=line\nline"))
	want := []string{"A=1", "C=x=y", "D=line\nline"}
	if len(got) != len(want) {
		t.Fatalf("%d variables: %v", len(got), got)
	}
	for i, c := range got {
		if s := c.label + "=" + string(c.value); s != want[i] {
			t.Errorf("%q, want %q", s, want[i])
		}
	}
}

// A project of any size is looked at only so far, and never out of it.
func TestFoundFilesAreBounded(t *testing.T) {
	home := realDir(t)
	a := &app{getenv: func(k string) string {
		return map[string]string{"HOME": home, "GUARD_HOME": filepath.Join(home, "gh")}[k]
	}}
	dir := filepath.Join(home, "p")
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	line := "A_TOKEN=" + testutil.Random(24) + "\n"
	for _, p := range []string{".env", "sub/.env.local", "a/b/c/d/.env", "a/b/c/d/e/f/.env", "node_modules/x/.env", ".git/.env", ".env.example", "other.txt"} {
		write(filepath.Join(dir, p), line)
	}
	write(filepath.Join(dir, "big.env"), line+string(make([]byte, foundSize)))
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "out.env")); err != nil {
		if runtime.GOOS != "windows" { // where making one wants a privilege
			t.Fatal(err)
		}
		t.Skipf("no links here: %v", err)
	}
	seen := map[string]bool{}
	for _, f := range a.foundFiles(dir, home) {
		rel, _ := filepath.Rel(dir, f.path)
		seen[filepath.ToSlash(rel)] = true
	}
	for _, p := range []string{".env", "sub/.env.local", "a/b/c/d/.env"} {
		if !seen[p] {
			t.Errorf("%s was not read", p)
		}
		delete(seen, p)
	}
	if len(seen) > 0 {
		t.Errorf("read as well: %v", seen)
	}
	many := filepath.Join(home, "many")
	for i := range foundMax + 10 {
		write(filepath.Join(many, fmt.Sprintf("%d.env", i)), line)
	}
	if n := len(a.foundFiles(many, home)); n != foundMax {
		t.Errorf("%d files were read, want %d", n, foundMax)
	}
}

// What is in another value, also in base64, is known by it.
func TestFoundHolds(t *testing.T) {
	f := &foundFinder{known: map[string]guard.SecretID{}, taken: map[string]guard.SecretID{}, sizes: map[int]bool{}, key: make([]byte, 32)}
	v := testutil.Random(20)
	id := guard.SecretID{Name: "tok"}
	f.known[guard.NewSecret([]byte(v)).Fingerprint(f.key)] = id
	f.sizes[len(v)] = true
	w := testutil.Random(17)
	f.taken[guard.NewSecret([]byte(w)).Fingerprint(f.key)] = guard.SecretID{Name: "found.w"}
	f.sizes[len(w)] = true
	for _, s := range []string{v, "x" + v, "https://u:" + v + "@h/", base64.StdEncoding.EncodeToString([]byte("u:" + v))} {
		if got, ok := f.holds([]byte(s), false); !ok || got != id {
			t.Errorf("not seen in %d bytes", len(s))
		}
	}
	if _, ok := f.holds([]byte("redis://:"+w+"@h:1/0"), true); ok {
		t.Error("a URL gives way to the password in it")
	}
	if _, ok := f.holds([]byte("xx"+w), false); !ok {
		t.Error("what was found is not seen in another one")
	}
	if _, ok := f.holds([]byte(testutil.Random(40)), false); ok {
		t.Error("seen where it is not")
	}
}
