package matcher

// layers are what looks at a text beyond the search for literals: without its
// line breaks, with its escapes decoded, and at what is encoded in it. What comes
// out is looked at again, until depth is used up.
type layers struct {
	classes classes
	fold    fold // where no view sees to line breaks
	views   []*view
	runs    []*bitRun
	numbers *numbers
	members *members // nil: none are opened
}

// outer is what a stream has, in one piece.
type outer struct {
	layers
	views [5]view
	at    [5]*view
	inner
}

// inner is what looks for encodings in a text.
type inner struct {
	runs    [4]bitRun
	at      [4]*bitRun
	numbers numbers
	members members
}

// maxDepth is how many encodings on top of each other are taken off a stream,
// the one that literals have included.
const maxDepth = 3

// slice is how many bytes of a text the layers take at a time.
const slice = 8 << 10

// newLayers looks at a text that was decoded from what as names ("": it is a
// stream itself).
func newLayers(depth int, as string) *layers {
	if as != "" {
		l := &layers{views: []*view{newView(&escapeLang, 1, 0, as)}}
		l.fold.min, l.fold.as = foldRun, as
		if depth > 0 {
			l.dig(&inner{}, depth, as)
		}
		return l
	}
	o := &outer{}
	l := &o.layers
	for i, lang := range [...]*lang{&escapeLang, &hiddenLang, &joinedLang, &quotedLang, &brokenLang} {
		depth := 1
		if i == 0 {
			depth = 2
		}
		o.views[i].init(lang, depth, 0, "")
		o.at[i] = &o.views[i]
	}
	l.views = o.at[:]
	l.dig(&o.inner, depth, "")
	return l
}

// dig has l look for encodings with in.
func (l *layers) dig(in *inner, depth int, as string) {
	for i, a := range [...]*alphabetOf{&base32Alphabet, &lower32, &base64Alphabet, &hexAlphabet} {
		in.runs[i].init(a, depth, as)
		in.at[i] = &in.runs[i]
	}
	l.runs, l.numbers, l.members = in.at[:], &in.numbers, &in.members
	in.numbers.init(depth, as)
	in.members.depth, in.members.as = depth, as
}

// inside has all that comes out of what is compressed in l count as up's; nil: l is in
// nothing compressed.
func (l *layers) inside(up *allowance) {
	if up == nil || l.members == nil {
		return
	}
	l.members.up, l.numbers.up = up, up
	for _, r := range l.runs {
		r.up = up
	}
}

// write takes s.b[from:to], which follows prev if from is 0, and adds hits that
// end in it or, where what follows them decided, right before it.
func (l *layers) write(set *set, prev, s *text, from, to int, hits []Hit) []Hit {
	for i := from; i < to; i += slice {
		hits = l.piece(set, prev, s, i, min(i+slice, to), hits)
	}
	return hits
}

func (l *layers) piece(set *set, prev, s *text, from, to int, hits []Hit) []Hit {
	l.classes.of(s.b, from, to)
	if l.fold.min > 0 {
		l.fold.classes = &l.classes
		hits = l.fold.write(set, prev, s, from, to, hits)
	}
	for _, v := range l.views {
		v.classes = &l.classes
		hits = v.write(set, prev, s, from, to, hits)
	}
	for _, r := range l.runs {
		hits = r.write(set, prev, s, from, to, &l.classes, hits)
	}
	if l.numbers != nil {
		hits = l.numbers.write(set, prev, s, from, to, &l.classes, hits)
	}
	if l.members != nil {
		hits = l.members.write(set, prev, s, from, to, &l.classes, hits)
	}
	return hits
}

// safe lowers the offset up to which bytes may be released to what l needs.
func (l *layers) safe(to int64) int64 {
	to = l.fold.safe(to)
	for _, v := range l.views {
		to = v.safe(to)
	}
	for _, r := range l.runs {
		to = r.safe(to)
	}
	if l.numbers != nil {
		to = l.numbers.safe(to)
	}
	if l.members != nil {
		to = l.members.safe(to)
	}
	return to
}

// finish is for the end of the text, at offset end of the stream.
func (l *layers) finish(set *set, end int64, hits []Hit) []Hit {
	for _, v := range l.views {
		v.classes = nil
		hits = v.finish(set, end, hits)
	}
	for _, r := range l.runs {
		hits = r.finish(set, end, hits)
	}
	if l.numbers != nil {
		hits = l.numbers.finish(set, end, hits)
	}
	if l.members != nil {
		hits = l.members.finish(set, end, hits)
	}
	return hits
}

// adopt looks at what is retained with a new set. tail is the end of the text.
func (l *layers) adopt(set *set, tail *text, hits []Hit) []Hit {
	hits = l.fold.adopt(set, hits)
	for _, v := range l.views {
		v.classes = nil
		hits = v.adopt(set, tail, hits)
	}
	for _, r := range l.runs {
		hits = r.adopt(set, hits)
	}
	if l.numbers != nil {
		hits = l.numbers.adopt(set, hits)
	}
	if l.members != nil {
		hits = l.members.adopt(set, hits)
	}
	return hits
}

// reset forgets the text: another one begins.
func (l *layers) reset() {
	l.fold.reset()
	for _, v := range l.views {
		v.stop()
	}
	for _, r := range l.runs {
		r.reset()
	}
	if l.numbers != nil {
		l.numbers.reset()
	}
	if l.members != nil {
		l.members.reset()
	}
}

func (l *layers) wipe() {
	l.fold.wipe()
	for _, v := range l.views {
		v.wipe()
	}
	for _, r := range l.runs {
		r.wipe()
	}
	if l.numbers != nil {
		l.numbers.wipe()
	}
	if l.members != nil {
		l.members.wipe()
	}
}
