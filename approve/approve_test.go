package approve

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// world is a desk whose user answers from elsewhere, and whose clock stands.
type world struct {
	*Desk
	mu       sync.Mutex
	at       time.Time
	kept     map[string]Request
	records  []string
	standing []Grant
	asked    chan Request
}

func newWorld(wait, open time.Duration) *world {
	w := &world{at: time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC), kept: map[string]Request{}, asked: make(chan Request, 2000)}
	w.Desk = &Desk{
		Now: w.now, Wait: wait, Open: open,
		Save: func(r Request) error { w.mu.Lock(); defer w.mu.Unlock(); w.kept[r.ID] = r; return nil },
		Load: func(id string) (Request, error) { w.mu.Lock(); defer w.mu.Unlock(); return w.kept[id], nil },
		Settle: func(r Request, state string, a *Answer) (Request, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			got := w.kept[r.ID]
			if got.Digest() != r.Digest() {
				return got, errors.New("not what was shown")
			}
			if got.State == Pending {
				got.State, got.Answer = state, a
				w.kept[r.ID] = got
			}
			return got, nil
		},
		Standing: func() []Grant { w.mu.Lock(); defer w.mu.Unlock(); return w.standing },
		Record: func(r Request, what string) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.records = append(w.records, what)
			return nil
		},
		Tell: func(r Request) { w.asked <- r },
	}
	return w
}

func (w *world) now() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.at }
func (w *world) later(d time.Duration) {
	w.mu.Lock()
	w.at = w.at.Add(d)
	w.mu.Unlock()
	w.Look()
}

// answer is what another terminal does.
func (w *world) answer(r Request, allow bool, life string) {
	state := Denied
	if allow {
		state = Approved
	}
	a := &Answer{Allow: allow, Life: life, At: w.now(), By: "test", Digest: r.Digest()}
	w.Settle(r, state, a)
	w.Look()
}

func use(path, body string) Request {
	return Request{Kind: KindUse, Session: "s", Context: "c", Credential: "tok", Action: "http:write", Host: "api.example.com", Port: 443, Method: "POST", Path: path, Body: body, Exe: "/usr/bin/curl", ExeSHA256: "aa"}
}

type result struct {
	Outcome
	err error
}

func (w *world) ask(r Request) chan result {
	c := make(chan result, 1)
	go func() { o, err := w.Ask(context.Background(), r); c <- result{o, err} }()
	return c
}

