package scan

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// repo is a git repository that a folder lies in.
type repo struct {
	top     string // its working tree, absolute
	gitDir  string // where HEAD and index are
	common  string // where refs, objects and info are: the same but for a linked worktree
	fold    bool   // core.ignoreCase
	tracked map[string]bool
	folders map[string]bool     // that hold something tracked, "a/b" for "a/b/c"
	paths   map[objectID]string // what the index names; "" where only a split index's other half says
	err     error               // of reading the index
}

// enclosing finds the repository whose working tree dir is in; nil if there is none.
func enclosing(dir string) *repo {
	for {
		if r := openRepo(dir); r != nil {
			return r
		}
		up := filepath.Dir(dir)
		if up == dir {
			return nil
		}
		dir = up
	}
}

// openRepo is the repository whose working tree begins at dir.
func openRepo(dir string) *repo {
	git := gitDirOf(filepath.Join(dir, ".git"))
	if git == "" {
		return nil
	}
	return &repo{top: dir, gitDir: git, common: commonDir(git)}
}

// gitDirOf follows what a linked worktree and a submodule have as .git: a file
// that names the folder. It returns "" where that is no repository.
func gitDirOf(path string) string {
	fi, err := os.Lstat(path)
	if err == nil && fi.Mode().IsRegular() {
		b, err := readLimited(path, 8<<10)
		to, ok := bytes.CutPrefix(bytes.TrimSpace(b), []byte("gitdir: "))
		if err != nil || !ok {
			return ""
		}
		if p := string(to); filepath.IsAbs(p) {
			path = p
		} else {
			path = filepath.Join(filepath.Dir(path), p)
		}
	}
	if isGitDir(path) {
		return path
	}
	return ""
}

func isGitDir(path string) bool {
	common := commonDir(path)
	for _, p := range []string{filepath.Join(path, "HEAD"), filepath.Join(common, "objects"), filepath.Join(common, "refs")} {
		if _, err := os.Lstat(p); err != nil {
			return false
		}
	}
	return true
}

func commonDir(git string) string {
	b, err := readLimited(filepath.Join(git, "commondir"), 8<<10)
	if err != nil {
		return git
	}
	if p := string(bytes.TrimSpace(b)); filepath.IsAbs(p) {
		return p
	} else {
		return filepath.Join(git, p)
	}
}

const maxIgnoreFile = 8 << 20

// baseRules are the ignore rules of all of r: info/exclude, and below it the
// user's own file.
func (r *repo) baseRules(ctx context.Context) *rules {
	file, fold := gitSettings(ctx, r.top)
	r.fold = fold
	var low *rules
	if b, err := readLimited(file, maxIgnoreFile); err == nil {
		low = &rules{patterns: parseIgnore(b)}
	}
	if b, err := readLimited(filepath.Join(r.common, "info", "exclude"), maxIgnoreFile); err == nil {
		low = &rules{patterns: parseIgnore(b), next: low}
	}
	return low
}

// gitSettings asks git for core.excludesFile and core.ignoreCase, which may stand
// in any of several files that include each other. Asking runs nothing of the
// repository's.
func gitSettings(ctx context.Context, dir string) (excludes string, fold bool) {
	home, _ := os.UserHomeDir()
	config := os.Getenv("XDG_CONFIG_HOME")
	if config == "" {
		config = filepath.Join(home, ".config")
	}
	excludes = filepath.Join(config, "git", "ignore")
	cmd := exec.CommandContext(ctx, "git", "-C", dir, "config", "--null", "--get-regexp", `^core\.(excludesfile|ignorecase)$`)
	cmd.Env = userGitEnv()
	out, err := cmd.Output()
	if err != nil {
		return excludes, false
	}
	for kv := range strings.SplitSeq(string(out), "\x00") {
		name, value, valued := strings.Cut(kv, "\n")
		switch strings.ToLower(name) {
		case "core.excludesfile":
			if rest, ok := strings.CutPrefix(value, "~/"); ok {
				value = filepath.Join(home, rest)
			} else if value != "" && !filepath.IsAbs(value) {
				value = filepath.Join(dir, value)
			}
			excludes = value
		case "core.ignorecase":
			switch strings.ToLower(value) {
			case "", "true", "yes", "on", "1":
				fold = !valued || value != ""
			default:
				fold = false
			}
		}
	}
	return excludes, fold
}

