package http

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"fmt"
	"io"
	nethttp "net/http"
	"strings"
	"testing"

	"guard"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

func coded(t *testing.T, coding string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	switch coding {
	case "gzip":
		w = gzip.NewWriter(&out)
	case "deflate":
		w = zlib.NewWriter(&out)
	case "br":
		w = brotli.NewWriter(&out)
	case "zstd":
		w, _ = zstd.NewWriter(&out)
	}
	w.Write(b)
	w.Close()
	return out.Bytes()
}

func pctAll(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

func TestLeaksAreStopped(t *testing.T) {
	e := newEnv(t)
	s := &seen{}
	e.upstream("web.test", 443, s)
	long := strings.Repeat("line of text\n", 20000)
	for _, h2 := range []bool{false, true} {
		c := e.client("web.test", 443, h2)
		for name, tt := range map[string]struct {
			url  string
			body io.Reader
			h    []string
		}{
			"path":             {"/a/" + canary, nil, nil},
			"escaped path":     {"/a/" + pctAll(canary), nil, nil},
			"query":            {"/?x=" + canary, nil, nil},
			"escaped query":    {"/?x=" + pctAll(canary), nil, nil},
			"header":           {"/", nil, []string{"X-Note", "a " + canary}},
			"cookie":           {"/", nil, []string{"Cookie", "s=" + canary}},
			"header name":      {"/", nil, []string{"X-" + canary, "1"}},
			"basic":            {"/", nil, []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("user:"+canary))}},
			"body start":       {"/", strings.NewReader(canary + long), nil},
			"body end":         {"/", strings.NewReader(long + canary), nil},
			"body split":       {"/", &slowReader{parts: []string{long, canary[:5], canary[5:9], canary[9:]}}, nil},
			"body byte by one": {"/", &slowReader{parts: strings.Split(canary, "")}, nil},
			"json":             {"/", strings.NewReader(`{"a":"` + canary + `"}`), []string{"Content-Type", "application/json"}},
			"gzip":             {"/", bytes.NewReader(coded(t, "gzip", []byte(long+canary))), []string{"Content-Encoding", "gzip"}},
			"gzip twice":       {"/", bytes.NewReader(coded(t, "gzip", coded(t, "gzip", []byte(long+canary)))), []string{"Content-Encoding", "gzip, gzip"}},
			"deflate":          {"/", bytes.NewReader(coded(t, "deflate", []byte(long+canary))), []string{"Content-Encoding", "deflate"}},
			"br":               {"/", bytes.NewReader(coded(t, "br", []byte(long+canary))), []string{"Content-Encoding", "BR"}},
			"zstd":             {"/", bytes.NewReader(coded(t, "zstd", []byte(long+canary))), []string{"Content-Encoding", "zstd"}},
			"second member":    {"/", bytes.NewReader(append(coded(t, "gzip", []byte(long)), coded(t, "gzip", []byte(canary))...)), []string{"Content-Encoding", "gzip"}},
			"skippable frame":  {"/", bytes.NewReader(append(append([]byte{0x50, 0x2a, 0x4d, 0x18, byte(len(canary)), 0, 0, 0}, canary...), coded(t, "zstd", []byte(long))...)), []string{"Content-Encoding", "zstd"}},
			"multipart":        {"/", strings.NewReader("--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\n" + canary + "\r\n--b--\r\n"), []string{"Content-Type", "multipart/form-data; boundary=b"}},
		} {
			n := len(e.leaks)
			method := "GET"
			if tt.body != nil {
				method = "POST"
			}
			res, body := do(t, c, method, "https://web.test"+tt.url, tt.body, tt.h...)
			wantDenied(t, res, body, 403, "leak", "test-leak")
			if len(e.leaks) != n+1 {
				t.Errorf("%s: %d leaks seen", name, len(e.leaks)-n)
				continue
			}
			if o := e.leaks[n]; o.Host != "web.test" || o.Method != method || o.Channel != guard.ChannelHTTP || o.PID != 4242 || strings.Contains(o.Path, canary) {
				t.Errorf("%s: origin %+v", name, o)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, b := range s.body {
		if strings.Contains(b, canary) || s.done[i] {
			t.Errorf("a request arrived whole: %.80q", b)
		}
	}
}

func TestUninspectableIsRefused(t *testing.T) {
	e := newEnv(t)
	s := &seen{}
	e.upstream("web.test", 443, s)
	c := e.client("web.test", 443, false)
	for name, h := range map[string]struct {
		coding string
		body   []byte
	}{
		"unknown coding":    {"rot13", []byte("x")},
		"unknown in chain":  {"gzip, compress", []byte("x")},
		"not gzip":          {"gzip", []byte("plain text")},
		"cut short":         {"gzip", coded(t, "gzip", []byte(strings.Repeat("abc", 1000)))[:20]},
		"trailing bytes":    {"deflate", append(coded(t, "deflate", []byte("x")), "more"...)},
		"trailing after br": {"br", append(coded(t, "br", []byte("x")), "more"...)},
		"many codings":      {"gzip, gzip, gzip, gzip", []byte("x")},
	} {
		res, body := do(t, c, "POST", "https://web.test/", bytes.NewReader(h.body), "Content-Encoding", h.coding)
		if res.StatusCode != 403 || !strings.Contains(body, "uninspectable") {
			t.Errorf("%s: %d %s", name, res.StatusCode, body)
		}
	}
	if s.completed() > 0 {
		t.Error("something arrived")
	}
	raw := coded(t, "gzip", []byte(strings.Repeat("harmless ", 500000)))
	if res, _ := do(t, c, "POST", "https://web.test/", bytes.NewReader(raw), "Content-Encoding", "gzip"); res.StatusCode != 200 {
		t.Errorf("a harmless gzip body: %d", res.StatusCode)
	}
	if r, got := s.last(); r == nil || got != string(raw) || r.Header.Get("Content-Encoding") != "gzip" || r.ContentLength != int64(len(raw)) {
		t.Error("a harmless gzip body was changed")
	}
}

func TestLeaksAreRedacted(t *testing.T) {
	e := newEnv(t)
	e.action = guard.Redact
	s := &seen{}
	e.upstream("web.test", 443, s)
	c := e.client("web.test", 443, true)
	mask := strings.Repeat("*", len(canary))
	res, body := do(t, c, "POST", "https://web.test/p/"+canary+"?q="+canary+"&r=1", strings.NewReader("a "+canary+" b"), "X-Note", "n "+canary)
	r, got := s.last()
	if res.StatusCode != 200 || got != "a "+mask+" b" || r.Header.Get("X-Note") != "n "+mask || r.URL.RawQuery != "q="+mask+"&r=1" || r.URL.Path != "/p/"+mask || r.ContentLength != int64(len(got)) {
		t.Errorf("%d %s; upstream got %s %v %q", res.StatusCode, body, r.URL, r.Header, got)
	}
	// A coded body goes on uncoded, with the mask.
	text := strings.Repeat("words ", 1000)
	res, _ = do(t, c, "POST", "https://web.test/", bytes.NewReader(coded(t, "zstd", []byte(text+canary))), "Content-Encoding", "zstd")
	if r, got = s.last(); res.StatusCode != 200 || got != text+mask || r.Header.Get("Content-Encoding") != "" || r.ContentLength != int64(len(got)) {
		t.Errorf("%d; upstream got %v, %d bytes", res.StatusCode, r.Header, len(got))
	}
	// What can be seen only decoded cannot be masked.
	res, body = do(t, c, "GET", "https://web.test/?q="+pctAll(canary), nil)
	wantDenied(t, res, body, 403, "leak", "test-leak")
}

func TestRequestTrailers(t *testing.T) {
	e := newEnv(t)
	s := &seen{}
	e.upstream("web.test", 443, s)
	for _, h2 := range []bool{false, true} {
		c := e.client("web.test", 443, h2)
		for _, v := range []string{"fine", canary} {
			n := s.completed()
			r, _ := nethttp.NewRequest("POST", "https://web.test/", &slowReader{parts: []string{"abc"}})
			r.Trailer = nethttp.Header{"X-Sum": {v}}
			if !h2 { // HTTP/2 refuses it by itself
				r.Trailer["Authorization"] = []string{"Bearer x"}
			}
			res, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if v == canary {
				wantDenied(t, res, string(b), 403, "leak", "test-leak")
				if s.completed() != n {
					t.Error("the request arrived whole")
				}
				continue
			}
			got, _ := s.last()
			if got.Trailer.Get("X-Sum") != "fine" || got.Trailer.Get("Authorization") != "" {
				t.Errorf("h2 %v: trailers %v", h2, got.Trailer)
			}
		}
	}
}
