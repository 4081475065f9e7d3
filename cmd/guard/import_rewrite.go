package main

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"guard/audit"
	"guard/vault"
)

// undoPurpose seals what a file held before it was rewritten.
const undoPurpose = "import-undo"

// undoRecord is what a file held, and the hash of what --rewrite made of it.
type undoRecord struct {
	Path    string      `json:"path"`
	At      time.Time   `json:"at"`
	Mode    fs.FileMode `json:"mode"`
	Content []byte      `json:"content"`
	After   string      `json:"after"` // SHA-256, hex
}

func (a *app) undoDir() string { return filepath.Join(a.home(), "imports") }

func hashOf(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// rewriteImported puts placeholders into f for what of its items is in the vault.
// The file is whole at any moment: as it was, or rewritten; and what it was is
// sealed before it is replaced.
func (a *app) rewriteImported(v *vault.Vault, f *importFile, items []*importItem) (bool, error) {
	fail := func(err error) (bool, error) {
		return false, fmt.Errorf("rewrite %s: %w; it is as it was", a.shownPath(f.path), err)
	}
	if otherNames(f.info) {
		for _, it := range items {
			for _, pl := range it.places {
				if pl.file == f {
					pl.stay = "the file has another name (a hard link), which would keep the value"
				}
			}
		}
		return false, nil
	}
	text, done := rewritten(f, items)
	if len(done) == 0 {
		return false, nil
	}
	for _, it := range items {
		if i := bytes.Index(text, bytes.TrimSpace(it.places[0].c.value)); i >= 0 && (it.stored || it.known != "") && len(it.places[0].c.value) > 0 {
			if pl := placeIn(it, f); pl.stay == "" {
				a.say("%s still holds the value of %s in line %d, which is none that guard reads: remove it by hand", a.shownPath(f.path), it.credential(), 1+bytes.Count(text[:i], []byte("\n")))
			}
		}
	}
	rec := undoRecord{Path: f.path, At: time.Now().UTC(), Mode: f.info.Mode().Perm(), Content: f.data, After: hashOf(text)}
	b, err := json.Marshal(rec)
	if err != nil {
		return fail(err)
	}
	box, err := v.Seal(undoPurpose, b)
	clear(b)
	if err != nil {
		return fail(err)
	}
	var id [4]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	undo := filepath.Join(a.undoDir(), fmt.Sprintf("%020d-%x", rec.At.UnixNano(), id))
	if err := writeFile(undo, box); err != nil {
		return fail(fmt.Errorf("keep the original: %w", err))
	}
	if err := replaceFile(f.path, f.data, f.info, text, f.info.Mode().Perm()); err != nil {
		return fail(errors.Join(err, os.Remove(undo)))
	}
	for _, pl := range done {
		pl.rewritten = true
	}
	return true, nil
}

func placeIn(it *importItem, f *importFile) *importPlace {
	return it.places[slices.IndexFunc(it.places, func(pl *importPlace) bool { return pl.file == f })]
}

// rewritten is f with placeholders, and the places where they are: those that read
// back as the placeholder. The others say why they stay.
func rewritten(f *importFile, items []*importItem) (text []byte, done []*importPlace) {
	type edit struct {
		change
		pl          *importPlace
		placeholder string
		text        string
		now         int
	}
	var edits []edit
	for _, it := range items {
		for _, pl := range it.places {
			if pl.file != f || pl.stay != "" || !it.stored && it.known == "" {
				continue
			}
			t, ok := pl.c.write(it.placeholder)
			if !ok {
				pl.stay = "its placeholder cannot be written the way the file writes the value"
				continue
			}
			edits = append(edits, edit{change: change{from: pl.c.from, to: pl.c.to}, pl: pl, placeholder: it.placeholder, text: t})
			for _, m := range pl.c.more {
				edits = append(edits, edit{change: m, text: m.text(it.placeholder)})
			}
		}
	}
	slices.SortStableFunc(edits, func(x, y edit) int { return cmp.Compare(x.from, y.from) })
	// Two variables may share an access key's id.
	edits = slices.CompactFunc(edits, func(x, y edit) bool { return x.from == y.from && x.to == y.to })
	at := 0
	for i := range edits {
		e := &edits[i]
		if e.from < at || e.to < e.from || e.to > len(f.data) {
			return nil, nil
		}
		text = append(text, f.data[at:e.from]...)
		e.now = len(text)
		text = append(text, e.text...)
		at = e.to
	}
	text = append(text, f.data[at:]...)
	// A comment may hold the value as well.
	for _, e := range edits {
		if e.pl != nil {
			text = inComments(text, f.data[e.from:e.to], e.text)
		}
	}
	again := importParser(f.format)(text)
	for _, e := range edits {
		if e.pl == nil {
			continue
		}
		ok := slices.ContainsFunc(again, func(c candidate) bool {
			return (c.from == e.now || c.from == e.now+1) && (string(c.value) == e.placeholder || importMark(string(c.value)))
		})
		if !ok {
			for _, e := range edits {
				if e.pl != nil {
					e.pl.stay = "the file would not read the same with a placeholder in it"
				}
			}
			return nil, nil
		}
		done = append(done, e.pl)
	}
	return text, done
}

// inComments replaces old in lines that are comments, where that moves nothing
// that comes after: both have the same length.
func inComments(text, old []byte, to string) []byte {
	if len(old) < 8 || len(old) != len(to) || bytes.IndexByte(old, '\n') >= 0 {
		return text
	}
	for line := range bytes.Lines(text) {
		if t := bytes.TrimSpace(line); len(t) > 0 && (t[0] == '#' || t[0] == ';') {
			copy(line, bytes.ReplaceAll(line, old, []byte(to)))
		}
	}
	return text
}

// replaceFile puts text in the place of the file at path, in one step and with the
// same owner, if it is still the file that info and old are of.
func replaceFile(path string, old []byte, info fs.FileInfo, text []byte, mode fs.FileMode) (err error) {
	if real, err := filepath.EvalSymlinks(path); err != nil || real != path {
		return errors.New("the way to it is another than it was")
	}
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return plainError(err)
	}
	defer dir.Close()
	base := filepath.Base(path)
	same := func() (fs.FileInfo, error) {
		f, err := dir.OpenFile(base, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return nil, plainError(err)
		}
		defer f.Close()
		fi, err := f.Stat()
		lfi, lerr := dir.Lstat(base)
		if err != nil || lerr != nil || !fi.Mode().IsRegular() || !os.SameFile(fi, lfi) || info != nil && !os.SameFile(fi, info) {
			return nil, errors.New("it is not the file that was read")
		}
		b, err := io.ReadAll(io.LimitReader(f, int64(len(old))+1))
		defer clear(b)
		if err != nil || !bytes.Equal(b, old) {
			return nil, errors.New("it was changed meanwhile")
		}
		return fi, nil
	}
	fi, err := same()
	if err != nil {
		return err
	}
	var id [6]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	tmp := ".guard-import-" + hex.EncodeToString(id[:])
	f, err := dir.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return plainError(err)
	}
	_, err = f.Write(text)
	if err == nil {
		err = keepOwner(f, fi)
	}
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		_, err = same() // as late as can be
	}
	if err == nil {
		err = dir.Rename(tmp, base)
	}
	if err != nil {
		return errors.Join(plainError(err), dir.Remove(tmp))
	}
	if runtime.GOOS != "windows" { // where a folder cannot be synced
		if d, err := dir.Open("."); err == nil {
			defer d.Close()
			return d.Sync()
		}
	}
	return nil
}

