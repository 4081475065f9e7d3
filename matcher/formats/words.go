package formats

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"strings"
	"sync"
)

//go:embed rules/bip39.txt
var mnemonicList string

// mnemonicWords is the English list of BIP 39 with each word's number, and where in
// it, which is sorted, the words with the same first three letters are.
var mnemonicWords = sync.OnceValue(func() *wordList {
	l := &wordList{number: make(map[string]int, 2048), words: strings.Fields(mnemonicList)}
	for i, w := range l.words {
		l.number[w] = i
		k := letters(w[0], w[1], w[2])
		if l.first[k>>6]>>(k&63)&1 == 0 {
			l.first[k>>6] |= 1 << (k & 63)
			l.from[k] = uint16(i)
		}
		l.packed = append(l.packed, pack([]byte(w)))
	}
	return l
})

type wordList struct {
	words  []string
	number map[string]int
	first  [1 << 15 / 64]uint64 // bitmap by letters
	from   [1 << 15]uint16      // by letters, where first has them
	packed []uint64             // the words
}

// pack is up to eight letters as a number.
func pack(b []byte) (x uint64) {
	for _, c := range b {
		x = x<<8 | uint64(c)
	}
	return x
}

func letters(a, b, c byte) uint { return uint(a&31)<<10 | uint(b&31)<<5 | uint(c&31) }

func (l *wordList) has(b []byte) bool {
	if len(b) < 3 || len(b) > 8 {
		return false
	}
	k := letters(b[0], b[1], b[2])
	if l.first[k>>6]>>(k&63)&1 == 0 {
		return false
	}
	x := pack(b)
	for i := int(l.from[k]); i < len(l.words) && l.words[i][2] == b[2] && l.words[i][1] == b[1]; i++ {
		if l.packed[i] == x {
			return true
		}
	}
	return false
}

// validMnemonic checks the number of words, the checksum of BIP 39 (the first
// bit of SHA-256 for each 32 bits), and that the words are not a pattern, as in
// the test vectors.
func validMnemonic(b []byte) bool {
	l := mnemonicWords()
	words := strings.FieldsFunc(string(b), func(r rune) bool { return r < 'a' || r > 'z' })
	n := len(words)
	if n < 12 || n > 24 || n%3 != 0 {
		return false
	}
	bits := make([]byte, (n*11+7)/8)
	distinct, back := map[string]bool{}, 0
	for i, w := range words {
		k, ok := l.number[w]
		if !ok {
			return false
		}
		if distinct[w] {
			back++
		}
		distinct[w] = true
		for j := range 11 {
			if k>>(10-j)&1 != 0 {
				p := i*11 + j
				bits[p/8] |= 0x80 >> (p % 8)
			}
		}
	}
	if back > 1 {
		return false
	}
	data := n * 11 * 32 / 33
	sum := sha256.Sum256(bits[:data/8])
	for j := range n * 11 / 33 {
		p := data + j
		if bits[p/8]>>(7-p%8)&1 != sum[0]>>(7-j)&1 {
			return false
		}
	}
	return true
}

// mnemonic makes one of entropy bytes: 16 for 12 words, 32 for 24.
func mnemonic(entropy []byte) string {
	l := mnemonicWords()
	sum := sha256.Sum256(entropy)
	bits := append(append([]byte(nil), entropy...), sum[0])
	n := len(entropy) * 8 * 33 / 32 / 11
	words := make([]string, n)
	for i := range words {
		k := 0
		for j := range 11 {
			p := i*11 + j
			k = k<<1 | int(bits[p/8]>>(7-p%8)&1)
		}
		words[i] = l.words[k]
	}
	return strings.Join(words, " ")
}

const (
	wordStride = 24 // of 12 words those inside take 39 bytes at least
	runStride  = 48
	runMin     = 51
	runMax     = 58
	// finderAhead is how far behind the end of a stream the finders stay.
	finderAhead = 32
)

// wordy are the bytes of words of the list and between them, alnum letters and digits.
var wordy, alnum = func() (w, a [256]bool) {
	for i := range w {
		c := byte(i)
		w[i], a[i] = isLower(c) || isSeparator(c), isAlnum(c)
	}
	return w, a
}()

func isSeparator(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' || c == ',' }

func isLower(c byte) bool { return c >= 'a' && c <= 'z' }

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}

