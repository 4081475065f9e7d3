//go:build unix

package pty

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"guard/internal/testutil"
)

func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// relaying starts Relay and returns what waits for its end.
func relaying(t testing.TB, ctx context.Context, dst, src *os.File) func() error {
	done := make(chan error, 1)
	go func() { done <- Relay(ctx, dst, src) }()
	return func() error {
		t.Helper()
		select {
		case err := <-done:
			return err
		case <-time.After(30 * time.Second):
			t.Fatal("Relay did not return")
			return nil
		}
	}
}

func TestRelayCopiesEverything(t *testing.T) {
	testutil.Leftovers(t)
	want := make([]byte, 3<<20)
	rand.Read(want)
	path := filepath.Join(t.TempDir(), "input")
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"file", "pipe", "blocking"} {
		t.Run(kind, func(t *testing.T) {
			r, w := pipe(t)
			var src *os.File
			if kind == "file" {
				f, err := os.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				src = f
			} else {
				in, feed := pipe(t)
				src = in
				go func() { feed.Write(want); feed.Close() }()
			}
			if kind == "blocking" {
				w.Fd() // from here on a write to it blocks
				src.Fd()
			}
			ended := relaying(t, t.Context(), w, src)
			got := make(chan []byte, 1)
			go func() { b, _ := io.ReadAll(r); got <- b }()
			if err := ended(); err != nil {
				t.Fatal(err)
			}
			w.Close()
			if b := <-got; !bytes.Equal(b, want) {
				t.Errorf("%d of %d bytes, or other ones", len(b), len(want))
			}
		})
	}
	noGoroutines(t)
}

func TestRelayEnds(t *testing.T) {
	testutil.Leftovers(t)
	cause := errors.New("the agent ended")
	t.Run("silent source", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		src, feed := pipe(t)
		r, dst := pipe(t)
		ended := relaying(t, ctx, dst, src)
		feed.WriteString("one")
		if _, err := io.ReadFull(r, make([]byte, 3)); err != nil {
			t.Fatal(err)
		}
		cancel(cause)
		if err := ended(); !errors.Is(err, cause) {
			t.Errorf("returned %v", err)
		}
		feed.WriteString("two") // is the next reader's
		b := make([]byte, 8)
		if n, err := src.Read(b); err != nil || string(b[:n]) != "two" {
			t.Errorf("the next reader got %q, %v", b[:n], err)
		}
	})
	t.Run("full destination", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		src, feed := pipe(t)
		_, dst := pipe(t)
		dst.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
		if n, err := dst.Write(make([]byte, 4<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("the pipe took %d bytes, %v", n, err)
		}
		feed.WriteString("waits")
		ended := relaying(t, ctx, dst, src)
		cancel(cause)
		if err := ended(); !errors.Is(err, cause) {
			t.Errorf("returned %v", err)
		}
		b := make([]byte, 8)
		if n, err := src.Read(b); err != nil || string(b[:n]) != "waits" {
			t.Errorf("the next reader got %q, %v", b[:n], err)
		}
	})
	t.Run("reader gone while the source is silent", func(t *testing.T) {
		src, _ := pipe(t)
		r, dst := pipe(t)
		ended := relaying(t, t.Context(), dst, src)
		r.Close()
		if err := ended(); !errors.Is(err, unix.EPIPE) {
			t.Errorf("returned %v", err)
		}
	})
	t.Run("terminal", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		user, tty := pair(t)
		r, dst := pipe(t)
		ended := relaying(t, ctx, dst, tty)
		user.WriteString("a line\n")
		b := make([]byte, 7)
		if _, err := io.ReadFull(r, b); err != nil || string(b) != "a line\n" {
			t.Fatalf("got %q, %v", b, err)
		}
		cancel(cause)
		if err := ended(); !errors.Is(err, cause) {
			t.Errorf("returned %v", err)
		}
		flags, err := unix.FcntlInt(tty.Fd(), unix.F_GETFL, 0)
		if err != nil || flags&unix.O_NONBLOCK != 0 {
			t.Errorf("the terminal was left in non-blocking mode (%x, %v)", flags, err)
		}
	})
	noGoroutines(t)
}

func TestRelayRefusesFolders(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	_, w := pipe(t)
	if err := Relay(t.Context(), w, dir); !errors.Is(err, unix.EISDIR) || !strings.Contains(err.Error(), "folder") {
		t.Errorf("a folder: %v", err)
	}
	if err := Relay(t.Context(), w, nil); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("nothing: %v", err)
	}
}
