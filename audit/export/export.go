// Package export writes records of the audit log in the forms that other systems
// read: JSON lines, OCSF 1.6 events, CEF, OpenTelemetry logs (OTLP/JSON) and syslog
// (RFC 5424). What a form has no place for is kept: nothing of a record is lost
// but in CEF and syslog, which say so. A record holds no secret, and so no form does.
package export

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"guard/audit"
)

// Formats are the names that New knows.
func Formats() []string { return []string{"jsonl", "ocsf", "cef", "otlp", "syslog"} }

// Source is where records come from: it is part of what is written.
type Source struct {
	Host    string // name of this machine
	Version string // guard's
	Key     string // verifier key of the log; "" if unknown
}

// Writer writes records in one form.
type Writer struct {
	w      io.Writer
	source Source
	encode func(Source, audit.Record) ([]byte, error)
}

// New returns a Writer of the named form, one of Formats, a line a record.
func New(w io.Writer, format string, s Source) (*Writer, error) {
	f := map[string]func(Source, audit.Record) ([]byte, error){
		"jsonl": func(_ Source, r audit.Record) ([]byte, error) { return marshal(r) },
		"ocsf":  func(s Source, r audit.Record) ([]byte, error) { return marshal(OCSF(s, r)) },
		"otlp":  func(s Source, r audit.Record) ([]byte, error) { return marshal(Logs(s, []audit.Record{r})) },
		"cef":   func(s Source, r audit.Record) ([]byte, error) { return []byte(CEF(s, r)), nil },
		"syslog": func(s Source, r audit.Record) ([]byte, error) {
			return []byte(Syslog(s, r)), nil
		},
	}[format]
	if f == nil {
		return nil, fmt.Errorf("--format %q: want one of %s", format, strings.Join(Formats(), ", "))
	}
	return &Writer{w: w, source: s, encode: f}, nil
}

// Write writes r and a line feed.
func (w *Writer) Write(r audit.Record) error {
	b, err := w.encode(w.source, r)
	if err != nil {
		return fmt.Errorf("export record %d: %w", r.Seq, err)
	}
	_, err = w.w.Write(append(b, '\n'))
	return err
}

func marshal(v any) ([]byte, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return []byte(strings.TrimSuffix(b.String(), "\n")), nil
}

// severity is how much a record wants to be looked at.
type severity int

const (
	informational severity = iota
	low
	medium
	high
	critical
)

func severityOf(r audit.Record) severity {
	switch {
	case r.Type == audit.TypeLeak && r.Class == "decoy":
		return critical
	case r.Type == audit.TypeLeak && r.Result == "escaped":
		return critical
	case r.Type == audit.TypeLeak && (r.Class == "placeholder" || r.Class == "retired"):
		return low
	case r.Type == audit.TypeLeak, r.Type == audit.TypeTamper:
		return high
	case stopped(r.Decision):
		return medium
	case r.Type == audit.TypeHealed, r.Type == audit.TypePruned, r.Type == "secret.reveal":
		return low
	}
	return informational
}

func stopped(decision string) bool {
	return slices.Contains([]string{"redact", "block", "kill"}, decision)
}

// title says in a few words what a record is about.
func title(r audit.Record) string {
	s := strings.ReplaceAll(r.Type, ".", " ")
	if r.Credential != "" {
		s += " " + r.Credential
	}
	if to := r.Host + r.Path; to != "" {
		s += " " + strings.TrimSpace(r.Method+" "+to)
	}
	for _, x := range []string{r.Decision, r.Result} {
		if x != "" {
			s += ", " + x
		}
	}
	return s
}
