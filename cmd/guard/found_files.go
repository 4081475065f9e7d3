package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	foundDepth = 4        // folders below the working folder
	foundNames = 4000     // names that are looked at there
	foundMax   = 256      // files that are read there
	foundSize  = 64 << 10 // bytes of one
)

// foundFiles reads the files where tools keep credentials, in the home folder and in
// the project. It goes by names first, and only so far: what a session can begin with
// must not grow with the project.
func (a *app) foundFiles(dir, home string) []*importFile {
	fd := &importFinder{home: home, left: foundNames}
	for _, w := range importHome {
		fd.take(filepath.Join(home, w.path), w.format, false)
	}
	for _, p := range sshKeyFiles(home) {
		fd.take(p, "ssh", false)
	}
	n := 0
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // what cannot be read here the agent cannot read either
		}
		if fd.left--; fd.left < 0 || n >= foundMax {
			return fs.SkipAll
		}
		if d.IsDir() {
			if path == dir {
				return nil
			}
			deep := strings.Count(strings.TrimPrefix(path, dir), string(filepath.Separator)) > foundDepth
			if deep || d.Name() == ".git" || slices.Contains(bulky, d.Name()) || path == a.home() || strings.HasPrefix(d.Name(), ".") && dir == home {
				return fs.SkipDir
			}
			return nil
		}
		if format := importFormat(path); format != "" {
			if fi, err := d.Info(); err != nil || fi.Size() > foundSize {
				return nil
			}
			n++
			fd.take(path, format, false)
		}
		return nil
	})
	// What opens the vault is hidden, and is no business of this.
	return slices.DeleteFunc(fd.files, func(f *importFile) bool {
		return slices.ContainsFunc(a.unlockFiles(), func(u string) bool {
			fi, err := os.Stat(u)
			return u != "" && err == nil && os.SameFile(fi, f.info)
		})
	})
}

// parseEnviron reads KEY=VALUE, each ended by a NUL.
func parseEnviron(b []byte) (out []candidate) {
	at := 0
	for kv := range bytes.SplitSeq(b, []byte{0}) {
		name, value, ok := bytes.Cut(kv, []byte("="))
		if ok && len(name) > 0 && len(value) > 0 && shellName.FindString(string(name)) == string(name) && !slices.Contains(dropped, string(name)) {
			from := at + len(name) + 1
			out = append(out, candidate{from: from, to: from + len(value), value: bytes.Clone(value), label: string(name), env: string(name), named: true})
		}
		at += len(kv) + 1
	}
	return pairAWS(b, out)
}
