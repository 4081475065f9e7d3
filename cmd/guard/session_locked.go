package main

import (
	"context"
	"net"
	"sync"

	"guard"
	"guard/broker"
)

// lateLeak is a leak that was stopped while the vault was locked: its credential is replaced
// when it is open again.
type lateLeak struct {
	leak    guard.Leak
	escaped bool
}

// lockedDecision refuses a use, as quarantine does.
func lockedDecision(name string) guard.Decision {
	return guard.Decision{
		Action: guard.Block, Rule: "vault locked", Reason: "the vault is locked: " + name + " can be used again after guard unlock",
		NextSteps: []string{"ask the user to run: guard unlock"},
	}
}

// holdLock makes this session one of those that guard lock locks. What stays in its memory then
// is what it looks for in output, which goes on: the scanner's values, and the keys of the log and of
// what is put away from files. Nothing gets a value out of them.
func (s *session) holdLock() (err error) {
	if s.lock, err = s.app.hold(s.vault, s.info.ID, machineClock()); err != nil {
		return err
	}
	s.closers = append(s.closers, s.lock.close)
	s.lock.before = func() {
		// It is made of values when it is first needed, which would be too late.
		s.mu.Lock()
		folded := s.folded
		s.mu.Unlock()
		if folded != nil {
			_, _ = folded.matcher()
		}
	}
	s.lock.shut = func(why string) {
		s.noteLock("vault.lock", why)
		s.logged.endAll()
		if s.flags.lockEnds {
			s.lockedOut.Store(true)
			s.mu.Lock()
			stop := s.stop
			s.mu.Unlock()
			if stop != nil {
				stop()
			}
			return
		}
		s.app.say("the vault was locked (%s): no credential can be used until guard unlock", why)
	}
	s.lock.opened = func() {
		s.refresh()
		s.noteLock("vault.unlock", "")
		s.mu.Lock()
		late := s.waiting
		s.waiting = nil
		s.mu.Unlock()
		for _, l := range late {
			s.respond.Leak(l.leak.Secret, l.escaped, l.leak)
		}
		s.app.say("the vault is open again")
	}
	return nil
}

func (s *session) noteLock(typ, why string) {
	r := s.record(typ)
	r.Reason = why
	if _, err := s.append(r); err != nil {
		s.app.say("that the vault was locked or opened could not be recorded: %v", err)
	}
}

// checkLock is called every followEvery.
func (s *session) checkLock() {
	if err := s.lock.check(); err != nil {
		s.app.say("%v", err)
	}
}

// rotateLeak has a credential that leaked replaced, as soon as the vault is open.
func (s *session) rotateLeak(l guard.Leak, escaped bool) {
	if s.vault.Locked() {
		s.mu.Lock()
		s.waiting = append(s.waiting, lateLeak{l, escaped})
		s.mu.Unlock()
		s.app.say("%s leaked while the vault is locked: what is to be done about it is done when the vault is open again", l.Secret.Name)
		return
	}
	s.respond.Leak(l.Secret, escaped, l)
}

// giveUpWaiting makes incidents of what leaked while the vault was locked, and still is: their
// rotations are left open.
func (s *session) giveUpWaiting() {
	s.mu.Lock()
	late := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	for _, l := range late {
		s.respond.Leak(l.leak.Secret, l.escaped, l.leak)
	}
}

// standing are the connections that a credential may have logged in, and commands that have one:
// they end when the vault is locked, since not all of what is done there is asked about.
type standing struct {
	mu   sync.Mutex
	next int
	ends map[int]func()
}

func (c *standing) add(end func()) (remove func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ends == nil {
		c.ends = map[int]func(){}
	}
	n := c.next
	c.next++
	c.ends[n] = end
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.ends, n)
	}
}

func (c *standing) endAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, end := range c.ends {
		end()
	}
}

func (s *session) endsWithLock(h broker.Handler) broker.Handler {
	return func(ctx context.Context, c net.Conn, host string, port int) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		remove := s.logged.add(func() {
			cancel()
			c.Close()
		})
		defer remove()
		h(ctx, c, host, port)
	}
}
