package audit

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// An index says where in a closed file the records with a certain credential,
// session, context, type, decision, channel or fingerprint are, where each record
// begins, and which record completes which. It is derived, and signed by the
// log's key: one that is not is not used, so that it cannot hide a record.
//
//	GAUDIX02
//	length of the head, 4 bytes, big endian
//	head
//	signature, 64 bytes: Ed25519 over all before it
//	parts
//
// The head, all numbers as uvarints:
//
//	first, last, bytes of the file, earliest and latest time (ns since 1970, as uint64)
//	a part: the length of each record's line with the LF
//	number of completions, and a part: for each, by the completed seq, the difference to the
//	one before, and the place of the completing record
//	for each of the fields: number of values; for each, in order: length, value, number of
//	places, and their part: places from 0, as differences to the one before
//
// A part is named in the head by its length and, where it has more than 64 bytes, its
// SHA-256 and it follows in parts, in that order; a shorter one is there itself.
const indexMagic = "GAUDIX02"

const (
	signatureBytes = 64
	inlinePart     = 64
	maxIndexHead   = 64 << 20
)

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

// buildIndex reads a closed file and returns its index.
func buildIndex(dir string, s segment, sign func([]byte) ([]byte, error)) ([]byte, error) {
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
	var head, parts, part []byte
	add := func() { // part, to the head or after it
		head = binary.AppendUvarint(head, uint64(len(part)))
		if len(part) <= inlinePart {
			head = append(head, part...)
		} else {
			sum := sha256.Sum256(part)
			head = append(head, sum[:]...)
			parts = append(parts, part...)
		}
		part = part[:0]
	}
	for _, x := range []uint64{s.first, s.last, uint64(s.size), uint64(min), uint64(max)} {
		head = binary.AppendUvarint(head, x)
	}
	for _, x := range lengths {
		part = binary.AppendUvarint(part, x)
	}
	add()
	slices.SortStableFunc(of, func(x, y [2]uint64) int { return cmp.Compare(x[0], y[0]) })
	head = binary.AppendUvarint(head, uint64(len(of)))
	last := uint64(0)
	for _, x := range of {
		part = binary.AppendUvarint(part, x[0]-last)
		part = binary.AppendUvarint(part, x[1])
		last = x[0]
	}
	add()
	for _, m := range places {
		head = binary.AppendUvarint(head, uint64(len(m)))
		for _, v := range slices.Sorted(maps.Keys(m)) {
			last := uint64(0)
			for _, x := range m[v] {
				part = binary.AppendUvarint(part, x-last)
				last = x
			}
			head = binary.AppendUvarint(head, uint64(len(v)))
			head = append(head, v...)
			head = binary.AppendUvarint(head, uint64(len(m[v])))
			add()
		}
	}
	sig, err := sign(indexTop(head))
	if err != nil {
		return nil, fmt.Errorf("audit: sign an index: %w", err)
	}
	return slices.Concat(indexTop(head), sig, parts), nil
}

func indexTop(head []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte(indexMagic), uint32(len(head))), head...)
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
		b, err := buildIndex(l.dir, s, l.key.sign)
		if errors.Is(err, os.ErrNotExist) {
			continue // pruned meanwhile
		} else if err != nil {
			return err
		}
		if err := replace(l.path(indexName(s)), b, l.path(indexName(s)+".new")); err != nil {
			return err
		}
	}
	return nil
}

// part is a part of an index that is there, or is to be read.
type part struct {
	at, size int64
	sum      [sha256.Size]byte
	inline   []byte
}

// index is the index of one file: its head is read, and parts as they are needed.
type index struct {
	file        *os.File
	first       uint64
	records     uint64
	size        uint64 // bytes of the file that it is about
	min, max    int64
	lengths, of part
	ofCount     uint64
	values      [len(indexFields)][]indexValue
	offsets     []uint32 // of each record, and the end; once they are needed
}

type indexValue struct {
	value  string
	count  uint64
	places part
}

// readIndex reads the head of s's index, if there is one that v's key signed. The
// caller closes it.
func readIndex(dir string, s segment, v note.Verifier) (x *index, ok bool) {
	if v == nil {
		return nil, false
	}
	f, err := os.Open(filepath.Join(dir, indexName(s)))
	if err != nil {
		return nil, false
	}
	defer func() {
		if !ok {
			f.Close()
		}
	}()
	var top [len(indexMagic) + 4]byte
	if _, err := io.ReadFull(f, top[:]); err != nil || string(top[:len(indexMagic)]) != indexMagic {
		return nil, false
	}
	st, err := f.Stat()
	n := int64(binary.BigEndian.Uint32(top[len(indexMagic):]))
	if err != nil || n > maxIndexHead || n > st.Size() {
		return nil, false
	}
	rest := make([]byte, n+signatureBytes)
	if _, err := io.ReadFull(f, rest); err != nil {
		return nil, false
	}
	head, sig := rest[:n], rest[n:]
	if !v.Verify(append(top[:], head...), sig) {
		return nil, false
	}
	x = &index{file: f}
	d := decoder{b: head, at: int64(len(top)) + int64(len(rest))}
	first, last, size := d.number(), d.number(), d.number()
	x.min, x.max = int64(d.number()), int64(d.number())
	if d.bad || first != s.first || last != s.last || size != uint64(s.size) || last-first >= size {
		return nil, false
	}
	x.first, x.records, x.size = first, last-first+1, size
	x.lengths = d.part()
	x.ofCount = d.number()
	x.of = d.part()
	for k := range x.values {
		for range d.number() {
			val := indexValue{value: string(d.bytes(d.number())), count: d.number()}
			val.places = d.part()
			if d.bad {
				return nil, false
			}
			x.values[k] = append(x.values[k], val)
		}
	}
	return x, !d.bad
}

