// Package rotatetest is the conformance suite for rotate.Provider. It runs
// against the real issuer: whether a value works is asked there, not of the
// provider. It kills a child process at every point where a rotation's state
// changes, at the issuer, in the vault or in the journal, and looks at what is
// left after Resume.
package rotatetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"guard"
	"guard/rotate"
	"guard/vault"
)

// Fixture is one fresh credential at a real issuer.
type Fixture struct {
	Name       string // of the provider, as a spec begins
	Provider   rotate.Provider
	Credential guard.Credential // Name, Kind, Hosts, User, Rotate
	Value      string           // works now
	Others     []Other          // credentials that the rotate option names
	// State lets Open attach to the same credential from another process.
	State string
	// Login asks the issuer itself whether value works: nil, rotate.ErrRefused,
	// or another error.
	Login func(value string) error
	// Session opens a session with value; alive asks the issuer whether it is
	// still open. nil: the issuer has none.
	Session func(value string) (pid uint32, alive func() bool, err error)
	// Lock makes the issuer refuse to change the credential until unlock is
	// called. nil: it cannot be made to.
	Lock func() (unlock func(), err error)
	// Logs returns what the issuer wrote to its log, which must hold no value.
	Logs func() []byte
	// Slow: a login takes so long that only every third point of a rotation is died at,
	// unless GUARD_KILLS is set.
	Slow bool
}

// Other is a credential that is needed for the rotation.
type Other struct {
	Credential guard.Credential
	Value      string
}

// Open makes a fixture, or attaches to the one that state describes.
type Open func(tb testing.TB, state string) Fixture

const childEnv = "GUARD_ROTATETEST_CHILD"

// order is what a child is told.
type order struct {
	Test  string
	Dir   string
	State string
	Mode  rotate.Mode
	At    int   // die at this event; 0: at none
	Fault fault // that the issuer has
}

// Test runs the suite. In a child it does what the parent ordered and ends the
// process.
func Test(t *testing.T, open Open) {
	asChild(t, open)
	t.Run("graceful", func(t *testing.T) { whole(t, open, rotate.Graceful) })
	t.Run("emergency", func(t *testing.T) { whole(t, open, rotate.Emergency) })
	t.Run("sessions", func(t *testing.T) { sessions(t, open) })
	t.Run("lost answer", func(t *testing.T) { lostAnswer(t, open) })
	t.Run("roll back", func(t *testing.T) { rollBack(t, open) })
	t.Run("unreachable", func(t *testing.T) { unreachable(t, open) })
	t.Run("still alive", func(t *testing.T) { stillAlive(t, open) })
	t.Run("two guards", func(t *testing.T) { twoGuards(t, open) })
	t.Run("locked", func(t *testing.T) { locked(t, open) })
	name := t.Name()
	t.Run("kill graceful", func(t *testing.T) { kills(t, open, name, rotate.Graceful) })
	t.Run("kill emergency", func(t *testing.T) { kills(t, open, name, rotate.Emergency) })
}

// asChild does what a parent ordered, in a child, and ends the process.
func asChild(t *testing.T, open Open) {
	s := os.Getenv(childEnv)
	if s == "" {
		return
	}
	var o order
	if err := json.Unmarshal([]byte(s), &o); err != nil {
		t.Fatal(err)
	}
	if o.Test == t.Name() {
		child(t, open, o)
	}
	t.Skip("not this child's test")
}

// Once runs the two orders once, without faults and kills: for a second way to
// set up a provider that passed Test.
func Once(t *testing.T, open Open) {
	t.Run("graceful", func(t *testing.T) { whole(t, open, rotate.Graceful) })
	t.Run("emergency", func(t *testing.T) { whole(t, open, rotate.Emergency) })
	t.Run("lost answer", func(t *testing.T) { lostAnswer(t, open) })
}

// world is a fixture in a vault, with a runner.
type world struct {
	Fixture
	tb     testing.TB
	dir    string
	vault  *vault.Vault
	runner *rotate.Runner
	id     guard.SecretID
}

