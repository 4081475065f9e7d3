//go:build unix

package pty

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"
)

// BenchmarkThroughput compares a session with the plain copy that every
// program with a pty does. The agent writes in pieces of the given size; the
// user's terminal is read by a goroutine.
func BenchmarkThroughput(b *testing.B) {
	for _, size := range []int{512, 4 << 10, 64 << 10} {
		for _, kind := range []string{"bare", "guard"} {
			b.Run(fmt.Sprintf("%s/%d", kind, size), func(b *testing.B) {
				um, us := rawPair(b)
				m, s := rawPair(b)
				total := int64(b.N) * int64(size)
				seen, done := make(chan error, 1), make(chan error, 1)
				go func() {
					_, err := io.CopyN(io.Discard, um, total)
					seen <- err
				}()
				tm, err := OpenTerminal(us, us)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(size))
				b.ResetTimer()
				if kind == "bare" {
					go func() {
						io.CopyBuffer(struct{ io.Writer }{us}, struct{ io.Reader }{m}, make([]byte, 64<<10))
						done <- nil
					}()
				} else {
					session := &Session{Master: m, Terminal: tm, Out: passAll}
					go func() { done <- session.Run(context.Background()) }()
				}
				p := make([]byte, size)
				for i := range p {
					p[i] = 'x'
				}
				for range b.N {
					if _, err := s.Write(p); err != nil {
						b.Fatal(err)
					}
				}
				s.Close()
				if err := <-done; err != nil {
					b.Fatal(err)
				}
				if err := <-seen; err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// BenchmarkEcho is a keystroke's way to the agent and back.
func BenchmarkEcho(b *testing.B) {
	for _, kind := range []string{"bare", "guard"} {
		b.Run(kind, func(b *testing.B) {
			um, us := rawPair(b)
			m, s := rawPair(b)
			tm, err := OpenTerminal(us, us)
			if err != nil {
				b.Fatal(err)
			}
			done := make(chan error, 1)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if kind == "bare" {
				go io.Copy(struct{ io.Writer }{m}, struct{ io.Reader }{us})
				go func() { io.Copy(struct{ io.Writer }{us}, struct{ io.Reader }{m}); done <- nil }()
			} else {
				session := &Session{Master: m, Terminal: tm, Out: passAll}
				go func() { done <- session.Run(ctx) }()
			}
			echo := make(chan struct{})
			go func() {
				defer close(echo)
				var p [16]byte
				for {
					n, err := s.Read(p[:])
					if err != nil || p[0] == 'q' {
						return
					}
					s.Write(p[:n])
				}
			}()
			b.ResetTimer()
			var p [16]byte
			for range b.N {
				if _, err := um.Write([]byte("a")); err != nil {
					b.Fatal(err)
				}
				if _, err := um.Read(p[:]); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			um.Write([]byte("q"))
			<-echo
			s.Close()
			<-done
		})
	}
}

func BenchmarkModes(b *testing.B) {
	log := []byte("\x1b[32mok\x1b[0m  \x1b[1mguard/pty\x1b[0m 1.23s some words of a line\r\n")
	var p []byte
	for len(p) < 64<<10 {
		p = append(p, log...)
	}
	b.SetBytes(int64(len(p)))
	var m modes
	for b.Loop() {
		m.feed(p)
	}
}

func BenchmarkTame(b *testing.B) {
	for name, unit := range map[string]string{
		"ascii":   "some words of a line, and more of them\r\n",
		"colours": "\x1b[32mok\x1b[0m  \x1b[1mguard/pty\x1b[0m 1.23s some words of a line\r\n",
		"utf8":    "漢字 Привет ‐–— ✐✛✝ «é»\r\n",
	} {
		b.Run(name, func(b *testing.B) {
			p := bytes.Repeat([]byte(unit), 64<<10/len(unit))
			t := &tame{}
			b.SetBytes(int64(len(p)))
			for b.Loop() {
				t.feed(p)
			}
		})
	}
}
