package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"guard"
	"guard/matcher"
	"guard/supervisor/sandbox"
)

// A session sees placeholders where files and variables hold values that guard
// knows. conceal makes those copies.
type conceal struct {
	matcher      *matcher.Matcher
	placeholders map[string][]string // credential name -> its placeholder, and those of its parts

	Unread  int // files that could not be looked into
	Skipped int // files that were not looked into: too large, or past the limit
	budget  int // files that may still be read
}

const (
	concealFileMax = 4 << 20 // bytes; a credential file is small
	concealFiles   = 20000   // files of one working folder
)

// bytes returns b with every known value replaced: a raw value by the
// placeholder of its length, anything else by a mask. It returns nil
// if b holds none.
func (c *conceal) bytes(b []byte) []byte {
	hits := c.matcher.Scan(b)
	hits = slices.DeleteFunc(hits, func(h matcher.Hit) bool { return h.Class >= guard.Placeholder })
	if len(hits) == 0 {
		return nil
	}
	var out []byte
	var at int64
	for _, h := range hits {
		if h.Start < at {
			h.Start = at
		}
		if h.Start >= h.End {
			continue
		}
		out = append(out, b[at:h.Start]...)
		n := int(h.End - h.Start)
		i := slices.IndexFunc(c.placeholders[h.ID.Name], func(p string) bool { return len(p) == n })
		if h.Encoding == "raw" && i >= 0 {
			out = append(out, c.placeholders[h.ID.Name][i]...)
		} else {
			out = matcher.Mask(out, b[h.Start:h.End], []matcher.Hit{{ID: h.ID, Class: h.Class, Encoding: h.Encoding, End: h.End - h.Start}}, 0)
		}
		at = h.End
	}
	return append(out, b[at:]...)
}

// env returns the environment with values concealed.
func (c *conceal) env(env []string) []string {
	out := make([]string, len(env))
	for i, kv := range env {
		out[i] = kv
		if b := c.bytes([]byte(kv)); b != nil {
			out[i] = string(b)
		}
	}
	return out
}

// file returns the copy of path that the session gets, if it holds a value.
func (c *conceal) file(path string) (sandbox.File, bool) {
	fi, err := os.Stat(path)
	if err != nil || !fi.Mode().IsRegular() || fi.Size() == 0 {
		return sandbox.File{}, false
	}
	if fi.Size() > concealFileMax {
		c.Skipped++
		return sandbox.File{}, false
	}
	f, err := os.Open(path)
	if err != nil {
		c.Unread++
		return sandbox.File{}, false
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, concealFileMax+1))
	if err != nil {
		c.Unread++
		return sandbox.File{}, false
	}
	defer clear(b)
	out := c.bytes(b)
	if out == nil {
		return sandbox.File{}, false
	}
	return sandbox.File{Path: path, Content: out, Mode: fi.Mode().Perm()}, true
}

// skipDirs hold nothing that a person wrote a credential into, and a lot of files.
var skipDirs = []string{"node_modules", "target", "vendor", ".venv", "venv", "__pycache__", ".cache", "dist", "build"}

