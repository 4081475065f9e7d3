package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"guard"
	"guard/audit"
	"guard/broker"
	"guard/broker/dns"
	brokerhttp "guard/broker/http"
	"guard/broker/postgres"
	"guard/policy"
	"guard/supervisor/sandbox"
)

// A task is a part of a session's work with less than the session may. It runs in a
// sandbox of its own, beside the session's: whose a request is, is told by the network
// namespace that it comes from, which no process can leave, and nothing of the session's
// (processes, ports, agent sockets, this door) is in sight from there. Whatever it asks
// for has to be allowed twice, by the session and by the task; its placeholders are its
// own, so that the session's are worth nothing in it, and its own nothing outside.
type task struct {
	*session
	info   guard.Session // with the task's name
	policy *policy.Policy

	mu    sync.Mutex
	words map[string]string // the task's placeholder by the session's
}

// Types of records of tasks.
const (
	typeTaskStart = "task.start"
	typeTaskEnd   = "task.end"
)

var taskName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/#@+-]{0,99}$`)

const (
	maxTasks  = 8 // at once
	taskDrain = 5 * time.Second
)

// taskHandler serves guard task.
func (s *session) taskHandler() broker.Handler {
	slots := make(chan struct{}, maxTasks)
	return func(ctx context.Context, c net.Conn, _ string, _ int) {
		w := &taskConn{w: c}
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			_ = w.json(taskExit, taskEnd{Code: exitRefused, Error: fmt.Sprintf("%d tasks run already in this session", maxTasks), Next: []string{"wait for one of them to end"}})
			return
		}
		in := bufio.NewReader(c)
		_ = c.SetReadDeadline(time.Now().Add(taskPatience))
		kind, p, err := readTaskFrame(in, maxTaskAsk)
		_ = c.SetReadDeadline(time.Time{})
		var q taskRequest
		if err != nil || kind != taskRequestFrame || json.Unmarshal(p, &q) != nil {
			return
		}
		t, err := s.newTask(q)
		if err != nil {
			_ = w.json(taskExit, taskEnd{Code: exitRefused, Error: "task " + q.Name + ": " + err.Error(), Next: []string{"ask the user to allow it, for the whole session, with guard run --allow"}})
			return
		}
		code, err := t.run(ctx, q, c, in, w)
		end := taskEnd{Code: code}
		if err != nil {
			end.Code, end.Error = max(code, exitRefused), err.Error()
		}
		_ = w.json(taskExit, end)
		// What the other side still says must not take what it was told away (RST).
		_ = c.SetReadDeadline(time.Now().Add(taskDrain))
		_, _ = io.Copy(io.Discard, c)
	}
}

func (s *session) newTask(q taskRequest) (*task, error) {
	if !taskName.MatchString(q.Name) {
		return nil, errors.New("a name has letters, digits and . _ : / # @ + -, at most 100")
	}
	if len(q.Argv) == 0 || q.Argv[0] == "" {
		return nil, errors.New("there is no command")
	}
	t := &task{session: s, info: s.info, words: map[string]string{}}
	t.info.Task, t.info.Started = q.Name, time.Now()
	flags := s.flags
	flags.allow, flags.deny = q.Allow, append(slices.Clone(s.flags.deny), q.Deny...)
	flags.files = nil // the user's permits are the session's; their forbids hold there
	flags.budget = policy.NewBudget(nil)
	var err error
	t.policy, err = newPolicy(flags, t.info, s.credentials(), "")
	return t, err
}

