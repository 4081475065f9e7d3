package matcher

import "slices"

// retain is how many bytes a stream needs of what came before: a needle that
// ends in the next byte begins at most that many bytes before it.
const retain = maxNeedle - 1

// joined is up to which size a chunk is copied behind what is held and searched
// together with it. For a larger one a second search where they meet is cheaper.
const joined = 4 << 10

// maxWait is how many bytes are held back at most, whatever they may be the
// beginning of: a value with a line of blanks between any two numbers of a list is
// not waited for.
const maxWait = 32 << 10

// Stream looks for values in a stream of bytes. It is for one goroutine.
type Stream struct {
	m      *Matcher
	gen    uint64 // of the set that held is about
	pos    int64  // bytes written so far
	safe   int64
	buf    []byte    // the last bytes written, at least retain of them if there are
	held   int       // how many of them are the beginning of a needle
	layers *layers   // the same stream without line breaks, with escapes decoded, and what is encoded in it
	recent []Hit     // reported, and not yet wholly before safe
	ms     []match   // reused
	segs   [2][1]seg // reused
	closed bool
}

// Stream opens a stream at offset 0.
func (m *Matcher) Stream() *Stream {
	return &Stream{m: m, layers: newLayers(maxDepth, "")}
}

// Reset makes s a new stream of the same matcher, at offset 0, closed or not. What it
// retained is overwritten, and what it had not reported is lost: Close it first. It costs
// less than a new one.
func (s *Stream) Reset() {
	clear(s.buf[:cap(s.buf)])
	clear(s.recent[:cap(s.recent)])
	clear(s.ms[:cap(s.ms)])
	s.layers.renew()
	*s = Stream{m: s.m, buf: s.buf[:0], layers: s.layers, recent: s.recent[:0], ms: s.ms[:0]}
}

// Write takes the next bytes and returns the hits that end in them or, where an
// escape could have gone on, right before them, sorted and merged as by Scan, each once; and safe, the offset before which no byte can
// belong to a match that is not yet complete. A hit may reach over safe, so
// whoever releases bytes keeps it until they are out. safe never goes back.
//
// When values were added since the last Write, hits in bytes that are not yet
// safe are reported as well, and a hit may begin before safe: its first part is
// out already. After Close of the stream or its matcher safe stands still.
func (s *Stream) Write(p []byte) (hits []Hit, safe int64) {
	if s.closed {
		return nil, s.safe
	}
	set := s.m.use()
	if set == nil {
		return nil, s.safe
	}
	defer set.mu.RUnlock()
	if s.gen != set.gen {
		hits = s.adopt(set)
	}
	if len(p) > 0 {
		hits = s.views(set, p, hits)
		hits = s.feed(set, p, hits)
		s.pos += int64(len(p))
		s.held = set.begin.hold(s.tail())
	}
	return s.settle(merge(hits)), s.safe
}

// views searches what p makes of the stream without line breaks and escapes.
func (s *Stream) views(set *set, p []byte, hits []Hit) []Hit {
	prev, text := plain(&s.segs[0], s.buf, s.pos-int64(len(s.buf))), plain(&s.segs[1], p, s.pos)
	n := len(hits)
	hits = s.layers.write(set, &prev, &text, 0, len(p), hits)
	return s.late(hits, n)
}

// late drops from hits[n:] those that end before this Write's bytes, since they
// waited for what follows them, and that were found as a whole by then.
func (s *Stream) late(hits []Hit, n int) []Hit {
	return append(hits[:n], slices.DeleteFunc(hits[n:], func(h Hit) bool { return h.End <= s.pos && s.known(h) })...)
}

// known says that h lies inside a hit that was reported.
func (s *Stream) known(h Hit) bool {
	return slices.ContainsFunc(s.recent, func(r Hit) bool {
		return r.ID == h.ID && r.Class == h.Class && r.Start <= h.Start && h.End <= r.End
	})
}

