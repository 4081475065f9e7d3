//go:build linux

package supervisor

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	creack "github.com/creack/pty"
	"golang.org/x/term"

	"guard"
	"guard/matcher"
	"guard/pty"
)

func benchLine(b *testing.B) *Line {
	var values []guard.Value
	for i := range 20 {
		values = append(values, guard.Value{ID: guard.SecretID{Name: fmt.Sprint("v", i)}, Secret: guard.NewSecret(fmt.Appendf(nil, "tk%dn_abcdEFGH1234ijklMNOP5678qr%d", i*7919, i))})
	}
	m, err := matcher.New(values)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { m.Close() })
	return &Line{Matcher: m, Decide: func(guard.Leak) guard.Decision { return guard.Decision{Action: guard.Redact} },
		Record: func(guard.Leak, guard.Decision) (uint64, error) { return 1, nil }}
}

// outputs are what programs write to a terminal, about 1 MiB of each.
func outputs() map[string][]byte {
	out := map[string][]byte{"yes": bytes.Repeat([]byte("y\n"), 1<<19)}
	var find, log, prose, full strings.Builder
	for i := 0; find.Len() < 1<<20; i++ {
		fmt.Fprintf(&find, "/usr/share/doc/lib%d-dev/examples/part%d/changelog.Debian.gz\n", i%977, i%13)
	}
	for i := 0; log.Len() < 1<<20; i++ {
		fmt.Fprintf(&log, "\x1b[2m2026-01-02T15:04:%02d\x1b[0m \x1b[3%dm INFO\x1b[0m  \x1b[1mguard/pty\x1b[0m request %d took 1.%02ds, some words of a line\n", i%60, i%8, i, i%100)
	}
	for i := 0; prose.Len() < 1<<20; i++ {
		fmt.Fprintf(&prose, "%d drwxr-xr-x  2 root root  %5d Jan  2 15:04 some-name-%d\n", i%7, i*37%99999, i)
	}
	for i := 0; full.Len() < 1<<20; i++ {
		full.WriteString("\x1b[H")
		for r := range 24 {
			fmt.Fprintf(&full, "\x1b[%d;1H\x1b[3%dm%-40s\x1b[m│%38d\x1b[K", r+1, (i+r)%8, fmt.Sprintf("row %d of frame %d, words in it", r, i), i*r)
		}
	}
	// What internal/bench paints: a whole screen, and a part of one.
	var whole, parts strings.Builder
	for i := 0; whole.Len() < 1<<20; i++ {
		whole.WriteString("\x1b[?2026h\x1b[H")
		for r := range 49 {
			fmt.Fprintf(&whole, "\x1b[%d;1H\x1b[3%dm%-60s\x1b[m│\x1b[1m%7d\x1b[m %3d.%d%% │ %-70s\x1b[K", r+1, r%8, fmt.Sprintf("row %d, a name of something", r), 1000+r*37, (i*r)%100, i%10, fmt.Sprintf("/usr/lib/some/program --with=%d", r))
		}
		whole.WriteString("\x1b[?2026l")
	}
	parts.WriteString("\x1b[2J\x1b[20;50r")
	for i := 0; parts.Len() < 1<<20; i++ {
		for k := range 8 {
			fmt.Fprintf(&parts, "\x1b[%d;%dH\x1b[1m%5d\x1b[m", 2+k*2, 20+k*10, (i*k)%99999)
		}
		fmt.Fprintf(&parts, "\x1b[19;1H\x1b[7m%*s\x1b[m\x1b[K\x1b[50;1H\n\x1b[36mmessage %d\x1b[m of a log in a region of its own", 30+i%40, "some words in a bar", i)
	}
	out["whole"], out["parts"] = []byte(whole.String()), []byte(parts.String())
	out["find"], out["log"], out["ls"], out["frames"] = []byte(find.String()), []byte(log.String()), []byte(prose.String()), []byte(full.String())
	return out
}

// BenchmarkFilter: the filters by themselves.
func BenchmarkFilter(b *testing.B) {
	for name, p := range outputs() {
		p = bytes.ReplaceAll(p, []byte("\n"), []byte("\r\n"))
		for _, kind := range []string{"stream", "screen"} {
			rows, cols := 24, 80
			if name == "whole" || name == "parts" {
				rows, cols = 50, 200
			}
			b.Run(name+"/"+kind, func(b *testing.B) {
				l := benchLine(b)
				f := l.Open(guard.Origin{})
				if kind == "screen" {
					f, _ = l.OpenScreen(guard.Origin{}, rows, cols)
				}
				b.SetBytes(int64(len(p)))
				for b.Loop() {
					for i := 0; i < len(p); i += 4096 {
						f(p[i:min(i+4096, len(p))], guard.More)
					}
				}
			})
		}
	}
}

// BenchmarkTerminal: a program's output through two terminals, with a plain copy
// between them, with the stream's filter, and with the screen's.
func BenchmarkTerminal(b *testing.B) {
	for name, p := range outputs() {
		for _, kind := range []string{"bare", "stream", "screen"} {
			rows, cols := 24, 80
			b.Run(name+"/"+kind, func(b *testing.B) {
				um, us := open(b)
				m, s := open(b)
				if _, err := term.MakeRaw(int(us.Fd())); err != nil {
					b.Fatal(err)
				}
				tm, err := pty.OpenTerminal(us, us)
				if err != nil {
					b.Fatal(err)
				}
				l := benchLine(b)
				done := make(chan struct{})
				b.SetBytes(int64(len(p)))
				shown := make(chan struct{})
				go func() {
					defer close(shown)
					io.Copy(io.Discard, struct{ io.Reader }{um})
				}()
				b.ResetTimer()
				go func() {
					defer close(done)
					if kind == "bare" {
						io.CopyBuffer(struct{ io.Writer }{us}, struct{ io.Reader }{m}, make([]byte, 64<<10))
						return
					}
					f := l.Open(guard.Origin{})
					if kind == "screen" {
						f, _ = l.OpenScreen(guard.Origin{}, rows, cols)
					}
					(&pty.Session{Master: m, Terminal: tm, Out: f}).Run(context.Background())
				}()
				for range b.N {
					if _, err := s.Write(p); err != nil {
						b.Fatal(err)
					}
				}
				s.Close()
				<-done
				b.StopTimer()
				us.Close()
				<-shown
			})
		}
	}
}

func open(b *testing.B) (master, slave *os.File) {
	m, s, err := creack.Open()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { m.Close(); s.Close() })
	return m, s
}
