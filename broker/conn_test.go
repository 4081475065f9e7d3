package broker

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// TestPeekConn looks and reads in turns: every byte comes once and in order, also
// when a look waited in vain, and a connection that is only read keeps no buffer.
func TestPeekConn(t *testing.T) {
	for _, preloaded := range []bool{false, true} {
		client, server := net.Pipe()
		defer client.Close()
		p := Peekable(server)
		if preloaded {
			p = Preload(server, []byte("ab"))
		} else {
			if _, err := p.Peek(1, time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("nothing came, and %v", err)
			}
			go client.Write([]byte("ab"))
		}
		if b, err := p.Peek(2, 0); err != nil || string(b[:1]) != "a" {
			t.Fatalf("peek %q, %v", b, err)
		}
		one := make([]byte, 1)
		read := func(want string) {
			t.Helper()
			if _, err := io.ReadFull(p, one); err != nil || string(one) != want {
				t.Fatalf("read %q, %v, want %q", one, err, want)
			}
		}
		read("a")
		if b, err := p.Peek(8, 0); err != nil || string(b) != "b" {
			t.Fatalf("peek %q, %v", b, err)
		}
		read("b")
		go client.Write([]byte("cde"))
		read("c")
		if b, err := p.Peek(1, 0); err == nil && len(b) == 1 && b[0] != 'd' {
			t.Fatalf("peek %q, %v", b, err)
		}
		read("d")
		read("e")
		go client.Close()
		if _, err := p.Read(one); err != io.EOF {
			t.Fatalf("at the end: %v", err)
		}
		if !preloaded && p.r != nil {
			t.Error("a buffer is kept for nothing")
		}
	}
}