// readLimited reads a regular file of at most limit bytes; links are not followed,
// as git does not for ignore files.
func readLimited(path string, limit int64) ([]byte, error) {
	if path == "" {
		return nil, fs.ErrNotExist
	}
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return b, err
}

// loadIndex reads which files are tracked, once: these are never ignored.
func (r *repo) loadIndex() error {
	if r.tracked == nil {
		r.tracked, r.folders, r.paths = map[string]bool{}, map[string]bool{}, map[objectID]string{}
		r.err = r.readIndex()
	}
	return r.err
}

func (r *repo) readIndex() error {
	b, err := readLimited(filepath.Join(r.gitDir, "index"), 2<<30)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	width := r.hashWidth()
	shared, err := parseIndex(b, width, r.track)
	if err != nil || shared == "" {
		return err
	}
	// A split index names the file that has the rest. What was removed since is
	// still in it: a file too many is looked into, none too few.
	if b, err = readLimited(filepath.Join(r.gitDir, "sharedindex."+shared), 2<<30); err != nil {
		return err
	}
	_, err = parseIndex(b, width, r.track)
	return err
}

func (r *repo) track(path string, id []byte) {
	if r.paths[objectID(id)] == "" {
		r.paths[objectID(id)] = path
	}
	if path == "" {
		return // a changed entry of a split index: the shared one has the name
	}
	r.tracked[path] = true
	for i := strings.LastIndexByte(path, '/'); i > 0; i = strings.LastIndexByte(path[:i], '/') {
		if r.folders[path[:i]] {
			break
		}
		r.folders[path[:i]] = true
	}
}

// hashWidth is how many bytes an object's name has: 20, or 32 where the
// configuration says so.
func (r *repo) hashWidth() int {
	b, err := readLimited(filepath.Join(r.common, "config"), 1<<20)
	if err == nil && sha256Format.Match(b) {
		return 32
	}
	return 20
}

var errIndex = errors.New("the index is damaged or of a form that guard does not know")

// parseIndex calls each for every entry of an index of version 2, 3 or 4
// (gitformat-index(5)), and returns the name of the shared index if it is split.
func parseIndex(b []byte, width int, each func(path string, id []byte)) (shared string, err error) {
	if len(b) < 12+width || string(b[:4]) != "DIRC" {
		return "", errIndex
	}
	version, n := binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	if version < 2 || version > 4 {
		return "", errIndex
	}
	b = b[:len(b)-width]
	at, name := 12, ""
	for range n {
		from, head := at, 40+width+2
		if len(b)-at < head {
			return "", errIndex
		}
		id := b[at+40 : at+40+width]
		if version >= 3 && b[at+40+width]&0x40 != 0 {
			head += 2
		}
		at += head
		if version == 4 {
			drop, used := offsetVarint(b[min(at, len(b)):])
			if used == 0 || drop > len(name) {
				return "", errIndex
			}
			at += used
			name = name[:len(name)-drop]
		} else {
			name = ""
		}
		end := bytes.IndexByte(b[min(at, len(b)):], 0)
		if end < 0 {
			return "", errIndex
		}
		name += string(b[at : at+end])
		at += end + 1
		if version < 4 {
			at = from + (at-1-from+8)&^7
		}
		each(name, id)
	}
	for len(b)-at >= 8 {
		kind, size := string(b[at:at+4]), int(binary.BigEndian.Uint32(b[at+4:]))
		at += 8
		if size > len(b)-at {
			return "", errIndex
		}
		if kind == "link" && size >= width && !bytes.Equal(b[at:at+width], make([]byte, width)) {
			shared = fmt.Sprintf("%x", b[at:at+width])
		}
		at += size
	}
	return shared, nil
}

// offsetVarint reads a number as packs and indexes encode offsets.
func offsetVarint(b []byte) (v, used int) {
	for i, c := range b {
		if i > 8 {
			break
		}
		v = v<<7 | int(c&0x7f)
		if c&0x80 == 0 {
			return v, i + 1
		}
		v++
	}
	return 0, 0
}
