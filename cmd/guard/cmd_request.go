package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"guard"
	"guard/approve"
	"guard/audit"
	"guard/policy"
	"guard/vault"
)

var requestCommand = command{
	name: "request", args: "ls | show ID | approve ID | deny ID", short: "what sessions ask you for: list, look at, approve or deny it",
	example: "guard request ls\nguard request show 3f9a01c2d4\nguard request approve 3f9a01c2d4 --session\nguard request approve 3f9a01c2d4 --for 8h\nguard request deny 3f9a01c2d4 --always",
	run:     runRequest,
}

var grantCommand = command{
	name: "grant", args: "ls | rm ID", short: "what you approved or denied for longer than once",
	example: "guard grant ls\nguard grant rm 3f9a01c2d4", run: runGrant,
}

// requestFlags are those of guard request.
type requestFlags struct {
	once, session, always, granted, json, yes bool
	forTime                                   time.Duration
	host                                      []string
	kind                                      string
	stdin                                     bool
	fromFile                                  string
}

func runRequest(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	var o requestFlags
	f.BoolVar(&o.json, "json", false, "ls, show: one JSON object a request")
	f.BoolVar(&o.granted, "granted", false, "ls: what was approved or denied and holds, with its end")
	f.BoolVar(&o.once, "once", false, "approve: this very request, once (the default; for guard ask: --session)")
	f.BoolVar(&o.session, "session", false, "approve: the like of it (credential, action, host, program), in the session that asked")
	f.DurationVar(&o.forTime, "for", 0, "approve, deny: the like of it for so long, in every session of the context")
	f.BoolVar(&o.always, "always", false, "approve, deny: the like of it in every session of the context, until guard grant rm (a daemon's has an end: --for)")
	f.BoolVar(&o.yes, "yes", false, "approve: do not ask once more")
	f.StringArrayVar(&o.host, "host", nil, "approve, for a credential that there is none of: HOST, HOST:PORT or *.DOMAIN that it may go to (repeatable)")
	f.StringVar(&o.kind, "kind", "", "approve, the same: its kind (default: guessed from the value)")
	f.BoolVar(&o.stdin, "stdin", false, "approve, the same: read its value from standard input instead of a hidden prompt")
	f.StringVar(&o.fromFile, "from-file", "", "approve, the same: read its value from this file")
	if err := parse(f, args); err != nil {
		return err
	}
	verb := f.Arg(0)
	switch {
	case verb == "ls" && f.NArg() == 1, (verb == "show" || verb == "approve" || verb == "deny") && f.NArg() == 2:
	default:
		return usagef("guard request ls | show ID | approve ID | deny ID")
	}
	if err := a.outside("guard request"); err != nil {
		return err
	}
	switch verb {
	case "ls":
		return a.listRequests(o)
	case "show":
		return a.showRequest(f.Arg(1), o)
	}
	return a.answerRequest(f.Arg(1), verb == "approve", o)
}

func (a *app) listRequests(o requestFlags) error {
	v, err := a.openVault()
	if err != nil {
		return err
	}
	defer v.Close()
	now := time.Now()
	if err := a.tidyRequests(v, now); err != nil {
		return err
	}
	if o.granted {
		return a.listGrants(v, o.json, now)
	}
	all, bad := a.requests(v)
	for _, err := range bad {
		a.say("%v", err)
	}
	rows := [][]string{{"ID", "STATE", "ASKS FOR", "AT", "CONTEXT", "LEFT"}}
	for _, r := range all {
		if o.json {
			if err := a.printJSON(r); err != nil {
				return err
			}
			continue
		}
		if !r.Open(now) {
			continue
		}
		what, at := r.Credential+":"+r.Action, r.Host
		if r.Kind == approve.KindConnect {
			what = "connect"
		}
		if r.Method != "" {
			at = r.Method + " " + r.Host + r.Path
		}
		rows = append(rows, []string{r.ID, r.State, approve.Plain(what), approve.Plain(at), approve.Plain(r.Context), r.Expires.Sub(now).Round(time.Second).String()})
	}
	switch {
	case o.json:
		return nil
	case len(rows) == 1:
		a.say("nothing waits for you")
		return nil
	}
	return a.table(rows)
}

