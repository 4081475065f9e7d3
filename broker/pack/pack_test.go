package pack

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"guard/internal/testutil"
	"io"
	"strings"
	"testing"

	"guard"
)

const canary = "canary-7f3a9c51d2e84b60"

func spooled(t testing.TB, p *testutil.Packfile) *Spool {
	t.Helper()
	s := NewSpool(t.TempDir(), 32<<20)
	s.Write(p.Whole())
	return s
}

func vint(n int) []byte { return binary.AppendUvarint(nil, uint64(n)) }

func ofs(n int) []byte {
	b := []byte{byte(n & 0x7f)}
	for n >>= 7; n > 0; n >>= 7 {
		n--
		b = append([]byte{byte(n&0x7f) | 0x80}, b...)
	}
	return b
}

// delta makes an instruction stream: copies {off, n} and inserted strings.
func delta(src, dst int, ops ...any) []byte {
	d := append(vint(src), vint(dst)...)
	for _, o := range ops {
		switch o := o.(type) {
		case string:
			d = append(append(d, byte(len(o))), o...)
		case [2]int:
			d = append(d, 0x80|0x01|0x02|0x10|0x20, byte(o[0]), byte(o[0]>>8), byte(o[1]), byte(o[1]>>8))
		}
	}
	return d
}

func inspect(t *testing.T, p *testutil.Packfile) error {
	t.Helper()
	s := spooled(t, p)
	defer s.Close()
	return (&pack{src: s, size: s.Size(), hash: 20}).each(func(byte, string) guard.Filter { return knowing(t, canary)() })
}

func TestPackDeltas(t *testing.T) {
	first, second := canary[:12], canary[12:]
	base := []byte("head " + first + " middle " + second + " tail")
	joined := delta(len(base), len(canary), [2]int{5, 12}, [2]int{5 + 12 + 8, len(second)})
	for what, build := range map[string]func(*testutil.Packfile){
		"whole blob": func(p *testutil.Packfile) { b := []byte("x" + canary); p.Add(3, nil, b, len(b)) },
		"commit":     func(p *testutil.Packfile) { b := []byte("tree x\n\n" + canary); p.Add(1, nil, b, len(b)) },
		"tag":        func(p *testutil.Packfile) { b := []byte(canary); p.Add(4, nil, b, len(b)) },
		"copied together": func(p *testutil.Packfile) {
			at := p.Add(3, nil, base, len(base))
			p.Add(6, ofs(p.Len()-at), joined, len(joined))
		},
		"base by name, after the delta": func(p *testutil.Packfile) {
			p.Add(7, testutil.ObjectName("blob", base), joined, len(joined))
			p.Add(3, nil, base, len(base))
		},
		"chain": func(p *testutil.Packfile) {
			at := p.Add(3, nil, base, len(base))
			d := delta(len(base), len(base)+1, [2]int{0, len(base)}, "!")
			at2 := p.Add(6, ofs(p.Len()-at), d, len(d))
			d = delta(len(base)+1, len(canary), [2]int{5, 12}, [2]int{25, len(second)})
			p.Add(6, ofs(p.Len()-at2), d, len(d))
		},
	} {
		p := &testutil.Packfile{}
		build(p)
		var hit *objectHit
		if err := inspect(t, p); !errors.As(err, &hit) {
			t.Errorf("%s: %v", what, err)
		} else if strings.Contains(err.Error(), canary) {
			t.Errorf("%s: the error quotes the secret", what)
		}
	}
	p := &testutil.Packfile{}
	at := p.Add(3, nil, base, len(base))
	d := delta(len(base), 5, [2]int{0, 5})
	p.Add(6, ofs(p.Len()-at), d, len(d))
	if err := inspect(t, p); err != nil {
		t.Errorf("a harmless pack: %v", err)
	}
}

