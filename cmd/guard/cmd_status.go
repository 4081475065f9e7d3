package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"guard/approve"
	"guard/audit"
	"guard/vault"
)

var statusCommand = command{
	name: "status", args: "[--live | --json]", short: "say what there is and what is open",
	example: "guard status", run: runStatus,
}

// status is what `guard status --json` prints.
type status struct {
	Home      string   `json:"home"`
	Vault     bool     `json:"vault"`
	Unlock    []string `json:"unlock"`
	Records   uint64   `json:"audit_records"`
	Sessions  []string `json:"sessions_open"` // started, with no end in the log
	Leaks24h  int      `json:"leaks_24h"`
	Uses24h   int      `json:"uses_24h"`
	Rotations int      `json:"rotations_open"`
	// Searched is what sessions that ended in the last 24 hours searched in writes.
	Searched []searched `json:"searched_24h"`
	Waiting  int        `json:"requests_waiting"` // questions, by their files
	// Grants are what was approved or denied for longer than once; absent where the vault
	// does not open without asking.
	Grants []heldGrant `json:"grants,omitempty"`
}

func runStatus(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	asJSON := f.Bool("json", false, "one JSON object")
	live := f.Bool("live", false, "a screen that shows sessions, uses, leaks and rotations as they happen")
	if err := parse(f, args); err != nil {
		return err
	}
	if *live {
		if _, err := os.Stat(a.auditDir()); err != nil {
			return fmt.Errorf("there is no log in %s", a.auditDir())
		}
		return a.runLive(ctx, a.auditDir(), audit.Filter{})
	}
	s := status{Home: a.home(), Vault: vault.Exists(a.home()), Unlock: []string{}, Sessions: []string{}}
	if s.Vault {
		slots, err := vault.Slots(a.home())
		if err != nil {
			return err
		}
		s.Unlock = slots
	}
	open := map[string]bool{}
	sum := searchedSum{}
	day := time.Now().Add(-24 * time.Hour)
	if _, err := os.Stat(a.auditDir()); err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	} else if err := audit.Read(a.auditDir(), audit.Filter{}, func(r audit.Record) error {
		s.Records = max(s.Records, r.Seq)
		switch r.Type {
		case audit.TypeSessionStart:
			open[r.Session] = true
		case audit.TypeSessionEnd:
			delete(open, r.Session)
		case audit.TypeLeak:
			if r.Time.After(day) {
				s.Leaks24h++
			}
		case audit.TypeUse:
			if r.Time.After(day) {
				s.Uses24h++
			}
		case typeCoverage:
			if r.Time.After(day) {
				sum.add(r)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for id := range open {
		s.Sessions = append(s.Sessions, id)
	}
	var err error
	if s.Rotations, err = openRotations(a.rotateDir()); err != nil {
		return err
	}
	s.Searched = sum.list()
	sealed := a.standingAnswers(&s, time.Now())
	if *asJSON {
		return a.printJSON(s)
	}
	v := "none (guard init)"
	if s.Vault {
		v = fmt.Sprintf("%s, opened by %v", s.Home, s.Unlock)
	}
	rows := [][]string{
		{"vault", v}, {"audit", fmt.Sprintf("%d records", s.Records)},
		{"sessions", fmt.Sprintf("%d without an end in the log", len(s.Sessions))},
		{"last 24 h", fmt.Sprintf("%d uses, %d leaks", s.Uses24h, s.Leaks24h)},
		{"rotations open", fmt.Sprint(s.Rotations)},
	}
	if sealed {
		rows = append(rows, []string{"requests, grants", "sealed: guard request ls, guard grant ls"})
	} else {
		rows = append(rows, []string{"requests waiting", fmt.Sprint(s.Waiting)})
	}
	for _, g := range s.Grants {
		says := "allowed"
		if g.Deny {
			says = "denied"
		}
		what := approve.Plain(g.Credential + ":" + g.Action)
		if g.Kind == approve.KindConnect {
			what = "connections by " + approve.Plain(g.Action)
		}
		if g.Host != "" {
			what += " at " + approve.Plain(g.Host)
		}
		rows = append(rows, []string{"grant " + g.ID, fmt.Sprintf("%s %s, context %s, ends: %s", says, what, approve.Plain(g.Context), g.Ends)})
	}
	for _, x := range s.Searched {
		rows = append(rows, []string{"writes, " + x.Source + " " + x.Channel, x.String()})
	}
	return a.table(rows)
}

// standingAnswers fills in what waits and what holds, if the vault opens without a question;
// sealed says that there is something and it does not.
func (a *app) standingAnswers(s *status, now time.Time) (sealed bool) {
	_, rerr := os.Stat(a.requestsDir())
	_, gerr := os.Stat(a.grantsPath())
	if !s.Vault || rerr != nil && gerr != nil || a.checkLock() != nil {
		return s.Vault && (rerr == nil || gerr == nil)
	}
	us, err := a.unlockers(false)
	if err != nil || len(us) == 0 {
		return true
	}
	v, err := vault.Open(a.home(), us...)
	if err != nil {
		return true
	}
	defer v.Close()
	all, _ := a.requests(v)
	for _, r := range all {
		if r.Open(now) {
			s.Waiting++
		}
	}
	if s.Grants, err = a.heldGrants(v, now); err != nil {
		a.say("%v", err)
	}
	return false
}

// openRotations counts the journals of rotations that are not finished.
func openRotations(dir string) (int, error) {
	es, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	n := 0
	for _, e := range es {
		if !e.IsDir() && len(e.Name()) > 5 && e.Name()[len(e.Name())-5:] == ".json" {
			n++
		}
	}
	return n, err
}