// plainError is err without the path, which may hold what a terminal obeys.
func plainError(err error) error {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &l):
		return l.Err
	}
	return err
}

// undoImport brings back what --rewrite replaced.
func (a *app) undoImport(v *vault.Vault, files []string, o importFlags) error {
	var only []string
	for _, f := range files {
		abs, err := filepath.Abs(f)
		if err != nil {
			return err
		}
		if real, err := filepath.EvalSymlinks(abs); err == nil {
			abs = real
		}
		only = append(only, abs)
	}
	entries, err := os.ReadDir(a.undoDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	slices.Reverse(entries) // the last one first
	var recs []undoRecord
	var names []string
	defer func() {
		for _, r := range recs {
			clear(r.Content)
		}
	}()
	var failed []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".tmp-") {
			continue
		}
		path := filepath.Join(a.undoDir(), e.Name())
		box, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b, err := v.Unseal(undoPurpose, box)
		var r undoRecord
		if err == nil {
			err = json.Unmarshal(b, &r)
			clear(b)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s was changed or is not of this vault: %w", path, err))
			continue
		}
		if len(only) == 0 || slices.Contains(only, r.Path) {
			recs, names = append(recs, r), append(names, path)
		}
	}
	for _, p := range only {
		if !slices.ContainsFunc(recs, func(r undoRecord) bool { return r.Path == p }) {
			failed = append(failed, fmt.Errorf("%s: nothing is kept of it", a.shownPath(p)))
		}
	}
	if len(recs) == 0 {
		if len(failed) == 0 {
			a.say("no file was rewritten")
		}
		return errors.Join(failed...)
	}
	if !o.yes {
		ok, err := confirm(fmt.Sprintf("guard: put %s back into %s?", counted(len(recs), "original"), a.shownPath(recs[0].Path)+andMore(recs)))
		if err != nil {
			return fmt.Errorf("%w; --yes does it without asking", err)
		}
		if !ok {
			return errors.New("nothing was done")
		}
	}
	stuck := map[string]bool{}
	for i, r := range recs {
		if stuck[r.Path] {
			continue
		}
		if err := a.undoOne(v, r, names[i], o.beside); err != nil {
			stuck[r.Path] = true
			failed = append(failed, fmt.Errorf("%s: %w", a.shownPath(r.Path), err))
		}
	}
	return errors.Join(failed...)
}

