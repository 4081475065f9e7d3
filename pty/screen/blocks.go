package screen

// starts lists the columns of a row where text begins: after an edge, or where
// it was not printed in one go with what is before it. With pane, one blank is no
// edge.
func (k *checker) starts(row, from, to int, pane bool, out []int) []int {
	l := k.rows[row]
	if l == nil {
		return out
	}
	is := l.read().is
	cuts := 0
	for c := max(from, 0); c < min(to, len(is)); c++ {
		x := is[c]
		if x&(isHalf|isEdge) != 0 {
			continue
		}
		if c == 0 {
			out = append(out, c)
			continue
		}
		before := is[c-1]
		switch {
		case before&isEdge != 0:
			if !pane || x&isCut != 0 || c == 1 || before&isBorder != 0 || is[c-2]&isEdge != 0 {
				out = append(out, c)
			}
		case x&isCut != 0:
			if cuts++; cuts <= maxCuts {
				out = append(out, c)
			}
		}
	}
	return out
}

// ends lists the columns after those where text ends, as starts does.
func (k *checker) ends(row, from, to int, pane bool, out []int) []int {
	l := k.rows[row]
	if l == nil {
		return out
	}
	is := l.read().is
	cuts := 0
	for c := max(from, 1); c <= min(to, len(is)); c++ {
		if is[c-1]&isEdge != 0 {
			continue
		}
		if c == len(is) {
			out = append(out, c)
			continue
		}
		next := is[c]
		switch {
		case next&isEdge != 0:
			if !pane || next&isCut != 0 || c+1 == len(is) || next&isBorder != 0 || is[c+1]&isEdge != 0 {
				out = append(out, c)
			}
		case next&isCut != 0:
			if cuts++; cuts <= maxCuts {
				out = append(out, c)
			}
		}
	}
	return out
}

// maxCuts bounds what a row costs that was printed character by character: only
// blanks and borders part its text then.
const maxCuts = 24

func (k *checker) isStart(row, col int) bool {
	l := k.rows[row]
	return l != nil && l.read().begins(col)
}

// isEnd says that text ends before column col.
func (k *checker) isEnd(row, col int) bool {
	l := k.rows[row]
	return l != nil && l.read().endsBefore(col)
}

// isEdge says that a cell is an edge; what is not there is blank.
func (k *checker) isEdge(row, col int) bool {
	l := k.rows[row]
	return l == nil || l.read().edge(col)
}

// end is where the text at col ends: at an edge, or, fine, at a cut.
func (k *checker) end(row, col int, fine bool) int {
	t := k.rows[row].read()
	switch {
	case col >= len(t.ends):
		return col + 1
	case fine:
		return int(t.fine[col])
	}
	return int(t.ends[col])
}

// begin is where the text that ends before col begins.
func (k *checker) begin(row, col int) int {
	t := k.rows[row].read()
	c := col - 1
	for c > 0 && !t.edge(c-1) {
		c--
	}
	return c
}

// chain adds the texts that begin in column col of the rows from one on, and of those
// below row as far as a value may reach; cut says that there is a cut in some of it.
func (k *checker) chain(from, row, col int, fine bool) (cut bool) {
	for n := 0; from < len(k.rows) && n < reach; from++ {
		l := k.rows[from]
		if l == nil {
			break
		}
		t := l.read()
		if !t.begins(col) {
			break
		}
		e, f := t.ends[col], t.fine[col]
		cut = cut || f != e
		if fine {
			e = f
		}
		if from == k.over.row {
			k.add(from, col, int(e))
		} else {
			k.spans = append(k.spans, span{len(k.buf), int32(from), int32(col), false})
			k.buf = append(k.buf, t.text[t.off[col]:t.off[e]]...)
		}
		if from >= row {
			n += int(e) - col
		}
	}
	return cut
}

// top is the first of the rows down to row that have text in column col that may be
// part of a value in row.
func (k *checker) top(row, col int, fine bool) int {
	from := row
	for n := 0; from > 0 && n < reach; from-- {
		l := k.rows[from-1]
		if l == nil {
			break
		}
		t := l.read()
		if !t.begins(col) {
			break
		}
		if fine {
			n += int(t.fine[col]) - col
		} else {
			n += int(t.ends[col]) - col
		}
	}
	return from
}

