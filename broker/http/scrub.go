package http

import (
	"io"
	nethttp "net/http"
	"strings"

	"guard"
)

// scrub takes values out of the reply of a host that got some: headers, body,
// trailers. Same length, so Content-Length stays; a reply that comes coded
// although it was asked not to is decoded.
func (x *exchange) scrub(res *nethttp.Response) error {
	res.Header.Del("Alt-Svc") // HTTP/3 has no way out
	websocket := res.StatusCode == nethttp.StatusSwitchingProtocols
	if len(x.ids) > 0 {
		if err := x.scrubHeader(res.Header); err != nil {
			return err
		}
	}
	if websocket {
		return x.upgraded(res)
	}
	if len(res.Trailer) > 0 && x.in.ProtoMajor == 1 {
		res.Header.Del("Content-Length") // HTTP/1.1 has trailers in the chunked form only
	}
	if res.StatusCode == nethttp.StatusOK && res.Header.Get("Content-Type") == "application/x-git-receive-pack-advertisement" && res.Header.Get("Content-Encoding") == "" {
		res.Body = struct {
			io.Reader
			io.Closer
		}{noThin(res.Body), res.Body}
		res.Header.Del("Content-Length")
		res.ContentLength = -1
	}
	if len(x.ids) == 0 || res.Body == nil || res.Body == nethttp.NoBody || x.method == nethttp.MethodHead {
		return nil
	}
	codings, err := codingsOf(res.Header)
	if err != nil || len(codings) > 0 && res.StatusCode == nethttp.StatusPartialContent {
		return refuse(502, "upstream", "unscrubbable", "the reply's Content-Encoding cannot be undone, so a credential in it could not be hidden", "ask for an uncoded reply")
	}
	src := res.Body
	if len(codings) > 0 {
		dec, err := decoder(res.Body, codings)
		if err != nil {
			return err
		}
		src = struct {
			io.Reader
			io.Closer
		}{dec, res.Body}
		res.Header.Del("Content-Encoding")
		res.Header.Del("Content-Length")
		res.ContentLength = -1
	}
	res.Body = &filtered{
		src: src, f: x.p.cfg.Scrub(x.ids), pauses: true,
		stop: func(guard.Decision) error { return errScrub },
		end:  func() error { return x.scrubHeader(res.Trailer) },
	}
	return nil
}

var errScrub = refuse(502, "upstream", "unscrubbable", "the reply holds a credential that could not be hidden")

// scrubHeader takes values out of h, in place. Names that hold one lose the
// field.
func (x *exchange) scrubHeader(h nethttp.Header) error {
	if len(x.ids) == 0 || len(h) == 0 {
		return nil
	}
	type field struct {
		k    string
		i    int
		from int
		to   int
	}
	var (
		b  []byte
		at []field
	)
	for k, vs := range h {
		for i, v := range vs {
			b = append(append(b, k...), '\n')
			at = append(at, field{k, i, len(b), len(b) + len(v)})
			b = append(append(b, v...), '\n')
		}
	}
	out, d := whole(x.p.cfg.Scrub(x.ids), b)
	if d.Action.Stops() {
		return errScrub
	}
	for _, f := range at {
		if name := string(out[f.from-1-len(f.k) : f.from-1]); name != f.k {
			delete(h, f.k)
			continue
		}
		if v := string(out[f.from:f.to]); v != string(b[f.from:f.to]) && f.i < len(h[f.k]) {
			h[f.k][f.i] = strings.NewReplacer("\r", "*", "\n", "*").Replace(v)
		}
	}
	return nil
}