// runs calls found with where runs of 51 to 58 letters and digits begin, for
// those that hold a byte b[i], from <= i < to, with base+i a multiple of the
// stride.
func runs(b []byte, base int64, from, to int, found func(at int)) {
	for i := from + int((runStride-(base+int64(from))%runStride)%runStride); i < to; i += runStride {
		// A run has so many bytes on one side of b[i] or on the other.
		if !alnum[b[i]] || i >= 8 && i+44 <= len(b) && !(alnum[b[i-8]] && alnum[b[i-4]] && alnum[b[i-1]]) &&
			!(alnum[b[i+7]] && alnum[b[i+21]] && alnum[b[i+43]]) {
			continue
		}
		s, e := i, i+1
		for s > 0 && i-s < runStride && isAlnum(b[s-1]) {
			s--
		}
		if i-s >= runStride || s > 0 && isAlnum(b[s-1]) {
			continue // began before the last multiple, or too long
		}
		switch b[s] {
		case '5', 'K', 'L', 'S':
		default:
			continue
		}
		for e < len(b) && e-s <= runMax && isAlnum(b[e]) {
			e++
		}
		if n := e - s; n <= runMax && (n >= runMin || e == len(b)) {
			found(s)
		}
	}
}

// words calls found with where runs of words of the list begin.
func (l *wordList) runs(b []byte, base int64, from, to int, found func(at int)) {
	last := -1
	for i := from + int((wordStride-(base+int64(from))%wordStride)%wordStride); i < to; i += wordStride {
		if !wordy[b[i]] || i >= 6 && !wordy[b[i-6]] {
			continue
		}
		// Of a run of 47 bytes, the first of these places that is 6 bytes from its
		// beginning is 18 from its end.
		if i >= 6 && i+wordAhead <= len(b) && !allWordy(b[i+1:i+wordAhead]) {
			continue
		}
		s, e, ok := l.wordAt(b, i)
		if !ok {
			continue
		}
		// The words next to it.
		first, n := s, 1
		for n <= maxRun {
			p, ok := l.before(b, first)
			if !ok {
				break
			}
			first = p
			n++
		}
		if n < 2 {
			continue
		}
		if next, ok := skipSeparators(b, e); ok && next < len(b) {
			if _, _, ok := l.wordAt(b, next); !ok && next+8 < len(b) {
				continue
			}
		}
		if first != last {
			found(first)
			last = first
		}
	}
}

const wordAhead = 18

func allWordy(b []byte) bool {
	for _, c := range b {
		if !wordy[c] {
			return false
		}
	}
	return true
}

// wordAt is the word of the list that b[i] is in, or that comes after the
// separators at b[i].
func (l *wordList) wordAt(b []byte, i int) (s, e int, ok bool) {
	if isSeparator(b[i]) {
		if i, ok = skipSeparators(b, i); !ok || i >= len(b) {
			return 0, 0, false
		}
	}
	s, e = i, i
	for s > 0 && isLower(b[s-1]) && i-s < 9 {
		s--
	}
	for e < len(b) && isLower(b[e]) && e-s < 9 {
		e++
	}
	return s, e, l.has(b[s:e])
}

func skipSeparators(b []byte, i int) (int, bool) {
	n := 0
	for i < len(b) && isSeparator(b[i]) && n < 4 {
		i++
		n++
	}
	return i, n > 0
}

// before is where the word of the list that comes before b[s] begins.
func (l *wordList) before(b []byte, s int) (int, bool) {
	i, n := s, 0
	for i > 0 && isSeparator(b[i-1]) && n < 4 {
		i--
		n++
	}
	if n == 0 || i == 0 {
		return 0, false
	}
	e := i
	for i > 0 && isLower(b[i-1]) && e-i < 9 {
		i--
	}
	return i, l.has(b[i:e])
}

// maxRun is how many words of the list in a row are looked at.
const maxRun = 60

// run returns the words of the list in a row that begin at b[i]. ends is
// false where more bytes could change that.
func (l *wordList) run(b []byte, i int) (list []span, ends bool) {
	for len(list) < maxRun {
		e := i
		for e < len(b) && isLower(b[e]) && e-i < 9 {
			e++
		}
		if !l.has(b[i:e]) {
			return list, e < len(b) || e-i >= 9
		}
		if e == len(b) {
			return append(list, span{int64(i), int64(e)}), false
		}
		next, ok := skipSeparators(b, e)
		if !ok && (isAlnum(b[e]) || b[e] == '_' || b[e] == '-') {
			return list, true // it goes on, and is none
		}
		list = append(list, span{int64(i), int64(e)})
		if !ok {
			return list, true
		}
		if next == len(b) {
			return list, false
		}
		i = next
	}
	return list, true
}

// mnemonics are the parts of a run that could be one: all of it, or what line
// breaks delimit.
func mnemonics(b []byte, list []span) (parts [][]span) {
	fits := func(p []span) bool { return len(p) >= 12 && len(p) <= 24 && len(p)%3 == 0 }
	if fits(list) {
		return [][]span{list}
	}
	from := 0
	for i := range list {
		if i == len(list)-1 || bytes.IndexByte(b[list[i].end:list[i+1].start], '\n') >= 0 {
			if p := list[from : i+1]; fits(p) {
				parts = append(parts, p)
			}
			from = i + 1
		}
	}
	return parts
}
