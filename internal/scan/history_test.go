package scan

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"guard/internal/testutil"
)

// repository is a history with v in it, in each way that there is.
type repository struct{ dir, home string }

func newRepository(t testing.TB, args ...string) *repository {
	t.Helper()
	r := &repository{dir: t.TempDir(), home: t.TempDir()}
	t.Setenv("HOME", r.home)
	r.git(t, append([]string{"init", "-q", "-b", "main"}, args...)...)
	return r
}

func (r *repository) git(t testing.TB, args ...string) string {
	t.Helper()
	return git(t, r.dir, r.home, args...)
}

func (r *repository) write(t testing.TB, name, text string) {
	t.Helper()
	write(t, filepath.Join(r.dir, name), text)
}

func (r *repository) commit(t testing.TB, message string) string {
	t.Helper()
	r.git(t, "add", "-A")
	r.git(t, "commit", "-q", "--allow-empty", "-m", message)
	return strings.TrimSpace(r.git(t, "rev-parse", "HEAD"))
}

// history is what a scan of it finds, as FILE:LINE:COLUMN and where.
func history(t testing.TB, s *Scanner, v, dir string) (out []string) {
	t.Helper()
	err := s.History(t.Context(), dir, func(f Finding) error {
		if strings.Contains(fmt.Sprintf("%#v", f), v) {
			t.Error("a finding holds the value")
		}
		file, err := filepath.Rel(dir, f.File)
		if err != nil {
			file = f.File
		}
		where := fmt.Sprintf("%s:%d:%d %.7s", file, f.Line, f.Column, f.Commit)
		if f.In != "" {
			where += " " + f.In
		}
		if f.Reach != "" {
			where += " " + f.Reach
		}
		if f.Versions != 1 {
			where += fmt.Sprintf(" %d", f.Versions)
		}
		out = append(out, where)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// inTemp makes the temporary folder one that must be empty in the end.
func inTemp(t testing.TB) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	})
}

