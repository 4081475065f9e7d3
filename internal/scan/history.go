package scan

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// A slice of objects is read by one git process.
const (
	sliceObjects = 16 << 10
	sliceBytes   = 256 << 20
	maxNames     = 1 << 20 // names of trees that are remembered, for each job
	maxBlobNames = 1 << 20
)

// spotted is a finding in an object.
type spotted struct {
	Finding
	id    objectID
	kind  string
	path  string // within the object, "!inner/path"
	name  string // of a tree's entry
	place place
}

// History looks into every object of the repository that dir is in, or is, and
// calls emit for each finding: one for the same secret at the same path, where it
// first appeared, in the order of paths.
func (s *Scanner) History(ctx context.Context, dir string, emit func(Finding) error) error {
	r, show, err := findRepo(dir)
	if err != nil {
		return err
	}
	st, err := openStore(r)
	if err != nil {
		return err
	}
	defer st.close()
	found, err := s.objects(ctx, st)
	if err != nil {
		return err
	}
	if err := s.locate(ctx, st, found); err != nil {
		return err
	}
	for _, f := range s.group(found, show) {
		if f.Reach == "unreachable" && !s.o.Unreachable {
			s.count.elsewhere.Add(1)
			continue
		}
		if err := s.report(f, emit); err != nil {
			return err
		}
	}
	return nil
}

// findRepo finds the repository that dir is in, and what comes before its paths
// when they are shown.
func findRepo(dir string) (*repo, string, error) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return nil, "", err
	}
	show := filepath.Clean(dir)
	if isGitDir(abs) { // bare, or a .git
		return &repo{gitDir: abs, common: commonDir(abs)}, show, nil
	}
	r := enclosing(abs)
	if r == nil {
		return nil, "", fmt.Errorf("%s is in no git repository", dir)
	}
	if r.top != abs {
		show = r.top
	}
	return r, show, nil
}

// objects looks into all of them: trees first, since they have the names that
// blobs are judged by.
func (s *Scanner) objects(ctx context.Context, st *store) ([]*spotted, error) {
	names := &blobNames{of: map[uint64]treeEntry{}, same: map[string]string{}}
	found, err := s.pass(ctx, st, names, func(o object) bool { return o.kind == "tree" })
	if err != nil {
		return nil, err
	}
	rest, err := s.pass(ctx, st, names, func(o object) bool { return o.kind != "tree" })
	return append(found, rest...), err
}

