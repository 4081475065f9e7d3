package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/mod/sumdb/tlog"
)

// recover brings the log, whose file has size bytes, back to records that a
// checkpoint covers, after a commit that did not end. See the package doc.
func (l *Log) recover(size int64) (notes []Record, err error) {
	at := l.at
	if size < at.bytes {
		return nil, l.locateShort(size)
	}
	if at.bytes < l.base {
		return nil, &TamperError{File: checkpointFile, Seq: uint64(at.size) + 1, What: "it covers less than the files that were closed: an older one was put back"}
	}
	announced := l.announced()
	tail := make([]byte, size-at.bytes)
	if _, err := l.file.ReadAt(tail, at.bytes-l.base); err != nil {
		return nil, fmt.Errorf("audit: read %s: %w", logFile, err)
	}
	var kept []tlog.Hash
	rest := tail
	for {
		line, more, ok := bytes.Cut(rest, []byte("\n"))
		if !ok {
			break
		}
		h := tlog.RecordHash(line)
		if len(kept) == len(announced) || h != announced[len(kept)] {
			n := at.size + int64(len(kept)) + 1
			return nil, &TamperError{File: logFile, Seq: uint64(n), Line: n, What: "a line that guard did not write follows the last record"}
		}
		kept = append(kept, h)
		rest = more
	}
	to := checkpoint{size: at.size, bytes: size - int64(len(rest))}
	base := tlog.StoredHashCount(at.size)
	if len(rest) > 0 {
		if err := os.Truncate(l.path(logFile), to.bytes-l.base); err != nil {
			return nil, fmt.Errorf("audit: cut a torn record: %w", err)
		}
	}
	if err := os.Truncate(l.path(hashFile), base*tlog.HashSize); err != nil {
		return nil, fmt.Errorf("audit: cut %s: %w", hashFile, err)
	}
	if len(kept) > 0 {
		if err := l.file.Sync(); err != nil {
			return nil, fmt.Errorf("audit: sync %s: %w", logFile, err)
		}
		for _, h := range kept {
			hs, err := tlog.StoredHashesForRecordHash(to.size, h, hashesAt(l.hashes))
			if err == nil {
				err = l.writeHashes(tlog.StoredHashCount(to.size), hs)
			}
			if err != nil {
				return nil, err
			}
			to.size++
		}
		to.leaves = kept
		if to.root, err = tlog.TreeHash(to.size, hashesAt(l.hashes)); err != nil {
			return nil, err
		}
		msg, err := l.key.encode(to)
		if err != nil {
			return nil, err
		}
		if err := replace(l.path(checkpointFile), msg, l.path(checkpointFile+".new")); err != nil {
			return nil, err
		}
		l.at, l.msg = to, msg
	}
	if err := os.Remove(l.path(pendingFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("audit: remove %s: %w", pendingFile, err)
	}
	if len(rest) == 0 && len(kept) == 0 {
		return nil, nil // killed before a byte of the records was written
	}
	return []Record{{Type: TypeHealed, Result: "healed", Bytes: int64(len(rest)), Reason: fmt.Sprintf(
		"guard ended while it wrote: %d whole records kept, %d bytes of a torn one cut; no use had gone on with them", len(kept), len(rest))}}, nil
}

// announced returns the hashes of the records after the checkpoint that pending
// announces: none if it is absent, torn, or about other records.
func (l *Log) announced() []tlog.Hash {
	p, _, err := readCheckpoint(l.dir, pendingFile, l.key)
	if err != nil {
		return nil
	}
	return p.after(l.at.size)
}

// after returns the leaves of c that come after record size.
func (c checkpoint) after(size int64) []tlog.Hash {
	from := size - (c.size - int64(len(c.leaves)))
	if from < 0 || from > int64(len(c.leaves)) {
		return nil
	}
	return c.leaves[from:]
}

// locateShort says at which record the log, now of size bytes, was cut.
func (l *Log) locateShort(size int64) error {
	segs, err := segments(l.dir)
	if err != nil {
		return err
	}
	r := openSegments(l.dir, segs, size)
	defer r.Close()
	n, _, err := scanLines(r, func([]byte) error { return nil })
	if err != nil {
		return err
	}
	return locate(truncated(int64(segs[0].first)-1+n, l.at.size), segs)
}

func truncated(have, want int64) error {
	return &TamperError{File: logFile, Seq: uint64(have) + 1, Line: have + 1,
		What: fmt.Sprintf("truncated: %d whole records of %d are there", have, want)}
}

// checkHashes sees that the hashes file gives c's root, and makes it again from
// the records if not.
func (l *Log) checkHashes(c checkpoint) ([]Record, error) {
	root, err := tlog.TreeHash(c.size, hashesAt(l.hashes))
	if err == nil && root == c.root {
		return nil, nil
	}
	segs, err := segments(l.dir)
	if err != nil {
		return nil, err
	}
	if end := tail(segs).end(); end < c.bytes {
		l.at = c
		return nil, l.locateShort(end)
	}
	// Prove the records first: on no account are hashes made to fit a changed log.
	var t tree
	n, err := l.eachLeaf(c, segs, func(h tlog.Hash) { t.add(h) })
	if err != nil {
		return nil, err
	}
	if n != c.size || t.root() != c.root {
		if _, err := verify(l.dir, l.key, nil, nil); err != nil {
			return nil, err
		}
		return nil, &TamperError{File: logFile, What: "its records do not give the checkpoint's root"}
	}
	f, err := os.OpenFile(l.path(hashFile+".new"), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit: rebuild %s: %w", hashFile, err)
	}
	t = tree{}
	w := bufio.NewWriterSize(f, 1<<16)
	_, err = l.eachLeaf(c, segs, func(h tlog.Hash) {
		for _, x := range t.add(h) {
			w.Write(x[:])
		}
	})
	if err := errors.Join(err, w.Flush(), f.Sync(), os.Rename(l.path(hashFile+".new"), l.path(hashFile))); err != nil {
		f.Close()
		return nil, fmt.Errorf("audit: rebuild %s: %w", hashFile, err)
	}
	l.hashes.Close()
	l.hashes = f
	if c.size == 0 {
		return nil, nil
	}
	return []Record{{Type: TypeHealed, Result: "healed",
		Reason: "the hashes file did not match the records and was made again; the records match the checkpoint"}}, nil
}

// eachLeaf calls f with the hash of every record that c covers: those of records
// that were pruned come from the hashes file, which alone still has them.
func (l *Log) eachLeaf(c checkpoint, segs []segment, f func(tlog.Hash)) (n int64, err error) {
	for ; n < int64(segs[0].first)-1; n++ {
		h, err := hashesAt(l.hashes)([]int64{tlog.StoredHashIndex(0, n)})
		if err != nil {
			return n, err
		}
		f(h[0])
	}
	r := openSegments(l.dir, segs, c.bytes)
	defer r.Close()
	m, _, err := scanLines(r, func(line []byte) error {
		f(tlog.RecordHash(line))
		return nil
	})
	return n + m, locate(err, segs)
}

// tree computes the hashes of a growing log in memory of log n.
type tree struct {
	n     int64
	nodes []tlog.Hash // roots of the complete subtrees, largest first
	out   [64]tlog.Hash
}

// add adds a leaf and returns the hashes to store for it, valid until the next add.
func (t *tree) add(h tlog.Hash) []tlog.Hash {
	k := 0
	t.out[k] = h
	for n := t.n; n&1 == 1; n >>= 1 {
		h = tlog.NodeHash(t.nodes[len(t.nodes)-1], h)
		t.nodes = t.nodes[:len(t.nodes)-1]
		k++
		t.out[k] = h
	}
	t.nodes = append(t.nodes, h)
	t.n++
	return t.out[:k+1]
}

func (t *tree) root() tlog.Hash {
	if t.n == 0 {
		h, _ := tlog.TreeHash(0, nil)
		return h
	}
	h := t.nodes[len(t.nodes)-1]
	for i := len(t.nodes) - 2; i >= 0; i-- {
		h = tlog.NodeHash(t.nodes[i], h)
	}
	return h
}

// scanLines calls f for every line of r that ends in LF, and returns their
// number, and the bytes that follow the last.
func scanLines(r io.Reader, f func(line []byte) error) (n, rest int64, err error) {
	br := bufio.NewReaderSize(r, 2*maxLine)
	for {
		line, err := br.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return n, int64(len(line)), nil
		case errors.Is(err, bufio.ErrBufferFull):
			return n, 0, &TamperError{File: logFile, Seq: uint64(n) + 1, Line: n + 1, What: "a line longer than any record"}
		case err != nil:
			return n, 0, fmt.Errorf("audit: read %s: %w", logFile, err)
		}
		if err := f(line[:len(line)-1]); err != nil {
			return n, 0, err
		}
		n++
	}
}