func (a *app) showRequest(id string, o requestFlags) error {
	v, err := a.openVault()
	if err != nil {
		return err
	}
	defer v.Close()
	r, err := a.loadRequest(v, id)
	if err != nil {
		return err
	}
	if o.json {
		return a.printJSON(r)
	}
	return a.printRequest(r, time.Now())
}

func (a *app) printRequest(r approve.Request, now time.Time) error {
	rows := [][]string{{"request", r.ID}, {"state", r.State}}
	for _, l := range r.Lines(now) {
		rows = append(rows, []string{l.Name, l.Text})
	}
	rows = append(rows, []string{"digest", r.Digest()})
	if r.Answer != nil {
		rows = append(rows, []string{"answered", fmt.Sprintf("%s, %s, by %s", r.Answer.At.UTC().Format(time.RFC3339), r.Answer.Life, r.Answer.By)})
	}
	return a.table(rows)
}

// life is what the flags say.
func (o requestFlags) life(r approve.Request, allow bool) (life string, err error) {
	n := 0
	life = approve.Once
	for _, c := range []struct {
		given bool
		life  string
	}{{o.once, approve.Once}, {o.session, approve.Session}, {o.forTime != 0, approve.For}, {o.always, approve.Always}} {
		if c.given {
			n++
			life = c.life
		}
	}
	switch {
	case n > 1:
		return "", usagef("--once, --session, --for and --always exclude one another")
	case o.forTime < 0:
		return "", usagef("--for wants a time to come")
	case allow && r.Kind == approve.KindAsk && life == approve.Once:
		if o.once {
			return "", usagef("what guard ask asks for is no single request: --session, --for or --always")
		}
		life = approve.Session
	}
	if r.Profile == profileDaemon && allow {
		switch {
		case life == approve.Always:
			return "", fmt.Errorf("a daemon's grants have an end: --for DURATION, at most %s", maxDaemon)
		case life == approve.For && o.forTime > maxDaemon:
			return "", fmt.Errorf("a daemon's grants last %s at most", maxDaemon)
		}
	}
	if allow && life != approve.Once && !r.Lasting() {
		return "", errors.New("it is not known for sure which program asks, so that nothing can be allowed to it for longer: approve it --once")
	}
	return life, nil
}

// answerRequest is guard request approve and deny. Opening the vault by the user's own act is
// what makes the answer theirs.
func (a *app) answerRequest(id string, allow bool, o requestFlags) error {
	if err := a.checkLock(); err != nil {
		return err
	}
	us, asked, err := a.approvers()
	if err != nil {
		return err
	}
	v, err := vault.Open(a.home(), us...)
	if err != nil {
		return err
	}
	defer v.Close()
	if err := a.checkGeneration(v); err != nil {
		return err
	}
	r, err := a.loadRequest(v, id)
	if err != nil {
		return err
	}
	now := time.Now()
	switch {
	case r.State != approve.Pending:
		return fmt.Errorf("request %s: %w: %s", id, errAnswered, r.State)
	case !r.Open(now):
		return fmt.Errorf("request %s ended at %s: what asked was told so", id, r.Expires.UTC().Format(time.RFC3339))
	}
	answer := approve.Answer{Allow: allow, Digest: r.Digest()}
	if answer.Life, err = o.life(r, allow); err != nil {
		return err
	}
	if answer.Life == approve.For {
		answer.Until = now.Add(o.forTime).UTC()
	}
	if allow {
		if err := a.printRequest(r, now); err != nil {
			return err
		}
		if !o.yes && (asked || term.IsTerminal(int(a.stdin.Fd()))) {
			ok, err := confirm("guard: allow " + r.Lasts(answer.Life) + "?")
			if err != nil {
				return err
			}
			if !ok {
				return errors.New("nothing was answered: guard request deny says no")
			}
		}
		if r.Kind == approve.KindAsk {
			if err := a.provide(v, r, o); err != nil {
				return err
			}
		}
	}
	answer.At, answer.By = time.Now().UTC(), whoAnswers("guard request on "+ttyName())
	state := approve.Denied
	if allow {
		state = approve.Approved
	}
	// No record, no answer; whoever acts on it records that, too.
	told := r
	told.State, told.Answer = state, &answer
	if err := a.note(v, func() audit.Record {
		rec := approvalRecord(told, "answered: "+state+" "+answer.Life)
		return rec
	}()); err != nil {
		return err
	}
	got, err := a.settleRequest(v, r, state, &answer, answer.At)
	if err != nil {
		return err
	}
	if got.Answer == nil || got.Answer.At != answer.At || got.State != state {
		return fmt.Errorf("request %s: %w: %s", id, errAnswered, got.State)
	}
	if allow {
		a.say("approved: %s", r.Lasts(answer.Life))
	} else {
		a.say("denied")
	}
	return nil
}

