// Package approve is how a person is asked: what a question is (Request), what an answer
// was (Answer), what stays allowed or denied after it (Grant), and who waits for what
// (Desk). It does no I/O: where questions are kept, how they are shown and what is
// recorded are functions that main gives to the Desk.
//
// A question is made of what guard saw. An answer counts for the question whose digest
// it names, once, until the question's end: another path, body, host, program or nonce is
// another question. What lies on the disk is sealed by whoever keeps it, under the
// question's own id.
//
// Goroutines: Desk.Run has two, for what others answered and for the screen, and waits
// for both.
package approve

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"
)

// Kinds of questions.
const (
	KindUse     = "use"     // a use of a credential that nothing allows
	KindConnect = "connect" // a host that is not listed
	KindAsk     = "ask"     // the agent asks for a credential or a scope (guard ask)
)

// States of a request.
const (
	Pending   = "pending"
	Approved  = "approved"
	Denied    = "denied"    // by a person
	TimedOut  = "timed out" // nobody answered
	Withdrawn = "withdrawn" // who waited is gone
)

// Lives of an approval.
const (
	Once    = "once"    // this very request
	Session = "session" // the like of it, in this session
	For     = "for"     // the like of it, until Answer.Until
	Always  = "always"  // the like of it
)

// Request is a question. Its strings are what guard saw, as it was; Lines makes them fit to be
// shown. None is a value of a credential.
type Request struct {
	ID    string `json:"id"`
	Nonce string `json:"nonce"`
	Kind  string `json:"kind"`

	Session string `json:"session"`
	Context string `json:"context"`
	Profile string `json:"profile"`
	Task    string `json:"task,omitempty"`

	Credential string `json:"credential,omitempty"`
	Missing    bool   `json:"missing,omitempty"` // there is no such credential yet
	Action     string `json:"action"`            // or the scope that is asked for
	Resource   string `json:"resource,omitempty"`
	Host       string `json:"host,omitempty"` // as verified by the broker; for KindAsk the agent's words
	Port       int    `json:"port,omitempty"`
	Method     string `json:"method,omitempty"`
	Path       string `json:"path,omitempty"`  // without query
	Query      string `json:"query,omitempty"` // SHA-256 of it, in hex
	Body       string `json:"body,omitempty"`  // SHA-256, in hex; "" for none
	BodySize   int64  `json:"body_size,omitempty"`
	Unread     string `json:"unread,omitempty"` // random, where there is a body that was not read: no other request is like it
	Channel    string `json:"channel,omitempty"`

	PID       int    `json:"pid,omitempty"`
	Exe       string `json:"exe,omitempty"`
	ExeSHA256 string `json:"exe_sha256,omitempty"`
	Ancestors string `json:"ancestors,omitempty"`

	Why    string `json:"why,omitempty"`    // the refusal's
	Rule   string `json:"rule,omitempty"`   // that refused
	Reason string `json:"reason,omitempty"` // in the agent's words

	Asked   time.Time `json:"asked"`
	Expires time.Time `json:"expires"`

	State  string  `json:"state"`
	Answer *Answer `json:"answer,omitempty"`
}

// Answer is what a person said.
type Answer struct {
	Allow  bool      `json:"allow"`
	Life   string    `json:"life"`
	Until  time.Time `json:"until,omitzero"` // of For
	At     time.Time `json:"at"`
	By     string    `json:"by"`     // who and how: "alice, guard request approve on /dev/pts/3"
	Digest string    `json:"digest"` // of the question that was shown
}

// NewID is a request's id: 5 random bytes in hex.
func NewID() string { return random(5) }

