package scan

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	maxDepth     = 8        // archives in archives
	maxNested    = 32 << 20 // a zip in another archive has to be held in memory
	maxDirectory = 16 << 20 // of a zip
	leastBudget  = 16 << 20
	bombRatio    = 250 // gzip reaches 1032
	maxWindow    = 64 << 20
	nameBatch    = 512
)

var (
	errBudget = errors.New("expands to too much: the rest was not read")
	errDepth  = fmt.Errorf("archives in archives, more than %d deep", maxDepth)
	errNested = fmt.Errorf("a zip of more than %d MiB within an archive", maxNested>>20)
	errSealed = errors.New("encrypted")
)

// stopError is a sink's: whoever takes findings wants no more.
type stopError struct{ error }

func (e stopError) Unwrap() error { return e.error }

type kind uint8

const (
	plain kind = iota
	tarKind
	zipKind
	gzipKind
	zstdKind
	bzip2Kind
	brotliKind
	closedKind // an archive that guard cannot open
)

var magics = []struct {
	magic string
	kind  kind
	name  string
}{
	{"PK\x03\x04", zipKind, "zip"},
	{"PK\x05\x06", zipKind, "zip"}, // an empty one
	{"\x1f\x8b\x08", gzipKind, "gzip"},
	{"\x28\xb5\x2f\xfd", zstdKind, "zstd"},
	{"\xfd7zXZ\x00", closedKind, "xz"},
	{"7z\xbc\xaf\x27\x1c", closedKind, "7-Zip"},
	{"Rar!\x1a\x07", closedKind, "RAR"},
	{"\x04\x22\x4d\x18", closedKind, "LZ4"},
	{"LZIP\x01", closedKind, "lzip"},
	{"\x89LZO\x00\r\n\x1a\n", closedKind, "lzop"},
	{"\x1f\x9d\x90", closedKind, "compress"},
}

// kindOf recognises an archive by its beginning; brotli has nothing to know it by
// but its name.
func kindOf(head []byte, name string) kind {
	if len(head) < 4 {
		return plain
	}
	switch head[0] {
	case 'P', 0x1f, 0x28, 0xfd, '7', 'R', 4, 'L', 0x89:
		for _, m := range magics {
			if len(head) >= len(m.magic) && string(head[:len(m.magic)]) == m.magic {
				return m.kind
			}
		}
	case 'B':
		if len(head) >= 10 && head[3] >= '1' && head[3] <= '9' && string(head[:3]) == "BZh" && string(head[4:10]) == "1AY&SY" {
			return bzip2Kind
		}
	}
	if isTar(head) {
		return tarKind
	}
	if strings.HasSuffix(name, ".br") {
		return brotliKind
	}
	return plain
}

func closedName(head []byte) string {
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.name
		}
	}
	return ""
}

// isTar checks the sum of the first header, which also the oldest form has.
func isTar(b []byte) bool {
	if len(b) < 512 || b[0] == 0 {
		return false
	}
	var want, got int64
	digits := false
	for _, c := range b[148:156] {
		switch {
		case c >= '0' && c <= '7':
			want, digits = want*8+int64(c-'0'), true
		case c != ' ' && c != 0:
			return false
		}
	}
	if !digits {
		return false
	}
	for i, c := range b[:512] {
		if i >= 148 && i < 156 {
			c = ' '
		}
		got += int64(c)
	}
	return got == want
}

// budget is what an outermost archive may still expand to.
type budget struct {
	left  int64
	mem   int64
	holds bool // Scanner.big
}

// budgeted reads from r at b's expense.
type budgeted struct {
	ctx context.Context
	r   io.Reader
	b   *budget
}

func (r *budgeted) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, stopError{err}
	}
	if r.b.left <= 0 {
		return 0, errBudget
	}
	n, err := r.r.Read(p[:min(int64(len(p)), r.b.left)])
	r.b.left -= int64(n)
	return n, err
}

