package pty

import (
	"io"
	"time"
)

// readerSource reads what cannot be polled. Its goroutine reads ahead by one
// buffer, and ends with the reader or with close.
type readerSource struct {
	full  chan readResult
	empty chan []byte
	quit  chan struct{}
	done  chan struct{}
	timer *time.Timer
	rest  []byte // of buf, not yet taken
	buf   []byte
	err   error
}

type readResult struct {
	p   []byte
	err error
}

func newReaderSource(r io.Reader) *readerSource {
	s := &readerSource{
		full:  make(chan readResult),
		empty: make(chan []byte, 2),
		quit:  make(chan struct{}),
		done:  make(chan struct{}),
	}
	s.empty <- make([]byte, chunk/2)
	s.empty <- make([]byte, chunk/2)
	go func() {
		defer close(s.done)
		defer close(s.full)
		for {
			var buf []byte
			select {
			case <-s.quit:
				return
			case buf = <-s.empty:
			}
			n, err := r.Read(buf[:cap(buf)])
			s.full <- readResult{buf[:n], err}
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *readerSource) read(p []byte, d time.Duration) (int, error) {
	for len(s.rest) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		if s.buf != nil {
			s.empty <- s.buf
			s.buf = nil
		}
		var silence <-chan time.Time
		if d >= 0 {
			if s.timer == nil {
				s.timer = time.NewTimer(d)
			} else {
				s.timer.Reset(d)
			}
			silence = s.timer.C
		}
		select {
		case r := <-s.full:
			s.rest, s.buf, s.err = r.p, r.p, r.err
			if s.timer != nil {
				s.timer.Stop()
			}
		case <-silence:
			return 0, errSilence
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *readerSource) close() {
	close(s.quit)
	for range s.full { // lets the goroutine hand over what it has, and end
	}
	<-s.done
	if s.timer != nil {
		s.timer.Stop()
	}
}
