package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"golang.org/x/term"

	"guard/policy"
)

// A project's guard.toml only takes away, and so holds in every session whether or not
// anybody approved it. It is asked about all the same: it says what the project wants to
// be allowed, and what it stops may be what the user relies on. What was approved is
// kept sealed in guard's own folder, with its text, so that a change is shown as one.

// project is a guard.toml as it was when it was approved.
type project struct {
	Text string    `json:"text"`
	At   time.Time `json:"at"`

	unapproved string // why nobody approved it; "": somebody did, or there is none
	asked      bool   // the user was asked, and approved it
}

// typeProject is the record of a project's file that is new or changed.
const typeProject = "policy.project"

func (a *app) projectsPath() string { return filepath.Join(a.home(), "projects") }

func (a *app) readProjects(v sealer) (map[string]project, error) {
	out := map[string]project{}
	return out, readSealed(v, a.projectsPath(), "projects", &out)
}

func (a *app) keepProject(v sealer, path, text string) error {
	all, err := a.readProjects(v)
	if err != nil { // somebody else's hand: what it says was approved is asked about again
		all = map[string]project{}
	}
	all[path] = project{Text: text, At: time.Now().UTC()}
	return writeSealed(v, a.projectsPath(), "projects", all)
}

const maxProjectFile = 1 << 20 // bytes, as package policy has it

// readProject reads a project's file, without following what is no regular file.
func readProject(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file", filepath.Base(path))
	}
	b, err := io.ReadAll(io.LimitReader(f, maxProjectFile+1))
	if err == nil && len(b) > maxProjectFile {
		err = fmt.Errorf("%s is larger than 1 MiB", filepath.Base(path))
	}
	return string(b), err
}

func textHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// approveProject asks about a guard.toml that is new or was changed since it was
// approved, where there is somebody to ask, before the agent starts. Otherwise it says
// and records that nobody approved it; it narrows the session either way.
func (s *session) approveProject(path string) error {
	if path == "" {
		return nil
	}
	text, err := readProject(path)
	if err != nil {
		return err
	}
	s.repo.Text = text
	known, err := s.app.readProjects(s.vault)
	if err != nil {
		s.app.say("%v", err)
		known = nil
	}
	old, approved := known[path]
	if approved && old.Text == text {
		return nil
	}
	what := "new"
	if approved {
		what = "changed since you approved it"
	}
	s.repo.unapproved = what
	if !s.flags.asks || s.info.Profile == "daemon" || !terminal(s.app.stdin) || !terminal(s.app.stderr) {
		s.app.say("%s is %s; it holds, and can only take away from what you allow. guard policy approve shows it", filepath.Base(path), what)
		return nil
	}
	tty, err := openTTY()
	if err != nil {
		return nil
	}
	fmt.Fprintf(tty, "guard: %s is %s. It can only take away from what you allow:\n%s", path, what, difference(old.Text, text))
	tty.Close()
	ok, err := confirm("guard: run with it, and remember that?")
	if err != nil {
		return err
	}
	if !ok {
		return exitError{125, fmt.Errorf("%s was not approved: nothing was run", path)}
	}
	s.repo.unapproved, s.repo.asked = "", true
	if err := s.app.keepProject(s.vault, path, text); err != nil {
		return fmt.Errorf("remember what you approved: %w", err)
	}
	return nil
}

func terminal(f *os.File) bool { return f != nil && term.IsTerminal(int(f.Fd())) }

// recordProject writes what was found and decided about the project's file.
func (s *session) recordProject() error {
	if s.repo.unapproved == "" && !s.repo.asked {
		return nil
	}
	r := s.record(typeProject)
	r.Path, r.Reason, r.Result = findRepoFile(s.dir, s.home), s.repo.unapproved, "approved"
	if s.repo.unapproved != "" {
		r.Result = "applied, not approved"
	}
	_, err := s.append(r)
	return err
}

// projectEvery is how soon a change of the project's file is noticed.
const projectEvery = 250 * time.Millisecond