// archive looks into an archive that begins with head. opened is false where it
// could not be, and in can still be searched as it is: in.r goes on after head, or
// in.file can be read again.
func (l *looker) archive(ctx context.Context, k kind, in *input, head []byte, whole bool, emit sink) (opened bool, err error) {
	count := &l.s.count
	if k == closedKind {
		count.closed(in.label+in.show, fmt.Errorf("%s archives are not opened", closedName(head)))
		return false, nil
	}
	if l.depth >= maxDepth {
		count.closed(in.label+in.show, errDepth)
		return false, nil
	}
	b := in.budget
	if b == nil {
		b = &budget{left: l.s.o.MaxArchive, mem: maxNested}
		switch {
		case in.file != nil:
			if fi, err := in.file.Stat(); err == nil {
				b.left = min(b.left, max(leastBudget, bombRatio*fi.Size()))
			}
		case whole:
			b.left = min(b.left, max(leastBudget, bombRatio*int64(len(head))))
		}
		defer func() {
			if b.holds {
				l.s.big.Unlock()
			}
		}()
	}
	if l.inner == nil {
		l.inner = &looker{s: l.s, depth: l.depth + 1}
	}
	r := io.MultiReader(bytes.NewReader(head), in.r)
	prefix := in.prefix
	if prefix == "" {
		prefix = in.show + "!"
	}
	switch k {
	case zipKind:
		opened, err = l.zip(ctx, in, b, head, whole, prefix, emit)
		if !opened && err == nil {
			return false, nil
		}
	case tarKind:
		err = l.tar(ctx, in, r, b, prefix, emit)
	default:
		err = l.unpack(ctx, k, in, r, b, emit)
	}
	var stop stopError
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &stop):
		return true, err
	case errors.Is(err, errBudget):
		count.closed(in.label+in.show, err)
		return true, nil
	}
	if k != brotliKind {
		count.closed(in.label+in.show, fmt.Errorf("damaged, or no archive: %w", cause(err)))
	}
	return !whole && in.file == nil, nil
}

// cause keeps names of an archive out of what is said.
func cause(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return errors.New("it ends too early")
	case errors.Is(err, zip.ErrFormat), errors.Is(err, zip.ErrChecksum), errors.Is(err, zip.ErrAlgorithm),
		errors.Is(err, tar.ErrHeader), errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum),
		errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrMagicMismatch), errors.Is(err, errSealed), errors.Is(err, errNested):
		return err
	}
	return errors.New("it cannot be read to its end")
}

// unpack looks into what is compressed as one.
func (l *looker) unpack(ctx context.Context, k kind, outer *input, r io.Reader, b *budget, emit sink) error {
	switch k {
	case gzipKind:
		z, err := gzip.NewReader(r)
		if err != nil {
			return err
		}
		defer z.Close()
		r = z
	case zstdKind:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return err
		}
		defer z.Close()
		r = z
	case bzip2Kind:
		r = bzip2.NewReader(r)
	case brotliKind:
		r = brotli.NewReader(r)
	}
	show := outer.show
	in := input{show: show + "!" + unpackedName(show), prefix: show + "!", label: outer.label, r: &budgeted{ctx, r, b}, budget: b}
	return l.inner.content(ctx, in, emit)
}

// unpackedName is the name that gunzip and its like would give.
func unpackedName(show string) string {
	base := show[strings.LastIndexAny(show, "/!")+1:]
	switch ext := path.Ext(base); strings.ToLower(ext) {
	case ".gz", ".zst", ".bz2", ".br":
		return strings.TrimSuffix(base, ext)
	case ".tgz", ".tbz2", ".tzst":
		return strings.TrimSuffix(base, ext) + ".tar"
	}
	return base
}

func (l *looker) tar(ctx context.Context, outer *input, r io.Reader, b *budget, prefix string, emit sink) error {
	t := tar.NewReader(r)
	var names []string
	defer func() { l.names(prefix, names, emit) }()
	for first := true; ; first = false {
		h, err := t.Next()
		if errors.Is(err, io.EOF) && !first {
			return nil
		}
		if err != nil {
			return err
		}
		names = append(names, h.Name)
		if h.Linkname != "" {
			names = append(names, h.Linkname)
		}
		if len(names) >= nameBatch {
			l.names(prefix, names, emit)
			names = names[:0]
		}
		if h.Typeflag != tar.TypeReg {
			if h.Typeflag != tar.TypeDir {
				l.s.count.links.Add(1)
			}
			continue
		}
		l.s.count.files.Add(1)
		// A sparse file is larger than what the archive has of it.
		in := input{show: prefix + h.Name, label: outer.label, r: &budgeted{ctx, t, b}, budget: b}
		if err := l.inner.content(ctx, in, emit); err != nil {
			return err
		}
	}
}

