package supervisor

import (
	"time"

	"guard"
	"guard/matcher"
	"guard/pty/screen"
)

// OpenScreen starts a stream to the user's terminal from o: what Open makes, and
// behind it what keeps values from being complete on the screen, in whatever way
// they are drawn there. The caller tells the Screen of new sizes.
func (l *Line) OpenScreen(o guard.Origin, rows, cols int) (guard.Filter, *screen.Screen) {
	find := &finder{stream: l.Matcher.Stream()}
	s := screen.New(rows, cols, find.find, func(h screen.Hit) guard.Decision {
		encoding := "screen"
		if h.Encoding != "raw" {
			encoding += "+" + h.Encoding
		}
		return l.Judge(guard.Leak{
			Origin: o, Secret: h.ID, Class: h.Class, Encoding: encoding,
			Length: h.End - h.Start, At: time.Now(),
		})
	})
	f := s.Wrap(l.Open(o))
	return func(p []byte, step guard.Step) ([]byte, guard.Decision) {
		out, d := f(p, step)
		if step == guard.End {
			find.stream.Close()
		}
		return out, d
	}, s
}

// finder looks for values in texts that have nothing to do with each other. It
// hands them to one stream, where Matcher.Scan would make one for each, which
// costs more than the search.
type finder struct {
	stream *matcher.Stream
	pos    int64
	buf    []byte // reused
}

// apart ends what one text may have begun: it is part of no needle and no escape.
const apart = "\f\f\f\f\f\f\f\f"

func (f *finder) find(text []byte) []screen.Hit {
	from, to := f.pos, f.pos+int64(len(text))
	// One write: most texts are so short that a second would take as long as the first.
	f.buf = append(append(f.buf[:0], text...), apart...)
	found, _ := f.stream.Write(f.buf)
	f.pos = to + int64(len(apart))
	var hits []screen.Hit
	for _, h := range found {
		// A hit that waited for how an escape goes on ends where the wait did.
		if h.Start >= from && h.Start < to {
			hits = append(hits, screen.Hit{ID: h.ID, Class: h.Class, Encoding: h.Encoding, Start: int(h.Start - from), End: int(min(h.End, to) - from)})
		}
	}
	return hits
}
