package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"guard"
	"guard/matcher"
)

var scanCommand = command{
	name: "scan", args: "[PATH...|-] [--json]", short: "find known values in files or standard input",
	example: "guard scan .\nmake 2>&1 | guard scan -",
	exits:   ", 3 found something", run: runScan,
}

// finding is what `guard scan --json` prints: never the value.
type finding struct {
	File        string `json:"file"`
	Line        int    `json:"line"`
	Column      int    `json:"column"`
	Credential  string `json:"credential"`
	Context     string `json:"context"`
	Version     int    `json:"version"`
	Class       string `json:"class"`
	Encoding    string `json:"encoding"`
	Confidence  string `json:"confidence"`
	Fingerprint string `json:"fingerprint"`
}

func runScan(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	asJSON := f.Bool("json", false, "one JSON object a finding")
	git := f.Bool("git", false, "also look through a repository's history (not built yet: refused)")
	if err := parse(f, args); err != nil {
		return err
	}
	if *git {
		return usagef("--git is not built yet: scan a checkout, or pipe `git log -p --all` into guard scan -")
	}
	paths := f.Args()
	if len(paths) == 0 {
		paths = []string{"."}
	}
	v, err := a.openVault()
	if err != nil {
		return err
	}
	defer v.Close()
	values, err := v.Values("")
	if err != nil {
		return err
	}
	values = slices.DeleteFunc(values, func(v guard.Value) bool { return v.Class >= guard.Placeholder })
	if len(values) == 0 {
		return errors.New("the vault holds no value to look for: guard secret set NAME")
	}
	key, err := v.Key("fingerprint")
	if err != nil {
		return err
	}
	defer key.Wipe()
	prints := map[guard.SecretID]string{}
	for _, val := range values {
		prints[val.ID] = val.Secret.Fingerprint(key.Reveal())
	}
	m, err := matcher.New(values)
	if err != nil {
		return err
	}
	defer m.Close()
	s := &scanner{app: a, m: m, prints: prints, json: *asJSON}
	for _, p := range paths {
		if p == "-" {
			err = s.stream("-", a.stdin)
		} else {
			err = s.path(p)
		}
		if err != nil {
			return err
		}
	}
	if s.unread > 0 {
		a.say("%d files could not be read", s.unread)
	}
	if s.found > 0 {
		return exitError{code: 3}
	}
	return nil
}

type scanner struct {
	app           *app
	m             *matcher.Matcher
	prints        map[guard.SecretID]string
	json          bool
	found, unread int
}

func (s *scanner) path(root string) error {
	if _, err := os.Lstat(root); err != nil {
		return err
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			s.unread++
			return nil
		}
		if d.IsDir() || !d.Type().IsRegular() {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			s.unread++
			return nil
		}
		defer f.Close()
		return s.stream(path, f)
	})
}

// stream looks through r, and counts lines as it goes.
func (s *scanner) stream(name string, r io.Reader) error {
	st := s.m.Stream()
	var lines lineCounter
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		lines.add(buf[:n])
		hits, safe := st.Write(buf[:n])
		if err != nil {
			hits = append(hits, st.Close()...)
		}
		for _, h := range hits {
			line, col := lines.at(h.Start)
			if rerr := s.report(finding{
				File: name, Line: line, Column: col, Credential: h.ID.Name, Context: h.ID.Context, Version: h.ID.Version,
				Class: h.Class.String(), Encoding: h.Encoding, Confidence: "known value", Fingerprint: s.prints[h.ID],
			}); rerr != nil {
				return rerr
			}
		}
		lines.forget(safe)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			s.unread++
			return nil
		}
	}
}

func (s *scanner) report(f finding) error {
	s.found++
	if s.json {
		return s.app.printJSON(f)
	}
	_, err := fmt.Fprintf(s.app.stdout, "%s:%d:%d: %s (context %s, version %d, %s), %s\n", f.File, f.Line, f.Column, f.Credential, f.Context, f.Version, f.Class, f.Encoding)
	return err
}

// lineCounter turns stream offsets into lines and columns, for offsets that are
// not forgotten yet.
type lineCounter struct {
	end    int64   // bytes seen
	breaks []int64 // offsets just after the newlines that are still of use
	before int     // newlines forgotten
	start  int64   // offset of the line that the oldest remembered break ends
}

func (l *lineCounter) add(p []byte) {
	for i := 0; ; {
		j := bytes.IndexByte(p[i:], '\n')
		if j < 0 {
			break
		}
		i += j + 1
		l.breaks = append(l.breaks, l.end+int64(i))
	}
	l.end += int64(len(p))
}

// at returns the 1-based line and column (bytes) of off.
func (l *lineCounter) at(off int64) (line, column int) {
	n, _ := slices.BinarySearch(l.breaks, off+1)
	start := l.start
	if n > 0 {
		start = l.breaks[n-1]
	}
	return l.before + n + 1, int(off-start) + 1
}

func (l *lineCounter) forget(before int64) {
	n, _ := slices.BinarySearch(l.breaks, before)
	if n < 2 {
		return
	}
	n-- // keep the start of the line that before is in
	l.start = l.breaks[n-1]
	l.before += n
	l.breaks = append(l.breaks[:0], l.breaks[n:]...)
}
