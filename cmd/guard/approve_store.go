package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	osuser "os/user"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"guard/approve"
	"guard/audit"
	"guard/vault"
)

// Questions lie in GUARD_HOME/requests/ID.json, each sealed by the vault under its own id, so
// that only who can open the vault makes or answers one, and none can be put in another's
// place. What was answered for longer than a session is in GUARD_HOME/grants, sealed too. No
// session sees either.

func (a *app) requestsDir() string { return filepath.Join(a.home(), "requests") }
func (a *app) grantsPath() string  { return filepath.Join(a.home(), "grants") }

func (a *app) requestPath(id string) string { return filepath.Join(a.requestsDir(), id+".json") }

// sealedFile is a file of requests.
type sealedFile struct {
	Sealed string `json:"sealed"` // base64 of what the vault sealed
}

const keepRequests = 7 * 24 * time.Hour // after their end, to be listed

var errNoRequest = errors.New("there is no such request")

func isRequestID(id string) bool {
	return id != "" && len(id) <= 32 && strings.Trim(id, "0123456789abcdef") == ""
}

func (a *app) saveRequest(v sealer, r approve.Request) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	box, err := v.Seal("request "+r.ID, b)
	if err != nil {
		return err
	}
	if b, err = json.Marshal(sealedFile{Sealed: base64.StdEncoding.EncodeToString(box)}); err != nil {
		return err
	}
	return writeFile(a.requestPath(r.ID), append(b, '\n'))
}

func (a *app) loadRequest(v sealer, id string) (r approve.Request, err error) {
	if !isRequestID(id) {
		return r, fmt.Errorf("%w: %s", errNoRequest, visible(id))
	}
	b, err := os.ReadFile(a.requestPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("%w: %s (guard request ls)", errNoRequest, id)
	}
	if err != nil {
		return r, err
	}
	var f sealedFile
	var box []byte
	if err = json.Unmarshal(b, &f); err == nil {
		box, err = base64.StdEncoding.DecodeString(f.Sealed)
	}
	var plain []byte
	if err == nil {
		plain, err = v.Unseal("request "+id, box)
	}
	if err == nil {
		err = json.Unmarshal(plain, &r)
	}
	if err == nil && r.ID != id {
		err = errors.New("it is another one")
	}
	if err != nil {
		return approve.Request{}, fmt.Errorf("request %s was not written by this vault's guard, and counts for nothing: %w", id, err)
	}
	return r, nil
}

// requests are those that can be read, oldest first, and why others cannot.
func (a *app) requests(v sealer) (out []approve.Request, bad []error) {
	es, err := os.ReadDir(a.requestsDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, []error{err}
	}
	for _, e := range es {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || !isRequestID(id) {
			continue
		}
		r, err := a.loadRequest(v, id)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(x, y approve.Request) int { return x.Asked.Compare(y.Asked) })
	return out, bad
}

// withRequests runs f while no other process answers.
func (a *app) withRequests(f func() error) error {
	if err := os.MkdirAll(a.requestsDir(), 0o700); err != nil {
		return err
	}
	for end := time.Now().Add(lockMutexWait); ; time.Sleep(2 * time.Millisecond) {
		release, err := vault.TryLock(filepath.Join(a.requestsDir(), "mutex"))
		if err == nil {
			defer release()
			return f()
		}
		if !errors.Is(err, vault.ErrBusy) || time.Now().After(end) {
			return err
		}
	}
}

var errAnswered = errors.New("it is answered already")

// settleRequest gives a pending request a state, once: what holds then is returned, also
// where somebody else was first. An answer for more than the session is written to the grants.
func (a *app) settleRequest(v sealer, r approve.Request, state string, answer *approve.Answer, now time.Time) (got approve.Request, err error) {
	err = a.withRequests(func() error {
		var err error
		if got, err = a.loadRequest(v, r.ID); err != nil {
			return err
		}
		if got.Digest() != r.Digest() {
			return fmt.Errorf("request %s is not the one that was shown", r.ID)
		}
		if got.State != approve.Pending {
			return nil
		}
		if answer != nil && !got.Open(now) {
			got.State = approve.TimedOut
			return a.saveRequest(v, got)
		}
		if answer != nil && answer.Life != approve.Once && answer.Life != approve.Session {
			if g := approve.GrantOf(got, *answer); g != nil {
				if err := a.addGrant(v, *g, now); err != nil {
					return err
				}
			}
		}
		got.State, got.Answer = state, answer
		return a.saveRequest(v, got)
	})
	return got, err
}

func (a *app) readGrants(v sealer) (out []approve.Grant, err error) {
	return out, readSealed(v, a.grantsPath(), "grants", &out)
}

// addGrant keeps g, and forgets what is over.
func (a *app) addGrant(v sealer, g approve.Grant, now time.Time) error {
	all, err := a.readGrants(v)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(o approve.Grant) bool { return o.ID == g.ID || !o.Until.IsZero() && !now.Before(o.Until) })
	return writeSealed(v, a.grantsPath(), "grants", append(all, g))
}

// tidyRequests ends what is over and removes what is long over.
func (a *app) tidyRequests(v *vault.Vault, now time.Time) error {
	all, _ := a.requests(v)
	for _, r := range all {
		if now.After(r.Expires.Add(keepRequests)) {
			if err := os.Remove(a.requestPath(r.ID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			continue
		}
		if r.State != approve.Pending || now.Before(r.Expires) {
			continue
		}
		got, err := a.settleRequest(v, r, approve.TimedOut, nil, now)
		if err != nil {
			return err
		}
		if got.State == approve.TimedOut {
			if err := a.note(v, approvalRecord(got, approve.TimedOut)); err != nil {
				return err
			}
		}
	}
	return nil
}

// approvalRecord is what the log says of a request.
func approvalRecord(r approve.Request, what string) audit.Record {
	out := audit.Record{
		Type: audit.TypeApproval, Session: r.Session, Context: r.Context, Profile: r.Profile, Task: r.Task, Credential: r.Credential, Channel: r.Channel, Scope: r.Action,
		Host: r.Host, Port: r.Port, Method: r.Method, Path: r.Path, PID: r.PID, Exe: r.Exe, ExeSHA256: r.ExeSHA256, Resource: "request " + r.ID, Result: what,
	}
	switch {
	case r.State == approve.Approved:
		out.Decision = "pass"
	case what != "asked":
		out.Decision = "block"
	}
	switch {
	case r.Answer != nil:
		out.Reason = "by " + r.Answer.By
		if r.Answer.Life == approve.For {
			out.Reason += ", until " + r.Answer.Until.UTC().Format(time.RFC3339)
		}
	case what == approve.TimedOut:
		out.Reason = "nobody answered"
	case what == approve.Withdrawn:
		out.Reason = "who asked is gone"
	}
	if r.Answer != nil {
		out.Rule = "request " + r.ID + ", digest " + r.Answer.Digest
	}
	return out
}

// whoAnswers names the user of this process, for the log.
func whoAnswers(how string) string {
	name := fmt.Sprintf("uid %d", os.Geteuid())
	if u, err := osuser.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	return name + ", " + how
}
