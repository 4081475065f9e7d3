package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"guard"
	"guard/approve"
	"guard/broker"
	"guard/policy"
	"guard/supervisor"
)

// approvals is how a session asks the user.
type approvals struct {
	desk *approve.Desk // nil: nobody is asked
	mode string        // "ask", "queue" or "deny"

	mu       sync.Mutex
	grants   []approve.Grant // standing, as last read
	stamp    string          // of their file then
	policies map[string]*policy.Policy
	of       *policy.Policy // that policies were made of
	told     bool
	over     supervisor.Over // the session's screen; nil: it has none
}

const (
	approveWait = 2 * time.Minute // how long a request waits
	queueOpen   = 24 * time.Hour  // how long a queued one can be answered
	maxDaemon   = 30 * 24 * time.Hour
)

// approveMode is --approve, or deny.
func (s *session) approveMode() string {
	if s.flags.approve != "" {
		return s.flags.approve
	}
	return "deny" // nobody is interrupted who did not ask to be
}

// openApprovals makes the desk; it runs with the session's network.
func (s *session) openApprovals() {
	s.approvals.mode = s.approveMode()
	if s.approvals.mode == "deny" {
		return
	}
	d := &approve.Desk{Now: time.Now, Wait: s.flags.approveWait, Scope: scopeCovers}
	if s.approvals.mode == "queue" {
		d.Open = queueOpen
	}
	if s.vault.Stored() {
		d.Save = func(r approve.Request) error { return s.app.saveRequest(s.vault, r) }
		d.Load = func(id string) (approve.Request, error) { return s.app.loadRequest(s.vault, id) }
		d.Settle = func(r approve.Request, state string, a *approve.Answer) (approve.Request, error) {
			return s.app.settleRequest(s.vault, r, state, a, d.Now())
		}
		d.Standing = s.standing
	} else { // there is nothing that another terminal could open
		d.Save = func(approve.Request) error { return nil }
		d.Settle = func(r approve.Request, state string, a *approve.Answer) (approve.Request, error) {
			r.State, r.Answer = state, a
			return r, nil
		}
	}
	d.Record = func(r approve.Request, what string) error {
		rec := approvalRecord(r, what)
		_, err := s.append(rec)
		return err
	}
	d.Tell = func(r approve.Request) {
		s.notify.ask(r)
		if d.Screen == nil && s.vault.Stored() {
			s.app.say("%s asks %s: guard request show %s, in another terminal", approve.Plain(orAgent(r.Exe)), askedFor(r), r.ID)
		}
	}
	if s.approvals.mode == "ask" && terminal(s.app.stdin) && terminal(s.app.stdout) {
		d.Screen = s.askOnScreen
	}
	s.approvals.desk = d
}

func orAgent(exe string) string {
	if exe == "" {
		return "the agent"
	}
	return exe
}

func askedFor(r approve.Request) string {
	if r.Kind == approve.KindConnect {
		return "to connect to " + approve.Plain(r.Host)
	}
	return "for " + approve.Plain(r.Credential) + ":" + approve.Plain(r.Action)
}

func scopeCovers(have, action, resource string) bool {
	sc, err := policy.ParseScope(have)
	return err == nil && sc.Covers(action, resource)
}

// standing are the user's grants of this context; read anew when their file changed. What
// cannot be read allows nothing.
func (s *session) standing() []approve.Grant {
	fi, err := os.Stat(s.app.grantsPath())
	stamp := ""
	if err == nil {
		stamp = fmt.Sprint(fi.ModTime().UnixNano(), fi.Size())
	}
	a := &s.approvals
	a.mu.Lock()
	defer a.mu.Unlock()
	if stamp == a.stamp && stamp != "" {
		return a.grants
	}
	a.grants, a.stamp = nil, ""
	if err != nil {
		return nil
	}
	all, err := s.app.readGrants(s.vault)
	if err != nil {
		if !a.told {
			a.told = true
			s.app.say("grants are not used: %v", err)
		}
		return nil
	}
	a.grants, a.stamp = all, stamp
	return a.grants
}

// granted is the session's policy with one grant more: whether that is all that a use
// lacks.
func (s *session) granted(g policy.Grant) (*policy.Policy, error) {
	now := s.policyNow()
	a := &s.approvals
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.of != now {
		a.of, a.policies = now, map[string]*policy.Policy{}
	}
	key := g.String()
	if p := a.policies[key]; p != nil {
		return p, nil
	}
	p, err := now.With(g)
	if err != nil { // one that is newer than the session
		file := findRepoFile(s.dir, s.home)
		text := ""
		if file != "" {
			if text, err = readProject(file); err != nil {
				return nil, err
			}
		}
		if text != s.repo.Text {
			return nil, errors.New("guard.toml is not what it was at the session's start")
		}
		flags := s.flags
		flags.allow = append(append([]string(nil), flags.allow...), key)
		if p, err = newPolicy(flags, s.info, s.credentials(), file); err != nil {
			return nil, err
		}
	}
	if len(a.policies) < 256 {
		a.policies[key] = p
	}
	return p, nil
}

