package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"guard"
	"guard/audit"
	"guard/rotate"
	"guard/rotate/exec"
	rotatemysql "guard/rotate/mysql"
	rotatepg "guard/rotate/postgres"
	rotateredis "guard/rotate/redis"
	rotatessh "guard/rotate/ssh"
	"guard/rotate/web"
)

// openRotation sets up what replaces a credential.
func (s *session) openRotation() error {
	var err error
	if s.runner, err = s.app.newRunner(s.vault, func(r rotate.Report, st rotate.Step) { s.recordStep(r, st) }); err != nil {
		return err
	}
	s.runner.Quarantine = func(id guard.SecretID) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.quarantined[id.Name] = max(s.quarantined[id.Name], id.Version)
	}
	s.runner.Release = func(id guard.SecretID) {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.quarantined, id.Name)
	}
	s.runner.OnCandidate = func(id guard.SecretID) {
		s.refresh()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.switching[id.Name] == nil {
			s.switching[id.Name] = make(chan struct{})
		}
	}
	s.runner.OnSwitch = func(_, id guard.SecretID) {
		s.refresh()
		s.switched(id.Name)
	}
	s.runner.Spare = func(_, name string) []uint32 {
		s.mu.Lock()
		pg := s.pg
		s.mu.Unlock()
		if pg == nil {
			return nil // a leak before the broker serves
		}
		return pg.BackendsOf(name)
	}
	if err := s.followHeld(); err != nil {
		return err
	}
	if s.notify, err = s.app.newNotifier(); err != nil {
		return err
	}
	s.closers = append(s.closers, s.notify.close)
	s.incident, err = rotate.OpenIncidents(s.app.incidentDir())
	return err
}

// settledLines say how the session's incidents ended, one line each, ten at most.
func (s *session) settledLines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for n, i := range s.settled {
		if n == 10 {
			return append(out, fmt.Sprintf("and %d more", len(s.settled)-n))
		}
		out = append(out, visible(fmt.Sprintf("%s: %s (guard incident show %s)", i.Credential, i.Result, i.ID)))
	}
	return out
}

// switchWait bounds how long a use waits for a rotation that is under way.
const switchWait = 10 * time.Second

// awaitSwitch waits while a credential is between its old and its new value:
// where the issuer knows one value at a time, the old one fails from the moment
// the new one is made, and the agent would notice.
func (s *session) awaitSwitch(name string) {
	s.mu.Lock()
	done := s.switching[name]
	s.mu.Unlock()
	if done == nil {
		return
	}
	select {
	case <-done:
	case <-time.After(switchWait):
	}
}

// switched lets waiting uses go on, with whatever is current now.
func (s *session) switched(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if done := s.switching[name]; done != nil {
		close(done)
		delete(s.switching, name)
	}
}

func (s *session) recordStep(rep rotate.Report, st rotate.Step) {
	if st.Step == rotate.StepRollback {
		s.switched(rep.Credential)
	}
	r := s.record(audit.TypeRotation)
	r.Time = st.At
	r.Credential, r.Context, r.Version, r.Step, r.Result, r.DurationMS = rep.Credential, rep.Context, rep.From, st.Step, st.Result, st.MS
	r.Incident, r.Reason = rep.Incident, rep.Mode+": "+rep.Reason
	s.app.switched(s.vault, &r, rep, st)
	if _, err := s.append(r); err != nil {
		s.app.say("a rotation step could not be recorded: %v", err)
	}
}

func (s *session) hooks() rotate.Hooks {
	return rotate.Hooks{
		NoRotate: s.flags.noRotate,
		Fill: func(i *rotate.Incident) {
			if i.Copies == nil {
				s.app.fillIncident(context.Background(), s.vault, i, s.dir)
				if i.Copies == nil {
					i.Copies = []string{} // looked for, once
				}
			} else {
				i.Uses = s.app.usesOf(i.Context, i.Credential)
			}
			if !s.flags.noRotate {
				if said := s.tenants.leaked(guard.SecretID{Context: i.Context, Name: i.Credential, Version: i.Version}); said != "" {
					i.Next = []string{said}
				}
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			id := guard.SecretID{Context: i.Context, Name: i.Credential, Version: i.Version}
			for _, r := range s.kept[id] {
				if !slices.Contains(i.Restore, r) {
					i.Restore = append(i.Restore, r)
				}
			}
		},
		Notify: func(i rotate.Incident) {
			if i.State != "open" || i.Report != nil {
				s.switched(i.Credential) // also where the rotation failed half-way
				s.notify.tell(i)
				s.mu.Lock()
				s.settled = append(s.settled, i)
				s.mu.Unlock()
			}
		},
		Failed: func(err error) { s.app.say("an incident could not be written: %v", err) },
	}
}

// usesOf lists what a credential was used for, from the log, the last ones.
func (a *app) usesOf(context, name string) []rotate.Used {
	var out []rotate.Used
	results := map[uint64]string{}
	var seqs []uint64
	err := audit.Read(a.auditDir(), audit.Filter{Credential: name, Context: context}, func(r audit.Record) error {
		if r.Context != context {
			return nil // of the project's environments, and of its daemons
		}
		switch r.Type {
		case audit.TypeUse:
			out = append(out, rotate.Used{At: r.Time, Session: r.Session, Action: r.Scope, Host: r.Host, Path: r.Path, Result: r.Decision})
			seqs = append(seqs, r.Seq)
		case audit.TypeResult:
			results[r.Of] = r.Result
		}
		return nil
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		a.say("the log could not be read for the incident: %v", err)
	}
	for i := range out {
		if res, ok := results[seqs[i]]; ok {
			out[i].Result = res
		}
	}
	const most = 1000
	if len(out) > most {
		out = out[len(out)-most:]
	}
	return out
}

// providers are the issuers that guard can replace credentials at.
func providers() rotate.Providers {
	return rotate.Providers{"postgres": rotatepg.Provider{}, "exec": exec.Provider{}, "mysql": rotatemysql.Provider{}, "redis": rotateredis.Provider{}, "manual": web.Manual{},
		"github-app": web.GitHubApp{},
		"gitlab":     web.GitLab{},
		"aws-iam":    web.AWSIAM{},
		"gcp":        web.GCP{},
		"azure":      web.Azure{},
		"cloudflare": web.Cloudflare{},
		"datadog":    web.Datadog{},
		"docker-hub": web.DockerHub{},
		"npm":        web.NPM{},
		"openai":     web.OpenAI{},
		"oauth":      web.OAuth{},
		"webhook":    web.Webhook{},
		"ssh":        rotatessh.Key{}, "ssh-ca": rotatessh.CA{},
	}
}

// defaultRotation is how a credential is replaced that does not say how: by a person,
// whom guard sends to the issuer's page.
func defaultRotation(c guard.Credential) string {
	if web.CanDefault(c.Kind) {
		return "manual"
	}
	return ""
}

// followHeld takes over what other guards found to have leaked, and what did before
// this session began: it is refused. It says whether that could be read.
func (s *session) followHeld() error {
	held, err := s.runner.Journal.Held()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range held {
		if id.Context == s.info.Context {
			s.quarantined[id.Name] = max(s.quarantined[id.Name], id.Version)
		}
	}
	return nil
}
