package matcher

import (
	"fmt"
	"os"
	"slices"
	"sync"

	"guard"
)

// Matcher finds a set of values. All methods may be called from any goroutine.
type Matcher struct {
	edit sync.Mutex   // one change at a time; held while compiling
	gen  uint64       // of the last set, under edit
	mu   sync.RWMutex // readers scan with set; the writer only swaps it
	set  *set         // nil: closed
}

// New makes a matcher of values and checks it. A value that Refuse refuses is
// an error that wraps ErrRefused: leave such values out, and say so.
func New(values []guard.Value) (*Matcher, error) {
	m := &Matcher{}
	entries, err := expandAll(nil, values)
	if err != nil {
		return nil, err
	}
	if m.set, err = compile(0, entries); err != nil {
		wipe(entries)
		return nil, err
	}
	return m, nil
}

// Set replaces all values. Every open stream looks for the new ones from its
// next Write on, also where they began before it. Compiling does not hold up
// streams; on an error the old values stay.
func (m *Matcher) Set(values []guard.Value) error {
	return m.change(func([]*entry) ([]*entry, error) { return expandAll(nil, values) })
}

// Add adds values. One that is there already, under the same ID, only takes the
// new Class; an ID may have several values.
func (m *Matcher) Add(values ...guard.Value) error {
	return m.change(func(old []*entry) ([]*entry, error) { return expandAll(old, values) })
}

// Remove removes all values of ids. An ID that has none is no error.
func (m *Matcher) Remove(ids ...guard.SecretID) error {
	return m.change(func(old []*entry) ([]*entry, error) {
		return slices.DeleteFunc(slices.Clone(old), func(e *entry) bool { return slices.Contains(ids, e.id) }), nil
	})
}

// expandAll returns old and the entries of values.
func expandAll(old []*entry, values []guard.Value) ([]*entry, error) {
	all := slices.Clone(old)
	for _, v := range values {
		e, err := expand(v)
		if err != nil {
			wipe(missing(all, old))
			return nil, err
		}
		i := slices.IndexFunc(all, func(o *entry) bool { return o.id == e.id && o.same(e) })
		switch {
		case i < 0:
			all = append(all, e)
		case i < len(old):
			all[i] = e // old's own stays as it is: streams use it
		default:
			wipe([]*entry{all[i]})
			all[i] = e
		}
	}
	return all, nil
}

func wipe(entries []*entry) {
	for _, e := range entries {
		e.wipe()
	}
}

// change compiles what edit makes of the entries and swaps it in.
func (m *Matcher) change(edit func(old []*entry) ([]*entry, error)) error {
	m.edit.Lock()
	defer m.edit.Unlock()
	old := m.set // written under edit only
	if old == nil {
		return fmt.Errorf("matcher: %w", os.ErrClosed)
	}
	entries, err := edit(old.entries[1:])
	if err != nil {
		return err
	}
	next, err := compile(m.gen+1, entries)
	if err != nil {
		wipe(missing(entries, old.entries))
		return err
	}
	m.gen++
	m.mu.Lock()
	m.set = next
	m.mu.Unlock()
	// Whoever held old has let go of it: readers keep the lock while they scan.
	old.close()
	wipe(missing(old.entries[1:], entries))
	return nil
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

// Engine names the engine: "go", or "hyperscan" and its version.
func (m *Matcher) Engine() string { return engineVersion() }

// Check plants a canary and proves that the engine finds it, and every needle.
// New, Set, Add and Remove call it before a set is used.
func (m *Matcher) Check() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.set == nil {
		return fmt.Errorf("matcher: %w", os.ErrClosed)
	}
	return m.set.check()
}

// Close overwrites the values. Streams release nothing after it.
func (m *Matcher) Close() error {
	m.edit.Lock()
	defer m.edit.Unlock()
	m.mu.Lock()
	old := m.set
	m.set = nil
	m.mu.Unlock()
	if old == nil {
		return fmt.Errorf("matcher: %w", os.ErrClosed)
	}
	old.close()
	wipe(old.entries)
	return nil
}

// Scan finds the values in one block. Hits are sorted by Start; one that lies
// inside another of the same credential is left out. A matcher that is closed
// cannot say that b is clean: it returns one Hit of no credential for all of b.
func (m *Matcher) Scan(b []byte) []Hit {
	m.mu.RLock()
	defer m.mu.RUnlock()
	set := m.set
	if len(b) == 0 {
		return nil
	}
	if set == nil {
		return []Hit{{Encoding: "unknown", End: int64(len(b))}}
	}
	var hits []Hit
	for _, f := range set.find(b, nil) {
		if h, ok := set.hit(f.needle, int64(f.end-len(set.needles[f.needle])), int64(f.end), 0); ok {
			hits = append(hits, h)
		}
	}
	f, v := fold{min: foldRun}, newView(2, 0)
	var segs [1]seg
	text, none := plain(&segs, b, 0), text{}
	const step = 64 << 10 // so that the copies stay small
	for i := 0; i < len(b); i += step {
		hits = f.write(set, &none, &text, i, min(i+step, len(b)), hits)
		hits = v.write(set, &none, &text, i, min(i+step, len(b)), hits)
	}
	hits = v.finish(set, int64(len(b)), hits)
	f.wipe()
	v.wipe()
	return merge(slices.DeleteFunc(hits, func(h Hit) bool { return h.End > int64(len(b)) }))
}
