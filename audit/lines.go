package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Checkpoint returns the log's signed checkpoint, as it is now.
func Checkpoint(dir string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(dir, checkpointFile))
	if err != nil {
		return nil, &TamperError{File: checkpointFile, What: "it cannot be read", Err: err}
	}
	return b, nil
}

// CheckpointSize returns how many records a checkpoint covers. It does not verify it.
func CheckpointSize(msg []byte) (uint64, bool) {
	text, _, ok := strings.Cut(string(msg), "\n\n")
	c, err := parseText(text + "\n")
	return uint64(c.size), ok && err == nil
}

// RootAt returns the root (base64) that the log had with size records, as its hashes
// say: another log, or this one put back and gone on with, has another.
func RootAt(dir string, size uint64) (string, error) {
	f, err := openOrMissing(dir, hashFile)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h, err := tlog.TreeHash(int64(size), hashesAt(f))
	if err != nil {
		return "", &TamperError{File: hashFile, What: fmt.Sprintf("it has no hashes of %d records", size), Err: err}
	}
	return h.String(), nil
}

// Consistency returns the hashes (base64) that prove that the log of size records
// goes on from the one of old records (RFC 6962, 2.1.2).
func Consistency(dir string, old, size uint64) ([]string, error) {
	if old == 0 || old == size {
		return nil, nil
	}
	f, err := openOrMissing(dir, hashFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p, err := tlog.ProveTree(int64(size), int64(old), hashesAt(f))
	if err != nil {
		return nil, &TamperError{File: hashFile, What: fmt.Sprintf("it does not lead from %d records to %d", old, size), Err: err}
	}
	out := make([]string, len(p))
	for i, h := range p {
		out[i] = h.String()
	}
	return out, nil
}

// Lines reads the lines of the log, as they are hashed, from record from on.
func Lines(dir string, from uint64, fn func(seq uint64, line []byte) error) error {
	return readLines(dir, from, fn)
}

// Copied says what VerifyLines found.
type Copied struct {
	Records uint64 `json:"records"` // from 1 on, all of which a checkpoint covers
	Beyond  uint64 `json:"beyond"`  // after those: only their sender's word
	Root    string `json:"root"`    // of Records
	Checked int    `json:"checkpoints"`
}

// VerifyLines checks a copy of a log that another machine sent here: lines are its
// records from the first on, and checkpoints what came with them, in any order. Every
// checkpoint signed by pub must have the root that the lines give.
func VerifyLines(lines [][]byte, checkpoints [][]byte, pub string) (Copied, error) {
	v, err := note.NewVerifier(pub)
	if err != nil {
		return Copied{}, errors.New("audit: the given key is not a log's verifier key (guard-audit+HASH+KEY)")
	}
	var cs []checkpoint
	for _, msg := range checkpoints {
		c, err := openCheckpoint(msg, v)
		if err != nil {
			return Copied{}, &TamperError{File: checkpointFile, What: "a copy of it is " + err.Error()}
		}
		cs = append(cs, c)
	}
	slices.SortFunc(cs, func(a, b checkpoint) int { return int(a.size - b.size) })
	var out Copied
	var t tree
	next := 0
	check := func() error {
		for ; next < len(cs) && cs[next].size == t.n; next++ {
			if t.root() != cs[next].root {
				return &TamperError{File: "copy", Seq: out.Records + 1, What: fmt.Sprintf(
					"records %d to %d are not those that the checkpoint of %d records covers", out.Records+1, t.n, cs[next].size)}
			}
			out.Records, out.Root = uint64(t.n), t.root().String()
			out.Checked++
		}
		return nil
	}
	if err := check(); err != nil {
		return out, err
	}
	for _, line := range lines {
		t.add(tlog.RecordHash(line))
		if err := check(); err != nil {
			return out, err
		}
	}
	if next < len(cs) {
		return out, &TamperError{File: "copy", Seq: uint64(t.n) + 1, What: fmt.Sprintf("truncated: there are %d records, and a checkpoint covers %d", t.n, cs[len(cs)-1].size)}
	}
	out.Beyond = uint64(t.n) - out.Records
	return out, nil
}
