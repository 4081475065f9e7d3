package formats

import (
	"bytes"
	"cmp"
	"slices"
	"unicode/utf8"
)

// search finds credentials in one text, which may come in pieces. What it
// finds does not depend on the pieces: whether bytes are a finding is a question
// of a bounded window around an anchor, asked when the window is there, or when
// an expression has seen enough.
//
// A rule is strong, weak, in cells, or of a finder. Strong candidates are settled
// from left to right, and one that begins inside a finding is dropped; of those at the same place the best
// is taken. A weak one is settled when every strong one before its end is, and dropped
// where it meets a finding; so, later, one in a cell. Those of finders stand by themselves.
type search struct {
	set      *Set
	path     string
	b        []byte // of the stream
	base     int64  // offset of b[0]
	scanned  int    // b[:scanned] was searched for anchors
	finders  int    // and b[:finders] by the finders
	last     bool   // nothing comes after b
	strong   []cand
	weak     []cand
	other    []cand // of finders
	seen     []cand // the last of them
	again    int64  // where the weak are looked at again
	cells    []cell
	nextCell int64 // of rules without keywords
	reach    int64 // where the last strong finding ends
	found    []Finding
	spans    []span // of strong and weak findings, the last ones
	places   []place
}

// cand is a place where a rule may match.
type cand struct {
	at    int64 // of the anchor, in the stream
	rule  int
	align int // as in anchor
}

// cell is a part of the stream in which a rule is searched for.
type cell struct {
	n    int64 // it begins at n*cellSize
	rule int
}

type span struct{ start, end int64 }

type status uint8

const (
	no   status = iota // no finding
	yes                // a finding
	more               // more bytes may change that
)

func compareCands(a, b cand) int {
	return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.rule, b.rule), cmp.Compare(a.align, b.align))
}

// run searches what of b was not searched yet, and returns what is settled.
func (s *search) run() []Finding {
	s.anchors()
	s.find()
	s.found = nil
	s.settleStrong()
	s.settleWeak()
	s.settleOthers()
	s.settleCells()
	slices.SortFunc(s.found, compareFindings)
	return s.found
}

func compareFindings(a, b Finding) int {
	return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(b.End, a.End), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Encoding, b.Encoding))
}

// anchors turns the anchors that end in what is new into candidates.
func (s *search) anchors() {
	from := max(0, s.scanned-maxAnchor+1)
	s.places = s.set.scan(s.b[from:], s.places[:0])
	known := len(s.strong) + len(s.weak)
	for _, p := range s.places {
		a := &s.set.anchors[p.anchor]
		if from+p.at+len(a.sets) <= s.scanned {
			continue // known
		}
		r := s.set.rules[a.rule]
		c := cand{at: s.base + int64(from+p.at), rule: a.rule, align: a.align}
		switch {
		case r.cell:
			s.heat(c)
		case r.Weak:
			s.weak = append(s.weak, c)
		case s.free(r, c):
			s.strong = append(s.strong, c)
		}
	}
	if len(s.strong)+len(s.weak) > known {
		slices.SortFunc(s.strong, compareCands)
		slices.SortFunc(s.weak, compareCands)
		s.strong, s.weak = slices.Compact(s.strong), slices.Compact(s.weak)
	}
	if len(s.set.everywhere) > 0 {
		for ; s.nextCell*cellSize < s.base+int64(len(s.b)); s.nextCell++ {
			for _, r := range s.set.everywhere {
				s.cells = append(s.cells, cell{s.nextCell, r})
			}
		}
	}
	s.scanned = len(s.b)
}

// free is the cheap part of what a match needs, for anchors that are common: the byte before.
func (s *search) free(r *rule, c cand) bool {
	at := int(c.at - s.base)
	return c.align != 0 || r.Before > 0 || at == 0 || leftFree(s.b, at, &r.left)
}

