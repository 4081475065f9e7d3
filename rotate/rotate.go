// Package rotate replaces a credential by a new one, so that no working value
// is ever lost, and proves that the old one is dead.
//
// # Two orders
//
// Graceful, for a schedule and for a leak that was stopped everywhere:
//
//	intent, mint, verify, switch, revoke, verify-dead, done
//
// Emergency, for a value that got out:
//
//	quarantine, intent, revoke, verify-dead, mint, verify, switch, done
//
// "quarantine" makes the broker refuse the credential at once. "intent" seals
// the new value in the vault where it is guard that chooses it (a database
// password), before anything happens at the issuer. "mint" makes the new value
// real at the issuer, "switch" makes it current in the vault. "revoke" makes
// the issuer refuse the old one and ends its open sessions. Revoked is not
// dead: "verify-dead" tries the old value until the issuer refuses it.
//
// # The journal
//
// One file for each rotation that is under way, replaced atomically and synced
// to disk before each step is taken (see Journal). It holds names, versions and
// times, never a value; values are in the vault only. After a crash at any
// instruction, Runner.Resume takes the recorded step again. Every step can be
// taken twice: a Provider sees the same intent id again, and the vault is asked
// what it already did. So a rotation ends in one of three ways:
//
//   - done: the new value is current and the old one was tried and refused;
//   - rolled back: the issuer refuses the new value and takes the old one;
//   - open: neither could be shown (the issuer cannot be reached, the old value
//     is still accepted). Both values stay in the vault and the next Resume
//     goes on.
//
// An answer that was lost (the issuer did it, the connection broke) is settled
// by trying the new value, then the old one; nothing is repeated blindly.
//
// # Goroutines
//
// Responder starts one for each credential that is being replaced; Wait waits
// for all of them. Nothing else in this package starts any.
package rotate

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"guard"
)

// Provider replaces credentials of one kind at their issuer. Every method may
// be called again with the same Job.Intent, and must then end in the same state
// as if it had been called once. Errors hold no value.
type Provider interface {
	// Mint makes the new value real at the issuer and returns it, or the zero
	// Secret for Job.Candidate itself. The caller wipes it. An error made with
	// NotMade says that nothing new exists at the issuer; after any other one
	// the step is taken again, with the same intent.
	Mint(context.Context, Job) (guard.Secret, error)
	// Verify tries value at the issuer. nil: it was accepted. An error that Is
	// ErrRefused: the issuer was reached and refused it. Any other error:
	// unknown.
	Verify(ctx context.Context, j Job, value guard.Secret) error
	// Revoke makes the issuer refuse Job.Current from now on and ends the
	// sessions that were opened with it. Unless Job.Emergency is set, sessions
	// that Job.Spare lists live on.
	Revoke(context.Context, Job) error
}

// Chooser is a Provider whose new values guard chooses itself. They are sealed
// in the vault before Mint is called.
type Chooser interface {
	Choose(Job) (guard.Secret, error)
}

// Checker is a Provider that can say beforehand what is missing: privileges, a
// wrong option, a changed program.
type Checker interface {
	Check(context.Context, Job) error
}

// Job is what a Provider is told about one rotation. The secrets are the
// Runner's, to be read during the call only.
type Job struct {
	Intent     string // names this rotation at the issuer; stays the same when a step is taken again
	Step       string // StepMint, StepVerify, StepRevoke or StepDead
	Credential guard.Credential
	Options    map[string]string // of the credential's rotate spec
	Current    guard.Secret      // the old value
	Candidate  guard.Secret      // the new value; zero if the issuer chooses and has not yet
	Emergency  bool
	Live       bool // the new value is current already, so it must work after Revoke
	// ID names Current at the issuer, where its mint told that (Names) or the spec
	// says it (id=); "": not known. It is never that of another version.
	ID string
	// Note is what an earlier try of this rotation gave to Remember.
	Note string
	// Spare lists the backend process ids that a graceful rotation leaves
	// alone: the session's own connections. nil: none.
	Spare func() []uint32
	// OnPart, OnExpiry, OnNames and OnNote are told by Mark, Expires, Names and
	// Remember; nil: nobody is.
	OnPart   func(part string)
	OnExpiry func(time.Time)
	OnNames  func(id, user string)
	OnNote   func(note string) error
	// Put makes value the current one of another credential of the same context, on
	// disk when it returns nil. value stays the caller's.
	Put func(name string, value guard.Secret) error
	// Admin returns another credential of the same context, and a copy of its
	// value to wipe.
	Admin func(name string) (guard.Secret, guard.Credential, error)
}

// Mark tells that a part of the step is done: PartRevoked, PartSessions.
func (j Job) Mark(part string) {
	if j.OnPart != nil {
		j.OnPart(part)
	}
}

// Expires tells, at mint, when the new value expires.
func (j Job) Expires(at time.Time) {
	if j.OnExpiry != nil && !at.IsZero() {
		j.OnExpiry(at)
	}
}

// Names tells, at mint, what names the new value at the issuer, neither of which is a
// secret: id, which is Job.ID once the value is the old one, and the user that goes
// with it, which takes the place of the credential's at the switch. "": as before.
// A provider that tells an id has the option id.
func (j Job) Names(id, user string) {
	if j.OnNames != nil {
		j.OnNames(id, user)
	}
}