// approvers are ways to open the vault that are the user's own act, as for guard unlock; asked
// says that the yes is still to come, where only what opens by itself is there.
func (a *app) approvers() (us []vault.Unlocker, asked bool, err error) {
	if a.unlock.explicit(a) {
		us, err = a.offers(nil)
		return us, false, err
	}
	slots, err := vault.Slots(a.home())
	if err != nil {
		return nil, false, err
	}
	if !term.IsTerminal(int(a.stdin.Fd())) {
		return nil, false, fmt.Errorf("%w: a keychain alone approves nothing; give --passphrase-file, --keyfile or --age-identity", errNoTerminal)
	}
	if slices.Contains(slots, "passphrase") {
		return []vault.Unlocker{askPassphrase}, false, nil
	}
	us, err = a.offers(slots)
	return us, true, err
}

func ttyName() string {
	for _, f := range []*os.File{os.Stdin, os.Stderr} {
		if term.IsTerminal(int(f.Fd())) {
			if n, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd())); err == nil {
				return n
			}
			return "a terminal"
		}
	}
	return "no terminal"
}

// provide stores what guard ask lacks: a value that the user gives here, and nowhere in the
// session.
func (a *app) provide(v *vault.Vault, r approve.Request, o requestFlags) error {
	_, err := v.Find(r.Context, r.Credential)
	if err == nil || !errors.Is(err, vault.ErrNotFound) {
		return err
	}
	hosts := o.host
	if len(hosts) == 0 {
		if k, ok := vault.KindByName(r.Credential); !ok || len(k.Hosts) == 0 {
			return usagef("there is no credential %s yet: say with --host where it may go (the agent says %q)", r.Credential, approve.Plain(r.Host))
		}
	}
	for _, h := range hosts {
		if err := policy.CheckHost(h); err != nil {
			return usagef("--host %q: %v", h, err)
		}
	}
	if err := a.openContext(v, r.Context); err != nil {
		return err
	}
	b, err := a.value(r.Credential, credentialFlags{stdin: o.stdin, fromFile: o.fromFile})
	if err != nil {
		return err
	}
	s := guard.NewSecret(b)
	defer s.Wipe()
	c := guard.Credential{Name: r.Credential, Context: r.Context, Hosts: hosts, Kind: o.kind, Env: askedEnv(r.Credential)}
	if c.Kind == "" {
		if k, ok := vault.KindByName(r.Credential); ok {
			c.Kind = k.Name
		}
	}
	if r.Action != "use" {
		c.Scopes = []string{r.Action}
	}
	if o.forTime > 0 {
		c.Expires = time.Now().Add(o.forTime).UTC()
	}
	if c, err = v.Set(c, s); err != nil {
		return err
	}
	rec := audit.Record{Type: "credential.set", Credential: c.Name, Version: c.Version, Context: c.Context, Result: "given for request " + r.ID}
	return a.note(v, rec)
}

