package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
)

var prunedNeedle = []byte(`"type":"` + TypePruned + `"`)

// Pruned says what Prune removed.
type Pruned struct {
	Records uint64 `json:"records"`
	Through uint64 `json:"through"` // seq of the last record that was removed; 0: none was
	Bytes   int64  `json:"bytes"`
}

// Prune removes closed files whose every record is older than before. What was
// removed is recorded first, durably; the hashes stay, so that Verify still
// checks the whole tree, and finds a file that somebody else removed.
func (l *Log) Prune(before time.Time) (p Pruned, err error) {
	l.commit.Lock()
	defer l.commit.Unlock()
	err = l.locked(func() error {
		notes, err := l.catchUp()
		if err != nil {
			return err
		}
		segs, err := segments(l.dir)
		if err != nil {
			return err
		}
		var gone []segment
		for _, s := range segs[:len(segs)-1] {
			newest, err := l.newest(s)
			if err != nil {
				return err
			}
			if !newest.Before(before) {
				break
			}
			gone = append(gone, s)
			p.Records += s.last - s.first + 1
			p.Through, p.Bytes = s.last, p.Bytes+s.size
		}
		if p.Through == 0 {
			if len(notes) > 0 {
				_, _, err = l.write(notes)
			}
			return err
		}
		if _, _, err := l.write(append(notes, Record{Type: TypePruned, Result: "removed", Through: p.Through, Bytes: p.Bytes,
			Reason: fmt.Sprintf("records up to %d, from before %s", p.Through, before.UTC().Format(time.RFC3339))})); err != nil {
			return err
		}
		var errs []error
		for _, s := range gone {
			errs = append(errs, os.Remove(l.path(s.name)))
			if err := os.Remove(l.path(indexName(s))); !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
		}
		return errors.Join(append(errs, syncDir(l.dir))...)
	})
	if err != nil {
		return Pruned{}, fmt.Errorf("audit: prune the log: %w", err)
	}
	return p, nil
}

// newest returns the time of the latest record of a closed file.
func (l *Log) newest(s segment) (t time.Time, err error) {
	r := openSegments(l.dir, []segment{s}, s.end())
	defer r.Close()
	_, _, err = scanLines(r, func(line []byte) error {
		var at struct {
			Time time.Time `json:"time"`
		}
		if err := json.Unmarshal(bytes.TrimSpace(line), &at); err != nil {
			return &TamperError{File: s.name, What: "not a record"}
		}
		if at.Time.After(t) {
			t = at.Time
		}
		return nil
	})
	return t, err
}