// pass looks into the objects that which wants.
func (s *Scanner) pass(ctx context.Context, st *store, names *blobNames, which func(object) bool) ([]*spotted, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := make(chan []object)
	var all sync.WaitGroup
	var mu sync.Mutex
	var found []*spotted
	var failed error
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if failed == nil {
			failed = err
		}
		cancel()
	}
	all.Go(func() {
		defer close(parts)
		var next []object
		var size int64
		send := func() error {
			select {
			case parts <- next:
				next, size = nil, 0
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		err := st.list(ctx, func(o object) error {
			if !which(o) {
				return nil
			}
			next, size = append(next, o), size+o.size
			if len(next) == sliceObjects || size > sliceBytes {
				return send()
			}
			return nil
		})
		if err == nil && len(next) > 0 {
			err = send()
		}
		if err != nil {
			fail(err)
		}
	})
	for _, l := range s.spare {
		all.Go(func() {
			g := &objectReader{l: l, st: st, names: names, seed: maphash.MakeSeed(), seen: map[uint64]struct{}{}}
			for part := range parts {
				if err := g.slice(ctx, part); err != nil {
					fail(err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			found = append(found, g.found...)
		})
	}
	all.Wait()
	return found, failed
}

// blobNames has one path of each blob: of several the first in order of the last
// name, so that it does not matter which tree was read first.
type blobNames struct {
	mu   sync.Mutex
	of   map[uint64]treeEntry
	same map[string]string // each name once
}

// treeEntry is where an object is: the first bytes of its tree's name, and its own
// name in there.
type treeEntry struct {
	tree uint64
	name string
}

func (n *blobNames) add(id []byte, tree objectID, name []byte) {
	k, t := binary.BigEndian.Uint64(id), binary.BigEndian.Uint64([]byte(tree))
	old, there := n.of[k]
	if !there && len(n.of) >= maxBlobNames {
		return
	}
	if there && (old.name < string(name) || old.name == string(name) && old.tree <= t) {
		return
	}
	s, there := n.same[string(name)]
	if !there {
		s = string(name)
		n.same[s] = s
	}
	n.of[k] = treeEntry{t, s}
}

// get puts a path together. A tree cannot contain itself; the bound is for names
// that only begin alike.
func (n *blobNames) get(id objectID) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var parts []string
	for k := binary.BigEndian.Uint64([]byte(id)); len(parts) < 256; {
		e, there := n.of[k]
		if !there {
			break
		}
		parts = append(parts, e.name)
		k = e.tree
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}

// objectReader reads slices of objects, one after the other.
type objectReader struct {
	l     *looker
	st    *store
	names *blobNames
	seed  maphash.Seed
	seen  map[uint64]struct{} // names of trees' entries
	found []*spotted
}

// slice reads the objects of part. Where git ends at a damaged one, that is noted,
// and another git goes on after it.
func (g *objectReader) slice(ctx context.Context, part []object) error {
	for len(part) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		done := 0
		err := g.run(ctx, part, &done)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil && done == len(part) {
			return nil
		}
		if done < len(part) {
			g.l.s.count.unread("object "+part[done].id.String(), cmp.Or(err, errors.New("git did not read it")))
			done++
		}
		part = part[done:]
	}
	return nil
}

func (g *objectReader) run(ctx context.Context, part []object, done *int) error {
	var ids bytes.Buffer
	for _, o := range part {
		ids.WriteString(o.id.String())
		ids.WriteByte('\n')
	}
	cmd := g.st.command(ctx, "cat-file", "--batch", "--buffer")
	return piped(cmd, ids.Bytes(), func(r *bufio.Reader) error {
		for *done < len(part) {
			line, err := r.ReadSlice('\n')
			if errors.Is(err, io.EOF) {
				return nil // git says why
			}
			if err != nil {
				return err
			}
			o, ok := parseObject(line)
			if !ok || o.id != part[*done].id {
				return errors.New("git does not have it")
			}
			body := &io.LimitedReader{R: r, N: o.size}
			if err := g.l.safely(func() error { return g.object(ctx, o, body) }); errors.Is(err, errPanic) {
				g.l.s.count.unread(o.kind+" "+o.id.String(), err)
			} else if err != nil {
				return err
			}
			if _, err := io.Copy(io.Discard, body); err != nil {
				return err
			}
			if body.N > 0 {
				return io.ErrUnexpectedEOF
			}
			if _, err := r.Discard(1); err != nil {
				return err
			}
			g.l.s.count.objects.Add(1)
			*done++
		}
		return nil
	})
}

func (g *objectReader) object(ctx context.Context, o object, body io.Reader) error {
	if o.kind == "tree" {
		return g.tree(o, body)
	}
	// Where a blob first was is looked up for findings only: until then any path does.
	in := input{label: o.kind + " " + o.id.String(), r: body}
	if o.kind == "blob" {
		in.path = g.names.get(o.id)
	}
	return g.l.content(ctx, in, func(f Finding) error {
		sp := &spotted{Finding: f, id: o.id, kind: o.kind, path: f.File}
		switch o.kind {
		case "commit", "tag":
			sp.In = o.kind
		default:
			sp.Blob = o.id.String()
		}
		g.found = append(g.found, sp)
		return nil
	})
}

// tree looks at the names in a tree that were not seen before.
func (g *objectReader) tree(o object, body io.Reader) error {
	b, err := io.ReadAll(io.LimitReader(body, 256<<20))
	if err != nil {
		return err
	}
	width := len(o.id)
	var names []string
	g.names.mu.Lock()
	defer g.names.mu.Unlock()
	for len(b) > 0 {
		mode := bytes.IndexByte(b, ' ')
		end := bytes.IndexByte(b, 0)
		if mode < 1 || end < mode || len(b) < end+1+width {
			break // no tree of git's
		}
		name := b[mode+1 : end]
		if string(b[:mode]) != "160000" { // a commit of another repository
			g.names.add(b[end+1:], o.id, name)
		}
		b = b[end+1+width:]
		h := maphash.Bytes(g.seed, name)
		if _, old := g.seen[h]; old {
			continue
		}
		if len(g.seen) < maxNames {
			g.seen[h] = struct{}{}
		}
		names = append(names, string(name))
	}
	if len(names) == 0 {
		return nil
	}
	g.l.named(names, func(i int, f Finding) {
		g.found = append(g.found, &spotted{Finding: f, id: o.id, kind: "tree", name: names[i]})
	})
	return nil
}

// group makes one finding of those of the same secret at the same path, the first
// one, and sorts them.
func (s *Scanner) group(found []*spotted, show string) []Finding {
	slices.SortFunc(found, func(a, b *spotted) int {
		return cmp.Or(cmp.Compare(a.place.order, b.place.order), cmp.Compare(a.id, b.id), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	type key struct{ file, in, credential, rule, fingerprint, reach string }
	seen := map[key]int{}
	var out []Finding
	for _, sp := range found {
		f := sp.Finding
		f.File = s.shown(sp, show)
		f.Commit, f.Author, f.Date, f.Reach = sp.place.commit, s.mask(sp.place.author), sp.place.date, sp.place.reach
		k := key{f.File, f.In, f.Credential, f.Rule, f.Fingerprint, f.Reach}
		if i, twice := seen[k]; twice {
			out[i].Versions++
			continue
		}
		seen[k] = len(out)
		f.Versions = 1
		out = append(out, f)
	}
	slices.SortStableFunc(out, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return out
}
