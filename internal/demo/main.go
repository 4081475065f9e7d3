//go:build linux

// Command demo runs guard's main job against real servers on this machine: a
// PostgreSQL server, an HTTPS git server (git http-backend) and an HTTPS API
// that checks its token. A scripted agent (agent.sh) does its work under `guard
// run`, with credentials it never sees. Then it leaks, in every way the table at
// the end names, credentials that the demo hands it on purpose; each leak is
// stopped, the credential replaced, and the old one tried and refused.
//
// It exits 0 only if every row holds.
package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/creack/pty"

	"guard/internal/testutil"
)

//go:embed agent.sh
var agentScript string

func sprintf(f string, v ...any) string { return fmt.Sprintf(f, v...) }

func main() {
	guard, err := filepath.Abs("bin/guard")
	if err == nil {
		_, err = os.Stat(guard)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo: make build first:", err)
		os.Exit(1)
	}
	cache, err := os.UserCacheDir()
	if err == nil {
		err = os.MkdirAll(cache, 0o700)
	}
	var base string
	if err == nil {
		// Not under /tmp: programs that guard runs must lie where nobody else writes.
		base, err = os.MkdirTemp(cache, "guard-demo-")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	ok := false
	err = testutil.Outside(base, func(t testing.TB) { ok = newDemo(t, guard, base).run() })
	os.RemoveAll(base)
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
	}
	if !ok {
		os.Exit(1)
	}
}

// demo is the servers, the vault and the table.
type demo struct {
	testing.TB
	guard, base, work string
	env               []string
	busAddress        string
	ca                *testutil.CA
	caFile            string
	api               *testutil.API
	git               *testutil.Git
	issuer            *issuer
	db                *testutil.Server
	paste, model      *sink
	resolve           []string
	session           *guardSession
	rows              []row
}

// row is one act.
type row struct {
	act, channel, stopped string
	ms                    float64
	rotated, dead         string
	ok                    bool
}

// sink is a server that keeps what it was sent.
type sink struct {
	mu     sync.Mutex
	bodies [][]byte
	url    string
}

func (k *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	k.mu.Lock()
	k.bodies = append(k.bodies, b)
	k.mu.Unlock()
	if err != nil {
		return
	}
	fmt.Fprintf(w, "{\"received\":%d}\n", len(b))
}

func (k *sink) got(value string) (whole, any bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, b := range k.bodies {
		if bytes.Contains(b, []byte(value)) {
			whole = true
		}
		any = true
	}
	return whole, any
}

