package screen

import (
	"bytes"
	"strconv"
	"sync"
	"unicode/utf8"

	"guard"
)

// Hit is a value in a text.
type Hit struct {
	ID         guard.SecretID
	Class      guard.Class
	Encoding   string
	Start, End int // bytes of the text
}

// Find looks for values in a text. The text is valid until it returns.
type Find func(text []byte) []Hit

// Judge decides about a value that is about to be complete on the screen.
type Judge func(Hit) guard.Decision

// Screen follows what a terminal shows and keeps values from being complete on
// it. Resize may be called from any goroutine, and so may the filter that Wrap
// returns, of which there is one.
type Screen struct {
	mu    sync.Mutex
	k     checker
	pens  pens
	m     *model   // what is shown, as far as that is known
	maybe []*model // what else may be shown: see doubt.go
	plain plain

	inner   int64 // bytes that the filter before this one holds back
	state   state
	q       seq
	str     []byte // a string, as it came
	strOut  int    // bytes of it that are out
	held    []byte // the start of a UTF-8 character
	out     []byte
	sgr     int  // bytes of SGR since the last character
	printed bool // a character was the last thing
	stop    *guard.Decision

	pr      printer
	through []byte   // what strings passed on to another terminal
	unsure  bool     // the row of the cursor is not known,
	seen    int      // but it went down by so many rows since then
	parked  []*model // maybe, while the alternate screen is shown
	messy   bool     // there would be too many of them
}

type state uint8

const (
	ground state = iota
	esc
	csi
	str    // OSC, DCS, SOS, PM, APC
	strEsc // and ESC in it
)

// New makes the screen of a terminal that was not written to. Where the cursor
// is at first is not known, and need not be.
func New(rows, cols int, find Find, judge Judge) *Screen {
	s := &Screen{}
	s.k = checker{find: find, judge: judge, fixed: true}
	s.m = newModel(rows, cols, &s.pens)
	s.m.cur.row = s.m.rows - 1
	s.k.m, s.unsure = s.m, true
	s.plain.start()
	return s
}

// Wrap returns f with what it lets out judged once more, as what it makes the
// screen show. Where a value would be complete there, its characters are
// replaced by asterisks: those that are about to be printed in place, and those
// that were printed before by a sequence that leaves cursor, colours and modes as
// they were. So what comes out may be longer than what goes in.
func (s *Screen) Wrap(f guard.Filter) guard.Filter {
	return func(p []byte, step guard.Step) ([]byte, guard.Decision) {
		out, d := f(p, step)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.inner = max(0, s.inner+int64(len(p)-len(out)))
		if s.stop != nil {
			return nil, *s.stop
		}
		s.k.worst = d
		out = s.feed(out)
		if step == guard.End && !s.k.worst.Action.Stops() {
			out = s.flush(out)
		}
		if w := s.k.worst; w.Action.Stops() {
			s.stop = &w
		}
		return out, s.k.worst
	}
}

// Held is how many bytes the filter that was wrapped holds back. What the Screen
// itself keeps, the start of a sequence or of a character, displays nothing.
func (s *Screen) Held() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inner
}

// feed returns what may go out of p. It is valid until the next call, and may be
// p itself.
func (s *Screen) feed(p []byte) []byte {
	if len(p) == 0 {
		return nil
	}
	if len(s.held) > 0 {
		p = append(s.held, p...)
		s.held = nil
	}
	n, cut := s.plainly(p)
	if cut {
		s.held = append([]byte(nil), p[n:]...)
	}
	if n == len(p) || cut {
		return p[:n]
	}
	s.out = append(s.out[:0], p[:n]...)
	p = p[n:]
	for i := 0; i < len(p) && !s.k.worst.Action.Stops(); {
		if s.state == ground {
			if s.messy && !s.m.alt {
				s.sweep()
			}
			j := s.run(p, i)
			if j > i {
				s.print(p[i:j])
				i = j
				continue
			}
			if p[i] >= utf8.RuneSelf && !utf8.FullRune(p[i:]) {
				s.held = append([]byte(nil), p[i:]...)
				break
			}
		}
		i += s.step(p[i:])
	}
	return s.out
}

