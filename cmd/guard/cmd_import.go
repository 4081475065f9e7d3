package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"guard"
	"guard/audit"
	"guard/vault"
)

var importCommand = command{
	name: "import", args: "[PATH...] [FLAGS] | --undo [FILE...]",
	short:   "store the credentials that lie in files, and leave placeholders there",
	example: "guard import --dry-run\nguard import ~/.npmrc .env --rewrite\nguard import --undo .env",
	run:     runImport,
}

type importFlags struct {
	from, context                   string
	rewrite, undo, beside           bool
	dryRun, yes, trustHosts, asJSON bool
}

func runImport(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	var o importFlags
	f.StringVar(&o.from, "from", "", "only this format, and that of any PATH: "+strings.Join(importFormats, ", "))
	f.BoolVar(&o.rewrite, "rewrite", false, "put each value's placeholder in its place in the file; the original is kept sealed")
	f.BoolVar(&o.undo, "undo", false, "bring back what --rewrite replaced (of FILE; default: of all files)")
	f.BoolVar(&o.beside, "beside", false, "with --undo: write the original beside the file, as FILE.original, whatever the file is now")
	f.BoolVar(&o.dryRun, "dry-run", false, "show what would be done, and do nothing")
	f.BoolVar(&o.yes, "yes", false, "do it without asking; does not cover hosts that a project's file names")
	f.BoolVar(&o.trustHosts, "trust-hosts", false, "with --yes: also take hosts that a file other than your own in $HOME names")
	f.BoolVar(&o.asJSON, "json", false, "one JSON object a credential")
	f.StringVar(&o.context, "context", "", "context the credentials belong to: PROJECT or PROJECT/ENV (default: the current folder's)")
	if err := parse(f, args); err != nil {
		return err
	}
	switch {
	case o.from != "" && !slices.Contains(importFormats, o.from):
		return usagef("--from: want one of %s", strings.Join(importFormats, ", "))
	case o.undo && (o.rewrite || o.dryRun || o.from != "" || o.context != ""):
		return usagef("--undo goes with --beside and --yes only")
	case o.beside && !o.undo:
		return usagef("--beside is for --undo")
	case o.asJSON && !o.yes && !o.dryRun:
		return usagef("--json shows no table to say yes to: it wants --yes or --dry-run")
	case o.trustHosts && !o.yes:
		return usagef("--trust-hosts is for --yes: without it you are asked")
	}
	// An agent that unsets the variable finds no vault.
	if a.getenv("GUARD_SESSION") != "" {
		return errors.New("guard import is for the user, not for a session: what an agent finds is not stored, and its own files name no hosts")
	}
	if o.context != "" {
		if err := checkContext(o.context); err != nil {
			return err
		}
	}
	cname, err := a.resolveContext(o.context)
	if err != nil {
		return err
	}
	v, err := a.openVault()
	if err != nil {
		return err
	}
	defer v.Close()
	if err := a.openContext(v, cname); err != nil {
		return err
	}
	if o.undo {
		return a.undoImport(v, f.Args(), o)
	}
	files, skipped, err := a.importFiles(f.Args(), o.from)
	if err != nil {
		return err
	}
	defer func() {
		for _, f := range files {
			clear(f.data)
		}
	}()
	p, err := a.planImport(v, cname, files, o)
	if err != nil {
		return err
	}
	defer p.wipe()
	return a.doImport(v, p, skipped, o)
}

// doImport shows the plan, asks, and does it.
func (a *app) doImport(v *vault.Vault, p *importPlan, skipped []skippedFile, o importFlags) error {
	store, rewrite := p.count(o.rewrite)
	if !o.asJSON {
		if err := a.showImport(p, skipped, o); err != nil {
			return err
		}
	}
	if store == 0 && rewrite == 0 {
		if o.asJSON {
			return a.reportImport(p, skipped)
		}
		a.say("nothing to store")
		return nil
	}
	if o.dryRun {
		if o.asJSON {
			return a.reportImport(p, skipped)
		}
		a.say("nothing was done: leave --dry-run out to store %s%s", counted(store, "credential"), andFiles(" and rewrite ", rewrite))
		return nil
	}
	if !o.yes {
		if hosts := p.foreignHosts(); len(hosts) > 0 {
			a.say("hosts that a project's file names, where what is stored from it could be sent: %s", strings.Join(hosts, ", "))
		}
		ok, err := confirm(fmt.Sprintf("guard: store %s%s?", counted(store, "credential"), andFiles(" and rewrite ", rewrite)))
		if err != nil {
			return fmt.Errorf("%w; --dry-run only looks, --yes does it without asking", err)
		}
		if !ok {
			return errors.New("nothing was done")
		}
	}
	log, err := a.openAudit(v, nil)
	if err != nil {
		return err
	}
	defer log.Close()
	var failed []error
	for _, it := range p.items {
		if it.known == "" && it.skip == "" {
			if err := a.storeItem(v, log, it); err != nil {
				it.skip = "not stored"
				failed = append(failed, err)
			}
		}
	}
	rewrote := 0
	if o.rewrite {
		for _, f := range p.files {
			ok, err := a.rewriteImported(v, f, p.of(f))
			if err != nil {
				failed = append(failed, err)
			}
			if ok {
				rewrote++
				if _, err := log.Append(audit.Record{Type: "import.rewrite", Context: p.context, Path: f.path}); err != nil {
					failed = append(failed, err)
				}
			}
		}
	}
	failed = append(failed, a.keepHead(v, log))
	if o.asJSON {
		failed = append(failed, a.reportImport(p, skipped))
	} else {
		a.saySummary(p, rewrote, o)
	}
	return errors.Join(failed...)
}

