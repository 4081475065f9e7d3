package matcher

import (
	"compress/flate"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"io"
	"iter"

	"github.com/andybalholm/brotli"
)

const (
	magicBytes = 4        // so many say that something is compressed
	maxOpen    = 2        // members at a time
	maxHeld    = maxSpan  // bytes of a member that are held back until it ends
	maxMember  = 64 << 20 // bytes of a member that are decompressed,
	maxBrotli  = 1 << 20  // and of one in brotli
	maxRatio   = 32       // bytes that come out for one of the stream, after the first
	freeBytes  = 1 << 20  // bytes
)

// allowance is what may come out of members one after the other, with what is in them:
// else each could be a bomb again.
type allowance struct{ made, limit int64 } // bytes

// upTo has so much come out as the stream up to offset end is good for.
func (a *allowance) upTo(end int64) { a.limit = max(a.limit, freeBytes+maxRatio*end) }

func (a *allowance) over() bool { return a.made > a.limit }

// isMagic says whether b begins like gzip (RFC 1952), zlib (RFC 1950), Zstandard
// (RFC 8878) or a member of a zip file (APPNOTE.TXT, 4.3.7) that is compressed:
// decoded for yes, no, or more.
func isMagic(b []byte) verdict {
	if len(b) == 0 {
		return more
	}
	var want string
	switch b[0] {
	case 0x1f:
		want = "\x1f\x8b\x08"
	case 0x28:
		want = "\x28\xb5\x2f\xfd"
	case 'P':
		want = "PK\x03\x04"
	case 'x':
		switch {
		case len(b) < 2:
			return more
		case b[1] != 0x01 && b[1] != 0x5e && b[1] != 0x9c && b[1] != 0xda:
			return no
		case len(b) < 3:
			return more
		}
		// What a block begins with; "x^2" is more often text.
		if k := b[2] & 7; k > 5 || b[1] == 0x5e && k < 3 {
			return no
		}
		return decoded
	default:
		return no
	}
	for i := range want {
		if i == len(b) {
			return more
		}
		if b[i] != want[i] {
			return no
		}
	}
	return decoded
}

// mayBeMagic says that something compressed may begin with the first n bits of c.
func mayBeMagic(c byte, n int) bool {
	for _, first := range [...]byte{0x1f, 0x28, 'P', 'x'} {
		if (first^c)>>(8-n) == 0 {
			return true
		}
	}
	return false
}

// members opens what is compressed in a text, as it comes.
type members struct {
	depth  int
	as     string
	opened []*member
	tail   []byte // the last bytes, fewer than magicBytes
	where  [magicBytes]int64
	small  int  // of zlib that were opened
	told   bool // whether it begins in brotli
	spares spares
	slots  [maxOpen]allowance // of what is open at the same time
	own    *allowance         // where something else has it: a lane,
	up     *allowance         // or the member that this is in
}

func newMembers(depth int, as string) *members { return &members{depth: depth, as: as} }

// begin opens what s.b[from:to] begins with.
func (ms *members) begin(set *set, s *text, from, to int, hits []Hit) []Hit {
	if m := ms.member(s.raw(from), s.b[from:to]); m != nil {
		ms.opened = append(ms.opened, m)
	}
	return ms.feed(set, s, from, to, hits)
}

// feed gives s.b[from:to] to what is open.
func (ms *members) feed(set *set, s *text, from, to int, hits []Hit) []Hit {
	kept := ms.opened[:0]
	for _, m := range ms.opened {
		if hits = m.feed(set, s, from, to, hits); m.done {
			m.wipe()
		} else {
			kept = append(kept, m)
		}
	}
	clear(ms.opened[len(kept):])
	ms.opened = kept
	return hits
}