func newDemo(t testing.TB, guard, base string) *demo {
	d := &demo{TB: t, guard: guard, base: base, work: filepath.Join(base, "work")}
	fmt.Println("starting PostgreSQL, a git server, an API and a keyring, all on loopback ...")
	for _, dir := range []string{d.work, filepath.Join(base, "home"), filepath.Join(base, "bin")} {
		d.must(os.Mkdir(dir, 0o700))
	}
	d.ca = testutil.NewCA(d)
	d.caFile = d.ca.File
	tokens := map[string]string{"api": "demo_" + testutil.Random(35), "git": "demo_" + testutil.Random(35)}
	d.api = testutil.APIServer(d, d.ca, tokens["api"], "api.demo.example", "127.0.0.1")
	d.git = testutil.GitServer(d, d.ca, tokens["git"], "git.demo.example", "127.0.0.1")
	d.issuer = newIssuer(d, d.ca, d.api, d.git, tokens)
	d.db = testutil.Postgres(d)
	d.paste, d.model = &sink{}, &sink{}
	d.paste.url = testutil.HTTPSServer(d, d.ca, d.paste, "paste.demo.example").URL
	d.model.url = testutil.HTTPSServer(d, d.ca, d.model, "api.openai.com").URL
	for name, u := range map[string]string{"git.demo.example": d.git.URL, "api.demo.example": d.api.URL, "paste.demo.example": d.paste.url, "api.openai.com": d.model.url} {
		d.resolve = append(d.resolve, "--resolve", name+":443:"+hostPort(u))
	}
	d.resolve = append(d.resolve, "--resolve", "db.demo.example:5432:"+d.db.Addr)

	keyring := testutil.Keyring(d)
	d.env = []string{
		"PATH=" + os.Getenv("PATH"), "TERM=xterm-256color", "LANG=C.UTF-8", "HOME=" + filepath.Join(base, "home"), "GUARD_HOME=" + filepath.Join(base, "guard"),
		"XDG_CONFIG_HOME=" + filepath.Join(base, "config"),
	}
	for _, kv := range keyring {
		if v, ok := strings.CutPrefix(kv, "DBUS_SESSION_BUS_ADDRESS="); ok {
			d.busAddress = v
		}
		if strings.HasPrefix(kv, "DBUS_") || strings.HasPrefix(kv, "XDG_RUNTIME_DIR=") {
			d.env = append(d.env, kv)
		}
	}
	dbPassword := testutil.Random(24)
	d.db.Exec(d, "create role app login password '"+dbPassword+"'; create database app owner app;")
	d.db.Exec(d, "\\c app\nset role app; create table tasks as select generate_series(1, 42) as id;")

	d.cli("", "init", "--unlock", "keyring")
	d.cli(tokens["api"], "secret", "set", "api-token", "--kind", "generic", "--host", "api.demo.example", "--env", "API_TOKEN", "--stdin",
		"--rotate", "exec,cmd="+d.issuer.program(d, filepath.Join(base, "bin"), d.caFile, "api")+",rest=1ms")
	d.cli(tokens["git"], "secret", "set", "git-token", "--kind", "generic", "--host", "git.demo.example", "--env", "GIT_TOKEN", "--stdin",
		"--rotate", "exec,cmd="+d.issuer.program(d, filepath.Join(base, "bin"), d.caFile, "git")+",rest=1ms")
	host, port, _ := net.SplitHostPort(d.db.Addr)
	d.cli(dbPassword, "secret", "set", "db-password", "--kind", "postgres", "--host", "db.demo.example:5432", "--env", "PGPASSWORD", "--user", "app", "--stdin",
		"--rotate", "postgres,db=app,sslmode=disable,host="+host+",port="+port+",rest=1ms")
	d.must(os.WriteFile(filepath.Join(d.work, "agent.sh"), []byte(agentScript), 0o755))
	d.must(os.WriteFile(filepath.Join(d.work, ".env"), []byte("API_TOKEN="+tokens["api"]+"\n"), 0o600))
	return d
}

func hostPort(u string) string {
	p, err := url.Parse(u)
	if err != nil {
		return u
	}
	return p.Host
}

func (d *demo) must(err error) {
	if err != nil {
		d.Fatal(err)
	}
}

