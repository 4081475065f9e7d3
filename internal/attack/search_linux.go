package attack

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	claimPrint  = "An adversary who prints a value"
	claimEscape = "An adversary who escapes only some of a value's characters"
	claimByte   = "An adversary who writes it a byte at a time"
	claimHidden = "An adversary who puts something between the halves that shows nothing"
	claimBare   = "An adversary who prints a value without its public prefix"
	claimPost   = "An adversary who posts a value"
	claimUnpack = "An adversary who sends a body that guard cannot unpack"
	claimMethod = "An adversary who puts a value into the request's method or the name of a header"
	claimSlow   = "An adversary who writes a value slowly, with pauses"
	claimFile   = "An adversary who writes it to a file"
	claimName   = "An adversary who makes a value the name of a file or the target of a link"
	claimPass   = "An adversary who encrypts, or uses an encoding that is not listed"
)

// encodings are ways to write a value, and to get it back: both sides use the same.
var encodings = []struct {
	name, claim, weak string
	enc               func(v []byte) []byte
}{
	{"raw", claimPrint, "", func(v []byte) []byte { return v }},
	{"base64", claimPrint, "", func(v []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(v)) }},
	{"base64-1", claimPrint, "", func(v []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(append([]byte("x"), v...))) }},
	{"base64-2", claimPrint, "", func(v []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(append([]byte("xy"), v...))) }},
	{"base64url", claimPrint, "", func(v []byte) []byte { return []byte(base64.URLEncoding.EncodeToString(append([]byte("?"), v...))) }},
	{"hex", claimPrint, "", func(v []byte) []byte { return []byte(hex.EncodeToString(v)) }},
	{"hex-upper", claimPrint, "", func(v []byte) []byte { return []byte(strings.ToUpper(hex.EncodeToString(v))) }},
	{"percent", claimPrint, "", func(v []byte) []byte { return each(v, "%%%02x") }},
	{"json", claimPrint, "", func(v []byte) []byte { return each(v, `\u%04x`) }},
	{"base32", claimPrint, "", func(v []byte) []byte { return []byte(base32.StdEncoding.EncodeToString(v)) }},
	{"reversed", claimPrint, "", func(v []byte) []byte { w := slices.Clone(v); slices.Reverse(w); return w }},
	{"utf-16", claimPrint, "", func(v []byte) []byte { return each(v, "%c\x00") }},
	{"some-escaped", claimEscape, "", func(v []byte) []byte {
		return append(append(slices.Clone(v[:10]), each(v[10:14], "%%%02X")...), v[14:]...)
	}},
	{"html", claimEscape, "", func(v []byte) []byte { return each(v, "&#%d;") }},
	{"zero-width", claimHidden, "", func(v []byte) []byte { return each(v, "%c\u200b") }},
	{"no-prefix", claimBare, "", func(v []byte) []byte { return v[4:] }},
	{"rot13", claimPass, "rot13 is no encoding that is listed; the agent needs the value first", func(v []byte) []byte {
		w := slices.Clone(v)
		for i, c := range w {
			switch {
			case c >= 'a' && c <= 'z':
				w[i] = 'a' + (c-'a'+13)%26
			case c >= 'A' && c <= 'Z':
				w[i] = 'A' + (c-'A'+13)%26
			}
		}
		return w
	}},
}

func each(v []byte, format string) []byte {
	var b bytes.Buffer
	for _, c := range v {
		fmt.Fprintf(&b, format, c)
	}
	return b.Bytes()
}

func gzipped(v []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(v)
	_ = w.Close()
	return b.Bytes()
}

