package audit

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Types of records. A record whose Of is set completes an earlier one, whatever
// its type.
const (
	TypeSessionStart = "session.start"
	TypeSessionEnd   = "session.end"
	TypeUse          = "credential.use"    // written before the use
	TypeResult       = "credential.result" // what came of it; Of is the use's seq
	TypeLeak         = "leak"
	TypeRotation     = "rotation"
	TypeApproval     = "approval"
	TypeTamper       = "tamper"
	TypeHealed       = "log.healed" // written by this package alone
	TypePruned       = "log.pruned" // the same, by Prune
)

// Record is one line of the log. It is an allow-list: no field holds a value,
// a query string or a body, and Append bounds and escapes every string.
type Record struct {
	Time       time.Time `json:"time"` // UTC, nanoseconds
	Session    string    `json:"session"`
	Seq        uint64    `json:"seq"` // from 1, without gaps, over all sessions of the log
	Type       string    `json:"type"`
	Credential string    `json:"credential"` // its name
	Channel    string    `json:"channel"`
	Context    string    `json:"context"`
	Task       string    `json:"task"`
	PID        int       `json:"pid"`
	Exe        string    `json:"exe"`
	Host       string    `json:"host"`
	Method     string    `json:"method"`
	Path       string    `json:"path"`     // without query
	Decision   string    `json:"decision"` // a guard.Action: pass, warn, redact, block, kill
	Rule       string    `json:"rule"`
	Result     string    `json:"result"`
	DurationMS float64   `json:"duration_ms"`
	Wiped      bool      `json:"wiped"`

	Port        int    `json:"port,omitempty"`    // of Host
	Version     int    `json:"version,omitempty"` // of the credential
	Profile     string `json:"profile,omitempty"`
	Scope       string `json:"scope,omitempty"`
	Resource    string `json:"resource,omitempty"`
	Encoding    string `json:"encoding,omitempty"`
	Class       string `json:"class,omitempty"`
	Of          uint64 `json:"of,omitempty"` // seq of the record that this one completes
	Reason      string `json:"reason,omitempty"`
	Step        string `json:"step,omitempty"`
	Incident    string `json:"incident,omitempty"`
	Bytes       int64  `json:"bytes,omitempty"`
	Fingerprint string `json:"fingerprint,omitempty"` // keyed; never a plain hash of a value
	ExeSHA256   string `json:"exe_sha256,omitempty"`  // of the program that pid runs, in hex
	Ancestors   string `json:"ancestors,omitempty"`   // of pid in the session, nearest first: "sh[41] < node[40]"
	Through     uint64 `json:"through,omitempty"`     // of log.pruned: seq of the last record that was removed
}

const (
	maxName = 128      // bytes: names, identifiers, words
	maxText = 1024     // bytes: paths, reasons, tasks
	maxLine = 64 << 10 // bytes; bounded strings stay far below, also escaped
)

var errNoType = errors.New("audit: a record has no type")

// clean returns r with every string bounded and printable, and no query.
func clean(r Record) Record {
	r.Time = r.Time.UTC().Round(0)
	if y := r.Time.Year(); y < 1 || y > 9999 {
		r.Time = time.Time{} // RFC 3339 has no such year: the log's own time
	}
	for _, s := range []*string{
		&r.Session, &r.Type, &r.Credential, &r.Channel, &r.Context, &r.Method, &r.Decision, &r.Profile,
		&r.Scope, &r.Encoding, &r.Class, &r.Step, &r.Incident, &r.Fingerprint, &r.ExeSHA256,
	} {
		*s = plain(*s, maxName)
	}
	r.Path, r.Resource = noQuery(r.Path), noQuery(r.Resource)
	if i := strings.LastIndexByte(r.Host, '@'); i >= 0 {
		r.Host = r.Host[i+1:]
	}
	r.Host = plain(noQuery(r.Host), 2*maxName)
	for _, s := range []*string{&r.Task, &r.Exe, &r.Path, &r.Rule, &r.Result, &r.Resource, &r.Reason, &r.Ancestors} {
		*s = plain(*s, maxText)
	}
	if math.IsNaN(r.DurationMS) || math.IsInf(r.DurationMS, 0) || r.DurationMS < 0 {
		r.DurationMS = 0
	}
	return r
}

func noQuery(s string) string {
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		return s[:i]
	}
	return s
}

// plain returns s in at most max bytes, with every character that does not
// print (controls, bidirectional overrides, broken UTF-8) written as an escape,
// so that a terminal that shows the log cannot be driven by it.
func plain(s string, max int) string {
	ok := len(s) <= max
	for i := 0; ok && i < len(s); i++ {
		ok = s[i] >= 0x20 && s[i] < 0x7f
	}
	if ok {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		var out string
		switch {
		case r == utf8.RuneError && n == 1:
			out = fmt.Sprintf(`\x%02x`, s[i])
		case r == ' ' || unicode.IsPrint(r):
			out = s[i : i+n]
		case r < 0x100:
			out = fmt.Sprintf(`\x%02x`, r)
		default:
			out = fmt.Sprintf(`\u%04x`, r)
		}
		if b.Len()+len(out) > max-len("…") {
			b.WriteString("…")
			break
		}
		b.WriteString(out)
		i += n
	}
	return b.String()
}

// encode appends r to b as a line without its LF.
func encode(b []byte, r *Record) ([]byte, error) {
	out, err := appendRecord(b, r)
	if err != nil {
		return nil, err
	}
	if n := len(out) - len(b); n > maxLine {
		return nil, fmt.Errorf("audit: a record of %d bytes is longer than %d", n, maxLine)
	}
	return out, nil
}
