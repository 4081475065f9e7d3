package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"guard"

	"golang.org/x/mod/sumdb/tlog"
)

// maxLines bounds the room in bytes that is kept from one commit to the next.
const maxLines = 256 << 10

// maxGroup bounds the records of one commit, and so the checkpoint's size.
const maxGroup = 256

// ErrClosed is what Append returns after Close.
var ErrClosed = fmt.Errorf("audit: the log is closed: %w", os.ErrClosed)

// ErrFull is wrapped when the disk, a quota or a limit refused a record. The log
// stays valid, and takes records again once there is space.
var ErrFull = errors.New("no space for the audit log, and without a record nothing is allowed: free space on its disk")

// Log appends to the log in one folder. Several Logs, in one or more processes,
// may append to the same folder. Methods are safe for concurrent use.
type Log struct {
	dir     string
	key     signer
	lock    *os.File
	tee     io.Writer
	segment int64 // bytes from which log.jsonl is closed

	mu      sync.Mutex // of the next three
	next    *group
	closed  bool
	appends sync.WaitGroup // Appends under way

	commit sync.Mutex // held by who commits; of the rest
	file   *os.File   // log.jsonl
	base   int64      // bytes of records before it
	hashes *os.File
	msg    []byte     // the checkpoint file, as last seen
	at     checkpoint // what it says
	teeErr error      // the first
	lines  []byte     // room for those of a commit
}

// group is the records of one commit.
type group struct {
	recs  []Record
	done  chan struct{}
	first uint64 // seq of recs[0]
	err   error
}

