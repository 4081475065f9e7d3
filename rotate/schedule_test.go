package rotate

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"guard"
)

// schedule stores a credential with a spec and returns its id.
func (b *bench) schedule(t *testing.T, name, spec string, expires time.Time) guard.SecretID {
	t.Helper()
	c, err := b.vault.Set(guard.Credential{Context: "c", Name: name, Hosts: []string{"h.test"}, Rotate: spec, Expires: expires}, guard.NewSecret([]byte("value-of-"+name+"-at-the-issuer")))
	must(t, err)
	b.issuer.tokens["value-of-"+name+"-at-the-issuer"] = true
	return c.ID()
}

func TestDue(t *testing.T) {
	b := newBench(t)
	now := time.Now()
	b.schedule(t, "hourly", "exec,cmd=/x,every=1h", time.Time{})
	b.schedule(t, "expiring", "exec,cmd=/x", now.Add(10*time.Hour))
	b.schedule(t, "early", "exec,cmd=/x,before=5h", now.Add(10*time.Hour))
	b.schedule(t, "counted", "exec,cmd=/x,uses=3", time.Time{})
	b.schedule(t, "sessions", "exec,cmd=/x,at=start+end", time.Time{})
	b.schedule(t, "killed", "exec,cmd=/x,at=killed", time.Time{})
	used := func(n int) func(guard.SecretID) int {
		return func(id guard.SecretID) int {
			if id.Name == "counted" {
				return n
			}
			return 0
		}
	}
	for _, c := range []struct {
		after time.Duration
		m     Moment
		uses  int
		want  string
	}{
		{0, Passing, 2, ""},
		{0, Passing, 3, "counted"},
		{53 * time.Minute, Passing, 0, ""},
		{67 * time.Minute, Passing, 0, "hourly"},
		{0, Start, 0, "sessions"},
		{0, End, 0, "sessions"},
		{0, Killed, 0, "killed sessions"},
		{8 * time.Hour, Passing, 0, "early hourly"},
		{9*time.Hour + time.Minute, Passing, 0, "early expiring hourly"},
	} {
		due, next, err := b.runner.Due("c", c.m, now.Add(c.after), used(c.uses))
		must(t, err)
		got := map[string]bool{}
		for i, n := range due {
			got[n.ID.Name] = true
			if n.Reason == "" || n.At.After(now.Add(c.after)) || i > 0 && n.At.Before(due[i-1].At) {
				t.Errorf("%+v", n)
			}
		}
		for name := range strings.FieldsSeq(c.want) {
			if !got[name] {
				t.Errorf("after %v, moment %d, %d uses: %s is not due", c.after, c.m, c.uses, name)
			}
			delete(got, name)
		}
		for name := range got {
			t.Errorf("after %v, moment %d, %d uses: %s is due", c.after, c.m, c.uses, name)
		}
		if c.after == 0 && (next.Before(now.Add(4*time.Minute)) || next.After(now.Add(66*time.Minute))) {
			t.Errorf("next is %v from now", next.Sub(now))
		}
	}
}

// What was stored together is not replaced together.
func TestDueIsScattered(t *testing.T) {
	b := newBench(t)
	now := time.Now()
	for i := range 40 {
		b.schedule(t, fmt.Sprintf("s%02d", i), "exec,cmd=/x,every=100h", time.Time{})
	}
	last := 0
	steps := 0
	for h := 89; h <= 111; h++ {
		due, _, err := b.runner.Due("c", Passing, now.Add(time.Duration(h)*time.Hour), nil)
		must(t, err)
		if len(due) > last {
			steps++
		}
		last = len(due)
	}
	if last != 40 || steps < 10 {
		t.Errorf("%d are due, in %d steps", last, steps)
	}
}

// A rotation that is open is Resume's, not the schedule's.
func TestDueLeavesOpenOnesOut(t *testing.T) {
	b := newBench(t)
	id := b.schedule(t, "hourly", "exec,cmd=/x,every=1h", time.Time{})
	must(t, b.runner.Journal.save(&record{Intent: "i", From: id, Step: StepMint}))
	due, _, err := b.runner.Due("c", Passing, time.Now().Add(24*time.Hour), nil)
	must(t, err)
	for _, n := range due {
		if n.ID == id {
			t.Error("an open rotation is due")
		}
	}
}

