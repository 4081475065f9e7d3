package formats

import (
	"math/bits"
	"regexp/syntax"
)

// byteSet is a set of byte values.
type byteSet [4]uint64

func (s *byteSet) add(c byte)      { s[c>>6] |= 1 << (c & 63) }
func (s *byteSet) has(c byte) bool { return s[c>>6]>>(c&63)&1 != 0 }

func (s *byteSet) size() int {
	return bits.OnesCount64(s[0]) + bits.OnesCount64(s[1]) + bits.OnesCount64(s[2]) + bits.OnesCount64(s[3])
}

func (s *byteSet) each(f func(c byte)) {
	for i, w := range s {
		for ; w != 0; w &= w - 1 {
			f(byte(i<<6 | bits.TrailingZeros64(w)))
		}
	}
}

// anchor is what a match of a rule must contain: a sequence of bytes, each of
// a set. The engines look for anchors and nothing else, so that they agree.
type anchor struct {
	rule int
	sets []byteSet
	// align is 0 for an anchor in plain text. 1 to 3: the anchor is looked for in
	// base64, and sets are the characters that are wholly its own where its first
	// byte is byte align-1 of a group of three.
	align int
	win   int // which gram the Go engine looks for
}

func (a *anchor) match(b []byte) bool {
	if len(b) < len(a.sets) {
		return false
	}
	for i := range a.sets {
		if !a.sets[i].has(b[i]) {
			return false
		}
	}
	return true
}

const (
	maxAnchor = 12 // bytes; what a stream holds back at most for a match that has not begun for sure
	maxBranch = 64 // alternatives of one rule
)

// sequence is how a match may begin.
type sequence struct {
	sets []byteSet
	done bool // it is all of the match
}

// sequences says how a match of re begins: as one of the returned ones does.
func sequences(re *syntax.Regexp) []sequence {
	switch re.Op {
	case syntax.OpLiteral:
		var sets []byteSet
		for _, r := range re.Rune {
			if r >= 0x80 || len(sets) == maxAnchor {
				return []sequence{{sets, false}}
			}
			var s byteSet
			s.add(byte(r))
			if re.Flags&syntax.FoldCase != 0 && (r|0x20 >= 'a' && r|0x20 <= 'z') {
				s.add(byte(r | 0x20))
				s.add(byte(r &^ 0x20))
			}
			sets = append(sets, s)
		}
		return []sequence{{sets, true}}
	case syntax.OpCharClass:
		var s byteSet
		for i := 0; i < len(re.Rune); i += 2 {
			if re.Rune[i+1] >= 0x80 && !foldOnly(re.Rune[i], re.Rune[i+1]) {
				return []sequence{{}}
			}
			for c := re.Rune[i]; c <= min(re.Rune[i+1], 0x7f); c++ {
				s.add(byte(c))
			}
		}
		return []sequence{{[]byteSet{s}, true}}
	case syntax.OpEmptyMatch, syntax.OpBeginText, syntax.OpBeginLine, syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return []sequence{{nil, true}}
	case syntax.OpCapture:
		return sequences(re.Sub[0])
	case syntax.OpQuest:
		return append(sequences(re.Sub[0]), sequence{nil, true})
	case syntax.OpPlus:
		return open(sequences(re.Sub[0]))
	case syntax.OpRepeat:
		seqs := []sequence{{nil, true}}
		for range min(re.Min, maxAnchor) {
			seqs = concat(seqs, re.Sub[0])
		}
		if re.Min == re.Max && re.Min <= maxAnchor {
			return seqs
		}
		return open(seqs)
	case syntax.OpConcat:
		seqs := []sequence{{nil, true}}
		for _, sub := range re.Sub {
			seqs = concat(seqs, sub)
		}
		return seqs
	case syntax.OpAlternate:
		var seqs []sequence
		for _, sub := range re.Sub {
			seqs = append(seqs, sequences(sub)...)
		}
		return seqs
	}
	return []sequence{{}}
}

// open says that more may follow.
func open(seqs []sequence) []sequence {
	for i := range seqs {
		seqs[i].done = false
	}
	return seqs
}

// foldOnly says that a range of a case-insensitive class is one of the two
// letters outside ASCII that fold to ASCII: no credential is spelled with them.
func foldOnly(lo, hi rune) bool { return lo == hi && (lo == 0x17f || lo == 0x212a) }