// askUse is the use line's question to the user.
func (s *session) askUse(ctx context.Context) func(guard.Use, guard.Decision, broker.Asking) guard.Decision {
	return func(u guard.Use, d guard.Decision, what broker.Asking) guard.Decision {
		desk := s.approvals.desk
		u = timed(u)
		_, ask := s.policyNow().Decide(u)
		if desk == nil || ask == nil || ask.Rule != d.Rule {
			return d // what denies was said on purpose
		}
		g := policy.Grant{Name: ask.Grant.Name, Scope: policy.Scope{Verb: ask.Grant.Scope.Verb}}
		if p, err := s.granted(g); err != nil || !p.Use(u).Allowed() {
			return d // a yes would not do
		}
		r := s.question(approve.KindUse, u)
		r.Why, r.Rule = d.Reason, d.Rule
		if what.Query != "" {
			r.Query = textHash(what.Query)
		}
		if what.Body != nil {
			if r.Body, r.BodySize = what.Body(); r.Body == "" && r.BodySize != 0 {
				r.Unread = approve.NewID()
			}
		}
		s.maskEach(&r.Host, &r.Path, &r.Resource, &r.Exe, &r.Why, &r.Task)
		wait, cancel := context.WithCancel(ctx)
		defer cancel()
		if what.Context != nil {
			defer context.AfterFunc(what.Context, cancel)()
		}
		out, err := desk.Ask(wait, r)
		if err != nil || !out.Allowed() {
			return s.unanswered(d, out, err)
		}
		// What was decided meanwhile, and what is locked or being replaced, counts as well.
		now := timed(guard.Use{})
		u.At = now.At
		if s.lock.locked() {
			return lockedDecision(u.Credential.Name)
		}
		p, err := s.granted(g)
		if err != nil {
			return d
		}
		got := p.Use(u)
		if got.Allowed() {
			got.Rule, got.Reason = "approved", out.How
		}
		return got
	}
}

// question describes u.
func (s *session) question(kind string, u guard.Use) approve.Request {
	r := approve.Request{
		Kind: kind, Session: s.info.ID, Context: s.info.Context, Profile: s.info.Profile, Task: s.info.Task, Credential: u.Credential.Name, Action: u.Action, Resource: u.Resource,
		Host: u.Host, Port: u.Port, Method: u.Method, Path: u.Path, Channel: string(u.Channel), PID: u.PID, Exe: u.Exe,
	}
	if u.Session.Task != "" {
		r.Task = u.Session.Task
	}
	s.mu.Lock()
	sb := s.sandbox
	s.mu.Unlock()
	top := 0
	if sb != nil {
		top = sb.Pid()
	}
	r.ExeSHA256, r.Ancestors = s.procs.about(u.PID, u.Exe, top)
	return r
}

// unanswered is the refusal d, with what came of asking.
func (s *session) unanswered(d guard.Decision, out approve.Outcome, err error) guard.Decision {
	d.Action = guard.Block
	switch {
	case errors.Is(err, approve.ErrTooMany):
		d.Reason += fmt.Sprintf("; the user was not asked, since %d questions wait already", approve.MaxPending)
		d.NextSteps = append([]string{"wait until the user answered those"}, d.NextSteps...)
	case err != nil:
		d.Reason += "; the user could not be asked"
	case out.State == approve.Denied:
		d.Rule, d.Reason = "denied by the user", "the user was asked and said no (request "+out.ID+"): "+d.Reason
		d.NextSteps = []string{"do not ask again, or another way: tell the user what does not work without it"}
	case out.State == approve.TimedOut:
		d.Reason += fmt.Sprintf("; the user was asked (request %s) and did not answer in time, which is no answer", out.ID)
		next := "tell the user, and try again: they are asked again"
		if s.approvals.mode == "queue" {
			next = fmt.Sprintf("go on with other work and try the same request again later: the user can approve it until %s (guard request approve %s, outside of the session)", out.Expire.UTC().Format(time.RFC3339), out.ID)
		}
		d.NextSteps = append([]string{next}, d.NextSteps...)
	}
	return d
}

// askEgress is egress's question: --egress ask.
func (s *session) askEgress(ctx context.Context) func(host string, port int, proto string, d guard.Decision) guard.Decision {
	return func(host string, port int, proto string, d guard.Decision) guard.Decision {
		if s.approvals.desk == nil || s.flags.egress != "ask" || d.Rule != "flag --egress ask" || s.lock.locked() {
			return d
		}
		r := s.question(approve.KindConnect, guard.Use{Action: proto, Host: host, Port: port, Channel: guard.ChannelSocket})
		r.Why, r.Rule = d.Reason, d.Rule
		out, err := s.approvals.desk.Ask(ctx, r)
		if err != nil || !out.Allowed() {
			return s.unanswered(d, out, err)
		}
		return guard.Decision{Action: guard.Pass, Rule: "approved", Reason: out.How}
	}
}

// shows says that the agent is told of a credential: it may use it, or ask for it.
func (s *session) shows(name string) bool {
	return s.flags.allows(name) || (s.flags.approve == "ask" || s.flags.approve == "queue") && !strings.Contains("\n"+strings.Join(s.flags.deny, "\n")+"\n", "\n"+name+"\n")
}
