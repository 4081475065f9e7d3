package approve

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// MaxPending is how many questions of a session wait at once. Who asks more is refused.
	MaxPending = 20
	// ScreenAMinute is how many questions a minute take the screen over; the others wait
	// where `guard request ls` shows them.
	ScreenAMinute = 5
	// connectOnce is how long a host that was allowed once may be connected to.
	connectOnce = time.Minute
	// pollEvery is how soon an answer of another process is seen.
	pollEvery = 100 * time.Millisecond
)

// Desk is where a session's questions are, and who waits for them. Its exported fields
// are set before the first call. A Desk without Save refuses.
type Desk struct {
	Now  func() time.Time
	Wait time.Duration // how long who asks waits
	Open time.Duration // how long a question can be answered; at least Wait
	// Save keeps a question where others can answer it.
	Save func(Request) error
	// Load is it as others left it. An error means that it cannot be trusted, which is no
	// answer.
	Load func(id string) (Request, error)
	// Settle gives a pending question an answer or an end, unless somebody did before:
	// what holds now is returned.
	Settle func(r Request, state string, a *Answer) (Request, error)
	// Standing are the user's answers for more than a session.
	Standing func() []Grant
	// Record writes what became of a question; "asked" at first. An error at first means
	// that it is not asked.
	Record func(r Request, what string) error
	// Tell says that there is a question; it does not wait. Nil: nobody is told.
	Tell func(Request)
	// Screen asks on the session's terminal until ctx ends; false is no answer. Nil: there is none.
	Screen func(ctx context.Context, r Request) (Answer, bool)
	// Scope says whether a scope covers an action on a resource.
	Scope func(have, action, resource string) bool

	mu      sync.Mutex
	pending map[string]*question // by Exact
	grants  []Grant              // of this session
	tickets map[string]ticket    // what was approved once and is not used yet, by Exact
	turns   []*question          // for the screen
	turn    chan struct{}
	shown   []time.Time
	ended   bool
}

type question struct {
	r       Request
	done    chan struct{}
	waiters int
	state   string
}

type ticket struct {
	request string
	until   time.Time
	many    bool // until then, not once
}

// Outcome is what came of a question.
type Outcome struct {
	State  string // Approved, Denied, TimedOut, Withdrawn; "" if it was not asked
	ID     string // the request, or the grant's
	How    string // "approved once, by ...", "grant 12ab, ..."
	Expire time.Time
}

// Allowed says whether a person allowed it.
func (o Outcome) Allowed() bool { return o.State == Approved }

// ErrTooMany: so many questions wait that no further one is asked.
var ErrTooMany = errors.New("too many questions wait already")

// ErrEnded: the session ends.
var ErrEnded = errors.New("the session ends")

func (d *Desk) start() {
	if d.pending == nil {
		d.pending, d.tickets, d.turn = map[string]*question{}, map[string]ticket{}, make(chan struct{}, 1)
	}
}

// Ask asks for r, or joins who asks the same already, and waits for as long as Wait. What was
// answered before for the like of it is not asked again.
func (d *Desk) Ask(ctx context.Context, r Request) (Outcome, error) {
	deadline := d.Now().Add(d.Wait)
	timer := time.NewTimer(d.Wait)
	defer timer.Stop()
	for {
		q, out, err := d.join(r, deadline)
		if q == nil {
			return out, err
		}
		gone := ""
		select {
		case <-q.done:
		case <-ctx.Done():
			gone = Withdrawn
		case <-timer.C:
			gone = TimedOut
		}
		out = Outcome{State: d.leave(q, gone), ID: q.r.ID, Expire: q.r.Expires}
		switch {
		case gone == Withdrawn:
			out.State = Withdrawn
			return out, nil
		case out.State == "": // it can still be answered, and is then found by who asks again
			out.State = TimedOut
			return out, nil
		case out.State == TimedOut || out.State == Withdrawn:
			return out, nil
		}
		// What was answered is found by join: of those who asked for the same, one takes what
		// was approved once, and the others ask again.
	}
}

