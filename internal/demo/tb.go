package main

import (
	"fmt"
	"os"
	"testing"
)

// stage lets the demo use the servers of package testutil, which are made for
// tests: what fails ends the demo, and what was started ends with it.
type stage struct {
	testing.TB // for the methods that the demo does not reach
	cleanups   []func()
	dirs       string
}

// failed ends the demo from the inside of a helper.
type failed struct{ err error }

func (s *stage) Helper()                   {}
func (s *stage) Name() string              { return "demo" }
func (s *stage) Log(v ...any)              { fmt.Fprintln(os.Stderr, v...) }
func (s *stage) Logf(f string, v ...any)   { fmt.Fprintf(os.Stderr, f+"\n", v...) }
func (s *stage) Fatal(v ...any)            { panic(failed{fmt.Errorf("%s", fmt.Sprint(v...))}) }
func (s *stage) Fatalf(f string, v ...any) { panic(failed{fmt.Errorf(f, v...)}) }
func (s *stage) Error(v ...any)            { s.Fatal(v...) }
func (s *stage) Errorf(f string, v ...any) { s.Fatalf(f, v...) }
func (s *stage) Failed() bool              { return false }
func (s *stage) Cleanup(f func())          { s.cleanups = append(s.cleanups, f) }

// TempDir makes a folder that goes with the demo.
func (s *stage) TempDir() string {
	d, err := os.MkdirTemp(s.dirs, "d")
	if err != nil {
		s.Fatal(err)
	}
	return d
}

// run calls f and cleans up whatever comes of it.
func (s *stage) run(f func()) (err error) {
	defer func() {
		for i := len(s.cleanups) - 1; i >= 0; i-- {
			s.cleanups[i]()
		}
	}()
	defer func() {
		if r := recover(); r != nil {
			f, ok := r.(failed)
			if !ok {
				panic(r)
			}
			err = f.err
		}
	}()
	f()
	return nil
}
