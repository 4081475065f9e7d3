package screen

import "strconv"

// pen is how characters are drawn: SGR (ECMA-48, ISO 8613-6 colours, and the
// underlines of kitty). It is comparable.
type pen struct {
	flags     uint16 // bit n: SGR n, for 1 to 9; bit 10: overline
	underline uint8  // 0 none, else the style of SGR 4:n
	protected bool   // DECSCA
	fg, bg    color
	line      color // of the underline
}

// color is 0 for the default, else palette|index or direct|0xrrggbb.
type color uint32

const (
	palette color = 1 << 24
	direct  color = 2 << 24
)

// sgr applies the parameters of CSI ... m.
func (p *pen) sgr(ps []param) {
	if len(ps) == 0 {
		ps = []param{{}}
	}
	for i := 0; i < len(ps); i++ {
		n := ps[i].n
		switch {
		case n <= 0:
			*p = pen{protected: p.protected}
		case n == 4:
			p.underline = 1
			if i+1 < len(ps) && ps[i+1].sub {
				i++
				p.underline = uint8(min(max(ps[i].n, 0), 5))
			}
		case n == 21:
			p.underline = 2
		case n < 10:
			p.flags |= 1 << n
		case n == 22:
			p.flags &^= 1<<1 | 1<<2
		case n == 24:
			p.underline = 0
		case n == 25:
			p.flags &^= 1<<5 | 1<<6
		case n == 23, n > 26 && n < 30:
			p.flags &^= 1 << (n - 20)
		case n >= 30 && n < 38:
			p.fg = palette | color(n-30)
		case n == 38:
			i = wide(ps, i, &p.fg)
		case n == 39:
			p.fg = 0
		case n >= 40 && n < 48:
			p.bg = palette | color(n-40)
		case n == 48:
			i = wide(ps, i, &p.bg)
		case n == 49:
			p.bg = 0
		case n == 53:
			p.flags |= 1 << 10
		case n == 55:
			p.flags &^= 1 << 10
		case n == 58:
			i = wide(ps, i, &p.line)
		case n == 59:
			p.line = 0
		case n >= 90 && n < 98:
			p.fg = palette | color(n-90+8)
		case n >= 100 && n < 108:
			p.bg = palette | color(n-100+8)
		}
		for i+1 < len(ps) && ps[i+1].sub {
			i++
		}
	}
}

// wide reads the colour after 38, 48 or 58 at ps[i] and returns the index of its
// last parameter: 5;n, 2;r;g;b, 5:n, 2:r:g:b or 2:space:r:g:b.
func wide(ps []param, i int, c *color) int {
	if i+1 >= len(ps) {
		return i
	}
	if ps[i+1].sub {
		j := i + 1
		for j < len(ps) && ps[j].sub {
			j++
		}
		a := ps[i+1 : j]
		switch {
		case a[0].n == 5 && len(a) >= 2:
			*c = palette | color(a[1].n&255)
		case a[0].n == 2 && len(a) >= 4:
			a = a[len(a)-min(len(a)-1, 3):]
			if len(ps[i+1:j]) > 5 {
				a = ps[i+3 : i+6]
			}
			*c = rgb(a)
		}
		return j - 1
	}
	switch {
	case ps[i+1].n == 5 && i+2 < len(ps):
		*c = palette | color(ps[i+2].n&255)
		return i + 2
	case ps[i+1].n == 2 && i+4 < len(ps):
		*c = rgb(ps[i+2 : i+5])
		return i + 4
	}
	return i + 1
}

func rgb(a []param) color {
	return direct | color(a[0].n&255)<<16 | color(a[1].n&255)<<8 | color(a[2].n&255)
}

// appendTo writes the SGR that makes p of any pen.
func (p pen) appendTo(b []byte) []byte {
	b = append(b, "\x1b[0"...)
	for n := 1; n < 10; n++ {
		if p.flags>>n&1 != 0 {
			b = append(b, ';', byte('0'+n))
		}
	}
	if p.flags>>10&1 != 0 {
		b = append(b, ";53"...)
	}
	switch {
	case p.underline == 1:
		b = append(b, ";4"...)
	case p.underline == 2:
		b = append(b, ";21"...)
	case p.underline > 2:
		b = append(b, ";4:"...)
		b = append(b, '0'+p.underline)
	}
	b = p.fg.appendTo(b, 38)
	b = p.bg.appendTo(b, 48)
	b = p.line.appendTo(b, 58)
	return append(b, 'm')
}

func (c color) appendTo(b []byte, what int64) []byte {
	v := int64(c & 0xffffff)
	switch {
	case c == 0:
	case c&palette != 0 && what != 58 && v < 8:
		b = strconv.AppendInt(append(b, ';'), what-8+v, 10)
	case c&palette != 0:
		b = strconv.AppendInt(append(b, ';'), what, 10)
		b = strconv.AppendInt(append(b, ";5;"...), v, 10)
	default:
		b = strconv.AppendInt(append(b, ';'), what, 10)
		b = strconv.AppendInt(append(b, ";2;"...), v>>16, 10)
		b = strconv.AppendInt(append(b, ';'), v>>8&255, 10)
		b = strconv.AppendInt(append(b, ';'), v&255, 10)
	}
	return b
}

// pens gives each pen a number that fits into a cell. Number 0 is the default,
// and what is more than there is room for.
type pens struct {
	byPen map[pen]uint16
	all   []pen
	last  pen
	lastN uint16
}

const maxPens = 1 << 14

func (t *pens) number(p pen) uint16 {
	p.protected = false
	if p == t.last {
		return t.lastN
	}
	n, ok := t.byPen[p]
	if !ok {
		if len(t.all) == 0 {
			t.all, t.byPen = append(t.all, pen{}), map[pen]uint16{{}: 0}
		}
		if p != (pen{}) && len(t.all) < maxPens {
			n = uint16(len(t.all))
			t.all, t.byPen[p] = append(t.all, p), n
		}
	}
	t.last, t.lastN = p, n
	return n
}

func (t *pens) pen(n uint16) pen {
	if int(n) < len(t.all) {
		return t.all[n]
	}
	return pen{}
}