// A value put together from characters of an object that only the server has
// cannot be seen: no such pack goes.
func TestPackThin(t *testing.T) {
	elsewhere := bytes.Repeat([]byte{9}, 20)
	for what, build := range map[string]func(*testutil.Packfile){
		"copies only": func(p *testutil.Packfile) {
			var ops []any
			for i := range len(canary) { // the base is an alphabet
				ops = append(ops, [2]int{int(canary[i]), 1})
			}
			d := delta(256, len(canary), ops...)
			p.Add(7, elsewhere, d, len(d))
		},
		"with a literal": func(p *testutil.Packfile) {
			d := delta(100, 16, [2]int{0, 10}, "harm", [2]int{0, 2})
			p.Add(7, elsewhere, d, len(d))
		},
		"beneath another": func(p *testutil.Packfile) {
			d := delta(100, 20, [2]int{0, 20})
			at := p.Add(7, elsewhere, d, len(d))
			d = delta(20, 5, [2]int{0, 5})
			p.Add(6, ofs(p.Len()-at), d, len(d))
		},
		"beside whole ones": func(p *testutil.Packfile) {
			p.Add(3, nil, []byte("whole"), 5)
			d := delta(100, 20, [2]int{0, 20})
			p.Add(7, elsewhere, d, len(d))
		},
	} {
		p := &testutil.Packfile{}
		build(p)
		if err := inspect(t, p); !errors.Is(err, errThin) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestPackBroken(t *testing.T) {
	base := []byte(strings.Repeat("b", 50))
	for what, build := range map[string]func(*testutil.Packfile){
		"size too small":       func(p *testutil.Packfile) { p.Add(3, nil, base, 10) },
		"size too large":       func(p *testutil.Packfile) { p.Add(3, nil, base, 60) },
		"unknown type":         func(p *testutil.Packfile) { p.Add(5, nil, base, 50) },
		"more than it says":    func(p *testutil.Packfile) { p.Add(3, nil, base, 50); p.N = 0 },
		"fewer than it says":   func(p *testutil.Packfile) { p.Add(3, nil, base, 50); p.N = 3 },
		"bytes after the end":  func(p *testutil.Packfile) { p.Add(3, nil, base, 50); p.WriteString(canary) },
		"base before the pack": func(p *testutil.Packfile) { d := delta(50, 5, [2]int{0, 5}); p.Add(6, ofs(5000), d, len(d)) },
		"its own base":         func(p *testutil.Packfile) { d := delta(50, 5, [2]int{0, 5}); p.Add(6, ofs(0), d, len(d)) },
		"copy beyond the base": func(p *testutil.Packfile) {
			at := p.Add(3, nil, base, 50)
			d := delta(50, 60, [2]int{0, 60})
			p.Add(6, ofs(p.Len()-at), d, len(d))
		},
		"another source size": func(p *testutil.Packfile) {
			at := p.Add(3, nil, base, 50)
			d := delta(40, 5, [2]int{0, 5})
			p.Add(6, ofs(p.Len()-at), d, len(d))
		},
		"grows beyond its size": func(p *testutil.Packfile) {
			at := p.Add(3, nil, base, 50)
			d := delta(50, 5, [2]int{0, 9})
			p.Add(6, ofs(p.Len()-at), d, len(d))
		},
		"a huge result": func(p *testutil.Packfile) {
			at := p.Add(3, nil, base, 50)
			d := delta(50, 1<<40, [2]int{0, 9})
			p.Add(6, ofs(p.Len()-at), d, len(d))
		},
		"a reserved instruction": func(p *testutil.Packfile) {
			at := p.Add(3, nil, base, 50)
			d := append(delta(50, 5), 0)
			p.Add(6, ofs(p.Len()-at), d, len(d))
		},
	} {
		p := &testutil.Packfile{}
		build(p)
		var hit *objectHit
		if err := inspect(t, p); err == nil || errors.As(err, &hit) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestNoThin(t *testing.T) {
	for in, want := range map[string]string{
		"001f# service=git-receive-pack\n0000000bab\x00cap\n0000": "001f# service=git-receive-pack\n00000013ab\x00cap no-thin\n0000",
		"not git": "not git",
		"0000":    "0000",
		"":        "",
	} {
		if got, err := io.ReadAll(NoThin(strings.NewReader(in))); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

func FuzzPack(f *testing.F) {
	p := &testutil.Packfile{}
	at := p.Add(3, nil, []byte("some base"), 9)
	d := delta(9, 4, [2]int{0, 4})
	p.Add(6, ofs(p.Len()-at), d, len(d))
	f.Add(append([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x02"), p.Bytes()...))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := NewSpool(t.TempDir(), 1<<20)
		defer s.Close()
		s.Write(b)
		check := sha1.Sum(b)
		s.Write(check[:])
		(&pack{src: s, size: s.Size(), hash: 20}).each(func(byte, string) guard.Filter {
			return func(p []byte, _ guard.Step) ([]byte, guard.Decision) { return p, guard.Decision{Action: guard.Pass} }
		})
	})
}

// A report's lines are pkt-lines of a length that git takes.
func TestReportIsShort(t *testing.T) {
	p := &Push{Status: true, Sideband: true, Refs: []string{"refs/heads/" + strings.Repeat("x", 60000)}}
	r := bytes.NewReader(p.refuse(guard.Decision{Action: guard.Block, Rule: strings.Repeat("r", 70000)}, "blob").Body())
	for {
		_, flush, err := readPkt(r)
		if err != nil {
			t.Fatal("not pkt-lines: ", err)
		}
		if flush {
			break
		}
	}
}
