package audit

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Filter selects records; the zero Filter selects all.
type Filter struct {
	Credential string
	Session    string
	Context    string // "project" also selects "project/environment"
	Type       string
	Decision   string
	Since      time.Time // not before
	Until      time.Time // before
}

// Match says whether f selects r.
func (f Filter) Match(r Record) bool {
	return (f.Credential == "" || r.Credential == f.Credential) &&
		(f.Session == "" || r.Session == f.Session) &&
		(f.Context == "" || r.Context == f.Context || strings.HasPrefix(r.Context, f.Context+"/")) &&
		(f.Type == "" || r.Type == f.Type) &&
		(f.Decision == "" || r.Decision == f.Decision) &&
		(f.Since.IsZero() || !r.Time.Before(f.Since)) &&
		(f.Until.IsZero() || r.Time.Before(f.Until))
}

// needles returns what every line that f selects contains: looking for it is
// much faster than decoding JSON.
func (f Filter) needles() (out [][]byte) {
	for _, x := range []struct{ key, value string }{
		{"credential", f.Credential}, {"session", f.Session}, {"type", f.Type}, {"decision", f.Decision},
	} {
		if x.value != "" {
			out = append(out, append([]byte(`"`+x.key+`":`), quote(x.value)...))
		}
	}
	if f.Context != "" {
		out = append(out, append([]byte(`"context":`), bytes.TrimSuffix(quote(f.Context), []byte(`"`))...))
	}
	return out
}

func quote(s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.Encode(s)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// Read calls fn for every record that f selects, oldest first, up to what the
// checkpoint covers, until fn returns an error, which it returns. It does not
// verify: that is Verify's.
func Read(dir string, f Filter, fn func(Record) error) error {
	needles := f.needles()
	return readLines(dir, 1, func(seq uint64, b []byte) error {
		for _, n := range needles {
			if !bytes.Contains(b, n) {
				return nil
			}
		}
		var r Record
		if err := json.Unmarshal(b, &r); err != nil {
			return &TamperError{File: logFile, Line: int64(seq), Seq: seq, What: "not a record"}
		}
		if !f.Match(r) {
			return nil
		}
		return fn(r)
	})
}

// covered is how many bytes of log.jsonl the checkpoint covers; all of them where
// it cannot be read, which Verify complains of.
func covered(dir string) int64 {
	if msg, err := os.ReadFile(filepath.Join(dir, checkpointFile)); err == nil {
		if text, _, ok := strings.Cut(string(msg), "\n\n"); ok {
			if c, err := parseText(text + "\n"); err == nil {
				return c.bytes
			}
		}
	}
	return math.MaxInt64
}
