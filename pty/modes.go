package pty

import (
	"bytes"
	"slices"
	"strconv"
	"unicode/utf8"
)

// modes follows the terminal modes that a stream of output switches, as far as
// they must be undone when the program that switched them is gone. It is a
// small part of the state machine in https://vt100.net/emu/dec_ansi_parser.
// The modes are those of xterm's ctlseqs, kitty's keyboard protocol, and
// synchronized updates.
type modes struct {
	state state
	seq   [64]byte // the sequence at hand, cut off when longer
	n     int

	changed uint32 // by index in private: it is not as the terminal started
	keypad  bool
	insert  bool
	region  bool
	sgr     bool
	link    bool
	charset bool
	style   byte   // cursor style, digit; 0: the user's
	keys    []byte // parameter of modifyOtherKeys; empty: off
	kitty   [2][]byte
	partial bool // the stream stopped inside a character
	fresh   bool // the stream stopped at the start of a line
}

type state uint8

const (
	ground state = iota
	escape
	escapeInter // ESC and an intermediate byte
	csi
	str    // OSC, DCS, SOS, PM, APC: up to ST, or BEL
	strEsc // ESC in a string
)

// private lists DEC private modes in the order in which they are undone: what
// delays display first, what the terminal sends next, the screen last.
var private = [...]struct {
	n  int
	on bool // in a terminal that nobody touched
}{
	{2026, false},                                              // synchronized update
	{1000, false}, {1001, false}, {1002, false}, {1003, false}, // mouse
	{1005, false}, {1006, false}, {1015, false}, {1016, false}, {9, false},
	{1004, false},                             // focus
	{2004, false},                             // bracketed paste
	{2031, false},                             // colour scheme reports
	{2048, false},                             // size reports
	{66, false},                               // keypad
	{1, false},                                // cursor keys
	{6, false},                                // origin
	{7, true},                                 // wrap
	{5, false},                                // reverse video
	{1049, false}, {1047, false}, {47, false}, // alternate screen
	{25, true}, // cursor
}

const altScreens = 1<<19 | 1<<20 | 1<<21 // indexes of 1049, 1047, 47
const softReset = 1<<14 | 1<<15 | 1<<16 | 1<<17 | 1<<22

func (m *modes) alt() int {
	if m.changed&altScreens != 0 {
		return 1
	}
	return 0
}

func (m *modes) calm() bool {
	return m.state == ground && !m.partial && m.changed&(altScreens|1) == 0
}

// feed takes the next bytes of the stream.
func (m *modes) feed(p []byte) {
	if len(p) == 0 {
		return
	}
	last := p[len(p)-1]
	m.fresh = last == '\n' || m.fresh && last == '\r'
	m.partial = last >= utf8.RuneSelf && cutRune(p)
	for i := 0; i < len(p); {
		switch m.state {
		case ground:
			j := bytes.IndexByte(p[i:], 0x1b)
			if j < 0 {
				return
			}
			i += j
			if n := harmless(p[i:]); n > 0 {
				if p[i+n-1] == 'm' {
					m.csi(p[i+2:i+n-1], 'm')
				}
				i += n
				continue
			}
			i++
			m.state, m.n = escape, 0
			continue
		case str:
			// The body of an image can be megabytes: skip what cannot end it.
			j := bytes.IndexFunc(p[i:], ends)
			if j < 0 {
				m.keep(p[i:])
				return
			}
			m.keep(p[i : i+j])
			i += j
		}
		m.step(p[i])
		i++
	}
}

func ends(r rune) bool { return r == 0x1b || r == 0x07 || r == 0x18 || r == 0x1a }

func cutRune(p []byte) bool {
	for i := 1; i <= utf8.UTFMax && i <= len(p); i++ {
		if b := p[len(p)-i]; utf8.RuneStart(b) {
			return b >= utf8.RuneSelf && !utf8.FullRune(p[len(p)-i:])
		}
	}
	return false
}

func (m *modes) keep(p []byte) { m.n += copy(m.seq[m.n:], p) }

func (m *modes) step(b byte) {
	switch {
	case b == 0x18 || b == 0x1a: // CAN and SUB end any sequence
		m.state = ground
		return
	case b == 0x1b && m.state == str:
		m.state = strEsc
		return
	case b == 0x1b:
		m.state, m.n = escape, 0
		return
	}
	switch m.state {
	case escape:
		switch {
		case b == '[':
			m.state = csi
		case b == ']' || b == 'P' || b == 'X' || b == '^' || b == '_':
			m.state = str
			m.keep([]byte{b})
		case b >= 0x20 && b < 0x30:
			m.keep([]byte{b})
			m.state = escapeInter
		case b < 0x20: // executed, the sequence goes on
		default:
			m.state = ground
			m.esc(b)
		}
	case escapeInter:
		if b >= 0x30 {
			m.state = ground
			if m.seq[0] == '(' {
				m.charset = b != 'B'
			}
		}
	case csi:
		switch {
		case b >= 0x40 && b <= 0x7e:
			m.state = ground
			m.csi(m.seq[:m.n], b)
		case b >= 0x20 && b < 0x40:
			m.keep([]byte{b})
		}
	case str:
		if b == 0x07 && m.seq[0] == ']' {
			m.osc()
		}
	case strEsc:
		if b == '\\' {
			m.osc()
			return
		}
		m.state, m.n = escape, 0
		m.step(b)
	}
}

