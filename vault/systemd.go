package vault

import (
	"errors"
	"path/filepath"

	"guard"
)

// SystemdCredential opens a vault with a credential that systemd hands to a
// service (systemd.exec(5), LoadCredentialEncrypted=): at least 32 random bytes, which
// the host's key or its TPM keeps at rest.
type SystemdCredential struct {
	// Dir is $CREDENTIALS_DIRECTORY.
	Dir string
	// ID is the credential's name; "": guard.key.
	ID string
}

// Name is "systemd".
func (SystemdCredential) Name() string { return "systemd" }

// Enrol reads the credential, which systemd made beforehand.
func (c SystemdCredential) Enrol(string) (guard.Secret, []byte, error) {
	s, err := c.read()
	return s, nil, err
}

// Unlock reads the credential.
func (c SystemdCredential) Unlock(string, []byte) (guard.Secret, error) { return c.read() }

func (c SystemdCredential) read() (guard.Secret, error) {
	id := c.ID
	if id == "" {
		id = "guard.key"
	}
	if c.Dir == "" {
		return guard.Secret{}, errors.New("systemd gave this process no credentials: LoadCredentialEncrypted=" + id + ":/etc/credstore.encrypted/" + id + " in the unit")
	}
	if filepath.Base(id) != id || id == "." || id == ".." {
		return guard.Secret{}, errors.New("a credential's name is a file's name, without a folder")
	}
	// What the file must be like is what a key file must be like.
	return KeyFile{Path: filepath.Join(c.Dir, id)}.read()
}
