package main

import (
	"errors"
	"os"
	"slices"
	"time"

	"guard"
	"guard/bpf"
	"guard/matcher/formats"
)

// sourceFormats is the source of the counts of what was searched for forms.
const sourceFormats = "bpf, forms"

// formatsMax is how many streams are searched at a time; the one that was longest
// without a byte ends first.
const formatsMax = 2048

// formatsIdle is how long a stream rests before what waits for its next byte is
// settled.
const formatsIdle = time.Second

// forms finds credentials that guard does not know, by their form, in what the chosen
// cgroups or processes write. It is for one goroutine, the reader of its pieces.
type forms struct {
	m       *monitor
	set     *formats.Set
	pieces  *bpf.Pieces
	streams map[bpf.StreamID]*formStream
	last    map[guard.Channel]bpf.Counters
}

// formStream is one stream's search.
type formStream struct {
	*formats.Stream
	about []byte // of its last piece
	used  time.Time
}

func (m *monitor) openForms(o bpf.Options) (_ *forms, err error) {
	f := &forms{m: m, streams: map[bpf.StreamID]*formStream{}}
	// A known value, a placeholder too, is found by itself.
	ignore := func(b []byte) bool { return len(m.matcher.Scan(b)) > 0 }
	if f.set, err = formats.New(formats.Options{CacheDir: m.app.cacheDir(), Ignore: ignore}); err != nil {
		return nil, err
	}
	o.Needles, o.Refuse, o.Lenient, o.RingBytes, o.Streams = nil, false, false, 0, 0
	if f.pieces, err = bpf.OpenPieces(o); err != nil {
		return nil, errors.Join(err, f.set.Close())
	}
	return f, nil
}

// run searches until the pieces end.
func (f *forms) run() error {
	swept := time.Now()
	for {
		f.pieces.SetDeadline(swept.Add(formatsIdle))
		p, err := f.pieces.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			swept = time.Now()
			f.sweep(swept)
			continue
		}
		if err != nil {
			for id := range f.streams {
				f.end(id)
			}
			if errors.Is(err, os.ErrClosed) {
				return nil
			}
			return err
		}
		now := time.Now()
		f.take(p, now)
		if now.Sub(swept) > formatsIdle {
			swept = now
			f.sweep(now)
		}
	}
}

func (f *forms) take(p bpf.Piece, now time.Time) {
	s := f.streams[p.Stream]
	if s == nil {
		if len(f.streams) >= formatsMax {
			f.sweep(now)
		}
		if len(f.streams) >= formatsMax {
			oldest, at := bpf.StreamID{}, now
			for id, s := range f.streams {
				if !s.used.After(at) {
					oldest, at = id, s.used
				}
			}
			f.end(oldest)
		}
		s = &formStream{Stream: f.set.Stream()}
		f.streams[p.Stream] = s
	}
	s.used = now
	s.about = append(s.about[:0], p.About...)
	for _, x := range s.Write(p.Bytes) {
		f.found(s, x)
	}
}

// sweep ends streams that rest.
func (f *forms) sweep(now time.Time) {
	for id, s := range f.streams {
		if now.Sub(s.used) > formatsIdle {
			f.end(id)
		}
	}
}

func (f *forms) end(id bpf.StreamID) {
	s := f.streams[id]
	if s == nil {
		return
	}
	delete(f.streams, id)
	for _, x := range s.Close() {
		f.found(s, x)
	}
}

// found hands a finding on to the judge. Forms that many other things have are none.
func (f *forms) found(s *formStream, x formats.Finding) {
	if x.Confidence < formats.Medium {
		return
	}
	e, err := f.pieces.Describe(s.about)
	if err != nil {
		f.m.app.say("%v", err)
		return
	}
	e.Offset, e.Length = x.Start, int(x.End-x.Start)
	found := seen{Event: e, owner: owner{encoding: x.Encoding}, rule: x.Rule, why: x.Kind + " of " + x.Provider + ": " + x.Why}
	f.m.describe(&found, false)
	f.m.found <- found
}

// recordSearched writes what was searched, channel by channel.
func (f *forms) recordSearched() {
	st, err := f.pieces.Stats()
	if err != nil {
		f.m.app.say("what was searched for forms is not known: %v", err)
		return
	}
	diff := bpf.Stats{Channels: map[guard.Channel]bpf.Counters{}}
	for ch, c := range st.Channels {
		if d := c.Minus(f.last[ch]); d != (bpf.Counters{}) {
			diff.Channels[ch] = d
		}
	}
	f.last = st.Channels
	all := bpfCoverage(diff)
	for i := range all {
		// Here what is dropped is a piece, not a find.
		for k, c := range all[i].counts {
			if c.name == "dropped" {
				all[i].counts[k].name = "pieces_dropped"
			}
		}
		all[i].counts = slices.DeleteFunc(all[i].counts, func(c count) bool { return c.n == 0 && c.name != "scanned" && c.name != "pieces_dropped" })
	}
	f.m.recordCoverage(sourceFormats, all)
}

func (f *forms) close() {
	if err := errors.Join(f.pieces.Close(), f.set.Close()); err != nil {
		f.m.app.say("the search for forms did not end cleanly: %v", err)
	}
}
