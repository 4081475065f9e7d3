package exec

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"guard"
	"guard/broker"
	"guard/internal/testutil"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		patterns, args string
		want           bool
	}{
		{"plan", "plan", true},
		{"plan", "apply", false},
		{"plan", "plan x", false},
		{"plan *", "plan", false},
		{"plan *", "plan x", true},
		{"plan *", "plan -x", false}, // an option is let in by name only
		{"plan **", "plan --destroy", false},
		{"plan -*", "plan -x", true},
		{"-var=*", "-var=a/b", false},
		{"-var=**", "-var=a/b", true},
		{"*", "a/b", false},
		{"s3://mine/*", "s3://mine/x", true},
		{"s3://mine/*", "s3://mine/../other", false},
		{"s3://mine/*", "s3://mine.evil/x", false},
		{"plan ...", "plan", true},
		{"plan ...", "plan -x --y z", true},
		{"... plan", "x plan", false}, // only as the last one
		{`\*`, "*", true},
		{`\*`, "x", false},
		{"a*b*c", "aXbYbZc", true},
		{"a*b*c", "aXbYbZ", false},
		{"", "", true},
	} {
		if got := matchArgs(strings.Fields(c.patterns), strings.Fields(c.args)); got != c.want {
			t.Errorf("%q with %q: %v", c.patterns, c.args, got)
		}
	}
	r := Rule{Path: "/usr/bin/tool", With: []Place{{Credential: "a", Env: "A"}, {Credential: "b", Env: "B"}}}
	for _, c := range []struct {
		q    Request
		want bool
	}{
		{Request{With: []string{"b", "a"}, Argv: []string{"tool"}}, true},
		{Request{With: []string{"b", "a", "a"}, Argv: []string{"/usr/bin/tool"}}, true},
		{Request{With: []string{"a"}, Argv: []string{"tool"}}, false},
		{Request{With: []string{"a", "b", "c"}, Argv: []string{"tool"}}, false},
		{Request{With: []string{"a", "b"}, Argv: []string{"/tmp/tool"}}, false},
		{Request{With: []string{"a", "b"}, Argv: []string{"./tool"}}, false},
		{Request{With: []string{"a", "b"}, Argv: []string{"bin/tool"}}, false},
		{Request{With: []string{"a", "b"}}, false},
	} {
		if got := r.Match(c.q); got != c.want {
			t.Errorf("%+v: %v", c.q, got)
		}
	}
}

