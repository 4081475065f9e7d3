package matcher

import (
	"slices"
	"strings"
	"testing"
)

var classMembers = map[class]string{
	classEscape:  "%\\&\x1b\x08\r",
	classNoise:   "\x00\x01\x02\x03\x04\x05\x06\x07\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1c\x1d\x1e\x1f\x7f",
	classLead:    "\xc2\xcf\xe2\xef",
	classQuote:   `"'`,
	classEqual:   "=",
	classDigit64: alphabet + "+/-_",
	classBlank:   "\x00\x01\x02\x03\x04\x05\x06\x07\x08\t\n\x0b\x0c\r\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f ",
	classNumber:  "0123456789abcdefABCDEF :;,\t\n\rxX\"'",
	classHex:     "0123456789abcdefABCDEF",
	classLine:    "\n",
	classHead:    "\x1f\x28Px",
	classUpper32: "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567",
	classLower32: "abcdefghijklmnopqrstuvwxyz234567",
	classPlain:   " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~",
	classTrail:   "\x80\x81\x88\x8b\x8d\xa0\xa1\xa8\xab\xad\xb0\xb1\xb8\xbb\xbd",
	classSecond:  "\x8bK\xb5\x01\x5e\x9a\x9c\xda\xdc",
}

func TestClasses(t *testing.T) {
	r := newRand(50)
	var m classes
	for i := range 2000 {
		b := []byte(randString(r, alphabet+"\x00\x1f\x7f=\"'% \n\xe2\x80\xc2\xad\xfd\x1f\x8b\x9c", r.IntN(300)))
		if i == 0 {
			b = b[:0]
			for c := range 256 {
				b = append(b, byte(c))
			}
		}
		if i%3 == 0 {
			b = append(b, strings.Repeat("a0", r.IntN(60))...)
			b = append(b, '!')
			b = append(b, randString(r, classMembers[[]class{classUpper32, classLower32, classHex}[i%9/3]], r.IntN(100))...)
			b = append(b, '!')
			b = append(b, strings.Repeat("9", r.IntN(60))...)
		}
		from := min(len(b), r.IntN(20))
		m.of(b, from, len(b))
		blocks := len(b[from:]) / 64
		plain := make([]uint64, (blocks+1)*int(classCount))
		for _, helped := range []bool{false, true} {
			if helped {
				classifyBlocks(plain, blocks+1, blocks, b[from:], classTables)
			} else {
				classifyGo(plain, blocks+1, blocks, b[from:], classTables)
			}
			for k := range blocks {
				for c := range classCount {
					want := m.plane(c)[k]
					got := plain[int(c)*(blocks+1)+k]
					if c == classHead || c == classLead || c == classEqual || c == classQuote {
						continue // see below
					}
					if got != want {
						t.Fatalf("block %d, class %d: %x, want %x", k, c, want, got)
					}
				}
			}
		}
		for c := range classCount {
			in := func(i int) bool {
				of := func(c class, i int) bool { return strings.IndexByte(classMembers[c], b[i]) >= 0 }
				more := i+1 < len(b)
				switch {
				case c == classHead && !(more && of(classSecond, i+1)),
					c == classLead && more && !of(classTrail, i+1),
					c == classEqual && more && !of(classLine, i+1) && !of(classEscape, i+1) && !(of(classHex, i+1) && (i+2 == len(b) || of(classHex, i+2))),
					c == classQuote && more && strings.IndexByte(",:;", b[i+1]) >= 0,
					c == classQuote && more && i > from && of(classBlank, i-1) && (of(classUpper32, i+1) || of(classLower32, i+1)):
					return false
				}
				return strings.IndexByte(classMembers[c], b[i]) >= 0
			}
			at := from + r.IntN(len(b)-from+1)
			next, end := at, at
			for next < len(b) && !in(next) {
				next++
			}
			for end < len(b) && in(end) {
				end++
			}
			if got := m.next(c, at); got != next {
				t.Fatalf("class %d: next %d, want %d", c, got, next)
			}
			if got := m.end(c, at); got != end {
				t.Fatalf("class %d: end %d, want %d", c, got, end)
			}
			for _, n := range []int{15, 16, 17, 40, 64, 70} {
				if c != classDigit64 && c != classNumber && c != classHex && c != classUpper32 && c != classLower32 {
					break
				}
				want := len(b)
				for i := at; i < len(b); i++ {
					j := i
					for j < len(b) && in(j) {
						j++
					}
					if j-i >= n {
						want = i
						break
					}
				}
				if got := m.run(c, at, n); got != want {
					t.Fatalf("class %d: run of %d at %d: %d, want %d of %d", c, n, at, got, want, len(b))
				}
			}
			n := 0
			for i := at; i < len(b); i++ {
				if in(i) {
					n++
				}
			}
			if got := m.count(c, at, len(b)); got != n {
				t.Fatalf("class %d: count %d, want %d", c, got, n)
			}
		}
	}
}

func TestRows(t *testing.T) {
	r := newRand(51)
	for range 3000 {
		blocks := r.IntN(12)
		src := make([]uint64, blocks+rowPad)
		for i := range src {
			src[i] = r.Uint64() | r.Uint64() | r.Uint64() | r.Uint64()
		}
		src[blocks] = 0
		want, got := make([]uint64, blocks+rowPad), make([]uint64, blocks+rowPad)
		if any := rows15Go(want, src, blocks); rows15(got, src, blocks) != any || !slices.Equal(got[:blocks], want[:blocks]) {
			t.Fatalf("15 in a row in %x: %x, want %x", src, got, want)
		}
		for i := range src {
			src[i] = ^(src[i] | r.Uint64() | r.Uint64())
		}
		if any := rows32Go(want, src, blocks); rows32(got, src, blocks) != any || !slices.Equal(got[:blocks], want[:blocks]) {
			t.Fatalf("32 in a row that are not in %x: %x, want %x", src, got, want)
		}
	}
}

func TestNeeds(t *testing.T) {
	for _, c := range []byte(introducers) {
		for next := range 256 {
			if got := needs[c]&follows[next] != 0; got != opens(c, byte(next)) {
				t.Errorf("%q %q: %v", c, byte(next), got)
			}
		}
	}
}

func BenchmarkClasses(b *testing.B) {
	data := corpus("text")
	var m classes
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		for i := 0; i < len(data); i += 8 << 10 {
			m.of(data, i, i+8<<10)
			m.run(classDigit64, i, 20)
			m.run(classHex, i, 16)
			m.run(classNumber, i, 18)
		}
	}
}