func (m *modes) osc() {
	m.state = ground
	if s := m.seq[:m.n]; bytes.HasPrefix(s, []byte("]8;")) {
		m.link = string(s) != "]8;;"
	}
}

func (m *modes) esc(b byte) {
	switch b {
	case '=':
		m.keypad = true
	case '>':
		m.keypad = false
	case 'c': // RIS: everything
		*m = modes{fresh: m.fresh, partial: m.partial}
	}
}

func (m *modes) csi(s []byte, final byte) {
	lead := byte(0)
	if len(s) > 0 && s[0] >= '<' && s[0] <= '?' {
		lead, s = s[0], s[1:]
	}
	set := final == 'h'
	switch {
	case lead == '?' && (set || final == 'l'):
		for _, f := range bytes.Split(s, []byte(";")) {
			n, _ := strconv.Atoi(string(f))
			for i, p := range private {
				if p.n != n {
					continue
				}
				if set != p.on {
					m.changed |= 1 << i
				} else if 1<<i&altScreens != 0 {
					m.changed &^= altScreens // any of the three leaves it
					m.kitty[1] = nil
				} else {
					m.changed &^= 1 << i
				}
			}
		}
	case lead == 0 && (set || final == 'l') && string(s) == "4":
		m.insert = set
	case lead == 0 && final == 'm':
		m.sgr = len(s) > 0 && string(s) != "0"
	case lead == 0 && final == 'r':
		m.region = len(s) > 0
	case lead == 0 && final == 'p' && string(s) == "!": // DECSTR
		m.changed &^= softReset
		m.keypad, m.insert, m.region, m.sgr = false, false, false, false
	case lead == 0 && final == 'q' && len(s) == 2 && s[1] == ' ':
		m.style = s[0]
		if s[0] == '0' {
			m.style = 0
		}
	case lead == '>' && final == 'm' && len(s) > 0 && s[0] == '4' && (len(s) == 1 || s[1] == ';'):
		m.keys = nil
		if len(s) == 3 && s[2] != '0' {
			m.keys = []byte{s[2]}
		}
	case final == 'u':
		m.kittyKeys(lead, s)
	}
}

// kittyKeys follows the stack of keyboard flags that each screen has.
func (m *modes) kittyKeys(lead byte, s []byte) {
	k := &m.kitty[m.alt()]
	n, _ := strconv.Atoi(string(bytes.SplitN(s, []byte(";"), 2)[0]))
	switch lead {
	case '>':
		if len(*k) < 32 { // the terminal's own stack is bounded too
			*k = append(*k, byte(n))
		}
	case '<':
		*k = (*k)[:max(0, len(*k)-max(1, n))]
	}
}

// undo returns what brings the terminal back to where it was before the
// stream, and what brings the stream's modes back after that.
func (m *modes) undo() (off, on []byte) {
	switch m.state {
	case str, strEsc:
		off = append(off, "\x1b\\"...)
	case escape, escapeInter, csi:
		off = append(off, 0x18)
	}
	alt := m.alt()
	add := func(seen bool, o, n string) {
		if seen {
			off = append(off, o...)
			on = append(on, n...)
		}
	}
	popKitty := func(k []byte) {
		if len(k) > 0 {
			off = append(off, "\x1b[<"+strconv.Itoa(len(k))+"u"...)
		}
	}
	pushKitty := func(k []byte) {
		for _, f := range k {
			on = append(on, "\x1b[>"+strconv.Itoa(int(f))+"u"...)
		}
	}
	if alt == 1 {
		popKitty(m.kitty[1])
	}
	pushKitty(m.kitty[0])
	for i, p := range private {
		if m.changed&(1<<i) != 0 {
			off = append(off, privateMode(p.n, p.on)...)
		}
	}
	for i, p := range slices.Backward(private[:]) { // the screen first
		if m.changed&(1<<i) != 0 {
			on = append(on, privateMode(p.n, !p.on)...)
		}
	}
	popKitty(m.kitty[0])
	if alt == 1 {
		pushKitty(m.kitty[1])
	}
	add(m.region, "\x1b7\x1b[r\x1b8", "") // resetting the region moves the cursor
	add(m.keypad, "\x1b>", "\x1b=")
	add(m.insert, "\x1b[4l", "\x1b[4h")
	add(m.charset, "\x1b(B", "")
	add(m.link, "\x1b]8;;\x1b\\", "")
	add(m.sgr, "\x1b[0m", "")
	add(m.style != 0, "\x1b[0 q", "\x1b["+string(rune(m.style))+" q")
	add(len(m.keys) > 0, "\x1b[>4m", "\x1b[>4;"+string(m.keys)+"m")
	return off, on
}

func privateMode(n int, on bool) string {
	if on {
		return "\x1b[?" + strconv.Itoa(n) + "h"
	}
	return "\x1b[?" + strconv.Itoa(n) + "l"
}
