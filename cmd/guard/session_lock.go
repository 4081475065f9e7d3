package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"guard/vault"
)

// How the vault is locked. Every guard process that keeps keys holds the lock of a file of
// its own in GUARD_HOME/lock/held. What locks writes lock/state; each of them sees it, wipes its
// keys and leaves a ticket (vault.Shut) beside. `guard unlock` opens the vault with what the
// user gives, answers every ticket and removes the state. All of that is done under one mutex, so that
// nobody locks after having been unlocked. Removing the state by hand gives nobody a key back, and
// a session sees nothing of this folder.

func (a *app) lockPath(name ...string) string {
	return filepath.Join(append([]string{a.home(), "lock"}, name...)...)
}

const (
	lockState  = "state"
	lockMutex  = "mutex"
	lockUsed   = "used" // its time is that of the last use
	ticketEnd  = ".ticket"
	answerEnd  = ".answer"
	heldFolder = "held"
)

// lockNote is what lock/state says.
type lockNote struct {
	At  time.Time `json:"at"`
	Why string    `json:"why"` // "guard lock", "idle", "suspend"
}

// lockedBy says whether the vault is locked, and why. What cannot be read counts as locked.
func (a *app) lockedBy() (lockNote, bool) {
	b, err := os.ReadFile(a.lockPath(lockState))
	if errors.Is(err, fs.ErrNotExist) {
		return lockNote{}, false
	}
	var n lockNote
	if err != nil || json.Unmarshal(b, &n) != nil {
		n.Why = "the lock's file cannot be read"
	}
	return n, true
}

// lockMutexWait bounds how long a process waits for another one that locks or unlocks.
const lockMutexWait = 10 * time.Second

// withLock runs f while no other process locks or unlocks.
func (a *app) withLock(f func() error) error {
	if err := os.MkdirAll(a.lockPath(heldFolder), 0o700); err != nil {
		return err
	}
	for end := time.Now().Add(lockMutexWait); ; time.Sleep(2 * time.Millisecond) {
		release, err := vault.TryLock(a.lockPath(lockMutex))
		if err == nil {
			defer release()
			return f()
		}
		if !errors.Is(err, vault.ErrBusy) || time.Now().After(end) {
			return err
		}
	}
}

// setLock locks the vault; one that is locked stays as it is.
func (a *app) setLock(why string, at time.Time) error {
	return a.withLock(func() error {
		if _, locked := a.lockedBy(); locked {
			return nil
		}
		b, err := json.Marshal(lockNote{At: at.UTC(), Why: why})
		if err != nil {
			return err
		}
		return writeFile(a.lockPath(lockState), b)
	})
}

// checkLock refuses to open a locked vault, also one that nobody used for so long that it is.
func (a *app) checkLock() error {
	set, err := a.settings()
	if err != nil {
		return err
	}
	if set.IdleLock > 0 {
		if at, ok := a.lastUsed(); ok && time.Since(at) >= set.IdleLock {
			if err := a.setLock("idle", time.Now()); err != nil {
				return err
			}
		}
	}
	if n, locked := a.lockedBy(); locked {
		return fmt.Errorf("%w since %s (%s): guard unlock opens it", vault.ErrLocked, n.At.Local().Format(time.DateTime), n.Why)
	}
	return nil
}

func (a *app) lastUsed() (time.Time, bool) {
	fi, err := os.Stat(a.lockPath(lockUsed))
	if err != nil {
		return time.Time{}, false
	}
	return fi.ModTime(), true
}

// keepUsed remembers that the vault was used.
func (a *app) keepUsed(at time.Time) {
	path := a.lockPath(lockUsed)
	if os.Chtimes(path, at, at) == nil {
		return
	}
	if os.MkdirAll(filepath.Dir(path), 0o700) != nil {
		return
	}
	if f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
		f.Close()
		_ = os.Chtimes(path, at, at)
	}
}

// clock is what a holder reads time from.
type clock struct {
	now    func() time.Time
	asleep func() time.Duration // how long the machine was suspended since it started
}

func machineClock() clock { return clock{now: time.Now, asleep: suspended} }

const (
	// usedEvery is how often a use is written down for the other processes.
	usedEvery = time.Second
	// suspendedFor is what counts as a suspend: both clocks are not read at the same moment.
	suspendedFor = 500 * time.Millisecond
)

// holder is a process that keeps the vault's keys for longer than a moment.
type holder struct {
	app   *app
	vault *vault.Vault
	id    string
	clock clock
	set   settings
	free  func()
	// before runs while the vault still opens, shut when its keys are gone, opened when they are back.
	before        func()
	shut          func(why string)
	opened        func()
	used, written atomic.Int64 // Unix nanoseconds

	mu     sync.Mutex // check is called by one, close by another
	asleep time.Duration
	ticket []byte // while it is locked
	kept   bool   // that ticket is on the disk
	told   bool   // that it was answered by what does not open
}

