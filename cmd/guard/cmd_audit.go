package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"guard/audit"
	"guard/audit/export"
	"guard/vault"
)

var auditCommand = command{
	name: "audit", args: "show | tail | verify | prove SEQ | find | export | ship TARGET... | schema | prune", short: "read, verify and prove the log",
	example: "guard audit show --credential github-pat --since 24h\nguard audit verify\nguard audit find < leaked.txt",
	exits:   "; find: 3 it is or was one of yours", run: runAudit,
}

func runAudit(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	var q audit.Filter
	f.StringVar(&q.Credential, "credential", "", "only records about this credential")
	f.StringVar(&q.Session, "session", "", "only records of this session")
	f.StringVar(&q.Context, "context", "", "only records of this context: PROJECT (also its environments) or PROJECT/ENV")
	f.StringVar(&q.Profile, "profile", "", "only records of this profile's credentials and sessions: interactive or daemon")
	f.StringVar(&q.Type, "type", "", "only records of this type, such as credential.use or leak")
	f.StringVar(&q.Decision, "decision", "", "only records with this decision, such as block")
	f.StringVar(&q.Channel, "channel", "", "only records of this channel, such as http or terminal")
	f.IntVar(&q.Last, "last", 0, "of those, only the newest so many")
	until := f.String("until", "", "only records before then: a duration ago, or a date")
	proof := f.String("proof", "", "of verify: check this proof (a file, or - for standard input) instead of the log; needs --key, or the vault")
	keep := f.String("keep", "", "of prune: remove files of which every record is older, such as 2160h")
	kept := f.String("copy", "", "of verify: check this copy, which guard audit ship sent to a file or a collector wrote, instead of the log; needs --key")
	against := f.String("against", "", "of verify: also against this checkpoint, which was kept elsewhere")
	var ship shipFlags
	f.BoolVar(&ship.once, "once", false, "of ship: send what there is, and end")
	f.StringArrayVar(&ship.headers, "header", nil, "of ship: an HTTP header for collectors, NAME=VALUE or NAME=@FILE")
	f.StringArrayVar(&ship.ca, "ca", nil, "of ship: further roots for TLS, PEM")
	f.StringVar(&ship.metrics, "metrics", "", "of ship: answer Prometheus at this address, such as 127.0.0.1:9464")
	live := f.Bool("live", false, "of tail: a screen that shows sessions, uses, leaks and rotations as they happen")
	since := f.String("since", "", "only records since then: a duration such as 24h, or a date")
	asJSON := f.Bool("json", false, "one JSON object a line")
	dir := f.String("dir", "", "read the log in this folder instead of guard's own")
	key := f.String("key", "", "verify with this public key instead of the one beside the log")
	format := f.String("format", "jsonl", "of export: "+strings.Join(export.Formats(), ", "))
	if err := parse(f, args); err != nil {
		return err
	}
	verb := f.Arg(0)
	if want := map[string]int{"prove": 2}; verb != "ship" && f.NArg() != max(1, want[verb]) {
		return usagef("audit wants one of show, tail, verify, prove SEQ, find, export, ship, schema, prune")
	}
	if q.Profile != "" {
		if err := checkProfile(q.Profile); err != nil {
			return err
		}
	}
	if q.Last < 0 {
		return usagef("--last %d: want a number of records", q.Last)
	}
	if *until != "" {
		t, err := parseSince(*until)
		if err != nil {
			return err
		}
		q.Until = t
	}
	if *since != "" {
		t, err := parseSince(*since)
		if err != nil {
			return err
		}
		q.Since = t
	}
	own := *dir == ""
	if own {
		*dir = a.auditDir()
	}
	if verb == "verify" && *proof != "" {
		return a.checkProof(*proof, *key, *asJSON)
	}
	if verb == "verify" && *kept != "" {
		return a.verifyCopy(*kept, *key, *asJSON)
	}
	if _, err := os.Stat(*dir); err != nil && verb != "schema" {
		return fmt.Errorf("there is no log in %s", *dir)
	}
	w := bufio.NewWriter(a.stdout)
	defer w.Flush()
	switch verb {
	case "show":
		if *asJSON {
			return audit.Read(*dir, q, a.printRecord)
		}
		return audit.Show(w, *dir, q)
	case "export":
		x, err := export.New(w, *format, a.logSource(*dir))
		if err != nil {
			return usageError{err}
		}
		return audit.Read(*dir, q, x.Write)
	case "tail":
		if *live {
			return a.runLive(ctx, *dir, q)
		}
		return a.tailAudit(ctx, *dir, q, *asJSON)
	case "verify":
		w.Flush()
		return a.verifyAudit(*dir, *key, *against, own, *asJSON)
	case "prove":
		seq, err := strconv.ParseUint(f.Arg(1), 10, 63)
		if err != nil {
			return usagef("prove %q: want the seq of a record, as guard audit show --json has it", f.Arg(1))
		}
		b, err := audit.Prove(*dir, seq)
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	case "ship":
		return a.shipAudit(ctx, *dir, f.Args()[1:], ship)
	case "schema":
		_, err := w.Write(audit.Schema())
		return err
	case "find":
		return a.findValue(*dir, *asJSON)
	case "prune":
		return a.pruneAudit(*keep, own, *asJSON)
	default:
		return usagef("audit %q: want show, tail, verify, prove, find, export, ship, schema or prune", verb)
	}
}