// heat marks the cells in which c's rule is to be searched for.
func (s *search) heat(c cand) {
	for n := max(0, c.at-cellAfter) / cellSize; n <= (c.at+cellBefore)/cellSize; n++ {
		if k := (cell{n, c.rule}); !slices.Contains(s.cells[max(0, len(s.cells)-64):], k) {
			s.cells = append(s.cells, k)
		}
	}
}

// find asks the finders.
func (s *search) find() {
	to := len(s.b)
	if !s.last {
		to = max(s.finders, to-finderAhead)
	}
	if len(s.set.runRules) > 0 {
		runs(s.b, s.base, s.finders, to, func(at int) { s.candidates(s.set.runRules, at) })
	}
	if len(s.set.wordRules) > 0 {
		mnemonicWords().runs(s.b, s.base, s.finders, to, func(at int) { s.candidates(s.set.wordRules, at) })
	}
	s.finders = to
}

func (s *search) candidates(rules []int, at int) {
	for _, r := range rules {
		c := cand{at: s.base + int64(at), rule: r}
		if !slices.Contains(s.seen, c) {
			s.other = append(s.other, c)
			s.seen = append(s.seen[max(0, len(s.seen)-31):], c)
		}
	}
}

// settleStrong settles candidates from left to right, up to the first place
// that needs more.
func (s *search) settleStrong() {
	i := 0
	for i < len(s.strong) {
		at := s.strong[i].at
		n := i + 1
		for n < len(s.strong) && s.strong[n].at == at {
			n++
		}
		if at >= s.reach {
			best, ok, wait := Finding{}, false, false
			prefer := 0
			for _, c := range s.strong[i:n] {
				f, st := s.try(c)
				wait = wait || st == more
				r := s.set.rules[c.rule]
				if st == yes && f.Start >= s.reach && (!ok || better(f, r.Prefer, best, prefer)) {
					best, ok, prefer = f, true, r.Prefer
				}
			}
			if wait {
				break
			}
			if ok {
				s.emit(best)
				s.reach = best.End
			}
		}
		i = n
	}
	s.strong = append(s.strong[:0], s.strong[i:]...)
}

// better orders findings that begin at the same place.
func better(a Finding, ap int, b Finding, bp int) bool {
	return cmp.Or(cmp.Compare(ap, bp), cmp.Compare(a.Confidence, b.Confidence), cmp.Compare(a.End, b.End), cmp.Compare(b.Rule, a.Rule)) > 0
}

func (s *search) emit(f Finding) {
	s.found = append(s.found, f)
	s.spans = append(s.spans, span{f.Start, f.End})
}

// frontier is the offset before which every strong anchor is known and settled.
func (s *search) frontier() int64 {
	n := s.base + int64(len(s.b))
	if !s.last {
		n -= maxAnchor - 1
	}
	if len(s.strong) > 0 {
		n = min(n, s.strong[0].at)
	}
	return n
}

const weakStep = 64

func (s *search) settleWeak() {
	end := s.base + int64(len(s.b))
	if end < s.again && !s.last {
		return
	}
	i, front := 0, s.frontier()
	for ; i < len(s.weak); i++ {
		f, st := s.try(s.weak[i])
		if st == more {
			// Not with every byte that comes: such windows are long.
			s.again = end + weakStep
			break
		}
		if st == yes && f.End > front {
			break
		}
		if st == yes && !s.meets(f) {
			s.emit(f)
		}
	}
	s.weak = append(s.weak[:0], s.weak[i:]...)
}

func (s *search) meets(f Finding) bool {
	for _, p := range s.spans {
		if f.Start < p.end && p.start < f.End {
			return true
		}
	}
	return false
}

func (s *search) settleOthers() {
	s.other = slices.DeleteFunc(s.other, func(c cand) bool {
		f, st := s.try(c)
		if st == yes {
			s.found = append(s.found, f)
		}
		return st != more
	})
}

