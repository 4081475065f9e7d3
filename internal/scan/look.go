package scan

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"guard"
	"guard/matcher"
	"guard/matcher/formats"
)

const (
	wholeFile   = 4 << 20   // a file up to this size is searched as a whole
	wholeInner  = 1 << 20   // and one in an archive
	chunk       = 1 << 20   // a larger one is read in pieces of this size
	kept        = 512 << 10 // of what came before, for the line, column and bytes of a finding
	binaryProbe = 8000      // bytes in which git looks for a NUL
)

// sink takes what is found in one file.
type sink func(Finding) error

// looker looks into one thing after the other. Its buffers are its own, so it is
// for one goroutine.
type looker struct {
	s     *Scanner
	depth int
	buf   []byte
	inner *looker         // for what is in an archive
	vs    *matcher.Stream // for files that are in memory, one after the other
}

func (l *looker) job(ctx context.Context, j *job) {
	if ctx.Err() != nil {
		return
	}
	emit := func(f Finding) error {
		j.found = append(j.found, f)
		return nil
	}
	if j.names != nil {
		prefix := j.show + string(filepath.Separator)
		if j.show == "." {
			prefix = ""
		}
		l.names(prefix, j.names, emit)
		return
	}
	f, err := openFile(j.path)
	if err != nil {
		if errors.Is(err, errSpecial) {
			l.s.count.special.Add(1)
			return
		}
		l.s.count.unread(j.show, err)
		return
	}
	defer f.Close()
	l.s.count.files.Add(1)
	if err := l.safely(func() error { return l.content(ctx, input{show: j.show, r: f, file: f}, emit) }); err != nil && ctx.Err() == nil {
		l.s.count.unread(j.show, err)
	}
}

// safely turns a panic into an error: what somebody else made must not keep the
// other files from being read. It is a bug all the same, and makes the scan fail in
// the end.
func (l *looker) safely(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			l.s.count.failed.Add(1)
			err = errPanic
			if re, ok := p.(runtime.Error); ok { // anything else could hold what was read
				err = fmt.Errorf("%w (%v)", errPanic, re)
			}
		}
	}()
	return f()
}

var errPanic = errors.New("guard has a bug that this file shows")

// Reader looks into r as a file of that name, and calls emit for each finding as
// soon as it is there.
func (s *Scanner) Reader(ctx context.Context, name string, r io.Reader, emit func(Finding) error) error {
	s.count.files.Add(1)
	var failed error
	err := s.spare[0].content(ctx, input{show: name, r: r, live: true}, func(f Finding) error {
		failed = s.report(f, emit)
		return failed
	})
	if failed != nil || ctx.Err() != nil {
		return cmp.Or(failed, ctx.Err())
	}
	if err != nil {
		s.count.unread(name, err)
	}
	return nil
}

// input is something with contents.
type input struct {
	show   string
	r      io.Reader
	file   *os.File // what r reads, if that is a file
	live   bool     // what comes is to be searched as it comes
	prefix string   // of the names of what is in it, if that is not show and "!"
	label  string   // what problems are said of, before show
	path   string   // what rules about paths look at, if that is not show
	budget *budget  // of the archive that it is in
}

// content looks into in, and into what is in it if it is an archive.
func (l *looker) content(ctx context.Context, in input, emit sink) error {
	size := wholeFile
	if l.depth > 0 {
		size = wholeInner
	}
	if l.buf == nil {
		l.buf = make([]byte, size)
	}
	least := len(l.buf)
	if in.live {
		least = 512 // enough to know an archive by
	}
	n, err := fill(in.r, l.buf, least)
	whole := errors.Is(err, io.EOF)
	if err != nil && !whole {
		// What was read before the error is searched all the same.
		return errors.Join(l.block(&in, l.buf[:n], emit), err)
	}
	head := l.buf[:n]
	k := kindOf(head, cmp.Or(in.path, in.show))
	if k != plain && l.s.o.NoArchives {
		if k != brotliKind { // which only its name says
			l.s.count.unopened.Add(1)
		}
		k = plain
	}
	if k != plain {
		opened, err := l.archive(ctx, k, &in, head, whole, emit)
		if opened || err != nil {
			return err
		}
		if in.file != nil {
			if _, err := in.file.Seek(0, io.SeekStart); err != nil {
				return err
			}
			if n, err = fill(in.file, l.buf, len(l.buf)); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			whole, head = err != nil, l.buf[:n]
		}
	}
	if whole {
		return l.block(&in, head, emit)
	}
	return l.stream(ctx, in, head, emit)
}

