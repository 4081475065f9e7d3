package audit

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// Filter selects records; the zero Filter selects all.
type Filter struct {
	Credential  string
	Session     string
	Context     string // "project" also selects "project/environment", and either one what is the daemon's: "project/environment@daemon"
	Profile     string // "daemon": what is of a context that ends in @daemon; "interactive": of another one
	Type        string
	Decision    string
	Channel     string
	Fingerprint string
	Since       time.Time // not before
	Until       time.Time // before
	Last        int       // of those, the newest so many; 0: all
	From        uint64    // seq: not before
}

// Match says whether f selects r, Last aside.
func (f Filter) Match(r Record) bool {
	return (f.Credential == "" || r.Credential == f.Credential) &&
		(f.Session == "" || r.Session == f.Session) &&
		(f.Context == "" || inContext(r.Context, f.Context)) &&
		(f.Profile == "" || r.Context != "" && strings.HasSuffix(r.Context, daemon) == (f.Profile == "daemon")) &&
		(f.Type == "" || r.Type == f.Type) &&
		(f.Decision == "" || r.Decision == f.Decision) &&
		(f.Channel == "" || r.Channel == f.Channel) &&
		(f.Fingerprint == "" || r.Fingerprint == f.Fingerprint) &&
		(f.Since.IsZero() || !r.Time.Before(f.Since)) &&
		(f.Until.IsZero() || r.Time.Before(f.Until)) &&
		r.Seq >= f.From
}

// daemon ends the contexts of what daemons use.
const daemon = "@daemon"

// inContext says whether a record's context is one that want selects.
func inContext(have, want string) bool {
	rest, ok := strings.CutPrefix(have, want)
	return ok && (rest == "" || rest == daemon || rest[0] == '/' && !strings.HasSuffix(want, daemon))
}