// tree looks through a folder that the session can read.
func (c *conceal) tree(root string) ([]sandbox.File, error) {
	var files []sandbox.File
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrPermission) {
				c.Unread++
				return nil
			}
			if path == root {
				return err
			}
			return nil
		}
		if d.IsDir() {
			if path != root && slices.Contains(skipDirs, d.Name()) {
				return fs.SkipDir
			}
			// Objects of git are compressed, and masking one breaks the repository.
			if d.Name() == "objects" && filepath.Base(filepath.Dir(path)) == ".git" {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		if c.budget--; c.budget < 0 {
			c.Skipped++
			return nil
		}
		if f, ok := c.file(path); ok {
			files = append(files, f)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look through %s for credentials: %w", root, err)
	}
	return files, nil
}

// wellKnown are files in the home folder where tools keep credentials. What
// guard knows in them is shown as placeholders; of the rest, see hiddenInHome.
var wellKnown = []string{
	".npmrc", ".yarnrc.yml", ".pypirc", ".netrc", ".git-credentials", ".gitconfig", ".config/git/config", ".config/git/credentials",
	".cargo/credentials", ".cargo/credentials.toml", ".docker/config.json", ".config/gh/hosts.yml", ".config/hub", ".pgpass", ".my.cnf",
	".bashrc", ".bash_profile", ".profile", ".zshrc", ".zshenv", ".zprofile", ".envrc", ".env", ".config/fish/config.fish",
	".wgetrc", ".curlrc", ".s3cfg", ".boto", ".vault-token", ".terraformrc", ".terraform.d/credentials.tfrc.json",
	".m2/settings.xml", ".gradle/gradle.properties", ".composer/auth.json", ".gem/credentials", ".nuget/NuGet/NuGet.Config",
	".bash_history", ".zsh_history", ".local/share/fish/fish_history", ".psql_history", ".python_history", ".node_repl_history",
}

// hiddenInHome are folders and files of nothing but credentials: the session
// finds them empty, unless --share names them.
var hiddenInHome = []string{
	".aws", ".azure", ".config/gcloud", ".kube", ".gnupg", ".password-store", ".local/share/keyrings", ".local/share/kwalletd",
	".config/op", ".config/1Password", ".config/Bitwarden", ".config/Bitwarden CLI", ".config/age", ".config/sops", ".config/doctl", ".oci",
	".mozilla", ".config/google-chrome", ".config/chromium", ".config/BraveSoftware", ".config/microsoft-edge", ".thunderbird",
	".netrc", ".git-credentials", ".config/git/credentials", ".pgpass", ".vault-token", ".config/gh/hosts.yml", ".config/hub", ".pypirc",
	".cargo/credentials", ".cargo/credentials.toml", ".docker/config.json", ".config/rclone", ".terraform.d/credentials.tfrc.json",
	".bash_history", ".zsh_history", ".local/share/fish/fish_history", ".psql_history", ".python_history", ".node_repl_history",
	".Xauthority", ".ICEauthority",
}

// home returns what of the home folder is shown as a copy, and what is hidden.
func (c *conceal) home(home string, shared []string) (files []sandbox.File, hidden []string) {
	covered := func(path string) bool {
		return slices.ContainsFunc(shared, func(s string) bool { return path == s || strings.HasPrefix(path, s+"/") })
	}
	shown := map[string]bool{}
	for _, name := range wellKnown {
		path := filepath.Join(home, name)
		if f, ok := c.file(path); ok && !covered(path) {
			// A file of credentials that guard knows one of may hold others: a line
			// without a known value shows nothing but its first word.
			if slices.Contains(hiddenInHome, name) {
				f.Content = c.onlyKnownLines(f.Content)
			}
			files, shown[path] = append(files, f), true
		}
	}
	for _, name := range hiddenInHome {
		path := filepath.Join(home, name)
		if _, err := os.Lstat(path); err == nil && !shown[path] && !covered(path) {
			hidden = append(hidden, path)
		}
	}
	return files, hidden
}

// onlyKnownLines keeps the lines that hold a placeholder.
func (c *conceal) onlyKnownLines(b []byte) []byte {
	var out [][]byte
	for line := range bytes.Lines(b) {
		if slices.ContainsFunc(c.matcher.Scan(line), func(h matcher.Hit) bool { return h.Class == guard.Placeholder }) {
			out = append(out, line)
		}
	}
	return bytes.Join(out, nil)
}

// sshHidden are the files of ~/.ssh that a session does not see: all but what
// names hosts and public keys.
func sshHidden(home string) (hidden []string) {
	dir := filepath.Join(home, ".ssh")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		name := e.Name()
		if name == "config" || name == "known_hosts" || name == "allowed_signers" || strings.HasSuffix(name, ".pub") {
			continue
		}
		hidden = append(hidden, filepath.Join(dir, name))
	}
	return hidden
}