func TestRules(t *testing.T) {
	good := Rule{Name: "x", Path: "/bin/true", With: []Place{{Credential: "a", Env: "A"}}}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Rule){
		"no name":         func(r *Rule) { r.Name = "" },
		"a path as name":  func(r *Rule) { r.Name = "../x" },
		"relative":        func(r *Rule) { r.Path = "true" },
		"no credential":   func(r *Rule) { r.With = nil },
		"no variable":     func(r *Rule) { r.With = []Place{{Credential: "a"}} },
		"bad variable":    func(r *Rule) { r.With = []Place{{Credential: "a", Env: "A=B"}} },
		"twice":           func(r *Rule) { r.Set = []string{"A=1"} },
		"no equals":       func(r *Rule) { r.Set = []string{"B"} },
		"input above":     func(r *Rule) { r.Inputs = []string{"../*"} },
		"absolute output": func(r *Rule) { r.Outputs = []string{"/etc/*"} },
		"negative time":   func(r *Rule) { r.Timeout = -1 },
	} {
		r := good
		change(&r)
		if r.Check() == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// world is a server with one rule, and what it was asked for.
type world struct {
	*Server
	rule    Rule
	started chan Job
	refused atomic.Int64
	wiped   atomic.Int64
	deny    string // a credential that policy refuses
	stop    bool   // the leak line stops all output
}

func newWorld(t *testing.T) *world {
	testutil.Leftovers(t)
	w := &world{started: make(chan Job, 16)}
	w.rule = Rule{
		Name: "x", Path: "/bin/tool", SHA256: "h", Args: []string{"*"}, With: []Place{{Credential: "a", Env: "A"}, {Credential: "b", Env: "B", File: true}},
		Inputs: []string{"in/*"}, Outputs: []string{"out/*"}, Hosts: []string{"more.example.com"},
	}
	line := &broker.Line{
		Decide: func(u guard.Use) guard.Decision {
			if u.Credential.Name == w.deny {
				return guard.Decision{Action: guard.Block, Rule: "no", Reason: "not this one"}
			}
			return guard.Decision{Action: guard.Pass}
		},
		Record: func(u guard.Use, d guard.Decision) (broker.Result, error) {
			return func(_ string, _ time.Duration, wiped bool) {
				if wiped {
					w.wiped.Add(1)
				}
			}, nil
		},
		Value: func(id guard.SecretID) (guard.Secret, error) {
			return guard.NewSecret([]byte("value of " + id.Name)), nil
		},
		Refused: func(guard.Use, guard.Decision) { w.refused.Add(1) },
	}
	w.Server = &Server{
		Rules: func() ([]Rule, error) { return []Rule{w.rule}, nil },
		Credentials: func() []guard.Credential {
			return []guard.Credential{{Name: "a", Hosts: []string{"a.example.com"}}, {Name: "b"}, {Name: "d", Decoy: true}}
		},
		Use: line.Use, Refused: line.Refuse, Dir: t.TempDir(),
		Open: func(guard.Origin) guard.Filter {
			return func(p []byte, _ guard.Step) ([]byte, guard.Decision) {
				if w.stop && len(p) > 0 {
					return nil, guard.Decision{Action: guard.Block}
				}
				return bytes.ReplaceAll(p, []byte("value of a"), []byte("**********")), guard.Decision{Action: guard.Pass}
			}
		},
		Hash: func(string) (string, error) { return "h", nil },
		Start: func(ctx context.Context, j Job) (int, error) {
			w.started <- j
			return 0, nil
		},
	}
	return w
}

// dial serves one connection, and waits for it at the end of the test.
func (w *world) dial(t *testing.T) net.Conn {
	c, s := net.Pipe()
	done := make(chan struct{})
	h := w.Handler()
	go func() {
		defer close(done)
		defer s.Close()
		h(t.Context(), s, "", 0)
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return c
}

func (w *world) run(t *testing.T, q Call) (int, string, error) {
	var out bytes.Buffer
	if q.Stdin == nil {
		q.Stdin = strings.NewReader("")
	}
	q.Stdout, q.Stderr = &out, &out
	if q.Dir == "" {
		q.Dir = t.TempDir()
	}
	code, err := Run(w.dial(t), q)
	return code, out.String(), err
}

func ask(args ...string) Request {
	return Request{With: []string{"a", "b"}, Argv: append([]string{"tool"}, args...)}
}

func TestRunsWithValues(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	os.MkdirAll(filepath.Join(dir, "in"), 0o755)
	os.WriteFile(filepath.Join(dir, "in", "f"), []byte("input"), 0o755)
	var kept string
	w.Start = func(ctx context.Context, j Job) (int, error) {
		kept = j.Dir
		if got := strings.Join(j.Env, " "); got != "A=value of a B="+FileDir+"/B" {
			t.Errorf("environment %q", got)
		}
		if len(j.Files) != 1 || string(j.Files[0].Content) != "value of b" {
			t.Error("the file is not there")
		}
		if strings.Join(j.Hosts, " ") != "more.example.com a.example.com" {
			t.Errorf("hosts %v", j.Hosts)
		}
		b, _ := os.ReadFile(filepath.Join(j.Dir, "in", "f"))
		if fi, err := os.Stat(filepath.Join(j.Dir, "in", "f")); err != nil || fi.Mode() != 0o600 || string(b) != "input" {
			t.Errorf("input %q %v", b, err)
		}
		in, _ := io.ReadAll(j.Stdin)
		j.Stdout.WriteString("got " + string(in) + ", value of a")
		j.Stderr.WriteString("!")
		os.Mkdir(filepath.Join(j.Dir, "out"), 0o755)
		os.WriteFile(filepath.Join(j.Dir, "out", "f"), []byte("value of a"), 0o600)
		os.WriteFile(filepath.Join(j.Dir, "private"), []byte("x"), 0o600)
		os.Symlink("/etc/passwd", filepath.Join(j.Dir, "out", "link"))
		return 3, nil
	}
	code, out, err := w.run(t, Call{Request: Request{With: []string{"a", "b"}, Argv: []string{"tool", "x"}, Outputs: []string{"**"}}, Inputs: []string{"in/f"}, Dir: dir, Stdin: strings.NewReader("typed")})
	if err != nil || code != 3 {
		t.Fatal(code, err)
	}
	if !strings.Contains(out, "got typed, **********") || !strings.Contains(out, "!") {
		t.Errorf("output %q", out)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "out", "f")); string(b) != "**********" {
		t.Errorf("output file %q %v", b, err)
	}
	for _, name := range []string{"private", "out/link"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s came back", name)
		}
	}
	if _, err := os.Stat(kept); err == nil {
		t.Error("the working folder was left behind")
	}
	if w.wiped.Load() != 2 {
		t.Errorf("%d of 2 values were wiped", w.wiped.Load())
	}
}