// zip needs to read at any place: it is a file, or held in memory.
func (l *looker) zip(ctx context.Context, in *input, b *budget, head []byte, whole bool, prefix string, emit sink) (opened bool, err error) {
	at := &directoryReader{left: maxDirectory}
	var size int64
	switch {
	case in.file != nil:
		fi, err := in.file.Stat()
		if err != nil {
			return false, err
		}
		at.r, size = in.file, fi.Size()
	case whole:
		at.r, size = bytes.NewReader(head), int64(len(head))
	default:
		if !b.holds {
			l.s.big.Lock()
			b.holds = true
		}
		var mem bytes.Buffer
		mem.Write(head)
		_, err := io.Copy(&mem, io.LimitReader(in.r, max(0, b.mem-int64(len(head)))+1))
		if err != nil {
			return false, err
		}
		if int64(mem.Len()) > b.mem {
			l.s.count.closed(in.label+in.show, errNested)
			in.r = io.MultiReader(bytes.NewReader(mem.Bytes()[len(head):]), in.r)
			return false, nil
		}
		b.mem -= int64(mem.Len())
		defer func() { b.mem += int64(mem.Len()) }()
		at.r, size = bytes.NewReader(mem.Bytes()), int64(mem.Len())
	}
	z, err := zip.NewReader(at, size)
	if err != nil {
		return false, err
	}
	at.left = -1
	z.RegisterDecompressor(zip.Deflate, flate.NewReader)
	z.RegisterDecompressor(12, func(r io.Reader) io.ReadCloser { return io.NopCloser(bzip2.NewReader(r)) })
	z.RegisterDecompressor(zstd.ZipMethodWinZip, zstd.ZipDecompressor(zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow)))
	names := make([]string, 0, len(z.File)+1)
	for _, f := range z.File {
		names = append(names, f.Name)
		if f.Comment != "" {
			names = append(names, f.Comment)
		}
	}
	if z.Comment != "" {
		names = append(names, z.Comment)
	}
	l.names(prefix, names, emit)
	for _, f := range z.File {
		if f.FileInfo().IsDir() {
			continue
		}
		show := prefix + f.Name
		if f.Flags&1 != 0 {
			l.s.count.closed(in.label+show, errSealed)
			continue
		}
		if !f.Mode().IsRegular() && f.UncompressedSize64 > 4096 {
			l.s.count.special.Add(1)
			continue
		}
		l.s.count.files.Add(1)
		if err := l.zipped(ctx, f, in, show, b, emit); err != nil {
			return true, err
		}
	}
	return true, nil
}

// zipped looks into one file of a zip. One that is damaged does not keep the
// others from being read.
func (l *looker) zipped(ctx context.Context, f *zip.File, in *input, show string, b *budget, emit sink) error {
	r, err := f.Open()
	if err == nil {
		defer r.Close()
		err = l.inner.content(ctx, input{show: show, label: in.label, r: &budgeted{ctx, r, b}, budget: b}, emit)
	}
	var stop stopError
	if err == nil || errors.Is(err, errBudget) || errors.As(err, &stop) {
		return err
	}
	l.s.count.closed(in.label+show, fmt.Errorf("damaged: %w", cause(err)))
	return nil
}

// directoryReader bounds what is read for a zip's list of files; left is -1 once
// that is there.
type directoryReader struct {
	r    io.ReaderAt
	left int64
}

func (d *directoryReader) ReadAt(p []byte, off int64) (int, error) {
	if d.left >= 0 {
		if d.left -= int64(len(p)); d.left < 0 {
			return 0, errBudget
		}
	}
	return d.r.ReadAt(p, off)
}
