package http

import (
	"bytes"
	"fmt"
	"io"
	nethttp "net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"guard"
	"guard/broker"
)

// A server that keeps what it got can show it where it did not get it: at the
// credential's other hosts and ports, or to a later session.
func TestRepliesAreScrubbedOfWhatWasNotSent(t *testing.T) {
	e := newEnv(t, func(e *env, cfg *Config) {
		e.creds[0].Hosts = []string{"api.test:8443", "*.git.test"}
		e.creds[1].Hosts = []string{"fields.test", "code.git.test"}
	})
	stored := nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if enc := r.Header.Get("Accept-Encoding"); enc != "identity" {
			t.Errorf("%s: Accept-Encoding %q", r.Host, enc)
		}
		w.Header().Set("X-Stored", tokenValue+" "+keyValue)
		w.Header().Set("Trailer", "X-Late")
		io.WriteString(w, "stored: "+tokenValue+" "+keyValue)
		w.Header().Set("X-Late", tokenValue+" "+keyValue)
	})
	for _, h2 := range []bool{false, true} {
		for host, want := range map[string]string{
			"api.test":      tokenPlaceholder + " " + keyValue, // on another port than the credential's
			"a.git.test":    tokenPlaceholder + " " + keyValue,
			"code.git.test": tokenPlaceholder + " " + keyPlaceholder,
			"fields.test":   tokenValue + " " + keyPlaceholder,
		} {
			e.upstream(host, 443, stored)
			res, body := do(t, e.client(host, 443, h2), "GET", "https://"+host+"/", nil, "Accept-Encoding", "gzip")
			if body != "stored: "+want || res.Header.Get("X-Stored") != want || res.Trailer.Get("X-Late") != want {
				t.Errorf("%s: %q %v %v", host, body, res.Header, res.Trailer)
			}
		}
	}
	if len(e.uses) > 0 {
		t.Errorf("uses %v", e.uses)
	}
}

// What was sent under a version that is no longer current is scrubbed still.
func TestRepliesAreScrubbedOfOldVersions(t *testing.T) {
	var asked [][]guard.SecretID
	e := newEnv(t, func(e *env, cfg *Config) {
		scrub := cfg.Scrub
		cfg.Scrub = func(ids []guard.SecretID) guard.Filter {
			asked = append(asked, ids)
			return scrub(ids)
		}
	})
	e.upstream("api.test", 443, &seen{})
	c := e.client("api.test", 443, false)
	do(t, c, "GET", "https://api.test/", nil, "Authorization", "Bearer "+tokenPlaceholder)
	e.creds[0].Version = 2
	asked = nil
	do(t, c, "GET", "https://api.test/", nil)
	if len(asked) == 0 {
		t.Error("not scrubbed")
	}
	for _, ids := range asked {
		if got := fmt.Sprint(ids); len(ids) != 2 || ids[0].Version+ids[1].Version != 3 {
			t.Errorf("scrubbed of %s", got)
		}
	}
}

// A use waits for a rotation to end and then sends the new value, of which the
// request did not know when it began.
func TestRepliesAreScrubbedOfARotatedValue(t *testing.T) {
	var e *env
	var last []guard.SecretID
	e = newEnv(t, func(e *env, cfg *Config) {
		value, scrub := cfg.Line.Value, cfg.Scrub
		cfg.Line.Value = func(id guard.SecretID) (guard.Secret, error) {
			cs := append([]guard.Credential(nil), e.creds...)
			cs[0].Version = 2
			e.creds = cs
			return value(id)
		}
		cfg.Scrub = func(ids []guard.SecretID) guard.Filter {
			last = ids
			return scrub(ids)
		}
	})
	e.upstream("api.test", 443, &seen{})
	c := e.client("api.test", 443, false)
	do(t, c, "GET", "https://api.test/", nil, "Authorization", "Bearer "+tokenPlaceholder)
	if !slices.ContainsFunc(last, func(id guard.SecretID) bool { return id.Version == 2 }) {
		t.Errorf("scrubbed of %v", last)
	}
	e.creds[0].Version = 3
	do(t, c, "GET", "https://api.test/", nil)
	if len(last) != 3 {
		t.Errorf("later scrubbed of %v", last)
	}
}

// A host without credentials is a way through: coded, in ranges, as it streams.
func TestOtherHostsAreLeftAlone(t *testing.T) {
	e := newEnv(t, func(_ *env, cfg *Config) {
		cfg.Scrub = func([]guard.SecretID) guard.Filter { panic("scrubbed") }
	})
	e.upstream("web.test", 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if enc, rng := r.Header.Get("Accept-Encoding"), r.Header.Get("If-Range"); enc != "gzip, br" || rng != "\"a\"" {
			t.Errorf("Accept-Encoding %q, If-Range %q", enc, rng)
		}
		w.Header().Set("Etag", "\"a\"")
		w.Header().Set("Content-Encoding", "rot13")
		nethttp.ServeContent(w, r, "", time.Time{}, strings.NewReader("0123456789"))
	}))
	for _, h2 := range []bool{false, true} {
		res, body := do(t, e.client("web.test", 443, h2), "GET", "https://web.test/", nil, "Accept-Encoding", "gzip, br", "Range", "bytes=2-4", "If-Range", "\"a\"")
		if res.StatusCode != 206 || body != "234" || res.Header.Get("Accept-Ranges") != "bytes" || res.Header.Get("Content-Encoding") != "rot13" {
			t.Errorf("%d %q %v", res.StatusCode, body, res.Header)
		}
	}
}

