package testutil

import (
	"fmt"
	"os"
	"testing"
)

// Outside runs f with a testing.TB for programs that are no tests but want this
// package's servers, such as the demo and the benchmarks: what fails ends f and
// is returned as the error, and what f started ends with it. dir holds its
// temporary folders.
func Outside(dir string, f func(testing.TB)) (err error) {
	s := &outside{dir: dir}
	defer func() {
		for i := len(s.cleanups) - 1; i >= 0; i-- {
			s.cleanups[i]()
		}
	}()
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(failed)
			if !ok {
				panic(r)
			}
			err = e.err
		}
	}()
	f(s)
	return nil
}

// outside is the part of testing.TB that this package uses; the embedded nil
// interface makes any other method panic rather than do nothing.
type outside struct {
	testing.TB
	cleanups []func()
	dir      string
}

type failed struct{ err error }

func (s *outside) Helper()                   {}
func (s *outside) Name() string              { return "outside" }
func (s *outside) Failed() bool              { return false }
func (s *outside) Log(v ...any)              { fmt.Fprintln(os.Stderr, v...) }
func (s *outside) Logf(f string, v ...any)   { fmt.Fprintf(os.Stderr, f+"\n", v...) }
func (s *outside) Fatal(v ...any)            { panic(failed{fmt.Errorf("%s", fmt.Sprint(v...))}) }
func (s *outside) Fatalf(f string, v ...any) { panic(failed{fmt.Errorf(f, v...)}) }
func (s *outside) Error(v ...any)            { s.Fatal(v...) }
func (s *outside) Errorf(f string, v ...any) { s.Fatalf(f, v...) }
func (s *outside) Skip(v ...any)             { s.Fatal(v...) }
func (s *outside) Skipf(f string, v ...any)  { s.Fatalf(f, v...) }
func (s *outside) Cleanup(f func())          { s.cleanups = append(s.cleanups, f) }

// TempDir makes a folder that ends with f.
func (s *outside) TempDir() string {
	d, err := os.MkdirTemp(s.dir, "d")
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { os.RemoveAll(d) })
	return d
}