type decoder struct {
	b   []byte
	at  int64 // of the next part
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

func (d *decoder) part() (p part) {
	n := d.number()
	if n > 1<<32 {
		d.bad = true
	}
	p.size = int64(n)
	if n <= inlinePart {
		p.inline = d.bytes(n)
		return p
	}
	copy(p.sum[:], d.bytes(sha256.Size))
	p.at = d.at
	d.at += p.size
	return p
}

var errIndex = errors.New("audit: an index is not as it was signed")

// read returns the bytes of p.
func (x *index) read(p part) ([]byte, error) {
	if p.size <= inlinePart {
		return p.inline, nil
	}
	st, err := x.file.Stat()
	if err != nil || p.at+p.size > st.Size() {
		return nil, errIndex
	}
	b := make([]byte, p.size)
	if _, err := x.file.ReadAt(b, p.at); err != nil || sha256.Sum256(b) != p.sum {
		return nil, errIndex
	}
	return b, nil
}

func (x *index) close() { x.file.Close() }

// outside says that none of the file's records are of the time that f asks for.
func (x *index) outside(f Filter) bool {
	return !f.Since.IsZero() && x.max < f.Since.UnixNano() || !f.Until.IsZero() && x.min >= f.Until.UnixNano()
}

// selected returns the places of the records that may match f, in order; all is
// true where f asks for nothing that the index knows.
func (x *index) selected(f Filter) (places []uint32, all bool, err error) {
	if x.outside(f) {
		return nil, false, nil
	}
	all = true
	// What few records have comes first: where there are none, nothing else is read.
	for k, want := range f.values() {
		if want == "" {
			continue
		}
		var found []uint32
		lists := 0
		for _, v := range x.values[k] {
			if v.value != want && (k != contextField || !inContext(v.value, want)) {
				continue
			}
			b, err := x.read(v.places)
			if err != nil {
				return nil, false, err
			}
			lists++
			d, at := decoder{b: b}, uint64(0)
			for range min(v.count, x.records) {
				at += d.number()
				if d.bad || at >= x.records {
					return nil, false, errIndex
				}
				found = append(found, uint32(at))
			}
		}
		if lists > 1 {
			slices.Sort(found) // contexts of one project are several lists
		}
		if all {
			places, all = found, false
		} else {
			places = intersect(places, found)
		}
		if len(places) == 0 {
			return nil, false, nil
		}
	}
	return places, all, nil
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
func (x *index) completing(seqs []uint64) (places []uint32, err error) {
	if len(seqs) == 0 || x.ofCount == 0 {
		return nil, nil
	}
	b, err := x.read(x.of)
	if err != nil {
		return nil, err
	}
	d, at := decoder{b: b}, uint64(0)
	for range min(x.ofCount, x.records) {
		at += d.number()
		p := d.number()
		if d.bad || p >= x.records {
			return nil, errIndex
		}
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
	return places, nil
}

// locateRecords fills in x.offsets.
func (x *index) locateRecords() error {
	if x.offsets != nil {
		return nil
	}
	b, err := x.read(x.lengths)
	if err != nil {
		return err
	}
	d, at := decoder{b: b}, uint64(0)
	offsets := make([]uint32, 0, x.records+1)
	for range x.records {
		offsets = append(offsets, uint32(at))
		n := d.number()
		if at += n; d.bad || n > maxLine+1 || at > x.size {
			return errIndex
		}
	}
	x.offsets = append(offsets, uint32(at))
	return nil
}

// linesAt calls fn for the lines at places of s.
func (x *index) linesAt(dir string, s segment, places []uint32, fn func(seq uint64, line []byte) error) error {
	if len(places) == 0 {
		return nil
	}
	if err := x.locateRecords(); err != nil {
		return err
	}
	f, err := openOrMissing(dir, s.name)
	if err != nil {
		return err
	}
	defer f.Close()
	if len(places)*8 > len(x.offsets) { // dense: read it through
		br := bufio.NewReaderSize(f, 1<<20)
		next := uint32(0)
		buf := make([]byte, 0, maxLine+1)
		for _, p := range places {
			if _, err := br.Discard(int(x.offsets[p] - x.offsets[next])); err != nil {
				return fmt.Errorf("audit: read %s: %w", s.name, err)
			}
			buf = buf[:x.offsets[p+1]-x.offsets[p]]
			if _, err := io.ReadFull(br, buf); err != nil {
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
