package export

import (
	"fmt"
	"strings"
	"time"

	"guard/audit"
)

// CEF returns r as an event of ArcSight's Common Event Format 0, one line. CEF has
// places for who, where, what and how it ended; what else a record has is in the
// log only, which externalId leads to.
func CEF(s Source, r audit.Record) string {
	cef := [...]int{informational: 1, low: 3, medium: 6, high: 8, critical: 10}[severityOf(r)]
	var b strings.Builder
	fmt.Fprintf(&b, "CEF:0|guard|guard|%s|%s|%s|%d|", cefHeader(s.Version), cefHeader(r.Type), cefHeader(title(r)), cef)
	fields := []struct{ key, value string }{
		{"rt", fmt.Sprint(r.Time.UnixMilli())}, {"externalId", fmt.Sprint(r.Seq)}, {"dvchost", s.Host},
		{"act", r.Decision}, {"outcome", r.Result}, {"reason", r.Reason},
		{"dhost", r.Host}, {"requestMethod", r.Method}, {"request", r.Path},
		{"sproc", r.Exe}, {"spid", number(int64(r.PID))}, {"fileHash", r.ExeSHA256},
		{"app", r.Channel},
		{"cs1Label", label("credential", r.Credential)}, {"cs1", r.Credential},
		{"cs2Label", label("session", r.Session)}, {"cs2", r.Session},
		{"cs3Label", label("context", r.Context)}, {"cs3", r.Context},
		{"cs4Label", label("rule", r.Rule)}, {"cs4", r.Rule},
		{"cs5Label", label("task", r.Task)}, {"cs5", r.Task},
		{"cs6Label", label("fingerprint", r.Fingerprint)}, {"cs6", r.Fingerprint},
		{"cn1Label", label("version", number(int64(r.Version)))}, {"cn1", number(int64(r.Version))},
		{"cfp1Label", label("duration_ms", float(r.DurationMS))}, {"cfp1", float(r.DurationMS)},
	}
	sep := ""
	for _, f := range fields {
		if f.value != "" {
			b.WriteString(sep + f.key + "=" + cefValue(f.value))
			sep = " "
		}
	}
	return b.String()
}

func label(name, value string) string {
	if value == "" {
		return ""
	}
	return name
}

func number(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func float(f float64) string {
	if f == 0 {
		return ""
	}
	return fmt.Sprint(f)
}

func cefHeader(s string) string {
	return strings.NewReplacer(`\`, `\\`, `|`, `\|`, "\n", " ", "\r", " ").Replace(s)
}

func cefValue(s string) string {
	return strings.NewReplacer(`\`, `\\`, `=`, `\=`, "\n", `\n`, "\r", `\r`).Replace(s)
}

// syslogID is guard's structured-data id: a private one, under the number that RFC
// 5612 gives to examples, since guard has none of its own.
const syslogID = "guard@32473"

// Syslog returns r as a message of RFC 5424: facility authpriv, the record's words
// as the message and its fields as structured data. What else a record has is in
// the log only, which seq leads to.
func Syslog(s Source, r audit.Record) string {
	level := [...]int{informational: 6, low: 5, medium: 4, high: 3, critical: 2}[severityOf(r)]
	var b strings.Builder
	fmt.Fprintf(&b, "<%d>1 %s %s guard %s %s [%s", 10*8+level, r.Time.UTC().Format("2006-01-02T15:04:05.000000Z07:00"),
		header(s.Host, 255), header(number(int64(r.PID)), 128), header(r.Type, 32), syslogID)
	for _, f := range attributes(r) {
		fmt.Fprintf(&b, ` %s="%s"`, f.key, sdValue(f.text()))
	}
	b.WriteString("] " + title(r))
	return b.String()
}

// header is a header field of RFC 5424: printable ASCII without blanks.
func header(s string, max int) string {
	s = strings.Map(func(c rune) rune {
		if c <= ' ' || c >= 0x7f {
			return '_'
		}
		return c
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), max)]
}

func sdValue(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`).Replace(s)
}

// attribute is one field of a record that has a value.
type attribute struct {
	key   string
	value any // string, int64, float64 or bool
}

func (a attribute) text() string { return fmt.Sprint(a.value) }

// attributes are the fields of r that say something, in one order, under the names
// that the log has for them.
func attributes(r audit.Record) (out []attribute) {
	add := func(key string, value any) {
		switch v := value.(type) {
		case string:
			if v == "" {
				return
			}
		case int64:
			if v == 0 {
				return
			}
		case float64:
			if v == 0 {
				return
			}
		}
		out = append(out, attribute{key, value})
	}
	add("seq", int64(r.Seq))
	add("type", r.Type)
	add("session", r.Session)
	add("credential", r.Credential)
	add("version", int64(r.Version))
	add("context", r.Context)
	add("profile", r.Profile)
	add("task", r.Task)
	add("channel", r.Channel)
	add("host", r.Host)
	add("port", int64(r.Port))
	add("method", r.Method)
	add("path", r.Path)
	add("scope", r.Scope)
	add("resource", r.Resource)
	add("decision", r.Decision)
	add("rule", r.Rule)
	add("reason", r.Reason)
	add("result", r.Result)
	add("duration_ms", r.DurationMS)
	if r.Type == audit.TypeResult {
		add("wiped", r.Wiped)
	}
	add("of", int64(r.Of))
	add("encoding", r.Encoding)
	add("class", r.Class)
	add("step", r.Step)
	add("incident", r.Incident)
	add("bytes", r.Bytes)
	add("fingerprint", r.Fingerprint)
	add("pid", int64(r.PID))
	add("exe", r.Exe)
	add("exe_sha256", r.ExeSHA256)
	add("ancestors", r.Ancestors)
	add("through", int64(r.Through))
	return out
}

// millis is OCSF's time.
func millis(t time.Time) int64 { return t.UnixMilli() }