// Open opens the log in dir, and makes it (folder 0700, files 0600) if dir is
// empty or absent. key is a 32-byte seed; Open keeps only the key made of it,
// until Close. tee, if not nil, gets every line that this Log appends, once it is
// durable. Open checks the key, the checkpoint, the log's length and the edge of
// the tree, not every record (Verify does): what does not match is ErrTampered.
func Open(dir string, key guard.Secret, tee io.Writer) (_ *Log, err error) {
	s, err := newSigner(key)
	if err != nil {
		return nil, err
	}
	l := &Log{dir: dir, key: s, tee: tee, segment: defaultSegment}
	defer func() {
		if err != nil {
			l.closeFiles()
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("audit: make the log's folder: %w", err)
	}
	if l.lock, err = l.open(lockFile, os.O_RDWR); err != nil {
		return nil, err
	}
	err = l.locked(func() error {
		if err := l.create(); err != nil {
			return err
		}
		if err := l.openActive(); err != nil {
			return err
		}
		if l.hashes, err = l.open(hashFile, os.O_RDWR); err != nil {
			return err
		}
		notes, err := l.catchUp()
		if err != nil || len(notes) == 0 {
			return err
		}
		_, _, err = l.write(notes)
		return err
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (l *Log) path(name string) string { return filepath.Join(l.dir, name) }

func (l *Log) open(name string, flag int) (*os.File, error) {
	f, err := os.OpenFile(l.path(name), flag|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit: open %s: %w", name, err)
	}
	return f, nil
}

// locked runs f while no other process appends.
func (l *Log) locked(f func() error) error {
	if err := lock(l.lock, false); err != nil {
		return fmt.Errorf("audit: lock the log: %w", err)
	}
	defer unlock(l.lock)
	return f()
}

// create makes an empty log where there is none.
func (l *Log) create() error {
	if _, err := os.Stat(l.path(checkpointFile)); err == nil {
		return l.checkKeyFile()
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("audit: read %s: %w", checkpointFile, err)
	}
	for _, name := range []string{logFile, hashFile} {
		if st, err := os.Stat(l.path(name)); err == nil && st.Size() > 0 {
			return &TamperError{File: checkpointFile, What: "it is missing, though there are records"}
		}
	}
	root, err := tlog.TreeHash(0, nil)
	if err != nil {
		return fmt.Errorf("audit: make an empty log: %w", err)
	}
	if err := replace(l.path(keyFile), []byte(l.key.pub+"\n"), l.path(keyFile+".new")); err != nil {
		return err
	}
	msg, err := l.key.encode(checkpoint{root: root})
	if err != nil {
		return err
	}
	return replace(l.path(checkpointFile), msg, l.path(pendingFile))
}

// openActive opens log.jsonl, after another process closed the last one, too.
func (l *Log) openActive() error {
	f, err := l.open(logFile, os.O_RDWR|os.O_APPEND)
	if err != nil {
		return err
	}
	segs, err := segments(l.dir)
	if err != nil {
		f.Close()
		return err
	}
	if l.file != nil {
		l.file.Close()
	}
	l.file, l.base = f, tail(segs).at
	return nil
}

// turn closes log.jsonl when it is long enough, and begins a new one. The log is
// between two commits: whatever happens here, no record is in flight.
func (l *Log) turn() error {
	if l.at.bytes-l.base < l.segment {
		return nil
	}
	segs, err := segments(l.dir)
	if err != nil {
		return err
	}
	s := tail(segs)
	if err := os.Rename(l.path(logFile), l.path(segmentName(s.first, uint64(l.at.size), s.at))); err != nil {
		return fmt.Errorf("audit: close %s: %w", logFile, err)
	}
	if err := syncDir(l.dir); err != nil {
		return err
	}
	return l.openActive()
}

func (l *Log) checkKeyFile() error {
	b, err := os.ReadFile(l.path(keyFile))
	if errors.Is(err, os.ErrNotExist) {
		return replace(l.path(keyFile), []byte(l.key.pub+"\n"), l.path(keyFile+".new"))
	} else if err != nil {
		return fmt.Errorf("audit: read %s: %w", keyFile, err)
	}
	if string(b) != l.key.pub+"\n" {
		return &TamperError{File: keyFile, What: "it is not this vault's log key (to start a new log, move the folder away)"}
	}
	return nil
}

// replace writes b durably to via, then renames it to name.
func replace(name string, b []byte, via string) error {
	if err := writeSync(via, b); err != nil {
		return err
	}
	if err := os.Rename(via, name); err != nil {
		return fmt.Errorf("audit: replace %s: %w", filepath.Base(name), err)
	}
	return syncDir(filepath.Dir(name))
}

func writeSync(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("audit: write %s: %w", filepath.Base(name), err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("audit: write %s: %w", filepath.Base(name), err)
	}
	return nil
}

// Append writes r durably and returns its sequence number. It sets r.Seq, and
// r.Time if zero. An error means that nothing may be done on the strength of r;
// ErrFull and ErrTampered say why, where known.
func (l *Log) Append(r Record) (seq uint64, err error) {
	if r.Type == "" {
		return 0, errNoType
	}
	r = clean(r)
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return 0, ErrClosed
	}
	l.appends.Add(1)
	defer l.appends.Done()
	g := l.next
	first := g == nil || len(g.recs) == maxGroup
	if first {
		g = &group{done: make(chan struct{})}
		l.next = g
	}
	i := len(g.recs)
	g.recs = append(g.recs, r)
	l.mu.Unlock()
	if !first {
		<-g.done
	} else {
		l.commit.Lock()
		l.mu.Lock()
		if l.next == g {
			l.next = nil // who comes now waits for the next commit
		}
		l.mu.Unlock()
		g.first, g.err = l.commitGroup(g.recs)
		close(g.done)
		l.commit.Unlock()
	}
	if g.err != nil {
		return 0, g.err
	}
	return g.first + uint64(i), nil
}

func (l *Log) commitGroup(recs []Record) (first uint64, err error) {
	var lines []byte
	err = l.locked(func() error {
		notes, err := l.catchUp()
		if err != nil {
			return err
		}
		first, lines, err = l.write(append(notes, recs...))
		first += uint64(len(notes))
		return err
	})
	if err != nil {
		return 0, err
	}
	if l.tee != nil {
		if _, err := l.tee.Write(lines); err != nil && l.teeErr == nil {
			l.teeErr = fmt.Errorf("audit: copy records to the events file: %w", err)
		}
	}
	return first, nil
}

// write commits recs after l.at, which catchUp made current, and numbers them. lines
// are good until the next one. On an error the log is as it was.
func (l *Log) write(recs []Record) (first uint64, lines []byte, err error) {
	if err := l.turn(); err != nil {
		return 0, nil, err
	}
	to := checkpoint{size: l.at.size, bytes: l.at.bytes}
	base := tlog.StoredHashCount(l.at.size)
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(idx []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(idx))
		for i, x := range idx {
			if x >= base {
				out[i] = stored[x-base]
				continue
			}
			h, err := hashesAt(l.hashes)(idx[i : i+1])
			if err != nil {
				return nil, err
			}
			out[i] = h[0]
		}
		return out, nil
	})
	now := time.Now().UTC().Round(0)
	lines = l.lines[:0]
	to.leaves = make([]tlog.Hash, 0, len(recs))
	for _, r := range recs {
		r.Seq = uint64(to.size) + 1
		if r.Time.IsZero() {
			r.Time = now
		}
		from := len(lines)
		if lines, err = encode(lines, &r); err != nil {
			return 0, nil, err
		}
		leaf := tlog.RecordHash(lines[from:])
		hs, err := tlog.StoredHashesForRecordHash(to.size, leaf, reader)
		if err != nil {
			return 0, nil, fmt.Errorf("audit: hash a record: %w", err)
		}
		stored = append(stored, hs...)
		lines = append(lines, '\n')
		to.leaves = append(to.leaves, leaf)
		to.size++
	}
	if cap(lines) <= maxLines {
		l.lines = lines
	}
	to.bytes += int64(len(lines))
	if to.root, err = tlog.TreeHash(to.size, reader); err != nil {
		return 0, nil, fmt.Errorf("audit: hash the log: %w", err)
	}
	msg, err := l.key.encode(to)
	if err != nil {
		return 0, nil, err
	}
	if err := l.store(msg, lines, base, stored); err != nil {
		l.rollBack(base)
		if full(err) {
			err = fmt.Errorf("audit: %w (%w)", ErrFull, err)
		}
		return 0, nil, err
	}
	first = uint64(l.at.size) + 1
	l.at, l.msg = to, msg
	return first, lines, nil
}

func (l *Log) store(msg, lines []byte, base int64, stored []tlog.Hash) error {
	if err := writeSync(l.path(pendingFile), msg); err != nil {
		return err
	}
	if _, err := l.file.Write(lines); err != nil {
		return fmt.Errorf("audit: append to %s: %w", logFile, err)
	}
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("audit: sync %s: %w", logFile, err)
	}
	if err := l.writeHashes(base, stored); err != nil {
		return err
	}
	if err := os.Rename(l.path(pendingFile), l.path(checkpointFile)); err != nil {
		return fmt.Errorf("audit: replace %s: %w", checkpointFile, err)
	}
	return nil
}