func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// Digest names the question with all that was shown, its nonce and its end, but not
// what became of it.
func (r Request) Digest() string {
	r.State, r.Answer = "", nil
	r.Asked, r.Expires = r.Asked.UTC().Round(0), r.Expires.UTC().Round(0)
	b, _ := json.Marshal(r) // strings, numbers and times
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Exact is the same for requests that ask for exactly the same.
func (r Request) Exact() string {
	r.ID, r.Nonce, r.State, r.Answer, r.Why, r.Rule, r.Ancestors, r.PID = "", "", "", nil, "", "", "", 0
	r.Asked, r.Expires = time.Time{}, time.Time{}
	return r.Digest()
}

// Open says whether r can be answered at now.
func (r Request) Open(now time.Time) bool { return r.State == Pending && now.Before(r.Expires) }

// Grant is what an answer leaves: the like of a request is allowed, or denied, without
// another question.
type Grant struct {
	ID         string    `json:"id"`
	Request    string    `json:"request"`
	Kind       string    `json:"kind"`
	Deny       bool      `json:"deny,omitempty"`
	Context    string    `json:"context"`
	Session    string    `json:"session,omitempty"` // "": any of the context
	Credential string    `json:"credential,omitempty"`
	Action     string    `json:"action"`
	Host       string    `json:"host,omitempty"` // "": those of the credential (guard ask)
	Port       int       `json:"port,omitempty"`
	Exe        string    `json:"exe,omitempty"`
	ExeSHA256  string    `json:"exe_sha256,omitempty"` // "": any program (guard ask, hosts)
	Until      time.Time `json:"until,omitzero"`       // zero: no end
	Created    time.Time `json:"created"`
	By         string    `json:"by"`
}

// Lasting says whether an answer for more than once can be bound to what r is about: to
// allow a program for longer, guard has to know which one it is. A denial can always.
func (r Request) Lasting() bool { return r.Kind != KindUse || r.ExeSHA256 != "" }

// GrantOf is what answer a to r leaves; nil for one that is used up by the request itself.
// A denial is for the session at least.
func GrantOf(r Request, a Answer) *Grant {
	if a.Allow && (a.Life == Once || !r.Lasting()) {
		return nil
	}
	g := &Grant{
		ID: r.ID, Request: r.ID, Kind: r.Kind, Deny: !a.Allow, Context: r.Context, Credential: r.Credential, Action: r.Action, Host: r.Host, Port: r.Port,
		Exe: r.Exe, ExeSHA256: r.ExeSHA256, Created: a.At, By: a.By,
	}
	if r.Kind == KindAsk {
		g.Host, g.Port = "", 0
	}
	if r.Kind != KindUse {
		g.Exe, g.ExeSHA256 = "", ""
	}
	switch {
	case a.Life == For:
		g.Until = a.Until
	case a.Life != Always:
		g.Session = r.Session
	}
	return g
}

// Covers says whether g decides about r. scope says whether a scope in words covers an
// action on a resource; nil: only the same one.
func (g Grant) Covers(r Request, now time.Time, scope func(have, action, resource string) bool) bool {
	switch {
	case g.Context != r.Context, g.Session != "" && g.Session != r.Session, g.Credential != r.Credential,
		!g.Until.IsZero() && !now.Before(g.Until):
		return false
	case g.Kind == KindAsk:
		if r.Kind == KindConnect {
			return false
		}
		return g.Action == r.Action || !g.Deny && r.Kind == KindUse && scope != nil && scope(g.Action, r.Action, r.Resource)
	}
	return g.Kind == r.Kind && g.Action == r.Action && g.Host == r.Host && g.Port == r.Port && (g.ExeSHA256 == r.ExeSHA256 && (g.ExeSHA256 != "" || g.Deny) || g.Kind == KindConnect)
}

// Find is the first of gs that decides about r; a denial goes before what allows.
func Find(gs []Grant, r Request, now time.Time, scope func(have, action, resource string) bool) *Grant {
	var found *Grant
	for i, g := range gs {
		if g.Covers(r, now, scope) && (found == nil || g.Deny && !found.Deny) {
			found = &gs[i]
		}
	}
	return found
}
