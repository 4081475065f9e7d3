package audit

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"guard"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	origin         = "guard-audit" // of the checkpoint, and the key's name
	logFile        = "log.jsonl"
	hashFile       = "hashes"
	checkpointFile = "checkpoint"
	pendingFile    = "pending"
	keyFile        = "key.pub"
	lockFile       = "lock"
)

// checkpoint says what the log holds.
type checkpoint struct {
	size   int64 // records
	root   tlog.Hash
	bytes  int64       // of log.jsonl
	leaves []tlog.Hash // of the records that this commit added: the last ones of size
}

func (c checkpoint) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%d\n%s\nbytes %d\n", origin, c.size, c.root, c.bytes)
	for _, h := range c.leaves {
		fmt.Fprintf(&b, "leaf %s\n", h)
	}
	return b.String()
}

var errFormat = errors.New("not a checkpoint of this log's format")

func parseText(text string) (c checkpoint, err error) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 4 || lines[0] != origin {
		return c, errFormat
	}
	if c.size, err = strconv.ParseInt(lines[1], 10, 64); err != nil || c.size < 0 {
		return c, errFormat
	}
	if c.root, err = tlog.ParseHash(lines[2]); err != nil {
		return c, errFormat
	}
	n, ok := strings.CutPrefix(lines[3], "bytes ")
	if c.bytes, err = strconv.ParseInt(n, 10, 64); err != nil || !ok || c.bytes < 0 {
		return c, errFormat
	}
	for _, l := range lines[4:] {
		s, ok := strings.CutPrefix(l, "leaf ")
		h, err := tlog.ParseHash(s)
		if err != nil || !ok {
			return c, errFormat
		}
		c.leaves = append(c.leaves, h)
	}
	if int64(len(c.leaves)) > c.size {
		return c, errFormat
	}
	return c, nil
}

// signer is a note.Signer. The key is behind functions, so that nothing that
// prints a Log can print it.
type signer struct {
	note.Verifier
	pub  string
	sign func(msg []byte) ([]byte, error)
	wipe func()
}

func (s signer) Sign(msg []byte) ([]byte, error) { return s.sign(msg) }

func newSigner(key guard.Secret) (signer, error) {
	seed := key.Reveal()
	if len(seed) != ed25519.SeedSize {
		return signer{}, fmt.Errorf("audit: the log's key has %d bytes; want a seed of %d", len(seed), ed25519.SeedSize)
	}
	priv := ed25519.NewKeyFromSeed(seed)
	pub, err := note.NewEd25519VerifierKey(origin, priv.Public().(ed25519.PublicKey))
	if err != nil {
		clear(priv)
		return signer{}, fmt.Errorf("audit: make the verifier key: %w", err)
	}
	v, err := note.NewVerifier(pub)
	if err != nil {
		clear(priv)
		return signer{}, fmt.Errorf("audit: make the verifier: %w", err)
	}
	return signer{
		Verifier: v,
		pub:      pub,
		sign:     func(msg []byte) ([]byte, error) { return ed25519.Sign(priv, msg), nil },
		wipe:     func() { clear(priv) },
	}, nil
}

// PublicKey returns the note verifier key ("guard-audit+HASH+KEY") of the log
// key, a 32-byte Ed25519 seed.
func PublicKey(key guard.Secret) (string, error) {
	s, err := newSigner(key)
	if err != nil {
		return "", err
	}
	s.wipe()
	return s.pub, nil
}

func (s signer) encode(c checkpoint) ([]byte, error) {
	msg, err := note.Sign(&note.Note{Text: c.text()}, s)
	if err != nil {
		return nil, fmt.Errorf("audit: sign the checkpoint: %w", err)
	}
	return msg, nil
}

// openCheckpoint checks msg's signature and reads it.
func openCheckpoint(msg []byte, v note.Verifier) (checkpoint, error) {
	n, err := note.Open(msg, note.VerifierList(v))
	if err != nil {
		return checkpoint{}, errors.New("not signed by this log's key")
	}
	// One text, one encoding: package note takes any spare bits in base64, and
	// signatures by others beside ours.
	sig, err := base64.StdEncoding.Strict().DecodeString(n.Sigs[0].Base64)
	want := fmt.Sprintf("%s\n— %s %s\n", n.Text, n.Sigs[0].Name, base64.StdEncoding.EncodeToString(sig))
	if err != nil || !bytes.Equal(msg, []byte(want)) {
		return checkpoint{}, errFormat
	}
	return parseText(n.Text)
}

func readCheckpoint(dir, name string, v note.Verifier) (c checkpoint, msg []byte, err error) {
	msg, err = os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return c, nil, fmt.Errorf("audit: read %s: %w", name, err)
	}
	if c, err = openCheckpoint(msg, v); err != nil {
		return c, msg, &TamperError{File: name, What: err.Error()}
	}
	return c, msg, nil
}

// hashesAt reads stored hashes from the hashes file.
func hashesAt(f *os.File) tlog.HashReaderFunc {
	return func(idx []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(idx))
		for i, x := range idx {
			if _, err := f.ReadAt(out[i][:], x*tlog.HashSize); err != nil {
				return nil, fmt.Errorf("audit: read %s: %w", hashFile, err)
			}
		}
		return out, nil
	}
}
