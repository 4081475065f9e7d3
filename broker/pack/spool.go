package pack

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// ErrSpool is what a Spool returns that would grow beyond MaxSpool.
var ErrSpool = errors.New("too large to be spooled")

// MaxSpool is how many bytes a Spool takes.
const MaxSpool = 4 << 30

// Spool holds bytes: the first max in memory, all of them in a file without a
// name if there are more.
type Spool struct {
	dir  string
	max  int
	mem  []byte
	f    *os.File
	name string // where the system keeps names of open files (Windows)
	n    int64
}

// NewSpool makes one whose file is in dir; "": where the system has its temporary
// files.
func NewSpool(dir string, max int) *Spool { return &Spool{dir: dir, max: max} }

// Write is io.Writer's; the error may be ErrSpool.
func (s *Spool) Write(p []byte) (int, error) {
	if s.n+int64(len(p)) > MaxSpool {
		return 0, ErrSpool
	}
	if s.f == nil && len(s.mem)+len(p) <= s.max {
		s.mem = append(s.mem, p...)
		s.n += int64(len(p))
		return len(p), nil
	}
	if s.f == nil {
		f, err := os.CreateTemp(s.dir, "guard-spool-*") // 0600
		if err != nil {
			return 0, fmt.Errorf("spool a body: %w", err)
		}
		s.f = f
		if os.Remove(f.Name()) != nil {
			s.name = f.Name()
		}
		if _, err := f.Write(s.mem); err != nil {
			return 0, fmt.Errorf("spool a body: %w", err)
		}
		s.mem = nil
	}
	n, err := s.f.Write(p)
	s.n += int64(n)
	return n, err
}

// Size is how many bytes are held.
func (s *Spool) Size() int64 { return s.n }

// ReadAt is io.ReaderAt's.
func (s *Spool) ReadAt(p []byte, off int64) (int, error) {
	if s.f != nil {
		return s.f.ReadAt(p, off)
	}
	if off >= int64(len(s.mem)) {
		return 0, io.EOF
	}
	n := copy(p, s.mem[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Reader reads everything from the start.
func (s *Spool) Reader() *io.SectionReader { return io.NewSectionReader(s, 0, s.n) }

// Close forgets the bytes.
func (s *Spool) Close() error {
	s.mem = nil
	if s.f == nil {
		return nil
	}
	err := s.f.Close()
	if s.name != "" {
		err = errors.Join(err, os.Remove(s.name))
	}
	return err
}