// Close returns hits that waited for what could have gone on with an escape, and
// those of values that were added since the last Write, in bytes that were held
// back. It overwrites what the stream retained.
func (s *Stream) Close() []Hit {
	if s.closed {
		return nil
	}
	hits, _ := s.Write(nil)
	hits = s.finish(hits)
	s.closed = true
	clear(s.buf[:cap(s.buf)])
	s.layers.wipe()
	return hits
}

func (s *Stream) finish(hits []Hit) []Hit {
	set := s.m.use()
	if set == nil {
		return hits
	}
	defer set.mu.RUnlock()
	if s.gen != set.gen {
		return hits
	}
	n := len(hits)
	hits = s.layers.finish(set, s.pos, hits)
	return merge(s.late(slices.DeleteFunc(hits, func(h Hit) bool { return h.End > s.pos }), n))
}

// tail is what may still become part of a match.
func (s *Stream) tail() []byte { return s.buf[max(0, len(s.buf)-retain):] }

// feed finds the needles that end in p and moves p's end to buf.
func (s *Stream) feed(set *set, p []byte, hits []Hit) []Hit {
	if need := min(len(p), joined); len(s.buf)+need > cap(s.buf) {
		s.room(need)
	}
	// What is held begins a needle; what came before it does not, so no match
	// begins there.
	from := len(s.buf) - s.held
	if len(p) <= joined {
		s.buf = append(s.buf, p...)
		s.ms = set.find(s.buf[from:], s.ms[:0])
		return s.collect(set, s.pos-int64(s.held), len(s.buf), hits)
	}
	if s.held > 0 {
		s.buf = append(s.buf, p[:set.longest-1]...)
		s.ms = set.find(s.buf[from:], s.ms[:0])
		hits = s.collect(set, s.pos-int64(s.held), s.held, hits)
	}
	s.ms = set.find(p, s.ms[:0])
	s.buf = append(s.buf[:0], p[len(p)-retain:]...)
	return s.collectAll(set, s.pos, hits)
}

// room makes place for n bytes, of which there are at most joined.
func (s *Stream) room(n int) {
	tail := s.tail()
	if len(tail)+n > cap(s.buf)/2 && cap(s.buf) < joined+2*maxNeedle {
		old := s.buf
		s.buf = append(make([]byte, 0, min(joined+2*maxNeedle, max(2*cap(old), 2*(len(tail)+n)))), tail...)
		clear(old)
		return
	}
	s.buf = s.buf[:copy(s.buf, tail)]
}

// collect turns matches into hits: those that end after pos and begin before
// base+before.
func (s *Stream) collect(set *set, base int64, before int, hits []Hit) []Hit {
	for _, f := range s.ms {
		start := f.end - len(set.needles[f.needle])
		if start >= before || base+int64(f.end) <= s.pos {
			continue
		}
		if h, ok := set.hit(f.needle, base+int64(start), base+int64(f.end), 0); ok {
			hits = append(hits, h)
		}
	}
	return hits
}

func (s *Stream) collectAll(set *set, base int64, hits []Hit) []Hit {
	return s.collect(set, base, int(^uint(0)>>1), hits)
}

// adopt looks at what is retained with a new set.
func (s *Stream) adopt(set *set) []Hit {
	s.gen = set.gen
	tail := s.tail()
	s.held = set.begin.hold(tail)
	var hits []Hit
	base := s.pos - int64(len(tail))
	for _, f := range set.find(tail, s.ms[:0]) {
		if h, ok := set.hit(f.needle, base+int64(f.end-len(set.needles[f.needle])), base+int64(f.end), 0); ok {
			hits = append(hits, h)
		}
	}
	var segs [1]seg
	text := plain(&segs, tail, base)
	hits = s.layers.adopt(set, &text, hits)
	return slices.DeleteFunc(hits, func(h Hit) bool { return h.End <= s.safe || s.known(h) })
}

// settle moves safe and remembers what it must not report twice.
func (s *Stream) settle(hits []Hit) []Hit {
	s.safe = max(s.safe, s.layers.safe(s.pos-int64(s.held)), s.pos-maxWait)
	s.recent = append(s.recent, hits...)
	s.recent = slices.DeleteFunc(s.recent, func(h Hit) bool { return h.End <= s.safe })
	return hits
}
