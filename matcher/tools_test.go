package matcher

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// What the tools make that people, and agents, encode with: so that the forms
// above are not of our own making. $V is the value, in the file "v" with "key: "
// before it and a line break after it.
func TestToolsEncode(t *testing.T) {
	commands := []string{
		`base64 v`, `base64 -w0 v`, `base64 -w 20 v`, `openssl base64 -in v`, `openssl enc -base64 -A -in v`, `base64 v | base64`, `base64 -w0 v | base64 -w0 | base64`, `basenc --base64url v`,
		`base32 v`, `base32 -w0 v | tr A-Z a-z`, `basenc --base16 v`, `basenc --base16 -w 30 v`,
		`xxd v`, `xxd -p v`, `xxd -u v`, `xxd -i v`, `xxd -c 8 -g 1 v`, `xxd -g 4 v`, `xxd -g 8 v`, `(cat v; echo and some more text) | xxd -e`, `xxd -ps -c 30 v | base64`,
		`od v`, `od -An -tx1 v`, `od -tx1 v`, `od -A x -t x1z v`, `od -t o1 v`, `od -t u1 v`, `od -An -t u1 -w8 v`, `od -tx2 v`, `od -tx4 v`, `od -tx8 v`, `od -b v`,
		`hexdump v`, `hexdump -C v`, `hexdump -v -e '1/1 "%02x "' v`, `hexdump -v -e '1/1 "%03o "' v`,
		`gzip -c v`, `gzip -9 -c v | base64`, `cat v v v | gzip -c | gzip -c`, `zstd -q -c v`, `zstd -q -19 -c v | base64 -w0`, `zip -q - v`, `zip -q -r - .`, `openssl zlib -e -in v 2>/dev/null || python3 -c 'import zlib,sys; sys.stdout.buffer.write(zlib.compress(open("v","rb").read()))'`, `gzip -c v | xxd -p`, `gzip -c v | xxd`, `tar cf - v`, `tar czf - v`,
		`rev v`, `fold -w 20 v`, `fold -w 7 v`, `sed 's/./& /g' v`, `fold -w 1 v`, `sed 's/./&\r/g' v`, `printf %q "$V"`, `printf '%s' "$V" | jq -R . 2>/dev/null || cat v`, `iconv -f utf-8 -t utf-16 v`, `iconv -f utf-8 -t utf-16be v | base64`, `iconv -f utf-8 -t utf-32 v`,
		`python3 -c 'import os; print(list(os.environ["V"].encode()))'`, `python3 -c 'import os; print([hex(c) for c in os.environ["V"].encode()])'`, `python3 -c 'import os; print(repr(os.environ["V"]))'`, `python3 -c 'import os,base64; print(base64.a85encode(os.environ["V"].encode()))'`,
		`python3 -c 'import os,base64; print(base64.b85encode(os.environ["V"].encode()).decode())'`, `python3 -c 'import os,base64; print(base64.b32encode(os.environ["V"].encode()).decode())'`, `python3 -c 'import os,quopri; print(quopri.encodestring(os.environ["V"].encode()*3).decode())'`,
		`python3 -c 'import os,json; print(json.dumps({"a":json.dumps(os.environ["V"])}))'`, `python3 -c 'import os,urllib.parse as u; print(u.quote(os.environ["V"]))'`, `python3 -c 'import os; print("".join("\\N{U+%04X}"[:0]+"\\u%04x"%ord(c) for c in os.environ["V"]))'`,
		`python3 -c 'import os; print("\u200b".join(os.environ["V"]))'`, `python3 -c 'import os; v=os.environ["V"]; print("x = \"%s\" + \"%s\""%(v[:9],v[9:]))'`, `python3 -c 'import os,html; print("".join("&#%d;"%ord(c) for c in os.environ["V"]))'`, `python3 -c 'import os,base64,bz2,zlib; print(base64.b64encode(zlib.compress(os.environ["V"].encode(),1)).decode())'`,
		`node -e 'console.log(Buffer.from(process.env.V))'`, `node -e 'console.log(JSON.stringify(Buffer.from(process.env.V)))'`, `node -e 'console.log(encodeURIComponent(process.env.V))'`, `node -e 'process.stdout.write(require("zlib").brotliCompressSync("key: "+process.env.V))'`, `node -e 'console.log(Buffer.from(process.env.V,"utf16le").toString("base64"))' | cat - v`,
		`perl -e 'print unpack("H*",$ENV{V}),"\n"'`, `perl -e 'print join(",",map{ord}split//,$ENV{V}),"\n"'`, `perl -MMIME::QuotedPrint -e 'print encode_qp("a "x30 .$ENV{V}." b"x20)'`,
	}
	r := newRand(82)
	for k, v := range []string{"ghp_" + randString(r, alphabet, 36), randString(r, alphabet+"+/=_-", 41), randString(r, alphabet, 16)} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "v"), []byte("key: "+v+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		m := mustNew(t, val("v", v))
		ran := 0
		for i, c := range commands {
			if k > 0 && i%3 != k {
				continue
			}
			cmd := exec.CommandContext(t.Context(), "sh", "-c", c)
			cmd.Dir, cmd.Env = dir, append(os.Environ(), "V="+v, "LC_ALL=C.UTF-8")
			out, err := cmd.Output()
			if err != nil || len(out) == 0 {
				continue // a tool that is not here
			}
			ran++
			want := m.Scan(out)
			if len(want) == 0 {
				t.Errorf("%d bytes: %s: not found in %.400q", len(v), c, out)
				continue
			}
			if bytes.Contains(Mask(nil, out, want, 0), []byte(v)) {
				t.Errorf("%s: not masked", c)
			}
			for range 4 {
				if got := play(t, m, cut(r, out)...); !slices.Equal(got, want) {
					t.Errorf("%s: %v, want %v", c, got, want)
				}
			}
		}
		if k == 0 && ran < len(commands)/2 {
			t.Errorf("only %d of %d commands ran", ran, len(commands))
		}
	}
}