func (s *search) settleCells() {
	end, front := s.base+int64(len(s.b)), s.frontier()
	if len(s.weak) > 0 {
		front = min(front, s.weak[0].at)
	}
	s.cells = slices.DeleteFunc(s.cells, func(c cell) bool {
		from, to := c.n*cellSize, (c.n+1)*cellSize
		if to+cellAfter > front && !s.last {
			return false
		}
		r := s.set.rules[c.rule]
		if from >= end || r.path != nil && !r.path.MatchString(s.path) {
			return true
		}
		l := int(max(0, from-cellLook-s.base))
		e := int(min(end, to+cellAfter) - s.base)
		w := s.b[l:e]
		for _, loc := range r.regexp().FindAllSubmatchIndex(w, -1) {
			start := s.base + int64(l+loc[0])
			if start < from || start >= to || loc[1]-loc[0] > r.max || loc[1] == len(w) && !(s.last && e == len(s.b)) {
				continue
			}
			if f, ok := s.judge(r, w, loc, "raw"); ok {
				f.Start, f.End = s.base+int64(l)+f.Start, s.base+int64(l)+f.End
				if !s.meets(f) {
					s.found = append(s.found, f)
				}
			}
		}
		return true
	})
}

// cellLook is how much of the text before a cell an expression sees.
const cellLook = 512

// try asks whether c is a finding.
func (s *search) try(c cand) (Finding, status) {
	r := s.set.rules[c.rule]
	if r.path != nil && !r.path.MatchString(s.path) {
		return Finding{}, no
	}
	if c.align != 0 {
		return s.tryBase64(r, c)
	}
	at := int(c.at - s.base)
	if r.Finder == "words" {
		return s.tryWords(r, at)
	}
	start := at
	if r.Back != "" {
		for start > 0 && at-start < r.Before && r.back.has(s.b[start-1]) {
			start--
		}
	} else if start -= r.Before; start < 0 {
		return Finding{}, no
	}
	return s.tryAt(r, s.b, start, s.last, s.base, "raw")
}

// tryWords asks whether as many words of the list as a mnemonic has begin at
// b[at], and no more.
func (s *search) tryWords(r *rule, at int) (Finding, status) {
	list, ends := mnemonicWords().run(s.b, at)
	if !ends && !s.last {
		return Finding{}, more
	}
	for _, p := range mnemonics(s.b, list) {
		if f, ok := s.judge(r, s.b, []int{int(p[0].start), int(p[len(p)-1].end)}, "raw"); ok {
			f.Start += s.base
			f.End += s.base
			return f, yes
		}
	}
	return Finding{}, no
}

// tryAt asks whether a match of r begins at b[start]. last: nothing comes
// after b.
func (s *search) tryAt(r *rule, b []byte, start int, last bool, base int64, encoding string) (Finding, status) {
	if start > 0 && !leftFree(b, start, &r.left) {
		return Finding{}, no
	}
	if st := r.plausible(b[start:], last); st != yes {
		return Finding{}, st
	}
	loc, st := r.find(b[start:], last)
	if st != yes {
		return Finding{}, st
	}
	end := start + loc[1]
	if end == len(b) && !last {
		return Finding{}, more
	}
	for i := range loc {
		if loc[i] >= 0 {
			loc[i] += start
		}
	}
	f, ok := s.judge(r, b, loc, encoding)
	if !ok || f.Confidence < Verified && end < len(b) && r.right.has(b[end]) {
		return Finding{}, no
	}
	f.Start += base
	f.End += base
	return f, yes
}

// plausible is what can be asked of b at the speed of memory. It says yes
// where the expression has to be asked, and no or more where that would say the same.
func (r *rule) plausible(b []byte, last bool) status {
	whole := last || len(b) >= r.max
	b = b[:min(len(b), r.max)]
	if r.Needs != "" {
		i := bytes.Index(b, []byte(r.Needs))
		again := -1
		if len(r.lead) > 4 {
			end := len(b)
			if i >= 0 {
				end = i
			}
			again = bytes.Index(b[1:end], []byte(r.lead))
		}
		switch {
		case again >= 0, i < 0 && whole:
			return no
		case i < 0:
			return more
		}
	}
	if r.Run > 0 && !hasRun(b, r.Run) {
		if whole {
			return no
		}
		return more
	}
	return yes
}

