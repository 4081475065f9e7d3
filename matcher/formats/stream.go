package formats

// Stream looks for credentials in a stream of bytes. It is for one goroutine.
// However a stream is cut, all of its findings together are those of Scan.
type Stream struct {
	search search
	view   view
	closed bool
}

// history is how much a stream retains at least of what came before.
const history = 640

// Stream opens a stream at offset 0.
func (s *Set) Stream() *Stream {
	return &Stream{search: search{set: s}, view: view{set: s}}
}

// Write takes the next bytes and returns what is settled with them: a finding
// of a prefix as soon as the byte after the credential is there, one by context
// a few bytes later, one of a rule that is searched for in cells up to 12 KiB later.
func (st *Stream) Write(p []byte) []Finding {
	if st.closed || len(p) == 0 {
		return nil
	}
	s := &st.search
	pos := s.base + int64(len(s.b))
	found := st.view.write(p, pos, s.b)
	s.b = append(s.b, p...)
	found = append(s.run(), found...)
	s.trim()
	return found
}

// Close returns the findings that waited for what could have come, and
// overwrites what the stream retained.
func (st *Stream) Close() []Finding {
	if st.closed {
		return nil
	}
	st.closed = true
	st.search.last = true
	found := st.search.run()
	found = append(found, st.view.close()...)
	clear(st.search.b[:cap(st.search.b)])
	return found
}

// Safe is the offset before which nothing can be part of a finding of a prefix
// that is not settled: everything from there on may be the beginning of a
// credential, or is one that is not complete. Findings by context and of user
// rules in cells may begin before it. Safe may go back by the length of
// what came before an anchor, 96 bytes at most.
func (st *Stream) Safe() int64 {
	s := &st.search
	end := s.base + int64(len(s.b))
	if st.closed {
		return end
	}
	safe := end
	if len(s.strong) > 0 {
		safe = s.strong[0].at
		if r := s.set.rules[s.strong[0].rule]; r.Before > 0 {
			safe -= int64(r.Before)
		}
	}
	for i := max(0, len(s.b)-maxAnchor+1); i < len(s.b) && s.base+int64(i) < safe; i++ {
		if s.set.begins(s.b, i) {
			safe = s.base + int64(i)
		}
	}
	return max(0, safe)
}

// begins says that b[i:] is the beginning of a strong anchor.
func (s *Set) begins(b []byte, i int) bool {
	tail := b[i:]
anchors:
	for _, n := range s.firsts()[tail[0]] {
		a := &s.anchors[n]
		if len(tail) >= len(a.sets) {
			continue
		}
		for j := range tail {
			if !a.sets[j].has(tail[j]) {
				continue anchors
			}
		}
		if r := s.rules[a.rule]; a.align != 0 || r.Before > 0 || i == 0 || leftFree(b, i, &r.left) {
			return true
		}
	}
	return false
}

// trim lets go of what no window needs any more.
func (s *search) trim() {
	keep := max(0, len(s.b)-max(history, s.set.lookBack))
	for _, list := range [][]cand{s.strong, s.weak, s.other} {
		for _, c := range list {
			keep = min(keep, max(0, int(c.at-s.base)-s.set.lookBack))
		}
	}
	for _, c := range s.cells {
		keep = min(keep, max(0, int(c.n*cellSize-s.base)-cellLook))
	}
	if s.set.hasCells {
		// A cell may become hot by a keyword that comes up to cellAfter behind it.
		keep = min(keep, max(0, len(s.b)-cellSize-cellAfter-cellLook))
	}
	// Moving it each time would cost more than the search.
	if keep < 4096 || keep < len(s.b)/2 {
		return
	}
	clear(s.b[:keep])
	n := copy(s.b, s.b[keep:])
	clear(s.b[n:])
	s.b = s.b[:n]
	s.base += int64(keep)
	s.scanned -= keep
	s.finders -= keep
	low := s.base - 2*int64(s.set.lookBack)
	i := 0
	for i < len(s.spans) && s.spans[i].end < low {
		i++
	}
	s.spans = append(s.spans[:0], s.spans[i:]...)
}