// Everything that an agent may try: nothing is started, and each try is recorded.
func TestRefused(t *testing.T) {
	for name, try := range map[string]func(w *world) Call{
		"another argument": func(w *world) Call { return Call{Request: ask("a/b")} },
		"an option":        func(w *world) Call { return Call{Request: ask("-x")} },
		"one more":         func(w *world) Call { return Call{Request: ask("x", "y")} },
		"one credential":   func(w *world) Call { return Call{Request: Request{With: []string{"a"}, Argv: []string{"tool", "x"}}} },
		"a changed program": func(w *world) Call {
			w.Hash = func(string) (string, error) { return "other", nil }
			return Call{Request: ask("x")}
		},
		"a program that anybody can change": func(w *world) Call {
			w.Hash = func(string) (string, error) { return "", errors.New("others may write to it") }
			return Call{Request: ask("x")}
		},
		"a rule without a hash": func(w *world) Call { w.rule.SHA256 = ""; return Call{Request: ask("x")} },
		"no rules":              func(w *world) Call { w.Rules = nil; return Call{Request: ask("x")} },
		"unreadable rules": func(w *world) Call {
			w.Rules = func() ([]Rule, error) { return nil, errors.New("broken") }
			return Call{Request: ask("x")}
		},
		"a decoy": func(w *world) Call {
			w.rule.With[0].Credential = "d"
			return Call{Request: Request{With: []string{"b", "d"}, Argv: []string{"tool", "x"}}}
		},
		"first denied":  func(w *world) Call { w.deny = "a"; return Call{Request: ask("x")} },
		"second denied": func(w *world) Call { w.deny = "b"; return Call{Request: ask("x")} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			_, _, err := w.run(t, try(w))
			var r *RefusedError
			if !errors.As(err, &r) || r.Refusal.Reason == "" || r.Refusal.Layer != "exec" || r.Refusal.RequestID == "" {
				t.Fatalf("%v", err)
			}
			if len(w.started) != 0 {
				t.Error("it was started")
			}
			if w.refused.Load() == 0 {
				t.Error("nothing was recorded")
			}
		})
	}
}

// hostile is what a client can send that is not guard's own.
func TestHostileInputs(t *testing.T) {
	pack := func(hs ...tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range hs {
			if h.Typeflag == 0 {
				h.Typeflag = tar.TypeReg
			}
			h.Mode = 0o777
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			w.Write(make([]byte, h.Size))
		}
		w.Close()
		return b.Bytes()
	}
	for name, b := range map[string][]byte{
		"above":          pack(tar.Header{Name: "in/../../x"}),
		"absolute":       pack(tar.Header{Name: "/etc/x"}),
		"not named":      pack(tar.Header{Name: "x"}),
		"a link":         pack(tar.Header{Name: "in/x", Typeflag: tar.TypeSymlink, Linkname: "/etc"}),
		"a hard link":    pack(tar.Header{Name: "in/x", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}),
		"a device":       pack(tar.Header{Name: "in/x", Typeflag: tar.TypeChar}),
		"twice":          pack(tar.Header{Name: "in/x"}, tar.Header{Name: "in/x", Size: 1}),
		"no archive":     bytes.Repeat([]byte{'x'}, 2048),
		"half a archive": pack(tar.Header{Name: "in/x", Size: 5000})[:1024],
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c := w.dial(t)
			f := &frameWriter{w: c}
			f.json(frameRequest, ask("x"))
			go func() { // the server may stop reading
				f.frame(frameInput, b)
				f.frame(frameInputs, nil)
			}()
			kind, p, err := readFrame(c, make([]byte, maxFrame))
			if err != nil || kind != frameRefusal {
				t.Fatalf("%q %s %v", kind, p, err)
			}
			if len(w.started) != 0 {
				t.Error("it was started")
			}
		})
	}
}

