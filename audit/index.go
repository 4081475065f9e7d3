package audit

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// An index says where in a closed file the records with a certain credential,
// session, context, type, decision, channel or fingerprint are, where each record
// begins, and which record completes which. It is derived, and signed by the
// log's key: one that is not is not used, so that it cannot hide a record.
//
//	GAUDIX01, then, all numbers as uvarints:
//	first, last, bytes of the file, earliest and latest time (ns since 1970, as uint64)
//	for each record: the length of its line with the LF
//	number of completions; for each, by the completed seq: difference to the one before, place of the completing record
//	for each of the fields: number of values; for each, in order: length, value, number of
//	places, bytes of places, places (from 0, as differences to the one before)
//	signature, 64 bytes: Ed25519 over all before it
const indexMagic = "GAUDIX01"

const signatureBytes = 64

func indexName(s segment) string { return s.name + ".idx" }

// indexFields are the fields that an index has places for.
var indexFields = [...]func(*indexed) string{
	func(r *indexed) string { return r.Credential },
	func(r *indexed) string { return r.Session },
	func(r *indexed) string { return r.Context },
	func(r *indexed) string { return r.Type },
	func(r *indexed) string { return r.Decision },
	func(r *indexed) string { return r.Channel },
	func(r *indexed) string { return r.Fingerprint },
}

// values returns what f asks of each of indexFields.
func (f Filter) values() [len(indexFields)]string {
	return [...]string{f.Credential, f.Session, f.Context, f.Type, f.Decision, f.Channel, f.Fingerprint}
}

const contextField = 2

type indexed struct {
	Time        time.Time `json:"time"`
	Session     string    `json:"session"`
	Type        string    `json:"type"`
	Credential  string    `json:"credential"`
	Channel     string    `json:"channel"`
	Context     string    `json:"context"`
	Decision    string    `json:"decision"`
	Of          uint64    `json:"of"`
	Fingerprint string    `json:"fingerprint"`
}

