package matcher

import (
	"crypto/rand"
	"errors"
	"fmt"

	"guard"
)

// set is what is looked for at one time, compiled. It does not change.
type set struct {
	gen     uint64
	entries []*entry // entries[0] is the canary
	needles [][]byte // of all entries, in order; an engine's numbers are indices
	encs    []encoding
	owner   []int32 // index into entries
	longest int     // needle, bytes
	eng     engine
	begin   *beginnings // without the canary, which nothing waits for
	gate    *gate       // as well
}

// errBlind is what a set that misses something it must find says.
var errBlind = errors.New("matcher: the engine does not find what was planted: nothing may be released on its word")

// compile makes a set of entries and proves that it finds all of them.
func compile(gen uint64, entries []*entry) (*set, error) {
	canary := &entry{id: guard.SecretID{Name: "canary"}, needles: []needle{{b: []byte(rand.Text())}}}
	s := &set{gen: gen, entries: append([]*entry{canary}, entries...)}
	for i, e := range s.entries {
		for _, n := range e.needles {
			s.needles = append(s.needles, n.b)
			s.encs = append(s.encs, n.enc)
			s.owner = append(s.owner, int32(i))
			s.longest = max(s.longest, len(n.b))
		}
	}
	eng, err := newEngine(s.needles)
	if err != nil {
		return nil, fmt.Errorf("matcher: %w", err)
	}
	s.eng = eng
	s.begin = newBeginnings(s.needles, 1)
	s.gate = newGate(s.needles[1:])
	if err := s.check(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// check plants the canary in the middle of other bytes, where exactly one
// occurrence must be found, and lets the engine look at each needle, where it
// must find that needle.
func (s *set) check() error {
	const before = "\x1b[32m$ echo "
	ms, err := s.eng.scan([]byte(before+string(s.needles[0])+"\r\n"), nil)
	if err != nil || len(ms) != 1 || ms[0] != (match{0, len(before) + len(s.needles[0])}) {
		return errBlind
	}
	for i, b := range s.needles {
		ms, err = s.eng.scan(b, ms[:0])
		found := false
		for _, m := range ms {
			found = found || m == match{i, len(b)}
		}
		if err != nil || !found {
			return errBlind
		}
	}
	return nil
}

// find appends every occurrence of every needle in b. When the engine fails it
// searches without one: slowly, but it searches.
func (s *set) find(b []byte, ms []match) []match {
	n := len(ms)
	ms, err := s.eng.scan(b, ms)
	if err != nil {
		return slowScan(s.needles, b, ms[:n])
	}
	return ms
}

// hit describes a needle found at stream offsets [start, end), where m was done
// to the stream. ok is false for the canary.
func (s *set) hit(needle int, start, end int64, m marks) (h Hit, ok bool) {
	e := s.entries[s.owner[needle]]
	return Hit{ID: e.id, Class: e.class, Encoding: s.encs[needle].name(m), Start: start, End: end}, s.owner[needle] != 0
}

// close frees the engine. No scan may be under way. The entries may live on in
// another set.
func (s *set) close() {
	s.eng.close()
	s.begin.wipe()
	s.gate.wipe()
	s.entries[0].wipe()
}
