package audit

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	proofHeader = "c2sp.org/tlog-proof@v1"
	maxProof    = 1 << 20 // bytes; a record, 64 hashes and a checkpoint stay far below
)

// ErrNoRecord is wrapped by the errors of Prove about a record that is not there.
var ErrNoRecord = errors.New("the log has no such record")

// Prove returns a proof that record seq is in the log: a C2SP tlog-proof, with the
// record's line as its extra data, the hashes that lead from it to the root, and the
// signed checkpoint that has the root. CheckProof needs nothing but the public key.
//
//	c2sp.org/tlog-proof@v1
//	extra <line of log.jsonl, base64>
//	index <seq-1>
//	<hash, base64>
//	...
//
//	<checkpoint>
func Prove(dir string, seq uint64) ([]byte, error) {
	msg, err := os.ReadFile(filepath.Join(dir, checkpointFile))
	if err != nil {
		return nil, &TamperError{File: checkpointFile, What: "it cannot be read", Err: err}
	}
	text, _, _ := strings.Cut(string(msg), "\n\n")
	c, err := parseText(text + "\n")
	if err != nil {
		return nil, &TamperError{File: checkpointFile, What: err.Error()}
	}
	if seq == 0 || seq > uint64(c.size) {
		return nil, fmt.Errorf("audit: record %d: %w: there are %d", seq, ErrNoRecord, c.size)
	}
	if segs, err := segments(dir); err == nil && seq < segs[0].first {
		return nil, fmt.Errorf("audit: record %d: %w: records before %d were removed", seq, ErrNoRecord, segs[0].first)
	}
	line, err := lineOf(dir, seq)
	if err != nil {
		return nil, err
	}
	hf, err := openOrMissing(dir, hashFile)
	if err != nil {
		return nil, err
	}
	defer hf.Close()
	p, err := tlog.ProveRecord(c.size, int64(seq-1), hashesAt(hf))
	if err != nil {
		return nil, &TamperError{File: hashFile, What: "it does not lead to the checkpoint's root", Err: err}
	}
	if tlog.CheckRecord(p, c.size, c.root, int64(seq-1), tlog.RecordHash(line)) != nil {
		return nil, &TamperError{File: logFile, Seq: seq, Line: int64(seq), What: "the record or the hashes are not those of the checkpoint: guard audit verify says which"}
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nextra %s\nindex %d\n", proofHeader, base64.StdEncoding.EncodeToString(line), seq-1)
	for _, h := range p {
		fmt.Fprintln(&b, h)
	}
	b.WriteByte('\n')
	b.Write(msg)
	return b.Bytes(), nil
}

// lineOf reads the line of one record, without its LF.
func lineOf(dir string, seq uint64) (line []byte, err error) {
	found := errors.New("found")
	err = readLines(dir, seq, func(n uint64, b []byte) error {
		line = bytes.Clone(b)
		return found
	})
	if errors.Is(err, found) {
		return line, nil
	}
	if err == nil {
		err = fmt.Errorf("audit: record %d: %w", seq, ErrNoRecord)
	}
	return nil, err
}

// Proved is what a proof says.
type Proved struct {
	Record Record          `json:"record"`
	Line   json.RawMessage `json:"line"` // the record as the log has it
	Size   uint64          `json:"size"` // records of the log that the checkpoint speaks of
	Root   string          `json:"root"` // base64
}

// CheckProof checks what Prove returned with pub, a note verifier key, and nothing
// else: neither log nor vault is needed. An error means that the proof shows nothing.
func CheckProof(proof []byte, pub string) (Proved, error) {
	v, err := note.NewVerifier(pub)
	if err != nil || !strings.HasPrefix(pub, fmt.Sprintf("%s+%08x+", origin, v.KeyHash())) {
		return Proved{}, errors.New("audit: the given key is not a log's verifier key (guard-audit+HASH+KEY)")
	}
	if len(proof) > maxProof {
		return Proved{}, errProof
	}
	head, msg, ok := bytes.Cut(proof, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if !ok || len(lines) < 3 || lines[0] != proofHeader {
		return Proved{}, errProof
	}
	extra, ok1 := strings.CutPrefix(lines[1], "extra ")
	index, ok2 := strings.CutPrefix(lines[2], "index ")
	line, err1 := base64.StdEncoding.Strict().DecodeString(extra)
	i, err2 := strconv.ParseInt(index, 10, 64)
	if !ok1 || !ok2 || err1 != nil || err2 != nil || i < 0 || strconv.FormatInt(i, 10) != index || len(line) > maxLine {
		return Proved{}, errProof
	}
	var p tlog.RecordProof
	for _, l := range lines[3:] {
		h, err := tlog.ParseHash(l)
		if err != nil || h.String() != l || len(p) == 64 { // spare bits in base64
			return Proved{}, errProof
		}
		p = append(p, h)
	}
	c, err := openCheckpoint(msg, v)
	if err != nil {
		return Proved{}, fmt.Errorf("audit: the proof's checkpoint: %w", err)
	}
	if err := tlog.CheckRecord(p, c.size, c.root, i, tlog.RecordHash(line)); err != nil {
		return Proved{}, errors.New("audit: the proof does not hold: the record is not in the log that the checkpoint speaks of")
	}
	out := Proved{Line: line, Size: uint64(c.size), Root: c.root.String()}
	if err := json.Unmarshal(line, &out.Record); err != nil || out.Record.Seq != uint64(i)+1 {
		return Proved{}, errProof
	}
	return out, nil
}

var errProof = fmt.Errorf("audit: not a proof of a record (its first line is %q)", proofHeader)

// readLines calls fn for the lines of the log from record from on, up to what
// the checkpoint covers, until fn returns an error. Closed files that end before
// from are not read.
func readLines(dir string, from uint64, fn func(seq uint64, line []byte) error) error {
	segs, err := segments(dir)
	if err != nil {
		return err
	}
	for len(segs) > 1 && segs[0].last < from {
		segs = segs[1:]
	}
	r := openSegments(dir, segs, covered(dir))
	defer r.Close()
	seq := segs[0].first - 1
	var own error // of fn, which counts records itself
	_, _, err = scanLines(r, func(b []byte) error {
		if seq++; seq >= from {
			own = fn(seq, b)
		}
		return own
	})
	if own != nil {
		return locate(own, segs)
	}
	return locate(shift(err, segs[0].first), segs)
}
