package supervisor

import (
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"guard"
	"guard/matcher"
)

// Settle is how long a file must stay unwritten before it is scanned.
// fsnotify tells no close-after-write, so silence stands for it.
const Settle = 30 * time.Millisecond

// maxFile bounds what is read of one file. A larger file is scanned up to it and
// counted in Unscanned.
const maxFile = 256 << 20

// Files is the source that finds secrets in files written under the working
// folder, after the fact, and replaces them there by masks of the same length.
type Files struct {
	Root string // canonical
	Line *Line
	// Keep stores the original of a file before it is changed, sealed, and returns
	// the words with which the user gets it back.
	Keep func(path string, original []byte) error
	// Known says that the file held the value before the session began: it is the
	// user's own, reported elsewhere, and never changed.
	Known func(path string) bool
	// Replaced is told that such a file was replaced by another during the
	// session, from outside: the copy that the agent was shown instead is gone with
	// the old one, and the agent can read the new one.
	Replaced func(path string)
	// Say reports what could not be watched or scanned.
	Say func(string)

	root    *os.Root
	watcher *fsnotify.Watcher
	due     map[string]time.Time
	started time.Time
	Scanned int64 // files scanned
	Unread  int64 // files that could not be scanned whole
}

// Run watches until ctx ends, then scans what is still due, and returns. ready
// is closed when the whole tree is watched.
func (f *Files) Run(ctx context.Context, ready chan<- struct{}) error {
	var err error
	if f.root, err = os.OpenRoot(f.Root); err != nil {
		return fmt.Errorf("watch %s: %w", f.Root, err)
	}
	defer f.root.Close()
	if f.watcher, err = fsnotify.NewBufferedWatcher(4096); err != nil {
		return fmt.Errorf("watch %s: %w", f.Root, err)
	}
	defer f.watcher.Close()
	f.due = map[string]time.Time{}
	f.started = time.Now()
	f.add(".", false)
	close(ready)

	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			f.drain()
			for path := range f.due {
				f.scan(path)
			}
			return nil
		case e, ok := <-f.watcher.Events:
			if !ok {
				return nil
			}
			f.event(e)
		case err, ok := <-f.watcher.Errors:
			if !ok {
				return nil
			}
			// Events were lost: look at everything that changed since the start.
			f.say("file events were lost, scanning the whole folder again: " + err.Error())
			f.add(".", true)
		case <-timer.C:
		}
		now := time.Now()
		next := time.Hour
		for path, at := range f.due {
			if wait := at.Sub(now); wait > 0 {
				next = min(next, wait)
				continue
			}
			delete(f.due, path)
			f.scan(path)
		}
		timer.Reset(next)
	}
}

// drain takes the events that are waiting, so that a file written just before
// the end is scanned too.
func (f *Files) drain() {
	for {
		select {
		case e, ok := <-f.watcher.Events:
			if !ok {
				return
			}
			f.event(e)
		default:
			return
		}
	}
}

func (f *Files) event(e fsnotify.Event) {
	rel, err := filepath.Rel(f.Root, e.Name)
	if err != nil || !filepath.IsLocal(rel) {
		return
	}
	if e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
		delete(f.due, rel)
		return
	}
	if e.Has(fsnotify.Create) {
		if f.Known != nil && f.Replaced != nil && f.Known(e.Name) {
			f.Replaced(e.Name)
		}
		if fi, err := f.root.Lstat(rel); err == nil && fi.IsDir() {
			f.add(rel, true)
			return
		}
	}
	if e.Has(fsnotify.Create) || e.Has(fsnotify.Write) {
		f.due[rel] = time.Now().Add(Settle)
	}
}

