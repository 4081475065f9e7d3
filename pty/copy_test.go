package pty

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"guard"
)

// ways are the two kinds of source that Copy has.
var ways = map[string]func(r *os.File) io.Reader{
	"file":   func(r *os.File) io.Reader { return r },
	"reader": func(r *os.File) io.Reader { return struct{ io.Reader }{r} },
}

func TestCopySplitAtEveryByte(t *testing.T) {
	const word = "sesame-open-now"
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			for cut := 1; cut < len(word); cut++ {
				r, w, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				out := newScreen()
				f := &wordFilter{word: word, action: guard.Redact}
				done := make(chan error, 1)
				go func() { done <- Copy(out, way(r), f.filter, time.Millisecond, time.Hour) }()
				w.WriteString("<" + word[:cut])
				if cut < longTail {
					out.waitFor(t, "<"+word[:cut])
				} else {
					out.waitFor(t, "<")
				}
				w.WriteString(word[cut:] + ">")
				w.Close()
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				r.Close()
				want := "<" + strings.Repeat("*", len(word)) + ">"
				if cut < longTail {
					want = "<" + word[:cut] + strings.Repeat("*", len(word)-cut) + ">"
				}
				if out.String() != want {
					t.Errorf("cut %d: %q, want %q", cut, out, want)
				}
				if last := f.steps[len(f.steps)-1]; last != guard.End {
					t.Errorf("last step is %d", last)
				}
			}
			noGoroutines(t)
		})
	}
}

func TestCopyStops(t *testing.T) {
	for name, way := range ways {
		for _, action := range []guard.Action{guard.Kill, guard.Block} {
			t.Run(name+" "+action.String(), func(t *testing.T) {
				r, w, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				var out bytes.Buffer
				f := &wordFilter{word: "sesame-open-now", action: action}
				wrote := make(chan error, 1)
				go func() {
					defer w.Close()
					_, err := w.WriteString("before sesame-open-now after")
					if action == guard.Block {
						_, err = w.Write(make([]byte, 1<<20)) // does not hang
					}
					wrote <- err
				}()
				err = Copy(&out, way(r), f.filter, 0, 0)
				var stop *StoppedError
				if !errors.As(err, &stop) || stop.Decision.Action != action {
					t.Fatalf("Copy returned %v", err)
				}
				if err := <-wrote; err != nil {
					t.Error(err)
				}
				if out.String() != "before " {
					t.Errorf("wrote %q", tail(out.String()))
				}
				noGoroutines(t)
			})
		}
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestCopyReportsItsSides(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			w.WriteString("x")
			w.Close()
			if err := Copy(broken{}, way(r), passAll, 0, 0); !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("broken destination: %v", err)
			}
			if err := Copy(io.Discard, way(r), nil, 0, 0); err == nil {
				t.Error("copied without a filter")
			}
			noGoroutines(t)
		})
	}
	if err := Copy(io.Discard, io.MultiReader(strings.NewReader("x"), failing{}), passAll, 0, 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("failing source: %v", err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// Nothing held back means no Pause, however long the silence.
func TestNoPauseWithoutATail(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out := newScreen()
	f := &wordFilter{word: "sesame-open-now"}
	done := make(chan error, 1)
	go func() { done <- Copy(out, r, f.filter, time.Microsecond, time.Microsecond) }()
	for range 50 {
		w.WriteString("x")
		time.Sleep(100 * time.Microsecond) // silence is what is tested
	}
	w.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, s := range f.steps {
		if s == guard.Pause {
			t.Fatal("the filter was told of a pause")
		}
	}
}
