package matcher

import (
	"bytes"
	"encoding/binary"
)

// engine finds every occurrence of every needle, also overlapping ones, in one
// block. Many goroutines may scan at once; none while or after close.
type engine interface {
	scan(b []byte, out []match) ([]match, error) // appends, in any order
	close()
}

const goName = "go"

// engines are the ways to make one, by name; the first is what New takes.
func engines() []engineMaker {
	all := []engineMaker{{goName, func(needles [][]byte) (engine, error) { return newGoEngine(needles), nil }}}
	if name := engineVersion(); name != goName {
		all = append(all, engineMaker{name, newEngine})
	}
	return all
}

type engineMaker struct {
	name string
	make func(needles [][]byte) (engine, error)
}

// match is one occurrence: needles[needle] ends before b[end].
type match struct {
	needle, end int
}

// goEngine hashes windows of the text at a stride. A window of q bytes at each
// multiple of the stride s meets every occurrence of a needle of q+s-1 bytes
// or more exactly once, if the s windows at s consecutive offsets of the needle
// are in the table. (Sampled q-grams as in Wu and Manber, "A fast algorithm for
// multi-pattern searching", 1994, turned round.) Since what a search costs is
// how many windows it looks at, the stride is as long as the shortest needle
// allows, and needles of less than longNeedle bytes have a sampler of their own.
type goEngine struct {
	needles  [][]byte
	samplers []*sampler // one, or two
}

// sampler looks for some of the needles.
type sampler struct {
	table  *grams
	needle [][]byte // all of the engine's
	gram   int      // bytes, 4 to 8
	stride int
	mask   uint64 // of a window in 8 bytes
	narrow bool   // there are needles that are told by a window alone,
	wide   int    // and by more: the sum of those of widths that are in use
}

const (
	maxGram    = 8
	minGram    = 4
	longNeedle = 15        // bytes: windows of 8 bytes at a stride of 8
	maxStride  = 16        // as far as it pays: each doubles the windows of a needle
	roomy      = 128 << 10 // windows: more of them at a stride of more than 8 crowd the cache
	single     = 16 << 10  // windows of fewer than 8 bytes, of all needles: more of them are met in noise,
	fewest     = 4 << 10   // and of 4 bytes
)

func newGoEngine(needles [][]byte) *goEngine {
	g := &goEngine{needles: needles}
	var short, long []int
	least, leastLong := maxNeedle, maxNeedle
	for i, b := range needles {
		least = min(least, len(b))
		if len(b) < longNeedle {
			short = append(short, i)
		} else {
			leastLong = min(leastLong, len(b))
			long = append(long, i)
		}
	}
	most := single
	if least < minGram+maxGram {
		most = fewest
	}
	if len(short) > 0 && len(long) > 0 && least >= minGram+6 && len(needles)*maxGram <= most {
		// One sampler looks at fewer windows than two.
		short = make([]int, len(needles))
		for i := range short {
			short[i] = i
		}
		long = nil
	}
	if len(short) > 0 {
		g.add(short, least)
	}
	if len(long) > 0 {
		g.add(long, leastLong)
	}
	return g
}

// add makes a sampler of needles, the shortest of which has least bytes.
func (g *goEngine) add(which []int, least int) {
	s := &sampler{needle: g.needles}
	s.gram = min(max(least-maxGram+1, minGram), maxGram)
	if s.stride = least - s.gram + 1; s.stride > maxGram {
		s.stride = min(s.stride, maxStride, max(maxGram, roomy/len(which)))
	}
	s.mask = ^uint64(0) >> (64 - 8*s.gram)
	s.table = newGrams(len(which) * s.stride)
	for _, i := range which {
		s.insert(g.needles[i], i)
	}
	g.samplers = append(g.samplers, s)
}

// window is the one at b[i], which may lie at the end of b.
func (s *sampler) window(b []byte, i int) (x uint64) {
	if i+8 <= len(b) {
		return binary.LittleEndian.Uint64(b[i:]) & s.mask
	}
	for k, c := range b[i : i+s.gram] {
		x |= uint64(c) << (8 * k)
	}
	return x
}

// wider is how many bytes tell a needle of n bytes from others: as many as all
// its windows have. An encoding that spells each byte in six has few different
// windows of eight bytes, and a thousand needles in each.
func (s *sampler) wider(n int) int {
	for _, w := range widths {
		if w <= n-s.stride+1 {
			return w
		}
	}
	return s.gram
}

// insert puts stride windows of b into the table: the middle ones, or, of a short
// needle, those at the end or the beginning if fewer other needles share them, as
// tokens of one kind share a prefix.
func (s *sampler) insert(b []byte, needle int) {
	wide := s.wider(len(b))
	last := len(b) - (s.stride + wide - 1)
	best, least := last/2, -1
	for _, from := range []int{last / 2, last, 0} {
		if wide > s.gram {
			break
		}
		n := 0
		for i := from; i < from+s.stride; i++ {
			if x := s.window(b, i); s.table.maybe(x) {
				n += s.table.count(x)
			}
		}
		if least < 0 || n < least {
			best, least = from, n
		}
	}
	for i := best; i < best+s.stride; i++ {
		x := s.window(b, i)
		s.table.mark(x)
		if wide > s.gram {
			x = wideKey(b[i : i+wide])
		}
		s.table.add(x, needle, i)
	}
	if wide == s.gram {
		s.narrow = true
	} else {
		s.wide |= wide
	}
}

func (g *goEngine) scan(b []byte, out []match) ([]match, error) {
	for _, s := range g.samplers {
		out = s.scan(b, out)
	}
	return out, nil
}

func (s *sampler) scan(b []byte, out []match) []match {
	i := 0
	for {
		var x uint64
		if i = s.table.next(b, i, s.stride, s.mask); i+8 > len(b) {
			break
		}
		if x = binary.LittleEndian.Uint64(b[i:]) & s.mask; s.table.maybe(x) {
			out = s.verify(x, b, i, out)
		}
		i += s.stride
	}
	for ; i+s.gram <= len(b); i += s.stride {
		if x := s.window(b, i); s.table.maybe(x) {
			out = s.verify(x, b, i, out)
		}
	}
	return out
}

// verify compares the needles that have x, and more, with the text around b[i].
func (s *sampler) verify(x uint64, b []byte, i int, out []match) []match {
	if s.narrow {
		out = s.compare(x, b, i, out)
	}
	for _, w := range widths {
		if s.wide&w != 0 && i+w <= len(b) {
			out = s.compare(wideKey(b[i:i+w]), b, i, out)
		}
	}
	return out
}

func (s *sampler) compare(key uint64, b []byte, i int, out []match) []match {
	t := s.table
	head, tag := t.head(key)
	for j := *head; j != 0; j = t.places[j-1].next {
		at := &t.places[j-1]
		if at.tag != tag {
			continue
		}
		d, from := s.needle[at.needle], i-int(at.off)
		if from >= 0 && from+len(d) <= len(b) && bytes.Equal(b[from:from+len(d)], d) {
			out = append(out, match{int(at.needle), from + len(d)})
		}
	}
	return out
}

func (g *goEngine) close() {
	for _, s := range g.samplers {
		s.table.wipe()
	}
}

// slowScan needs no table: for when an engine fails in the middle of a stream.
func slowScan(needles [][]byte, b []byte, out []match) []match {
	for i, d := range needles {
		for from := 0; ; from++ {
			j := bytes.Index(b[from:], d)
			if j < 0 {
				break
			}
			from += j
			out = append(out, match{i, from + len(d)})
		}
	}
	return out
}