func TestHostileFrames(t *testing.T) {
	huge := []byte{frameRequest, 0xff, 0xff, 0xff, 0xff}
	for name, b := range map[string][]byte{
		"huge": huge, "another kind": {'z', 0, 0, 0, 0}, "no JSON": append([]byte{frameRequest, 0, 0, 0, 1}, '{'),
		"no program": append([]byte{frameRequest, 0, 0, 0, 2}, "{}"...),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c := w.dial(t)
			go c.Write(b)
			kind, _, err := readFrame(c, make([]byte, maxFrame))
			if err != nil || kind != frameRefusal || len(w.started) != 0 {
				t.Fatalf("%q %v", kind, err)
			}
		})
	}
}

func TestOutputThatIsStopped(t *testing.T) {
	w := newWorld(t)
	w.stop = true
	w.Start = func(ctx context.Context, j Job) (int, error) {
		j.Stdout.WriteString("value of a")
		<-ctx.Done() // the command is ended
		return 137, nil
	}
	_, out, err := w.run(t, Call{Request: ask("x")})
	var r *RefusedError
	if !errors.As(err, &r) || r.Refusal.Rule != "leak" || out != "" {
		t.Fatalf("%q %v", out, err)
	}
}

// A client that goes away takes its command with it, also one that reads nothing.
func TestClientGone(t *testing.T) {
	w := newWorld(t)
	ended := make(chan struct{})
	w.Start = func(ctx context.Context, j Job) (int, error) {
		defer close(ended)
		w.started <- j
		<-ctx.Done()
		return 137, nil
	}
	c := w.dial(t)
	f := &frameWriter{w: c}
	f.json(frameRequest, ask("x"))
	f.frame(frameInputs, nil)
	<-w.started
	f.frame(frameStdin, bytes.Repeat([]byte{'x'}, maxFrame)) // more than a pipe holds
	c.Close()
	<-ended
}

func TestSignals(t *testing.T) {
	w := newWorld(t)
	w.Start = func(ctx context.Context, j Job) (int, error) {
		w.started <- j
		return 128 + int(<-j.Signals), nil
	}
	signals := make(chan os.Signal, 1)
	go func() {
		<-w.started
		signals <- syscall.SIGTERM
	}()
	code, _, err := w.run(t, Call{Request: ask("x"), Signals: signals})
	if code != 143 || err != nil {
		t.Fatal(code, err)
	}
}

func TestTimeout(t *testing.T) {
	w := newWorld(t)
	w.rule.Timeout = time.Millisecond
	w.Start = func(ctx context.Context, j Job) (int, error) {
		<-ctx.Done()
		return 137, nil
	}
	code, _, err := w.run(t, Call{Request: ask("x")})
	if code != 137 || err == nil || !strings.Contains(err.Error(), "longer than 1ms") {
		t.Fatal(code, err)
	}
}

func TestTooMany(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	w.Start = func(_ context.Context, j Job) (int, error) {
		w.started <- j
		<-ctx.Done()
		return 0, nil
	}
	h := w.Handler()
	results := make(chan error, MaxAtOnce)
	for range MaxAtOnce {
		c, s := net.Pipe()
		go func() { h(t.Context(), s, "", 0); s.Close() }()
		go func() {
			_, err := Run(c, Call{Request: ask("x"), Dir: t.TempDir(), Stdout: io.Discard, Stderr: io.Discard})
			results <- err
		}()
	}
	for range MaxAtOnce {
		<-w.started
	}
	c, s := net.Pipe()
	go func() { h(t.Context(), s, "", 0); s.Close() }()
	_, err := Run(c, Call{Request: ask("x"), Dir: t.TempDir(), Stdout: io.Discard, Stderr: io.Discard})
	var r *RefusedError
	if !errors.As(err, &r) {
		t.Errorf("one more: %v", err)
	}
	cancel()
	for range MaxAtOnce {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func FuzzFrames(f *testing.F) {
	var req bytes.Buffer
	w := &frameWriter{w: &req}
	w.json(frameRequest, ask("x"))
	w.frame(frameInputs, nil)
	f.Add(req.Bytes())
	f.Add([]byte{frameRequest, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		buf := make([]byte, maxFrame)
		r := bytes.NewReader(b)
		for {
			kind, p, err := readFrame(r, buf)
			if err != nil {
				return
			}
			if len(b) < 5 || len(p) > len(b) {
				t.Fatalf("%q holds %d bytes of %d", kind, len(p), len(b))
			}
			if kind == frameRequest {
				var q Request
				if json.Unmarshal(p, &q) == nil {
					Rule{Path: "/bin/tool", Args: []string{"*", "..."}}.Match(q)
				}
			}
		}
	})
}
