package matcher

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/ascii85"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"mime/quotedprintable"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

func squeeze(t testing.TB, w io.WriteCloser, b *bytes.Buffer, s string) string {
	t.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func gzipped(t testing.TB, s string) string {
	var b bytes.Buffer
	return squeeze(t, gzip.NewWriter(&b), &b, s)
}

func zlibbed(t testing.TB, s string) string {
	var b bytes.Buffer
	return squeeze(t, zlib.NewWriter(&b), &b, s)
}

func zstdded(t testing.TB, s string) string {
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	return squeeze(t, w, &b, s)
}

func brotlied(t testing.TB, s string) string {
	var b bytes.Buffer
	return squeeze(t, brotli.NewWriter(&b), &b, s)
}

func zipped(t testing.TB, s string) string {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create("some/file.txt")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func each(s, format, between string) string {
	var out []string
	for _, c := range []byte(s) {
		out = append(out, fmt.Sprintf(format, c))
	}
	return strings.Join(out, between)
}

func quoted(t testing.TB, s string) string {
	var b strings.Builder
	w := quotedprintable.NewWriter(&b)
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// dump is what xxd prints.
func dump(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i += 16 {
		row := s[i:min(i+16, len(s))]
		fmt.Fprintf(&b, "%08x:", i)
		for k := 0; k < 16; k++ {
			if k%2 == 0 {
				b.WriteByte(' ')
			}
			if k < len(row) {
				fmt.Fprintf(&b, "%02x", row[k])
			} else {
				b.WriteString("  ")
			}
		}
		b.WriteString("  " + strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return '.'
			}
			return r
		}, row) + "\n")
	}
	return b.String()
}

// mixedHex has digits of both cases.
func mixedHex(s string) string {
	h := []byte(hex.EncodeToString([]byte(s)))
	for i := range h {
		if i%3 == 0 {
			h[i] = bytes.ToUpper(h[i : i+1])[0]
		}
	}
	return string(h)
}

func reversed(s string) string {
	b := []byte(s)
	slices.Reverse(b)
	return string(b)
}