func searchCases() []Case {
	var all []Case
	add := func(name, claim, weak string, try func(in *inside) got, judge func(*world, got) got) {
		all = append(all, Case{Name: name, Group: "search", Claim: claim, Weak: weak, try: try, judge: judge})
	}
	mark := func(name string) string { return "\n[" + name + "]\n" }
	for _, e := range encodings {
		name := "print-" + e.name
		add(name, e.claim, e.weak, func(in *inside) got {
			fmt.Fprintf(os.Stdout, "%s%s\n", mark(name), e.enc(in.value()))
			return held("printed")
		}, func(w *world, g got) got { return w.printed(e.enc([]byte(w.values["stored"]))) })
	}
	for _, e := range encodings {
		if e.name == "zero-width" || e.name == "rot13" || e.name == "html" {
			continue
		}
		name := "post-" + e.name
		add(name, claimPost, e.weak, func(in *inside) got { return in.post(name, e.enc(in.value()), nil, "") },
			func(w *world, g got) got {
				if w.attackerHas(name, string(e.enc([]byte(w.values["stored"])))) {
					return broke("the adversary's server got it")
				}
				return g
			})
	}
	add("print-bytewise", claimByte, "", func(in *inside) got {
		for _, c := range in.value() {
			_, _ = os.Stdout.Write([]byte{c})
		}
		fmt.Fprintln(os.Stdout)
		return held("printed")
	}, func(w *world, g got) got { return w.printed([]byte(w.values["stored"])) })
	add("print-slowly", claimSlow, "", func(in *inside) got {
		for part := range slices.Chunk(in.value(), 6) {
			_, _ = os.Stdout.Write(part)
			time.Sleep(15 * time.Millisecond) // longer than a pause of guard's
		}
		fmt.Fprintln(os.Stdout)
		return held("printed")
	}, func(w *world, g got) got { return w.printed([]byte(w.values["stored"])) })
	add("print-error", claimPrint, "", func(in *inside) got {
		fmt.Fprintf(os.Stderr, "%s\n", in.value())
		return held("printed")
	}, func(w *world, g got) got { return w.printed([]byte(w.values["stored"])) })

	post := func(name, claim string, body func(v []byte) []byte, change func(r *http.Request, v []byte)) {
		add(name, claim, "", func(in *inside) got {
			var b []byte
			if body != nil {
				b = body(in.value())
			}
			return in.post(name, b, func(r *http.Request) {
				if change != nil {
					change(r, in.value())
				}
			}, "")
		}, noValue(name))
	}
	post("post-path", claimPost, nil, func(r *http.Request, v []byte) { r.URL.Path += "/" + string(v) })
	post("post-query", claimPost, nil, func(r *http.Request, v []byte) { r.URL.RawQuery = "q=" + url.QueryEscape(string(v)) })
	post("post-header", claimPost, nil, func(r *http.Request, v []byte) { r.Header.Set("X-Note", string(v)) })
	post("post-cookie", claimPost, nil, func(r *http.Request, v []byte) { r.AddCookie(&http.Cookie{Name: "s", Value: string(v)}) })
	post("post-method", claimMethod, nil, func(r *http.Request, v []byte) { r.Method = string(v) })
	post("post-header-name", claimMethod, nil, func(r *http.Request, v []byte) { r.Header[string(v)] = []string{"x"} })
	post("post-gzip", claimPost, gzipped, func(r *http.Request, _ []byte) { r.Header.Set("Content-Encoding", "gzip") })
	post("post-gzip-unsaid", claimPost, gzipped, nil)
	post("post-gzip-base64", claimPost, func(v []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(gzipped(v))) }, nil)
	post("post-unknown-encoding", claimUnpack, func(v []byte) []byte { return v[:20] }, func(r *http.Request, v []byte) {
		r.Header.Set("Content-Encoding", "x-own")
		r.Header.Set("X-Rest", "1")
		r.Body = io.NopCloser(bytes.NewReader(v))
		r.ContentLength = int64(len(v))
	})
	add("post-deflate", claimPost, "", func(in *inside) got {
		var b bytes.Buffer
		w := zlib.NewWriter(&b)
		_, _ = w.Write(in.value())
		_ = w.Close()
		return in.post("post-deflate", b.Bytes(), func(r *http.Request) { r.Header.Set("Content-Encoding", "deflate") }, "")
	}, gotNothing("post-deflate"))
	add("post-multipart", claimPost, "", func(in *inside) got {
		var b bytes.Buffer
		m := multipart.NewWriter(&b)
		f, _ := m.CreateFormFile("f", "notes.txt")
		_, _ = f.Write(in.value())
		_ = m.Close()
		return in.post("post-multipart", b.Bytes(), func(r *http.Request) { r.Header.Set("Content-Type", m.FormDataContentType()) }, "")
	}, noValue("post-multipart"))
	add("post-chunks", claimSlow, "", func(in *inside) got {
		return in.post("post-chunks", nil, func(r *http.Request) {
			r.ContentLength = -1
			r.Body = io.NopCloser(&slowly{v: in.value(), n: 5})
		}, "")
	}, noValue("post-chunks"))

	file := func(name, claim string, write func(path string, v []byte) error) {
		add(name, claim, "", func(in *inside) got {
			if err := write(filepath.Join(in.Project, name), in.value()); err != nil {
				return held("%v", err)
			}
			return held("written")
		}, func(w *world, g got) got { return w.inFile(name) })
	}
	file("file-raw", claimFile, func(p string, v []byte) error { return os.WriteFile(p, append([]byte("note: "), v...), 0o644) })
	file("file-base64", claimFile, func(p string, v []byte) error {
		return os.WriteFile(p, []byte(base64.StdEncoding.EncodeToString(v)), 0o644)
	})
	file("file-backwards", claimFile, func(p string, v []byte) error {
		f, err := os.Create(p)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteAt(v[20:], 20)
		if err == nil {
			_, err = f.WriteAt(v[:20], 0)
		}
		return err
	})
	file("file-sparse", claimFile, func(p string, v []byte) error {
		f, err := os.Create(p)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteAt(v, 2<<20)
		return err
	})
	file("file-mode", claimFile, func(p string, v []byte) error {
		err := os.WriteFile(p, v, 0o600)
		if err == nil {
			err = os.Chmod(p, 0)
		}
		return err
	})
	file("file-new-folder", claimFile, func(p string, v []byte) error {
		if err := os.MkdirAll(p+"/a/b", 0o755); err != nil {
			return err
		}
		return os.WriteFile(p+"/a/b/c", v, 0o644)
	})
	add("file-name", claimName, "", func(in *inside) got {
		p := filepath.Join(in.Project, "n-"+string(in.value()))
		if err := os.WriteFile(p, nil, 0o644); err != nil {
			return held("%v", err)
		}
		return held("made")
	}, (*world).nameRecorded)
	return all
}

// slowly is a reader that gives n bytes at a time.
type slowly struct {
	v []byte
	n int
}

func (s *slowly) Read(p []byte) (int, error) {
	if len(s.v) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.v[:min(s.n, len(s.v))])
	s.v = s.v[n:]
	time.Sleep(10 * time.Millisecond)
	return n, nil
}