// fill reads at least so many bytes into p. Its error is io.EOF only where r ended;
// an io.ErrUnexpectedEOF is r's own, as of an archive that was cut off.
func fill(r io.Reader, p []byte, least int) (n int, err error) {
	for n < least {
		m, err := r.Read(p[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// block looks into b, which is all of a file.
func (l *looker) block(in *input, b []byte, emit sink) error {
	l.s.count.bytes.Add(int64(len(b)))
	if len(b) == 0 {
		return nil
	}
	var hits []matcher.Hit
	var found []formats.Finding
	if l.s.o.Values != nil {
		hits = l.values(b)
	}
	if l.s.o.Formats != nil {
		found = l.s.o.Formats.Scan(b, cmp.Or(in.path, in.show))
	}
	if len(hits)+len(found) == 0 {
		return nil
	}
	return l.found(&text{show: in.show, b: b, line: 1, binary: isBinary(b)}, hits, found, emit)
}

// values is what Matcher.Scan finds. It asks a stream that is used again first: most
// files are so short that making a new one costs much of the search.
func (l *looker) values(b []byte) []matcher.Hit {
	vs := l.vs
	if vs == nil {
		vs = l.s.o.Values.Stream()
	}
	l.vs = nil // after a panic it is not used again
	const step = 64 << 10
	some := false
	for i := 0; i < len(b); i += step {
		hits, _ := vs.Write(b[i:min(i+step, len(b))])
		some = some || len(hits) > 0
	}
	some = len(vs.Close()) > 0 || some
	vs.Reset()
	l.vs = vs
	if some {
		return l.s.o.Values.Scan(b)
	}
	return nil
}

func isBinary(b []byte) bool {
	b = b[:min(len(b), binaryProbe)]
	if bytes.HasPrefix(b, []byte("\xff\xfe")) || bytes.HasPrefix(b, []byte("\xfe\xff")) {
		return false // UTF-16
	}
	return bytes.IndexByte(b, 0) >= 0
}

// text is what is in memory of a file.
type text struct {
	show   string
	b      []byte
	base   int64 // offset of b
	line   int   // at base
	before int64 // bytes of that line before base
	binary bool
}

// at is the line and column of an offset.
func (t *text) at(off int64) (line, column int) {
	i := int(max(0, min(off-t.base, int64(len(t.b)))))
	part := t.b[:i]
	line = t.line + bytes.Count(part, []byte("\n"))
	if nl := bytes.LastIndexByte(part, '\n'); nl >= 0 {
		return line, i - nl
	}
	return line, int(t.before) + i + 1
}

func (t *text) bytes(from, to int64) []byte {
	from, to = max(0, from-t.base), min(to-t.base, int64(len(t.b)))
	if from >= to {
		return nil
	}
	return t.b[from:to]
}

// found turns what the engines found into findings. What Formats finds in a known
// value is left out.
func (l *looker) found(t *text, hits []matcher.Hit, found []formats.Finding, emit sink) error {
	var out []Finding
	var order []int64
	add := func(f Finding, from, to int64) {
		f.File = l.s.mask(t.show)
		f.Line, f.Column = t.at(from)
		if l.s.o.Keep {
			f.Shown = shown(t.bytes(from, to))
		}
		out, order = append(out, f), append(order, from)
	}
	for _, h := range hits {
		add(l.s.value(h), h.Start, h.End)
	}
	for _, f := range found {
		if f.Confidence < l.s.o.Least || t.binary && f.Confidence < formats.High || covered(f.Start, f.End, hits) {
			continue
		}
		add(l.s.format(f, t.bytes(f.Start, f.End)), f.Start, f.End)
	}
	// By place; a value before a format.
	index := make([]int, len(out))
	for i := range index {
		index[i] = i
	}
	slices.SortStableFunc(index, func(a, b int) int { return cmp.Compare(order[a], order[b]) })
	for _, i := range index {
		if err := emit(out[i]); err != nil {
			return stopError{err}
		}
	}
	return nil
}

func shown(b []byte) func() []byte {
	b = bytes.Clone(b)
	return func() []byte { return b }
}

func covered(from, to int64, hits []matcher.Hit) bool {
	return slices.ContainsFunc(hits, func(h matcher.Hit) bool { return h.Start < to && from < h.End })
}

func (s *Scanner) value(h matcher.Hit) Finding {
	f := Finding{
		Credential: h.ID.Name, Context: h.ID.Context, Version: h.ID.Version, Class: h.Class.String(),
		Encoding: h.Encoding, Confidence: "known", Why: "this is the value of " + h.ID.Name + ", which the vault holds",
	}
	if h.Class == guard.Retired {
		f.Why = "this was the value of " + h.ID.Name + " until it was replaced"
	}
	if s.o.Known != nil {
		k := s.o.Known(h.ID)
		f.Kind, f.Provider, f.Fingerprint = k.Kind, k.Provider, k.Fingerprint
	}
	return f
}

func (s *Scanner) format(f formats.Finding, secret []byte) Finding {
	return Finding{
		Rule: f.Rule, Provider: f.Provider, Kind: f.Kind, Why: f.Why, Encoding: f.Encoding, Confidence: f.Confidence.String(),
		Fingerprint: guard.NewSecret(secret).Fingerprint(s.o.Key()),
	}
}

// stream looks into what is too large for memory, or comes slowly. head is its
// beginning, in l.buf.
func (l *looker) stream(ctx context.Context, in input, head []byte, emit sink) error {
	var vs *matcher.Stream
	var fs *formats.Stream
	if l.s.o.Values != nil {
		vs = l.s.o.Values.Stream()
		defer vs.Close()
	}
	if l.s.o.Formats != nil {
		fs = l.s.o.Formats.Stream()
		defer fs.Close()
	}
	if len(l.buf) < kept+chunk {
		l.buf = append(l.buf, make([]byte, kept+chunk-len(l.buf))...)
	}
	t := &text{show: in.show, line: 1, binary: isBinary(head)}
	var recent []matcher.Hit // that a format may still turn out to lie in
	from, to := 0, len(head)
	for {
		p := l.buf[from:to]
		l.s.count.bytes.Add(int64(len(p)))
		t.b = l.buf[:to]
		var hits []matcher.Hit
		var found []formats.Finding
		if vs != nil {
			hits, _ = vs.Write(p)
		}
		if fs != nil {
			found = fs.Write(p)
		}
		if err := l.foundIn(t, hits, found, &recent, emit); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if to+chunk > len(l.buf) {
			to = l.slide(t, to)
		}
		least := chunk
		if in.live {
			least = 1
		}
		n, err := fill(in.r, l.buf[to:to+chunk], least)
		from, to = to, to+n
		if n > 0 && err == nil {
			continue
		}
		p = l.buf[from:to]
		l.s.count.bytes.Add(int64(n))
		t.b = l.buf[:to]
		hits, found = nil, nil
		if vs != nil {
			hits, _ = vs.Write(p)
			hits = append(hits, vs.Close()...)
		}
		if fs != nil {
			found = append(fs.Write(p), fs.Close()...)
		}
		if ferr := l.foundIn(t, hits, found, &recent, emit); ferr != nil {
			return ferr
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
}

func (l *looker) foundIn(t *text, hits []matcher.Hit, found []formats.Finding, recent *[]matcher.Hit, emit sink) error {
	if len(hits)+len(found) == 0 {
		return nil
	}
	found = slices.DeleteFunc(found, func(f formats.Finding) bool { return covered(f.Start, f.End, *recent) })
	hits = slices.DeleteFunc(hits, func(h matcher.Hit) bool {
		return slices.ContainsFunc(*recent, func(r matcher.Hit) bool { return r.ID == h.ID && r.Start < h.End && h.Start < r.End })
	})
	if *recent = append(*recent, hits...); len(*recent) > 1024 {
		*recent = slices.Delete(*recent, 0, len(*recent)-1024)
	}
	return l.found(t, hits, found, emit)
}

// slide drops what is not needed any more from the front of the buffer.
func (l *looker) slide(t *text, end int) int {
	drop := max(0, end-kept)
	gone := l.buf[:drop]
	t.line += bytes.Count(gone, []byte("\n"))
	if nl := bytes.LastIndexByte(gone, '\n'); nl >= 0 {
		t.before = int64(drop - nl - 1)
	} else {
		t.before += int64(drop)
	}
	t.base += int64(drop)
	return copy(l.buf, l.buf[drop:end])
}

// names looks into names that are shown with prefix before them.
func (l *looker) names(prefix string, names []string, emit sink) {
	l.named(names, func(i int, f Finding) {
		f.File = l.s.mask(prefix + names[i])
		_ = emit(f) // collects: see job and objectReader
	})
}

// named calls each for what is in one of names, by its index.
func (l *looker) named(names []string, each func(i int, f Finding)) {
	if len(names) == 0 {
		return
	}
	text := []byte(strings.Join(names, "\n"))
	starts, at := make([]int64, len(names)), 0
	for i, n := range names {
		starts[i] = int64(at)
		at += len(n) + 1
	}
	report := func(from, to int64, f Finding) {
		i, here := slices.BinarySearch(starts, from)
		if !here {
			i--
		}
		f.In = "name"
		if l.s.o.Keep {
			f.Shown = shown(text[from:min(to, starts[i]+int64(len(names[i])))])
		}
		each(i, f)
	}
	hits, found := l.s.inName(text)
	for _, h := range hits {
		report(h.Start, h.End, l.s.value(h))
	}
	for _, f := range found {
		report(f.Start, f.End, l.s.format(f, text[f.Start:f.End]))
	}
}

// inName finds what is in a name: formats only where they are certain.
func (s *Scanner) inName(b []byte) (hits []matcher.Hit, found []formats.Finding) {
	if s.o.Values != nil {
		hits = s.o.Values.Scan(b)
	}
	if s.o.Formats != nil {
		found = slices.DeleteFunc(s.o.Formats.Scan(b, ""), func(f formats.Finding) bool {
			return f.Confidence < max(s.o.Least, formats.High) || covered(f.Start, f.End, hits)
		})
	}
	return hits, found
}

// mask makes a name fit to be printed: without the secrets in it.
func (s *Scanner) mask(name string) string {
	b := []byte(name)
	hits, found := s.inName(b)
	if len(hits)+len(found) == 0 {
		return name
	}
	type span struct {
		from, to int64
		as       string
	}
	var spans []span
	for _, h := range hits {
		spans = append(spans, span{h.Start, h.End, h.ID.Name})
	}
	for _, f := range found {
		spans = append(spans, span{f.Start, f.End, f.Rule})
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	var out strings.Builder
	at := int64(0)
	for _, sp := range spans {
		if sp.from >= at {
			out.Write(b[at:sp.from])
			fmt.Fprintf(&out, "[%s]", sp.as)
		}
		at = max(at, sp.to)
	}
	out.Write(b[at:])
	return out.String()
}
