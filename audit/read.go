package audit

import (
	"bytes"
	"encoding/json"
	"io"
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
	end := int64(math.MaxInt64)
	if msg, err := os.ReadFile(filepath.Join(dir, checkpointFile)); err == nil {
		if text, _, ok := strings.Cut(string(msg), "\n\n"); ok {
			if c, err := parseText(text + "\n"); err == nil {
				end = c.bytes
			}
		}
	}
	file, err := openOrMissing(dir, logFile)
	if err != nil {
		return err
	}
	defer file.Close()
	needles := f.needles()
	line := int64(0)
	_, _, err = scanLines(io.LimitReader(file, end), func(b []byte) error {
		line++
		for _, n := range needles {
			if !bytes.Contains(b, n) {
				return nil
			}
		}
		var r Record
		if err := json.Unmarshal(b, &r); err != nil {
			return &TamperError{File: logFile, Line: line, Seq: uint64(line), What: "not a record"}
		}
		if !f.Match(r) {
			return nil
		}
		return fn(r)
	})
	return err
}
