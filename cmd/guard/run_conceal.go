package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"guard"
	"guard/matcher"
	"guard/supervisor/sandbox"
)

// A session sees placeholders where files and variables hold values that guard
// knows. conceal makes those copies.
type conceal struct {
	matcher      *matcher.Matcher
	placeholders map[string][]string // credential name -> its placeholder, and those of its parts

	Unread  int // files and folders that could not be looked into
	Skipped int // files that were not looked into: too large, or past the limit
	budget  int // files that may still be read
	mu      sync.Mutex
}

const (
	concealFileMax = 4 << 20 // bytes; a credential file is small
	concealFiles   = 50000   // files in all
)

// bytes returns b with every known value replaced: by the placeholder, encoded as
// the value was, where there is one that fits, by a mask otherwise. It returns nil
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
		if h.End <= at {
			continue
		}
		if from, to, text, ok := c.standIn(b, h); ok && from >= at {
			out = append(append(out, b[at:from]...), text...)
			at = to
			continue
		}
		h.Start = max(h.Start, at)
		out = append(out, b[at:h.Start]...)
		out = matcher.Mask(out, b[h.Start:h.End], []matcher.Hit{{ID: h.ID, Class: h.Class, Encoding: h.Encoding, End: h.End - h.Start}}, 0)
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

func (c *conceal) count(n *int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*n++
}

// file returns the copy of path that the session gets, if it holds a value. It
// follows links: it is for files of the user's that no agent writes.
func (c *conceal) file(path string) (sandbox.File, bool) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			c.count(&c.Unread)
		}
		return sandbox.File{}, false
	}
	defer f.Close()
	return c.open(path, f)
}

// open is file for what is open already.
func (c *conceal) open(path string, f *os.File) (sandbox.File, bool) {
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() || fi.Size() == 0 {
		return sandbox.File{}, false
	}
	if fi.Size() > concealFileMax {
		c.count(&c.Skipped)
		return sandbox.File{}, false
	}
	b, err := io.ReadAll(io.LimitReader(f, concealFileMax+1))
	if err != nil {
		c.count(&c.Unread)
		return sandbox.File{}, false
	}
	defer clear(b)
	out := c.bytes(b)
	if out == nil {
		return sandbox.File{}, false
	}
	return sandbox.File{Path: path, Content: out, Mode: fi.Mode().Perm()}, true
}

// rewritten is file for one that holds placeholders on the disk already, as guard
// import leaves it.
func (c *conceal) rewritten(path string) (sandbox.File, bool) {
	b, fi, why := readImport(path)
	if why != "" || !c.known(b) {
		return sandbox.File{}, false
	}
	return sandbox.File{Path: path, Content: b, Mode: fi.Mode().Perm()}, true
}

// bulky are folders of so many files, written by programs, that only those with
// a telling name are looked into.
var bulky = []string{"node_modules", "__pycache__", ".venv", "venv", "vendor", ".cache", ".tox", ".gradle", ".cargo", ".rustup", ".npm"}

// telling says that a file's name is one that credentials are kept under.
func telling(name string) bool {
	name = strings.ToLower(name)
	if strings.HasPrefix(name, ".") {
		return true
	}
	for _, part := range []string{"secret", "credential", "token", "passw", "auth", "apikey", "api_key", "settings", "config"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return slices.Contains([]string{".env", ".pem", ".key", ".p12", ".pfx", ".json", ".yml", ".yaml", ".toml", ".ini", ".cfg", ".conf", ".properties", ".tfvars", ".tfstate"}, filepath.Ext(name)) &&
		!slices.Contains([]string{"package.json", "package-lock.json", "tsconfig.json", "composer.json"}, name)
}

// found is what a look through a folder came to.
type found struct {
	files   []sandbox.File
	sockets []string // sockets and FIFOs: ways to programs outside
}

// walk looks through a folder that the session can read, depth folders deep; hidden
// are places that the session does not see anyway.
func (c *conceal) walk(root string, depth int, hidden []string, want func(path string, d fs.DirEntry) bool) (out found, err error) {
	if fi, err := os.Stat(root); err == nil && !fi.IsDir() {
		if f, ok := c.file(root); ok {
			out.files = append(out.files, f)
		}
		return out, nil
	}
	var paths []string
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if path == root && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			c.Unread++
			return nil
		}
		if d.IsDir() {
			// Objects of git are compressed, and masking one breaks the repository.
			if slices.Contains(hidden, path) || d.Name() == "objects" && filepath.Base(filepath.Dir(path)) == ".git" {
				return fs.SkipDir
			}
			if strings.Count(strings.TrimPrefix(path, root), string(filepath.Separator)) > depth {
				return fs.SkipDir
			}
			return nil
		}
		switch {
		case d.Type()&(fs.ModeSocket|fs.ModeNamedPipe) != 0:
			out.sockets = append(out.sockets, path)
		case d.Type().IsRegular() && want(path, d):
			if c.budget--; c.budget < 0 {
				c.Skipped++
				return nil
			}
			paths = append(paths, path)
		}
		return nil
	})
	if err != nil {
		return out, fmt.Errorf("look through %s for credentials: %w", root, err)
	}
	// The agent of another session may be at work in the folder: nothing is followed
	// out of it, nor waited for.
	dir, err := os.OpenRoot(root)
	if err != nil {
		return out, fmt.Errorf("look through %s for credentials: %w", root, err)
	}
	defer dir.Close()
	look := func(path string) (sandbox.File, bool) {
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return sandbox.File{}, false
		}
		f, err := dir.OpenFile(rel, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			c.count(&c.Unread)
			return sandbox.File{}, false
		}
		defer f.Close()
		return c.open(path, f)
	}
	// Reading is what takes the time: one reader a processor.
	type result struct {
		f  sandbox.File
		ok bool
	}
	results := make([]result, len(paths))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), 8) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(paths); i = int(next.Add(1)) - 1 {
				results[i].f, results[i].ok = look(paths[i])
			}
		})
	}
	wg.Wait()
	for _, r := range results {
		if r.ok {
			out.files = append(out.files, r.f)
		}
	}
	return out, nil
}

