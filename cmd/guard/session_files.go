package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"time"

	"guard"
	"guard/rotate"
	"guard/supervisor"
)

// watched are the folders in which files are looked into when they change: all
// that the agent may write on the host.
func (s *session) watched() ([]*supervisor.Files, error) {
	shared, err := s.shared()
	if err != nil {
		return nil, err
	}
	var known []string
	for _, f := range s.files {
		known = append(known, f.Path)
	}
	var out []*supervisor.Files
	for i, dir := range shared {
		fi, err := os.Stat(dir)
		if err != nil || !fi.IsDir() {
			continue // a single file: agents keep their settings in some
		}
		if slices.ContainsFunc(shared[:i], func(d string) bool { return within(dir, d) }) {
			continue
		}
		out = append(out, &supervisor.Files{
			Root: dir, Line: s.line, Keep: s.keepOriginal, Known: known, Replaced: s.maskLost, Say: func(m string) { s.app.say("%s", m) },
		})
	}
	return out, nil
}

// maskLost hides a file again that was shown with placeholders and was replaced
// on the host, by an editor that renames for example: the mount that hid it went
// with the old file. Between the two the agent may have read it.
func (s *session) maskLost(path string) {
	r := s.record("mask.lost")
	r.Channel, r.Path, r.Reason = string(guard.ChannelFile), path, "replaced from outside during the session"
	s.mu.Lock()
	sb := s.sandbox
	s.mu.Unlock()
	if f, holds := s.conceal.file(path); holds && sb != nil {
		r.Result = "hidden again"
		if err := sb.Mask(f); err != nil {
			r.Result = "the agent can read it"
			s.app.say("%s was replaced during the session, and the agent can read what is in it now: start the session again to hide it (%v)", path, err)
		}
	} else {
		r.Result = "it holds no known value"
	}
	if _, err := s.append(r); err != nil {
		s.app.say("a record could not be written: %v", err)
	}
}

// original is what a file held before guard masked it: all of it, or, of a large
// file, the masked bytes.
type original struct {
	Path    string    `json:"path"`
	At      time.Time `json:"at"`
	Content []byte    `json:"content,omitempty"`
	Spans   []span    `json:"spans,omitempty"`
}

type span struct {
	Offset int64  `json:"offset"`
	Bytes  []byte `json:"bytes"`
}

// keepWhole is the size up to which a file is kept whole. Of a larger one the
// masked bytes are, so that an agent cannot fill the disk with copies.
const keepWhole = 256 << 10

// keepOriginal seals what a file held before it is redacted.
func (s *session) keepOriginal(path string, content []byte, found []guard.Leak) error {
	o := original{Path: path, At: time.Now().UTC()}
	if len(content) <= keepWhole {
		o.Content = content
	} else {
		for _, l := range found {
			if end := l.Offset + int64(l.Length); end <= int64(len(content)) {
				o.Spans = append(o.Spans, span{l.Offset, content[l.Offset:end]})
			}
		}
	}
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	box, err := s.vault.Seal("original", b)
	clear(b)
	if err != nil {
		return err
	}
	var id [6]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	name := hex.EncodeToString(id[:])
	if err := writeFile(filepath.Join(s.app.originalDir(), name), box); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[guard.SecretID]bool{}
	for _, l := range found {
		if !seen[l.Secret] {
			seen[l.Secret] = true
			s.kept[l.Secret] = append(s.kept[l.Secret], rotate.Restore{File: path, Original: name})
		}
	}
	return nil
}