func TestHistory(t *testing.T) {
	for _, format := range []string{"sha1", "sha256"} {
		t.Run(format, func(t *testing.T) {
			inTemp(t)
			testutil.Leftovers(t)
			v := testutil.Canary(t)
			r := newRepository(t, "--object-format="+format)
			r.write(t, "a/old", "one\n  t="+v+"\n")
			r.write(t, "keep", "nothing")
			first := r.commit(t, "first")
			r.write(t, "a/old", "more\none\n  t="+v+"\n")
			r.commit(t, "again")
			if err := os.Remove(filepath.Join(r.dir, "a/old")); err != nil {
				t.Fatal(err)
			}
			said := r.commit(t, "gone\n\nit was "+v)
			r.git(t, "tag", "-a", "-m", "was "+v, "v1")
			tag := strings.TrimSpace(r.git(t, "rev-parse", "v1"))
			r.git(t, "notes", "add", "-m", "see "+v, "HEAD")
			noted := strings.TrimSpace(r.git(t, "rev-parse", "refs/notes/commits"))
			note := strings.TrimSpace(r.git(t, "ls-tree", "-r", "--name-only", "refs/notes/commits"))
			r.write(t, v+"/f", "x")
			named := r.commit(t, "named")
			// Merged in: only the merge has it.
			r.git(t, "checkout", "-q", "-b", "side", first)
			r.write(t, "side", "x")
			r.commit(t, "side")
			r.git(t, "checkout", "-q", "main")
			r.git(t, "merge", "-q", "--no-commit", "--no-ff", "side")
			r.write(t, "evil", v)
			merged := r.commit(t, "merge")
			// Undone: only the reflog knows.
			r.write(t, "undone", "\n"+v)
			undone := r.commit(t, "oops")
			r.git(t, "reset", "-q", "--hard", "HEAD~1")
			// Staged, and then lost.
			r.write(t, "staged", "x"+v)
			r.git(t, "add", "staged")
			lost := filepath.Join(r.home, "lost")
			write(t, lost, "\n\n"+v)
			id := strings.TrimSpace(r.git(t, "hash-object", "-w", lost))
			got := history(t, scanner(t, v, Options{}), v, r.dir)
			for _, w := range []string{
				"[tok]:0:0 " + named[:7] + " name", "a/old:2:5 " + first[:7] + " 2", "evil:1:1 " + merged[:7], note + ":1:5 " + noted[:7],
				"staged:1:2  index", "undone:2:1 " + undone[:7] + " reflog",
			} {
				if !contains(got, w) {
					t.Errorf("not found: %s", w)
				}
			}
			if len(got) != 8 {
				t.Errorf("%d findings:\n%s", len(got), strings.Join(got, "\n"))
			}
			if text := strings.Join(got, "\n"); !strings.Contains(text, "commit "+said) || !strings.Contains(text, "tag "+tag) {
				t.Errorf("messages are missing:\n%s", text)
			}
			s := scanner(t, v, Options{Unreachable: true})
			if got := history(t, s, v, r.dir); !contains(got, "blob "+id+":3:1  unreachable") || len(got) != 9 {
				t.Errorf("with what is unreachable:\n%s", strings.Join(got, "\n"))
			}
			if n := scanner(t, v, Options{}); len(history(t, n, v, r.dir)) != 8 || n.Summary().Elsewhere != 1 {
				t.Errorf("%+v", n.Summary())
			}

			// The same from packs, a linked worktree, a bare clone, and for another user's.
			before := history(t, scanner(t, v, Options{}), v, r.dir)
			r.git(t, "repack", "-adkq")
			want(t, history(t, scanner(t, v, Options{}), v, r.dir), before...)
			tree := filepath.Join(t.TempDir(), "tree")
			r.git(t, "worktree", "add", "-q", "--detach", tree, "main")
			r.git(t, "pack-refs", "--all")
			if got := history(t, scanner(t, v, Options{}), v, tree); len(got) < 7 {
				t.Errorf("from a linked worktree:\n%s", strings.Join(got, "\n"))
			}
			bare := filepath.Join(t.TempDir(), "bare")
			r.git(t, "clone", "-q", "--mirror", r.dir, bare)
			if got := history(t, scanner(t, v, Options{}), v, bare); len(got) != 6 {
				t.Errorf("from a mirror:\n%s", strings.Join(got, "\n"))
			}
			if os.Geteuid() == 0 {
				if err := exec.Command("chown", "-R", "12345", bare).Run(); err != nil {
					t.Fatal(err)
				}
				if got := history(t, scanner(t, v, Options{}), v, bare); len(got) != 6 {
					t.Errorf("another user's:\n%s", strings.Join(got, "\n"))
				}
			}
			shallow := filepath.Join(t.TempDir(), "shallow")
			r.git(t, "clone", "-q", "--depth=2", "file://"+r.dir, shallow)
			s = scanner(t, v, Options{})
			if got := history(t, s, v, shallow); !strings.Contains(strings.Join(got, "\n"), "evil:1:1 "+merged[:7]) || s.Summary().Unread != 0 {
				t.Errorf("from a shallow clone:\n%s\n%+v", strings.Join(got, "\n"), s.Summary())
			}
		})
	}
	if err := scanner(t, testutil.Canary(t), Options{}).History(t.Context(), t.TempDir(), nil); err == nil {
		t.Error("a folder that is in no repository is no error")
	}
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// TestHostileRepository: a repository whose configuration, hooks, attributes,
// replacements and alternates are an attacker's makes nothing run, hides nothing
// and is not changed.
func TestHostileRepository(t *testing.T) {
	inTemp(t)
	v := testutil.Canary(t)
	r := newRepository(t)
	r.write(t, "f", v)
	r.write(t, ".gitattributes", "* filter=x diff=x textconv\n")
	first := r.commit(t, "x")
	// A replacement that shows something harmless in its place.
	r.write(t, "f", "harmless")
	r.commit(t, "y")
	r.git(t, "replace", strings.TrimSpace(r.git(t, "rev-parse", first+":f")), strings.TrimSpace(r.git(t, "rev-parse", "HEAD:f")))
	ran := filepath.Join(r.home, "ran")
	script := filepath.Join(r.home, "evil")
	write(t, script, "#!/bin/sh\ntouch "+ran+"\n")
	if err := os.Chmod(script, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, kv := range [][2]string{
		{"core.fsmonitor", script}, {"core.pager", script}, {"core.sshCommand", script}, {"core.editor", script}, {"core.alternateRefsCommand", script},
		{"core.askPass", script}, {"core.gitProxy", script}, {"core.hooksPath", r.home},
		{"diff.external", script}, {"diff.x.command", script}, {"diff.x.textconv", script}, {"filter.x.smudge", script}, {"filter.x.process", script},
		{"gpg.program", script}, {"log.showSignature", "true"}, {"pager.log", script}, {"alias.log", "!" + script}, {"credential.helper", script},
		{"extensions.partialClone", "evil"}, {"remote.evil.url", "ext::" + script}, {"remote.evil.promisor", "true"}, {"remote.evil.uploadpack", script}, {"protocol.ext.allow", "always"},
		{"core.worktree", "/"}, {"core.repositoryFormatVersion", "1"}, {"trace2.eventTarget", ran}, {"uploadpack.packObjectsHook", script}, {"include.path", r.home + "/nothing"},
	} {
		cmd := exec.Command("git", "config", "--file", filepath.Join(r.dir, ".git/config"), kv[0], kv[1])
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatal(kv, err, string(out))
		}
	}
	for _, hook := range []string{"post-checkout", "pre-auto-gc", "reference-transaction", "fsmonitor-watchman"} {
		write(t, filepath.Join(r.dir, ".git/hooks", hook), "#!/bin/sh\ntouch "+ran+"\n")
		if err := os.Chmod(filepath.Join(r.dir, ".git/hooks", hook), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// An object that is said to be elsewhere is asked for nowhere.
	write(t, filepath.Join(r.dir, ".git/refs/heads/missing"), strings.Repeat("ab", 20)+"\n")
	// Names of refs that would be options, if they were arguments.
	write(t, filepath.Join(r.dir, ".git/refs/heads/--output=x"), first+"\n")
	t.Setenv("GIT_DIR", r.home)
	t.Setenv("GIT_EXTERNAL_DIFF", script)
	t.Setenv("GIT_PAGER", script)
	t.Setenv("GIT_CONFIG_COUNT", "1")
	t.Setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
	t.Setenv("GIT_CONFIG_VALUE_0", script)
	before := listing(t, r.dir)
	got := history(t, scanner(t, v, Options{}), v, r.dir)
	want(t, got, "f:1:1 "+first[:7])
	for _, f := range files(t, scanner(t, v, Options{}), v, r.dir) {
		t.Errorf("in the working tree: %s", f)
	}
	if _, err := os.Lstat(ran); err == nil {
		t.Error("the repository made something run")
	}
	if after := listing(t, r.dir); after != before {
		t.Errorf("the repository was changed:\n%s\n%s", before, after)
	}
}

func listing(t testing.TB, dir string) string {
	t.Helper()
	out, err := exec.Command("find", dir, "-printf", "%p %s %T@\n").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestDamagedObject: one that cannot be read is counted, and those after it are read.
func TestDamagedObject(t *testing.T) {
	inTemp(t)
	v := testutil.Canary(t)
	r := newRepository(t)
	for i := range 20 {
		r.write(t, fmt.Sprintf("f%02d", i), fmt.Sprintf("%d %s", i, v))
	}
	r.commit(t, "x")
	id := strings.TrimSpace(r.git(t, "rev-parse", "HEAD:f07"))
	path := filepath.Join(r.dir, ".git/objects", id[:2], id[2:])
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	// The header still says what it is.
	write(t, path, string(append(bytes.Clone(b[:len(b)-12]), "xxxxxxxxxxxx"...)))
	s := scanner(t, v, Options{})
	if got := history(t, s, v, r.dir); len(got) != 19 {
		t.Errorf("%d findings:\n%s", len(got), strings.Join(got, "\n"))
	}
	if sum := s.Summary(); sum.Unread != 1 || !strings.Contains(sum.Problems[0].Name, id) {
		t.Errorf("%+v", sum)
	}
}

// TestBlobsAreRead: large ones, binary ones, archives, and a thousand small ones.
func TestBlobsAreRead(t *testing.T) {
	v := testutil.Canary(t)
	r := newRepository(t)
	r.write(t, "large", strings.Repeat("x\n", 6<<20)+v)
	r.write(t, "z.gz", string(gz(t, []byte("y\n"+v))))
	for i := range 1000 {
		r.write(t, fmt.Sprintf("d%d/f%d", i%10, i), fmt.Sprintf("file %d", i))
	}
	r.write(t, "last", "\x00"+v)
	c := r.commit(t, "x")[:7]
	s := scanner(t, v, Options{})
	want(t, history(t, s, v, r.dir), fmt.Sprintf("large:%d:1 %s", 6<<20+1, c), "last:1:2 "+c, "z.gz!z:2:1 "+c)
	if n := s.Summary().Objects; n != 1003+1+11 {
		t.Errorf("%d objects", n)
	}
}
