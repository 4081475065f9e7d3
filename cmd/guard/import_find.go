package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// importFormats are the formats that guard import reads, as --from names them.
var importFormats = []string{"dotenv", "aws", "netrc", "npmrc", "docker", "gh", "kube", "pypirc", "pip", "git", "gcloud", "ssh", "shell"}

// importHome are the places in the home folder that guard import looks at by
// itself. They are the user's own: what they say about hosts is the user's word.
// Of ~/.ssh see ownKeys.
var importHome = []struct{ path, format string }{
	{".env", "dotenv"},
	{".aws/credentials", "aws"}, {".aws/config", "aws"},
	{".netrc", "netrc"},
	{".npmrc", "npmrc"},
	{".docker/config.json", "docker"}, {".config/containers/auth.json", "docker"},
	{".config/gh/hosts.yml", "gh"},
	{".kube/config", "kube"},
	{".pypirc", "pypirc"},
	{".config/pip/pip.conf", "pip"}, {".pip/pip.conf", "pip"},
	{".git-credentials", "git"}, {".config/git/credentials", "git"},
	{".config/gcloud/application_default_credentials.json", "gcloud"},
	{".bashrc", "shell"}, {".bash_profile", "shell"}, {".profile", "shell"}, {".zshrc", "shell"}, {".zshenv", "shell"}, {".zprofile", "shell"},
	{".envrc", "shell"}, {".config/fish/config.fish", "shell"},
}

const (
	importMax   = 1 << 20 // bytes of a file
	importDepth = 8
	importTree  = 50000 // entries of a folder that are looked at
)

// importFile is one file that was read.
type importFile struct {
	path   string // canonical
	format string
	own    bool // one of the user's own in $HOME
	data   []byte
	info   fs.FileInfo
}

// skippedFile was not read.
type skippedFile struct{ path, why string }

// importFinder collects files.
type importFinder struct {
	home    string
	only    string // --from
	files   []*importFile
	skipped []skippedFile
	left    int
}

// importFiles reads the files of PATH..., or the well-known ones.
func (a *app) importFiles(paths []string, from string) ([]*importFile, []skippedFile, error) {
	fd := &importFinder{home: a.userHome(), only: from, left: importTree}
	if len(paths) == 0 {
		dir, err := workingFolder()
		if err != nil {
			return nil, nil, err
		}
		for _, w := range importHome {
			if fd.home == "" {
				break
			}
			fd.take(filepath.Join(fd.home, w.path), w.format, false)
		}
		for _, p := range sshKeyFiles(fd.home) {
			fd.take(p, "ssh", false)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, nil, fmt.Errorf("look for .env files: %w", err)
		}
		for _, e := range entries {
			if importFormat(filepath.Join(dir, e.Name())) == "dotenv" {
				fd.take(filepath.Join(dir, e.Name()), "dotenv", false)
			}
		}
		return fd.files, fd.skipped, nil
	}
	for _, p := range paths {
		abs, err := filepath.Abs(p)
		if err != nil {
			return nil, nil, err
		}
		// What leads to it is the user's word; the last link is judged below.
		dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
		if err != nil {
			return nil, nil, fmt.Errorf("import %s: %w", oneWord(p), plainError(err))
		}
		abs = filepath.Join(dir, filepath.Base(abs))
		fi, err := os.Stat(abs)
		if err != nil {
			return nil, nil, fmt.Errorf("import %s: %w", oneWord(p), plainError(err))
		}
		if fi.IsDir() {
			if abs, err = filepath.EvalSymlinks(abs); err != nil {
				return nil, nil, fmt.Errorf("import %s: %w", oneWord(p), plainError(err))
			}
			fd.tree(abs)
			continue
		}
		before := len(fd.files) + len(fd.skipped)
		fd.take(abs, from, true)
		if len(fd.files)+len(fd.skipped) == before {
			return nil, nil, fmt.Errorf("import %s: its name and content are of no format that guard knows: say it with --from", oneWord(p))
		}
	}
	return fd.files, fd.skipped, nil
}

// tree looks through a folder for files that are named as credentials' files are.
func (fd *importFinder) tree(root string) {
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			fd.skip(path, "it cannot be read")
			return nil
		}
		if fd.left--; fd.left < 0 {
			fd.skip(root, fmt.Sprintf("more than %d entries: name the files themselves", importTree))
			return fs.SkipAll
		}
		if d.IsDir() {
			deep := strings.Count(strings.TrimPrefix(path, root), string(filepath.Separator)) > importDepth
			if path != root && (deep || d.Name() == ".git" || slices.Contains(bulky, d.Name())) {
				return fs.SkipDir
			}
			return nil
		}
		if format := importFormat(path); format != "" {
			fd.take(path, format, false)
		} else if filepath.Ext(path) == ".json" && d.Type().IsRegular() {
			fd.take(path, "", false) // a service account's key has any name
		}
		return nil
	})
	if err != nil {
		fd.skip(root, "it cannot be read")
	}
}

func (fd *importFinder) skip(path, why string) {
	fd.skipped = append(fd.skipped, skippedFile{path, why})
}

