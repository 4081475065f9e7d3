package testutil

import (
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Git is an HTTPS git server (git http-backend) that wants Basic
// authentication with a token as the password, and any user name, as GitHub
// does. It has one bare repository with one commit on main.
type Git struct {
	*httptest.Server
	Dir  string // of the bare repository
	mu   sync.Mutex
	tok  string
	seen []string
}

// GitServer starts one for names (see [CA.Server]); it ends with the test.
func GitServer(t testing.TB, ca *CA, token string, names ...string) *Git {
	t.Helper()
	git := need(t, "git", "git")
	out, err := exec.Command(git, "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	g := &Git{Dir: filepath.Join(root, "repo.git"), tok: token}
	work := filepath.Join(root, "work")
	for _, args := range [][]string{
		{"init", "-q", "--bare", "-b", "main", g.Dir},
		{"-C", g.Dir, "config", "http.receivepack", "true"},
		{"-C", g.Dir, "config", "receive.advertisePushOptions", "true"},
		{"init", "-q", "-b", "main", work},
		{"-C", work, "commit", "-q", "--allow-empty", "-m", "first"},
		{"-C", work, "push", "-q", g.Dir, "main"},
	} {
		cmd := exec.Command(git, args...)
		cmd.Env = GitEnv(root)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"), Dir: root,
		Env: append(GitEnv(root), "GIT_PROJECT_ROOT="+root, "GIT_HTTP_EXPORT_ALL=1"),
	}
	g.Server = HTTPSServer(t, ca, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, has := r.BasicAuth()
		g.mu.Lock()
		if has {
			g.seen = append(g.seen, password)
		}
		ok := has && g.tok != "" && password == g.tok
		g.mu.Unlock()
		if !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "authentication required", http.StatusUnauthorized)
			return
		}
		r.Header.Del("Authorization") // the backend has no use for it
		backend.ServeHTTP(w, r)
	}), names...)
	return g
}

// RepoURL is what to clone.
func (g *Git) RepoURL() string { return g.URL + "/repo.git" }

// SetToken replaces the token; the one before is refused from now on.
func (g *Git) SetToken(token string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tok = token
}

// Seen lists the passwords that came, in order, refused ones included.
func (g *Git) Seen() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.seen...)
}

// GitEnv is an environment in which git reads no configuration but that of
// home, asks nothing, and has an author.
func GitEnv(home string) []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Test", "GIT_AUTHOR_EMAIL=test@example.com",
		"GIT_COMMITTER_NAME=Test", "GIT_COMMITTER_EMAIL=test@example.com",
	}
}