func andMore(recs []undoRecord) string {
	seen := map[string]bool{}
	for _, r := range recs {
		seen[r.Path] = true
	}
	return andFiles(" and ", len(seen)-1)
}

// undoOne restores one file, and drops the record.
func (a *app) undoOne(v *vault.Vault, r undoRecord, name string, beside bool) error {
	if beside {
		dir, err := os.OpenRoot(filepath.Dir(r.Path))
		if err != nil {
			return plainError(err)
		}
		defer dir.Close()
		f, err := dir.OpenFile(filepath.Base(r.Path)+".original", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("write the original beside it: %w", plainError(err))
		}
		_, err = f.Write(r.Content)
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return plainError(err)
		}
		fmt.Fprintf(a.stdout, "wrote %s\n", a.shownPath(r.Path+".original"))
		return a.note(v, audit.Record{Type: "import.undo", Path: r.Path})
	}
	data, info, why := readImport(r.Path)
	if why != "" {
		return fmt.Errorf("%s, so that nothing is put back; its original is kept: --beside writes it to FILE.original", why)
	}
	defer clear(data)
	switch hashOf(data) {
	case hashOf(r.Content):
	case r.After:
		if err := replaceFile(r.Path, data, info, r.Content, r.Mode); err != nil {
			return err
		}
	default:
		return errors.New("it was changed since it was rewritten, and that would be lost; its original is kept: --beside writes it to FILE.original")
	}
	fmt.Fprintf(a.stdout, "restored %s\n", a.shownPath(r.Path))
	if err := os.Remove(name); err != nil {
		return err
	}
	return a.note(v, audit.Record{Type: "import.undo", Path: r.Path})
}