// concat lets re follow those of seqs that are done.
func concat(seqs []sequence, re *syntax.Regexp) []sequence {
	todo := 0
	for _, s := range seqs {
		if s.done {
			todo++
		}
	}
	if todo == 0 {
		return seqs
	}
	next := sequences(re)
	if len(seqs)-todo+todo*len(next) > maxBranch {
		return open(seqs)
	}
	var all []sequence
	for _, a := range seqs {
		if !a.done {
			all = append(all, a)
			continue
		}
		for _, b := range next {
			sets := append(append([]byteSet(nil), a.sets...), b.sets...)
			if len(sets) > maxAnchor {
				all = append(all, sequence{sets[:maxAnchor], false})
				continue
			}
			all = append(all, sequence{sets, b.done})
		}
	}
	return all
}

// longest is how many bytes a match of re has at most; -1: there is no limit.
func longest(re *syntax.Regexp) int {
	sum := func(n int, of int) int {
		if n < 0 || of < 0 {
			return -1
		}
		return n * of
	}
	switch re.Op {
	case syntax.OpLiteral:
		n := 0
		for _, r := range re.Rune {
			n += runeLen(r)
		}
		return n
	case syntax.OpCharClass:
		n := 0
		for i := 1; i < len(re.Rune); i += 2 {
			n = max(n, runeLen(re.Rune[i]))
		}
		return n
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return 4
	case syntax.OpCapture, syntax.OpQuest:
		return longest(re.Sub[0])
	case syntax.OpStar, syntax.OpPlus:
		return -1
	case syntax.OpRepeat:
		return sum(re.Max, longest(re.Sub[0]))
	case syntax.OpConcat:
		n := 0
		for _, sub := range re.Sub {
			l := longest(sub)
			if l < 0 {
				return -1
			}
			n += l
		}
		return n
	case syntax.OpAlternate:
		n := 0
		for _, sub := range re.Sub {
			l := longest(sub)
			if l < 0 {
				return -1
			}
			n = max(n, l)
		}
		return n
	}
	return 0
}

func runeLen(r rune) int {
	switch {
	case r < 0x80:
		return 1
	case r < 0x800:
		return 2
	case r < 0x10000:
		return 3
	}
	return 4
}

// weigh guesses how rare a window of sets is in text: the number of windows
// that it stands for, each weighed by how common its bytes are.
func weigh(sets []byteSet) float64 {
	w := 1.0
	for i := range sets {
		sum := 0.0
		sets[i].each(func(c byte) { sum += commonness[c|0x20] })
		w *= sum
	}
	return w
}

// commonness of bytes, case folded, in source and text, per thousand. Rough:
// it only serves to choose windows.
var commonness = func() (t [256]float64) {
	for i := range t {
		t[i] = 0.5
	}
	for c, n := range map[byte]float64{' ': 150, 'e': 80, 't': 65, 'a': 50, 'o': 48, 'i': 48, 'n': 48, 's': 45, 'r': 45, 'l': 30, 'd': 25, 'c': 25, 'u': 22, 'm': 18, 'p': 18, 'f': 16, 'g': 14, 'h': 20, 'b': 12, 'y': 10,
		'w': 9, 'v': 9, 'x': 7, 'k': 6, 'j': 3, 'q': 2, 'z': 2, '0': 15, '1': 10, '2': 8, '3': 6, '4': 6, '5': 5, '6': 5, '7': 4, '8': 5, '9': 4, '/': 8, '.': 10, ',': 10, '-': 8, '=': 8, ':': 6, '"': 10, '\'': 5, '(': 8, ')': 8, 0x7f: 6} {
		t[c] = n
	}
	return t
}()

const gram = 4 // bytes that the Go engine hashes

// maxGrams is how many windows one anchor may stand for.
const maxGrams = 4096

// window chooses the gram of a that is rarest; -1: none is rare enough.
func (a *anchor) window() int {
	var sets [maxAnchor]byteSet
	for i := range a.sets {
		sets[i] = folded(&a.sets[i])
	}
	best, at := 0.0, -1
	for i := 0; i+gram <= len(a.sets); i++ {
		n := 1
		for j := range gram {
			n *= sets[i+j].size()
		}
		if n > maxGrams {
			continue
		}
		if w := weigh(a.sets[i : i+gram]); at < 0 || w < best {
			best, at = w, i
		}
	}
	return at
}

// folded is what s becomes when every byte has bit 5 set.
func folded(s *byteSet) byteSet {
	low, high := s[0]|s[0]<<32, s[1]|s[1]<<32
	const odd = 0xffffffff << 32
	return byteSet{low & odd, high & odd, (s[2] | s[2]<<32) & odd, (s[3] | s[3]<<32) & odd}
}