// watchProject reports what becomes of the project's file while the session runs, which
// changes nothing in it.
func (s *session) watchProject(ctx context.Context) error {
	tick := time.NewTicker(projectEvery)
	defer tick.Stop()
	seen := textHash(s.repo.Text)
	var before fs.FileInfo
	for done := false; !done; {
		select {
		case <-ctx.Done():
			done = true // what the agent did last
		case <-tick.C:
		}
		path := findRepoFile(s.dir, s.home)
		fi, err := os.Stat(path)
		if err == nil && before != nil && os.SameFile(fi, before) && fi.ModTime().Equal(before.ModTime()) && fi.Size() == before.Size() {
			continue
		}
		before = fi
		text := ""
		if path != "" {
			if text, err = readProject(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				text = "unreadable: " + err.Error()
			}
		}
		now := textHash(text)
		if now == seen {
			continue
		}
		seen = now
		r := s.record(typeProject)
		r.Path, r.Result, r.Reason = path, "not applied", "changed during the session"
		if path == "" {
			r.Path, r.Reason = filepath.Join(s.dir, "guard.toml"), "removed during the session"
		}
		if now == textHash(s.repo.Text) {
			r.Reason = "changed back during the session"
		}
		if _, err := s.append(r); err != nil {
			return err
		}
		s.app.say("guard.toml was %s: nothing of it holds before the next session, which asks about it", strings.TrimSuffix(r.Reason, " during the session")+" while the agent runs")
	}
	return nil
}

const (
	maxShown    = 200  // lines of a difference
	maxCompared = 2000 // lines of a side; what is longer is shown as it is now
	maxWide     = 200  // bytes of a line
)

// difference shows what changed from one text to another, line by line, in characters
// that a terminal prints and does not act on.
func difference(old, new string) string {
	a, b := splitLines(old), splitLines(new)
	var out []string
	if len(a) > maxCompared || len(b) > maxCompared {
		a = nil
	}
	if len(b) <= maxCompared {
		// The longest common lines (dynamic programming: at most 4 million steps).
		common := make([][]int, len(a)+1)
		for i := range common {
			common[i] = make([]int, len(b)+1)
		}
		for i := len(a) - 1; i >= 0; i-- {
			for j := len(b) - 1; j >= 0; j-- {
				if a[i] == b[j] {
					common[i][j] = common[i+1][j+1] + 1
				} else {
					common[i][j] = max(common[i+1][j], common[i][j+1])
				}
			}
		}
		i, j := 0, 0
		for i < len(a) || j < len(b) {
			switch {
			case i < len(a) && j < len(b) && a[i] == b[j]:
				out = append(out, "    "+shown(a[i]))
				i, j = i+1, j+1
			case j < len(b) && (i == len(a) || common[i][j+1] > common[i+1][j]):
				out = append(out, "  + "+shown(b[j]))
				j++
			default:
				out = append(out, "  - "+shown(a[i]))
				i++
			}
		}
	} else {
		for _, l := range b {
			out = append(out, "  + "+shown(l))
		}
	}
	if len(out) > maxShown {
		out = append(out[:maxShown], fmt.Sprintf("  ... and %d lines more", len(out)-maxShown))
	}
	return strings.Join(out, "\n") + "\n"
}

func splitLines(s string) []string {
	s = strings.TrimSuffix(s, "\n")
	if s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}

// shown is a line as a terminal may have it: no controls, no marks that turn text around
// or cannot be seen, nothing that wraps.
func shown(l string) string {
	var b strings.Builder
	for _, r := range l {
		switch {
		case r == '\t':
			b.WriteString("    ")
		case r == ' ' || r < 0x7f && unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		if b.Len() > maxWide {
			b.WriteString("...")
			break
		}
	}
	return b.String()
}

// approvePolicy is guard policy approve: it shows a guard.toml and remembers that the
// user approved it.
func (a *app) approvePolicy(path string, yes bool) error {
	if err := a.outside("guard policy approve"); err != nil {
		return err
	}
	text, err := readProject(path)
	if err != nil {
		return err
	}
	if problems := policy.Check(path); len(problems) > 0 {
		return fmt.Errorf("%w: it would not be read at all", problems[0])
	}
	v, err := a.openVault()
	if err != nil {
		return err
	}
	defer v.Close()
	known, err := a.readProjects(v)
	if err != nil {
		a.say("%v; what was approved before is forgotten", err)
		known = nil
	}
	old, was := known[path]
	if was && old.Text == text {
		a.say("%s is as you approved it", path)
		return nil
	}
	fmt.Fprint(a.stdout, difference(old.Text, text))
	if !yes {
		if yes, err = confirm("guard: approve it as it is now?"); err != nil {
			return err
		}
	}
	if !yes {
		return errors.New("not approved")
	}
	return a.keepProject(v, path, text)
}
