package scan

import (
	"bufio"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
)

// place is where an object first appeared.
type place struct {
	order                int // 0: not found yet
	path                 string
	commit, author, date string
	reach                string
}

// located stops a pass over the history: all is found.
var errLocated = errors.New("all found")

// locator looks for the places of objects, and of names in trees.
type locator struct {
	st    *store
	ids   map[objectID][]*spotted
	names map[string][]*spotted
	order int
}

// locate finds out where each of found first appeared. It walks the history only
// if there is something to look for: first what refs lead to, then what only
// reflogs do.
func (s *Scanner) locate(ctx context.Context, st *store, found []*spotted) error {
	lc := &locator{st: st, ids: map[objectID][]*spotted{}, names: map[string][]*spotted{}}
	for _, sp := range found {
		if sp.kind == "tree" {
			lc.names[sp.name] = append(lc.names[sp.name], sp)
		} else {
			lc.ids[sp.id] = append(lc.ids[sp.id], sp)
		}
	}
	if lc.left() == 0 {
		return nil
	}
	t, all := st.repo.tips()
	sure := all
	for _, ids := range []map[objectID]bool{t.refs, t.logs} {
		if err := st.known(ctx, ids); err != nil {
			s.count.problem("history", err)
			sure = false
		}
	}
	for _, pass := range []struct {
		reach string
		from  map[objectID]bool
		not   map[objectID]bool
	}{{"", t.refs, nil}, {"reflog", t.logs, t.refs}} {
		if len(pass.from) == 0 {
			continue
		}
		for _, args := range [][]string{{"--no-merges"}, {"--merges", "-m"}} {
			if err := lc.log(ctx, pass.reach, pass.from, pass.not, args); err != nil {
				s.count.problem("history", err)
				sure = false
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		if err := lc.objects(ctx, pass.reach, pass.from); err != nil {
			s.count.problem("history", err)
			sure = false
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if lc.left() > 0 {
		if err := st.repo.loadIndex(); err != nil {
			sure = false
		}
		for id, path := range st.repo.paths {
			lc.found(id, place{path: path, reach: "index"})
		}
	}
	for _, list := range lc.rest() {
		for _, sp := range list {
			lc.order++
			sp.place = place{order: lc.order}
			if sure { // else whether something leads there is not known: it counts as if
				sp.place.reach = "unreachable"
			}
		}
	}
	return nil
}

func (lc *locator) left() int { return len(lc.ids) + len(lc.names) }

func (lc *locator) rest() (out [][]*spotted) {
	for _, l := range lc.ids {
		out = append(out, l)
	}
	for _, l := range lc.names {
		out = append(out, l)
	}
	return out
}

func (lc *locator) found(id objectID, p place) {
	list := lc.ids[id]
	if list == nil {
		return
	}
	delete(lc.ids, id)
	lc.order++
	p.order = lc.order
	for _, sp := range list {
		sp.place = p
	}
}

// inPath looks for names that are a part of path.
func (lc *locator) inPath(path string, p place) {
	if len(lc.names) == 0 {
		return
	}
	for at := 0; at <= len(path); {
		end := strings.IndexByte(path[at:], '/')
		if end < 0 {
			end = len(path) - at
		}
		name := path[at : at+end]
		at += end + 1
		if list := lc.names[name]; list != nil {
			delete(lc.names, name)
			lc.order++
			p.order, p.path = lc.order, path[:at-1]
			for _, sp := range list {
				sp.place = p
			}
		}
	}
}

// log walks commits, oldest first, and looks at what each of them changed.
func (lc *locator) log(ctx context.Context, reach string, from, not map[objectID]bool, args []string) error {
	if lc.left() == 0 {
		return nil
	}
	cmd := lc.st.command(ctx, append([]string{
		"log", "--stdin", "--ignore-missing", "--date-order", "--reverse", "--raw", "--no-abbrev", "--no-renames", "--root", "-z", "--no-ext-diff", "--no-textconv",
		"--no-show-signature", "--no-notes", "--no-decorate", "--no-color", "--no-mailmap", "--encoding=UTF-8", "--format=%x01%H%x02%an <%ae>%x02%aI",
	}, args...)...)
	err := piped(cmd, append(idLines(from, ""), idLines(not, "^")...), func(r *bufio.Reader) error {
		var at place
		at.reach = reach
		for {
			word, err := token(r)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			word = strings.TrimLeft(word, "\n")
			switch {
			case strings.HasPrefix(word, "\x01"):
				f := strings.SplitN(word[1:], "\x02", 3)
				if len(f) == 3 {
					at.commit, at.author, at.date = f[0], f[1], strings.TrimSuffix(f[2], "\n")
				}
				if id, ok := parseID(at.commit); ok {
					lc.found(id, at)
				}
			case strings.HasPrefix(word, ":"):
				path, err := token(r)
				if err != nil {
					return err
				}
				if f := strings.Fields(word); len(f) >= 5 {
					if id, ok := parseID(f[3]); ok {
						p := at
						p.path = path
						lc.found(id, p)
						lc.inPath(path, at)
					}
				}
			}
			if lc.left() == 0 {
				return errLocated
			}
		}
	})
	if errors.Is(err, errLocated) {
		return nil
	}
	return err
}

// token reads up to a NUL.
func token(r *bufio.Reader) (string, error) {
	s, err := r.ReadString(0)
	if err != nil {
		if len(s) > 0 && errors.Is(err, io.EOF) {
			return s, nil
		}
		return "", err
	}
	return s[:len(s)-1], nil
}

// objects asks for all that from leads to: for tags, and what no commit has.
func (lc *locator) objects(ctx context.Context, reach string, from map[objectID]bool) error {
	if lc.left() == 0 {
		return nil
	}
	cmd := lc.st.command(ctx, "rev-list", "--stdin", "--objects", "--ignore-missing", "--missing=allow-any")
	err := piped(cmd, idLines(from, ""), func(r *bufio.Reader) error {
		for {
			line, err := r.ReadString('\n')
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			name, path, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			if id, ok := parseID(name); ok {
				lc.found(id, place{path: path, reach: reach})
				lc.inPath(path, place{reach: reach})
			}
			if lc.left() == 0 {
				return errLocated
			}
		}
	})
	if errors.Is(err, errLocated) {
		return nil
	}
	return err
}

// shown is what a finding in a history has as its file.
func (s *Scanner) shown(sp *spotted, root string) string {
	switch sp.kind {
	case "commit", "tag":
		return sp.kind + " " + sp.id.String()
	}
	file := sp.place.path
	if file == "" {
		if file = sp.name; file == "" {
			file = "blob " + sp.id.String()
		}
	}
	if sp.path == "!" {
		sp.path += unpackedName(file)
	}
	file += sp.path
	if root != "." && root != "" {
		file = filepath.ToSlash(root) + "/" + file
	}
	return s.mask(file)
}