// hasRun says that n bytes in a row of b are letters, digits or "+/_-".
func hasRun(b []byte, n int) bool {
	for i := 0; i+n <= len(b); {
		// From the end of where a run would have to be, backwards: mostly one look.
		j := i + n - 1
		for j >= i && (base64Value[b[j]] >= 0) {
			j--
		}
		if j < i {
			return true
		}
		i = j + 1
	}
	return false
}

// find matches r at the beginning of b, of which it takes r.max bytes.
func (r *rule) find(b []byte, last bool) ([]int, status) {
	if len(b) > r.max || last {
		loc := r.regexp().FindSubmatchIndex(b[:min(len(b), r.max)])
		if loc == nil || loc[1] == r.max && len(b) > r.max && r.blob {
			return nil, no // a blob, if it is longer than anything that was expected
		}
		return loc, yes
	}
	if r.asserts {
		return nil, more
	}
	// Read it rune by rune: where the expression does not ask for more than there is,
	// more would change nothing.
	in := &asked{b: b}
	loc := r.reader().FindReaderSubmatchIndex(in)
	if in.more {
		return nil, more
	}
	if loc == nil {
		return nil, no
	}
	return append(loc[:2], loc[4:]...), yes
}

// asked is an io.RuneReader that knows whether an expression went on behind
// what it has. The automaton of package regexp reads two runes ahead of the one
// it is at, to know whether a word or the text ends there; built-in expressions do not ask that.
type asked struct {
	b     []byte
	ahead int
	more  bool
}

func (a *asked) ReadRune() (rune, int, error) {
	if len(a.b) == 0 || a.b[0] >= utf8.RuneSelf && !utf8.FullRune(a.b) {
		if a.ahead < 2 {
			a.ahead++
			return utf8.RuneError, 1, nil
		}
		a.more = true
		return 0, 0, errMore
	}
	c, n := utf8.DecodeRune(a.b)
	a.b = a.b[n:]
	return c, n, nil
}

// leftFree says that a token may begin at b[i]: what is before it is not in
// set, or belongs to an escape: \n, %3D, \u003d, or a colour of the terminal, also one that is
// written out (\u001b[32m, \x1b[0m, \033[1;31m, \e[m).
func leftFree(b []byte, i int, set *byteSet) bool {
	if !set.has(b[i-1]) {
		return true
	}
	c := b[i-1]
	if i >= 2 && b[i-2] == '\\' && bytes.IndexByte([]byte("nrtbfvae0"), c) >= 0 {
		return true
	}
	if i >= 3 && b[i-3] == '%' && isHex(b[i-2]) && isHex(c) {
		return true
	}
	if i >= 4 && b[i-4] == '\\' && b[i-3] == 'x' && isHex(b[i-2]) && isHex(c) {
		return true
	}
	if i >= 6 && b[i-6] == '\\' && b[i-5]|0x20 == 'u' && isHex(b[i-4]) && isHex(b[i-3]) && isHex(b[i-2]) && isHex(c) {
		return true
	}
	if c < 'A' {
		return false
	}
	j := i - 2
	for j >= 0 && i-j < 24 && (b[j] >= '0' && b[j] <= '9' || b[j] == ';' || b[j] == ':' || b[j] == '?') {
		j--
	}
	if j < 1 || b[j] != '[' {
		return false
	}
	if b[j-1] == 0x1b {
		return true
	}
	for _, e := range []string{`\u001b`, `\u001B`, `\x1b`, `\x1B`, `\033`, `\e`} {
		if bytes.HasSuffix(b[max(0, j-6):j], []byte(e)) {
			return true
		}
	}
	return false
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' }
