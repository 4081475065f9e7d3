package http

import (
	"context"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// run runs a real client and returns what it printed.
func run(t *testing.T, env []string, dir, name string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is needed: %v", name, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "LANG=C"}, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// connectTo is curl's --connect-to for a listener that stands for host:port.
func (e *env) connectTo(host string, port int) string {
	return fmt.Sprintf("%s:%d:%s", host, port, e.transparent(host, port))
}

func TestCurl(t *testing.T) {
	e := newEnv(t)
	s := &seen{}
	e.upstream("api.test", 443, s)
	to, ca := e.connectTo("api.test", 443), e.caFile()
	for _, v := range []string{"--http1.1", "--http2"} {
		out, err := run(t, nil, "", "curl", "-sS", v, "--cacert", ca, "--connect-to", to, "-w", " %{http_version} %{http_code}",
			"-H", "Authorization: Bearer "+tokenPlaceholder, "-d", "x=1", "https://api.test/v1")
		want := map[string]string{"--http1.1": "ok 1.1 200", "--http2": "ok 2 200"}[v]
		if r, body := s.last(); err != nil || out != want || r.Header.Get("Authorization") != "Bearer "+tokenValue || body != "x=1" {
			t.Errorf("%s: %q, %v", v, out, err)
		}
		out, err = run(t, nil, "", "curl", "-sS", v, "--cacert", ca, "--connect-to", to, "-u", "user:"+tokenPlaceholder, "-T", "/etc/hostname", "https://api.test/up/")
		if r, _ := s.last(); err != nil || out != "ok" || r.Method != "PUT" {
			t.Errorf("%s upload: %q, %v", v, out, err)
		} else if _, pass, _ := r.BasicAuth(); pass != tokenValue {
			t.Errorf("%s: no value in Basic", v)
		}
	}
}

func TestCurlThroughTheProxy(t *testing.T) {
	e := newEnv(t, func(_ *env, c *Config) { c.Token = "tok" })
	s := &seen{}
	e.upstream("api.test", 443, s)
	at, ca := e.explicit(), e.caFile()
	for _, args := range [][]string{nil, {"--proxy-anyauth"}} {
		out, err := run(t, []string{"HTTPS_PROXY=http://guard:tok@" + at}, "", "curl", append(args, "-sS", "--cacert", ca, "-H", "X-Api-Key: "+tokenPlaceholder, "https://api.test/")...)
		if r, _ := s.last(); err != nil || out != "ok" || r.Header.Get("X-Api-Key") != tokenValue {
			t.Errorf("%v: %q, %v", args, out, err)
		}
	}
	if out, err := run(t, []string{"HTTPS_PROXY=http://guard:wrong@" + at}, "", "curl", "-sS", "--cacert", ca, "https://api.test/"); err == nil || !strings.Contains(out, "407") {
		t.Errorf("a wrong token: %q", out)
	}
}

func TestPython(t *testing.T) {
	e := newEnv(t, func(_ *env, c *Config) { c.Token = "tok" })
	s := &seen{}
	e.upstream("api.test", 443, s)
	out, err := run(t, []string{"HTTPS_PROXY=http://guard:tok@" + e.explicit(), "SSL_CERT_FILE=" + e.caFile()}, "", "python3", "-c", `
import urllib.request, urllib.error, ssl
ctx = ssl.create_default_context()
ctx.verify_flags |= ssl.VERIFY_X509_STRICT
h = urllib.request.HTTPSHandler(context=ctx)
o = urllib.request.build_opener(h)
r = urllib.request.Request("https://api.test/py", data=b"body", headers={"Authorization": "token `+tokenPlaceholder+`"})
print(o.open(r).read().decode())
try:
    o.open(urllib.request.Request("https://api.test/py", data=b"`+canary+`"))
except urllib.error.HTTPError as e:
    print(e.code, e.headers["X-Guard-Decision"])
`)
	if r, body := s.last(); err != nil || out != "ok\n403 deny\n" || r.Header.Get("Authorization") != "token "+tokenValue || body != "body" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestNodeFetch(t *testing.T) {
	e := newEnv(t)
	s := &seen{}
	e.upstream("api.test", 443, s)
	_, port, _ := net.SplitHostPort(e.transparent("api.test", 443))
	// Node 20's fetch ignores proxy variables; here its resolver and port are
	// what the sandbox's network would be.
	out, err := run(t, []string{"NODE_EXTRA_CA_CERTS=" + e.caFile()}, "", "node", "-e", `
const net = require("net"), connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function (...a) {
  const o = Array.isArray(a[0]) ? a[0][0] : a[0];
  if (o && o.host === "api.test") { o.host = "127.0.0.1"; o.port = `+port+`; }
  return connect.apply(this, a);
};
fetch("https://api.test/node", {method: "POST", body: "b", headers: {authorization: "Bearer `+tokenPlaceholder+`"}})
  .then(async r => console.log(r.status, await r.text()))
  .catch(e => { console.log(String(e), e.cause); process.exit(1); });
`)
	if r, body := s.last(); err != nil || out != "200 ok\n" || r.Header.Get("Authorization") != "Bearer "+tokenValue || body != "b" {
		t.Errorf("%q, %v", out, err)
	}
}

// gitHost serves a repository with git's own backend to who has the token.
func gitHost(t *testing.T, e *env) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, args := range [][]string{{"init", "-q", "--bare", "-b", "main", "o/r.git"}, {"-C", "o/r.git", "config", "http.receivepack", "true"}} {
		if out, err := run(t, nil, dir, "git", args...); err != nil {
			t.Fatal(out, err)
		}
	}
	h := &cgi.Handler{Path: "/usr/lib/git-core/git-http-backend", Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=x"}, Stderr: io.Discard,
		InheritEnv: []string{"PATH"}}
	e.upstream("code.git.test", 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if _, pass, _ := r.BasicAuth(); pass != tokenValue {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			w.WriteHeader(401)
			return
		}
		if len(r.TransferEncoding) > 0 || r.ContentLength < 0 { // CGI wants a length
			f, err := os.CreateTemp(dir, "body")
			if err != nil {
				t.Error(err)
				return
			}
			defer os.Remove(f.Name())
			defer f.Close()
			n, _ := io.Copy(f, r.Body)
			f.Seek(0, 0)
			r.Body, r.ContentLength, r.TransferEncoding = f, n, nil
		}
		h.ServeHTTP(w, r)
	}))
	return dir
}

