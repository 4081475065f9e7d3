package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// ErrTampered is what every TamperError is.
var ErrTampered = errors.New("the audit log was tampered with")

// TamperError says what was found, and where.
type TamperError struct {
	File string // within the log's folder
	Seq  uint64 // the first record that is not as it was written; 0: not about one record
	Line int64  // of log.jsonl, from 1; 0: the same
	What string
	Err  error // what reading met, if it was that
}

func (e *TamperError) Error() string {
	where := e.File
	if e.Line > 0 {
		where = fmt.Sprintf("%s line %d (record %d)", e.File, e.Line, e.Seq)
	} else if e.Seq > 0 {
		where = fmt.Sprintf("%s (record %d)", e.File, e.Seq)
	}
	s := fmt.Sprintf("audit: %v: %s: %s", ErrTampered, where, e.What)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *TamperError) Is(target error) bool { return target == ErrTampered }

func (e *TamperError) Unwrap() error { return e.Err }

// Report is what Verify found in a log that is intact.
type Report struct {
	Records uint64 `json:"records"` // covered by the checkpoint
	// First is the oldest record that is still there: those before it were removed by
	// Prune, which a record says. Their hashes are there, and were checked.
	First uint64 `json:"first"`
	Files int    `json:"files"` // of records
	Bytes int64  `json:"bytes"` // of all records there ever were
	Root  string `json:"root"`  // base64
	Key   string `json:"key"`   // the verifier key that was used
	// OwnKey: the key came from the log's own folder, so that whoever could
	// replace the whole folder is not found out.
	OwnKey bool `json:"own_key"`
	// Pending: records of a commit that was killed, announced under the log's key;
	// the next Open takes them in. Torn: bytes of one that was cut short.
	Pending uint64 `json:"pending,omitempty"`
	Torn    int64  `json:"torn,omitempty"`
	// AnchoredAt: the size of the head given to VerifyAgainst; up to it the log is
	// also what it was then. 0: none was given.
	AnchoredAt uint64 `json:"anchored_at,omitempty"`
}

// Verify reads the whole log in dir, which may be an exported copy, and checks
// it with pub, a note verifier key; "" takes dir/key.pub. Errors that say the
// log is not what guard wrote are ErrTampered, and TamperErrors say where.
// Memory does not grow with the log.
func Verify(dir, pub string) (Report, error) { return verifyWith(dir, pub, nil) }

// VerifyAgainst is Verify, and checks that the log's first size records are
// those that had this root (base64): what Log.Head returned at some time.
func VerifyAgainst(dir, pub string, size uint64, root string) (Report, error) {
	h, err := tlog.ParseHash(root)
	if err != nil || int64(size) < 0 {
		return Report{}, errors.New("audit: the remembered head is not a size and a root hash")
	}
	return verifyWith(dir, pub, &head{int64(size), h})
}

// VerifyCheckpoint is VerifyAgainst with a checkpoint of this log that was kept
// elsewhere, which must be signed by the same key.
func VerifyCheckpoint(dir, pub string, msg []byte) (Report, error) {
	key := pub
	if key == "" {
		b, err := os.ReadFile(filepath.Join(dir, keyFile))
		if err != nil {
			return Report{}, fmt.Errorf("audit: read the log's verifier key: %w", err)
		}
		key = strings.TrimSuffix(string(b), "\n")
	}
	v, err := note.NewVerifier(key)
	if err != nil {
		return Report{}, errors.New("audit: the given key is not a log's verifier key (guard-audit+HASH+KEY)")
	}
	c, err := openCheckpoint(msg, v)
	if err != nil {
		return Report{}, fmt.Errorf("audit: the checkpoint that was kept elsewhere: %w", err)
	}
	return verifyWith(dir, pub, &head{c.size, c.root})
}

type head struct {
	size int64
	root tlog.Hash
}

func verifyWith(dir, pub string, anchor *head) (Report, error) {
	own := pub == ""
	if own {
		b, err := os.ReadFile(filepath.Join(dir, keyFile))
		if err != nil {
			return Report{}, fmt.Errorf("audit: read the log's verifier key: %w", err)
		}
		pub = strings.TrimSuffix(string(b), "\n")
	}
	v, err := note.NewVerifier(pub)
	if err != nil || !strings.HasPrefix(pub, fmt.Sprintf("%s+%08x+", origin, v.KeyHash())) {
		if own {
			return Report{}, &TamperError{File: keyFile, What: "not a verifier key"}
		}
		return Report{}, errors.New("audit: the given key is not a log's verifier key (guard-audit+HASH+KEY)")
	}
	// A log in use is looked at between two commits; a copy has no lock.
	release := func() {}
	if f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR, 0); err == nil {
		defer f.Close()
		if err := lock(f, true); err != nil {
			return Report{}, fmt.Errorf("audit: lock the log: %w", err)
		}
		release = func() { unlock(f) }
	}
	r, err := verify(dir, v, anchor, release)
	r.Key, r.OwnKey = pub, own
	return r, err
}

