package matcher

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"

	"guard"
)

// set is what is looked for at one time, compiled: a main layer, and a small
// one with what was added since that was compiled. It does not change. Whoever
// searches with it holds mu for reading; see Matcher.use.
type set struct {
	mu      sync.RWMutex
	gen     uint64
	entries []*entry // entries[0] is the canary
	needles [][]byte // of all entries, in order; an engine's numbers are indices
	encs    []encoding
	owner   []int32   // index into entries
	longest int       // needle, bytes
	short   int       // and the shortest one, without the canary
	first   [256]bool // bytes that needles begin with
	high    bool      // a needle is not all ASCII
	odd     bool      // a needle is not seen by what it begins with: see isOdd
	bytes   int       // of all needles
	main    *layer
	delta   *layer // nil: nothing was added
	eng     engine
	begin   *beginnings // without the canary, which nothing waits for
	gate    *gate       // as well
	public  [][]byte    // what values begin with that everybody may see
}

// layer is what an engine was made of: the canary, and needles that follow each
// other in a set.
type layer struct {
	eng   engine
	begin *beginnings
	size  int // needles without the canary
}

// errBlind is what a set that misses something it must find says.
var errBlind = errors.New("matcher: the engine does not find what was planted: nothing may be released on its word")

// ErrTooMany is wrapped by the errors of New, Set and Add.
var ErrTooMany = errors.New("more than can be looked for")

// maxBytes is how many bytes all needles may have together: those of some 50,000
// tokens. With its tables a set takes ten times as much memory.
const maxBytes = 64 << 20

// fits is an error if there is too much to look for.
func (s *set) fits() error {
	if s.bytes <= maxBytes {
		return nil
	}
	return fmt.Errorf("matcher: %w: the encodings of %d values have %d MiB, and the limit is %d MiB: use fewer values, or shorter ones, in one context", ErrTooMany, len(s.entries)-1, s.bytes>>20, maxBytes>>20)
}

// compile makes a set of entries and proves that it finds all of them.
func compile(maker engineMaker, entries []*entry) (*set, error) {
	canary := &entry{id: guard.SecretID{Name: "canary"}, needles: []needle{{b: []byte(rand.Text())}}}
	s := &set{}
	s.take(canary)
	for _, e := range entries {
		s.take(e)
	}
	if err := s.fits(); err != nil {
		return nil, err
	}
	eng, err := maker.make(s.needles)
	if err != nil {
		canary.wipe()
		return nil, fmt.Errorf("matcher: %w", err)
	}
	s.main = &layer{eng, newBeginnings(s.needles, 1), len(s.needles) - 1}
	s.eng, s.begin, s.gate = eng, s.main.begin, newGate(s.needles[1:])
	s.public = appendPublic(nil, entries)
	if err := s.check(1); err != nil {
		s.free(nil)
		return nil, err
	}
	return s, nil
}

// take appends e's needles to what a new set looks for.
func (s *set) take(e *entry) {
	for _, n := range e.needles {
		s.needles = append(s.needles, n.b)
		s.encs = append(s.encs, n.enc)
		s.owner = append(s.owner, int32(len(s.entries)))
		s.longest = max(s.longest, len(n.b))
		if len(s.entries) > 0 {
			s.first[n.b[0]] = true
			s.odd = s.odd || isOdd(n.b)
			s.high = s.high || slices.ContainsFunc(n.b, func(c byte) bool { return c >= 0x80 })
			if s.short == 0 || len(n.b) < s.short {
				s.short = len(n.b)
			}
		}
		s.bytes += len(n.b)
	}
	s.entries = append(s.entries, e)
}

// extend makes a set of s and added, with the same main layer, and proves that
// it finds what is not in that. It costs what there is in the small layer, not
// what there is in the main one: the lists go on in the room behind those of s,
// which nobody reads; so only the newest set may be extended.
func (s *set) extend(gen uint64, added []*entry) (*set, error) {
	n := &set{gen: gen, entries: s.entries, needles: s.needles, encs: s.encs, owner: s.owner, longest: s.longest, short: s.short, first: s.first, high: s.high, odd: s.odd, bytes: s.bytes, main: s.main}
	for _, e := range added {
		n.take(e)
	}
	if err := n.fits(); err != nil {
		return nil, err
	}
	first := 1 + s.main.size
	needles := append([][]byte{n.needles[0]}, n.needles[first:]...)
	eng := newGoEngine(needles)
	n.delta = &layer{eng, newBeginnings(needles, 1), len(needles) - 1}
	n.eng = &pair{s.main.eng, eng, first - 1}
	begin := *s.main.begin
	begin.next = n.delta.begin
	n.begin = &begin
	n.gate = s.gate.with(n.needles[len(s.needles):])
	n.public = appendPublic(slices.Clip(s.public), added)
	if err := n.check(first); err != nil {
		n.free(s)
		return nil, err
	}
	return n, nil
}

// pair is two engines that search as one. Number i of the second one's needles
// is number base+i of all, but the canary is 0 in each.
type pair struct {
	main, delta engine
	base        int
}

func (p *pair) scan(b []byte, out []match) ([]match, error) {
	out, err := p.main.scan(b, out)
	if err != nil {
		return out, err
	}
	n := len(out)
	if out, err = p.delta.scan(b, out); err != nil {
		return out, err
	}
	for i := n; i < len(out); i++ {
		if out[i].needle > 0 {
			out[i].needle += p.base
		}
	}
	return out, nil
}

func (p *pair) close() {} // the layers are closed by the set that is the last to have them

// check plants the canary in the middle of other bytes, where exactly one
// occurrence must be found by each layer, and lets the engine look at each
// needle from first on, where it must find that needle.
func (s *set) check(first int) error {
	const before = "\x1b[32m$ echo "
	ms, err := s.eng.scan([]byte(before+string(s.needles[0])+"\r\n"), nil)
	layers := 1
	if s.delta != nil {
		layers = 2
	}
	if err != nil || len(ms) != layers {
		return errBlind
	}
	for _, m := range ms {
		if m != (match{0, len(before) + len(s.needles[0])}) {
			return errBlind
		}
	}
	for i := first; i < len(s.needles); i++ {
		b := s.needles[i]
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

// free closes and overwrites what next does not have as well; next may be nil.
// No search may be under way. The entries may live on in another set.
func (s *set) free(next *set) {
	if next == nil {
		next = &set{}
	}
	if s.delta != nil && s.delta != next.delta {
		s.delta.close()
	}
	if s.main != next.main {
		s.main.close()
		s.entries[0].wipe()
	}
	if s.gate != next.gate {
		s.gate.wipe()
	}
}

func (l *layer) close() {
	l.eng.close()
	l.begin.wipe()
}
