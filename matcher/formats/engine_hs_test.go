//go:build cgo && hyperscan

package formats

import (
	"os"
	"path/filepath"
	"testing"
)

func cached(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(names) != 1 {
		t.Fatalf("the cache holds %q, %v", names, err)
	}
	return names[0]
}

func TestCache(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "guard")
	newSet(t, Options{CacheDir: dir})
	name := cached(t, dir)
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(name); info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v", info.Mode())
	}
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %v", info.Mode())
	}
	works := func(what string) {
		t.Helper()
		s := newSet(t, Options{CacheDir: dir})
		if !has(s.Scan([]byte(Sample("github-pat", 1)), ""), "github-pat") {
			t.Errorf("%s: nothing found", what)
		}
		now, err := os.ReadFile(name)
		if err != nil || string(now) != string(good) {
			t.Errorf("%s: the file is not what it was: %v", what, err)
		}
	}
	before, _ := os.Stat(name)
	works("from the cache")
	if after, _ := os.Stat(name); !os.SameFile(before, after) {
		t.Error("a good file was written again")
	}
	for what, bad := range map[string][]byte{
		"empty": nil, "cut": good[:len(good)/2], "changed": append(append([]byte(nil), good[:len(good)-1]...), good[len(good)-1]^1), "not a database": []byte("hello, this is no database at all, and has no checksum either"),
	} {
		if err := os.WriteFile(name, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		works(what)
	}
	// Somebody else could have written it.
	if err := os.Chmod(name, 0o666); err != nil {
		t.Fatal(err)
	}
	works("writable by all")
	if info, _ := os.Stat(name); info.Mode().Perm() != 0o600 {
		t.Errorf("the file still has mode %v", info.Mode())
	}
	// Other rules are another database.
	newSet(t, Options{CacheDir: dir, Rules: []Rule{{ID: "x", Regex: "acme_[0-9]{9}"}}})
	if names, _ := filepath.Glob(filepath.Join(dir, "*")); len(names) != 2 {
		t.Errorf("the cache holds %q", names)
	}
}

func TestACacheThatCannotBeWrittenIsNone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	newSet(t, Options{CacheDir: filepath.Join(file, "below")})
}