// blocks adds what a value that is drawn below itself, in a column of other text
// or between borders, may read as, where columns [l, r) of row have a part in it.
func (k *checker) blocks(row, l, r int) {
	lo := l
	for lo > 0 && !k.isEdge(row, lo-1) {
		lo--
	}
	if lo > 0 { // what became an edge has a part in it as well
		for lo--; lo > 0 && !k.isEdge(row, lo-1); lo-- {
		}
	}
	hi := r + 1
	for hi < k.m.cols && !k.isEdge(row, hi) {
		hi++
	}
	here := k.starts(row, lo, hi, false, k.bounds[0][:0])
	k.bounds[0] = here
	if row > 0 {
		above := k.ends(row-1, lo, k.m.cols, true, k.bounds[1][:0])
		k.bounds[1] = above
		for _, c := range here {
			fine := k.end(row, c, true) != k.end(row, c, false)
			if !k.cross || k.isStart(row-1, c) {
				k.column(row, c, fine)
			}
			if len(above) == 0 || !k.paneStart(row, c) {
				continue
			}
			for _, up := range above {
				if up <= c {
					continue
				}
				if b := k.begin(row-1, up); b != c {
					k.pair(row-1, b, up, c, fine)
				}
			}
		}
	}
	if row+1 < len(k.rows) && !k.cross {
		below := k.starts(row+1, 0, hi, true, k.bounds[2][:0])
		k.bounds[2] = below
		if len(below) == 0 {
			return
		}
		hereEnds := k.ends(row, lo, hi, true, k.bounds[3][:0])
		k.bounds[3] = hereEnds
		for _, up := range hereEnds {
			b := k.begin(row, up)
			for _, c := range below {
				if c < up && c != b {
					k.pair(row, b, up, c, true)
				}
			}
		}
	}
}

func (k *checker) paneStart(row, c int) bool {
	is := k.rows[row].read().is
	return c < 2 || is[c-1]&isEdge == 0 || is[c-1]&isBorder != 0 || is[c-2]&isEdge != 0 || is[c]&isCut != 0
}

// pair adds columns [b, up) of row and what is below them in column c.
func (k *checker) pair(row, b, up, c int, fine bool) {
	start := len(k.buf)
	k.add(row, max(b, up-reach), up)
	k.chain(row+1, row+1, c, false)
	n := len(k.buf) - start
	k.next(start)
	if fine {
		start = len(k.buf)
		k.add(row, max(b, up-reach), up)
		k.chain(row+1, row+1, c, true)
		if len(k.buf)-start == n {
			k.undo(start)
			return
		}
		k.next(start)
	}
}

// column adds what begins in column c of row and of the rows above and below it,
// and what such a column may begin with further right.
func (k *checker) column(row, c int, fine bool) {
	top := k.top(row, c, false)
	alone := top == row && (row+1 >= len(k.rows) || !k.isStart(row+1, c))
	if !alone { // else it is in the row's text
		start, spans := len(k.buf), len(k.spans)
		cut := k.chain(top, row, c, false)
		k.next(start)
		if fine || cut {
			again := len(k.buf)
			more := len(k.spans)
			k.chain(k.top(row, c, true), row, c, true)
			k.next(again)
			if k.twice(start, again, spans, more) {
				k.undo(again)
			}
		}
	}
	// A column with an edge on the right as well: its first row begins anywhere.
	var done [3]int
	for i, e := range [3]int{k.end(row, c, false), k.end(row, c, true), k.above(row, c)} {
		if e <= c || i > 0 && e == done[0] || i > 1 && e == done[1] {
			continue
		}
		done[i] = e
		k.block(row, c, e)
	}
}

// twice says that the text that began at byte b and span bs is that of the same cells
// as the one before it, that began at a and as.
func (k *checker) twice(a, b, as, bs int) bool {
	x, y := k.spans[as:bs], k.spans[bs:]
	if len(k.buf)-b != b-a || len(x) != len(y) {
		return false
	}
	for i := range x {
		if y[i].at -= b - a; x[i] != y[i] {
			y[i].at += b - a
			return false
		}
		y[i].at += b - a
	}
	return true
}

func (k *checker) above(row, c int) int {
	if row == 0 || !k.isStart(row-1, c) {
		return 0
	}
	return k.end(row-1, c, false)
}

// block adds rows whose columns [c, e) are full, above row, with the row above
// them that ends at e, and row and those below.
func (k *checker) block(row, c, e int) {
	u := row - 1
	for u >= 0 && (row-u)*(e-c) < reach && k.isStart(u, c) && k.isEnd(u, e) && k.filled(u, c, e) {
		u--
	}
	if u == row-1 || u < 0 || !k.isEnd(u, e) {
		return
	}
	start := len(k.buf)
	k.add(u, max(k.begin(u, e), e-reach), e)
	for u++; u < row; u++ {
		k.add(u, c, e)
	}
	for n := 0; u < len(k.rows) && n < reach && k.isStart(u, c); u++ {
		if k.filled(u, c, e) && k.isEnd(u, e) {
			k.add(u, c, e)
			n += e - c
			continue
		}
		k.add(u, c, k.end(u, c, false))
		break
	}
	k.next(start)
}

// filled says that columns [l, r) of a row, where text begins in l, have no edge.
func (k *checker) filled(row, l, r int) bool { return k.end(row, l, false) >= r }
