//go:build unix

package testutil

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestGitServer(t *testing.T) {
	Leftovers(t)
	ca := NewCA(t)
	tok, next := Canary(t), Canary(t)
	g := GitServer(t, ca, tok, "localhost", "127.0.0.1")
	home := t.TempDir()
	git := func(dir string, args ...string) (string, error) {
		cmd := exec.Command("git", args...)
		cmd.Dir, cmd.Env = dir, append(GitEnv(home), "GIT_SSL_CAINFO="+ca.File)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	url := func(token string) string { return strings.Replace(g.RepoURL(), "https://", "https://x:"+token+"@", 1) }
	work := filepath.Join(home, "work")
	if out, err := git(home, "clone", "-q", url(tok), work); err != nil {
		t.Fatalf("clone: %v", out)
	}
	for _, args := range [][]string{{"commit", "-q", "--allow-empty", "-m", "second"}, {"push", "-q", "origin", "main"}} {
		if out, err := git(work, args...); err != nil {
			t.Fatalf("%s: %s", args[0], out)
		}
	}
	if out, err := git(g.Dir, "log", "--format=%s", "main"); err != nil || out != "second\nfirst\n" {
		t.Errorf("the server has %q, %v", out, err)
	}
	g.SetToken(next)
	if _, err := git(home, "ls-remote", url(tok)); err == nil {
		t.Error("the token before is still taken")
	}
	if _, err := git(home, "ls-remote", g.RepoURL()); err == nil {
		t.Error("no token is taken")
	}
	if out, err := git(home, "ls-remote", url(next)); err != nil || !strings.Contains(out, "refs/heads/main") {
		t.Errorf("the new token is not taken: %v", err)
	}
	if seen := g.Seen(); len(seen) < 3 || seen[0] != tok || seen[len(seen)-1] != next {
		t.Errorf("saw %d tokens, in another order", len(seen))
	}
}

func TestPostgres(t *testing.T) {
	Leftovers(t)
	s := Postgres(t)
	if out := s.Exec(t, "show server_version_num; select 1+1, 'x'"); !strings.HasSuffix(out, "\n2|x") {
		t.Errorf("answered %q", out)
	}
	s.Exec(t, "create role agent login password 'pw-of-agent'")
	if out := s.Exec(t, "select rolpassword like 'SCRAM-SHA-256$%' from pg_authid where rolname='agent'"); out != "t" {
		t.Error("the password is not kept as SCRAM")
	}
	for dsn, want := range map[string]bool{s.DSN("agent", "pw-of-agent"): true, s.DSN("agent", "other"): false, s.Superuser: true} {
		if err := exec.Command("psql", "-XAtqc", "select 1", dsn).Run(); (err == nil) != want {
			t.Errorf("login: %v, want %v", err, want)
		}
	}
	if _, err := s.query("select nothing"); err == nil {
		t.Error("an error in SQL is none")
	}
}

func TestPostgresServerIsShared(t *testing.T) {
	var p PostgresServer
	defer p.Stop()
	if a, b := p.Get(t), p.Get(t); a != b {
		t.Error("two servers")
	}
	dir := p.dir
	p.Stop()
	p.Stop()
	if _, err := os.Stat(dir); err == nil {
		t.Error("files are left")
	}
}

func TestKeyring(t *testing.T) {
	Leftovers(t)
	env := Keyring(t)
	tool := need(t, "secret-tool", "libsecret-tools")
	run := func(stdin string, args ...string) (string, error) {
		cmd := exec.Command(tool, args...)
		cmd.Env, cmd.Stdin = env, strings.NewReader(stdin)
		out, err := cmd.Output()
		return string(out), err
	}
	if _, err := run("the value", "store", "--label=x", "service", "guard-test"); err != nil {
		t.Fatal(err)
	}
	if out, err := run("", "lookup", "service", "guard-test"); err != nil || out != "the value" {
		t.Errorf("looked up %q, %v", out, err)
	}
}

func TestAsUser(t *testing.T) {
	Leftovers(t)
	as := AsUser(t, 4321)
	cmd := exec.Command("sh", "-c", `id -u; id -G; pwd; touch "$HOME/a" "$XDG_RUNTIME_DIR/b" "$TMPDIR/c" && echo "$KEEP $HOME"`)
	cmd.Env = []string{"KEEP=kept", "HOME=/root"}
	as(cmd)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f := strings.Fields(string(out))
	if os.Geteuid() == 0 && (f[0] != "4321" || f[1] != "4321") {
		t.Errorf("ran as %v", f)
	}
	if len(f) != 5 || f[3] != "kept" || f[4] != f[2] || f[4] == "/root" {
		t.Errorf("environment: %v", f)
	}
	if os.Geteuid() == 0 {
		cmd = exec.Command("cat", "/etc/shadow")
		as(cmd)
		if cmd.Run() == nil {
			t.Error("reads what root reads")
		}
	}
}
