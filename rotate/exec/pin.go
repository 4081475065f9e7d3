package exec

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"guard/rotate"
)

// Pin adds the program's hash to the options of a spec, for when a credential
// is set. It refuses a program that others could change. A hash that is there
// already must be the program's.
func Pin(options map[string]string) error {
	sum, err := hash(options["cmd"])
	if err != nil {
		return err
	}
	if old := options["sha256"]; old != "" && old != sum {
		return changed(options["cmd"])
	}
	options["sha256"] = sum
	return nil
}

func check(options map[string]string) error {
	want := options["sha256"]
	if want == "" {
		return fmt.Errorf("rotation program %s: its hash was not recorded: set it again with `guard secret edit NAME --rotate exec,cmd=PATH`: %w", options["cmd"], rotate.ErrPermanent)
	}
	sum, err := hash(options["cmd"])
	if err != nil {
		return err
	}
	if sum != want {
		return changed(options["cmd"])
	}
	return nil
}

func changed(path string) error {
	return fmt.Errorf("rotation program %s is not the one that was recorded: look at it, then `guard secret edit NAME --rotate exec,cmd=PATH`: %w", path, rotate.ErrPermanent)
}

func hash(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("rotation program: cmd must be an absolute path: %w", rotate.ErrPermanent)
	}
	sum, err := Hash(path)
	if err != nil {
		return "", fmt.Errorf("rotation program %s: %w: %w", path, rotate.ErrPermanent, err)
	}
	return sum, nil
}

// Hash is the SHA-256, in hex, of a program that is named by its absolute path, if
// nobody but root and this user can change it: the file, every folder above it, and
// every folder above the file that a link leads to.
func Hash(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	// A link could be turned by whoever owns the folder it is in.
	for _, p := range []string{filepath.Clean(path), real} {
		for dir := filepath.Dir(p); ; dir = filepath.Dir(dir) {
			fi, err := os.Stat(dir)
			if err == nil {
				err = private(fi)
			}
			if err != nil {
				return "", fmt.Errorf("folder %s: %w", dir, err)
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	f, err := os.Open(real)
	if err != nil {
		return "", err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = errors.New("not a file")
	}
	if err == nil {
		err = private(fi)
	}
	if err != nil {
		return "", err
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
