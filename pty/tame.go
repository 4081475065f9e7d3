package pty

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// tame takes out of a stream of output what would have the user's terminal type
// text of the agent's choice, into whatever reads the terminal next, as if the
// user had:
//
//	ENQ                     the answerback string
//	CSI 20 t, CSI 21 t      the title, which OSC 0 sets
//	CSI ... * y             checksums of the screen (DECRQCRA)
//	DCS ... $ q             DECRQSS, which some answer with the question
//	DCS ... |               DECUDK, text for a key
//	DCS @                   kitty's remote control, which can type
//	OSC 52 ; ... ; ?        the clipboard; OSC 5522 type=read
//	OSC n ; ?               other settings, but for colours and the like, whose answers have a fixed form
//	OSC 1337 ; ReportVariable, RequestUpload
//
// and, with clipboard, what writes the clipboard. C1 controls count in all their
// forms: ESC and a letter, the byte alone where it is not inside a UTF-8
// character, and U+0080 to U+009F as UTF-8. A control that starts inside a string
// (the passthrough of tmux and screen) is a control. Everything else stays as it
// is, byte for byte.
//
// A sequence is kept until it can be judged. If release shows its start before
// that, and it turns out to be one of these, CAN takes the place of the rest. Where
// one of these is dropped in the midst of another sequence, that one goes on, as it
// does for the terminal: so what is displayed is again what this would let pass, and
// a second tame after it drops nothing.
// (xterm ctlseqs; https://vt100.net/emu/dec_ansi_parser.)
type tame struct {
	clipboard bool // also drop writes of the clipboard
	mark      bool // put CAN and '?' where something was dropped, so that what is before and after it does not join

	kind  byte     // of the sequence at hand: 0 none, 'e' ESC, '2' 0xc2, or '[', ']', 'P'; 'd' a string that is dropped, 'D' a CSI
	bel   bool     // BEL ends the dropped string
	seq   []byte   // the sequence at hand, as it came
	args  []byte   // what is after its introducer
	shown int      // bytes of seq that were shown
	told  bool     // release was called since the last byte came
	st    bool     // an ST that follows ended a string that was dropped
	outer struct { // what the sequence at hand cut short, all of it shown
		kind      byte
		seq, args []byte
	}
	last  [3]byte
	out   []byte
	asked time.Time // when a question whose answer has a fixed form was shown
}

// What a sequence may have before it can be judged; a longer one is dropped.
const maxArgs = 256

// feed returns what of p may be displayed now; it is valid until the next call.
func (t *tame) feed(p []byte) []byte {
	if len(p) == 0 {
		return nil
	}
	t.told = false
	if t.kind == 0 {
		i := t.plain(p)
		if i == len(p) {
			t.remember(p)
			return p
		}
	}
	t.out = t.out[:0]
	for len(p) > 0 {
		if t.kind == 0 {
			i := t.plain(p)
			t.out = append(t.out, p[:i]...)
			t.remember(p[:i])
			if p = p[i:]; len(p) == 0 {
				break
			}
		}
		t.step(p[0])
		t.remember(p[:1])
		p = p[1:]
	}
	return t.out
}

// waiting says whether something is kept.
func (t *tame) waiting() bool { return !t.told && t.shown < len(t.seq) }

// release returns what is kept, of which no more came in time, but for what is
// known to be dropped.
func (t *tame) release() []byte {
	t.told = true
	if t.kind == ']' && t.badOSC() {
		return nil
	}
	p := t.seq[t.shown:]
	if len(p) > 0 {
		t.outer.kind = 0
	}
	t.shown = len(t.seq)
	return p
}

func (t *tame) remember(p []byte) {
	if n := len(p); n >= 3 {
		copy(t.last[:], p[n-3:])
	} else {
		copy(t.last[:], t.last[n:])
		copy(t.last[3-n:], p)
	}
}

// plain returns how much of p is neither a control that matters nor the start
// of one that has to be looked at step by step.
func (t *tame) plain(p []byte) int {
	for i := 0; i < len(p); i++ {
		b := p[i]
		switch {
		case b < 0x80 && ordinary[b]:
			i += ordinaries(p[i+1:])
		case ordinary[b]:
		case b == 0x1b:
			n := harmless(p[i:])
			if n == 0 {
				return i
			}
			i += n - 1
		case b == 0x05 || b == 0xc2:
			return i
		case !t.inside(p, i):
			return i
		}
	}
	return len(p)
}

// ordinary are the bytes that start nothing, wherever they are.
var ordinary = func() (is [256]bool) {
	for b := range is {
		is[b] = b != 0x05 && b != 0x1b && b != 0xc2 && c1(byte(b)) == 0
	}
	return is
}()

// ordinaries is how many bytes p begins with that are ASCII and neither ENQ nor ESC,
// at least: eight are looked at together.
func ordinaries(p []byte) (n int) {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	for ; len(p)-n >= 8; n += 8 {
		x := binary.LittleEndian.Uint64(p[n:])
		enq, esc := x^0x05*ones, x^0x1b*ones
		// A bit is set for each byte that is 0, if no higher byte of x is ASCII's end.
		if m := (x | (enq-ones)&^enq | (esc-ones)&^esc) & high; m != 0 {
			return n + bits.TrailingZeros64(m)/8
		}
	}
	return n
}

