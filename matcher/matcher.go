package matcher

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"guard"
)

// Matcher finds a set of values. All methods may be called from any goroutine.
type Matcher struct {
	maker   engineMaker         // of main layers
	cur     atomic.Pointer[set] // what searches begin with; nil: closed
	replace sync.Mutex          // one Set or Remove at a time
	build   sync.Mutex          // one main layer at a time is compiled; taken after replace
	edit    sync.Mutex          // what is below; held to compile a small layer, never a main one; taken after build
	set     *set                // what cur has
	gen     uint64              // of the last set
	leaving []leaving           // the oldest first
	free    sync.Mutex          // one at a time frees these; taken before edit
}

// leaving is a set that searches may still be under way with.
type leaving struct {
	old, next *set
	removed   []*entry // to be overwritten with it
}

const (
	// deltaNeedles is from how many needles on the small layer is merged into the
	// main one: so many are compiled in a millisecond or two.
	deltaNeedles = 1024
	// liveNeedles is up to how many of them a change puts into it first, in five
	// milliseconds: those of a large key file, or of 200 tokens. More than that is
	// live when it is in the main one.
	liveNeedles = 4096
)

// New makes a matcher of values and checks it. A value that Refuse refuses is
// an error that wraps ErrRefused: leave such values out, and say so. More than
// can be looked for is an error that wraps ErrTooMany.
func New(values []guard.Value) (*Matcher, error) { return newWith(engines()[0], values) }

// NewWith is New with another engine, one of those that Engines names.
func NewWith(engine string, values []guard.Value) (*Matcher, error) {
	for _, e := range engines() {
		if e.name == engine {
			return newWith(e, values)
		}
	}
	return nil, fmt.Errorf("matcher: this program has no engine %q, but %q", engine, Engines())
}

// Engines names the engines of this program: "go", which New takes, and
// "hyperscan" with its version where it was built in.
func Engines() (names []string) {
	for _, e := range engines() {
		names = append(names, e.name)
	}
	return names
}

func newWith(maker engineMaker, values []guard.Value) (*Matcher, error) {
	m := &Matcher{maker: maker}
	entries, err := expandAll(values)
	if err != nil {
		return nil, err
	}
	if m.set, err = compile(maker, entries); err != nil {
		wipe(entries)
		return nil, err
	}
	m.cur.Store(m.set)
	return m, nil
}

// Set replaces all values. Every open stream looks for the new ones from its
// next Write on, also where they began before it. Neither streams nor calls of
// Add wait for it; new values are live as soon as Add would make them, old ones
// gone when it returns. On an error the old values stay, and a new one may be
// looked for as well.
func (m *Matcher) Set(values []guard.Value) error {
	m.replace.Lock()
	defer m.replace.Unlock()
	fresh, err := expandAll(values)
	if err != nil {
		return err
	}
	return m.change(fresh, func(old []*entry) []*entry {
		at := byID(old)
		all := slices.Clone(fresh)
		for i, e := range all {
			for _, k := range at[e.id] {
				if o := old[k]; o.class == e.class && o.same(e) {
					e.wipe()
					all[i] = o // what is there already stays as it is
					break
				}
			}
		}
		return all
	})
}

// Add adds values. One that is there already, under the same ID, only takes the
// new Class; an ID may have several values. Streams look for them within
// milliseconds, whatever else is looked for: from their next Write after Add
// returned, or earlier, since a call may stay longer to make one database of
// what was added by many. Other calls of Add do not wait for that.
func (m *Matcher) Add(values ...guard.Value) error {
	fresh, err := expandAll(values)
	if err != nil {
		return err
	}
	return m.change(fresh, func(old []*entry) []*entry {
		at := byID(old)
		all := slices.Clone(old)
		for _, e := range fresh {
			ids := at[e.id]
			switch i := slices.IndexFunc(ids, func(i int) bool { return old[i].same(e) }); {
			case i < 0:
				all = append(all, e)
			case old[ids[i]].class == e.class:
				e.wipe()
			default:
				all[ids[i]] = e // old's own stays as it is: streams use it
			}
		}
		return all
	})
}