// needles returns what every line that f selects contains: looking for it is
// much faster than decoding JSON.
func (f Filter) needles() (out [][]byte) {
	for _, x := range []struct{ key, value string }{
		{"credential", f.Credential}, {"session", f.Session}, {"type", f.Type}, {"decision", f.Decision},
		{"channel", f.Channel}, {"fingerprint", f.Fingerprint},
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
// verify: that is Verify's. Files that were closed are looked up in their
// indexes, where those are there and signed by the key beside the log.
func Read(dir string, f Filter, fn func(Record) error) error {
	v, err := openView(dir)
	if err != nil {
		return err
	}
	return v.read(f, fn)
}

// view is a log as it was at one moment, for reading.
type view struct {
	dir      string
	segs     []segment
	end      int64 // bytes that the checkpoint covers
	verifier note.Verifier
}

func openView(dir string) (view, error) {
	v := view{dir: dir, end: covered(dir)} // before the files: those only grow
	var err error
	if v.segs, err = segments(dir); err != nil {
		return v, err
	}
	if b, err := os.ReadFile(filepath.Join(dir, keyFile)); err == nil {
		v.verifier, _ = note.NewVerifier(strings.TrimSpace(string(b)))
	}
	return v, nil
}

func (v view) read(f Filter, fn func(Record) error) error {
	if f.Last <= 0 {
		for _, s := range v.segs {
			if err := v.readSegment(s, f, fn); err != nil {
				return err
			}
		}
		return nil
	}
	// From the newest file back, until there are enough.
	var newest [][]Record
	for i, left := len(v.segs)-1, f.Last; i >= 0 && left > 0; i-- {
		var here []Record
		if err := v.readSegment(v.segs[i], f, func(r Record) error {
			here = append(here, r)
			if len(here) >= 2*left+1024 {
				here = slices.Delete(here, 0, len(here)-left)
			}
			return nil
		}); err != nil {
			return err
		}
		here = here[max(0, len(here)-left):]
		left -= len(here)
		newest = append(newest, here)
	}
	for _, recs := range slices.Backward(newest) {
		for _, r := range recs {
			if err := fn(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v view) readSegment(s segment, f Filter, fn func(Record) error) error {
	if !s.active() && s.last < f.From {
		return nil
	}
	needles := f.needles()
	one := func(seq uint64, b []byte) error {
		for _, n := range needles {
			if !bytes.Contains(b, n) {
				return nil
			}
		}
		var r Record
		if err := json.Unmarshal(b, &r); err != nil {
			return &TamperError{File: s.name, Line: int64(seq-s.first) + 1, Seq: seq, What: "not a record"}
		}
		if !f.Match(r) {
			return nil
		}
		return fn(r)
	}
	if !s.active() {
		done, err := v.readIndexed(s, f, one)
		if done || err != nil && !errors.Is(err, errIndex) {
			return err
		}
	}
	r := openSegments(v.dir, []segment{s}, min(v.end, s.end()))
	defer r.Close()
	since := []byte(f.Since.UTC().Format(timePrefix))
	var newest [][]byte // of f.Last
	seq := s.first - 1
	var own error
	_, _, err := scanLines(r, func(b []byte) error {
		seq++
		if seq < f.From || !f.Since.IsZero() && earlier(b, since) {
			return nil
		}
		if f.Last == 0 {
			own = one(seq, b)
			return own
		}
		for _, n := range needles {
			if !bytes.Contains(b, n) {
				return nil
			}
		}
		if len(newest) >= 2*f.Last+1024 && f.exact() {
			newest = slices.Delete(newest, 0, len(newest)-f.Last)
		}
		newest = append(newest, binary.BigEndian.AppendUint64(bytes.Clone(b), seq))
		return nil
	})
	if own != nil {
		return own
	}
	if err != nil {
		return locate(shift(err, s.first), []segment{s})
	}
	if f.exact() {
		newest = newest[max(0, len(newest)-f.Last):]
	}
	for _, b := range newest {
		n := len(b) - 8
		if err := one(binary.BigEndian.Uint64(b[n:]), b[:n]); err != nil {
			return err
		}
	}
	return nil
}

// exact says that every line with f's needles matches: nothing else is asked for
// that only the whole record tells. Agents choose no field that could hold the
// needle of another: a quote in a string is escaped.
func (f Filter) exact() bool {
	return f.Context == "" && f.Profile == "" && f.Since.IsZero() && f.Until.IsZero()
}

// timePrefix is what of a record's time orders as text does, whatever its fraction.
const timePrefix = `2006-01-02T15:04:05`

// earlier says that the record of line b is of a second before the one in since.
func earlier(b, since []byte) bool {
	const head = `{"time":"`
	return len(b) > len(head)+len(since) && string(b[:len(head)]) == head && bytes.Compare(b[len(head):len(head)+len(since)], since) < 0
}

// readIndexed reads s by its index, if there is a good one.
func (v view) readIndexed(s segment, f Filter, one func(uint64, []byte) error) (done bool, err error) {
	x, ok := readIndex(v.dir, s, v.verifier)
	if !ok {
		return false, nil
	}
	defer x.close()
	if x.outside(f) {
		return true, nil
	}
	places, all, err := x.selected(f)
	if err != nil {
		return false, err
	}
	timeless := f.Since.IsZero() && f.Until.IsZero() && f.Profile == ""
	switch {
	case all && (f.Last == 0 || !timeless):
		return false, nil // read it through
	case all:
		for i := x.records - min(uint64(f.Last), x.records); i < x.records; i++ {
			places = append(places, uint32(i))
		}
	case f.Last > 0 && timeless && f.From <= s.first && len(places) > f.Last:
		places = places[len(places)-f.Last:] // the index is exact
	}
	if err := x.locateRecords(); err != nil {
		return false, err
	}
	return true, x.linesAt(v.dir, s, places, one)
}

// completions calls fn for the records that complete any of seqs, which are
// sorted and of file at or an earlier one, newest file last.
func (v view) completions(seqs []uint64, fn func(Record)) error {
	if len(seqs) == 0 {
		return nil
	}
	for _, s := range v.segs {
		if !s.active() && s.last < seqs[0] {
			continue
		}
		one := func(_ uint64, b []byte) error {
			if !bytes.Contains(b, []byte(`"of":`)) {
				return nil
			}
			var r Record
			if json.Unmarshal(b, &r) == nil && r.Of != 0 {
				if _, ok := slices.BinarySearch(seqs, r.Of); ok {
					fn(r)
				}
			}
			return nil
		}
		if !s.active() {
			done, err := v.completionsIndexed(s, seqs, one)
			if err != nil {
				return err
			}
			if done {
				continue
			}
		}
		r := openSegments(v.dir, []segment{s}, min(v.end, s.end()))
		_, _, err := scanLines(r, func(b []byte) error { return one(0, b) })
		r.Close()
		if err != nil {
			return locate(shift(err, s.first), []segment{s})
		}
	}
	return nil
}

func (v view) completionsIndexed(s segment, seqs []uint64, one func(uint64, []byte) error) (done bool, err error) {
	x, ok := readIndex(v.dir, s, v.verifier)
	if !ok {
		return false, nil
	}
	defer x.close()
	places, err := x.completing(seqs)
	if err != nil || x.locateRecords() != nil {
		return false, nil
	}
	return true, x.linesAt(v.dir, s, places, one)
}

// covered is how many bytes of records the checkpoint covers; all of them where
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