func TestOverlap(t *testing.T) {
	b := newBench(t)
	id := b.schedule(t, "slow", "exec,cmd=/x,overlap=1h", time.Time{})
	rep, err := b.runner.Rotate(context.Background(), "c", "slow", Graceful, "by hand")
	must(t, err)
	if rep.State != "overlap" || rep.Dead || time.Until(rep.Until) < 59*time.Minute {
		t.Fatalf("%+v", rep)
	}
	if len(b.tokens) != 3 {
		t.Errorf("%d tokens work: both of this one should", len(b.tokens))
	}
	// Resume before the time does nothing, a leak of the old value ends the overlap.
	reps, err := b.runner.Resume(context.Background())
	must(t, err)
	if len(reps) != 1 || reps[0].State != "overlap" {
		t.Fatalf("%+v", reps)
	}
	rep, err = b.runner.Replace(context.Background(), id, Emergency, "it got out", "inc")
	must(t, err)
	if !rep.Dead || len(b.tokens) != 2 {
		t.Errorf("%+v, %d tokens", rep, len(b.tokens))
	}
	// A leak gives no overlap.
	rep, err = b.runner.Replace(context.Background(), guard.SecretID{Context: "c", Name: "slow"}, Graceful, "stopped", "inc2")
	must(t, err)
	if !rep.Dead {
		t.Errorf("%+v", rep)
	}
}

// byHand is an issuer where a person makes new values.
type byHand struct{ *issuer }

func (byHand) Mint(context.Context, Job) (guard.Secret, error) {
	return guard.Secret{}, &ByHand{Page: "https://issuer.test/keys", Steps: []string{"press New"}}
}

func TestByHand(t *testing.T) {
	for _, m := range []Mode{Graceful, Emergency} {
		b := newBench(t)
		b.runner.Providers["exec"] = byHand{b.issuer}
		rep, err := b.runner.Rotate(context.Background(), "c", "tok", m, "why")
		if !errors.Is(err, ErrByHand) || rep.State != "by hand" || len(rep.Next) != 3 || !strings.Contains(rep.Next[0], "issuer.test/keys") {
			t.Fatalf("%v: %+v, %v", m, rep, err)
		}
		held, err := b.runner.Journal.Held()
		must(t, err)
		if (len(held) == 1) != (m == Emergency) {
			t.Errorf("%v: held %v", m, held)
		}
		if works := b.tokens[firstToken]; works == (m == Emergency) {
			t.Errorf("%v: the old one works: %v", m, works)
		}
		// Not yet: nothing changes.
		if reps, err := b.runner.Resume(context.Background()); !errors.Is(err, ErrByHand) || len(reps) != 1 {
			t.Errorf("%v: %+v, %v", m, reps, err)
		}
		const second = "second-token-made-by-hand"
		c, err := b.vault.Find("c", "tok")
		must(t, err)
		_, err = b.vault.Set(c, guard.NewSecret([]byte(second)))
		must(t, err)
		// A value that does not work is not taken for the new one.
		if reps, err := b.runner.Resume(context.Background()); err == nil || len(reps) != 1 || reps[0].Dead && m == Graceful {
			t.Errorf("%v: %+v, %v", m, reps, err)
		}
		if m == Graceful && !b.tokens[firstToken] {
			t.Error("the old one was revoked before the new one worked")
		}
		b.issuer.mu.Lock()
		b.issuer.tokens[second] = true
		b.issuer.mu.Unlock()
		reps, err := b.runner.Resume(context.Background())
		if err != nil || len(reps) != 1 || reps[0].State != "done" || !reps[0].Dead {
			t.Fatalf("%v: %+v, %v", m, reps, err)
		}
		if len(b.tokens) != 1 || !b.tokens[second] {
			t.Errorf("%v: %v", m, b.tokens)
		}
		if held, err := b.runner.Journal.Held(); err != nil || len(held) != 0 {
			t.Errorf("%v: held %v, %v", m, held, err)
		}
	}
}