// writeHashes does not sync: hashes can be made again from the records.
func (l *Log) writeHashes(base int64, stored []tlog.Hash) error {
	buf := make([]byte, 0, len(stored)*tlog.HashSize)
	for _, h := range stored {
		buf = append(buf, h[:]...)
	}
	if _, err := l.hashes.WriteAt(buf, base*tlog.HashSize); err != nil {
		return fmt.Errorf("audit: write %s: %w", hashFile, err)
	}
	return nil
}

// rollBack takes back what store did. What it cannot take back stays announced
// by pending, and the next catchUp deals with it.
func (l *Log) rollBack(base int64) {
	if os.Truncate(l.path(logFile), l.at.bytes-l.base) != nil || os.Truncate(l.path(hashFile), base*tlog.HashSize) != nil {
		return
	}
	os.Remove(l.path(pendingFile))
}

// catchUp makes l.at what the checkpoint on the disk says, after commits by
// others, and recovers from one that was killed: the notes say what it did.
func (l *Log) catchUp() (notes []Record, err error) {
	st, err := os.Stat(l.path(logFile))
	own, oerr := l.file.Stat()
	if oerr == nil && (err == nil && !os.SameFile(st, own) || errors.Is(err, os.ErrNotExist)) {
		if err := l.follow(own); err != nil {
			return nil, err
		}
		st, err = os.Stat(l.path(logFile))
	}
	if err != nil || oerr != nil {
		return nil, &TamperError{File: logFile, What: "it cannot be read", Err: errors.Join(err, oerr)}
	}
	msg, err := os.ReadFile(l.path(checkpointFile))
	if err != nil {
		return nil, &TamperError{File: checkpointFile, What: "it cannot be read", Err: err}
	}
	if !bytes.Equal(msg, l.msg) {
		c, err := openCheckpoint(msg, l.key)
		if err != nil {
			return nil, &TamperError{File: checkpointFile, What: err.Error()}
		}
		if c.size < l.at.size || c.size == l.at.size && l.msg != nil && c.root != l.at.root {
			return nil, &TamperError{File: checkpointFile, Seq: uint64(c.size) + 1,
				What: fmt.Sprintf("it covers %d records, and there were %d: an older one was put back", c.size, l.at.size)}
		}
		if notes, err = l.checkHashes(c); err != nil {
			return nil, err
		}
		l.at, l.msg = c, msg
	}
	if _, err := os.Stat(l.path(pendingFile)); err == nil || l.base+st.Size() != l.at.bytes {
		more, err := l.recover(l.base + st.Size())
		if err != nil {
			return nil, err
		}
		notes = append(notes, more...)
	}
	return notes, nil
}

// follow opens the new log.jsonl if own, the file that was it, is now one that was closed.
func (l *Log) follow(own os.FileInfo) error {
	segs, err := segments(l.dir)
	if err != nil {
		return err
	}
	for _, s := range segs[:len(segs)-1] {
		if fi, err := os.Stat(l.path(s.name)); err == nil && os.SameFile(fi, own) {
			return l.openActive()
		}
	}
	return &TamperError{File: logFile, What: "another file was put in its place, or it was removed"}
}

// Head returns the number of records and the root hash (base64) of the last
// commit that this Log knows, to be kept where the log cannot be written: see
// VerifyAgainst.
func (l *Log) Head() (size uint64, root string) {
	l.commit.Lock()
	defer l.commit.Unlock()
	return uint64(l.at.size), l.at.root.String()
}

// Close waits for Appends under way, indexes files that were closed, and wipes the key. It returns the first
// error of writing to tee, if there was one.
func (l *Log) Close() error {
	l.mu.Lock()
	was := l.closed
	l.closed = true
	l.mu.Unlock()
	if was {
		return ErrClosed
	}
	l.appends.Wait()
	l.commit.Lock()
	defer l.commit.Unlock()
	_ = l.Index() // what it lacks, the next one makes; reading does without
	err := errors.Join(l.hashes.Sync(), l.closeFiles(), l.teeErr)
	if err != nil {
		return fmt.Errorf("audit: close the log: %w", err)
	}
	return nil
}

func (l *Log) closeFiles() error {
	var errs []error
	for _, f := range []**os.File{&l.file, &l.hashes, &l.lock} {
		if *f != nil {
			errs = append(errs, (*f).Close())
			*f = nil
		}
	}
	l.key.wipe()
	return errors.Join(errs...)
}
