package matcher

// What renews something makes it as it was made at first, from what it was made of, and
// keeps nothing but room, overwritten: whatever else it came to have is gone because it
// is not named.

func (l *layers) renew() {
	l.classes.renew()
	l.fold.renew()
	for _, v := range l.views {
		v.renew()
	}
	for _, r := range l.runs {
		r.renew()
	}
	if l.numbers != nil {
		l.numbers.renew()
	}
	if l.members != nil {
		l.members.wipe()
		*l.members = members{depth: l.members.depth, as: l.members.as, tail: l.members.tail[:0]}
	}
}

// renew is for places of bytes, not bytes.
func (m *classes) renew() {
	old := *m
	*m = classes{w: old.w[:0], room: old.room}
	for i, l := range old.lists {
		m.lists[i].runs = l.runs[:0]
	}
	for i, s := range old.sifted {
		m.sifted[i].places = s.places[:0]
	}
}

// renew is for the room of a text.
func (t *text) renew() {
	clear(t.b[:cap(t.b)])
	*t = text{b: t.b[:0], segs: t.segs[:0]}
}

func (f *fold) renew() {
	f.text.renew()
	*f = fold{window: window{text: f.text, and: f.and, lean: f.lean, as: f.as}, min: f.min}
}

func (v *view) renew() {
	v.text.renew()
	v.pend.renew()
	*v = view{window: window{text: v.text, as: v.as}, lang: v.lang, depth: v.depth, shift: v.shift, pend: v.pend, fold: v.fold, next: v.next}
	v.init(v.lang, v.depth, v.shift, v.as)
	if v.fold != nil {
		v.fold.renew()
	}
	if v.next != nil {
		v.next.renew()
	}
}

func (l *lane) renew() {
	if l.pack != nil {
		l.pack.wipe()
	}
	l.text.renew()
	skip := l.skip
	*l = lane{window: window{text: l.text, as: l.as}, depth: l.depth, deep: l.deep}
	l.init(l.depth, l.as)
	l.skip = skip
	if l.deep != nil {
		l.deep.renew()
	}
}

func (r *bitRun) renew() {
	r.look.renew()
	clear(r.planes[:cap(r.planes)])
	lanes := r.lanes
	*r = bitRun{look: r.look, planes: r.planes[:0], bits: r.bits, first: r.first, broken: r.broken, a: r.a, depth: r.depth, as: r.as, lean: r.lean}
	if r.lanes = lanes; lanes == nil {
		return
	}
	for k, l := range lanes {
		l.renew()
		r.bits[k], r.first[k], r.broken[k] = -k*r.a.bits, 0, false
	}
}

func (n *numbers) renew() {
	for _, d := range [][]byte{n.digits, n.first.digits} {
		clear(d[:cap(d)])
	}
	for _, l := range n.lanes {
		l.renew()
	}
	*n = numbers{depth: n.depth, as: n.as, lanes: n.lanes, digits: n.digits[:0], first: number{digits: n.first.digits[:0]}, hold: -1}
}