// logSource says where the records of the log in dir come from.
func (a *app) logSource(dir string) export.Source {
	s := export.Source{Version: version()}
	s.Host, _ = os.Hostname()
	if b, err := os.ReadFile(filepath.Join(dir, "key.pub")); err == nil {
		s.Key = strings.TrimSpace(string(b))
	}
	return s
}

func (a *app) printRecord(r audit.Record) error { return a.printJSON(r) }

func parseSince(s string) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return time.Now().Add(-d), nil
	}
	for _, layout := range []string{time.DateOnly, time.DateTime, time.RFC3339} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usagef("--since %q: want a duration such as 24h, or a date such as 2026-01-31", s)
}

// verifyAudit checks the log, and against what the vault remembers of it where
// the vault opens without asking.
func (a *app) verifyAudit(dir, key, against string, own, asJSON bool) error {
	var v *vault.Vault
	if own && key == "" {
		var err error
		if v, key, err = a.vaultKey(); err != nil {
			return err
		}
		if v != nil {
			defer v.Close()
		}
	}
	var rep audit.Report
	var err error
	if v == nil {
		rep, err = audit.Verify(dir, key)
	} else {
		var h head
		if h, err = a.readHead(v); err != nil {
			return err
		}
		if h.Size == 0 {
			rep, err = audit.Verify(dir, key)
		} else {
			rep, err = audit.VerifyAgainst(dir, key, h.Size, h.Root)
		}
	}
	if err == nil && against != "" {
		var b []byte
		if b, err = newestCheckpoint(against); err == nil {
			rep, err = audit.VerifyCheckpoint(dir, key, b)
		}
	}
	if err != nil {
		if asJSON && errors.Is(err, audit.ErrTampered) {
			_ = a.printJSON(map[string]any{"ok": false, "error": err.Error(), "report": rep})
		}
		return err
	}
	trust := "the public key beside the log (anybody who can write there could have replaced both)"
	if v != nil {
		trust = "the key sealed in the vault"
	} else if key != "" {
		trust = "the given key"
	}
	if asJSON {
		return a.printJSON(map[string]any{"ok": true, "report": rep, "trust": trust, "shipped": a.allShipped()})
	}
	removed := ""
	if rep.First > 1 {
		removed = fmt.Sprintf("records 1 to %d were removed by guard audit prune, as a record says; their hashes are there\n", rep.First-1)
	}
	fmt.Fprintf(a.stdout, "the log is whole: %d records, every one covered by a signed checkpoint\n%sverified with %s\n", rep.Records, removed, trust)
	if against != "" {
		fmt.Fprintf(a.stdout, "its first %d records are those of the checkpoint in %s\n", rep.AnchoredAt, against)
	}
	for _, x := range a.allShipped() {
		if own {
			fmt.Fprintf(a.stdout, "sent to %s: up to record %d, proven up to %d, %s\n", x.Target, x.Seq, x.Proven, x.At.Local().Format(time.DateTime))
		}
	}
	if own && len(a.allShipped()) == 0 {
		fmt.Fprintln(a.stdout, "nothing outside this machine knows how far it is: guard audit ship sends it")
	}
	return nil
}

// vaultKey is the log's verifier key as the vault has it, where that opens without
// asking; else no vault and no key.
func (a *app) vaultKey() (*vault.Vault, string, error) {
	us, err := a.unlockers(false)
	if err != nil || len(us) == 0 || a.checkLock() != nil {
		return nil, "", nil
	}
	v, err := vault.Open(a.home(), us...)
	if err != nil {
		return nil, "", nil
	}
	k, err := v.Key("audit")
	if err == nil {
		var key string
		if key, err = audit.PublicKey(k); err == nil {
			return v, key, nil
		}
	}
	v.Close()
	return nil, "", err
}

// tailAudit prints new records as they come, until interrupted.
func (a *app) tailAudit(ctx context.Context, dir string, q audit.Filter, asJSON bool) error {
	last := uint64(0)
	if err := audit.Read(dir, audit.Filter{Last: 1}, func(r audit.Record) error { last = r.Seq; return nil }); err != nil {
		return err
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		q.From = last + 1
		err := audit.Read(dir, q, func(r audit.Record) error {
			last = r.Seq
			if asJSON {
				return a.printRecord(r)
			}
			return audit.ShowRecord(a.stdout, r)
		})
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
