package scan

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

var errSpecial = errors.New("not a regular file")

// folder is a folder on the way down.
type folder struct {
	path string // as it is opened
	show string // as it is printed
	repo *repo
	rel  string // from the repository's top, "" or "a/b"
	// rules are those that hold for what is in the folder.
	rules *rules
	// hidden: the folder is ignored, and walked only for what is tracked in it.
	hidden bool
	inGit  bool // the folder is a .git or below one
}

// walker finds the files below a root and hands them on, in the order of their
// names.
type walker struct {
	ctx      context.Context
	noIgnore bool
	maxSize  int64
	count    *counters
	send     func(job) error // an error ends the walk
}

// root walks a file or folder that the user named: what was named is looked into
// even where it is ignored.
func (w *walker) root(name string) error {
	fi, err := os.Lstat(name)
	if err != nil {
		return err
	}
	path := name
	if fi.Mode()&fs.ModeSymlink != 0 {
		if path, err = filepath.EvalSymlinks(name); err != nil {
			return err
		}
		if fi, err = os.Lstat(path); err != nil {
			return err
		}
	}
	if !fi.IsDir() {
		if !fi.Mode().IsRegular() {
			return &fs.PathError{Op: "scan", Path: name, Err: errSpecial}
		}
		if err := w.send(job{names: []string{filepath.Base(name)}, show: filepath.Dir(name)}); err != nil {
			return err
		}
		return w.file(path, filepath.Clean(name), fi.Size())
	}
	d := folder{path: path, show: filepath.Clean(name)}
	if !w.noIgnore {
		if err := w.enter(&d); err != nil {
			return err
		}
	}
	return w.folder(d)
}

// enter finds out which rules hold in the folder that a walk begins with.
func (w *walker) enter(d *folder) error {
	abs, err := filepath.Abs(d.path)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return err
	}
	for at := abs; ; at = filepath.Dir(at) {
		if filepath.Base(at) == ".git" {
			d.inGit = true
			return nil
		}
		if at == filepath.Dir(at) {
			break
		}
	}
	if d.repo = enclosing(abs); d.repo == nil {
		return nil // the .gitignore files from here on count by themselves
	}
	d.rules = d.repo.baseRules(w.ctx)
	rel, err := filepath.Rel(d.repo.top, abs)
	if err != nil {
		return err
	}
	// The rules of the folders above; those of d itself are read with it.
	if rel = filepath.ToSlash(rel); rel != "." {
		d.rel = rel
		at := d.repo.top
		base := 0
		for part := range strings.SplitSeq(rel, "/") {
			d.rules = readRules(at, base, d.rules)
			at = filepath.Join(at, part)
			base += len(part) + 1
		}
	}
	return nil
}

// readRules puts the .gitignore of dir before next. base is the length of the
// folder's path from the top of the repository, with its slash.
func readRules(dir string, base int, next *rules) *rules {
	b, err := readLimited(filepath.Join(dir, ".gitignore"), maxIgnoreFile)
	if err != nil {
		return next // what cannot be read hides nothing
	}
	if ps := parseIgnore(b); len(ps) > 0 {
		return &rules{patterns: ps, base: base, next: next}
	}
	return next
}

func (w *walker) folder(d folder) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	entries, err := os.ReadDir(d.path)
	if err != nil {
		w.count.unread(d.show, err)
		// What was read before the error is still walked.
	}
	if len(entries) == 0 {
		return nil
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	if err := w.send(job{names: names, show: d.show}); err != nil {
		return err
	}
	if !w.noIgnore && !d.inGit {
		base := 0
		if d.rel != "" {
			base = len(d.rel) + 1
		}
		if _, there := slices.BinarySearch(names, ".gitignore"); there {
			d.rules = readRules(d.path, base, d.rules)
		}
	}
	for _, e := range entries {
		if err := w.entry(&d, e); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) entry(d *folder, e fs.DirEntry) error {
	name, dir := e.Name(), e.IsDir()
	path, show := filepath.Join(d.path, name), filepath.Join(d.show, name)
	if d.show == "." {
		show = name
	}
	if e.Type()&fs.ModeSymlink != 0 {
		w.count.links.Add(1)
		return nil
	}
	if !dir && !e.Type().IsRegular() {
		w.count.special.Add(1)
		return nil
	}
	next := *d
	next.path, next.show = path, show
	if next.rel = name; d.rel != "" {
		next.rel = d.rel + "/" + name
	}
	switch {
	case w.noIgnore:
	case d.inGit:
		// Objects are compressed, and read by --git.
		if dir && (name == "objects" || name == "lfs") || !dir && name == "index" {
			return nil
		}
	case name == ".git":
		next.inGit = true
	default:
		if dir {
			if r := openRepo(path); r != nil && !(d.hidden || d.rules.ignored(next.rel, true, d.fold())) {
				// A repository in this one: its own rules hold, from its top.
				next.repo, next.rel, next.hidden = r, "", false
				next.rules = r.baseRules(w.ctx)
				return w.folder(next)
			}
		}
		if d.hidden || d.rules.ignored(next.rel, dir, d.fold()) {
			if !w.tracked(d.repo, next.rel, dir) {
				w.count.ignored.Add(1)
				return nil
			}
			next.hidden = dir
		}
	}
	if dir {
		return w.folder(next)
	}
	return w.file(path, show, -1)
}

func (d *folder) fold() bool { return d.repo != nil && d.repo.fold }

// tracked says whether rel, or something below it, is in the index.
func (w *walker) tracked(r *repo, rel string, dir bool) bool {
	if r == nil {
		return false
	}
	if first := r.tracked == nil; r.loadIndex() != nil {
		if first {
			w.count.unread(filepath.Join(r.gitDir, "index"), r.err)
		}
		return true // what may be tracked is looked into
	}
	if dir {
		return r.folders[rel]
	}
	return r.tracked[rel]
}

func (w *walker) file(path, show string, size int64) error {
	if w.maxSize > 0 {
		if size < 0 {
			if fi, err := os.Lstat(path); err == nil {
				size = fi.Size()
			}
		}
		if size > w.maxSize {
			w.count.oversize.Add(1)
			return nil
		}
	}
	return w.send(job{path: path, show: show})
}