// buildIndex reads a closed file and returns its index, unsigned.
func buildIndex(dir string, s segment) ([]byte, error) {
	var (
		lengths []uint64
		places  [len(indexFields)]map[string][]uint64
		of      [][2]uint64
		min     = int64(1<<63 - 1)
		max     = int64(-1 << 63)
	)
	for i := range places {
		places[i] = map[string][]uint64{}
	}
	r := openSegments(dir, []segment{s}, s.end())
	defer r.Close()
	n, rest, err := scanLines(r, func(line []byte) error {
		var rec indexed
		if err := json.Unmarshal(line, &rec); err != nil {
			return &TamperError{File: s.name, Line: int64(len(lengths)) + 1, Seq: s.first + uint64(len(lengths)), What: "not a record"}
		}
		i := uint64(len(lengths))
		lengths = append(lengths, uint64(len(line))+1)
		for k, get := range indexFields {
			if v := get(&rec); v != "" {
				places[k][v] = append(places[k][v], i)
			}
		}
		if rec.Of != 0 {
			of = append(of, [2]uint64{rec.Of, i})
		}
		t := rec.Time.UnixNano()
		if t < min {
			min = t
		}
		if t > max {
			max = t
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if rest != 0 || uint64(n) != s.last-s.first+1 {
		return nil, &TamperError{File: s.name, What: "it does not have the records that its name says"}
	}
	b := []byte(indexMagic)
	for _, x := range []uint64{s.first, s.last, uint64(s.size), uint64(min), uint64(max)} {
		b = binary.AppendUvarint(b, x)
	}
	for _, x := range lengths {
		b = binary.AppendUvarint(b, x)
	}
	slices.SortStableFunc(of, func(x, y [2]uint64) int { return int(int64(x[0] - y[0])) })
	b = binary.AppendUvarint(b, uint64(len(of)))
	last := uint64(0)
	for _, x := range of {
		b = binary.AppendUvarint(b, x[0]-last)
		b = binary.AppendUvarint(b, x[1])
		last = x[0]
	}
	var list []byte
	for _, m := range places {
		b = binary.AppendUvarint(b, uint64(len(m)))
		for _, v := range sortedKeys(m) {
			list = list[:0]
			last := uint64(0)
			for _, x := range m[v] {
				list = binary.AppendUvarint(list, x-last)
				last = x
			}
			b = binary.AppendUvarint(b, uint64(len(v)))
			b = append(b, v...)
			b = binary.AppendUvarint(b, uint64(len(m[v])))
			b = binary.AppendUvarint(b, uint64(len(list)))
			b = append(b, list...)
		}
	}
	return b, nil
}

func sortedKeys(m map[string][]uint64) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Index makes the indexes of closed files that have none, which Read and Show
// use. It takes about half a second for a file of 64 MiB, and holds up no Append.
func (l *Log) Index() error {
	segs, err := segments(l.dir)
	if err != nil {
		return err
	}
	for _, s := range segs[:len(segs)-1] {
		if _, err := os.Stat(l.path(indexName(s))); err == nil {
			continue
		}
		b, err := buildIndex(l.dir, s)
		if errors.Is(err, os.ErrNotExist) {
			continue // pruned meanwhile
		} else if err != nil {
			return err
		}
		sig, err := l.key.sign(b)
		if err != nil {
			return fmt.Errorf("audit: sign an index: %w", err)
		}
		if err := replace(l.path(indexName(s)), append(b, sig...), l.path(indexName(s)+".new")); err != nil {
			return err
		}
	}
	return nil
}

// index is the index of one file, read.
type index struct {
	first    uint64
	min, max int64
	offsets  []uint32 // of each record in its file, and the end
	of       []byte
	ofCount  uint64
	fields   []byte // as in the file
}

// readIndex reads the index of s, if there is one that v's key signed.
func readIndex(dir string, s segment, v note.Verifier) (x index, ok bool) {
	b, err := os.ReadFile(filepath.Join(dir, indexName(s)))
	if err != nil || v == nil || len(b) < len(indexMagic)+signatureBytes || string(b[:len(indexMagic)]) != indexMagic {
		return x, false
	}
	body, sig := b[:len(b)-signatureBytes], b[len(b)-signatureBytes:]
	if !v.Verify(body, sig) {
		return x, false
	}
	d := decoder{b: body[len(indexMagic):]}
	first, last, size := d.number(), d.number(), d.number()
	x.min, x.max, x.first = int64(d.number()), int64(d.number()), first
	if first != s.first || last != s.last || size != uint64(s.size) || last-first >= size || d.bad {
		return x, false
	}
	x.offsets = make([]uint32, 0, last-first+2)
	at := uint64(0)
	for range last - first + 1 {
		x.offsets = append(x.offsets, uint32(at))
		at += d.number()
	}
	x.offsets = append(x.offsets, uint32(at))
	x.ofCount = d.number()
	x.of = d.b
	for range x.ofCount {
		d.number()
		d.number()
	}
	x.of = x.of[:len(x.of)-len(d.b)]
	x.fields = d.b
	return x, !d.bad && at == size
}

type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) number() uint64 {
	x, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return x
}

func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

// select returns the places of the records that may match f, in order; all is
// true where f asks for nothing that the index knows.
func (x index) selected(f Filter) (places []uint32, all bool) {
	if !f.Since.IsZero() && x.max < f.Since.UnixNano() || !f.Until.IsZero() && x.min >= f.Until.UnixNano() {
		return nil, false
	}
	all = true
	d := decoder{b: x.fields}
	for k, want := range f.values() {
		var found []uint32
		for range d.number() {
			v := d.bytes(d.number())
			count, list := d.number(), decoder{b: d.bytes(d.number())}
			if want == "" || string(v) != want && (k != contextField || !strings.HasPrefix(string(v), want+"/")) {
				continue
			}
			at := uint64(0)
			for range count {
				at += list.number()
				found = append(found, uint32(at))
			}
		}
		if want == "" {
			continue
		}
		slices.Sort(found) // contexts of one project are several lists
		if all {
			places, all = found, false
		} else {
			places = intersect(places, found)
		}
	}
	return places, all
}

func intersect(a, b []uint32) []uint32 {
	out := a[:0]
	for _, v := range a {
		i, found := slices.BinarySearch(b, v)
		if b = b[i:]; found {
			out = append(out, v)
		}
	}
	return out
}

// completing returns the places of the records that complete any of seqs, which
// are sorted.
func (x index) completing(seqs []uint64) (places []uint32) {
	if len(seqs) == 0 {
		return nil
	}
	d := decoder{b: x.of}
	at := uint64(0)
	for range x.ofCount {
		at += d.number()
		p := d.number()
		for len(seqs) > 0 && seqs[0] < at {
			seqs = seqs[1:]
		}
		if len(seqs) == 0 {
			break
		}
		if seqs[0] == at {
			places = append(places, uint32(p))
		}
	}
	slices.Sort(places)
	return places
}

// linesAt calls fn for the lines at places of s.
func (x index) linesAt(dir string, s segment, places []uint32, fn func(seq uint64, line []byte) error) error {
	if len(places) == 0 {
		return nil
	}
	f, err := openOrMissing(dir, s.name)
	if err != nil {
		return err
	}
	defer f.Close()
	if len(places)*8 > len(x.offsets) { // dense: read it through
		br := bufio.NewReaderSize(f, 1<<20)
		next := uint32(0)
		buf := make([]byte, 0, maxLine)
		for _, p := range places {
			if _, err := br.Discard(int(x.offsets[p] - x.offsets[next])); err != nil {
				return fmt.Errorf("audit: read %s: %w", s.name, err)
			}
			buf = buf[:x.offsets[p+1]-x.offsets[p]]
			if _, err := readFull(br, buf); err != nil {
				return fmt.Errorf("audit: read %s: %w", s.name, err)
			}
			next = p + 1
			if err := fn(x.first+uint64(p), bytes.TrimSuffix(buf, []byte("\n"))); err != nil {
				return err
			}
		}
		return nil
	}
	buf := make([]byte, 0, maxLine)
	for _, p := range places {
		n := x.offsets[p+1] - x.offsets[p]
		if n > maxLine+1 {
			return &TamperError{File: s.name, Seq: x.first + uint64(p), Line: int64(p) + 1, What: "a line longer than any record"}
		}
		buf = slices.Grow(buf[:0], int(n))[:n]
		if _, err := f.ReadAt(buf, int64(x.offsets[p])); err != nil {
			return fmt.Errorf("audit: read %s: %w", s.name, err)
		}
		if err := fn(x.first+uint64(p), bytes.TrimSuffix(buf, []byte("\n"))); err != nil {
			return err
		}
	}
	return nil
}