// placeholderOf is the task's own for one of the session's.
func (t *task) placeholderOf(p string) string {
	if p == "" {
		return ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	own, ok := t.words[p]
	if !ok {
		for own = variant(p); own == p && strings.ContainsFunc(p, func(r rune) bool { return r < 0x80 && alphanumeric(byte(r)) }); {
			own = variant(p)
		}
		t.words[p] = own
	}
	return own
}

// variant is a text of p's shape with other characters in the place of its longest run
// of letters and digits, but for the first eight.
func variant(p string) string {
	from, to := 0, len(p)
	if i, at := strings.Index(p, "://"), strings.LastIndexByte(p, '@'); i >= 0 && at > i {
		from, to = i+3, at // the password of a URL, and nothing else of it
		if colon := strings.IndexByte(p[from:to], ':'); colon >= 0 {
			from += colon + 1
		}
	}
	start, end := from, from
	for i := from; i < to; {
		j := i
		for j < to && alphanumeric(p[j]) {
			j++
		}
		if j-i > end-start {
			start, end = i, j
		}
		i = j + 1
	}
	if end-start >= 16 {
		start += 8
	}
	out := []byte(p)
	for i := start; i < end; i++ {
		set := "0123456789"
		switch c := p[i]; {
		case c >= 'a' && c <= 'f' || c >= '0' && c <= '9' && onlyHex(p[start:end]):
			set = "0123456789abcdef"
			if !onlyHex(p[start:end]) {
				set = "abcdefghijklmnopqrstuvwxyz"
			}
		case c >= 'a' && c <= 'z':
			set = "abcdefghijklmnopqrstuvwxyz"
		case c >= 'A' && c <= 'Z':
			set = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
		}
		var b [1]byte
		for {
			_, _ = rand.Read(b[:]) // never fails (crypto/rand)
			if n := int(b[0]); n < 256-256%len(set) {
				out[i] = set[n%len(set)]
				break
			}
		}
	}
	return string(out)
}

func alphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func onlyHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

// own are credentials with the task's placeholders.
func (t *task) own(creds []guard.Credential) []guard.Credential {
	out := slices.Clone(creds)
	for i := range out {
		out[i].Placeholder = t.placeholderOf(out[i].Placeholder)
	}
	return out
}

// rewrite puts the task's placeholders in the place of the session's.
func (t *task) rewrite(b []byte) []byte {
	for _, c := range t.credentials() {
		if c.Placeholder != "" && bytes.Contains(b, []byte(c.Placeholder)) {
			b = bytes.ReplaceAll(b, []byte(c.Placeholder), []byte(t.placeholderOf(c.Placeholder)))
		}
	}
	return b
}

func (t *task) record(typ string) audit.Record {
	r := t.session.record(typ)
	r.Task = t.info.Task
	return r
}

// line is the session's use line, behind the task's own policy.
func (t *task) line() (line *broker.Line, asked func(guard.Use) guard.Decision) {
	line = t.useLine()
	session := line.Decide
	both := func(first func(guard.Use) guard.Decision, second func(guard.Use) guard.Decision) func(guard.Use) guard.Decision {
		return func(u guard.Use) guard.Decision {
			if d := first(u); !d.Allowed() {
				d.Reason = "in the task " + t.info.Task + ": " + d.Reason
				return d
			}
			return second(u)
		}
	}
	mine := func(u guard.Use) guard.Decision { return t.policy.Use(timed(u)) }
	take := func(u guard.Use) guard.Decision { return t.policy.Take(timed(u)) }
	counted := t.counted(session)
	asked = both(mine, session)
	// The session's count is taken only for what the task allows.
	line.Decide = func(u guard.Use) guard.Decision {
		if d := asked(u); !d.Allowed() {
			return d
		}
		return both(take, counted)(u)
	}
	return line, asked
}

// egress is what both let out.
func (t *task) way() *broker.Egress {
	e := t.egress()
	session, refused := e.Decide, e.Refused
	e.Decide = func(host string, port int, proto string) guard.Decision {
		if d := t.policy.Egress(host, port, proto); !d.Allowed() {
			d.Reason = "in the task " + t.info.Task + ": " + d.Reason
			return d
		}
		return session(host, port, proto)
	}
	e.Refused = func(host string, port int, proto string, d guard.Decision) {
		if !strings.HasPrefix(d.Reason, "in the task ") {
			d.Reason = "in the task " + t.info.Task + ": " + d.Reason
		}
		refused(host, port, proto, d)
	}
	allow := e.Allow
	e.Allow = func(host string, port int, a netip.Addr) bool {
		return t.policy.Egress(host, port, "tcp").Allowed() && allow(host, port, a)
	}
	return e
}

// out is the leak line, with the task's name on what is found.
func (t *task) out(o guard.Origin) guard.Filter {
	o.Source = sourceTask + t.info.Task
	return t.open(o)
}

// sourceTask stands before a task's name in Origin.Source.
const sourceTask = "task "

// config is the session's sandbox with the task's placeholders, and without what leads
// back to the session.
func (t *task) config(q taskRequest) sandbox.Config {
	t.session.mu.Lock()
	c := t.box
	t.session.mu.Unlock()
	c.Argv = t.conceal.env(q.Argv)
	c.HomeUpper = "" // the session has it open
	c.HostPorts, c.Unix = nil, nil
	c.TTY, c.Notify, c.Before = false, nil, nil
	c.Dir = t.dir
	if real, err := filepath.EvalSymlinks(q.Dir); err == nil && within(real, t.dir) {
		c.Dir = real
	}
	files := slices.Clone(c.Files)
	for i := range files {
		files[i].Content = t.rewrite(bytes.Clone(files[i].Content))
	}
	c.Files = files
	env := &environment{vars: slices.Clone(c.Env)}
	for _, cr := range t.credentials() {
		if !t.policy.Allowed(cr.Name) && !cr.Decoy && cr.Env != "" && env.get(cr.Env) == cr.Placeholder {
			env.unset(cr.Env)
		}
	}
	env.unset("SSH_AUTH_SOCK")
	env.set("GUARD_TASK", t.info.Task)
	for i, kv := range env.vars {
		env.vars[i] = string(t.rewrite([]byte(kv)))
	}
	c.Env = env.vars
	return c
}

// run runs the task's command to its end.
func (t *task) run(ctx context.Context, q taskRequest, conn net.Conn, in *bufio.Reader, w *taskConn) (code int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t.session.mu.Lock()
	agent := t.sandbox
	t.session.mu.Unlock()
	if agent == nil || agent.Tier != sandbox.Contained {
		return 0, errors.New("the session has no namespaces of its own, and so its parts cannot be told apart")
	}
	r := t.record(typeTaskStart)
	r.PID, r.Exe = broker.Process(conn)
	r.Path, r.Reason = q.Dir, q.Argv[0]
	r.Resource = (&runFlags{allow: q.Allow, deny: q.Deny}).words()
	t.describe(&r)
	if _, err := t.append(r); err != nil {
		return 0, errors.New("its start could not be recorded")
	}
	began := time.Now()
	defer func() {
		r := t.record(typeTaskEnd)
		r.Result = fmt.Sprintf("exit status %d", code)
		if err != nil {
			r.Result = "failed"
		}
		r.DurationMS = float64(time.Since(began).Microseconds()) / 1000
		if _, err := t.append(r); err != nil {
			t.app.say("a task's end could not be recorded: %v", err)
		}
	}()

	c := t.config(q)
	var ours, theirs [3]*os.File
	closeAll := func(fs []*os.File) {
		for _, f := range fs {
			if f != nil {
				f.Close()
			}
		}
	}
	defer closeAll(ours[:])
	for i := range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(theirs[:])
			return 0, errors.New("no pipe could be made")
		}
		if ours[i], theirs[i] = r, w; i == 0 {
			ours[i], theirs[i] = w, r
		}
	}
	c.Stdin, c.Stdout, c.Stderr = theirs[0], theirs[1], theirs[2]
	t.starts.Lock()
	sb, err := sandbox.Start(ctx, c)
	t.starts.Unlock()
	closeAll(theirs[:])
	if err != nil {
		return 0, err
	}
	defer sb.Close()
	if sb.Tier != sandbox.Contained {
		return 0, errors.New("there are no namespaces for it")
	}

	var wg, out sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var broken error
	wg.Go(func() {
		defer cancel()
		if err := t.serve(ctx, sb); err != nil && ctx.Err() == nil {
			broken = err
		}
	})
	for i, kind := range []byte{taskStdout, taskStderr} {
		f := t.out(guard.Origin{Channel: guard.ChannelPipe, PID: sb.Pid(), Exe: q.Argv[0]})
		out.Go(func() {
			if err := broker.Send(taskStream{w, kind}, ours[i+1], f); err != nil {
				cancel()
				_, _ = io.Copy(io.Discard, ours[i+1])
			}
		})
	}
	signals := make(chan syscall.Signal, 8)
	var listening sync.WaitGroup
	listening.Go(func() { t.listen(in, ours[0], signals, cancel) })
	defer func() {
		_ = conn.SetReadDeadline(time.Now())
		ours[0].Close()
		listening.Wait()
	}()

	for {
		select {
		case <-ctx.Done():
			sb.Close()
			out.Wait()
			if broken != nil {
				return 0, broken
			}
			return 128 + 9, nil
		case n := <-signals:
			_ = sb.Signal(n)
		case e, ok := <-sb.Events():
			switch {
			case !ok:
				return 0, errors.New("its sandbox ended")
			case e.Kind == sandbox.Failed:
				var start *sandbox.StartError
				if errors.As(e.Err, &start) {
					return start.Code, e.Err
				}
				return 0, e.Err
			case e.Kind == sandbox.Exited:
				sb.Close() // what it left running ends with it
				out.Wait()
				return e.Code, nil
			}
		}
	}
}