// Remove removes all values of ids. An ID that has none is no error.
func (m *Matcher) Remove(ids ...guard.SecretID) error {
	m.replace.Lock()
	defer m.replace.Unlock()
	return m.change(nil, func(old []*entry) []*entry {
		return slices.DeleteFunc(slices.Clone(old), func(e *entry) bool { return slices.Contains(ids, e.id) })
	})
}

// expandAll returns the entries of values, the last one of those that are the
// same.
func expandAll(values []guard.Value) (all []*entry, err error) {
	at := make(map[guard.SecretID][]int, len(values)) // indices into all
	for _, v := range values {
		e, err := expand(v)
		if err != nil {
			wipe(all)
			return nil, err
		}
		ids := at[e.id]
		if i := slices.IndexFunc(ids, func(i int) bool { return all[i].same(e) }); i >= 0 {
			all[ids[i]].wipe()
			all[ids[i]] = e
			continue
		}
		at[e.id] = append(ids, len(all))
		all = append(all, e)
	}
	return all, nil
}

// byID are the indices of the entries of each ID.
func byID(entries []*entry) map[guard.SecretID][]int {
	at := make(map[guard.SecretID][]int, len(entries))
	for i, e := range entries {
		at[e.id] = append(at[e.id], i)
	}
	return at
}

func wipe(entries []*entry) {
	for _, e := range entries {
		e.wipe()
	}
}

func errClosed() error { return fmt.Errorf("matcher: %w", os.ErrClosed) }

// change makes the entries what edit says, with fresh ones among them. What is new
// goes into the small layer, if it is not too much, and is live; then, if something
// is gone, or the small layer has grown, the main one is compiled.
func (m *Matcher) change(fresh []*entry, edit func(old []*entry) []*entry) error {
	m.edit.Lock()
	if m.set == nil {
		m.edit.Unlock()
		wipe(fresh)
		return errClosed()
	}
	old := m.set.entries[1:]
	entries := edit(old)
	added, removed := missing(entries, old), missing(old, entries)
	n := 0
	for _, e := range added {
		n += len(e.needles)
	}
	live := n <= liveNeedles
	if n > 0 && live {
		next, err := m.set.extend(m.gen+1, added)
		if err != nil {
			m.edit.Unlock()
			wipe(added)
			return err
		}
		m.publish(next, nil)
	}
	grown := m.set.delta != nil && m.set.delta.size > deltaNeedles
	m.edit.Unlock()
	m.release(false)
	switch {
	case len(removed) > 0 || !live:
		m.build.Lock()
		defer m.build.Unlock()
		if live {
			added = nil // it is there, or was removed again
		}
	case !grown || !m.build.TryLock(): // somebody is about it
		return nil
	default:
		defer m.build.Unlock()
		m.rebuild(nil, nil) // if that fails they are looked for all the same
		return nil
	}
	if err := m.rebuild(added, removed); err != nil {
		return err
	}
	m.release(true)
	return nil
}

// rebuild compiles a main layer of all entries and added without removed. What
// was added while it did goes on in a small layer. The caller has build, so that
// nothing else is removed in the meantime.
func (m *Matcher) rebuild(added, removed []*entry) error {
	m.edit.Lock()
	if m.set == nil {
		m.edit.Unlock()
		wipe(added)
		return errClosed()
	}
	have := m.set.entries[1:]
	m.edit.Unlock()
	entries := append(missing(have, removed), added...)
	next, err := compile(m.maker, entries)
	if err != nil {
		wipe(added)
		return err
	}
	m.edit.Lock()
	defer m.edit.Unlock()
	if m.set == nil {
		next.free(nil)
		wipe(added)
		return errClosed()
	}
	late := missing(m.set.entries[1+len(have):], removed)
	if next.gen = m.gen; len(added)+len(removed) > 0 {
		next.gen++ // else streams are told nothing new
	}
	if len(late) > 0 {
		both, err := next.extend(next.gen, late)
		if err != nil {
			next.free(nil)
			wipe(added)
			return err
		}
		next.gate.wipe()
		next = both
	}
	m.publish(next, missing(have, entries))
	return nil
}