// askedEnv is the variable of a credential that an agent asked for.
func askedEnv(name string) string {
	up := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, name)
	if up == "" || up[0] >= '0' && up[0] <= '9' {
		return ""
	}
	if !strings.HasSuffix(up, "TOKEN") && !strings.HasSuffix(up, "KEY") {
		up += "_TOKEN"
	}
	return up
}

func runGrant(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	asJSON := f.Bool("json", false, "ls: one JSON object a grant")
	if err := parse(f, args); err != nil {
		return err
	}
	verb := f.Arg(0)
	if verb != "ls" && verb != "rm" || verb == "ls" && f.NArg() != 1 || verb == "rm" && f.NArg() != 2 {
		return usagef("guard grant ls | rm ID")
	}
	if err := a.outside("guard grant"); err != nil {
		return err
	}
	v, err := a.openVault()
	if err != nil {
		return err
	}
	defer v.Close()
	if verb == "ls" {
		return a.listGrants(v, *asJSON, time.Now())
	}
	id := f.Arg(1)
	var gone *approve.Grant
	if err := a.withRequests(func() error {
		all, err := a.readGrants(v)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(g approve.Grant) bool { return g.ID == id })
		if i < 0 {
			return fmt.Errorf("there is no grant %s: guard grant ls", visible(id))
		}
		gone = &all[i]
		g := *gone
		gone = &g
		return writeSealed(v, a.grantsPath(), "grants", slices.Delete(all, i, i+1))
	}); err != nil {
		return err
	}
	return a.note(v, audit.Record{Type: audit.TypeApproval, Context: gone.Context, Credential: gone.Credential, Scope: gone.Action, Host: gone.Host, Port: gone.Port, Resource: "grant " + gone.ID,
		Result: "removed", Decision: "block", Reason: "by " + whoAnswers("guard grant rm")})
}

// heldGrant is what guard grant ls --json prints.
type heldGrant struct {
	approve.Grant
	Ends string `json:"ends"` // RFC 3339, "with its session" or "never"
}

// heldGrants are the standing grants, and those of sessions, that hold at now.
func (a *app) heldGrants(v *vault.Vault, now time.Time) (out []heldGrant, err error) {
	all, err := a.readGrants(v)
	if err != nil {
		return nil, err
	}
	rs, _ := a.requests(v)
	for _, r := range rs {
		if r.Answer == nil {
			continue
		}
		if g := approve.GrantOf(r, *r.Answer); g != nil && g.Session != "" {
			all = append(all, *g)
		}
	}
	for _, g := range all {
		h := heldGrant{Grant: g, Ends: "never"}
		switch {
		case g.Session != "":
			h.Ends = "with its session"
		case !g.Until.IsZero() && !now.Before(g.Until):
			continue
		case !g.Until.IsZero():
			h.Ends = g.Until.UTC().Format(time.RFC3339)
		}
		out = append(out, h)
	}
	return out, nil
}

func (a *app) listGrants(v *vault.Vault, asJSON bool, now time.Time) error {
	all, err := a.heldGrants(v, now)
	if err != nil {
		return err
	}
	rows := [][]string{{"ID", "SAYS", "WHAT", "AT", "PROGRAM", "CONTEXT", "ENDS"}}
	for _, g := range all {
		if asJSON {
			if err := a.printJSON(g); err != nil {
				return err
			}
			continue
		}
		says, what, at := "allow", g.Credential+":"+g.Action, g.Host
		if g.Deny {
			says = "deny"
		}
		if g.Kind == approve.KindConnect {
			what = "connect:" + g.Action
		}
		if at == "" {
			at = "its hosts"
		}
		rows = append(rows, []string{g.ID, says, approve.Plain(what), approve.Plain(at), approve.Plain(first(g.Exe, "any")), approve.Plain(g.Context), g.Ends})
	}
	switch {
	case asJSON:
		return nil
	case len(rows) == 1:
		a.say("nothing was approved or denied for longer than once")
		return nil
	}
	return a.table(rows)
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
