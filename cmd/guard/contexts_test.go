//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"guard/internal/testutil"
)

// house is a user with a vault: guard's home, a project's folder and an API.
type house struct {
	t    *testing.T
	dir  string
	env  []string
	port int
	ca   *testutil.CA

	mu   sync.Mutex
	seen []call
}

// call is a request that reached the API.
type call struct{ world, token, conn string }

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), ca: testutil.NewCA(t)}
	for _, d := range []string{"home", "proj", "tmp"} {
		if err := os.Mkdir(filepath.Join(h.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(h.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.path("home"), "GUARD_HOME=" + h.path("gh"), "GUARD_KEYFILE=" + h.path("key"), "TMPDIR=" + h.path("tmp"), "LANG=C.UTF-8"}
	srv := testutil.HTTPSServer(t, h.ca, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.seen = append(h.seen, call{r.Header.Get("X-World"), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), r.RemoteAddr})
		fmt.Fprintln(w, "hello")
	}), "api.example.com")
	fmt.Sscanf(srv.URL[strings.LastIndexByte(srv.URL, ':')+1:], "%d", &h.port)
	h.guard("", "init")
	return h
}

func (h *house) path(name ...string) string {
	return filepath.Join(append([]string{h.dir}, name...)...)
}

func (h *house) cmd(args ...string) *exec.Cmd {
	c := exec.CommandContext(h.t.Context(), "guard", args...)
	c.Dir, c.Env = h.path("proj"), h.env
	return c
}

// try runs guard, and returns its exit status and all that it says.
func (h *house) try(stdin string, args ...string) (int, string) {
	h.t.Helper()
	c := h.cmd(args...)
	c.Stdin = strings.NewReader(stdin)
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatalf("guard %q: %v", args, err)
	}
	return c.ProcessState.ExitCode(), string(out)
}

// guard wants it to go well.
func (h *house) guard(stdin string, args ...string) string {
	h.t.Helper()
	status, out := h.try(stdin, args...)
	if status != 0 {
		h.t.Fatalf("guard %q: status %d\n%s", args, status, out)
	}
	return out
}

func (h *house) set(context, profile, name, value string, more ...string) {
	h.t.Helper()
	h.guard(value, append([]string{"secret", "set", name, "--stdin", "--context", context, "--profile", profile}, more...)...)
}

// visit is a session whose agent is a shell that is told line by line what to do.
type visit struct {
	h    *house
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	said bytes.Buffer
}

func (h *house) visit(args ...string) *visit {
	h.t.Helper()
	all := append([]string{"run", "--boundary", "namespace", "--bpf", "off", "--no-rotate", "--ca", h.ca.File,
		"--resolve", fmt.Sprintf("api.example.com:443:127.0.0.1:%d", h.port)}, args...)
	v := &visit{h: h, cmd: h.cmd(append(all, "--", "sh", "-c", `while read -r line; do eval "$line" 2>&1; echo; echo "end of line"; done`)...)}
	var err error
	if v.in, err = v.cmd.StdinPipe(); err != nil {
		h.t.Fatal(err)
	}
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	v.out, v.cmd.Stderr = bufio.NewReader(out), &v.said
	if err := v.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { v.end() })
	return v
}

// ask returns what the agent says to one line of shell.
func (v *visit) ask(line string) string {
	v.h.t.Helper()
	if _, err := io.WriteString(v.in, line+"\n"); err != nil {
		v.h.t.Fatalf("%v\n%s", err, v.said.String())
	}
	var said strings.Builder
	for {
		l, err := v.out.ReadString('\n')
		if err != nil {
			v.cmd.Wait()
			v.h.t.Fatalf("the agent is gone after %q: %v\n%s", said.String(), err, v.said.String())
		}
		if l == "end of line\n" {
			return strings.TrimSuffix(said.String(), "\n")
		}
		said.WriteString(l)
	}
}

// end waits for the session, and returns its status.
func (v *visit) end() int {
	v.in.Close()
	io.Copy(io.Discard, v.out)
	v.cmd.Wait()
	return v.cmd.ProcessState.ExitCode()
}

const callAPI = `curl -sS -m 20 -w ' %{http_code}' -H "X-World: $WORLD" -H "Authorization: Bearer $TOK" https://api.example.com/ | tr '\n' ' '`