func TestRangesDoNotCutValues(t *testing.T) {
	e := newEnv(t)
	text := "a key: " + tokenValue + "."
	e.upstream("api.test", 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		for _, k := range []string{"Range", "If-Range", "Request-Range", "X-Ms-Range"} {
			if v := r.Header.Get(k); v != "" {
				t.Errorf("%s: %s arrived", k, v)
			}
		}
		part := text[7:46]
		switch r.URL.Path {
		case "/206":
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 7-45/%d", len(text)))
			w.WriteHeader(206)
		case "/bare206":
			w.WriteHeader(206)
		case "/multi":
			w.Header().Set("Content-Type", "multipart/byteranges; boundary=b")
			part = "--b\r\nContent-Range: bytes 7-45/48\r\n\r\n" + part + "\r\n--b--\r\n"
		case "/200":
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 7-45/%d", len(text)))
		case "/416":
			w.Header().Set("Content-Range", "bytes */48")
			w.WriteHeader(416)
			part = "none"
		default:
			nethttp.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
			return
		}
		io.WriteString(w, part)
	}))
	for _, h2 := range []bool{false, true} {
		c := e.client("api.test", 443, h2)
		for _, rng := range []string{"bytes=0-45", "bytes=46-", "bytes=-2", "bytes=7-45,46-46"} {
			res, body := do(t, c, "GET", "https://api.test/", nil, "Range", rng, "If-Range", "\"x\"", "Request-Range", rng, "x-ms-range", rng)
			if res.StatusCode != 200 || body != "a key: "+tokenPlaceholder+"." || res.Header.Get("Accept-Ranges") != "" {
				t.Errorf("%s: %d %q", rng, res.StatusCode, body)
			}
		}
		for _, path := range []string{"/206", "/bare206", "/multi", "/200"} {
			res, body := do(t, c, "GET", "https://api.test"+path, nil, "Range", "bytes=7-45")
			wantDenied(t, res, body, 502, "upstream", "partial")
			if strings.Contains(body+fmt.Sprint(res.Header), tokenValue[:8]) {
				t.Errorf("%s: %s", path, body)
			}
		}
		if res, body := do(t, c, "GET", "https://api.test/416", nil); res.StatusCode != 416 || body != "none" {
			t.Errorf("%d %q", res.StatusCode, body)
		}
	}
}

// A sender that knows the value can stop before its end.
func TestCutValuesAreMasked(t *testing.T) {
	e := newEnv(t)
	var parts []string
	e.upstream("api.test", 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if r.URL.Path == "/sized" {
			w.Header().Set("Content-Length", fmt.Sprint(len(strings.Join(parts, ""))))
		}
		for _, p := range parts {
			io.WriteString(w, p)
			w.(nethttp.Flusher).Flush()
		}
	}))
	for _, h2 := range []bool{false, true} {
		c := e.client("api.test", 443, h2)
		for _, tt := range []struct {
			parts []string
			want  string
		}{
			{[]string{"got " + tokenValue[:39]}, "got " + strings.Repeat("*", 39)},
			{[]string{tokenValue[:39]}, strings.Repeat("*", 39)},
			{[]string{"got ", tokenValue[:9], tokenValue[9:20]}, "got " + strings.Repeat("*", 20)},
			{strings.Split("x"+tokenValue[:39], ""), "x" + strings.Repeat("*", 39)},
			{[]string{"got " + tokenValue[:8]}, "got ********"},
			{[]string{"got " + tokenValue[:7]}, "got " + tokenValue[:7]},
			{[]string{"got " + tokenValue}, "got " + tokenPlaceholder},
			{[]string{tokenValue + tokenValue[:30]}, tokenPlaceholder + strings.Repeat("*", 30)},
			{[]string{"no value"}, "no value"},
		} {
			parts = tt.parts
			for _, path := range []string{"/", "/sized"} {
				if _, body := do(t, c, "GET", "https://api.test"+path, nil); body != tt.want {
					t.Errorf("%q: %q", tt.parts, body)
				}
			}
		}
	}
}

// The same after a silence in which the beginning of the value went out.
func TestCutValuesAreMaskedAfterAPause(t *testing.T) {
	pr, pw := io.Pipe()
	f := &filtered{src: pr, f: search(guard.Redact, map[string]string{tokenValue: tokenPlaceholder}, nil), pauses: true, maskTail: true}
	defer f.Close()
	var got bytes.Buffer
	buf := make([]byte, 64)
	read := func() error {
		n, err := f.Read(buf)
		got.Write(buf[:n])
		return err
	}
	go io.WriteString(pw, "a "+tokenValue[:7])
	for got.Len() < 9 { // what is held goes out once broker.Idle has passed
		if err := read(); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		io.WriteString(pw, tokenValue[7:39])
		pw.Close()
	}()
	for read() == nil {
	}
	if want := "a " + tokenValue[:7] + strings.Repeat("*", 32); got.String() != want {
		t.Errorf("%q, want %q (idle %v)", got.String(), want, broker.Idle)
	}
}
