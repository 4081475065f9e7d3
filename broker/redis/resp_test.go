package redis

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"strings"
	"testing"
)

func sha(s string) []byte {
	b := sha256.Sum256([]byte(s))
	return b[:]
}

func TestRequestsAreStrict(t *testing.T) {
	var r request
	for _, bad := range []string{
		"*01\r\n$4\r\nPING\r\n", "*+1\r\n$4\r\nPING\r\n", "*1\n$4\r\nPING\r\n", "*1\r\n$4\nPING\r\n", "*1\r\n$-1\r\n", "*1\r\n$04\r\nPING\r\n", "*1\r\n$4\r\nPINGxx", "*1\r\n:4\r\n",
		"*1\r\n$4 \r\nPING\r\n", "*9999999\r\n", "*1\r\n$999999999999\r\n", "*x\r\n", "*\r\n", "*1\r\n$\r\n", "*1\r\n$-0\r\n", "*1" + strings.Repeat("1", 100),
	} {
		if err := r.parse([]byte(bad)); err == nil {
			t.Errorf("%q: %d arguments of %d, %d bytes", bad, len(r.args), r.argc, r.size)
		}
	}
	whole := "*3\r\n$3\r\nSET\r\n$0\r\n\r\n$12\r\n*1\r\n$1\r\nx\r\ny\r\n"
	for n := range len(whole) {
		if err := r.parse([]byte(whole[:n])); err != nil || r.size != 0 {
			t.Errorf("%q: %v, %d", whole[:n], err, r.size)
		}
	}
	if err := r.parse([]byte(whole + "*1")); err != nil || r.size != len(whole) || string(r.args[2]) != "*1\r\n$1\r\nx\r\ny" {
		t.Errorf("%v %q", err, r.args)
	}
}

func TestInline(t *testing.T) {
	for in, want := range map[string][]string{
		"PING": {"PING"}, "  set  a\tb ": {"set", "a", "b"}, `set a "b c"`: {"set", "a", "b c"}, `set a "\x41\n\"\\"`: {"set", "a", "A\n\"\\"}, `set a 'b\'c\n'`: {"set", "a", `b'c\n`},
		"": nil, `set a ""`: {"set", "a", ""}, `a "b"c`: {"!"}, `a "b`: {"!"}, `a 'b`: {"!"}, `a"b"`: {"ab"}, `"\x4"`: {"x4"},
	} {
		args, err := inline([]byte(in))
		var got []string
		for _, a := range args {
			got = append(got, string(a))
		}
		if err != nil {
			got = []string{"!"}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// The end of each reply is found, however the bytes come.
func TestWalker(t *testing.T) {
	replies := []string{
		"+OK\r\n", "-ERR x\r\n", ":1\r\n", ":-123\r\n", "$-1\r\n", "$0\r\n\r\n", "$5\r\na\r\nbc\r\n", "*0\r\n", "*-1\r\n", "*2\r\n$1\r\na\r\n*2\r\n:1\r\n*0\r\n", "%1\r\n+a\r\n:1\r\n", "~2\r\n:1\r\n:2\r\n",
		"_\r\n", "#t\r\n", ",1.5\r\n", "(123456789012345678901\r\n", "!5\r\nERR x\r\n", "=6\r\ntxt:ab\r\n", "|1\r\n+ttl\r\n:1\r\n$1\r\na\r\n", ">2\r\n+a\r\n%1\r\n$1\r\na\r\n$-1\r\n", "*1\r\n|1\r\n+a\r\n+b\r\n:1\r\n",
	}
	stream := []byte(strings.Join(replies, ""))
	for size := 1; size < 40; size++ {
		var w walker
		var ends []int
		var b []byte
		base := 0
		for at := 0; at < len(stream); at += size {
			b = append(b, stream[at:min(at+size, len(stream))]...)
			i := 0
			for i < len(b) {
				next, whole, err := w.step(b, i)
				if err != nil {
					t.Fatal(err)
				}
				if next < 0 {
					break
				}
				if i = next; whole {
					ends = append(ends, base+i)
				}
			}
			base += i
			b = b[i:]
		}
		var want []int
		n := 0
		for _, r := range replies {
			n += len(r)
			want = append(want, n)
		}
		if !slices.Equal(ends, want) {
			t.Fatalf("pieces of %d: %v, want %v", size, ends, want)
		}
	}
	for _, bad := range []string{"x\r\n", "*x\r\n", "$-2\r\n", "*99999999999999\r\n", "\r\n", "*1\r\nfoo\r\n", "$1\rx"} {
		var w walker
		i, err := 0, error(nil)
		for i >= 0 && i < len(bad) && err == nil {
			i, _, err = w.step([]byte(bad), i)
		}
		if err == nil {
			t.Errorf("%q passes", bad)
		}
	}
}

func TestSwapAtEverySplit(t *testing.T) {
	d, p := []byte(strings.Repeat("0123456789abcdef", 4)), []byte(strings.Repeat("fedcba9876543210", 4))
	in := "user a on #" + string(d) + " ~*, #" + string(d[:60]) + string(d) + " end"
	want := "user a on #" + string(p) + " ~*, #" + string(d[:60]) + string(p) + " end"
	r := reader{digests: [2][]byte{d, p}}
	if got := r.swap([]byte(in)); string(got) != want {
		t.Errorf("%q", got)
	}
	for cut := range len(in) {
		r := reader{digests: [2][]byte{d, p}}
		got := string(r.swap([]byte(in[:cut]))) + string(r.swap([]byte(in[cut:])))
		if strings.Count(got, string(d)) > 0 {
			t.Errorf("cut at %d: %q", cut, got)
		}
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\nab\r\n"))
	f.Add([]byte("*1\r\n$4\r\nPING\r\nGET \"a b\"\r\n*0\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || b[0] != '*' { // what parse is called for
			_, _ = inline(b)
			return
		}
		var r request
		if err := r.parse(b); err != nil {
			return
		}
		if r.size > len(b) || r.over > len(b) || len(r.args) > r.argc {
			t.Fatalf("size %d, over %d of %d", r.size, r.over, len(b))
		}
		if r.size > 0 && r.argc > 0 && !bytes.Equal(command(r.args...), b[:r.size]) {
			t.Fatalf("read as %q, which is %q on the wire", r.args, command(r.args...))
		}
		_, _ = inline(b)
	})
}

func FuzzReply(f *testing.F) {
	f.Add([]byte("*2\r\n$1\r\na\r\n%1\r\n+a\r\n:1\r\n"), 3)
	f.Add([]byte("|1\r\n+a\r\n+b\r\n>1\r\n_\r\n$-1\r\n"), 1)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		ends := func(pieces ...[]byte) (out []int) {
			var w walker
			var have []byte
			base := 0
			for _, p := range pieces {
				have = append(have, p...)
				i := 0
				for i < len(have) {
					next, whole, err := w.step(have, i)
					if err != nil || next < 0 {
						if err != nil {
							return append(out, -1)
						}
						break
					}
					if next < i || next > len(have) {
						t.Fatal("goes back, or over the end")
					}
					if i = next; whole {
						out = append(out, base+i)
					}
				}
				base += i
				have = have[i:]
			}
			return out
		}
		if cut < 0 || cut > len(b) {
			return
		}
		one, two := ends(b), ends(b[:cut], b[cut:])
		if !slices.Equal(one, two) {
			t.Fatalf("%v whole, %v cut", one, two)
		}
	})
}
