package scan

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// objectID is the name of an object, as bytes.
type objectID string

func (id objectID) String() string { return hex.EncodeToString([]byte(id)) }

func parseID(s string) (objectID, bool) {
	if len(s) != 40 && len(s) != 64 {
		return "", false
	}
	b, err := hex.DecodeString(s)
	return objectID(b), err == nil
}

var sha256Format = regexp.MustCompile(`(?im)^\s*objectformat\s*=\s*"?sha256`)

// store is a git folder of guard's own that borrows the objects of a repository.
// git run with it reads neither the repository's configuration, hooks and
// attributes nor the user's, so nothing can make it run a program, and a
// repository that is another user's is no reason to refuse.
type store struct {
	repo *repo
	git  string // the program
	dir  string // the folder, removed by close
	env  []string
}

func openStore(r *repo) (_ *store, err error) {
	st := &store{repo: r}
	if st.git, err = exec.LookPath("git"); err != nil {
		return nil, fmt.Errorf("a history is read with git: %w", err)
	}
	objects, err := filepath.Abs(filepath.Join(r.common, "objects"))
	if err != nil {
		return nil, err
	}
	if st.dir, err = os.MkdirTemp("", "guard-scan-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			st.close()
		}
	}()
	config := "[core]\n\trepositoryformatversion = 0\n\tbare = true\n"
	if r.hashWidth() == 32 {
		config = "[core]\n\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tobjectformat = sha256\n"
	}
	files := map[string]string{"HEAD": "ref: refs/heads/main\n", "config": config}
	if b, err := readLimited(filepath.Join(r.common, "shallow"), 64<<20); err == nil {
		files["shallow"] = string(b)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(st.dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	if err := os.Mkdir(filepath.Join(st.dir, "refs"), 0o700); err != nil {
		return nil, err
	}
	st.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + st.dir, "XDG_CONFIG_HOME=" + st.dir, "LC_ALL=C", "TZ=UTC",
		"GIT_DIR=" + st.dir, "GIT_OBJECT_DIRECTORY=" + objects, "GIT_CONFIG_NOSYSTEM=1",
		"GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_CONFIG_SYSTEM=" + os.DevNull, "GIT_ATTR_NOSYSTEM=1",
		"GIT_NO_REPLACE_OBJECTS=1", "GIT_NO_LAZY_FETCH=1", "GIT_ALLOW_PROTOCOL=none", "GIT_PROTOCOL_FROM_USER=0",
		"GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0", "GIT_PAGER=cat",
	}
	return st, nil
}

func (st *store) close() { _ = os.RemoveAll(st.dir) }

// command is git with arguments of guard's own choice.
func (st *store) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, st.git, append([]string{
		"--no-pager", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=" + os.DevNull, "-c", "protocol.allow=never",
		"-c", "core.commitGraph=false", "-c", "gc.auto=0",
	}, args...)...)
	cmd.Dir, cmd.Env = st.dir, st.env
	return cmd
}

// userGitEnv is the environment for asking git about the user's own settings.
func userGitEnv() []string {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case !strings.HasPrefix(name, "GIT_"), name == "GIT_CONFIG_GLOBAL", name == "GIT_CONFIG_SYSTEM", name == "GIT_CONFIG_NOSYSTEM":
			env = append(env, kv)
		}
	}
	return append(env, "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0")
}

// object is a line of what cat-file says there is.
type object struct {
	id   objectID
	kind string
	size int64
}

// known leaves only those in ids that are there.
func (st *store) known(ctx context.Context, ids map[objectID]bool) error {
	there := map[objectID]bool{}
	cmd := st.command(ctx, "cat-file", "--batch-check=%(objectname) %(objecttype) %(objectsize)")
	err := piped(cmd, idLines(ids, ""), func(r *bufio.Reader) error {
		for {
			line, err := r.ReadSlice('\n')
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if o, ok := parseObject(line); ok {
				there[o.id] = true
			}
		}
	})
	for id := range ids {
		if !there[id] {
			delete(ids, id)
		}
	}
	return err
}

func idLines(ids map[objectID]bool, before string) []byte {
	var b bytes.Buffer
	for id := range ids {
		b.WriteString(before + id.String() + "\n")
	}
	return b.Bytes()
}

// list calls each for every object, in the order of the packs.
func (st *store) list(ctx context.Context, each func(object) error) error {
	cmd := st.command(ctx, "cat-file", "--batch-all-objects", "--unordered", "--batch-check=%(objectname) %(objecttype) %(objectsize)")
	return piped(cmd, nil, func(r *bufio.Reader) error {
		for {
			line, err := r.ReadSlice('\n')
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			o, ok := parseObject(line)
			if !ok {
				continue // what read says when it is asked for
			}
			if err := each(o); err != nil {
				return err
			}
		}
	})
}