// forms are the ways in which v can be written that are looked for. pre and post
// are encoded with it, where there is something around it.
func forms(t testing.TB, v, pre, post string) map[string]string {
	whole := pre + v + post
	std, raw, urls := base64.StdEncoding.EncodeToString, base64.RawStdEncoding.EncodeToString, base64.URLEncoding.EncodeToString
	b := []byte(whole)
	js, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	js2, _ := json.Marshal(string(js))
	var x bytes.Buffer
	if err := xml.EscapeText(&x, b); err != nil {
		t.Fatal(err)
	}
	a85 := make([]byte, ascii85.MaxEncodedLen(len(b)))
	a85 = a85[:ascii85.Encode(a85, b)]
	half, quarter := len(v)/2, len(v)/4
	cut := func(s string) string { return pre + v[:half] + s + v[half:] + post }
	sql, shell := strings.ReplaceAll(whole, "'", "''"), strings.ReplaceAll(whole, "'", `'\''`)
	f := map[string]string{
		"raw": whole, "base64": std(b), "base64 without padding": raw(b), "base64url": urls(b),
		"base64 wrapped at 64": wrap(std(b), 64, "\n"), "base64 wrapped at 76": wrap(std(b), 76, "\r\n"), "base64 wrapped at 20": wrap(std(b), 20, "\n"),
		"base64 behind a prompt": "user@host:~/some/where$ echo " + wrap(std(b), 30, "\r\n"),
		"hex":                    hex.EncodeToString(b), "HEX": strings.ToUpper(hex.EncodeToString(b)), "Hex": mixedHex(whole),
		"hex with blanks": each(whole, "%02x", " "), "hex with colons": each(whole, "%02X", ":"), "hex with commas": each(whole, "%02x", ","),
		"hex list": "[" + each(whole, "%#02x", ", ") + "]", "hex list on lines": "{\n  " + wrap(each(whole, "0x%02x,", " "), 48, "\n  ") + "\n}",
		"xxd": dump(whole), "xxd -p": wrap(hex.EncodeToString(b), 60, "\n"),
		"percent": url.QueryEscape(whole), "percent, all": each(whole, "%%%02x", ""), "percent twice": url.QueryEscape(url.PathEscape(whole)),
		"json": string(js), "json in json": string(js2), "json \\u": each(whole, `\u%04x`, ""),
		"\\x": each(whole, `\x%02x`, ""), "octal escapes": each(whole, `\%03o`, ""), "octal list": each(whole, "%03o", " "), "C octal list": each(whole, "0%o", ", "),
		"decimal list": "[" + each(whole, "%d", ", ") + "]", "decimal": each(whole, "%d", " "), "decimal, commas": each(whole, "%d", ","),
		"python": strconv.QuoteToASCII(whole), "shell": "'" + shell + "'", "shell $''": "$'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(whole) + "'", "sql": "'" + sql + "'",
		"csv": `"` + strings.ReplaceAll(whole, `"`, `""`) + `"`, "xml": x.String(), "html, all": each(whole, "&#%d;", ""), "html, all in hex": each(whole, "&#x%X;", ""),
		"utf-16le": string(utf16Bytes(whole, false)), "utf-16be": string(utf16Bytes(whole, true)), "utf-32": each(whole, "%c\x00\x00\x00", ""),
		"quoted-printable": quoted(t, strings.Repeat("some words before it ", 3)+whole+" and some words after it, so that a line gets long"), "quoted-printable, all": each(whole, "=%02X", ""),
		"base32": base32.StdEncoding.EncodeToString(b), "base32, lower case": strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b)),
		"ascii85": string(a85), "reversed": reversed(whole), "spaced": each(whole, "%c", " "), "on lines": each(whole, "%c", "\n"), "on lines with CR": each(whole, "%c", "\r\n"),
		"joined": fmt.Sprintf("x = %q + %q", pre+v[:half], v[half:]+post), "joined in shell": pre + v[:half] + `""` + v[half:] + post, "joined thrice": fmt.Sprintf("%q \\\n  %q \\\n  %q", pre+v[:quarter], v[quarter:half], v[half:]+post),
		"word of quotes":   pre + "'" + v[:half] + `'"` + v[half:] + `"` + post,
		"base64 of base64": std([]byte(std(b))), "base64 of base64 of base64": std([]byte(std([]byte(std(b))))), "percent of base64": url.QueryEscape(std(b)), "percent, all of base64": each(std(b), "%%%02X", ""),
		"hex of base64": hex.EncodeToString([]byte(std(b))), "base64 of hex": std([]byte(hex.EncodeToString(b))), "base64 of reversed": std([]byte(reversed(whole))), "base64 of utf-16": std(utf16Bytes(whole, false)),
		"base64 of json": std([]byte(`{"some":"json","with a":` + string(js) + `}`)), "hex of hex": hex.EncodeToString([]byte(hex.EncodeToString(b))),
		"base64 of base64, wrapped": wrap(std([]byte(wrap(std(b), 76, "\n")+"\n")), 76, "\n"),
		"gzip":                      gzipped(t, whole), "zlib": zlibbed(t, whole), "zstd": zstdded(t, whole), "zip": zipped(t, whole), "base64 of gzip": std([]byte(gzipped(t, whole))), "hex of gzip": hex.EncodeToString([]byte(gzipped(t, whole))),
		"gzip of base64": gzipped(t, std(b)), "gzip of gzip": gzipped(t, gzipped(t, whole)), "base64 of zlib, wrapped": wrap(std([]byte(zlibbed(t, whole))), 64, "\n"),
		"ansi colour around": "\x1b[32m" + whole + "\x1b[0m", "ansi colour inside": cut("\x1b[1;31m"), "CR": cut("\r"), "line break": cut("\n"), "CRLF": cut("\r\n"), "indented": cut("\r\n    "),
		"cancelled escape": cut("\x1b[31\x18"), "cancelled string": cut("\x1b]0;title\x1a"), "NUL": cut("\x00"), "DEL": cut("\x7f"), "SO, SI": cut("\x0e\x0f"), "SUB": cut("\x1a"), "erased": cut("xyz\b\b\b"), "erased and typed again": cut("\b" + v[half-1:half]),
		"zero width": cut("\u200b"), "zero width everywhere": each(whole, "%c\u200b", ""), "byte order marks": each(whole, "\ufeff%c", ""), "word joiners": each(whole, "%c", "\u2060"), "soft hyphens": cut("\u00ad"), "NULs": each(whole, "%c\x00\x00", ""),
	}
	return f
}

// everyCut writes text in two pieces, for every place of the cut, and byte by
// byte, and wants what Scan finds, which is named name, wherever it was cut.
func everyCut(t testing.TB, m *Matcher, name, what string, text []byte) {
	t.Helper()
	want := m.Scan(text)
	if !slices.ContainsFunc(want, func(h Hit) bool { return h.ID.Name == name }) {
		t.Errorf("%s: not found in %.300q", what, text)
		return
	}
	step := 1 + len(text)/160
	if testing.Short() {
		step = 1 + len(text)/32
	}
	for i := 0; i <= len(text); i += step {
		if got := play(t, m, text[:i], text[i:]); !slices.Equal(got, want) {
			t.Errorf("%s: cut at %d of %d: %v, want %v in %.600q", what, i, len(text), got, want, text)
		}
	}
	if got := play(t, m, slices.Collect(slices.Chunk(text, 1))...); !slices.Equal(got, want) {
		t.Fatalf("%s: byte by byte: %v, want %v in %.600q", what, got, want, text)
	}
}