// join finds what was answered, or the question to wait for.
func (d *Desk) join(r Request, deadline time.Time) (*question, Outcome, error) {
	now := d.Now()
	standing := []Grant(nil)
	if d.Standing != nil {
		standing = d.Standing()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.start()
	if d.ended || d.Save == nil || d.Settle == nil || d.Record == nil {
		return nil, Outcome{}, ErrEnded
	}
	key := r.Exact()
	if g := Find(slices.Concat(standing, d.grants), r, now, d.Scope); g != nil {
		o := Outcome{State: Approved, ID: g.ID, How: "grant " + g.ID + ", by " + g.By, Expire: g.Until}
		if g.Deny {
			o.State = Denied
		}
		return nil, o, nil
	}
	if t, ok := d.tickets[key]; ok {
		if !t.many || !now.Before(t.until) {
			delete(d.tickets, key)
		}
		if now.Before(t.until) {
			return nil, Outcome{State: Approved, ID: t.request, How: "request " + t.request + ", once"}, nil
		}
	}
	if q := d.pending[key]; q != nil {
		q.waiters++
		return q, Outcome{}, nil
	}
	if !now.Before(deadline) {
		return nil, Outcome{State: TimedOut}, nil
	}
	if len(d.pending) >= MaxPending {
		return nil, Outcome{}, ErrTooMany
	}
	r.ID, r.Nonce, r.Asked, r.Expires, r.State, r.Answer = NewID(), random(16), now.UTC().Round(0), now.Add(max(d.Wait, d.Open)).UTC().Round(0), Pending, nil
	if err := d.Record(r, "asked"); err != nil {
		return nil, Outcome{}, fmt.Errorf("no question without its record: %w", err)
	}
	if err := d.Save(r); err != nil {
		return nil, Outcome{}, fmt.Errorf("keep the question: %w", err)
	}
	q := &question{r: r, done: make(chan struct{}), waiters: 1}
	d.pending[key] = q
	if d.Screen != nil {
		d.turns = append(d.turns, q)
		d.wake()
	}
	if d.Tell != nil {
		d.Tell(r)
	}
	return q, Outcome{}, nil
}

func (d *Desk) wake() {
	select {
	case d.turn <- struct{}{}:
	default:
	}
}

// leave is for a waiter that waits no more, and returns how the question stands. One that nobody
// waits for ends, unless it can be answered for longer than one waits.
func (d *Desk) leave(q *question, gone string) string {
	d.mu.Lock()
	last := gone != "" && q.state == "" && q.waiters == 1 && (d.Open <= d.Wait || !d.Now().Before(q.r.Expires))
	d.mu.Unlock()
	if last {
		d.settle(q, gone, nil)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	q.waiters--
	return q.state
}

// settle gives q an end, or the one that somebody else gave it.
func (d *Desk) settle(q *question, state string, a *Answer) {
	now, err := d.Settle(q.r, state, a)
	if err != nil { // not to be trusted: nobody approved it
		now = q.r
		if now.State = state; state == Approved {
			now.State = Withdrawn
		}
	} else if state = now.State; state == Approved || state == Denied {
		a = now.Answer
	}
	d.finish(q, now.State, a)
}

// finish tells who waits for q.
func (d *Desk) finish(q *question, state string, a *Answer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if q.state != "" {
		return
	}
	if (state == Approved || state == Denied) && (a == nil || a.Digest != q.r.Digest() || a.Allow != (state == Approved)) {
		state, a = Withdrawn, nil // an answer to something else
	}
	q.state = state
	key := q.r.Exact()
	delete(d.pending, key)
	d.turns = slices.DeleteFunc(d.turns, func(o *question) bool { return o == q })
	if a != nil {
		if g := GrantOf(q.r, *a); g == nil {
			d.tickets[key] = ticket{request: q.r.ID, until: q.r.Expires}
			if q.r.Kind == KindConnect {
				d.tickets[key] = ticket{request: q.r.ID, until: d.Now().Add(connectOnce), many: true}
			}
		} else if g.Session != "" {
			d.grants = append(d.grants, *g)
		}
	}
	what := state
	if a != nil {
		what += " " + a.Life
	}
	_ = d.Record(q.r.with(state, a), what) // the act that follows has a record of its own, without which it is not done
	close(q.done)
}

func (r Request) with(state string, a *Answer) Request {
	r.State, r.Answer = state, a
	return r
}

// Pending are the questions that wait, oldest first.
func (d *Desk) Pending() []Request {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []Request
	for _, q := range d.pending {
		out = append(out, q.r)
	}
	slices.SortFunc(out, func(a, b Request) int { return a.Asked.Compare(b.Asked) })
	return out
}

func (d *Desk) questions() []*question {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []*question
	for _, q := range d.pending {
		out = append(out, q)
	}
	return out
}

// Run takes what others answer and asks on the screen, until ctx ends; then what is
// pending is withdrawn.
func (d *Desk) Run(ctx context.Context) error {
	d.mu.Lock()
	d.start()
	d.mu.Unlock()
	var wg sync.WaitGroup
	if d.Screen != nil {
		wg.Go(func() { d.onScreen(ctx) })
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			d.Look()
		}
	}
	wg.Wait()
	d.mu.Lock()
	d.ended = true
	d.mu.Unlock()
	for _, q := range d.questions() {
		d.settle(q, Withdrawn, nil)
	}
	return nil
}

// Look takes over what others answered, and ends what is over.
func (d *Desk) Look() {
	for _, q := range d.questions() {
		if d.Load != nil {
			if r, err := d.Load(q.r.ID); err == nil && r.Digest() == q.r.Digest() && r.State != Pending {
				d.finish(q, r.State, r.Answer)
				continue
			}
		}
		switch {
		case !d.Now().Before(q.r.Expires):
			d.settle(q, TimedOut, nil)
		case d.answered(q):
			if now, err := d.Settle(q.r, Withdrawn, nil); err == nil && now.State == Withdrawn {
				d.finish(q, covered, nil)
			}
		}
	}
	d.wakeIfDue()
}

// covered is the state of a question of which the like was answered meanwhile.
const covered = "answered with another"

func (d *Desk) answered(q *question) bool {
	var standing []Grant
	if d.Standing != nil {
		standing = d.Standing()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return Find(slices.Concat(standing, d.grants), q.r, d.Now(), d.Scope) != nil
}

func (d *Desk) wakeIfDue() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.turns) > 0 && d.turn != nil {
		d.wake()
	}
}

// next is the question whose turn on the screen it is.
func (d *Desk) next() *question {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.Now()
	d.shown = slices.DeleteFunc(d.shown, func(t time.Time) bool { return now.Sub(t) >= time.Minute })
	if len(d.turns) == 0 || len(d.shown) >= ScreenAMinute {
		return nil
	}
	q := d.turns[0]
	d.turns = d.turns[1:]
	d.shown = append(d.shown, now)
	return q
}

func (d *Desk) onScreen(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.turn:
		}
		for q := d.next(); q != nil && ctx.Err() == nil; q = d.next() {
			sctx, cancel := context.WithCancel(ctx)
			stop := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				select {
				case <-q.done:
					cancel()
				case <-stop:
				}
			})
			a, ok := d.Screen(sctx, q.r)
			close(stop)
			wg.Wait()
			cancel()
			if !ok {
				continue
			}
			state := Denied
			if a.Allow {
				state = Approved
			}
			a.Digest = q.r.Digest()
			d.settle(q, state, &a)
		}
	}
}