// tree looks through a folder that the session may write: every file, but in
// folders full of programs' files those with a telling name only.
func (c *conceal) tree(root string, hidden []string) (found, error) {
	return c.walk(root, 1000, hidden, func(path string, d fs.DirEntry) bool {
		rel := strings.TrimPrefix(path, root)
		for _, b := range bulky {
			if strings.Contains(rel, string(filepath.Separator)+b+string(filepath.Separator)) {
				return telling(d.Name())
			}
		}
		return true
	})
}

// homeDepth is how deep the home folder is looked through, outside of what the
// session may write.
const homeDepth = 4

// wellKnown are files in the home folder where tools keep credentials. What
// guard knows in them is shown as placeholders; of the rest, see hiddenInHome.
var wellKnown = []string{
	".npmrc", ".yarnrc.yml", ".pypirc", ".netrc", ".git-credentials", ".gitconfig", ".config/git/config", ".config/git/credentials",
	".cargo/credentials", ".cargo/credentials.toml", ".docker/config.json", ".config/gh/hosts.yml", ".config/hub", ".pgpass", ".my.cnf",
	".bashrc", ".bash_profile", ".profile", ".zshrc", ".zshenv", ".zprofile", ".envrc", ".env", ".config/fish/config.fish",
	".wgetrc", ".curlrc", ".s3cfg", ".boto", ".vault-token", ".terraformrc", ".terraform.d/credentials.tfrc.json",
	".m2/settings.xml", ".gradle/gradle.properties", ".composer/auth.json", ".config/composer/auth.json", ".gem/credentials", ".local/share/gem/credentials",
	".bundle/config", ".nuget/NuGet/NuGet.Config", ".pip/pip.conf", ".config/pip/pip.conf", ".config/uv/uv.toml", ".config/pypoetry/auth.toml",
	".cargo/config.toml", ".config/containers/auth.json", ".config/helm/registry/config.json", kubeConfig,
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
// Outside of what is shared it is looked through for files with telling names,
// some folders deep.
func (c *conceal) home(home string, shared, hiddenToo []string) (found, []string, error) {
	covered := func(path string) bool {
		return slices.ContainsFunc(shared, func(s string) bool { return within(path, s) })
	}
	hidden := slices.Clone(hiddenToo)
	shown := map[string]bool{}
	var out found
	for _, name := range wellKnown {
		path := filepath.Join(home, name)
		ofCredentials := slices.Contains(hiddenInHome, name) || name == kubeConfig
		f, ok := c.file(path)
		if !ok && ofCredentials {
			f, ok = c.rewritten(path)
		}
		if ok && !covered(path) {
			// A file of credentials that guard knows one of may hold others.
			if ofCredentials {
				f.Content = c.onlyKnown(name, f.Content)
			}
			out.files, shown[path] = append(out.files, f), true
		}
	}
	for _, name := range hiddenInHome {
		path := filepath.Join(home, name)
		if shown[filepath.Join(home, kubeConfig)] && name == filepath.Dir(kubeConfig) && !covered(path) {
			hidden = append(hidden, allBut(path, filepath.Base(kubeConfig))...)
			continue
		}
		if _, err := os.Lstat(path); err == nil && !shown[path] && !covered(path) {
			hidden = append(hidden, path)
		}
	}
	skip := slices.Clone(hidden)
	for _, b := range bulky {
		skip = append(skip, filepath.Join(home, b))
	}
	skip = append(skip, shared...)
	more, err := c.walk(home, homeDepth, skip, func(path string, d fs.DirEntry) bool {
		return !shown[path] && !covered(path) && !slices.Contains(hidden, path) && telling(d.Name())
	})
	out.files = append(out.files, more.files...)
	return out, hidden, err
}

// kubeConfig is the one file of a hidden folder that may be shown.
const kubeConfig = ".kube/config"

// allBut are the entries of dir except one.
func allBut(dir, one string) (paths []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return []string{dir}
	}
	for _, e := range entries {
		if e.Name() != one {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths
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
