package ssh

import (
	"sync"
	"time"
)

const (
	maxConns   = 256              // at a time
	maxProcess = 32               // of them of one process
	maxSilent  = 30 * time.Second // without a request, when more than half of maxConns are open
)

// peer is a connection that knows which process has made it: the id as the kernel
// recorded it, of which nothing else is known.
type peer interface{ Peer() (pid int) }

// conns are the connections that are served. Who holds many takes none from the
// session's other processes: one process has so many, and a new connection takes the
// place of the one that was silent for the longest time.
type conns struct {
	mu   sync.Mutex
	turn uint64
	open map[*conn]*state
}

type state struct {
	peer int
	turn uint64    // of the last request, or of the beginning
	at   time.Time // of it
	busy bool      // a request is answered now
}

// admit says whether c is to be served, and closes another one for it if need be.
func (t *conns) admit(c *conn, now time.Time) bool {
	pid := 0
	if p, ok := c.self.(peer); ok {
		pid = p.Peer()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	own := 0
	var silent *conn
	for o, s := range t.open {
		if s.peer == pid {
			own++
		}
		if !s.busy && (silent == nil || s.turn < t.open[silent].turn) {
			silent = o
		}
	}
	if own >= maxProcess {
		return false
	}
	if n := len(t.open); silent != nil && (n >= maxConns || n > maxConns/2 && now.Sub(t.open[silent].at) >= maxSilent) {
		delete(t.open, silent)
		silent.self.Close() // what serves it ends by that
	} else if n >= maxConns {
		return false
	}
	if t.open == nil {
		t.open = map[*conn]*state{}
	}
	t.turn++
	t.open[c] = &state{peer: pid, turn: t.turn, at: now}
	return true
}

// touch notes that a request of c is answered now (busy), or was.
func (t *conns) touch(c *conn, now time.Time, busy bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.open[c]; s != nil {
		t.turn++
		s.turn, s.at, s.busy = t.turn, now, busy
	}
}

func (t *conns) drop(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, c)
}