func (ms *members) write(set *set, prev, s *text, from, to int, c *classes, hits []Hit) []Hit {
	if from == to {
		return hits
	}
	if len(ms.opened) > 0 {
		hits = ms.feed(set, s, from, to, hits)
	}
	if c == nil {
		return hits
	}
	b := s.b
	if !ms.told && ms.as == "" {
		var room [2 * magicBytes]byte
		head := append(append(room[:0], ms.tail...), b[from:min(to, from+magicBytes)]...)
		if v := looksBrotli(head); v != more {
			ms.told = true
			if v == decoded {
				hits = ms.open(ms.member(s.raw(from)-int64(len(ms.tail)), nil), set, 0, s, from, to, hits)
			}
		}
	}
	// One that began in the bytes before.
	for k := range ms.tail {
		if isMagic(ms.tail[k:]) != more {
			continue
		}
		var room [2 * magicBytes]byte
		head := append(append(room[:0], ms.tail[k:]...), b[from:min(to, from+magicBytes)]...)
		if isMagic(head) == decoded && len(ms.opened) < maxOpen {
			hits = ms.open(ms.member(ms.where[k], head), set, k, s, from, to, hits)
		}
	}
	for at := c.next(classHead, from); at < to; at = c.next(classHead, at+1) {
		if isMagic(b[at:to]) != decoded || !plausible(b[at:to]) || len(ms.opened) >= maxOpen || !ms.mayOpen(b[at], s.raw(at)) || ms.spares.nothing(b[at:to]) {
			continue
		}
		hits = ms.open(ms.member(s.raw(at), b[at:to]), set, len(ms.tail), s, at, to, hits)
	}
	n := min(to-from, magicBytes-1)
	old := ms.tail
	var room [2 * magicBytes]byte
	var where [2 * magicBytes]int64
	tail := append(room[:0], old...)
	copy(where[:], ms.where[:len(old)])
	for i := to - n; i < to; i++ {
		where[len(tail)] = s.raw(i)
		tail = append(tail, b[i])
	}
	cut := max(0, len(tail)-(magicBytes-1))
	ms.tail = append(old[:0], tail[cut:]...)
	copy(ms.where[:], where[cut:len(tail)])
	return hits
}

// open gives m the bytes before this write from tail[k] on, and s.b[from:to].
func (ms *members) open(m *member, set *set, k int, s *text, from, to int, hits []Hit) []Hit {
	if m == nil {
		return hits
	}
	before := text{b: ms.tail[k:]}
	for i := range before.b {
		before.segs = append(before.segs, seg{at: i, raw: ms.where[k+i]})
	}
	if len(before.b) > 0 {
		hits = m.feed(set, &before, 0, len(before.b), hits)
	}
	if hits = m.feed(set, s, from, to, hits); m.done {
		m.wipe()
	} else {
		ms.opened = append(ms.opened, m)
	}
	return hits
}

// member opens what begins with head at offset start; nil: as much came out before as may.
func (ms *members) member(start int64, head []byte) *member {
	a, slot := ms.up, 0
	if a == nil {
		if a = ms.own; a == nil {
			for _, m := range ms.opened {
				if m.slot == slot {
					slot = 1
				}
			}
			a = &ms.slots[slot]
		}
		if a.upTo(start); a.over() {
			return nil
		}
	}
	m := newMember(&ms.spares, ms.depth, ms.as, start, head)
	m.slot, m.allowed, m.inner, m.out.up = slot, a, ms.up != nil, a
	return m
}

// mayOpen says whether one more that begins with c may be opened at raw: of zlib,
// whose beginning is two bytes, there are no more than one in 256 bytes, after the first.
func (ms *members) mayOpen(c byte, raw int64) bool {
	if c != 'x' {
		return true
	}
	ms.small++
	return int64(ms.small) <= 256+raw/256
}

// looksBrotli says whether a stream that begins with b may be in brotli (RFC 7932),
// which has no magic: whether it is no text.
func looksBrotli(b []byte) verdict {
	if len(b) == 0 {
		return more
	}
	if c := b[0]; c >= ' ' && c < 0x7f && c != '!' || c == '\n' || c == '\r' || c == '\t' || isMagic(b) != no {
		return no
	}
	for i, c := range b[:min(len(b), magicBytes)] {
		switch {
		case c == 0x1b || c == '\b' || c == '\n' || c == '\r' || c == '\t':
		case c < ' ':
			return decoded
		case i == 1 && b[0] == 0x1b && (c == '[' || c == ']' || c == '('):
			return no
		}
	}
	if len(b) < magicBytes {
		return more
	}
	return no
}

func (ms *members) safe(to int64) int64 {
	if !ms.told && ms.as == "" && len(ms.tail) > 0 {
		to = min(to, ms.where[0])
	}
	for k := range ms.tail {
		if isMagic(ms.tail[k:]) == more {
			to = min(to, ms.where[k])
		}
	}
	for _, m := range ms.opened {
		if m.read <= maxHeld {
			to = min(to, m.start)
		}
	}
	return to
}

