package http

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"guard"
)

// packed builds a packfile by hand, as an adversary would.
type packed struct {
	bytes.Buffer
	n uint32
}

func (p *packed) add(kind byte, pre, data []byte, size int) (at int) {
	at = p.Len()
	p.n++
	c := kind<<4 | byte(size&15)
	for size >>= 4; size > 0; size >>= 7 {
		p.WriteByte(c | 0x80)
		c = byte(size & 0x7f)
	}
	p.WriteByte(c)
	p.Write(pre)
	z := zlib.NewWriter(p)
	z.Write(data)
	z.Close()
	return at
}

func (p *packed) spool(t testing.TB) *spool {
	t.Helper()
	s := newSpool(t.TempDir(), 32<<20)
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32([]byte("PACK"), 2), p.n)
	s.Write(head)
	s.Write(p.Bytes())
	sum := sha1.New()
	sum.Write(head)
	sum.Write(p.Bytes())
	s.Write(sum.Sum(nil))
	return s
}

func name(kind string, b []byte) []byte {
	h := sha1.Sum(append(fmt.Appendf(nil, "%s %d\x00", kind, len(b)), b...))
	return h[:]
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

func inspect(t *testing.T, p *packed) error {
	t.Helper()
	s := p.spool(t)
	defer s.Close()
	return (&pack{src: s, size: s.Size(), hash: 20}).each(func(byte, string) guard.Filter { return search(guard.Block, map[string]string{canary: ""}, nil) })
}

func TestPackDeltas(t *testing.T) {
	first, second := canary[:12], canary[12:]
	base := []byte("head " + first + " middle " + second + " tail")
	joined := delta(len(base), len(canary), [2]int{5, 12}, [2]int{5 + 12 + 8, len(second)})
	for what, build := range map[string]func(*packed){
		"whole blob": func(p *packed) { b := []byte("x" + canary); p.add(3, nil, b, len(b)) },
		"commit":     func(p *packed) { b := []byte("tree x\n\n" + canary); p.add(1, nil, b, len(b)) },
		"tag":        func(p *packed) { b := []byte(canary); p.add(4, nil, b, len(b)) },
		"copied together": func(p *packed) {
			at := p.add(3, nil, base, len(base))
			p.add(6, ofs(p.Len()-at), joined, len(joined))
		},
		"base by name, after the delta": func(p *packed) {
			p.add(7, name("blob", base), joined, len(joined))
			p.add(3, nil, base, len(base))
		},
		"chain": func(p *packed) {
			at := p.add(3, nil, base, len(base))
			d := delta(len(base), len(base)+1, [2]int{0, len(base)}, "!")
			at2 := p.add(6, ofs(p.Len()-at), d, len(d))
			d = delta(len(base)+1, len(canary), [2]int{5, 12}, [2]int{25, len(second)})
			p.add(6, ofs(p.Len()-at2), d, len(d))
		},
	} {
		p := &packed{}
		build(p)
		var hit *objectHit
		if err := inspect(t, p); !errors.As(err, &hit) {
			t.Errorf("%s: %v", what, err)
		} else if strings.Contains(err.Error(), canary) {
			t.Errorf("%s: the error quotes the secret", what)
		}
	}
	p := &packed{}
	at := p.add(3, nil, base, len(base))
	d := delta(len(base), 5, [2]int{0, 5})
	p.add(6, ofs(p.Len()-at), d, len(d))
	if err := inspect(t, p); err != nil {
		t.Errorf("a harmless pack: %v", err)
	}
}

// A value put together from characters of an object that only the server has
// cannot be seen: no such pack goes.
func TestPackThin(t *testing.T) {
	elsewhere := bytes.Repeat([]byte{9}, 20)
	for what, build := range map[string]func(*packed){
		"copies only": func(p *packed) {
			var ops []any
			for i := range len(canary) { // the base is an alphabet
				ops = append(ops, [2]int{int(canary[i]), 1})
			}
			d := delta(256, len(canary), ops...)
			p.add(7, elsewhere, d, len(d))
		},
		"with a literal": func(p *packed) {
			d := delta(100, 16, [2]int{0, 10}, "harm", [2]int{0, 2})
			p.add(7, elsewhere, d, len(d))
		},
		"beneath another": func(p *packed) {
			d := delta(100, 20, [2]int{0, 20})
			at := p.add(7, elsewhere, d, len(d))
			d = delta(20, 5, [2]int{0, 5})
			p.add(6, ofs(p.Len()-at), d, len(d))
		},
		"beside whole ones": func(p *packed) {
			p.add(3, nil, []byte("whole"), 5)
			d := delta(100, 20, [2]int{0, 20})
			p.add(7, elsewhere, d, len(d))
		},
	} {
		p := &packed{}
		build(p)
		if err := inspect(t, p); !errors.Is(err, errThin) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestPackBroken(t *testing.T) {
	base := []byte(strings.Repeat("b", 50))
	for what, build := range map[string]func(*packed){
		"size too small":       func(p *packed) { p.add(3, nil, base, 10) },
		"size too large":       func(p *packed) { p.add(3, nil, base, 60) },
		"unknown type":         func(p *packed) { p.add(5, nil, base, 50) },
		"more than it says":    func(p *packed) { p.add(3, nil, base, 50); p.n = 0 },
		"fewer than it says":   func(p *packed) { p.add(3, nil, base, 50); p.n = 3 },
		"bytes after the end":  func(p *packed) { p.add(3, nil, base, 50); p.WriteString(canary) },
		"base before the pack": func(p *packed) { d := delta(50, 5, [2]int{0, 5}); p.add(6, ofs(5000), d, len(d)) },
		"its own base":         func(p *packed) { d := delta(50, 5, [2]int{0, 5}); p.add(6, ofs(0), d, len(d)) },
		"copy beyond the base": func(p *packed) {
			at := p.add(3, nil, base, 50)
			d := delta(50, 60, [2]int{0, 60})
			p.add(6, ofs(p.Len()-at), d, len(d))
		},
		"another source size": func(p *packed) {
			at := p.add(3, nil, base, 50)
			d := delta(40, 5, [2]int{0, 5})
			p.add(6, ofs(p.Len()-at), d, len(d))
		},
		"grows beyond its size": func(p *packed) {
			at := p.add(3, nil, base, 50)
			d := delta(50, 5, [2]int{0, 9})
			p.add(6, ofs(p.Len()-at), d, len(d))
		},
		"a huge result": func(p *packed) {
			at := p.add(3, nil, base, 50)
			d := delta(50, 1<<40, [2]int{0, 9})
			p.add(6, ofs(p.Len()-at), d, len(d))
		},
		"a reserved instruction": func(p *packed) {
			at := p.add(3, nil, base, 50)
			d := append(delta(50, 5), 0)
			p.add(6, ofs(p.Len()-at), d, len(d))
		},
	} {
		p := &packed{}
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
		if got, err := io.ReadAll(noThin(strings.NewReader(in))); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

func FuzzPack(f *testing.F) {
	p := &packed{}
	at := p.add(3, nil, []byte("some base"), 9)
	d := delta(9, 4, [2]int{0, 4})
	p.add(6, ofs(p.Len()-at), d, len(d))
	f.Add(append([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x02"), p.Bytes()...))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := newSpool(t.TempDir(), 1<<20)
		defer s.Close()
		s.Write(b)
		check := sha1.Sum(b)
		s.Write(check[:])
		(&pack{src: s, size: s.Size(), hash: 20}).each(func(byte, string) guard.Filter {
			return func(p []byte, _ guard.Step) ([]byte, guard.Decision) { return p, guard.Decision{Action: guard.Pass} }
		})
	})
}