func parseObject(line []byte) (o object, ok bool) {
	f := bytes.Fields(line)
	if len(f) != 3 {
		return o, false
	}
	if o.id, ok = parseID(string(f[0])); !ok {
		return o, false
	}
	switch string(f[1]) {
	case "blob":
		o.kind = "blob"
	case "commit":
		o.kind = "commit"
	case "tree":
		o.kind = "tree"
	case "tag":
		o.kind = "tag"
	default:
		return o, false
	}
	for _, c := range f[2] {
		if c < '0' || c > '9' || o.size > 1<<50 {
			return o, false
		}
		o.size = o.size*10 + int64(c-'0')
	}
	return o, true
}

// piped runs cmd, writes its input and hands its output on. An error of read ends
// cmd and is returned; else it is cmd's, with what it said.
func piped(cmd *exec.Cmd, input []byte, read func(*bufio.Reader) error) error {
	if input != nil {
		cmd.Stdin = bytes.NewReader(input)
	}
	var said limitedBuffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	widen(out)
	rerr := read(bufio.NewReaderSize(out, 256<<10))
	if rerr != nil {
		_ = cmd.Process.Kill()
	}
	// git may have more to say than was read.
	_, _ = io.Copy(io.Discard, out)
	werr := cmd.Wait()
	if rerr != nil {
		return rerr
	}
	if werr != nil {
		return fmt.Errorf("git: %w: %s", werr, said.firstLine())
	}
	return nil
}

// limitedBuffer keeps the first of what is written.
type limitedBuffer struct{ b []byte }

func (l *limitedBuffer) Write(p []byte) (int, error) {
	l.b = append(l.b, p[:min(len(p), 4096-len(l.b))]...)
	return len(p), nil
}

func (l *limitedBuffer) firstLine() string {
	line, _, _ := strings.Cut(string(l.b), "\n")
	return line
}

// tips are the objects that a repository's names lead to.
type tips struct{ refs, logs map[objectID]bool }

// tips reads refs and reflogs of all working trees, from their files. all is
// false where there are others, in a form that guard does not read.
func (r *repo) tips() (t tips, all bool) {
	t = tips{refs: map[objectID]bool{}, logs: map[objectID]bool{}}
	gits := []string{r.common}
	if r.gitDir != r.common {
		gits = append(gits, r.gitDir)
	}
	if trees, err := os.ReadDir(filepath.Join(r.common, "worktrees")); err == nil {
		for _, e := range trees {
			gits = append(gits, filepath.Join(r.common, "worktrees", e.Name()))
		}
	}
	all = true
	if _, err := os.Lstat(filepath.Join(r.common, "reftable")); err == nil {
		all = false
	}
	addRef := func(b []byte) {
		for line := range bytes.Lines(b) {
			if f := bytes.Fields(line); len(f) > 0 {
				if id, ok := parseID(strings.TrimPrefix(string(f[0]), "^")); ok { // "^": what a tag of packed-refs is of
					t.refs[id] = true
				}
			}
		}
	}
	addLog := func(b []byte) {
		for line := range bytes.Lines(b) {
			f := bytes.Fields(line)
			for _, w := range f[:min(2, len(f))] {
				if id, ok := parseID(string(w)); ok {
					t.logs[id] = true
				}
			}
		}
	}
	read := func(path string, add func([]byte)) {
		b, err := readLimited(path, 1<<30)
		if err != nil {
			all = false
		}
		add(b)
	}
	for _, git := range gits {
		if entries, err := os.ReadDir(git); err == nil {
			for _, e := range entries {
				switch name := e.Name(); {
				case !e.Type().IsRegular():
				case name == "packed-refs", name == "HEAD":
					read(filepath.Join(git, name), addRef)
				case strings.HasSuffix(name, "HEAD"): // ORIG_HEAD and its like: what was, or is to be
					read(filepath.Join(git, name), addLog)
				}
			}
		}
		for sub, add := range map[string]func([]byte){"refs": addRef, "logs": addLog} {
			_ = filepath.WalkDir(filepath.Join(git, sub), func(path string, e fs.DirEntry, err error) error {
				if err != nil {
					all = all && errors.Is(err, fs.ErrNotExist)
				} else if e.Type().IsRegular() {
					read(path, add)
				}
				return nil
			})
		}
	}
	for id := range t.refs {
		delete(t.logs, id)
	}
	return t, all
}