func (ms *members) finish(set *set, end int64, hits []Hit) []Hit {
	for _, m := range ms.opened {
		m.eof = true
		hits = m.feed(set, &text{}, 0, 0, hits)
		m.wipe()
	}
	ms.opened = ms.opened[:0]
	return hits
}

func (ms *members) adopt(set *set, hits []Hit) []Hit {
	for _, m := range ms.opened {
		n := len(hits)
		hits = m.place(n, m.out.adopt(set, hits))
	}
	return hits
}

func (ms *members) reset() {
	for _, m := range ms.opened {
		m.wipe()
	}
	ms.opened, ms.tail, ms.told = ms.opened[:0], ms.tail[:0], false
}

func (ms *members) wipe() {
	ms.reset()
	clear(ms.tail[:cap(ms.tail)])
	ms.spares.drop()
}

// member is one that is open. Its decompressor runs as a coroutine: it goes on
// where it stopped for want of bytes.
type member struct {
	name    string
	start   int64
	read    int64 // bytes
	made    int64
	end     int64 // after the last one read
	slot    int
	inner   bool // it is in another one
	allowed *allowance
	in      []byte
	eof     bool
	done    bool
	frame   zstdFrame
	out     *lane
	resume  func() ([]byte, bool)
	stop    func()
}

var errStop = errors.New("stopped")

// newMember opens what begins with head; nil: brotli.
func newMember(sp *spares, depth int, as string, start int64, head []byte) *member {
	m := &member{start: start, end: start}
	kind := byte(0)
	if len(head) > 0 {
		kind = head[0]
	}
	switch m.name = "br"; kind {
	case 0x1f:
		m.name = "gzip"
	case 'x':
		m.name = "zlib"
	case 0x28:
		m.name = "zstd"
	case 'P':
		m.name = "zip"
	}
	m.out = newLane(max(depth-1, 0), under(as, m.name))
	m.resume, m.stop = iter.Pull(func(yield func([]byte) bool) { m.run(sp, kind, yield) })
	return m
}

// run yields what comes out, and nil where more has to come in.
func (m *member) run(sp *spares, kind byte, yield func([]byte) bool) {
	defer func() {
		if recover() != nil { // a decompressor that cannot take what it got
			m.eof = true
		}
	}()
	src := &feeder{m, yield}
	var r io.Reader
	var err error
	var back func() // what is not in use any more; not after a panic
	switch kind {
	case 0x1f:
		z := sp.gzipReader()
		back = func() { sp.gzip = append(sp.gzip, z) }
		if err = z.Reset(src); err == nil {
			z.Multistream(false)
			r = z
		}
	case 'x':
		z := sp.zlibReader()
		back = func() { sp.zlib = append(sp.zlib, z) }
		err = z.(zlib.Resetter).Reset(src, nil)
		r = z
	case 'P':
		z := sp.flateReader()
		back = func() { sp.flate = append(sp.flate, z) }
		r, err = zipMember(src, z)
	case 0x28:
		m.frame = zstdFrame{on: true}
		z := sp.zstdReader()
		back = func() { sp.zstd = append(sp.zstd, z) }
		err = z.Reset(src)
		r = z
	default:
		back = func() {}
		r = brotli.NewReader(src)
	}
	if err == nil {
		buf := sp.buf()
		for {
			n, err := r.Read(buf)
			if n > 0 && !yield(buf[:n]) || err != nil {
				break
			}
		}
		clear(buf)
		sp.bufs = append(sp.bufs, buf)
	}
	back()
}

// feeder hands a member's bytes to its decompressor, one by one where that asks
// for them so: then it has not read further than it had to.
type feeder struct {
	m     *member
	yield func([]byte) bool
}

func (f *feeder) ReadByte() (byte, error) {
	var c [1]byte
	if _, err := f.Read(c[:]); err != nil {
		return 0, err
	}
	return c[0], nil
}

func (f *feeder) Read(p []byte) (int, error) {
	m := f.m
	if len(p) == 0 {
		return 0, nil
	}
	for len(m.in) == 0 {
		if m.eof {
			return 0, io.ErrUnexpectedEOF
		}
		if !f.yield(nil) {
			return 0, errStop
		}
	}
	if m.name == "br" && m.read >= maxBrotli {
		return 0, errStop
	}
	n := 1 // so that what comes out depends on the bytes alone
	if m.frame.on {
		if n = m.frame.next(m.in[0]); n == 0 {
			return 0, io.EOF
		}
		n = 1
	}
	p[0] = m.in[0]
	m.in = m.in[n:]
	m.read++
	return n, nil
}