// verify checks the log in dir; the caller has the lock, if there is one. A log
// that is between two commits only grows from here, and so release, if not nil,
// gives the lock back before all of it is read.
func verify(dir string, v note.Verifier, anchor *head, release func()) (Report, error) {
	c, _, err := readCheckpoint(dir, checkpointFile, v)
	if errors.Is(err, os.ErrNotExist) {
		return Report{}, &TamperError{File: checkpointFile, What: "it is missing"}
	} else if err != nil {
		return Report{}, err
	}
	var announced []tlog.Hash
	p, _, perr := readCheckpoint(dir, pendingFile, v)
	if perr == nil {
		announced = p.after(c.size)
	}
	segs, err := segments(dir)
	if err != nil {
		return Report{}, err
	}
	hf, err := openOrMissing(dir, hashFile)
	if err != nil {
		return Report{}, err
	}
	defer hf.Close()

	st, err := hf.Stat()
	if err != nil {
		return Report{}, fmt.Errorf("audit: look at %s: %w", hashFile, err)
	}
	size := []int64{tail(segs).end(), st.Size()}
	r := openSegments(dir, segs, size[0])
	defer r.Close()
	if err := r.open(); err != nil {
		return Report{}, err
	}
	if size[0] == c.bytes && size[1] == tlog.StoredHashCount(c.size)*tlog.HashSize && perr != nil && release != nil {
		release()
	}
	s := scan{hashes: bufio.NewReaderSize(io.LimitReader(hf, size[1]), 1<<16), hashBytes: size[1], want: c, anchor: anchor, announced: announced}
	first := segs[0].first
	if err := s.skip(int64(first) - 1); err != nil {
		return Report{}, err
	}
	n, rest, err := scanLines(r, s.line)
	if err != nil {
		return Report{}, locate(shift(err, first), segs)
	}
	n += int64(first) - 1
	if err := s.check(n, hf); err != nil {
		return Report{}, locate(err, segs)
	}
	if s.pruned < first-1 {
		return Report{}, &TamperError{File: segs[0].name, Seq: 1, Line: 1, What: fmt.Sprintf(
			"records %d to %d are missing, and no record says that guard removed them", s.pruned+1, first-1)}
	}
	if rest > 0 && len(announced) == 0 {
		return Report{}, &TamperError{File: logFile, Seq: uint64(n) + 1, Line: n + 1, What: "bytes that guard did not write follow the last record"}
	}
	rep := Report{First: first, Files: len(segs), Records: uint64(c.size), Bytes: c.bytes, Root: c.root.String(), Pending: uint64(n - c.size), Torn: rest}
	if anchor != nil {
		rep.AnchoredAt = uint64(anchor.size)
	}
	return rep, nil
}

// shift counts the lines of err, which were counted from record first, from the
// first record there ever was.
func shift(err error, first uint64) error {
	var e *TamperError
	if errors.As(err, &e) && e.Line > 0 {
		e.Seq += first - 1
		e.Line += int64(first) - 1
	}
	return err
}

func openOrMissing(dir, name string) (*os.File, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, &TamperError{File: name, What: "it is missing"}
	} else if err != nil {
		return nil, fmt.Errorf("audit: open %s: %w", name, err)
	}
	return f, nil
}

// scan follows the log and the hashes file side by side.
type scan struct {
	hashes    *bufio.Reader
	hashBytes int64 // length of the hashes file
	want      checkpoint
	anchor    *head
	announced []tlog.Hash

	tree      tree
	root      tlog.Hash // of want.size records
	anchored  tlog.Hash // of anchor.size records
	differs   bool      // a stored hash does not match
	leaf      bool      // and it is a leaf's
	at        int64     // of this record, from 0
	here      tlog.Hash // the hash of the line there
	after     tlog.Hash // and of the next
	stranger  int64     // line number, from 1, of the first line that nothing covers
	beyond    int64     // complete lines after want.size
	hasBeyond bool
	pruned    uint64 // up to this record guard says that it removed them
}

