package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"guard/bpf"
)

// registry is the part of root's monitor that looks for other users' values, which it does not know. Each user's guard
// registers hashes (monitor_wire.go); who it is, the kernel says (SO_PEERCRED). It is told of finds in processes that are that
// user's and have no other rights. Of a find in another user's process it is told when, whose and which program, where the
// bytes are one long word of their own (standsAlone) and the hash is of all of it: who may
// ask by hashes whether others write some bytes could guess those a byte at a time, but not a whole word at once. Of processes
// that have more rights than one user's, root's log alone is told.
type registry struct {
	m       *monitor
	l       *net.UnixListener
	changed chan struct{}
	wg      sync.WaitGroup

	mu    sync.Mutex // guards what follows
	key   bpf.HashKey
	epoch uint64
	seq   uint64
	all   map[*registrant]bool
	told  map[int][]time.Time // by uid: finds in other users' processes
}

const (
	maxRegistrants    = 256
	maxUserConns      = 4
	registryEvery     = 100 * time.Millisecond // how often the kernel's table is made anew at most
	registrantTimeout = 10 * time.Second       // for what has begun to come, or has to go
	// A list of needles that is found more often than this, stormOften times in stormIn, is not one of long random values.
	stormOften = 4096
	stormIn    = 10 * time.Second
	// elsewhereMost finds in other users' processes are told to one user's guards in elsewhereIn; the rest is in root's log.
	elsewhereMost = 16
	elsewhereIn   = time.Hour
)

// registrant is a user's guard.
type registrant struct {
	uid  int
	seq  uint64 // who came first has first place in the table
	conn *net.UnixConn
	out  chan watchSays

	// registry.mu guards what follows.
	needles []bpf.HashedNeedle
	applied chan struct{} // closed when the kernel looks for needles; nil: it does
	lost    uint64
	hits    int
	since   time.Time
	gone    bool
}

// openRegistry listens at path. A socket that nobody listens on any more is replaced.
func (m *monitor) openRegistry(path string) (*registry, error) {
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("--listen %s: another monitor listens there", path)
	}
	if fi, err := os.Lstat(path); err == nil && fi.Mode().Type() == os.ModeSocket {
		os.Remove(path)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("--listen: %w", err)
	}
	// Whoever connects says who he is.
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, fmt.Errorf("--listen: %w", err)
	}
	return &registry{m: m, l: l, changed: make(chan struct{}, 1), key: bpf.NewHashKey(), epoch: 1, all: map[*registrant]bool{}, told: map[int][]time.Time{}}, nil
}

// run serves until ctx ends.
func (r *registry) run(ctx context.Context) {
	r.wg.Go(func() { r.apply(ctx) })
	r.wg.Go(func() {
		<-ctx.Done()
		r.l.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		for g := range r.all {
			g.conn.Close()
		}
	})
	for {
		c, err := r.l.AcceptUnix()
		if err != nil {
			break
		}
		uid, pid, err := peer(c)
		if err != nil {
			c.Close()
			continue
		}
		g := &registrant{uid: uid, conn: c, out: make(chan watchSays, 256), since: time.Now()}
		// What runs in a session is its user's, and is not to ask what the rest of the user's processes write.
		if first, ok := r.m.bpf.Kin(pid); ok && first != pid {
			err = errors.New("a process of a session may not register")
		} else {
			err = r.add(ctx, g)
		}
		if err != nil {
			_ = c.SetWriteDeadline(time.Now().Add(time.Second))
			_ = json.NewEncoder(c).Encode(watchSays{Error: err.Error()})
			c.Close()
			continue
		}
		r.wg.Go(func() { r.read(ctx, g) })
		r.wg.Go(func() { g.write() })
	}
	r.wg.Wait()
}

func (r *registry) add(ctx context.Context, g *registrant) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	same := 0
	for x := range r.all {
		if x.uid == g.uid {
			same++
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case same >= maxUserConns:
		return fmt.Errorf("%d guards of user %d are registered already", same, g.uid)
	case len(r.all) >= maxRegistrants:
		return errors.New("too many guards are registered")
	}
	r.all[g] = true
	r.seq++
	g.seq = r.seq
	key := r.key
	g.out <- watchSays{Key: &key, Epoch: r.epoch}
	return nil
}

