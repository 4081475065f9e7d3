package scan

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"guard/internal/testutil"
)

// git runs git in dir, as a user whose home is home.
func git(t testing.TB, dir, home string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir, cmd.Env = dir, testutil.GitEnv(home)
	cmd.Env = append(cmd.Env, "GIT_AUTHOR_DATE=2024-01-02T03:04:05Z", "GIT_COMMITTER_DATE=2024-01-02T03:04:05Z")
	out, err := cmd.Output()
	if err != nil {
		msg := ""
		if e, ok := err.(*exec.ExitError); ok {
			msg = string(e.Stderr)
		}
		t.Fatalf("git %v: %v %s", args, err, msg)
	}
	return string(out)
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// walked is what a walk of dir would look into, without what lies below .git.
func walked(t testing.TB, dir string) (files []string) {
	t.Helper()
	var c counters
	w := walker{ctx: context.Background(), count: &c, send: func(j job) error {
		if rel, err := filepath.Rel(dir, j.show); err == nil && j.names == nil && !strings.Contains("/"+rel, "/.git/") {
			files = append(files, rel)
		}
		return nil
	}}
	if err := w.root(dir); err != nil {
		t.Fatal(err)
	}
	if c.notRead.Load() > 0 {
		t.Fatalf("not read: %v", c.problems)
	}
	slices.Sort(files)
	return files
}

var (
	ignoreNames = []string{"a", "b", "ab", "foo", "foo.o", "bar.txt", "Makefile", "a b", "build", "x[1]", "é", "sp ", "#c", "!n", `b\s`, "deep", "FOO"}
	ignoreParts = []string{
		"a", "b", "ab", "foo", "*.o", "*.txt", "*", "**", "?", "a*", "*b", "[ab]", "[!a]", "[^a-b]", "[a-", "[[:alpha:]]", "[[:upper:]]*", "[]a]", "foo**", "**o", "build",
		"Makefile", "a b", `x\[1\]`, "x[[]1]", `sp\ `, "sp ", `\#c`, "#c", `\!n`, "!n", `b\\s`, "deep", "fo?", "[f]oo", "*?*", "é", "[[:nope:]]", "[\\]]", "a\\", "FOO", "[A-F]*", ".", "..",
	}
)

// randomIgnore makes an ignore file that is hard to read right.
func randomIgnore(r *rand.Rand) string {
	var b strings.Builder
	if r.IntN(12) == 0 {
		b.WriteString("\xef\xbb\xbf")
	}
	for range 1 + r.IntN(5) {
		if r.IntN(4) == 0 {
			b.WriteByte('!')
		}
		if r.IntN(4) == 0 {
			b.WriteByte('/')
		}
		for i := range 1 + r.IntN(3) {
			if i > 0 {
				b.WriteByte('/')
			}
			b.WriteString(ignoreParts[r.IntN(len(ignoreParts))])
		}
		switch r.IntN(10) {
		case 0, 1, 2:
			b.WriteByte('/')
		case 3:
			b.WriteString("/**")
		case 4:
			b.WriteString("  ")
		case 5:
			b.WriteString("\t")
		}
		b.WriteString([]string{"\n", "\n", "\n", "\r\n", ""}[r.IntN(5)])
	}
	return b.String()
}

// TestIgnoreAsGit holds walks of random trees against what git itself says.
func TestIgnoreAsGit(t *testing.T) {
	trees := 60
	if testing.Short() {
		trees = 20
	}
	ignored, listed := 0, 0
	for seed := range trees {
		r := rand.New(rand.NewPCG(uint64(seed), 7))
		home, dir := t.TempDir(), t.TempDir()
		git(t, dir, home, "init", "-q")
		var paths []string
		for range 40 {
			var parts []string
			for range 1 + r.IntN(4) {
				parts = append(parts, ignoreNames[r.IntN(len(ignoreNames))])
			}
			p := filepath.Join(dir, filepath.Join(parts...))
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				continue // a file is where a folder would be
			}
			if _, err := os.Lstat(p); err == nil {
				continue
			}
			write(t, p, "x")
			paths = append(paths, p)
		}
		for range 1 + r.IntN(4) {
			dir := filepath.Dir(paths[r.IntN(len(paths))])
			write(t, filepath.Join(dir, ".gitignore"), randomIgnore(r))
		}
		write(t, filepath.Join(dir, ".git", "info", "exclude"), randomIgnore(r))
		excludes := filepath.Join(home, ".config", "git", "ignore")
		if r.IntN(2) == 0 {
			excludes = filepath.Join(home, "my-ignores")
			git(t, dir, home, "config", "--global", "core.excludesFile", "~/my-ignores")
		}
		write(t, excludes, randomIgnore(r))
		args := []string{"add", "-f", "--"}
		tracked := r.IntN(5)
		if r.IntN(4) == 0 {
			git(t, dir, home, "config", "core.ignoreCase", "true")
			tracked = 0 // git takes "FOO" for a "foo" that it tracks, and here these are two
		}
		for range tracked {
			args = append(args, paths[r.IntN(len(paths))])
		}
		if len(args) > 3 {
			git(t, dir, home, args...)
			switch r.IntN(4) {
			case 0:
				git(t, dir, home, "update-index", "--index-version", "4")
			case 1:
				git(t, dir, home, "update-index", "--split-index")
			}
		}
		for _, kv := range testutil.GitEnv(home) {
			if name, value, _ := strings.Cut(kv, "="); name == "HOME" || strings.HasPrefix(name, "XDG_") || strings.HasPrefix(name, "GIT_CONFIG") {
				t.Setenv(name, value)
			}
		}
		want := strings.Split(strings.TrimSuffix(git(t, dir, home, "ls-files", "-z", "-co", "--exclude-standard"), "\x00"), "\x00")
		slices.Sort(want)
		want = slices.DeleteFunc(slices.Compact(want), func(p string) bool { return p == "" })
		got := walked(t, dir)
		listed += len(want)
		ignored += len(paths) - len(want)
		if !slices.Equal(got, want) {
			var files bytes.Buffer
			cmd := exec.Command("sh", "-c", `find . -name .gitignore -print -exec cat -A {} \; ; echo exclude; cat -A .git/info/exclude; echo user; cat -A `+excludes+`; git ls-files`)
			cmd.Dir, cmd.Stdout = dir, &files
			_ = cmd.Run()
			for _, p := range got {
				if !slices.Contains(want, p) {
					fmt.Fprintf(&files, "git ignores %q\n", p)
				}
			}
			for _, p := range want {
				if !slices.Contains(got, p) {
					fmt.Fprintf(&files, "git does not ignore %q\n", p)
				}
			}
			t.Fatalf("tree %d:\n%s", seed, files.String())
		}
	}
	if ignored < trees || listed < trees {
		t.Errorf("%d ignored, %d not: these trees try nothing", ignored, listed)
	}
}