// Remember keeps a note, no secret, for the case that this step is taken again: it is
// on disk when nil is returned. A later note takes the place of an earlier one.
func (j Job) Remember(note string) error {
	if j.OnNote == nil {
		return nil
	}
	return j.OnNote(note)
}

// The steps, as reports, incidents and the exec provider spell them.
const (
	StepQuarantine = "quarantine"
	StepIntent     = "intent"
	StepMint       = "mint"
	StepVerify     = "verify"
	StepSwitch     = "switch"
	StepRevoke     = "revoke"
	StepDead       = "verify-dead"
	StepDone       = "done"
	StepRollback   = "rollback"

	// Parts of revoke that a provider tells of as they are done.
	PartRevoked  = "revoked"        // the issuer refuses the old value for new logins
	PartSessions = "sessions-ended" // those that were opened with it are gone
)

// Mode is the order in which a credential is replaced.
type Mode uint8

const (
	Graceful  Mode = iota // the new value first; sessions in Job.Spare live on
	Emergency             // the old value's end first
)

func (m Mode) String() string {
	if m == Emergency {
		return "emergency"
	}
	return "graceful"
}

// Step is one step that was taken.
type Step struct {
	Step   string    `json:"step"`
	At     time.Time `json:"at"`
	MS     float64   `json:"ms"`     // how long it took, milliseconds
	Result string    `json:"result"` // "ok" or a sentence
}

// Report says how a rotation went. It holds nothing secret.
type Report struct {
	Intent     string    `json:"intent"`
	Context    string    `json:"context"`
	Credential string    `json:"credential"`
	Mode       string    `json:"mode"`
	Reason     string    `json:"reason,omitempty"`
	Incident   string    `json:"incident,omitempty"`
	From       int       `json:"from"`         // version
	To         int       `json:"to,omitempty"` // version; 0 until there is one
	Started    time.Time `json:"started"`
	MS         float64   `json:"ms"` // of all steps, without the time between a crash and Resume
	Steps      []Step    `json:"steps"`
	Dead       bool      `json:"dead"`           // the old value was tried and refused
	State      string    `json:"state"`          // "done", "rolled back", "open", "overlap" (until Until), "by hand", or "replaced" if there was nothing to do
	Until      time.Time `json:"until,omitzero"` // both values are left valid until then
	Next       []string  `json:"next_steps,omitempty"`
}

// What Rotate and Resume answer, next to a Report.
var (
	// ErrRefused: the issuer was reached and refused the value.
	ErrRefused = errors.New("the issuer refused it")
	// ErrRolledBack: the old value is still the one that works.
	ErrRolledBack = errors.New("rolled back: the old value still works and stays current")
	// ErrOpen: the rotation is not finished; both values are kept.
	ErrOpen = errors.New("not finished: both values are kept, `guard rotate --due` goes on")
	// ErrAlive: the new value is current, the old one not proven dead.
	ErrAlive = errors.New("the old value is not proven dead: `guard rotate --due` goes on")
	// ErrByHand: only a person can make the new value; the report says where.
	ErrByHand = errors.New("a person must make the new value")
	// ErrNoProvider: the credential does not say how to rotate it.
	ErrNoProvider = errors.New("no provider: say how with `guard secret edit NAME --rotate PROVIDER,...`")
)

// alphabet needs no quoting in a DSN, a URL, a shell or SQL.
const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// NewPassword makes a value of n random letters and digits (5.95 bits each), for
// issuers where guard chooses.
func NewPassword(n int) guard.Secret {
	out := make([]byte, 0, n)
	var b [64]byte
	for len(out) < n {
		rand.Read(b[:])
		for _, c := range b {
			if len(out) < n && int(c) < 256-256%len(alphabet) { // no modulo bias
				out = append(out, alphabet[int(c)%len(alphabet)])
			}
		}
	}
	clear(b[:])
	return guard.NewSecret(out)
}

// NotMade marks a failed Mint that left nothing new at the issuer, or nothing
// but Job.Candidate, which Verify tells.
func NotMade(err error) error {
	if err == nil {
		return nil
	}
	return &notMade{err}
}

type notMade struct{ err error }

func (e *notMade) Error() string { return e.err.Error() }
func (e *notMade) Unwrap() error { return e.err }

// ByHand is what Mint answers where no program can make a new value: the page
// where a person does, and what to do there. The rotation stays open until the
// new value is stored, and then goes on.
type ByHand struct {
	Page  string
	Steps []string
}

func (e *ByHand) Error() string { return ErrByHand.Error() + " at " + e.Page }

// Unwrap makes it Is ErrByHand, and no step to be taken again at once.
func (e *ByHand) Unwrap() []error { return []error{ErrByHand, ErrPermanent} }

// RetryAfter is a step's failure that should not be tried again before After.
type RetryAfter struct {
	After time.Duration
	Err   error
}

func (e *RetryAfter) Error() string { return fmt.Sprintf("%v (try again in %v)", e.Err, e.After) }
func (e *RetryAfter) Unwrap() error { return e.Err }