// feed decompresses s.b[from:to] and looks at what comes out.
func (m *member) feed(set *set, s *text, from, to int, hits []Hit) []Hit {
	m.in = s.b[from:to]
	for !m.done {
		out, ok := m.resume()
		if read := to - from - len(m.in); read > 0 {
			m.end = s.end(from + read - 1)
		}
		if !m.inner {
			m.allowed.upTo(m.end)
		}
		n := len(hits)
		if !ok || m.made > maxMember || m.allowed.over() {
			m.done = true
			hits = m.place(n, m.out.close(set, m.made, hits))
			break
		}
		if out == nil {
			break
		}
		l := m.out
		l.segs = append(l.segs, seg{at: len(l.b), raw: m.made, kind: markDecoded})
		l.b = append(l.b, out...)
		m.made += int64(len(out))
		m.allowed.made += int64(len(out))
		hits = m.place(n, l.flush(set, hits))
	}
	m.in = nil
	return hits
}

// place has hits[n:], which are where they are in what came out, cover all of
// the member so far: it cannot be repaired.
func (m *member) place(n int, hits []Hit) []Hit {
	for i := n; i < len(hits); i++ {
		hits[i].Start, hits[i].End = m.start, m.end
	}
	return hits
}

func (m *member) wipe() {
	m.stop()
	m.done = true
	m.out.erase()
}

// zipMember reads the header of a member and returns what is in it.
func zipMember(src *feeder, z io.ReadCloser) (io.Reader, error) {
	var h [30]byte
	if _, err := io.ReadFull(src, h[:]); err != nil {
		return nil, err
	}
	if h[6]&1 != 0 {
		return nil, errStop // encrypted
	}
	skip := int64(binary.LittleEndian.Uint16(h[26:])) + int64(binary.LittleEndian.Uint16(h[28:]))
	if _, err := io.CopyN(io.Discard, src, skip); err != nil {
		return nil, err
	}
	if method := binary.LittleEndian.Uint16(h[8:]); method != 8 {
		return nil, errStop // stored: it is there as it is
	}
	return z, z.(flate.Resetter).Reset(src, nil)
}

// zstdFrame follows a frame to its end (RFC 8878, 3.1.1), which its decoder
// would read beyond.
type zstdFrame struct {
	on    bool
	n     int // bytes so far of what is read now
	state int // 0 magic, 1 descriptor, 2 rest of the header, 3 block header, 4 block, 5 checksum, 6 end
	need  int
	sum   bool
	last  bool
	block uint32
}

// next takes c and returns 1, or 0 if the frame ended before it.
func (f *zstdFrame) next(c byte) int {
	if f.state == 6 {
		return 0
	}
	f.n++
	switch f.state {
	case 0:
		if f.n == magicBytes {
			f.state, f.n = 1, 0
		}
	case 1:
		f.need = [4]int{0, 1, 2, 4}[c&3]
		if single := c&0x20 != 0; !single {
			f.need++
		} else if c>>6 == 0 {
			f.need++
		}
		f.need += [4]int{0, 2, 4, 8}[c>>6]
		f.sum = c&4 != 0
		f.state, f.n = 2, 0
		if f.need == 0 {
			f.state = 3
		}
	case 2:
		if f.n == f.need {
			f.state, f.n, f.block = 3, 0, 0
		}
	case 3:
		f.block |= uint32(c) << (8 * (f.n - 1))
		if f.n < 3 {
			break
		}
		f.last = f.block&1 != 0
		f.need = int(f.block >> 3)
		if f.block>>1&3 == 1 {
			f.need = 1
		}
		f.state, f.n, f.block = 4, 0, 0
		if f.need == 0 {
			f.after()
		}
	case 4:
		if f.n == f.need {
			f.after()
		}
	case 5:
		if f.n == 4 {
			f.state = 6
		}
	}
	return 1
}

// after is what follows a block.
func (f *zstdFrame) after() {
	f.n = 0
	switch {
	case !f.last:
		f.state = 3
	case f.sum:
		f.state = 5
	default:
		f.state = 6
	}
}
