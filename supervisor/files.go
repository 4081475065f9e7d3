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
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"guard"
	"guard/matcher"
)

// Settle is how long a file must stay unwritten before it is scanned.
// fsnotify tells no close-after-write, so silence stands for it.
const Settle = 30 * time.Millisecond

// maxFile bounds what is read of one file, bytes. A larger file is scanned up to
// it and counted in Unread.
const maxFile = 1 << 30

// maxRecords is how many places of one credential in one file are recorded one by
// one. More are masked like them, and counted.
const maxRecords = 16

// keepWhole is the size up to which a file's original is kept whole, bytes. Of a
// larger one what was masked is, so that an agent cannot fill the disk with copies.
const keepWhole = 256 << 10

// Span is bytes of a file.
type Span struct {
	Offset int64  `json:"offset"`
	Bytes  []byte `json:"bytes"`
}

// Files is the source that finds secrets in files written under the working
// folder, after the fact, and replaces them there by masks of the same length.
type Files struct {
	Root string // canonical
	Line *Line
	// Keep stores what a file held before guard masks it, sealed: all of it, or of a
	// large file the spans that are masked. The leaks are what was found in it.
	Keep func(path string, whole []byte, spans []Span, found []guard.Leak) error
	// Known are files that held a value before the session began (canonical): they
	// are the user's own, shown to the agent as copies, and never changed.
	Known []string
	// Replaced is told that such a file, or a folder above it, was replaced by
	// another during the session, from outside: the copy that the agent was shown
	// instead is gone with the old one, and the agent can read the new one. file is
	// the new one, opened without leaving the folder, or nil if it is none that
	// guard's user could have put there.
	Replaced func(path string, file *os.File)
	// Say reports what could not be watched or scanned.
	Say func(string)

	root    *os.Root
	parents map[string]fs.FileInfo // of the folder of each known file, as it was at the start
	watcher *fsnotify.Watcher
	due     map[string]time.Time
	started time.Time // minus what the kernel's file clock may lag
	Scanned int64     // files scanned
	Unread  int64     // files that could not be scanned whole
}

// clockLag is how far the times of files may lie behind time.Now: the kernel
// stamps them with the clock of its last tick.
const clockLag = 20 * time.Millisecond

// Run watches until ctx ends, then scans what is still due, and returns. ready
// is closed when the whole tree is watched, or when Run fails.
func (f *Files) Run(ctx context.Context, ready chan<- struct{}) error {
	opened := sync.OnceFunc(func() { close(ready) })
	defer opened()
	var err error
	f.started = time.Now().Add(-clockLag)
	if f.root, err = os.OpenRoot(f.Root); err != nil {
		return fmt.Errorf("watch %s: %w", f.Root, err)
	}
	defer f.root.Close()
	if f.watcher, err = fsnotify.NewBufferedWatcher(4096); err != nil {
		return fmt.Errorf("watch %s: %w", f.Root, err)
	}
	defer f.watcher.Close()
	f.due = map[string]time.Time{}
	f.parents = map[string]fs.FileInfo{}
	for _, path := range f.Known {
		if fi, err := os.Lstat(filepath.Dir(path)); err == nil {
			f.parents[path] = fi
		}
	}
	f.add(".")
	opened()

	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			// The agent is gone. Its last events may still be on their way through
			// fsnotify's goroutine: what changed is found by its time instead.
			f.add(".")
			for path := range f.due {
				f.scan(path)
			}
			if f.Unread > 0 {
				f.say(fmt.Sprintf("%d files that changed could not be looked into", f.Unread))
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
			f.add(".")
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
		for _, path := range f.Known {
			if f.Replaced != nil && (path == e.Name || strings.HasPrefix(path, e.Name+string(filepath.Separator))) {
				f.replaced(path)
			}
		}
		f.name(rel)
		if fi, err := f.root.Lstat(rel); err == nil && fi.IsDir() {
			f.add(rel)
			return
		}
	}
	if e.Has(fsnotify.Create) || e.Has(fsnotify.Write) {
		f.due[rel] = time.Now().Add(Settle)
	}
}

// replaced opens a known file again and hands it on. The agent may be at work on
// the same path: nothing is followed out of the folder, nothing waited for, and a
// file of another user's is not read for it.
func (f *Files) replaced(path string) {
	rel, err := filepath.Rel(f.Root, path)
	if err != nil || !filepath.IsLocal(rel) {
		return
	}
	file, err := f.root.OpenFile(rel, os.O_RDONLY|syscall.O_NONBLOCK|noFollow, 0)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			f.Replaced(path, nil)
		}
		return
	}
	defer file.Close()
	if fi, err := file.Stat(); err != nil || !fi.Mode().IsRegular() || !ours(fi) {
		f.Replaced(path, nil)
		return
	}
	f.Replaced(path, file)
}

// known says that the file at path is still the user's own, that held a value
// before the session. The agent cannot replace it, since it is covered; it can
// replace a folder above it, and then the file is like any other.
func (f *Files) known(path string) bool {
	then := f.parents[path]
	if then == nil {
		return false
	}
	now, err := os.Lstat(filepath.Dir(path))
	return err == nil && os.SameFile(then, now)
}

