package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// defaultSegment is the size in bytes from which log.jsonl is closed and a new one begun.
const defaultSegment = 64 << 20

// segment is one file of records: log.jsonl, or one that was closed.
type segment struct {
	name  string
	first uint64 // seq of its first record
	last  uint64 // of its last; 0: log.jsonl, where only the checkpoint says
	at    int64  // bytes of the records before it, from the first there ever was
	size  int64
}

func (s segment) end() int64   { return s.at + s.size }
func (s segment) active() bool { return s.last == 0 }

var segmentNames = regexp.MustCompile(`^log-(\d{12})-(\d{12})-(\d{15})\.jsonl$`)

// segmentName is how log.jsonl is called once it is closed.
func segmentName(first, last uint64, at int64) string {
	return fmt.Sprintf("log-%012d-%012d-%015d.jsonl", first, last, at)
}

func parseSegmentName(name string) (s segment, ok bool) {
	m := segmentNames.FindStringSubmatch(name)
	if m == nil {
		return s, false
	}
	s.name = name
	s.first, _ = strconv.ParseUint(m[1], 10, 64)
	s.last, _ = strconv.ParseUint(m[2], 10, 64)
	s.at, _ = strconv.ParseInt(m[3], 10, 64)
	return s, s.first > 0 && s.last >= s.first
}

// segments lists the files of records in dir, oldest first, log.jsonl last. Where
// log.jsonl is not there after one was closed, it is listed as empty.
func segments(dir string) ([]segment, error) {
	for {
		out, err := listSegments(dir)
		if err != nil || len(out) == 0 {
			return out, err
		}
		// The file that was log.jsonl may have been closed between two looks.
		again, err := listSegments(dir)
		if err != nil {
			return nil, err
		}
		if len(again) == len(out) && again[0].name == out[0].name {
			return again, nil
		}
	}
}

func listSegments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("audit: list the log's folder: %w", err)
	}
	var out []segment
	for _, e := range entries { // sorted by name, and so by first
		s, ok := parseSegmentName(e.Name())
		if !ok {
			continue
		}
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // pruned meanwhile
		} else if err != nil {
			return nil, fmt.Errorf("audit: look at %s: %w", e.Name(), err)
		}
		s.size = fi.Size()
		if n := len(out); n > 0 && (out[n-1].end() != s.at || out[n-1].last+1 != s.first) {
			return nil, &TamperError{File: s.name, Seq: s.first, Line: 1, What: "the file before it does not end where this one begins: one is missing, or was changed"}
		}
		out = append(out, s)
	}
	active := segment{name: logFile, first: 1}
	if n := len(out); n > 0 {
		active.first, active.at = out[n-1].last+1, out[n-1].end()
	}
	fi, err := os.Stat(filepath.Join(dir, logFile))
	switch {
	case err == nil:
		active.size = fi.Size()
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("audit: look at %s: %w", logFile, err)
	case len(out) == 0:
		return nil, &TamperError{File: logFile, What: "it is missing"}
	}
	return append(out, active), nil
}

// tail is log.jsonl's segment.
func tail(segs []segment) segment { return segs[len(segs)-1] }

// segmentReader reads files of records one after the other, as one stream.
type segmentReader struct {
	dir  string
	segs []segment
	left int64
	f    *os.File
}

// openSegments opens the records of segs up to byte end of all there ever were.
func openSegments(dir string, segs []segment, end int64) *segmentReader {
	r := &segmentReader{dir: dir, segs: slices.Clone(segs)}
	if len(segs) > 0 {
		r.left = end - segs[0].at
	}
	return r
}

// open opens the first file, so that it is read to its end even if it is pruned.
func (r *segmentReader) open() (err error) {
	if len(r.segs) > 0 && r.f == nil && r.segs[0].size > 0 {
		r.f, err = openOrMissing(r.dir, r.segs[0].name)
	}
	return err
}

func (r *segmentReader) Read(p []byte) (int, error) {
	for r.left > 0 && len(r.segs) > 0 {
		if r.f == nil {
			if r.segs[0].size == 0 {
				r.segs = r.segs[1:]
				continue
			}
			f, err := openOrMissing(r.dir, r.segs[0].name)
			if err != nil {
				return 0, err
			}
			r.f = f
		}
		n, err := r.f.Read(p[:min(int64(len(p)), r.left)])
		r.left -= int64(n)
		if errors.Is(err, io.EOF) {
			r.f.Close()
			r.f, r.segs, err = nil, r.segs[1:], nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.EOF
}

func (r *segmentReader) Close() error {
	if r.f == nil {
		return nil
	}
	return r.f.Close()
}

// locate turns e's line, counted from the first record there ever was, into one
// of the file that the record is in.
func locate(err error, segs []segment) error {
	var e *TamperError
	if !errors.As(err, &e) || e.File != logFile || e.Line == 0 {
		return err
	}
	for _, s := range segs {
		if e.Seq >= s.first && (s.active() || e.Seq <= s.last) {
			e.File, e.Line = s.name, int64(e.Seq-s.first)+1
			break
		}
	}
	return err
}
