package matcher

// deepFrom is how many bytes of text in a row there must be in what was decoded to
// be looked at for more than literals.
const deepFrom = 24

// lane is what was decoded one way: searched for literals, and where it is
// text, looked at again.
type lane struct {
	window
	depth int
	fed   int // b[:fed] was looked at
	ascii int // bytes before b[fed] that are text, in a row
	deep  *layers
	begun bool       // deep has what is ASCII so far
	pack  *members   // what began at the first byte, if that looked compressed
	fresh bool       // nothing was decoded before b
	spent allowance  // of what is compressed in it,
	up    *allowance // or, in something compressed, of that
	skip  encoding   // literals of this one are found elsewhere; encodings: none
}

func newLane(depth int, as string) *lane {
	l := &lane{}
	l.init(depth, as)
	return l
}

func (l *lane) init(depth int, as string) {
	l.depth, l.skip = depth, encodings
	l.own, l.as, l.fresh = markDecoded, as, true
}

// isText says that c may be in ASCII text, or in its escapes for a terminal.
func isText(c byte) bool { return textByte[c] }

var textByte = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= ' ' && c < 0x7f || c == '\n' || c == '\r' || c == '\t' || c == 0x1b || c == '\b'
	}
	return t
}()

// flush looks at what is new.
func (l *lane) flush(set *set, hits []Hit) []Hit {
	n := len(hits)
	hits = l.search(set, hits)
	hits = l.drop(n, hits)
	if l.depth > 0 {
		hits = l.dig(set, hits)
	}
	cut := l.trim()
	l.fed = max(0, l.fed-cut)
	return hits
}

// drop takes out of hits[n:] what the literals find as well.
func (l *lane) drop(n int, hits []Hit) []Hit {
	if l.skip == encodings {
		return hits
	}
	kept := hits[:n]
	for _, h := range hits[n:] {
		if h.Encoding != l.as {
			kept = append(kept, h)
		}
	}
	return kept
}

// dig hands what is text, or compressed, on.
func (l *lane) dig(set *set, hits []Hit) []Hit {
	none := text{}
	switch {
	case l.fresh && len(l.b) >= magicBytes:
		if l.fresh = false; isMagic(l.b) == decoded {
			l.pack = newMembers(l.depth-1, l.as)
			l.pack.own, l.pack.up = &l.spent, l.up
			hits = l.pack.begin(set, &l.text, 0, len(l.b), hits)
		}
	case l.pack != nil:
		hits = l.pack.write(set, &none, &l.text, l.fed, len(l.b), nil, hits)
	}
	for i := l.fed; i < len(l.b); {
		if !l.begun {
			// Look at the last byte that a stretch would need first, and backwards.
			last := i + deepFrom - l.ascii - 1
			k := min(last, len(l.b)-1)
			for k >= i && textByte[l.b[k]] {
				k--
			}
			if k >= i {
				l.ascii = 0
				i = k + 1
				continue
			}
			if last >= len(l.b) {
				l.ascii += len(l.b) - i
				break
			}
		}
		if !isText(l.b[i]) {
			if l.begun {
				hits = l.deep.finish(set, l.end(i-1), hits)
				l.deep.reset()
			}
			l.ascii, l.begun = 0, false
			i++
			continue
		}
		j := i + 1
		for j < len(l.b) && isText(l.b[j]) {
			j++
		}
		from := i
		if !l.begun {
			if l.deep == nil {
				l.deep = newLayers(l.depth-1, l.as)
				l.deep.inside(l.up)
			}
			l.begun = true
			from = i - l.ascii
		}
		before := text{}
		hits = l.deep.write(set, &before, &l.text, from, j, hits)
		l.ascii += j - i
		i = j
	}
	l.fed = len(l.b)
	return hits
}

// safe lowers to to what l needs.
func (l *lane) safe(to int64) int64 {
	if at, held := l.from(); held {
		to = min(to, at)
	}
	if l.depth > 0 {
		if l.pack != nil {
			to = l.pack.safe(to)
		}
		if l.fresh && len(l.b) > 0 && isMagic(l.b) == more {
			to = min(to, l.raw(0))
		}
		switch {
		case l.begun:
			to = l.deep.safe(to)
		case l.ascii > 0 && l.ascii <= len(l.b):
			to = min(to, l.raw(len(l.b)-l.ascii))
		}
	}
	return to
}

// close is for the end of what is decoded.
func (l *lane) close(set *set, end int64, hits []Hit) []Hit {
	if l.begun {
		hits = l.deep.finish(set, end, hits)
	}
	if l.pack != nil {
		hits = l.pack.finish(set, end, hits)
	}
	return hits
}

func (l *lane) adopt(set *set, hits []Hit) []Hit {
	n := len(hits)
	hits = l.again(set, hits)
	hits = l.drop(n, hits)
	if l.begun {
		hits = l.deep.adopt(set, &text{}, hits)
	}
	if l.pack != nil {
		hits = l.pack.adopt(set, hits)
	}
	return hits
}

func (l *lane) restart() {
	l.clear()
	if l.begun {
		l.deep.reset()
	}
	if l.pack != nil {
		l.pack.wipe()
		l.pack = nil
	}
	l.fed, l.ascii, l.begun, l.fresh = 0, 0, false, true
}

func (l *lane) erase() {
	l.restart()
	l.window.wipe()
	if l.deep != nil {
		l.deep.wipe()
	}
}