// cli runs guard as the user, outside of any session.
func (d *demo) cli(stdin string, args ...string) string {
	cmd := exec.Command(d.guard, args...)
	cmd.Env, cmd.Dir, cmd.Stdin = d.env, d.work, strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.Fatalf("guard %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// guardSession is `guard run` on a terminal, with its input from a pipe.
type guardSession struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	screen *screen
	events string
	ended  chan error
}

// screen is what the user would see.
type screen struct {
	mu   sync.Mutex
	text []byte
	more chan struct{} // closed and replaced when text grows
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = append(s.text, p...)
	close(s.more)
	s.more = make(chan struct{})
	return len(p), nil
}

func (s *screen) snapshot() (string, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.ReplaceAll(string(s.text), "\r", ""), s.more
}

func (d *demo) start() {
	master, slave, err := pty.Open()
	d.must(err)
	d.must(pty.Setsize(master, &pty.Winsize{Rows: 40, Cols: 160}))
	d.Cleanup(func() { master.Close() })
	s := &guardSession{screen: &screen{more: make(chan struct{})}, events: filepath.Join(d.base, "events.jsonl"), ended: make(chan error, 1)}
	args := append([]string{"run", "-v", "--task", "the demo's work", "--events", s.events, "--ca", d.caFile,
		"--allow", "git-token", "--allow", "api-token", "--allow", "db-password"}, d.resolve...)
	s.cmd = exec.Command(d.guard, append(args, "--", "sh", "agent.sh")...)
	s.cmd.Env, s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = d.env, d.work, slave, slave
	s.in, err = s.cmd.StdinPipe()
	d.must(err)
	d.must(s.cmd.Start())
	slave.Close()
	copied := make(chan struct{})
	go func() { io.Copy(io.MultiWriter(s.screen, os.Stdout), master); close(copied) }()
	go func() { err := s.cmd.Wait(); <-copied; s.ended <- err }()
	d.Cleanup(func() { s.cmd.Process.Kill(); <-copied })
	d.session = s
}

// until waits for text on the screen, from an offset on, and returns what came.
func (d *demo) until(from int, marks ...string) string {
	limit := time.After(60 * time.Second)
	for {
		text, more := d.session.screen.snapshot()
		for _, m := range marks {
			if i := strings.Index(text[min(from, len(text)):], m); i >= 0 {
				if j := strings.IndexByte(text[from+i:], '\n'); j >= 0 {
					return text[from : from+i+j]
				}
			}
		}
		select {
		case <-more:
		case err := <-d.session.ended:
			d.session.ended <- err
			d.Fatalf("guard run ended: %v", err)
		case <-limit:
			d.Fatalf("nothing came that says %q", marks)
		}
	}
}

// act has the agent try one leak, and returns its output.
func (d *demo) act(name, value string) (out string, began time.Time) {
	text, _ := d.session.screen.snapshot()
	began = time.Now()
	fmt.Fprintf(d.session.in, "%s %s\n", name, value)
	return d.until(len(text), "== done "+name), began
}

// event is what the demo reads of a line of --events.
type event struct {
	Time                                                                time.Time
	Type, Credential, Channel, Decision, Rule, Result, Step, Host, Path string
	Version                                                             int
	Encoding                                                            string
}

func (d *demo) events() (out []event) {
	b, err := os.ReadFile(d.session.events)
	d.must(err)
	for line := range bytes.Lines(b) {
		var e event
		if json.Unmarshal(line, &e) == nil {
			out = append(out, e)
		}
	}
	return out
}

// wait polls cond until it holds.
func (d *demo) wait(what string, cond func() bool) bool {
	for range 1200 {
		if cond() {
			return true
		}
		time.Sleep(25 * time.Millisecond)
	}
	fmt.Printf("demo: waited in vain: %s\n", what)
	return false
}

// version is the credential's current one.
func (d *demo) version(name string) int {
	var c struct{ Version int }
	d.must(json.Unmarshal([]byte(d.cli("", "secret", "show", name, "--json")), &c))
	return c.Version
}

// leak is one act with a value, and what became of it.
func (d *demo) leak(act, what, credential, channel, value string, dead func(string) bool, extra func(out string) bool) {
	before := d.version(credential)
	seen := len(d.events())
	out, began := d.act(act, value)
	r := row{act: what, channel: channel}
	var e event
	found := d.wait("a record of "+act, func() bool {
		for _, x := range d.events()[seen:] {
			if x.Type == "leak" && x.Credential == credential && x.Channel == channel && x.Version == before {
				e = x
				return true
			}
		}
		return false
	})
	if found {
		r.ms = float64(e.Time.Sub(began).Microseconds()) / 1000
		r.stopped = map[string]string{"redact": "redacted", "block": "blocked"}[e.Decision]
		if e.Encoding != "raw" {
			r.stopped += " (" + e.Encoding + ")"
		}
	}
	replaced := d.wait("the replacement of "+credential, func() bool { return d.version(credential) > before })
	r.rotated = fmt.Sprintf("%s %d -> %d", credential, before, d.version(credential))
	isDead := replaced && d.wait("the end of the old "+credential, func() bool { return dead(value) })
	r.dead = map[bool]string{true: "refused", false: "STILL WORKS"}[isDead]
	text, _ := d.session.screen.snapshot()
	clean := !strings.Contains(text, value)
	r.ok = found && replaced && isDead && clean && r.stopped != "" && extra(out)
	if !clean {
		r.stopped = "ON THE SCREEN"
	}
	d.rows = append(d.rows, r)
	// The next act starts when this incident is settled.
	d.wait("the incident's end", func() bool {
		for _, x := range d.events()[seen:] {
			if x.Type == "rotation" && x.Credential == credential && x.Step == "done" {
				return true
			}
		}
		return false
	})
}

// held is one act without a value: nothing was reached.
func (d *demo) held(act, what, channel, arg string, ok func(out string) (string, bool)) {
	out, began := d.act(act, arg)
	how, held := ok(out)
	d.rows = append(d.rows, row{act: what, channel: channel, stopped: how, ms: float64(time.Since(began).Microseconds()) / 1000, rotated: "-", dead: "-", ok: held})
}

func (d *demo) dbWorks(password string) bool {
	host, port, _ := net.SplitHostPort(d.db.Addr)
	cmd := exec.Command("psql", "-qtAX", fmt.Sprintf("host=%s port=%s user=app dbname=app sslmode=disable", host, port), "-c", "select 1")
	cmd.Env = []string{"PGPASSWORD=" + password, "PATH=" + os.Getenv("PATH")}
	return cmd.Run() == nil
}

func (d *demo) run() bool {
	fmt.Println("\nguard run -- sh agent.sh")
	started := time.Now()
	d.start()
	out := d.until(0, "== done work")
	worked := strings.Contains(out, "== done work ok")
	d.rows = append(d.rows, row{act: "works: clone, commit, push, API, database", channel: "git http postgres", stopped: "allowed, with placeholders",
		ms: float64(time.Since(started).Microseconds()) / 1000, rotated: "-", dead: "-", ok: worked && d.noValueInSight(out)})
	if !worked {
		d.table()
		return false
	}
	always := func(string) bool { return true }
	tokenDead := func(service string) func(string) bool {
		return func(v string) bool { return d.issuer.token(service) != v && d.refused(service, v) }
	}
	api, git := tokenDead("api"), tokenDead("git")
	fmt.Println("\nnow a real token is handed to the agent, through a pipe from outside, for each leak:")
	d.leak("print", "prints the token", "api-token", "terminal", d.issuer.token("api"), api, always)
	d.leak("base64", "prints it base64-encoded", "api-token", "terminal", d.issuer.token("api"), api, always)
	token := d.issuer.token("api")
	d.leak("file", "writes it to a file", "api-token", "file", token, api, func(string) bool {
		return d.wait("the file's redaction", func() bool {
			b, err := os.ReadFile(filepath.Join(d.work, "notes.txt"))
			return err == nil && !bytes.Contains(b, []byte(token)) && bytes.HasPrefix(b, []byte("token="))
		})
	})
	token = d.issuer.token("git")
	d.leak("commit", "commits it and pushes", "git-token", "git", token, git, func(out string) bool { return !d.pushed(token) })
	token = d.issuer.token("api")
	d.leak("post", "posts it to another host", "api-token", "http", token, api, func(out string) bool {
		whole, _ := d.paste.got(token)
		return !whole && strings.Contains(out, "status 403")
	})
	token = d.issuer.token("api")
	d.leak("model", "sends it to a model's API", "api-token", "http", token, api, func(out string) bool {
		whole, any := d.model.got(token)
		return any && !whole && strings.Contains(out, "status 200")
	})
	token = d.issuer.token("api")
	d.leak("unset", "unsets HTTPS_PROXY and posts it", "api-token", "http", token, api, func(out string) bool {
		whole, _ := d.paste.got(token)
		return !whole
	})
	password := d.dbPassword()
	d.leak("db", "prints the database password", "db-password", "terminal", password, func(v string) bool { return !d.dbWorks(v) }, always)

	d.held("proc", "reads /proc of guard", "process", fmt.Sprint(d.session.cmd.Process.Pid), func(out string) (string, bool) {
		return "not in sight", strings.Contains(out, "no /proc/") && !strings.Contains(out, "read /proc/")
	})
	d.held("keyring", "asks the keyring for guard's key", "d-bus", d.busAddress, func(out string) (string, bool) {
		outside := exec.Command("secret-tool", "search", "--all", "service", "guard")
		outside.Env = append([]string{"DBUS_SESSION_BUS_ADDRESS=" + d.busAddress}, d.env...)
		b, err := outside.CombinedOutput()
		if err != nil || !bytes.Contains(b, []byte("secret = ")) {
			return "THE KEYRING DOES NOT ANSWER OUTSIDE EITHER", false
		}
		return "no bus (outside it answers)", strings.Contains(out, "secret-tool:") && !strings.Contains(out, "secret =")
	})
	_, port, _ := net.SplitHostPort(hostPort(d.paste.url))
	d.held("raw", "opens raw and direct sockets", "socket", port, func(out string) (string, bool) {
		return "refused, no route", strings.Count(out, "refused:") == 6 && !strings.Contains(out, "reached:")
	})
	fmt.Fprintln(d.session.in, "end")
	d.session.in.Close()
	err := <-d.session.ended
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.Fatal(err)
	}
	d.session.ended <- err

	fmt.Println("\n$ guard audit verify")
	fmt.Print(d.cli("", "audit", "verify"))
	fmt.Println("\n$ guard audit show --type credential.use")
	fmt.Print(first(d.cli("", "audit", "show", "--type", "credential.use"), 14))
	fmt.Println("\n$ guard incident ls")
	fmt.Print(d.cli("", "incident", "ls"))
	return d.table()
}