// take reads one file. Without a format its content says what it is; what is none
// of guard's formats is left out, with words where it is named or the user named it.
func (fd *importFinder) take(path, format string, named bool) {
	lfi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if format == "" {
		format = importFormat(path)
	}
	if format != "" && fd.only != "" && fd.only != format && !named {
		return
	}
	say := func(why string) {
		if named || format != "" {
			fd.skip(path, why)
		}
	}
	if err == nil && lfi.Mode()&fs.ModeSymlink != 0 {
		real, rerr := filepath.EvalSymlinks(path)
		if rerr != nil || fd.home == "" || !within(real, fd.home) {
			say("a link that leads out of your home folder is not followed")
			return
		}
		path = real
	}
	if slices.ContainsFunc(fd.files, func(f *importFile) bool { return f.path == path }) {
		return
	}
	data, fi, why := readImport(path)
	if why != "" {
		say(why)
		return
	}
	if format == "" {
		if format = formatOfContent(data); format == "" || fd.only != "" && fd.only != format {
			clear(data)
			return
		}
	}
	if named && fd.only != "" {
		format = fd.only
	}
	fd.files = append(fd.files, &importFile{path: path, format: format, own: fd.isOwn(path), data: data, info: fi})
}

// readImport reads a regular text file without waiting for it, or says why not.
func readImport(path string) ([]byte, fs.FileInfo, string) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, "it cannot be read"
	}
	defer f.Close()
	fi, err := f.Stat()
	lfi, lerr := os.Lstat(path)
	switch {
	case err != nil || lerr != nil:
		return nil, nil, "it cannot be read"
	case !fi.Mode().IsRegular():
		return nil, nil, "it is no regular file"
	case !os.SameFile(fi, lfi):
		return nil, nil, "it was replaced while it was opened"
	case fi.Size() > importMax:
		return nil, nil, fmt.Sprintf("larger than %d KiB", importMax>>10)
	}
	b, more, err := drain(f, importMax)
	switch {
	case err != nil:
		return nil, nil, "it cannot be read"
	case more:
		return nil, nil, fmt.Sprintf("larger than %d KiB", importMax>>10)
	case bytes.IndexByte(b, 0) >= 0:
		clear(b)
		return nil, nil, "it is no text"
	}
	return b, fi, ""
}

// isOwn says that path is one of the well-known files of the user's own.
func (fd *importFinder) isOwn(path string) bool {
	if fd.home == "" {
		return false
	}
	for _, w := range importHome {
		if p, err := filepath.EvalSymlinks(filepath.Join(fd.home, w.path)); err == nil && p == path {
			return true
		}
	}
	return filepath.Dir(path) == filepath.Join(fd.home, ".ssh")
}

// sshKeyFiles are the files of ~/.ssh that may be private keys.
func sshKeyFiles(home string) (out []string) {
	for _, p := range sshHidden(home) {
		if b, _, why := readImport(p); why == "" && formatOfContent(b) == "ssh" {
			clear(b)
			out = append(out, p)
		}
	}
	return out
}

// importFormat tells a file's format by its name; "" for any other.
func importFormat(path string) string {
	base, dir := filepath.Base(path), filepath.Base(filepath.Dir(path))
	switch {
	case base == ".envrc", slices.Contains([]string{".bashrc", ".bash_profile", ".profile", ".zshrc", ".zshenv", ".zprofile", "config.fish"}, base):
		return "shell"
	case base == ".env", strings.HasPrefix(base, ".env."), strings.HasSuffix(base, ".env"):
		if slices.Contains([]string{".example", ".sample", ".template", ".dist"}, filepath.Ext(base)) {
			return ""
		}
		return "dotenv"
	case dir == ".aws" && (base == "credentials" || base == "config"):
		return "aws"
	case base == ".netrc", base == "_netrc":
		return "netrc"
	case base == ".npmrc":
		return "npmrc"
	case base == ".dockercfg", dir == ".docker" && base == "config.json", dir == "containers" && base == "auth.json":
		return "docker"
	case dir == "gh" && base == "hosts.yml":
		return "gh"
	case dir == ".kube" && base == "config", strings.HasPrefix(base, "kubeconfig"):
		return "kube"
	case base == ".pypirc":
		return "pypirc"
	case base == "pip.conf", base == "pip.ini":
		return "pip"
	case base == ".git-credentials", dir == "git" && base == "credentials":
		return "git"
	case base == "application_default_credentials.json":
		return "gcloud"
	case strings.HasPrefix(base, "id_") && filepath.Ext(base) == "":
		return "ssh"
	}
	return ""
}

// formatOfContent tells the two formats whose files have any name.
func formatOfContent(b []byte) string {
	t := bytes.TrimSpace(b)
	first, _, _ := bytes.Cut(t, []byte("\n"))
	switch {
	case bytes.HasPrefix(first, []byte("-----BEGIN ")) && bytes.HasSuffix(bytes.TrimSpace(first), []byte("PRIVATE KEY-----")):
		return "ssh"
	case bytes.HasPrefix(t, []byte("{")) && (bytes.Contains(t, []byte(`"private_key"`)) && bytes.Contains(t, []byte(`"service_account"`)) || bytes.Contains(t, []byte(`"authorized_user"`))):
		return "gcloud"
	}
	return ""
}