// What was approved once is this request, and one of it: not another body, path, host,
// program or credential, and not a second time.
func TestOnceIsOnce(t *testing.T) {
	w := newWorld(time.Hour, 0)
	first, twin := w.ask(use("/a", "11")), w.ask(use("/a", "11"))
	r := <-w.asked
	for { // both wait for one question
		w.Desk.mu.Lock()
		n := w.pending[r.Exact()].waiters
		w.Desk.mu.Unlock()
		if n == 2 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	w.answer(r, true, Once)
	again := <-w.asked // by the one that did not get it
	if again.ID == r.ID || again.Nonce == r.Nonce {
		t.Error("the second question is the first one")
	}
	got := 0
	select {
	case o := <-first:
		got++
		if !o.Allowed() {
			t.Errorf("first: %+v", o)
		}
	case o := <-twin:
		got++
		if !o.Allowed() {
			t.Errorf("twin: %+v", o)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nobody was let through")
	}
	w.answer(r, true, Once) // a replay of the first answer
	if len(w.Pending()) != 1 {
		t.Errorf("%d questions wait", len(w.Pending()))
	}
	w.answer(again, false, Once)
	select {
	case o := <-first:
		if o.State != Denied {
			t.Errorf("first: %+v", o)
		}
	case o := <-twin:
		if o.State != Denied {
			t.Errorf("twin: %+v", o)
		}
	}
}

func TestAnApprovalIsOfWhatWasShown(t *testing.T) {
	change := map[string]func(*Request){
		"body":       func(r *Request) { r.Body = "22" },
		"path":       func(r *Request) { r.Path = "/b" },
		"query":      func(r *Request) { r.Query = "q" },
		"method":     func(r *Request) { r.Method = "DELETE" },
		"host":       func(r *Request) { r.Host = "api.example.org" },
		"port":       func(r *Request) { r.Port = 8443 },
		"program":    func(r *Request) { r.ExeSHA256 = "bb" },
		"credential": func(r *Request) { r.Credential = "other" },
		"action":     func(r *Request) { r.Action = "http:read" },
		"session":    func(r *Request) { r.Session = "t" },
		"context":    func(r *Request) { r.Context = "d" },
		"unread":     func(r *Request) { r.Unread = "77" },
	}
	for name, f := range change {
		w := newWorld(time.Millisecond, time.Hour)
		w.Ask(t.Context(), use("/a", "11"))
		w.answer(<-w.asked, true, Once) // after the wait: a ticket for whoever comes again
		other := use("/a", "11")
		f(&other)
		if o, _ := w.Ask(t.Context(), other); o.Allowed() {
			t.Errorf("another %s is approved by the first", name)
		}
		if o, _ := w.Ask(t.Context(), use("/a", "11")); !o.Allowed() {
			t.Errorf("%s: the one that was shown is not approved: %+v", name, o)
		}
		if o, _ := w.Ask(t.Context(), use("/a", "11")); o.Allowed() {
			t.Errorf("%s: it is approved twice", name)
		}
	}
	// an answer that names another question, by whoever wrote it
	w := newWorld(time.Millisecond, time.Hour)
	w.Ask(t.Context(), use("/a", "11"))
	r := <-w.asked
	w.mu.Lock()
	got := w.kept[r.ID]
	got.State, got.Answer = Approved, &Answer{Allow: true, Life: Always, Digest: use("/x", "").Digest()}
	w.kept[r.ID] = got
	w.mu.Unlock()
	w.Look()
	if o, _ := w.Ask(t.Context(), use("/a", "11")); o.Allowed() {
		t.Error("an answer to something else approves")
	}
}

// A question that nobody answers times out, and that is no person's denial: it may be asked
// again. What is approved after its end is not.
func TestTimeOut(t *testing.T) {
	w := newWorld(10*time.Millisecond, 0)
	o, err := w.Ask(t.Context(), use("/a", ""))
	if err != nil || o.State != TimedOut {
		t.Fatalf("%+v, %v", o, err)
	}
	r := <-w.asked
	w.answer(r, true, Always)
	if o, _ := w.Ask(t.Context(), use("/a", "")); o.State != TimedOut || o.ID == r.ID {
		t.Errorf("after its end: %+v", o)
	}
	if got := strings.Join(w.records, ","); got != "asked,timed out,asked,timed out" {
		t.Error(got)
	}
	w = newWorld(time.Millisecond, time.Hour)
	w.Ask(t.Context(), use("/a", ""))
	w.later(2 * time.Hour)
	if got := strings.Join(w.records, ","); got != "asked,timed out" {
		t.Error(got)
	}
}

func TestDenialIsRemembered(t *testing.T) {
	w := newWorld(time.Hour, 0)
	c, beside := w.ask(use("/a", "1")), w.ask(use("/b", "2"))
	r := <-w.asked
	<-w.asked
	w.answer(r, false, Once)
	w.Look() // what is like it is answered, too
	for _, c := range []chan result{c, beside} {
		if o := <-c; o.State != Denied {
			t.Errorf("%+v", o)
		}
	}
	if o, _ := w.Ask(t.Context(), use("/c", "3")); o.State != Denied || len(w.asked) != 0 {
		t.Errorf("asked again: %+v", o)
	}
}

func TestFlood(t *testing.T) {
	w := newWorld(time.Hour, 0)
	refused := make(chan bool, 1000)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for i := range 1000 {
		wg.Go(func() {
			_, err := w.Ask(ctx, use(fmt.Sprint("/", i), ""))
			refused <- errors.Is(err, ErrTooMany)
		})
	}
	for range 1000 - MaxPending {
		if !<-refused {
			t.Error("neither asked nor refused")
		}
	}
	if n := len(w.Pending()); n != MaxPending {
		t.Errorf("%d questions wait", n)
	}
	cancel()
	wg.Wait()
	if n := len(w.Pending()); n != 0 {
		t.Errorf("%d questions wait for nobody", n)
	}
	// on the screen only so many a minute
	for i := range 10 {
		w.turns = append(w.turns, &question{r: use(fmt.Sprint(i), "")})
	}
	n := 0
	for w.next() != nil {
		n++
	}
	if n != ScreenAMinute {
		t.Errorf("%d in one minute", n)
	}
	w.later(time.Minute)
	if w.next() == nil {
		t.Error("none in the next minute")
	}
}

// Within a standing grant a daemon goes on at 3 a.m.; not a second beyond its end, and not
// beside it.
func TestStandingGrantEnds(t *testing.T) {
	w := newWorld(time.Millisecond, time.Hour)
	r := use("/a", "")
	r.Profile = "daemon"
	a := Answer{Allow: true, Life: For, Until: w.at.Add(time.Hour), At: w.at, By: "test"}
	r.ID = "1"
	w.standing = []Grant{*GrantOf(r, a)}
	r.ID = ""
	r.Session = "another session"
	for i, c := range []struct {
		later time.Duration
		f     func(*Request)
		ok    bool
	}{
		{0, func(r *Request) { r.Path = "/any" }, true},
		{0, func(r *Request) { r.Host = "other.example.com" }, false},
		{0, func(r *Request) { r.ExeSHA256 = "bb" }, false},
		{0, func(r *Request) { r.ExeSHA256 = "" }, false},
		{0, func(r *Request) { r.Context = "d" }, false},
		{0, func(r *Request) { r.Action = "repo:push" }, false},
		{time.Hour - time.Second, func(r *Request) {}, true},
		{time.Second, func(r *Request) {}, false},
	} {
		w.later(c.later)
		q := r
		c.f(&q)
		if o, _ := w.Ask(t.Context(), q); o.Allowed() != c.ok {
			t.Errorf("case %d: %+v", i, o)
		}
	}
}

func TestGrantOf(t *testing.T) {
	r := use("/a", "")
	if GrantOf(r, Answer{Allow: true, Life: Once}) != nil {
		t.Error("once leaves a grant")
	}
	r.ExeSHA256 = ""
	if GrantOf(r, Answer{Allow: true, Life: Always}) != nil {
		t.Error("a program that is not known is allowed for longer")
	}
	if g := GrantOf(r, Answer{Life: Always}); g == nil || !g.Covers(r, time.Now(), nil) {
		t.Error("a denial is not remembered where the program is not known")
	}
	ask := Request{Kind: KindAsk, Session: "s", Context: "c", Credential: "tok", Action: "http:read", Host: "evil.example.com"}
	g := GrantOf(ask, Answer{Allow: true, Life: Session})
	covers := func(have, action, _ string) bool { return have == "http:read" && action == "http:read" }
	q := use("/a", "")
	if q.Action = "http:read"; !g.Covers(q, time.Now(), covers) {
		t.Error("what was asked for is not covered")
	}
	if q.Action = "http:write"; g.Covers(q, time.Now(), covers) {
		t.Error("more than was asked for is covered")
	}
	deny, allow := *g, *g
	deny.Deny, deny.Action = true, "http:read"
	q.Action = "http:read"
	q.Kind = KindAsk
	if got := Find([]Grant{allow, deny}, q, time.Now(), covers); got == nil || !got.Deny {
		t.Error("a permission goes before a denial")
	}
}

// What an agent can name drives no terminal, turns no text around and looks like nothing else.
func TestShown(t *testing.T) {
	r := use("/\x1b[2J\x1b]0;x\a\u202etxt.exe\u200b", "")
	r.Host, r.Exe, r.Task, r.Reason, r.Method = "\u0430pi.ex\u0430mple.com", "/tmp/\xff\x9b31m", strings.Repeat("long ", 100000), "a\nrequest   approved\r\n", "GET\t\u2028"
	for _, l := range r.Lines(time.Now()) {
		for _, s := range []string{l.Name, l.Text} {
			for _, c := range []byte(s) {
				if c < 0x20 || c > 0x7e {
					t.Errorf("%s: %q", l.Name, s)
					break
				}
			}
			if len(s) > 700 {
				t.Errorf("%s has %d characters", l.Name, len(s))
			}
		}
	}
	text := fmt.Sprint(r.Lines(time.Now()))
	for _, want := range []string{`\u0430pi.ex\u0430mple.com`, "may look like others", `\u202e`, "more]", "the agent's words"} {
		if !strings.Contains(text, want) {
			t.Errorf("not shown: %s", want)
		}
	}
	r.Host = "xn--pi-example-abc.com"
	if !strings.Contains(fmt.Sprint(r.Lines(time.Now())), "other letters") {
		t.Error("punycode is not said")
	}
}

// What is asked on the screen and answered in another terminal is taken off the screen; the
// first answer counts.
func TestScreen(t *testing.T) {
	w := newWorld(time.Hour, 0)
	shown, left := make(chan Request, 9), make(chan bool, 9)
	say := make(chan Answer)
	w.Screen = func(ctx context.Context, r Request) (Answer, bool) {
		shown <- r
		select {
		case a := <-say:
			return a, true
		case <-ctx.Done():
			left <- true
			return Answer{}, false
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { w.Run(ctx) })
	c := w.ask(use("/a", ""))
	r := <-shown
	w.answer(r, false, Once)
	<-left
	if o := <-c; o.State != Denied {
		t.Errorf("%+v", o)
	}
	q := use("/a", "")
	q.Action = "http:read"
	c = w.ask(q)
	<-shown
	say <- Answer{Allow: true, Life: Session}
	if o := <-c; !o.Allowed() {
		t.Errorf("%+v", o)
	}
	if o, _ := w.Ask(t.Context(), q); !o.Allowed() || len(shown) != 0 {
		t.Errorf("it is asked again: %+v", o)
	}
	cancel()
	wg.Wait()
	if _, err := w.Ask(t.Context(), use("/z", "")); !errors.Is(err, ErrEnded) {
		t.Errorf("after the end: %v", err)
	}
}