// noValueInSight says that none of the values that work now was in out.
func (d *demo) noValueInSight(out string) bool {
	return !strings.Contains(out, d.issuer.token("api")) && !strings.Contains(out, d.issuer.token("git"))
}

// refused tries a token at the server itself.
func (d *demo) refused(service, token string) bool {
	target := d.api.URL + "/whoami"
	if service == "git" {
		target = d.git.URL + "/repo.git/info/refs?service=git-upload-pack"
	}
	q, err := http.NewRequest(http.MethodGet, target, nil)
	d.must(err)
	if service == "git" {
		q.SetBasicAuth("x", token)
	} else {
		q.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := d.ca.Client().Do(q)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusUnauthorized
}

// pushed says whether the server's repository holds value in any object.
func (d *demo) pushed(value string) bool {
	out, err := exec.Command("git", "-C", d.git.Dir, "log", "-p", "--all").Output()
	return err != nil || bytes.Contains(out, []byte(value))
}

// dbPassword is a password that the role has now: the demo sets it, as somebody
// who knows it would have it.
func (d *demo) dbPassword() string {
	p := testutil.Random(24)
	d.db.Exec(d, "alter role app password '"+p+"'")
	seen := len(d.events())
	d.cli(p, "secret", "set", "db-password", "--stdin")
	d.wait("the session to learn the new password", func() bool {
		for _, e := range d.events()[seen:] {
			if e.Type == "vault.reload" && e.Credential == "db-password" {
				return true
			}
		}
		return false
	})
	return p
}

func first(s string, lines int) string {
	parts := strings.SplitAfterN(s, "\n", lines+1)
	if len(parts) > lines {
		return strings.Join(parts[:lines], "") + "...\n"
	}
	return s
}

func (d *demo) table() bool {
	fmt.Println()
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "ACT\tCHANNEL\tSTOPPED\tMS\tROTATED\tOLD VALUE\t")
	ok := true
	for _, r := range d.rows {
		mark := "ok"
		if !r.ok {
			mark, ok = "FAILED", false
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%.0f\t%s\t%s\t%s\n", r.act, r.channel, r.stopped, r.ms, r.rotated, r.dead, mark)
	}
	w.Flush()
	if !ok {
		fmt.Println("\nthe demo failed")
	}
	return ok
}