// publish has searches begin with next from now on, or, if it is nil, no more.
// The caller has edit.
func (m *Matcher) publish(next *set, removed []*entry) {
	m.leaving = append(m.leaving, leaving{m.set, next, removed})
	m.set = next
	m.cur.Store(next)
	if next != nil {
		m.gen = next.gen
	}
}

// release frees the sets that no search is under way with any more; with wait
// set it waits for those that are.
func (m *Matcher) release(wait bool) {
	if wait {
		m.free.Lock()
	} else if !m.free.TryLock() {
		return
	}
	defer m.free.Unlock()
	for {
		m.edit.Lock()
		if len(m.leaving) == 0 {
			m.edit.Unlock()
			return
		}
		l := m.leaving[0]
		m.edit.Unlock()
		// Never unlocked: no search begins with it again.
		if wait {
			l.old.mu.Lock()
		} else if !l.old.mu.TryLock() {
			return
		}
		m.edit.Lock()
		m.leaving = m.leaving[1:]
		m.edit.Unlock()
		l.old.free(l.next)
		wipe(l.removed)
	}
}

// use returns what is looked for now, to be let go of with mu.RUnlock, or nil.
func (m *Matcher) use() *set {
	for {
		s := m.cur.Load()
		if s == nil || s.mu.TryRLock() { // else it has a successor
			return s
		}
	}
}

// missing returns those of a that are not in b.
func missing(a, b []*entry) (out []*entry) {
	in := make(map[*entry]bool, len(b))
	for _, e := range b {
		in[e] = true
	}
	for _, e := range a {
		if !in[e] {
			out = append(out, e)
		}
	}
	return out
}

// Engine names the engine, one of Engines.
func (m *Matcher) Engine() string { return m.maker.name }

// Check plants a canary and proves that each engine finds it, and every needle.
// New, Set, Add and Remove do that with what is new before it is used.
func (m *Matcher) Check() error {
	set := m.use()
	if set == nil {
		return errClosed()
	}
	defer set.mu.RUnlock()
	return set.check(1)
}

// Close overwrites the values, when no search is under way any more. Streams
// release nothing after it.
func (m *Matcher) Close() error {
	m.build.Lock() // which reads values
	defer m.build.Unlock()
	m.edit.Lock()
	if m.set == nil {
		m.edit.Unlock()
		return errClosed()
	}
	m.publish(nil, m.set.entries)
	m.edit.Unlock()
	m.release(true)
	return nil
}

// Scan finds the values in one block. Hits are sorted by Start; one that lies
// inside another of the same credential is left out. A matcher that is closed
// cannot say that b is clean: it returns one Hit of no credential for all of b.
func (m *Matcher) Scan(b []byte) []Hit {
	if len(b) == 0 {
		return nil
	}
	set := m.use()
	if set == nil {
		return []Hit{{Encoding: "unknown", End: int64(len(b))}}
	}
	defer set.mu.RUnlock()
	var hits []Hit
	for _, f := range set.find(b, nil) {
		if h, ok := set.hit(f.needle, int64(f.end-len(set.needles[f.needle])), int64(f.end), 0); ok {
			hits = append(hits, h)
		}
	}
	l := newLayers(maxDepth, "")
	var segs [1]seg
	text, none := plain(&segs, b, 0), text{}
	const step = 64 << 10 // so that the copies stay small
	for i := 0; i < len(b); i += step {
		hits = l.write(set, &none, &text, i, min(i+step, len(b)), hits)
	}
	hits = l.finish(set, int64(len(b)), hits)
	l.wipe()
	return merge(slices.DeleteFunc(hits, func(h Hit) bool { return h.End > int64(len(b)) }))
}