// read takes a registrant's lists, each after the kernel has the one before, until it goes.
func (r *registry) read(ctx context.Context, g *registrant) {
	defer func() {
		r.mu.Lock()
		delete(r.all, g)
		g.gone, g.needles = true, nil
		close(g.out)
		r.mu.Unlock()
		r.tell()
	}()
	for {
		// Where it says nothing for a while, it is watched for.
		_ = g.conn.SetReadDeadline(time.Time{})
		h, err := readHeader(g.conn)
		if err == nil {
			_ = g.conn.SetReadDeadline(time.Now().Add(registrantTimeout))
			var list []bpf.HashedNeedle
			if list, err = readList(g.conn, h); err == nil {
				err = r.replace(ctx, g, h.Epoch, list)
			}
		}
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				r.say(g, watchSays{Error: err.Error()})
			}
			return
		}
	}
}

// replace returns when the kernel looks for the list.
func (r *registry) replace(ctx context.Context, g *registrant, epoch uint64, list []bpf.HashedNeedle) error {
	r.mu.Lock()
	if epoch != r.epoch {
		r.mu.Unlock()
		return nil // it was told of the new key, and says it again
	}
	mine, all := len(list), len(list)
	for x := range r.all {
		if x != g {
			all += len(x.needles)
			if x.uid == g.uid {
				mine += len(x.needles)
			}
		}
	}
	if mine > maxRegistered || all > maxRegisteredAll {
		r.mu.Unlock()
		return fmt.Errorf("%d needles of user %d, %d of everybody: the limits are %d and %d", mine, g.uid, all, maxRegistered, maxRegisteredAll)
	}
	done := make(chan struct{})
	g.needles, g.applied = list, done
	r.mu.Unlock()
	r.tell()
	select {
	case <-done:
	case <-ctx.Done():
	}
	return ctx.Err()
}

func (r *registry) tell() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// apply has the kernel look for what is registered, now and then.
func (r *registry) apply(ctx context.Context) {
	tick := time.NewTicker(registryEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.changed:
			r.m.update()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// hashed are all registered needles, with IDs from first on, what those stand for, and who waits for them.
func (r *registry) hashed(first int) (key bpf.HashKey, list []bpf.HashedNeedle, owners []owner, done func(left []int)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	waiting := map[*registrant]chan struct{}{}
	counts := map[*registrant]int{}
	for _, g := range slices.SortedFunc(maps.Keys(r.all), func(a, b *registrant) int { return cmp.Compare(a.seq, b.seq) }) {
		for _, n := range g.needles {
			owners = append(owners, owner{of: g, handle: n.ID, whole: n.Length >= registerMin && n.Upto == n.Length && n.Segment == n.Length})
			n.ID = uint32(first + len(list))
			list = append(list, n)
		}
		if g.applied != nil {
			waiting[g], counts[g] = g.applied, len(g.needles)
			g.applied = nil
		}
	}
	return r.key, list, owners, func(left []int) {
		for _, i := range left {
			counts[owners[i].of]--
		}
		for g, c := range waiting {
			n := counts[g]
			r.say(g, watchSays{Watching: &n})
			close(c)
		}
	}
}

// renew begins an epoch: under the key of before there was no room for what the monitor itself looks for.
func (r *registry) renew() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.key = bpf.NewHashKey()
	r.epoch++
	for g := range r.all {
		g.needles = nil
		if g.applied != nil {
			close(g.applied)
			g.applied = nil
		}
		key := r.key
		g.send(watchSays{Key: &key, Epoch: r.epoch})
	}
}

func (r *registry) say(g *registrant, s watchSays) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g.send(s)
}

// send waits for nobody: who does not read loses hits, and is told how many. registry.mu is held.
func (g *registrant) send(s watchSays) {
	if g.gone {
		return
	}
	s.Lost = g.lost
	select {
	case g.out <- s:
		g.lost = 0
	default:
		g.lost++
		if s.Hit == nil {
			g.conn.Close() // it cannot go on without that
		}
	}
}

