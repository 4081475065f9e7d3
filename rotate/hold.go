package rotate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"guard"
)

// A held version is refused by every guard of this home, whichever process found
// that it leaked, until a newer one is current: a file CREDENTIAL.held in the
// journal's folder, whose name is that of the lock.

func (j *Journal) heldPath(context, name string) string {
	return strings.TrimSuffix(j.lockPath(context, name), ".lock") + ".held"
}

// Hold notes durably that this version and earlier ones are to be refused.
func (j *Journal) Hold(id guard.SecretID) error {
	path := j.heldPath(id.Context, id.Name)
	if old, err := readHeld(path); err == nil && old.Version >= id.Version {
		return nil
	}
	b, err := json.Marshal(id)
	if err == nil {
		// Nobody waits for the credential's lock here, so others may be writing, too.
		err = writeVia(path+"-"+newIntent()+".tmp", path, b)
	}
	if err != nil {
		return fmt.Errorf("note that %s is to be refused: %w", id.Name, err)
	}
	return nil
}

// letGo ends that for id, if what is held is an earlier version.
func (j *Journal) letGo(id guard.SecretID) error {
	path := j.heldPath(id.Context, id.Name)
	if old, err := readHeld(path); errors.Is(err, fs.ErrNotExist) || err == nil && old.Version >= id.Version {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("let %s be used again: %w", id.Name, err)
	}
	return syncDir(j.dir)
}

// Held lists what is to be refused: versions up to the named ones. A file that
// cannot be read is an error, so that nothing is let through for it.
func (j *Journal) Held() ([]guard.SecretID, error) {
	names, err := filepath.Glob(filepath.Join(j.dir, "*.held"))
	if err != nil {
		return nil, err
	}
	var out []guard.SecretID
	for _, path := range names {
		id, err := readHeld(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	return out, nil
}

func readHeld(path string) (guard.SecretID, error) {
	var id guard.SecretID
	b, err := os.ReadFile(path)
	if err != nil {
		return id, fmt.Errorf("read what is refused: %w", err)
	}
	if json.Unmarshal(b, &id) != nil || id.Name == "" || id.Version < 1 {
		return id, fmt.Errorf("%s is damaged: it says which credential leaked and is refused; replace that one, then remove the file", path)
	}
	return id, nil
}