func newWorld(t testing.TB, open Open) *world {
	t.Helper()
	w := &world{Fixture: open(t, ""), tb: t, dir: t.TempDir()}
	v, err := vault.Create(filepath.Join(w.dir, "vault"), vault.KeyFile{Path: filepath.Join(w.dir, "key"), Create: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range append([]Other{{w.Credential, w.Value}}, w.Others...) {
		o.Credential.Context = "test"
		if _, err := v.Set(o.Credential, guard.NewSecret([]byte(o.Value))); err != nil {
			t.Fatal(err)
		}
	}
	w.attach(v)
	return w
}

func reopen(tb testing.TB, open Open, dir, state string) *world {
	w := &world{Fixture: open(tb, state), tb: tb, dir: dir}
	v, err := vault.Open(filepath.Join(dir, "vault"), vault.KeyFile{Path: filepath.Join(dir, "key")})
	if err != nil {
		tb.Fatal(err)
	}
	w.attach(v)
	return w
}

func (w *world) attach(v *vault.Vault) {
	w.tb.Cleanup(v.Close)
	j, err := rotate.OpenJournal(filepath.Join(w.dir, "journal"))
	if err != nil {
		w.tb.Fatal(err)
	}
	w.vault = v
	w.id = guard.SecretID{Context: "test", Name: w.Credential.Name}
	w.runner = &rotate.Runner{
		Vault: v, Journal: j, Providers: map[string]rotate.Provider{w.Name: w.Provider},
		VerifyFor: 300 * time.Millisecond, DeadFor: 5 * time.Second,
	}
}

func (w *world) rotate(m rotate.Mode) (rotate.Report, error) {
	return w.runner.Rotate(context.Background(), "test", w.Credential.Name, m, "a test")
}

// value reads a version; 0 is the current one.
func (w *world) value(version int) string {
	w.tb.Helper()
	id := w.id
	id.Version = version
	s, err := w.vault.Get(id)
	if err != nil {
		w.tb.Fatal(err)
	}
	return string(s.Reveal())
}

// exactlyOne checks the invariant: the current version works, no other does,
// none is half made, and nothing in the journal or in a report is a value.
func (w *world) exactlyOne(t *testing.T, reports ...rotate.Report) {
	t.Helper()
	w.exactlyOneOf(t, 0, reports...)
}

// exactlyOneOf is that for the last versions, 0 being all: a login takes its time.
func (w *world) exactlyOneOf(t *testing.T, last int, reports ...rotate.Report) {
	t.Helper()
	versions, err := w.vault.Versions("test", w.Credential.Name)
	if err != nil {
		t.Fatal(err)
	}
	if last > 0 && len(versions) > last {
		versions = versions[len(versions)-last:]
	}
	var values []string
	for _, v := range versions {
		value := w.value(v.Number)
		values = append(values, value)
		err := w.Login(value)
		switch v.State {
		case vault.Current:
			if err != nil {
				t.Errorf("version %d is current and does not work: %v", v.Number, err)
			}
		case vault.Dead:
			if !errors.Is(err, rotate.ErrRefused) {
				t.Errorf("version %d is buried and not refused: %v", v.Number, err)
			}
		default:
			t.Errorf("version %d is left %v", v.Number, v.State)
		}
	}
	for _, r := range reports {
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		w.hidden(t, "a report", b, values)
	}
	w.hiddenInFiles(t, values)
	if w.Logs != nil {
		w.hidden(t, "the issuer's log", w.Logs(), values)
	}
}

func (w *world) hiddenInFiles(t *testing.T, values []string) {
	t.Helper()
	err := filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		w.hidden(t, path, b, values)
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func (w *world) hidden(t *testing.T, where string, b []byte, values []string) {
	t.Helper()
	for i, v := range values {
		if strings.Contains(string(b), v) {
			t.Errorf("value %d is in %s", i+1, where)
		}
	}
}

func stepNames(r rotate.Report) []string {
	var out []string
	for _, s := range r.Steps {
		if s.Step != rotate.PartRevoked && s.Step != rotate.PartSessions {
			out = append(out, s.Step)
		}
	}
	return out
}

func whole(t *testing.T, open Open, m rotate.Mode) {
	w := newWorld(t, open)
	var calls []string
	w.runner.Quarantine = func(id guard.SecretID) { calls = append(calls, fmt.Sprint("quarantine ", id.Version)) }
	w.runner.Release = func(id guard.SecretID) { calls = append(calls, fmt.Sprint("release ", id.Version)) }
	w.runner.OnSwitch = func(o, n guard.SecretID) {
		if err := w.Login(w.value(n.Version)); err != nil {
			t.Errorf("switched to a value that does not work: %v", err)
		}
		calls = append(calls, fmt.Sprint("switch ", o.Version, n.Version))
	}
	rep, err := w.rotate(m)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v in %.0f ms: %+v", m, rep.MS, rep.Steps)
	want := []string{"intent", "mint", "verify", "switch", "revoke", "verify-dead", "done"}
	if m == rotate.Emergency {
		want = []string{"quarantine", "intent", "revoke", "verify-dead", "mint", "verify", "switch", "done"}
		if len(calls) < 2 || calls[0] != "quarantine 1" || !strings.HasPrefix(calls[len(calls)-1], "release ") {
			t.Errorf("calls: %v; want quarantine first, release last", calls)
		}
	} else if len(calls) != 1 {
		t.Errorf("calls: %v; want the switch alone", calls)
	}
	if got := stepNames(rep); !slices.Equal(got, want) {
		t.Errorf("steps %v; want %v", got, want)
	}
	if !rep.Dead || rep.State != "done" || rep.From != 1 || rep.To < 2 {
		t.Errorf("report: %+v", rep)
	}
	if err := w.Login(w.Value); !errors.Is(err, rotate.ErrRefused) {
		t.Errorf("the old value is not refused: %v", err)
	}
	w.exactlyOne(t, rep)
	// The same leak again: there is nothing left to do.
	old := w.id
	old.Version = 1
	again, err := w.runner.Replace(context.Background(), old, rotate.Emergency, "the same leak", "")
	if err != nil || again.State != "replaced" || !again.Dead {
		t.Errorf("the dead version again: %+v, %v", again, err)
	}
	if rep, err = w.rotate(m); err != nil || !rep.Dead {
		t.Errorf("a second rotation: %+v, %v", rep, err)
	}
	w.exactlyOne(t, rep)
}

func sessions(t *testing.T, open Open) {
	w := newWorld(t, open)
	if w.Session == nil {
		t.Skip("this issuer has no sessions")
	}
	own, ownAlive, err := w.Session(w.Value)
	if err != nil {
		t.Fatal(err)
	}
	_, otherAlive, err := w.Session(w.Value)
	if err != nil {
		t.Fatal(err)
	}
	w.runner.Spare = func(context, name string) []uint32 { return []uint32{own} }
	if _, err := w.rotate(rotate.Graceful); err != nil {
		t.Fatal(err)
	}
	if !ownAlive() || otherAlive() {
		t.Errorf("graceful: own session alive %v, want true; another alive %v, want false", ownAlive(), otherAlive())
	}
	_, lateAlive, err := w.Session(w.value(0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.rotate(rotate.Emergency); err != nil {
		t.Fatal(err)
	}
	if ownAlive() || lateAlive() {
		t.Error("emergency: a session is still open")
	}
	w.exactlyOne(t)
}

// faulty changes what a provider answers.
type faulty struct {
	rotate.Provider
	mint   func(guard.Secret, error) (guard.Secret, error)
	verify func(j rotate.Job, err error) error
	revoke func(ctx context.Context, j rotate.Job) error
}

func (f *faulty) Mint(ctx context.Context, j rotate.Job) (guard.Secret, error) {
	v, err := f.Provider.Mint(ctx, j)
	if f.mint != nil {
		return f.mint(v, err)
	}
	return v, err
}

func (f *faulty) Verify(ctx context.Context, j rotate.Job, v guard.Secret) error {
	err := f.Provider.Verify(ctx, j, v)
	if f.verify != nil {
		return f.verify(j, err)
	}
	return err
}

func (f *faulty) Revoke(ctx context.Context, j rotate.Job) error {
	if f.revoke != nil {
		return f.revoke(ctx, j)
	}
	return f.Provider.Revoke(ctx, j)
}

// chooser keeps a provider's Choose visible.
type chooser struct {
	*faulty
	choose func(rotate.Job) (guard.Secret, error)
}

func (c chooser) Choose(j rotate.Job) (guard.Secret, error) { return c.choose(j) }

func (w *world) fault(f *faulty) {
	f.Provider = w.Provider
	var p rotate.Provider = f
	if c, ok := w.Provider.(rotate.Chooser); ok {
		p = chooser{f, c.Choose}
	}
	w.runner.Providers = map[string]rotate.Provider{w.Name: p}
}

// lostAnswer: the issuer made the new value, the answer did not come.
func lostAnswer(t *testing.T, open Open) {
	for _, m := range []rotate.Mode{rotate.Graceful, rotate.Emergency} {
		w := newWorld(t, open)
		lost := false
		w.fault(&faulty{mint: func(v guard.Secret, err error) (guard.Secret, error) {
			if !lost && err == nil {
				lost = true
				v.Wipe()
				return guard.Secret{}, errors.New("connection reset by peer")
			}
			return v, err
		}})
		rep, err := w.rotate(m)
		if !lost {
			t.Fatal("nothing was lost")
		}
		if err != nil {
			// The issuer chose the value, and nobody has seen it.
			if !errors.Is(err, rotate.ErrOpen) {
				t.Fatalf("%v: %v", m, err)
			}
			reps, err := w.runner.Resume(context.Background())
			if err != nil || len(reps) != 1 {
				t.Fatalf("%v: resume: %v, %v", m, reps, err)
			}
			rep = reps[0]
		}
		if !rep.Dead || rep.State != "done" {
			t.Errorf("%v: %+v", m, rep)
		}
		w.exactlyOne(t, rep)
	}
}

// rollBack: the issuer refuses the new value; the old one stays.
func rollBack(t *testing.T, open Open) {
	w := newWorld(t, open)
	if w.Lock == nil {
		t.Skip("this issuer cannot be made to refuse a change")
	}
	unlock, err := w.Lock()
	if err != nil {
		t.Fatal(err)
	}
	rep, err := w.rotate(rotate.Graceful)
	unlock()
	if !errors.Is(err, rotate.ErrRolledBack) || rep.State != "rolled back" || rep.Dead {
		t.Fatalf("%+v, %v", rep, err)
	}
	t.Logf("said: %v", err)
	if strings.Contains(err.Error(), w.Value) {
		t.Error("the error holds the value")
	}
	if w.value(0) != w.Value {
		t.Error("another value is current")
	}
	w.exactlyOne(t, rep)
	if rep, err = w.rotate(rotate.Graceful); err != nil {
		t.Fatal(err)
	}
	w.exactlyOne(t, rep)
}

// unreachable: the issuer made the new value and then cannot be reached.
func unreachable(t *testing.T, open Open) {
	w := newWorld(t, open)
	down := true
	w.fault(&faulty{verify: func(j rotate.Job, err error) error {
		if down {
			return errors.New("connection refused")
		}
		return err
	}})
	rep, err := w.rotate(rotate.Graceful)
	if !errors.Is(err, rotate.ErrOpen) || rep.State != "open" || rep.Dead {
		t.Fatalf("%+v, %v", rep, err)
	}
	down = false
	reps, err := w.runner.Resume(context.Background())
	if err != nil || len(reps) != 1 || !reps[0].Dead {
		t.Fatalf("%+v, %v", reps, err)
	}
	w.exactlyOne(t, reps...)
}

// stillAlive: the issuer says that it revoked, and goes on accepting.
func stillAlive(t *testing.T, open Open) {
	for _, m := range []rotate.Mode{rotate.Graceful, rotate.Emergency} {
		w := newWorld(t, open)
		w.runner.DeadFor = 60 * time.Millisecond
		lies := true
		f := &faulty{verify: func(j rotate.Job, err error) error {
			if lies && j.Step == rotate.StepDead {
				return nil
			}
			return err
		}}
		w.fault(f)
		rep, err := w.rotate(m)
		if !errors.Is(err, rotate.ErrAlive) || rep.Dead || rep.State != "open" {
			t.Fatalf("%v: %+v, %v", m, rep, err)
		}
		if err := w.Login(w.value(0)); err != nil || w.value(0) == w.Value {
			t.Errorf("%v: the new value is not the current one: %v", m, err)
		}
		if last := rep.Steps[len(rep.Steps)-1]; last.Step != rotate.StepDead || !strings.Contains(last.Result, "still alive") {
			t.Errorf("%v: last step %+v", m, last)
		}
		lies = false
		w.runner.DeadFor = 5 * time.Second
		reps, err := w.runner.Resume(context.Background())
		if err != nil || len(reps) != 1 || !reps[0].Dead {
			t.Fatalf("%v: %+v, %v", m, reps, err)
		}
		w.exactlyOne(t, reps...)
	}
}

// twoGuards: the same leak, seen by two guards that share nothing but the disk.
func twoGuards(t *testing.T, open Open) {
	w := newWorld(t, open)
	other := reopen(t, open, w.dir, w.State)
	var mints atomic.Int32
	count := func(v guard.Secret, err error) (guard.Secret, error) { mints.Add(1); return v, err }
	w.fault(&faulty{mint: count})
	other.fault(&faulty{mint: count})
	id := w.id
	id.Version = 1
	var wg sync.WaitGroup
	for _, r := range []*world{w, other} {
		wg.Go(func() {
			rep, err := r.runner.Replace(context.Background(), id, rotate.Emergency, "a leak", "")
			if err != nil || !rep.Dead {
				t.Errorf("%+v, %v", rep, err)
			}
		})
	}
	wg.Wait()
	if n := mints.Load(); n != 1 {
		t.Errorf("minted %d times", n)
	}
	w.exactlyOne(t)
}

// locked: somebody holds the credential's lock; nobody else gets in.
func locked(t *testing.T, open Open) {
	w := newWorld(t, open)
	entered, leave := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.fault(&faulty{verify: func(j rotate.Job, err error) error {
		once.Do(func() { close(entered); <-leave })
		return err
	}})
	done := make(chan error, 1)
	go func() { _, err := w.rotate(rotate.Graceful); done <- err }()
	<-entered
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := w.runner.Rotate(ctx, "test", w.Credential.Name, rotate.Graceful, ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second rotation was let in: %v", err)
	}
	if reps, err := w.runner.Resume(context.Background()); err != nil || len(reps) != 0 {
		t.Errorf("Resume took over a rotation that is being worked on: %v, %v", reps, err)
	}
	close(leave)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	w.exactlyOne(t)
}

// child rotates, counts what happens, and dies at one event.
func child(t *testing.T, open Open, o order) {
	w := reopen(t, open, o.Dir, o.State)
	var mu sync.Mutex
	n := 0
	event := func(string) {
		mu.Lock()
		defer mu.Unlock()
		if n++; n == o.At {
			killSelf()
			select {} // the signal is on its way
		}
	}
	c := &counted{w.Provider, event}
	var p rotate.Provider = c
	if ch, ok := w.Provider.(rotate.Chooser); ok {
		p = countedChooser{c, ch}
	}
	w.runner.Providers[w.Name] = o.Fault.in(p)
	w.runner.OnCandidate = func(guard.SecretID) { event("sealed") }
	w.runner.OnSwitch = func(guard.SecretID, guard.SecretID) { event("promoted") }
	w.runner.OnStep = func(_ rotate.Report, s rotate.Step) { event("after " + s.Step) }
	w.runner.Quarantine = func(guard.SecretID) { event("quarantine") }
	if _, err := w.rotate(o.Mode); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

type counted struct {
	rotate.Provider
	event func(string)
}

func (c *counted) Mint(ctx context.Context, j rotate.Job) (guard.Secret, error) {
	c.event("before mint")
	defer c.event("minted")
	return c.Provider.Mint(ctx, j)
}

func (c *counted) Verify(ctx context.Context, j rotate.Job, v guard.Secret) error {
	c.event("before verify")
	defer c.event("verified")
	return c.Provider.Verify(ctx, j, v)
}

func (c *counted) Revoke(ctx context.Context, j rotate.Job) error {
	c.event("before revoke")
	defer c.event("revoked")
	return c.Provider.Revoke(ctx, j)
}

type countedChooser struct {
	*counted
	ch rotate.Chooser
}

func (c countedChooser) Choose(j rotate.Job) (guard.Secret, error) {
	defer c.event("chosen")
	return c.ch.Choose(j)
}

// spawn starts a child.
func (w *world) spawn(t *testing.T, test string, m rotate.Mode, at int, f fault) *exec.Cmd {
	t.Helper()
	b, err := json.Marshal(order{Test: test, Dir: w.dir, State: w.State, Mode: m, At: at, Fault: f})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$")
	cmd.Env = append(os.Environ(), childEnv+"="+string(b))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// kills dies at the first event, then at the second, and so on, until a child
// gets through. The same credential is used all the way: each round starts from
// what the one before left.
func kills(t *testing.T, open Open, test string, m rotate.Mode) {
	w := newWorld(t, open)
	step := 1
	if w.Slow && os.Getenv(killsEnv) == "" {
		step = 3
	}
	for at := 1; ; at += step {
		before := w.value(0)
		err := w.spawn(t, test, m, at, faultNone).Wait()
		var exit *exec.ExitError
		switch {
		case err == nil:
			if at < 10 {
				t.Errorf("only %d events: nothing was tried", at)
			}
			t.Logf("killed at %d events", (at-1+step-1)/step)
			w.exactlyOne(t)
			return
		case !errors.As(err, &exit) || exit.Exited():
			t.Fatalf("event %d: %v", at, err)
		case at > 100:
			t.Fatal("no end")
		}
		w.recover(t, fmt.Sprintf("event %d", at), before)
		if t.Failed() {
			return
		}
	}
}

// recover resumes what a killed child left and checks it.
func (w *world) recover(t *testing.T, when, before string) {
	t.Helper()
	reps, err := w.runner.Resume(context.Background())
	if err != nil || len(reps) > 1 {
		t.Errorf("%s: resume: %v, %v", when, reps, err)
	}
	for _, r := range reps {
		if r.State != "done" || !r.Dead {
			t.Errorf("%s: %+v", when, r)
		}
	}
	if len(reps) == 1 && w.value(0) == before {
		t.Errorf("%s: the value is the old one", when)
	}
	w.exactlyOneOf(t, 4, reps...)
}
