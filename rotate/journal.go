package rotate

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"guard"
)

// Journal is a folder with one file for each rotation that is under way,
// INTENT.json, and one lock file for each credential. A file is replaced by
// writing INTENT.tmp, syncing it, renaming it and syncing the folder, so that
// after a crash it is either the one before or the one after.
type Journal struct {
	dir string
}

// record is a journal file. Step is the step that is being taken: it was
// written before, and is taken again after a crash.
type record struct {
	Intent    string         `json:"intent"`
	From      guard.SecretID `json:"from"`
	To        guard.SecretID `json:"to"`        // zero until there is one
	Order     Mode           `json:"order"`     // which order the steps are in
	Emergency bool           `json:"emergency"` // no session is spared
	Reason    string         `json:"reason"`
	Incident  string         `json:"incident,omitempty"`
	Step      string         `json:"step"`
	Dead      bool           `json:"dead"`
	Switched  bool           `json:"switched"`
	Started   time.Time      `json:"started"`
	Until     time.Time      `json:"until,omitzero"`   // the old value is left valid until then
	Next      []string       `json:"next,omitempty"`   // what a person must do
	Hand      bool           `json:"hand,omitempty"`   // a person stored the new value
	Asked     bool           `json:"asked,omitempty"`  // a person was asked to
	Expires   time.Time      `json:"expires,omitzero"` // of the new value, if the issuer said
	ID        string         `json:"id,omitempty"`     // of the old value at the issuer
	NewID     string         `json:"new_id,omitempty"` // and of the new one
	User      string         `json:"user,omitempty"`   // that went with the old value, where the new one has another
	NewUser   string         `json:"new_user,omitempty"`
	Note      string         `json:"note,omitempty"` // a provider's, for when a step is taken again
	Steps     []Step         `json:"steps"`
}

// maxSteps bounds what a rotation that is resumed for weeks remembers.
const maxSteps = 200

// OpenJournal makes dir if it is not there.
func OpenJournal(dir string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open rotation journal: %w", err)
	}
	return &Journal{dir: dir}, nil
}

func newIntent() string {
	var b [10]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func (j *Journal) save(r *record) error {
	if n := len(r.Steps) - maxSteps; n > 0 {
		r.Steps = slices.Delete(r.Steps, maxSteps/2, maxSteps/2+n)
	}
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write rotation journal: %w", err)
	}
	if err := writeFile(filepath.Join(j.dir, r.Intent+".json"), b); err != nil {
		return fmt.Errorf("write rotation journal: %w", err)
	}
	return nil
}

func (j *Journal) remove(r *record) error {
	if err := os.Remove(filepath.Join(j.dir, r.Intent+".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("close rotation journal: %w", err)
	}
	return syncDir(j.dir)
}

// open lists the rotations that are under way, oldest first.
func (j *Journal) open() ([]*record, error) {
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return nil, fmt.Errorf("read rotation journal: %w", err)
	}
	var out []*record
	for _, e := range entries {
		intent, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		r, err := j.read(intent)
		if errors.Is(err, fs.ErrNotExist) {
			continue // finished by another guard
		}
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *record) int { return a.Started.Compare(b.Started) })
	return out, nil
}

func (j *Journal) read(intent string) (*record, error) {
	b, err := os.ReadFile(filepath.Join(j.dir, intent+".json"))
	if err != nil {
		return nil, fmt.Errorf("read rotation journal: %w", err)
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil || r.Intent != intent || r.From.Name == "" {
		return nil, fmt.Errorf("rotation journal %s.json is damaged: find out which value of its credential works with `guard secret ls`, then remove the file", intent)
	}
	return &r, nil
}

// of returns the rotation of one credential that is under way, or nil. The
// caller holds the credential's lock.
func (j *Journal) of(context, name string) (*record, error) {
	all, err := j.open()
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		if r.From.Context == context && r.From.Name == name {
			return r, nil
		}
	}
	return nil, nil
}

// UnderWay says whether a rotation of a credential is open.
func (j *Journal) UnderWay(context, name string) (bool, error) {
	rec, err := j.of(context, name)
	return rec != nil, err
}

func (j *Journal) lockPath(context, name string) string {
	sum := sha256.Sum256([]byte(context + "\x00" + name))
	return filepath.Join(j.dir, hex.EncodeToString(sum[:12])+".lock")
}

// writeFile replaces path durably. Others must not write it at the same time.
func writeFile(path string, b []byte) error {
	return writeVia(strings.TrimSuffix(path, filepath.Ext(path))+".tmp", path, b)
}

func writeVia(tmp, path string, b []byte) error {
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return err
	}
	return syncDir(filepath.Dir(path))
}
