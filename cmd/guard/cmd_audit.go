package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"guard/audit"
	"guard/vault"
)

var auditCommand = command{
	name: "audit", args: "show | tail | verify | export", short: "read and verify the log",
	example: "guard audit show --credential github-pat --since 24h\nguard audit verify",
	run:     runAudit,
}

func runAudit(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	var q audit.Filter
	f.StringVar(&q.Credential, "credential", "", "only records about this credential")
	f.StringVar(&q.Session, "session", "", "only records of this session")
	f.StringVar(&q.Context, "context", "", "only records of this context")
	f.StringVar(&q.Type, "type", "", "only records of this type, such as credential.use or leak")
	f.StringVar(&q.Decision, "decision", "", "only records with this decision, such as block")
	since := f.String("since", "", "only records since then: a duration such as 24h, or a date")
	asJSON := f.Bool("json", false, "one JSON object a line")
	dir := f.String("dir", "", "read the log in this folder instead of guard's own")
	key := f.String("key", "", "verify with this public key instead of the one beside the log")
	format := f.String("format", "jsonl", "of export: jsonl")
	if err := parse(f, args); err != nil {
		return err
	}
	if f.NArg() != 1 {
		return usagef("audit wants one of show, tail, verify, export")
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
	if _, err := os.Stat(*dir); err != nil {
		return fmt.Errorf("there is no log in %s", *dir)
	}
	w := bufio.NewWriter(a.stdout)
	defer w.Flush()
	switch verb := f.Arg(0); verb {
	case "show":
		if *asJSON {
			return audit.Read(*dir, q, a.printRecord)
		}
		return audit.Show(w, *dir, q)
	case "export":
		if *format != "jsonl" {
			return usagef("--format %q: want jsonl", *format)
		}
		return audit.Read(*dir, q, a.printRecord)
	case "tail":
		return a.tailAudit(ctx, *dir, q, *asJSON)
	case "verify":
		w.Flush()
		return a.verifyAudit(*dir, *key, own, *asJSON)
	default:
		return usagef("audit %q: want show, tail, verify or export", verb)
	}
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
func (a *app) verifyAudit(dir, key string, own, asJSON bool) error {
	var v *vault.Vault
	if own && key == "" {
		if us, err := a.unlockers(false); err == nil && len(us) > 0 {
			if v, err = vault.Open(a.home(), us...); err == nil {
				defer v.Close()
				k, err := v.Key("audit")
				if err != nil {
					return err
				}
				if key, err = audit.PublicKey(k); err != nil {
					return err
				}
			}
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
		return a.printJSON(map[string]any{"ok": true, "report": rep, "trust": trust})
	}
	fmt.Fprintf(a.stdout, "the log is whole: %d records, every one covered by a signed checkpoint\nverified with %s\n", rep.Records, trust)
	return nil
}

// tailAudit prints new records as they come, until interrupted.
func (a *app) tailAudit(ctx context.Context, dir string, q audit.Filter, asJSON bool) error {
	last := uint64(0)
	if err := audit.Read(dir, audit.Filter{}, func(r audit.Record) error { last = r.Seq; return nil }); err != nil {
		return err
	}
	first := last == 0
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := audit.Read(dir, q, func(r audit.Record) error {
			if r.Seq <= last && !first {
				return nil
			}
			first, last = false, r.Seq
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