func (g *registrant) write() {
	defer g.conn.Close()
	enc := json.NewEncoder(g.conn)
	var failed bool
	for s := range g.out {
		if failed {
			continue
		}
		_ = g.conn.SetWriteDeadline(time.Now().Add(registrantTimeout))
		if err := enc.Encode(s); err != nil || s.Error != "" {
			failed = true
			g.conn.Close()
		}
	}
}

// hit tells the registrant of a find, if it is one in a process of its own user's. It is false where it is nobody's to know.
func (r *registry) hit(g *registrant, f seen) bool {
	if g.uid != f.User || r.m.bpf.Own(f.Event) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if g.gone {
		return true
	}
	if time.Since(g.since) > stormIn {
		g.since, g.hits = time.Now(), 0
	}
	if g.hits++; g.hits > stormOften {
		g.needles = nil
		g.send(watchSays{Error: fmt.Sprintf("%d finds in %s: these are no long random values, and are not looked for any more", stormOften, stormIn)})
		r.tell()
		return true
	}
	g.send(watchSays{Hit: &watchHit{Handle: f.owner.handle, First: f.first, Event: f.Event}})
	return true
}

// standsAlone says that what was found is a word of its own: at least registerMin bytes of an alphabet that values are
// written in, of which registerKinds are different, with none of that alphabet before or after it, or the end of what was written.
// Whoever registered it has guessed or known all of it, whatever it is a part of.
func standsAlone(e bpf.Event) bool {
	from, upto := e.Offset-e.WindowAt, e.Offset-e.WindowAt+int64(e.Length)
	if from < 0 || upto > int64(len(e.Window)) || e.Length < registerMin {
		return false
	}
	// An equals sign may end a value (base64), and is what NAME=value has before it.
	if from > 0 && e.Window[from-1] != '=' && wordByte(e.Window[from-1]) || upto < int64(len(e.Window)) && wordByte(e.Window[upto]) {
		return false
	}
	word := e.Window[from:upto]
	return worthHashing(word) && !slices.ContainsFunc(word, func(c byte) bool { return !wordByte(c) })
}

func wordByte(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c >= 0x80:
		return true
	}
	return strings.IndexByte("_-.+/=~%", c) >= 0
}

// elsewhere tells the registrant of a find in another user's process. It is false where it is not told.
func (r *registry) elsewhere(f seen) bool {
	g := f.owner.of
	if !f.alone || f.User < 0 || f.User == g.uid || f.Path == "/dev/null" {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	recent := slices.DeleteFunc(r.told[g.uid], func(t time.Time) bool { return time.Since(t) > elsewhereIn })
	if g.gone || len(recent) >= elsewhereMost {
		r.told[g.uid] = recent
		return false
	}
	r.told[g.uid] = append(recent, time.Now())
	g.send(watchSays{Elsewhere: &watchElsewhere{Handle: f.owner.handle, At: f.At, UID: f.User, Exe: cmp.Or(f.Exe, f.Comm), Channel: f.Channel, Refused: f.Refused}})
	return true
}

// registeredLeak is the type of records of a registered value in a process that is not its user's.
const registeredLeak = "leak.registered"

// recordOthers writes down a find that only root may know of.
func (m *monitor) recordOthers(f seen, told bool) {
	m.counts.others++
	words := "its guard is not told"
	if told {
		words = "its guard is told whose process and which program"
	}
	m.othersIn = slices.DeleteFunc(m.othersIn, func(t time.Time) bool { return time.Since(t) > stormFor })
	if len(m.othersIn) >= stormMost {
		m.counts.throttled++
		return
	}
	m.othersIn = append(m.othersIn, time.Now())
	l := m.leak(f)
	rec := m.record(registeredLeak)
	rec.Time, rec.Channel, rec.PID, rec.Exe, rec.Method, rec.Path = f.At, string(l.Channel), l.PID, l.Exe, l.Method, l.Path
	rec.Context, rec.Host, rec.Bytes = "", l.Host, int64(l.Length)
	rec.Result, rec.Reason = "escaped", fmt.Sprintf("a value that user %d registered, in a process that is not that user's alone: %s", f.owner.of.uid, words)
	if f.Refused {
		rec.Result = "contained"
	}
	if _, err := m.append(rec); err != nil {
		m.app.say("a find could not be recorded: %v", err)
	}
}
