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

// startWait bounds how long a replaced file waits for a sandbox that is starting.
const startWait = 5 * time.Second

// maskLost hides a file again that was shown with placeholders and was replaced
// on the host, by an editor that renames for example: the mount that hid it went
// with the old file. Between the two the agent may have read it.
func (s *session) maskLost(path string, file *os.File) {
	r := s.record("mask.lost")
	r.Channel, r.Path, r.Reason = string(guard.ChannelFile), path, "replaced from outside during the session"
	// The agent may run a moment before the session knows its sandbox.
	select {
	case <-s.running:
	case <-time.After(startWait):
	}
	s.mu.Lock()
	sb, told := s.sandbox, s.told[path]
	s.told[path] = true
	s.mu.Unlock()
	r.Result = "it is no file that could be looked into"
	if file != nil {
		r.Result = "it holds no known value"
		if f, holds := s.conceal.open(path, file); holds && sb != nil {
			r.Result = "hidden again"
			if err := sb.Mask(f); err != nil {
				r.Result = "the agent can read it"
				if !told { // once a path: an agent can make this happen again and again
					s.app.say("%s was replaced during the session, and the agent can read what is in it now: start the session again to hide it (%v)", path, err)
				}
			}
		}
	}
	if _, err := s.append(r); err != nil {
		s.app.say("a record could not be written: %v", err)
	}
}

// original is what a file held before guard masked it: all of it, or, of a large
// file, the masked bytes.
type original struct {
	Path    string            `json:"path"`
	At      time.Time         `json:"at"`
	Content []byte            `json:"content,omitempty"`
	Spans   []supervisor.Span `json:"spans,omitempty"`
}

// keepOriginal seals what a file held before it is redacted.
func (s *session) keepOriginal(path string, whole []byte, spans []supervisor.Span, found []guard.Leak) error {
	o := original{Path: path, At: time.Now().UTC(), Content: whole, Spans: spans}
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