// harmless returns the length of the control sequence that p starts with, if it
// is whole, short, and of those that most output is full of: colours, and moving
// and erasing, with digits alone. It is 0 for any other.
func harmless(p []byte) int {
	if len(p) < 3 || p[1] != '[' {
		return 0
	}
	for i, b := range p[2:min(len(p), 32)] {
		switch {
		case b >= '0' && b <= ';':
		case b >= 'A' && b <= 'M', b == 'P', b == 'X', b == 'd', b == 'm':
			return i + 3
		default:
			return 0
		}
	}
	return 0
}

// c1 returns the letter that makes b with ESC, for those that matter.
func c1(b byte) byte {
	switch b {
	case 0x90, 0x9b, 0x9d:
		return b - 0x40
	}
	return 0
}

// inside says whether p[i], from 0x80 to 0xbf, continues a UTF-8 character.
func (t *tame) inside(p []byte, i int) bool {
	for k := 1; k <= 3; k++ {
		var b byte
		if i-k >= 0 {
			b = p[i-k]
		} else {
			b = t.last[len(t.last)+i-k]
		}
		switch {
		case b >= 0x80 && b < 0xc0:
		case b >= 0xc2 && b < 0xe0:
			return k < 2
		case b >= 0xe0 && b < 0xf0:
			return k < 3
		case b >= 0xf0 && b < 0xf5:
			return true
		default:
			return false
		}
	}
	return false
}

// step takes one byte, of a sequence or that may start one.
func (t *tame) step(b byte) {
	switch {
	case b == 0x05: // also inside of sequences, which go on after it
		if t.mark && t.kind == 0 {
			t.out = append(t.out, '?')
		}
		return
	case b == 0x1b && t.kind == 'e' && len(t.seq) < maxArgs: // doubled for a passthrough
		t.seq = append(t.seq, b)
		return
	case b == 0x1b:
		t.begin('e', b)
		return
	case b == 0xc2 && t.kind != 'd' && t.kind != 'D':
		t.text(b)
		return
	case b >= 0x80 && b < 0xa0 && t.kind == '2': // U+0080 to U+009F
		if l := c1(b); l != 0 {
			t.kind, t.seq = l, append(t.seq, b)
			return
		}
	case b >= 0x80 && c1(b) != 0 && (!t.inside(nil, 0) || t.kind == ']' && t.last[2] == 0xc2):
		t.begin(c1(b), b)
		return
	case (b == 0x18 || b == 0x1a) && t.kind == ']': // to some terminals the end of it
		t.endOSC(b)
		return
	case b == 0x18 || b == 0x1a:
		t.pass(b)
		return
	case (b < 0x20 && b != 0x07 || b == 0x7f) && (t.kind == 'e' || t.kind == '[' || t.kind == 'P' || t.kind == ']'):
		// Executed or ignored; the sequence goes on.
		if t.seq = append(t.seq, b); len(t.seq) > 2*maxArgs {
			t.long()
		}
		return
	}
	switch t.kind {
	case 'e':
		if b == '[' || b == ']' || b == 'P' {
			t.kind, t.seq = b, append(t.seq, b)
			return
		}
		if b == '\\' && t.st {
			t.drop(0)
			return
		}
		t.pass(b) // also ST, which ends a string
	case '2':
		t.pass(b)
	case '[':
		t.arg(b)
		if t.kind == '[' && b >= 0x40 {
			if t.badCSI() {
				t.drop(0)
			} else {
				t.pass()
			}
		}
	case 'P':
		t.arg(b)
		if t.kind == 'P' && b >= 0x40 {
			a := string(t.args)
			if strings.HasSuffix(a, "$q") || a == "@" || b == '|' && a[0] != '>' && a[0] != '!' && a[0] != '=' {
				t.drop('d')
				t.bel = false
			} else {
				t.query(strings.HasSuffix(a, "+q"))
				t.pass()
			}
		}
	case ']':
		if b == 0x07 || b == 0x9c && !t.inside(nil, 0) {
			t.endOSC(b)
			return
		}
		t.arg(b)
	case 'd':
		if b == 0x07 && t.bel || b == 0x9c && !t.inside(nil, 0) {
			t.resume()
		}
	case 'D':
		if b >= 0x40 && b < 0x7f {
			t.resume()
		}
	default:
		t.out = append(t.out, b)
	}
}

// text takes 0xc2, which may be the first byte of a C1 control.
func (t *tame) text(b byte) {
	switch t.kind {
	case 0:
		t.begin('2', b)
	case '2':
		t.pass()
		t.begin('2', b)
	case 'e', '[', 'P':
		t.begin('2', b) // no such byte belongs there
	case ']':
		t.arg(b)
	}
}