// listen takes what the inner side sends. One that goes away takes its task with it.
func (t *task) listen(in io.Reader, stdin *os.File, signals chan<- syscall.Signal, cancel context.CancelFunc) {
	for {
		kind, p, err := readTaskFrame(in, maxTaskFrame)
		if err != nil {
			cancel()
			return
		}
		switch {
		case kind == taskStdin:
			_, _ = stdin.Write(p) // a command that reads no more is its own business
		case kind == taskEOF:
			stdin.Close()
		case kind == taskSignal && len(p) == 1 && (p[0] == 1 || p[0] == 2 || p[0] == 15):
			select {
			case signals <- syscall.Signal(p[0]):
			default: // eight wait already
			}
		default:
			cancel()
			return
		}
	}
}

// serve is the task's broker. It has no door to the session's guard: a task starts no
// further ones, and no listed commands.
func (t *task) serve(ctx context.Context, sb *sandbox.Sandbox) error {
	names := dns.New(dns.Options{})
	egress := t.way()
	line, asked := t.line()
	var roots *x509.CertPool
	var err error
	if len(t.flags.ca) > 0 {
		if roots, err = brokerhttp.Roots(t.flags.ca...); err != nil {
			return err
		}
	}
	pins, err := parsePins(t.flags.pins)
	if err != nil {
		return err
	}
	if egress.Proxy, err = networkProxy(t.app.getenv); err != nil {
		return err
	}
	pushed, closePushed := t.pushFormats()
	defer closePushed()
	server := &broker.Server{Name: names.Name, Synthetic: names.Synthetic, Egress: egress, Open: t.out, Listeners: []net.Listener{sb.TCP}}
	var mu sync.Mutex
	var from, to []guard.Credential
	creds := func() []guard.Credential { // the same give the same slice, as the session's do
		now := t.swapped()
		mu.Lock()
		defer mu.Unlock()
		if len(now) == 0 || len(from) != len(now) || &from[0] != &now[0] {
			from, to = now, t.own(now)
		}
		return to
	}
	proxy, err := brokerhttp.New(brokerhttp.Config{
		Line: line, Egress: egress, Creds: creds, Open: t.out, Formats: pushed, Scrub: t.scrub, CA: t.ca, Roots: roots, Session: t.info, Models: t.flags.modelHosts, Pins: pins,
		Tunnel: server.Dispatch,
		Issuing: brokerhttp.Issuing{Begin: t.beginRefresh, Store: t.storeIssued, Allow: func(u guard.Use) guard.Decision {
			return guard.Decision{Action: guard.Block, Rule: "task", Reason: "a task makes no logins: the session does", NextSteps: []string{"log in outside of guard task"}}
		}},
	})
	if err != nil {
		return err
	}
	server.HTTP = proxy.Handle
	login := t.login(line, egress, roots)
	login.Session, login.Decide, login.Open = t.info, asked, t.out
	login.Credentials = func() []guard.Credential { return t.own(t.credentials()) }
	server.Handlers = t.handlersOf(protocolsOf(&postgres.Handler{Login: login}, login))

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var first error
	var once sync.Once
	for _, f := range []func(context.Context) error{proxy.Serve, server.Serve, func(ctx context.Context) error { return names.Serve(ctx, sb.DNSUDP, sb.DNSTCP) }} {
		wg.Go(func() {
			defer cancel()
			if err := f(ctx); err != nil && ctx.Err() == nil {
				once.Do(func() { first = err })
			}
		})
	}
	wg.Wait()
	return first
}
