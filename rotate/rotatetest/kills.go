package rotatetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"guard"
	"guard/rotate"
	"guard/vault"
)

// killsEnv says how many times Kills kills.
const killsEnv = "GUARD_KILLS"

// fault is what goes wrong at the issuer, once, while a child rotates.
type fault int

const (
	faultNone        fault = iota
	faultMintLost          // the new value is made, the answer does not come
	faultUnreachable       // the first try of a value gets no answer
	faultRevokeLost        // it is revoked, the answer does not come
	faultStillTaken        // the old value is accepted a few times more
	faults
)

func (f fault) String() string {
	return [...]string{"no fault", "answer to mint lost", "unreachable", "answer to revoke lost", "still accepted"}[f]
}

var errLost = errors.New("connection reset by peer")

// in makes p have the fault.
func (f fault) in(p rotate.Provider) rotate.Provider {
	var n atomic.Int32
	once := func() bool { return n.Add(1) == 1 }
	x := &faulty{Provider: p}
	switch f {
	case faultMintLost:
		x.mint = func(v guard.Secret, err error) (guard.Secret, error) {
			if err == nil && once() {
				v.Wipe()
				return guard.Secret{}, errLost
			}
			return v, err
		}
	case faultUnreachable:
		x.verify = func(_ rotate.Job, err error) error {
			if once() {
				return errLost
			}
			return err
		}
	case faultRevokeLost:
		x.revoke = func(ctx context.Context, j rotate.Job) error {
			if err := p.Revoke(ctx, j); err != nil || !once() {
				return err
			}
			return errLost
		}
	case faultStillTaken:
		x.verify = func(j rotate.Job, err error) error {
			if j.Step == rotate.StepDead && n.Add(1) <= 3 {
				return nil
			}
			return err
		}
	default:
		return p
	}
	if c, ok := p.(rotate.Chooser); ok {
		return chooser{x, c.Choose}
	}
	return x
}

// Kills kills a child that rotates with kill -9, at a random moment, under a random
// fault, in a random order, and the one that goes on with what it left, too; then it
// looks what there is. GUARD_KILLS says how often; 3 times by default. It wants to be a
// top-level test of its own.
func Kills(t *testing.T, open Open) {
	asChild(t, open)
	rounds, err := strconv.Atoi(cmp.Or(os.Getenv(killsEnv), "3"))
	if err != nil || rounds < 1 {
		t.Fatalf("%s is not a number of kills", killsEnv)
	}
	var w *world
	var span time.Duration
	killed, ended := 0, 0
	var bad struct{ lost, doubled, unreported int }
	start := time.Now()
	for i := 0; killed < rounds && !t.Failed(); i++ {
		if i%50 == 0 { // a vault with thousands of dead versions is not what is tested
			w = newWorld(t, open)
		}
		if span == 0 { // how long it takes unharmed
			at := time.Now()
			if err := w.spawn(t, t.Name(), rotate.Graceful, 0, faultNone).Wait(); err != nil {
				t.Fatal(err)
			}
			span = time.Since(at)
		}
		m, f := rotate.Mode(rand.IntN(2)), fault(rand.IntN(int(faults)))
		when := ""
		for again := true; again && killed < rounds; again = rand.IntN(3) == 0 {
			after := time.Duration(rand.Int64N(int64(span)))
			when += fmt.Sprintf("%v after %v (%v); ", m, after, f)
			cmd := w.spawn(t, t.Name(), m, 0, f)
			timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
			err := cmd.Wait()
			timer.Stop()
			var exit *exec.ExitError
			switch {
			case err == nil:
				ended++
			case errors.As(err, &exit) && exit.ExitCode() == 1:
				ended++ // with the rotation left open, as the fault wants it
			case errors.As(err, &exit) && !exit.Exited():
				killed++
			default:
				t.Fatalf("child: %v", err)
			}
		}
		reps, err := w.runner.Resume(context.Background())
		open := err != nil
		for _, r := range reps {
			open = open || r.State == "open"
		}
		l, d, u := w.count(open)
		bad.lost, bad.doubled, bad.unreported = bad.lost+l, bad.doubled+d, bad.unreported+u
		if l+d+u > 0 || open {
			t.Errorf("%s%+v, %v", when, reps, err)
		}
	}
	w.exactlyOneOf(t, 4)
	t.Logf("%d kills at random moments (%d children ended before theirs) in %v: %d credentials lost, %d doubled, %d left alive unreported",
		killed, ended, time.Since(start).Round(time.Second), bad.lost, bad.doubled, bad.unreported)
}

// count asks the issuer about the last versions. Lost: the current one does not work.
// Doubled: another one is current or pending. Unreported: another one works, and no
// report says that the rotation is open.
func (w *world) count(open bool) (lost, doubled, unreported int) {
	w.tb.Helper()
	versions, err := w.vault.Versions("test", w.Credential.Name)
	if err != nil {
		w.tb.Fatal(err)
	}
	for _, v := range versions[max(0, len(versions)-4):] {
		err := w.Login(w.value(v.Number))
		switch {
		case v.State == vault.Current && err != nil:
			lost++
		case v.State == vault.Pending && !open:
			doubled++
		case v.State != vault.Current && !errors.Is(err, rotate.ErrRefused) && !open:
			unreported++
		}
	}
	return lost, doubled, unreported
}

// Leak measures a leak's way: how long after it was seen the channel was stopped, the
// old value revoked, its sessions ended, tried and refused, and the new one current.
// Each is the median over the iterations, in ms.
func Leak(b *testing.B, open Open) {
	for _, m := range []rotate.Mode{rotate.Emergency, rotate.Graceful} {
		b.Run(m.String(), func(b *testing.B) {
			w := newWorld(b, open)
			var stopped time.Time
			w.runner.Quarantine = func(guard.SecretID) {
				if stopped.IsZero() {
					stopped = time.Now()
				}
			}
			took := map[string][]float64{}
			for b.Loop() {
				b.StopTimer()
				alive := func() bool { return false }
				if w.Session != nil {
					_, a, err := w.Session(w.value(0))
					if err != nil {
						b.Fatal(err)
					}
					alive = a
				}
				stopped = time.Time{}
				b.StartTimer()
				at := time.Now()
				rep, err := w.rotate(m)
				all := time.Since(at)
				b.StopTimer()
				if err != nil || !rep.Dead {
					b.Fatalf("%+v, %v", rep, err)
				}
				if alive() {
					b.Fatal("a session lives on")
				}
				ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
				if m == rotate.Emergency {
					took["stopped"] = append(took["stopped"], ms(stopped.Sub(at)))
				}
				took["all"] = append(took["all"], ms(all))
				for step, name := range map[string]string{
					rotate.PartRevoked: "revoked", rotate.PartSessions: "sessions", rotate.StepDead: "dead", rotate.StepSwitch: "replaced",
				} {
					for _, s := range rep.Steps {
						if s.Step == step {
							took[name] = append(took[name], ms(s.At.Sub(at))+s.MS)
							break
						}
					}
				}
				b.StartTimer()
			}
			for name, all := range took {
				slices.Sort(all)
				b.ReportMetric(all[len(all)/2], "ms/"+name)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}