// begin starts a sequence, which cuts the one at hand short.
func (t *tame) begin(kind, b byte) {
	st := false
	switch t.kind {
	case ']':
		if st = t.badOSC(); st {
			t.drop(0)
		}
	case 'd', 'D':
		st = t.kind == 'd'
		t.resume()
	}
	t.out = append(t.out, t.seq[t.shown:]...)
	t.outer.kind = t.kind
	t.outer.seq, t.seq = t.seq, t.outer.seq
	t.outer.args, t.args = t.args, t.outer.args
	t.st = st && kind == 'e'
	t.kind, t.seq, t.args, t.shown = kind, append(t.seq[:0], b), t.args[:0], 0
}

// resume goes back, after something was dropped, to what it cut short.
func (t *tame) resume() {
	t.outer.seq, t.seq = t.seq, t.outer.seq
	t.outer.args, t.args = t.args, t.outer.args
	t.kind, t.shown, t.outer.kind = t.outer.kind, len(t.seq), 0
	if t.kind == 0 {
		t.seq, t.args, t.shown = t.seq[:0], t.args[:0], 0
	}
}

// arg takes a byte after the introducer.
func (t *tame) arg(b byte) {
	t.seq, t.args = append(t.seq, b), append(t.args, b)
	if len(t.args) >= maxArgs {
		t.long()
	}
}

// long ends the wait for the end of a sequence.
func (t *tame) long() {
	switch t.kind {
	case '[':
		t.drop('D')
	case 'P':
		t.drop('d')
		t.bel = false
	case ']':
		if t.badOSC() {
			t.drop('d')
			t.bel = true
		} else {
			t.pass()
		}
	default:
		t.pass()
	}
}

// pass shows the sequence at hand, and bytes after it.
func (t *tame) pass(more ...byte) {
	t.out = append(append(t.out, t.seq[t.shown:]...), more...)
	t.outer.kind = 0
	t.kind, t.seq, t.args, t.shown = 0, t.seq[:0], t.args[:0], 0
}

// drop forgets the sequence at hand. What follows is of this kind, or if that is
// 0, what the sequence cut short.
func (t *tame) drop(kind byte) {
	switch {
	case t.mark:
		t.out = append(t.out, 0x18, '?')
		t.outer.kind = 0
	case t.shown > 0:
		t.out = append(t.out, 0x18)
		t.outer.kind = 0
	}
	t.kind, t.seq, t.args, t.shown = kind, t.seq[:0], t.args[:0], 0
	if kind == 0 {
		t.resume()
	}
}

// endOSC judges an OSC that b ends.
func (t *tame) endOSC(b byte) {
	if t.badOSC() {
		t.drop(0)
	} else {
		t.pass(b)
	}
}

func (t *tame) query(is bool) {
	if is {
		t.asked = time.Now()
	}
}

func (t *tame) badCSI() bool {
	a, final := t.args[:len(t.args)-1], t.args[len(t.args)-1]
	first, _ := number(a)
	lead := len(a) > 0 && a[0] >= '<' && a[0] <= '?'
	switch final {
	case 't':
		if plain := len(a) == 0 || a[len(a)-1] >= '0'; !lead && plain && (first == 20 || first == 21 || first >= tooMuch) {
			return true
		}
		t.query(!lead && first >= 11 && first <= 19)
	case 'y':
		return bytes.HasSuffix(a, []byte("*"))
	case 'c':
		t.query(true)
	case 'n':
		t.query(!lead || a[0] == '?')
	case 'p':
		t.query(bytes.HasSuffix(a, []byte("$")))
	case 'q':
		t.query(lead && a[0] == '>')
	case 'u':
		t.query(lead && a[0] == '?')
	}
	return false
}

// tooMuch is more than any number of a control; terminals may take it for
// another, once it does not fit.
const tooMuch = 10000

// number reads the digits at the start of a.
func number(a []byte) (n int, rest []byte) {
	i := 0
	for i < len(a) && a[i] >= '0' && a[i] <= '9' {
		i++
	}
	if i == 0 {
		return -1, a
	}
	n, err := strconv.Atoi(string(a[:i]))
	if err != nil {
		n = tooMuch
	}
	return n, a[i:]
}

func (t *tame) badOSC() bool {
	n, rest := number(t.args)
	if len(rest) == 0 || rest[0] != ';' {
		return false
	}
	rest = rest[1:]
	ask := len(rest) > 0 && rest[0] == '?'
	switch {
	case n >= tooMuch:
		return true
	case n == 52:
		_, data, two := bytes.Cut(rest, []byte(";"))
		if !two {
			return ask || len(t.args) >= maxArgs || t.clipboard
		}
		return len(data) > 0 && data[0] == '?' || t.clipboard
	case n == 5522:
		return bytes.Contains(rest, []byte("read")) || t.clipboard
	case n == 1337:
		word := strings.ToLower(string(rest))
		return strings.HasPrefix(word, "reportvariable") || strings.HasPrefix(word, "requestupload") ||
			t.clipboard && (strings.HasPrefix(word, "copy") || strings.HasPrefix(word, "endcopy"))
	case n >= 0 && n <= 2, n == 4, n == 5, n >= 7 && n <= 19, n == 21, n == 22:
		t.query(n >= 4 && bytes.Contains(rest, []byte("?")))
		return false
	}
	return ask
}