// add watches dir and what is below it. With fresh, files that are already in it
// were written before the watch was there, and are due.
func (f *Files) add(dir string, fresh bool) {
	failed := 0
	_ = fs.WalkDir(f.root.FS(), filepath.ToSlash(dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // vanished, or unreadable: then the agent's uid cannot have written there through us
		}
		if d.IsDir() {
			if err := f.watcher.Add(filepath.Join(f.Root, filepath.FromSlash(path))); err != nil {
				failed++
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		if fi, err := d.Info(); err == nil && (fresh && fi.ModTime().After(f.started.Add(-time.Second)) || fi.ModTime().After(f.started)) {
			f.due[filepath.FromSlash(path)] = time.Now().Add(Settle)
		}
		return nil
	})
	if failed > 0 {
		f.say(fmt.Sprintf("%d folders below %s are not watched (raise fs.inotify.max_user_watches)", failed, filepath.Join(f.Root, dir)))
	}
}

func (f *Files) say(s string) {
	if f.Say != nil {
		f.Say(s)
	}
}

// scan reads one file through the leak line. os.Root refuses a path that leads
// out of the folder, also when the agent swaps a parent for a symlink meanwhile.
func (f *Files) scan(rel string) {
	fi, err := f.root.Lstat(rel)
	if err != nil || !fi.Mode().IsRegular() || fi.Size() == 0 {
		return
	}
	path := filepath.Join(f.Root, rel)
	if f.Known != nil && f.Known(path) {
		return
	}
	file, err := f.root.OpenFile(rel, os.O_RDWR, 0)
	writable := err == nil
	if errors.Is(err, fs.ErrPermission) {
		file, err = f.root.Open(rel)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			f.Unread++
		}
		return
	}
	defer file.Close()
	if now, err := file.Stat(); err != nil || !now.Mode().IsRegular() {
		return
	}
	f.Scanned++
	var r io.Reader = io.LimitReader(file, maxFile)
	if fi.Size() > maxFile {
		f.Unread++
	}
	git := underGit(rel)
	if git && strings.Contains(filepath.ToSlash(rel), ".git/objects/") {
		// A loose object is one zlib stream; packs are judged when they are pushed.
		if z, err := zlib.NewReader(r); err == nil {
			defer z.Close()
			r = io.LimitReader(z, maxFile)
		} else if _, err := file.Seek(0, io.SeekStart); err != nil {
			return
		}
	}
	line := *f.Line
	decide := line.Decide
	line.Decide = func(l guard.Leak) guard.Decision {
		d := decide(l)
		switch {
		case d.Action == guard.Pass || d.Action == guard.Warn || d.Action == guard.Kill:
		case git:
			// Changing an object breaks the repository. What holds the value cannot
			// be pushed: the broker looks into packs.
			d.Action, d.Rule = guard.Block, "under .git: left in place, its push is refused"
		case !writable:
			d.Action, d.Rule = guard.Warn, "the file is read-only: left in place"
		default:
			d.Action = guard.Redact
		}
		return d
	}
	var found []guard.Leak
	s := line.Matcher.Stream()
	judge := func(hits []matcher.Hit) {
		for _, h := range hits {
			l := guard.Leak{
				Origin: guard.Origin{Channel: guard.ChannelFile, Source: "files", Path: path},
				Secret: h.ID, Class: h.Class, Encoding: h.Encoding,
				Offset: h.Start, Length: int(h.End - h.Start), At: time.Now(),
			}
			d := line.Judge(l)
			if (d.Action == guard.Redact || d.Action == guard.Kill) && writable && !git {
				found = append(found, l)
			}
		}
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		hits, _ := s.Write(buf[:n])
		judge(hits)
		if err != nil {
			judge(s.Close())
			break
		}
	}
	if len(found) == 0 {
		return
	}
	if err := f.redact(file, path, found); err != nil {
		f.say(fmt.Sprintf("%s holds a secret and could not be redacted: %v", path, err))
		line.Decide = func(l guard.Leak) guard.Decision {
			return guard.Decision{Action: guard.Warn, Rule: "could not be redacted", Reason: err.Error()}
		}
		line.Judge(found[0])
	}
}

// redact masks the spans in place: hard links and open descriptors see the mask
// as well, and owner, mode and inode stay.
func (f *Files) redact(file *os.File, path string, found []guard.Leak) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	original, err := io.ReadAll(io.LimitReader(file, maxFile))
	if err != nil {
		return err
	}
	if f.Keep == nil {
		return errors.New("there is no place to keep the original")
	}
	if err := f.Keep(path, original); err != nil {
		return fmt.Errorf("keep the original: %w", err)
	}
	for _, l := range found {
		if l.Offset+int64(l.Length) > int64(len(original)) {
			continue // cut since: a new event follows
		}
		if _, err := file.WriteAt(maskOf(l), l.Offset); err != nil {
			return err
		}
	}
	clear(original)
	return file.Sync()
}

func underGit(rel string) bool {
	for part := range strings.SplitSeq(filepath.ToSlash(rel), "/") {
		if part == ".git" {
			return true
		}
	}
	return false
}

func maskOf(l guard.Leak) []byte {
	b := make([]byte, l.Length)
	return matcher.Mask(nil, b, []matcher.Hit{{ID: l.Secret, Class: l.Class, Encoding: l.Encoding, End: int64(l.Length)}}, 0)
}
