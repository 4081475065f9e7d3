package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"guard"
)

// ErrRefused is what every error of Line.Use is that means "not sent": the
// value did not leave the vault.
var ErrRefused = errors.New("use refused")

// Result writes the outcome of a use that was recorded: what came of it
// ("status 200", "connected", "failed"; never input), how long it took, and
// whether the broker's copy of the value was wiped.
type Result func(outcome string, took time.Duration, wiped bool)

// Line is the use line's hands; main fills it in. A nil field that is needed
// refuses the use.
type Line struct {
	// Decide is policy's answer to u.
	Decide func(u guard.Use) guard.Decision
	// Record writes u and d to the audit log, durably, before the act. An
	// error refuses the use. The Result is called once.
	Record func(u guard.Use, d guard.Decision) (Result, error)
	// Value returns a copy of a credential's value, which Use wipes.
	// Version 0 is the current one.
	Value func(guard.SecretID) (guard.Secret, error)
	// Refused records a refusal.
	Refused func(u guard.Use, d guard.Decision)
	// Ask asks a person about a use that Decide refused with d, and returns what is
	// decided then. It waits for the answer, or until what is being asked is gone. Nil:
	// nobody is asked.
	Ask func(u guard.Use, d guard.Decision, what Asking) guard.Decision
}

// Asking is what of a request is shown to whoever decides about it, besides the use.
type Asking struct {
	Context context.Context // ends when the client is gone; nil: with the session
	Query   string          // of the request, of which only a hash is shown
	// Body reads the request's body and returns its SHA-256 in hex, and its length; what is
	// sent afterwards is what was read. "" and a length other than 0: it is too long to be
	// kept, or cannot be read. Nil: there is none.
	Body func() (sum string, n int64)
}

// Use is the use line from top to bottom: decide, record, get, send, wipe,
// result. send gets the value for as long as it runs; it must not keep it, and
// its outcome must not contain input. If the value was not handed to send the
// error is ErrRefused and the decision says why; otherwise the error is send's.
func (l *Line) Use(u guard.Use, send func(guard.Secret) (outcome string, err error)) (d guard.Decision, err error) {
	return l.UseThen(u, send, func(record func()) { record() })
}

// UseThen is Use for a caller that does not wait for the result's record: when the
// copy is wiped, it gives record to then, which runs it once, before the session ends.
// What has to be on the disk before the value is sent, the use, is.
func (l *Line) UseThen(u guard.Use, send func(guard.Secret) (outcome string, err error), then func(record func())) (d guard.Decision, err error) {
	return l.UseShown(u, Asking{}, send, then)
}

// UseShown is UseThen for a request of which more can be shown to a person.
func (l *Line) UseShown(u guard.Use, what Asking, send func(guard.Secret) (outcome string, err error), then func(record func())) (d guard.Decision, err error) {
	if u.At.IsZero() {
		u.At = time.Now()
	}
	id := u.Credential.ID()
	if l == nil || l.Decide == nil || l.Record == nil || l.Value == nil {
		return stop(id, "use-line", "guard's use line is not set up in this session"), fmt.Errorf("%w: use line incomplete", ErrRefused)
	}

	d = l.Decide(u)
	if !d.Allowed() && l.Ask != nil {
		d = l.Ask(u, d, what)
		u.At = time.Now()
	}
	d.Secret = id
	if !d.Allowed() {
		l.Refuse(u, d)
		return d, fmt.Errorf("%w by %s", ErrRefused, d.Rule)
	}

	result, err := l.Record(u, d)
	if err != nil || result == nil {
		d = stop(id, "audit", "the use could not be written to the audit log, so it was not made")
		l.Refuse(u, d)
		return d, fmt.Errorf("%w: no audit record: %v", ErrRefused, err)
	}

	begin := time.Now()
	secret, err := l.Value(id)
	outcome, wiped := "failed", false
	defer func() { // also when send panics
		secret.Wipe()
		wiped = secret.Len() == 0
		took := time.Since(begin)
		then(func() { result(outcome, took, wiped) })
	}()
	if err == nil && secret.Len() == 0 {
		err = errors.New("the vault holds no value")
	}
	if err != nil {
		outcome = "no value"
		d = stop(id, "vault", "the value of "+id.Name+" could not be read from the vault")
		return d, fmt.Errorf("%w: read %s: %v", ErrRefused, id, err)
	}

	outcome, err = send(secret)
	return d, err
}

// Refuse records a refusal that a handler decided by itself, such as a
// placeholder on its way to a host that is not its own.
func (l *Line) Refuse(u guard.Use, d guard.Decision) {
	if u.At.IsZero() {
		u.At = time.Now()
	}
	if l != nil && l.Refused != nil {
		l.Refused(u, d)
	}
}

func stop(id guard.SecretID, rule, reason string) guard.Decision {
	return guard.Decision{
		Action: guard.Block, Rule: rule, Reason: reason, Secret: id,
		NextSteps: []string{"tell the user; guard doctor says what is missing"},
	}
}