// flush returns out and what is kept because it is not complete.
func (s *Screen) flush(out []byte) []byte {
	if len(s.held)+len(s.q.raw)+len(s.str) == 0 {
		return out
	}
	out = append(append([]byte(nil), out...), s.held...)
	if s.state == str || s.state == strEsc {
		out = append(out, s.str[min(s.strOut, len(s.str)):]...)
	} else if s.state != ground {
		out = append(out, s.q.raw...)
	}
	s.held, s.str, s.q.raw, s.state = nil, nil, nil, ground
	return out
}

// run returns where the text that starts at p[i] ends.
func (s *Screen) run(p []byte, i int) int {
	for i < len(p) {
		b := p[i]
		if b >= 0x20 && b < 0x7f {
			i++
			continue
		}
		if b < utf8.RuneSelf || b == 0xc2 && i+1 < len(p) && p[i+1] >= 0x80 && p[i+1] < 0xa0 || !utf8.FullRune(p[i:]) {
			break
		}
		_, n := utf8.DecodeRune(p[i:])
		i += n
	}
	return i
}

// step takes the first byte or two of p, which are not text, and returns how many
// it took.
func (s *Screen) step(p []byte) int {
	b := p[0]
	if s.state == ground && b == 0xc2 { // U+0080 to U+009F
		if l := p[1] - 0x40; l == 'D' || l == 'E' || l == 'H' || l == 'M' || l >= 'P' && l != 'Q' && l != 'R' && l != 'S' && l != 'T' && l != 'U' && l != 'Y' {
			// As a sequence of 7 bits all terminals do the same with it.
			s.begin()
			s.escaped(l)
		} else {
			s.m.seq += 2
			s.out = append(s.out, p[:2]...)
		}
		return 2
	}
	switch {
	case s.state == str || s.state == strEsc:
		return s.inString(p)
	case b == 0x1b:
		s.begin()
	case b == 0x18 || b == 0x1a:
		if s.state != ground {
			s.out = append(s.out, s.q.raw...)
			s.q.raw = s.q.raw[:0]
		}
		s.state = ground
		s.out = append(s.out, b)
	case b < 0x20:
		s.control(b)
	case b == 0x7f:
		if s.state == ground {
			s.m.seq += 2
		}
		s.out = append(s.out, b)
	case s.state == esc && b >= 0x7f || len(s.q.raw) > maxSeq:
		s.q.raw, s.state = s.q.raw[:0], ground
		return 0
	case s.state == esc:
		if b < 0x30 {
			s.q.raw = append(s.q.raw, b)
			s.q.add(b)
			break
		}
		s.escaped(b)
	case s.state == csi:
		switch {
		case b < 0x40:
			s.q.raw = append(s.q.raw, b)
			s.q.add(b)
		case b < 0x7f:
			s.q.raw = append(s.q.raw, b)
			s.finish(b)
		default: // no such byte belongs there: a terminal may end the sequence at it
			s.q.raw = s.q.raw[:0]
			s.state = ground
			s.m.seq += 2
			return 0
		}
	default:
		s.q.raw, s.state = s.q.raw[:0], ground
		return 0
	}
	return 1
}

// maxSeq bounds a sequence, and maxStr how much of a string is kept.
const (
	maxSeq = 1 << 10
	maxStr = 4 << 10
)

func (s *Screen) begin() {
	s.q.raw = append(s.q.raw[:0], 0x1b)
	s.q.start(false)
	s.state = esc
}

// escaped takes the byte after ESC and its intermediates.
func (s *Screen) escaped(b byte) {
	if s.q.n == 0 {
		switch b {
		case '[':
			s.q.raw = append(s.q.raw, b)
			s.q.start(true)
			s.state = csi
			return
		case ']', 'P', 'X', '^', '_':
			s.str, s.strOut = append(append(s.str[:0], s.q.raw...), b), 0
			s.q.raw = s.q.raw[:0]
			s.state = str
			return
		}
	}
	s.q.raw = append(s.q.raw, b)
	s.state = ground
	s.do(func(m *model, ch changer) bool { return m.escape(ch, &s.q, b) }, !s.q.calm(b), s.q.absolute(s, b))
	s.q.raw = s.q.raw[:0]
}