// What got out is refused by every guard of this home, and after a restart.
func TestHeld(t *testing.T) {
	b := newBench(t)
	other, err := OpenJournal(filepath.Join(b.dir, "journal"))
	must(t, err)
	manual := guard.SecretID{Context: "c", Name: "manual", Version: 1}
	r := b.responder(Hooks{})
	r.Leak(manual, true, leak("/a"))
	r.Leak(tok1, true, leak("/a"))
	r.Wait()
	held, err := other.Held()
	must(t, err)
	if len(held) != 1 || held[0] != manual {
		t.Errorf("held: %v; want manual, and tok not any more", held)
	}
	must(t, other.Hold(guard.SecretID{Context: "c", Name: "manual", Version: 3}))
	must(t, other.Hold(manual)) // an earlier one does not lift a later one
	if held, _ = other.Held(); len(held) != 1 || held[0].Version != 3 {
		t.Errorf("held: %v", held)
	}
	must(t, writeFile(other.heldPath("c", "manual"), []byte("{")))
	if _, err := other.Held(); err == nil {
		t.Error("a damaged file lets everything through")
	}
}

// An agent that leaks whatever it is given does not keep the issuer busy.
func TestContainedLeaksRest(t *testing.T) {
	b := newBench(t)
	r := b.responder(Hooks{})
	for v := 1; v <= 5; v++ {
		id := tok1
		id.Version = v
		r.Leak(id, false, leak("/a"))
		r.Wait()
	}
	if n := b.mints.Load(); n != 1 {
		t.Errorf("%d rotations", n)
	}
	second := tok1
	second.Version = 2
	i, err := b.incidents.Load(IncidentID(second))
	must(t, err)
	if i.State != "waiting" || i.Dead {
		t.Errorf("%+v", i)
	}
	// One that gets out is replaced at once, all the same.
	r.Leak(second, true, leak("/b"))
	r.Wait()
	if i, err = b.incidents.Load(IncidentID(second)); err != nil || !i.Dead || b.mints.Load() != 2 {
		t.Errorf("%+v, %v", i, err)
	}
}

// The spec says what a leak sets off.
func TestWhatALeakSetsOff(t *testing.T) {
	b := newBench(t)
	recorded := b.schedule(t, "recorded", "exec,cmd=/x,contained=record,escaped=graceful", time.Time{})
	strict := b.schedule(t, "strict", "exec,cmd=/x,contained=emergency", time.Time{})
	r := b.responder(Hooks{})
	r.Leak(recorded, false, leak("/a"))
	r.Leak(strict, false, leak("/a"))
	r.Wait()
	for id, mode := range map[guard.SecretID]string{recorded: "", strict: "emergency"} {
		i, err := b.incidents.Load(IncidentID(id))
		must(t, err)
		switch {
		case mode == "" && (i.Report != nil || i.State != "closed"), mode != "" && (i.Report == nil || i.Report.Mode != mode || !i.Dead):
			t.Errorf("%s: %+v", id.Name, i)
		}
	}
	r.Leak(recorded, true, leak("/b"))
	r.Wait()
	i, err := b.incidents.Load(IncidentID(recorded))
	must(t, err)
	if i.Report == nil || i.Report.Mode != "graceful" || !i.Dead {
		t.Errorf("%+v", i)
	}
}

// What expires is replaced once, and not again at once: the new value lives as long
// as the old one did.
func TestExpiryGoesOn(t *testing.T) {
	b := newBench(t)
	b.schedule(t, "brief", "exec,cmd=/x,before=3h", time.Now().Add(2*time.Hour))
	_, err := b.runner.Rotate(context.Background(), "c", "brief", Graceful, "")
	must(t, err)
	c, err := b.vault.Find("c", "brief")
	must(t, err)
	if left := time.Until(c.Expires); left < 119*time.Minute || left > 121*time.Minute {
		t.Errorf("it expires in %v", left)
	}
	due, next, err := b.runner.Due("c", Passing, time.Now(), nil)
	must(t, err)
	if len(due) != 0 || next.IsZero() {
		t.Errorf("due again at once: %v, next %v", due, next)
	}
}

// A credential may want no rest.
func TestRestOfASpec(t *testing.T) {
	b := newBench(t)
	b.schedule(t, "restless", "exec,cmd=/x,rest=1ns", time.Time{})
	r := b.responder(Hooks{})
	for v := 1; v <= 3; v++ {
		r.Leak(guard.SecretID{Context: "c", Name: "restless", Version: v}, false, leak("/a"))
		r.Wait()
	}
	if n := b.mints.Load(); n != 3 {
		t.Errorf("%d rotations", n)
	}
}
