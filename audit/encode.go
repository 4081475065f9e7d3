package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// appendRecord appends r as package encoding/json writes it without escaping for HTML,
// field by field: what a line is hashed over must stay the same, and is compared with
// that package's in a test.
func appendRecord(b []byte, r *Record) ([]byte, error) {
	if y := r.Time.Year(); y < 0 || y > 9999 {
		return nil, fmt.Errorf("audit: encode a record: its time is of the year %d", y)
	}
	b = append(b, `{"time":"`...)
	b = r.Time.AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	b = text(b, "session", r.Session)
	b = strconv.AppendUint(append(b, `,"seq":`...), r.Seq, 10)
	b = text(b, "type", r.Type)
	b = text(b, "credential", r.Credential)
	b = text(b, "channel", r.Channel)
	b = text(b, "context", r.Context)
	b = text(b, "task", r.Task)
	b = strconv.AppendInt(append(b, `,"pid":`...), int64(r.PID), 10)
	b = text(b, "exe", r.Exe)
	b = text(b, "host", r.Host)
	b = text(b, "method", r.Method)
	b = text(b, "path", r.Path)
	b = text(b, "decision", r.Decision)
	b = text(b, "rule", r.Rule)
	b = text(b, "result", r.Result)
	b, err := appendFloat(append(b, `,"duration_ms":`...), r.DurationMS)
	if err != nil {
		return nil, err
	}
	b = strconv.AppendBool(append(b, `,"wiped":`...), r.Wiped)

	if r.Port != 0 {
		b = strconv.AppendInt(append(b, `,"port":`...), int64(r.Port), 10)
	}
	if r.Version != 0 {
		b = strconv.AppendInt(append(b, `,"version":`...), int64(r.Version), 10)
	}
	b = textIf(b, "profile", r.Profile)
	b = textIf(b, "scope", r.Scope)
	b = textIf(b, "resource", r.Resource)
	b = textIf(b, "encoding", r.Encoding)
	b = textIf(b, "class", r.Class)
	if r.Of != 0 {
		b = strconv.AppendUint(append(b, `,"of":`...), r.Of, 10)
	}
	b = textIf(b, "reason", r.Reason)
	b = textIf(b, "step", r.Step)
	b = textIf(b, "incident", r.Incident)
	if r.Bytes != 0 {
		b = strconv.AppendInt(append(b, `,"bytes":`...), r.Bytes, 10)
	}
	b = textIf(b, "fingerprint", r.Fingerprint)
	b = textIf(b, "exe_sha256", r.ExeSHA256)
	b = textIf(b, "ancestors", r.Ancestors)
	if r.Through != 0 {
		b = strconv.AppendUint(append(b, `,"through":`...), r.Through, 10)
	}
	return append(b, '}'), nil
}

func text(b []byte, name, s string) []byte {
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":`...)
	return appendString(b, s)
}

func textIf(b []byte, name, s string) []byte {
	if s == "" {
		return b
	}
	return text(b, name, s)
}

const hexDigits = "0123456789abcdef"

func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= 0x20 && c != '"' && c != '\\' {
				i++
				continue
			}
			b = append(b, s[from:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\b':
				b = append(b, '\\', 'b')
			case '\f':
				b = append(b, '\\', 'f')
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			from = i
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b = append(append(b, s[from:i]...), `\ufffd`...)
			from = i + n
		case r == '\u2028' || r == '\u2029':
			b = append(append(b, s[from:i]...), '\\', 'u', '2', '0', '2', hexDigits[r&15])
			from = i + n
		}
		i += n
	}
	return append(append(b, s[from:]...), '"')
}

// appendFloat leaves anything but plain numbers to package encoding/json.
func appendFloat(b []byte, f float64) ([]byte, error) {
	if f == 0 || f >= 1e-6 && f < 1e21 {
		return strconv.AppendFloat(b, f, 'f', -1, 64), nil
	}
	out, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("audit: encode a record: %w", err)
	}
	return append(b, bytes.TrimSpace(out)...), nil
}