// finish takes the last byte of a control sequence.
func (s *Screen) finish(b byte) {
	s.q.end()
	s.state = ground
	if b == 'm' && s.q.private == 0 && s.q.n == 0 {
		if s.sgr += len(s.q.raw); s.sgr > maxBetween {
			s.m.seq += 2
		}
	}
	if b == 'b' && s.q.private == 0 && s.q.n == 0 && !s.q.bad {
		s.repeat(s.q.arg(0, 1))
		return
	}
	if rest := s.m.limit() - s.m.cur.col; b == '@' && s.q.private == 0 && s.q.n == 0 && !s.m.cur.pend && s.q.arg(0, 1) >= rest && !s.q.bad {
		// tmux does nothing then, others blank the rest of the line: as ECH it is clear.
		b = 'X'
		s.q.params = append(s.q.params[:0], param{n: rest})
		s.q.raw = append(strconv.AppendInt(append(s.q.raw[:0], "\x1b["...), int64(rest), 10), b)
	}
	s.do(func(m *model, ch changer) bool { return m.sequence(ch, &s.q, b) }, !s.q.calm(b), s.q.absolute(s, b))
	s.q.raw = s.q.raw[:0]
}

// maxBetween is how many bytes of SGR may stand between two characters that
// still count as printed in one go: the search in the stream sees over them.
const maxBetween = 64

// control does a C0 control, also in the midst of a sequence, which goes on
// after it.
func (s *Screen) control(b byte) {
	if b == 0 && s.state == ground && s.printed && string(s.m.last) == "*" {
		return // fills up a mask
	}
	raw, state := s.q.raw, s.state
	s.q.raw = []byte{b}
	if b >= '\n' && b <= '\f' {
		if s.m.cur.row == s.m.rows-1 {
			s.plain.quiet++
			s.seen++
		}
	}
	s.do(func(m *model, ch changer) bool { m.control(ch, b); return false }, b != '\n' && b != '\r' && b != '\t' && b != 7, false)
	s.q.raw, s.state = raw, state
}

// do has every model do what is in q.raw, and lets it out after what has to be
// overwritten before it. absolute: it depends on which row the cursor is in.
func (s *Screen) do(f func(*model, changer) bool, addresses, absolute bool) {
	s.printed = false
	if addresses {
		s.plain.quiet = 0
	}
	if absolute {
		s.doubt()
	}
	final := s.q.raw[len(s.q.raw)-1]
	s.branch(final)
	var region rect
	if s.m.top != 0 || s.m.bot != s.m.rows || s.m.margins {
		region = s.m.region()
	}
	for _, m := range s.maybe {
		f(m, nil)
	}
	before, alt := s.m.cur, s.m.alt
	s.k.fixes, s.k.fixed = s.k.fixes[:0], len(s.maybe) == 0
	drop := f(s.m, &s.k)
	s.overwrite(before, nil)
	if s.k.worst.Action.Stops() || drop {
		return
	}
	s.out = append(s.out, s.q.raw...)
	switch {
	case s.m.alt && !alt:
		s.parked, s.maybe = s.maybe, nil
	case alt && !s.m.alt:
		for _, m := range s.parked {
			f(m, nil)
			m.follow(s.m)
		}
		s.maybe, s.parked = append(s.maybe, s.parked...), nil
		s.messy = s.messy || len(s.maybe) > s.most()
	}
	s.branched(final, before, alt, region)
	if len(s.maybe) > 0 {
		s.certain()
	}
}

// print prints text, a row at a time.
func (s *Screen) print(p []byte) {
	s.sgr, s.printed = 0, true
	s.printOn(p)
}

// repeat does REP: the last character n times more.
func (s *Screen) repeat(n int) {
	raw, after := s.q.raw, s.printed
	s.q.raw = s.q.raw[:0]
	s.m.seq += 2
	if len(s.m.last) == 0 {
		return
	}
	r, _ := utf8.DecodeRune(s.m.last)
	text := bytes.Repeat(utf8.AppendRune(nil, r), min(n, s.m.rows*s.m.cols))
	at := len(s.out)
	s.print(text)
	// Terminals differ in what it does after anything but a character.
	if after && n <= s.m.rows*s.m.cols && bytes.Equal(s.out[at:], text) {
		s.out = append(s.out[:at], raw...)
	}
	s.printed = false
}

// Resize says that the terminal has another size now.
func (s *Screen) Resize(rows, cols int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sync()
	s.plain.on, s.plain.quiet = false, 0
	s.resize(min(max(rows, 1), maxSize), min(max(cols, 1), maxSize))
}

// Lost says that others wrote to the terminal, as while the session was stopped.
func (s *Screen) Lost() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sync()
	s.plain.on, s.plain.quiet = false, 0
	if s.m.alt {
		s.m.grid = newGrid(s.m.rows, 0)
	}
	s.lost()
}