func TestGit(t *testing.T) {
	e := newEnv(t, func(_ *env, c *Config) { c.Token = "tok" })
	gitHost(t, e)
	work := t.TempDir()
	env := []string{
		"HTTPS_PROXY=http://guard:tok@" + e.explicit(), "GIT_SSL_CAINFO=" + e.caFile(), "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b",
	}
	git := func(want bool, args ...string) string {
		t.Helper()
		out, err := run(t, env, work, "git", args...)
		if (err == nil) != want {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return out
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(work, "w", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	url := "https://x-access-token:" + tokenPlaceholder + "@code.git.test/o/r.git"
	git(true, "init", "-q", "-b", "main", "w")
	base := strings.Repeat("some line of a long file\n", 3000)
	write("a.txt", base)
	git(true, "-C", "w", "add", ".")
	git(true, "-C", "w", "commit", "-q", "-m", "one")
	git(true, "-C", "w", "push", "-q", url, "main")

	clone := git(true, "clone", url, "copy")
	if got, err := os.ReadFile(filepath.Join(work, "copy", "a.txt")); err != nil || string(got) != base {
		t.Errorf("the clone differs: %v %s", err, clone)
	}

	// Secrets in a blob, as a delta against what the other side has, in a
	// message, in a name.
	for what, f := range map[string]func(){
		"blob":    func() { write("b.txt", "x\n"+canary+"\n") },
		"delta":   func() { write("a.txt", base[:len(base)/2]+canary+base[len(base)/2:]) },
		"name":    func() { write(canary, "x") },
		"message": func() { write("c.txt", "x") },
	} {
		f()
		message := "two"
		if what == "message" {
			message = "it is " + canary
		}
		git(true, "-C", "w", "add", ".")
		git(true, "-C", "w", "commit", "-q", "-m", message)
		out := git(false, "-C", "w", "push", url, "main")
		if what == "delta" && strings.Contains(out, "of the pack") {
			t.Errorf("a thin pack was sent: %s", out)
		}
		if !strings.Contains(out, "remote: guard: push refused:") || !strings.Contains(out, "holds the credential known") || !strings.Contains(out, "! [remote rejected] main -> main (refused by guard)") || strings.Contains(out, canary) {
			t.Errorf("%s: %s", what, out)
		}
		git(true, "-C", "w", "reset", "-q", "--hard", "HEAD~1")
	}
	if out := git(false, "-C", "w", "push", url, "main:refs/heads/"+canary); !strings.Contains(out, "guard") {
		t.Errorf("a ref name: %s", out)
	}
	// Nothing of it arrived.
	if out := git(true, "ls-remote", url); strings.Count(out, "\n") != 2 {
		t.Errorf("refs: %s", out)
	}
	write("d.txt", "fine")
	git(true, "-C", "w", "add", ".")
	git(true, "-C", "w", "commit", "-q", "-m", "three")
	git(true, "-C", "w", "push", "-q", url, "main", "main:second")
	git(true, "-C", "w", "push", "-q", url, ":second")

	e.mu.Lock()
	e.deny["repo:push"] = true
	e.mu.Unlock()
	out := git(false, "-C", "w", "push", url, "main:third")
	if !strings.Contains(out, "remote: ") || !strings.Contains(out, "default-deny") {
		t.Errorf("a denied push shows no reason: %s", out)
	}
	actions := map[string]bool{}
	for _, u := range e.uses {
		actions[u.Action+" "+u.Resource] = true
	}
	if !actions["repo:read o/r"] || !actions["repo:push o/r"] || len(actions) != 2 {
		t.Errorf("uses: %v", actions)
	}
}

func TestGitLargePush(t *testing.T) {
	e := newEnv(t)
	gitHost(t, e)
	work := t.TempDir()
	env := []string{"GIT_SSL_CAINFO=" + e.caFile(), "GIT_TERMINAL_PROMPT=0", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b"}
	if out, err := run(t, env, work, "sh", "-c", `git init -q -b main . && head -c 48000000 /dev/urandom > big && git add . && git commit -q -m big`); err != nil {
		t.Fatal(out, err)
	}
	out, err := run(t, append(env, "HTTPS_PROXY=http://"+e.explicit()), work, "git", "push", "-q", "https://u:"+tokenPlaceholder+"@code.git.test/o/r.git", "main")
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