// add watches dir and what is below it. Files that changed since the session
// began are due: they may have been written before the watch was there.
func (f *Files) add(dir string) {
	full, unread := 0, 0
	_ = fs.WalkDir(f.root.FS(), filepath.ToSlash(dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrPermission) {
				unread++
			}
			return nil // or it vanished
		}
		if d.IsDir() {
			err := f.watcher.Add(filepath.Join(f.Root, filepath.FromSlash(path)))
			switch {
			case errors.Is(err, fs.ErrPermission):
				unread++
			case err != nil && !errors.Is(err, fs.ErrNotExist):
				full++
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		if fi, err := d.Info(); err == nil && fi.ModTime().After(f.started) {
			f.due[filepath.FromSlash(path)] = time.Now().Add(Settle)
		}
		return nil
	})
	if full > 0 {
		f.say(fmt.Sprintf("%d folders below %s are not watched (raise fs.inotify.max_user_watches)", full, filepath.Join(f.Root, dir)))
	}
	if unread > 0 {
		f.say(fmt.Sprintf("%d folders below %s cannot be looked into: their modes shut guard out", unread, filepath.Join(f.Root, dir)))
	}
}

// name judges a new file's name, and where a symlink points: they are written
// too. A name cannot be masked without breaking what uses it.
func (f *Files) name(rel string) {
	text := []byte(rel)
	if target, err := f.root.Readlink(rel); err == nil {
		text = append(append(text, '\n'), target...)
	}
	line := *f.Line
	decide := line.Decide
	line.Decide = func(l guard.Leak) guard.Decision {
		d := decide(l)
		if d.Action != guard.Pass && d.Action != guard.Kill {
			d.Action, d.Rule = guard.Warn, "a file's name: it is left as it is"
		}
		return d
	}
	for _, h := range line.Matcher.Scan(text) {
		line.Judge(guard.Leak{
			// The folder only: the name is the value.
			Origin: guard.Origin{Channel: guard.ChannelFile, Source: "files", Path: filepath.Join(f.Root, filepath.Dir(rel))},
			Secret: h.ID, Class: h.Class, Encoding: h.Encoding, Offset: h.Start, Length: int(h.End - h.Start), At: time.Now(),
		})
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
	if f.known(path) {
		return
	}
	// Without waiting: the agent may have put a FIFO there since.
	const quick = syscall.O_NONBLOCK | noFollow
	file, err := f.root.OpenFile(rel, os.O_RDWR|quick, 0)
	writable := err == nil
	if errors.Is(err, fs.ErrPermission) && f.root.Chmod(rel, fi.Mode().Perm()|0o600) == nil {
		// The agent's file is guard's user's too: a mode keeps neither out.
		file, err = f.root.OpenFile(rel, os.O_RDWR|quick, 0)
		writable = err == nil
		if cerr := f.root.Chmod(rel, fi.Mode().Perm()); cerr != nil && !errors.Is(cerr, fs.ErrNotExist) {
			f.say(fmt.Sprintf("the mode of %s could not be put back: %v", path, cerr))
		}
	}
	if errors.Is(err, fs.ErrPermission) {
		file, err = f.root.OpenFile(rel, os.O_RDONLY|quick, 0)
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
	count := map[guard.SecretID]int{}
	last := map[guard.SecretID]guard.Decision{}
	s := line.Matcher.Stream()
	judge := func(hits []matcher.Hit) {
		for _, h := range hits {
			l := guard.Leak{
				Origin: guard.Origin{Channel: guard.ChannelFile, Source: "files", Path: path},
				Secret: h.ID, Class: h.Class, Encoding: h.Encoding,
				Offset: h.Start, Length: int(h.End - h.Start), At: time.Now(),
			}
			// Each record is on the disk before the next: a file full of a value must
			// not keep guard from every other file.
			d, seen := last[h.ID], count[h.ID]
			count[h.ID]++
			if seen < maxRecords || h.Class >= guard.Placeholder {
				d = line.Judge(l)
				last[h.ID] = d
			}
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
	for id, n := range count {
		if n > maxRecords && last[id].Action != guard.Pass {
			f.say(fmt.Sprintf("%s holds %s %d times: the first %d are in the log", path, id.Name, n, maxRecords))
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

// redact masks what was found in place: hard links and open descriptors see the
// mask as well, and owner, mode and inode stay.
func (f *Files) redact(file *os.File, path string, found []guard.Leak) error {
	if f.Keep == nil {
		return errors.New("there is no place to keep the original")
	}
	fi, err := file.Stat()
	if err != nil {
		return err
	}
	var whole []byte
	var spans []Span
	if fi.Size() <= keepWhole {
		whole = make([]byte, fi.Size())
		if n, err := file.ReadAt(whole, 0); err != nil && err != io.EOF {
			return err
		} else {
			whole = whole[:n]
		}
	} else {
		for _, l := range found {
			b := make([]byte, l.Length)
			if _, err := file.ReadAt(b, l.Offset); err == nil { // else it was cut since
				spans = append(spans, Span{l.Offset, b})
			}
		}
	}
	if err := f.Keep(path, whole, spans, found); err != nil {
		return fmt.Errorf("keep the original: %w", err)
	}
	clear(whole)
	for _, s := range spans {
		clear(s.Bytes)
	}
	for _, l := range found {
		if l.Offset+int64(l.Length) > fi.Size() {
			continue // cut since: a new event follows
		}
		if _, err := file.WriteAt(maskOf(l), l.Offset); err != nil {
			return err
		}
	}
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