func TestEveryForm(t *testing.T) {
	r := newRand(80)
	arounds := [][2]string{{"", ""}, {"x", "\n"}, {"key=", ""}, {"ab: ", " tail"}}
	for i, n := range []int{8, 16, 40, 41, 42, 100} {
		v := randString(r, alphabet, n)
		if n == 42 {
			v = `p"w'd$%&<\` + v[10:]
		}
		m := mustNew(t, val("v", v))
		for _, around := range [][2]string{arounds[i%4], arounds[(i+1)%4]} {
			for what, form := range forms(t, v, around[0], around[1]) {
				switch {
				case n == 8 && (what == "base64 of reversed" || what == "base64 of base64 of base64") && len(around[0]+around[1]) < 4:
					continue // fewer than 15 characters
				case n == 8 && (what == "ascii85" && len(around[0])%4 != 0 || strings.HasPrefix(what, "base32") && around[0] == "zz"):
					continue // one whole group and two halves
				case what == "joined in shell" && n == 42, what == "word of quotes" && n == 42:
					continue // its own quotes
				}
				text := []byte("$ run; " + form)
				switch strings.Fields(what)[0] {
				case "shell", "sql", "csv", "python", "json":
				default:
					text = append(text, "\r\n$ "...)
				}
				everyCut(t, m, "v", fmt.Sprintf("%d bytes, %q: %s", n, around, what), text)
			}
		}
		everyCut(t, m, "v", "brotli", []byte(brotlied(t, "some text "+v+" and more")))
	}
}

// Values of many lines, of parts, and with a password in them, in the forms that
// they are put in.
func TestFormsOfParts(t *testing.T) {
	r := newRand(81)
	pw, token := randString(r, alphabet, 24), randString(r, alphabet, 32)
	key := pemKey(r, "RSA PRIVATE KEY", 6)
	file, _ := json.Marshal(map[string]string{"type": "service_account", "private_key": key, "token": token})
	m := mustNew(t, val("url", "postgres://app:"+pw+"@db.example.com:5432/app"), val("pem", key), val("json", string(file)))
	std := base64.StdEncoding.EncodeToString
	for what, c := range map[string][2]string{
		"password":             {"url", "PGPASSWORD=" + pw},
		"password, Basic auth": {"url", "Authorization: Basic " + std([]byte("app:"+pw))},
		"password, zero width": {"url", each(pw, "%c", "\u200b")},
		"password twice":       {"url", std([]byte(std([]byte("app:" + pw))))},
		"password, gzip":       {"url", gzipped(t, "user: app\npassword: "+pw+"\n")},
		"URL, percent":         {"url", url.QueryEscape("postgres://app:" + pw + "@db.example.com:5432/app")},
		"a line":               {"pem", strings.Split(key, "\n")[3]},
		"a line, twice":        {"pem", std([]byte(std([]byte(strings.Split(key, "\n")[3]))))},
		"PEM, base64":          {"pem", wrap(std([]byte(key)), 76, "\n")},
		"PEM, base64 twice":    {"pem", wrap(std([]byte(wrap(std([]byte(key)), 76, "\n"))), 76, "\n")},
		"PEM, gzip, base64":    {"pem", wrap(std([]byte(gzipped(t, key))), 76, "\n")},
		"PEM, xxd":             {"pem", dump(key)},
		"PEM, json":            {"pem", string(file)},
		"file, base64":         {"json", std(file)},
		"file, gzip":           {"json", gzipped(t, string(file))},
		"field, hex":           {"json", mixedHex(token)},
		"field, decimal":       {"json", each("x"+token, "%d", ", ")},
	} {
		text := []byte("> " + c[1] + " \n")
		if len(text) > 1200 && !testing.Short() { // every place of a long one takes too long
			want := m.Scan(text)
			if !slices.ContainsFunc(want, func(h Hit) bool { return h.ID.Name == c[0] }) {
				t.Errorf("%s: not found", what)
			}
			for range 6 {
				if got := play(t, m, cut(r, text)...); !slices.Equal(got, want) {
					t.Fatalf("%s: %v, want %v", what, got, want)
				}
			}
			continue
		}
		everyCut(t, m, c[0], what, text)
	}
}

// Forms, parts of forms and noise after each other, cut anywhere: what is found does
// not depend on the cuts, and no form that is there as a whole is missed.
func TestRandomForms(t *testing.T) {
	r := newRand(83)
	n := 1500
	if testing.Short() {
		n = 200
	}
	for i := 0; i < n; {
		v, w := randString(r, alphabet, 8+r.IntN(40)), randString(r, alphabet, 16)
		m := mustNew(t, val("v", v), val("w", w))
		var all []string
		for _, f := range forms(t, v, randString(r, alphabet, r.IntN(4)), "") {
			all = append(all, f)
		}
		for _, f := range forms(t, w, "", randString(r, alphabet+"\n ", r.IntN(4))) {
			all = append(all, f)
		}
		slices.Sort(all)
		for range 50 {
			var text []byte
			for len(text) < 200+r.IntN(400) {
				f := all[r.IntN(len(all))]
				switch r.IntN(6) {
				case 0:
					f = f[:r.IntN(len(f))]
				case 1:
					f = f[r.IntN(len(f)):]
				case 2:
					f = randString(r, "0123456789abcdef ,:\n'\"=xP\x1f(", r.IntN(40))
				}
				text = append(append(text, f...), []string{"", " ", "\n", "\r\n$ ", ","}[r.IntN(5)]...)
			}
			want := m.Scan(text)
			pieces := cut(r, text)
			if got := play(t, m, pieces...); !slices.Equal(got, want) {
				t.Fatalf("stream %d: %v, want %v in %q", i, got, want, pieces)
			}
			i++
		}
	}
}