// hold makes this process one that locks itself when the vault is locked.
func (a *app) hold(v *vault.Vault, id string, c clock) (*holder, error) {
	h := &holder{app: a, vault: v, id: id, clock: c, before: func() {}, shut: func(string) {}, opened: func() {}}
	var err error
	if h.set, err = a.settings(); err != nil {
		return nil, err
	}
	h.asleep = c.asleep()
	h.use()
	err = a.withLock(func() error {
		if n, locked := a.lockedBy(); locked {
			return fmt.Errorf("%w since %s (%s): guard unlock opens it", vault.ErrLocked, n.At.Local().Format(time.DateTime), n.Why)
		}
		h.free, err = vault.TryLock(a.lockPath(heldFolder, id))
		return err
	})
	if err != nil {
		return nil, err
	}
	return h, nil
}

// use says that a credential was used now.
func (h *holder) use() {
	if h == nil {
		return
	}
	now := h.clock.now().UnixNano()
	h.used.Store(now)
	if last := h.written.Load(); now-last >= int64(usedEvery) && h.written.CompareAndSwap(last, now) {
		h.app.keepUsed(time.Unix(0, now))
	}
}

// locked says whether uses are refused: from the moment at which lock/state is there.
func (h *holder) locked() bool {
	if h == nil {
		return false
	}
	if h.vault.Locked() {
		return true
	}
	_, err := os.Lstat(h.app.lockPath(lockState))
	return !errors.Is(err, fs.ErrNotExist)
}

// check locks and unlocks this process as it has to be by now.
func (h *holder) check() error {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ticket != nil {
		return h.await()
	}
	now := h.clock.now()
	slept := h.clock.asleep()
	was := h.asleep
	h.asleep = slept
	if h.set.SuspendLock && slept-was >= suspendedFor {
		if err := h.app.setLock("suspend", now); err != nil {
			return err
		}
	} else if idle := h.set.IdleLock; idle > 0 {
		last := time.Unix(0, h.used.Load())
		if at, ok := h.app.lastUsed(); ok && at.After(last) {
			last = at
		}
		if now.Sub(last) >= idle {
			if err := h.app.setLock("idle", now); err != nil {
				return err
			}
		}
	}
	n, locked := h.app.lockedBy()
	if !locked {
		return nil
	}
	h.before()
	err := h.app.withLock(func() error {
		if n, locked = h.app.lockedBy(); !locked {
			return nil
		}
		var err error
		if h.ticket, err = h.vault.Shut("original", "audit-head"); err != nil {
			return err
		}
		h.keep()
		return nil
	})
	if h.ticket != nil {
		h.shut(n.Why)
	}
	return err
}

// keep leaves the ticket where guard unlock finds it. What an earlier one was answered
// with is none for this one.
func (h *holder) keep() {
	_ = os.Remove(h.app.lockPath(h.id + answerEnd))
	h.kept = writeFile(h.app.lockPath(h.id+ticketEnd), h.ticket) == nil
}

// await takes the answer to the ticket, once it is there.
func (h *holder) await() error {
	if !h.kept {
		h.keep() // the disk was full
	}
	path := h.app.lockPath(h.id + answerEnd)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// Answer and ticket go together: a guard unlock in between would answer a ticket
	// that is used up, and this process would be left behind by the next one.
	err := h.app.withLock(func() error {
		b, err := os.ReadFile(path)
		if err == nil {
			err = h.vault.Reopen(b)
		}
		_ = os.Remove(path)
		if err == nil {
			_ = os.Remove(h.app.lockPath(h.id + ticketEnd))
		}
		return err
	})
	if err != nil {
		if h.told {
			return nil
		}
		h.told = true
		return fmt.Errorf("what came to unlock this process does not: %w", err)
	}
	h.ticket, h.kept, h.told = nil, false, false
	h.asleep = h.clock.asleep()
	h.use()
	h.opened()
	return nil
}

// close leaves nothing of this process.
func (h *holder) close() {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, end := range []string{ticketEnd, answerEnd} {
		_ = os.Remove(h.app.lockPath(h.id + end))
	}
	_ = os.Remove(h.app.lockPath(heldFolder, h.id))
	h.free()
}

// holders are the processes that keep keys; what killed ones left is removed.
func (a *app) holders() ([]string, error) {
	es, err := os.ReadDir(a.lockPath(heldFolder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var ids []string
	for _, e := range es {
		release, err := vault.TryLock(a.lockPath(heldFolder, e.Name()))
		if err != nil {
			ids = append(ids, e.Name())
			continue
		}
		for _, end := range []string{ticketEnd, answerEnd} {
			_ = os.Remove(a.lockPath(e.Name() + end))
		}
		_ = os.Remove(a.lockPath(heldFolder, e.Name()))
		release()
	}
	return ids, nil
}

// tickets are those of processes that wait, by their ids.
func (a *app) tickets() (map[string][]byte, error) {
	ids, err := a.holders()
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for _, id := range ids {
		b, err := os.ReadFile(a.lockPath(id + ticketEnd))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out[strings.TrimSuffix(id, ticketEnd)] = b
	}
	return out, nil
}
