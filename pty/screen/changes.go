package screen

// shifts looks at what moving part of the screen brings together.
func (k *checker) shifts(m *model, x rect, dr, dc int) {
	k.view = append(k.view[:0], m.all...)
	k.rows, k.from, k.over.row = k.view, nil, -1
	at := k.view[m.hist:]
	if dr != 0 && m.full(x) {
		if max(dr, -dr) >= x.b-x.t {
			return
		}
		if dr > 0 {
			copy(at[x.t:x.b], at[x.t+dr:x.b])
			for i := x.b - dr; i < x.b; i++ {
				at[i] = &line{}
			}
			if x.t > 0 {
				k.meet(m.hist + x.t)
			}
			return
		}
		copy(at[x.t-dr:x.b], at[x.t:x.b])
		for i := x.t; i < x.t-dr; i++ {
			at[i] = &line{}
		}
		if x.b < m.rows {
			k.meet(m.hist + x.b)
		}
		return
	}
	k.orig = append(k.orig[:0], make([]origin, len(k.view))...)
	k.from = k.orig
	now := m.lines()
	for i := x.t; i < x.b; i++ {
		n := now[i].clone()
		c := n.need(m.cols)
		o := origin{in: now[i], out: now[i], l: x.l, r: x.r, dc: dc}
		src := []cell(nil)
		if j := i + dr; j >= x.t && j < x.b {
			o.in = now[j]
			src = now[j].c
		}
		for col := x.l; col < x.r; col++ {
			c[col] = cell{}
			if f := col + dc; f >= x.l && f < x.r && f < len(src) {
				c[col] = src[f]
			}
		}
		n.wrapped = n.wrapped && dc == 0
		at[i], k.orig[m.hist+i] = n, o
	}
	if dc == 0 {
		k.look(m.hist+x.t, x.l, x.r)
	}
	for i := x.t; i < x.b; i++ {
		k.look(m.hist+i, x.l, x.r)
	}
}

// meet looks at what a row becomes with those above it, which are next to it now. Where
// that could not be overwritten, what was found may be there still.
func (k *checker) meet(row int) {
	k.cross = k.fixed
	k.look(row, 0, k.m.cols)
	k.cross = false
}

// erases looks at what is left when part of the screen is blanked.
func (k *checker) erases(m *model, x rect, keep bool) {
	if x.l == 0 && x.r == m.cols && !keep {
		return
	}
	for i := x.t; i < x.b; i++ {
		ln := m.lines()[i]
		some := false
		for c := x.l; c < min(x.r, len(ln.c)) && !some; c++ {
			some = !ln.c[c].blank()
		}
		if !some {
			continue
		}
		k.view = append(k.view[:0], m.all...)
		k.orig = append(k.orig[:0], make([]origin, len(k.view))...)
		k.rows, k.from, k.over.row = k.view, k.orig, -1
		n := ln.clone() // which has no reading yet
		for c := x.l; c < min(x.r, len(n.c)); c++ {
			if !keep || n.c[c].f&protected == 0 {
				n.c[c] = cell{}
			}
		}
		k.view[m.hist+i], k.orig[m.hist+i] = n, origin{in: ln, out: ln}
		k.look(m.hist+i, max(x.l-1, 0), x.r+1)
	}
}
