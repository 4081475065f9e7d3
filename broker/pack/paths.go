package pack

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"guard"
)

// place is where an object is first listed.
type place struct {
	tree int32 // index
	name string
}

const (
	maxPlaces = 2 << 20 // objects whose path is remembered
	maxDeep   = 1024    // folders in a path
	maxPath   = 4096    // bytes of a path that are judged as one
	maxShown  = 200     // bytes of a path that are shown
)

func short(name string) uint64 { return binary.BigEndian.Uint64([]byte(name)) }

// learn reads commits and trees.
func (p *pack) learn() error {
	for i := range p.objects {
		o := &p.objects[i]
		if o.kind != TreeKind && o.kind != CommitKind {
			continue
		}
		if o.size > maxObject {
			continue // judged all the same; what it lists has no path
		}
		b, err := p.content(int32(i))
		if err != nil {
			return err
		}
		p.note(int32(i), b)
		if err := p.descend(int32(i), func(j int32, b []byte) error { p.note(j, b); return nil }); err != nil {
			return err
		}
	}
	return nil
}

// note remembers what a commit's tree is, and what a tree lists.
func (p *pack) note(i int32, b []byte) {
	switch p.objects[i].final {
	case CommitKind:
		line, _, _ := bytes.Cut(b, []byte("\n"))
		if id, err := hex.DecodeString(strings.TrimPrefix(string(line), "tree ")); err == nil && len(id) == p.hash {
			if k := short(string(id)); len(p.roots) < maxPlaces {
				if _, ok := p.roots[k]; !ok {
					p.roots[k] = i
				}
			}
		}
	case TreeKind:
		p.entries(b, func(name, id []byte) {
			k := short(string(id))
			if _, ok := p.tree[k]; !ok && len(p.tree) < maxPlaces {
				p.tree[k] = place{i, string(name)}
			}
		})
	}
}

// entries calls f for what a tree lists: "mode name NUL id", again and again.
func (p *pack) entries(b []byte, f func(name, id []byte)) {
	for {
		_, rest, ok := bytes.Cut(b, []byte(" "))
		name, rest, ok2 := bytes.Cut(rest, []byte{0})
		if !ok || !ok2 || len(rest) < p.hash {
			return
		}
		f(name, rest[:p.hash])
		b = rest[p.hash:]
	}
}

// path says where the object of that name lies, and in a tree of which commit.
// It is "" where no tree of the pack lists it.
func (p *pack) path(name string) (path string, commit int32) {
	var parts []string
	for range maxDeep {
		k := short(name)
		at, ok := p.tree[k]
		if c, root := p.roots[k]; root {
			slices.Reverse(parts)
			return strings.Join(parts, "/"), c
		}
		if !ok {
			break
		}
		parts = append(parts, at.name)
		name = p.objects[at.tree].name
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/"), -1
}

// label names object i for a person: "blob 0123456789ab (a/file, in commit
// 0123456789ab)".
func (p *pack) label(i int32) string {
	o := p.objects[i]
	s := kinds[o.final] + " " + abbrev(o.name)
	if o.final != BlobKind && o.final != TreeKind {
		return s
	}
	path, commit := p.path(o.name)
	switch {
	case path == "" && commit < 0:
		return s + " (path unknown)"
	case path == "":
		path = "/"
	case commit < 0:
		path = ".../" + path
	}
	s += " (" + shown(path)
	if commit >= 0 {
		s += ", in commit " + abbrev(p.objects[commit].name)
	}
	return s + ")"
}

func abbrev(name string) string { return hex.EncodeToString([]byte(name))[:12] }

// shown is a path fit for one line of a message: an agent chooses it.
func shown(path string) string {
	if len(path) > maxShown {
		path = "..." + path[len(path)-maxShown:]
	}
	if q := strconv.QuoteToGraphic(path); q != `"`+path+`"` {
		return q
	}
	return path
}

// judgePaths shows every path to one filter: a value with a slash in it is a
// name in a folder of a name, which no tree holds together.
func (p *pack) judgePaths(open func(byte, string) guard.Filter) error {
	if len(p.tree) == 0 {
		return nil
	}
	f := open(PathKind, "a path")
	for k := range p.tree {
		var name [8]byte
		binary.BigEndian.PutUint64(name[:], k)
		path, _ := p.path(string(name[:]))
		if len(path) > maxPath {
			path = path[len(path)-maxPath:]
		}
		if _, d := f([]byte(path+"\n"), guard.More); d.Action.Stops() || d.Action == guard.Redact {
			return &objectHit{"the path of object " + hex.EncodeToString(name[:])[:12], d}
		}
	}
	if _, d := f(nil, guard.End); d.Action.Stops() || d.Action == guard.Redact {
		return &objectHit{"a path", d}
	}
	return nil
}