// skip takes the hashes of n records that were pruned as they are stored; the
// root says whether they are right.
func (s *scan) skip(n int64) error {
	for i := range n {
		if i == s.want.size {
			break
		}
		s.edge()
		var leaf tlog.Hash
		if _, err := io.ReadFull(s.hashes, leaf[:]); err != nil {
			return &TamperError{File: hashFile, Seq: uint64(i) + 1, What: "the hash of a record that was removed is missing"}
		}
		for k, x := range s.tree.add(leaf) {
			var stored tlog.Hash
			if k == 0 || s.differs {
				continue
			}
			if _, err := io.ReadFull(s.hashes, stored[:]); err != nil || stored != x {
				s.differs, s.at = true, i
			}
		}
	}
	return nil
}

func (s *scan) line(line []byte) error {
	i := s.tree.n + s.beyond
	h := tlog.RecordHash(line)
	if s.differs && i == s.at+1 {
		s.after = h
	}
	if s.tree.n == s.want.size {
		s.edge()
		if s.beyond >= int64(len(s.announced)) || h != s.announced[s.beyond] {
			if s.stranger == 0 {
				s.stranger = i + 1
			}
		}
		s.beyond++
		return nil
	}
	s.edge()
	if bytes.Contains(line, prunedNeedle) {
		var r Record
		if json.Unmarshal(line, &r) == nil && r.Type == TypePruned {
			s.pruned = max(s.pruned, r.Through)
		}
	}
	for k, x := range s.tree.add(h) {
		var stored tlog.Hash
		if !s.differs {
			if _, err := io.ReadFull(s.hashes, stored[:]); err != nil || stored != x {
				s.differs, s.leaf, s.at, s.here = true, k == 0, i, h
			}
		}
	}
	return nil
}

// edge takes the roots at the sizes of interest.
func (s *scan) edge() {
	if s.anchor != nil && s.tree.n == s.anchor.size {
		s.anchored = s.tree.root()
	}
	if s.tree.n == s.want.size && !s.hasBeyond {
		s.hasBeyond = true
		s.root = s.tree.root()
	}
}

// check judges what was seen in n lines.
func (s *scan) check(n int64, hf *os.File) error {
	s.edge()
	intact := s.hasBeyond && s.root == s.want.root
	if !intact {
		if s.differs && s.leaf {
			return s.locate(n, hf)
		}
		if n < s.want.size {
			return truncated(n, s.want.size)
		}
		return &TamperError{File: logFile, Seq: 1, Line: 1, What: fmt.Sprintf(
			"records and hashes were changed together, somewhere in records 1 to %d", s.want.size)}
	}
	if s.stranger > 0 {
		return &TamperError{File: logFile, Seq: uint64(s.stranger), Line: s.stranger, What: "a line that guard did not write follows the last record"}
	}
	if s.differs {
		return &TamperError{File: hashFile, Seq: uint64(s.at) + 1, What: "a stored hash was changed; the records themselves are as guard wrote them"}
	}
	if s.hashBytes != tlog.StoredHashCount(s.want.size)*tlog.HashSize && len(s.announced) == 0 {
		return &TamperError{File: hashFile, What: "bytes that guard did not write follow the last hash"}
	}
	if s.anchor != nil {
		if s.anchor.size > s.want.size {
			return &TamperError{File: checkpointFile, Seq: uint64(s.want.size) + 1, Line: s.want.size + 1, What: fmt.Sprintf(
				"rolled back: the log has %d records, and had %d when its head was kept", s.want.size, s.anchor.size)}
		}
		if s.anchored != s.anchor.root {
			return &TamperError{File: logFile, Seq: 1, Line: 1, What: fmt.Sprintf(
				"rewritten under its own key: records 1 to %d are not those of the head that was kept", s.anchor.size)}
		}
	}
	return nil
}

// locate says what happened at record s.at, the first whose line does not have
// the hash that was stored.
func (s *scan) locate(n int64, hf *os.File) error {
	stored := func(i int64) (h tlog.Hash) {
		if i < s.want.size {
			hf.ReadAt(h[:], tlog.StoredHashIndex(0, i)*tlog.HashSize)
		}
		return h
	}
	e := &TamperError{File: logFile, Seq: uint64(s.at) + 1, Line: s.at + 1}
	mine, next := stored(s.at), stored(s.at+1)
	switch {
	case s.here == next && s.after == mine:
		e.What = "moved: this record and the next have changed places"
	case s.here == next:
		e.What = "deleted: the record that was here is missing"
	case s.after == mine:
		e.What = "inserted: a line that guard did not write"
	case n < s.want.size:
		e.What = fmt.Sprintf("changed or deleted: %d lines of %d are there", n, s.want.size)
	default:
		e.What = "changed"
	}
	return e
}