func (a *app) saySummary(p *importPlan, rewrote int, o importFlags) {
	stored := 0
	for _, it := range p.items {
		if it.stored {
			stored++
			if len(it.hosts) == 0 {
				a.say("%s has no host yet, so it can be used nowhere: guard secret edit %s --host HOST", it.name, it.name)
			}
		}
		for _, pl := range it.places {
			if o.rewrite && !pl.rewritten && pl.stay != "" && (it.stored || it.known != "") {
				a.say("%s:%d still holds %s: %s", a.shownPath(pl.file.path), pl.line, it.credential(), pl.stay)
			}
		}
	}
	fmt.Fprintf(a.stdout, "stored %s in context %s%s\n", counted(stored, "credential"), p.context, andFiles(", rewrote ", rewrote))
	if rewrote > 0 {
		a.say("the originals are kept sealed: guard import --undo brings them back")
	} else if stored > 0 && !o.rewrite {
		a.say("the files still hold the values: --rewrite puts placeholders there")
	}
}

func (a *app) storeItem(v *vault.Vault, log *audit.Log, it *importItem) error {
	// The name was free when the plan was made, and must not be somebody's now.
	if _, err := v.Find(it.context, it.name); err == nil {
		return fmt.Errorf("%s came into the vault meanwhile: run guard import again", it.name)
	} else if !errors.Is(err, vault.ErrNotFound) {
		return err
	}
	cr, err := v.Set(guard.Credential{Name: it.name, Context: it.context, Kind: it.kind, Hosts: it.hosts, Env: it.env, User: it.user, In: it.in}, it.value)
	if err != nil {
		return fmt.Errorf("store what is in %s, line %d: %w", a.shownPath(it.places[0].file.path), it.places[0].line, err)
	}
	it.stored, it.placeholder, it.hosts, it.env = true, cr.Placeholder, cr.Hosts, cr.Env
	_, err = log.Append(audit.Record{Type: "secret.set", Credential: it.name, Context: it.context, Version: cr.Version, Path: it.places[0].file.path, Fingerprint: a.fingerprintOf(v, cr.ID())})
	return err
}

// showImport prints what was found, never a value.
func (a *app) showImport(p *importPlan, skipped []skippedFile, o importFlags) error {
	rows := [][]string{{"FILE", "LINE", "NAME", "KIND", "HOSTS", "ENV", "WHAT IS DONE"}}
	for _, it := range p.items {
		for i, pl := range it.places {
			hosts := strings.Join(it.hosts, ",")
			if it.foreign {
				hosts += " (the file says)"
			}
			env := it.env
			if i > 0 {
				hosts, env = "", ""
			}
			rows = append(rows, []string{a.shownPath(pl.file.path), fmt.Sprint(pl.line), it.credential(), it.shownKind(), hosts, env, it.does(i, o.rewrite)})
		}
	}
	if len(rows) > 1 {
		if err := a.table(rows); err != nil {
			return err
		}
	}
	for _, s := range skipped {
		a.say("not looked into: %s: %s", a.shownPath(s.path), s.why)
	}
	return nil
}

// imported is one line of --json: it has no value.
type imported struct {
	File      string   `json:"file"`
	Line      int      `json:"line,omitempty"`
	From      string   `json:"from,omitempty"`
	Name      string   `json:"name,omitempty"`
	Context   string   `json:"context,omitempty"`
	Kind      string   `json:"kind,omitempty"`
	Hosts     []string `json:"hosts,omitempty"`
	HostsFrom string   `json:"hosts_from,omitempty"` // "kind", "home" or "file"
	Env       string   `json:"env,omitempty"`
	User      string   `json:"user,omitempty"`
	Action    string   `json:"action"` // "store", "known" or "skip"
	Stored    bool     `json:"stored"`
	Rewritten bool     `json:"rewritten"`
	Reason    string   `json:"reason,omitempty"`
}

func (a *app) reportImport(p *importPlan, skipped []skippedFile) error {
	for _, it := range p.items {
		for _, pl := range it.places {
			line := imported{File: pl.file.path, Line: pl.line, From: pl.file.format, Name: it.credential(), Context: it.context, Kind: it.kind, Hosts: it.hosts,
				Env: it.env, User: it.user, Action: "store", Stored: it.stored, Rewritten: pl.rewritten, Reason: pl.stay}
			switch {
			case it.skip != "":
				line.Action, line.Reason = "skip", it.skip
			case it.known != "":
				line.Action = "known"
			case it.foreign:
				line.HostsFrom = "file"
			case it.fromFile:
				line.HostsFrom = "home"
			case len(it.hosts) > 0:
				line.HostsFrom = "kind"
			}
			if err := a.printJSON(line); err != nil {
				return err
			}
		}
	}
	for _, s := range skipped {
		if err := a.printJSON(imported{File: s.path, Action: "skip", Reason: s.why}); err != nil {
			return err
		}
	}
	return nil
}

// shownPath is a path as it may be shown: short, and on one line.
func (a *app) shownPath(path string) string {
	if h := a.userHome(); h != "" && within(path, h) {
		path = filepath.Join("~", strings.TrimPrefix(path, h))
	}
	return oneWord(path)
}

// oneWord makes a name of a file's fit for a terminal.
func oneWord(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return fmt.Sprintf("%+q", s)
	}
	return s
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func andFiles(before string, n int) string {
	if n == 0 {
		return ""
	}
	return before + counted(n, "file")
}

// drain reads r to its end, at most max bytes, and says whether there was more.
func drain(r io.Reader, max int64) ([]byte, bool, error) {
	b, err := io.ReadAll(io.LimitReader(r, max+1))
	if int64(len(b)) > max {
		clear(b)
		return nil, true, err
	}
	return b, false, err
}
