package http

import (
	"bytes"
	"io"
	"net"
	nethttp "net/http"
	"strings"

	"guard"
	"guard/broker"
	"guard/broker/pack"
)

// toScrub are the values that the host's replies are scrubbed of: those it got
// in this session, and those of every credential that may be sent to it. A
// server may have got one of these at another of the credential's hosts, or in
// another session, and kept it. The port does not matter: servers of one host
// can share what they know. A model may have been told any value, by anyone.
func (x *exchange) toScrub() []guard.SecretID {
	return x.p.got(x.meta.host, x.p.view(x.p.look(), x.dest()).told) // not x.view: a rotation may have ended since
}

// anyPort is broker.MatchHost for any port.
func anyPort(patterns []string, host string) bool {
	for _, p := range patterns {
		if h, _, err := net.SplitHostPort(p); err == nil {
			p = h
		}
		if broker.MatchHost([]string{p}, host, 0) {
			return true
		}
	}
	return false
}

// isRange says whether the header k (see loose) asks for a part of a body. From
// parts that are cut inside a value it could be put together: none of them
// holds it.
func isRange(k string) bool {
	switch k {
	case "range", "if-range", "request-range", "x-ms-range":
		return true
	}
	return false
}

// partial says whether res has a part of a body.
func partial(res *nethttp.Response) bool {
	return res.StatusCode == nethttp.StatusPartialContent ||
		res.StatusCode/100 == 2 && (res.Header.Get("Content-Range") != "" || strings.HasPrefix(strings.ToLower(strings.TrimSpace(res.Header.Get("Content-Type"))), "multipart/byteranges"))
}

// scrub takes values out of the reply of a host that may know some: headers, body,
// trailers. Same length, so Content-Length stays; a reply that comes coded
// although it was asked not to is decoded.
func (x *exchange) scrub(res *nethttp.Response) error {
	res.Header.Del("Alt-Svc") // HTTP/3 has no way out
	x.bare(res.Header)
	err := x.capture(res)
	if err != nil {
		return err
	}
	var f guard.Filter // which has seen the head
	x.ids = x.toScrub()
	websocket := res.StatusCode == nethttp.StatusSwitchingProtocols
	if len(x.ids) > 0 {
		if partial(res) && !x.ranges() {
			return refuse(502, "upstream", "partial", "the reply is a part of a body although the whole was asked for, so a credential that it is cut inside of could not be hidden", "ask for the whole, without Range")
		}
		if !x.ranges() {
			res.Header.Del("Accept-Ranges") // they are not served
		}
		if f, err = x.scrubHead(res.Header); err != nil {
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
		}{pack.NoThin(res.Body), res.Body}
		res.Header.Del("Content-Length")
		res.ContentLength = -1
	}
	if len(x.ids) == 0 || res.Body == nil || res.Body == nethttp.NoBody || x.method == nethttp.MethodHead {
		return nil
	}
	codings, err := codingsOf(res.Header)
	if err != nil {
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
	ids := x.ids
	open := func() guard.Filter {
		if g := f; g != nil {
			f = nil
			return g
		}
		return x.p.cfg.Scrub(ids)
	}
	body := &filtered{
		src: src, pauses: true,
		stop: func(guard.Decision) error { return errScrub },
		end:  func() error { return x.scrubHeader(res.Trailer) },
	}
	if x.model {
		body.f = modelReply(res.Header, open)
	} else {
		body.f, body.maskTail = open(), true
	}
	res.Body = body
	return nil
}

var errScrub = refuse(502, "upstream", "unscrubbable", "the reply holds a credential that could not be hidden")

// scrubHeader takes values out of h, in place. Names that hold one lose the
// field.
func (x *exchange) scrubHeader(h nethttp.Header) error {
	f, err := x.scrubHead(h)
	if f != nil {
		f(nil, guard.End)
	}
	return err
}

// scrubHead is scrubHeader. It returns the filter, if that has nothing of h left to
// judge and may go on with the body.
func (x *exchange) scrubHead(h nethttp.Header) (guard.Filter, error) {
	if len(x.ids) == 0 || len(h) == 0 {
		return nil, nil
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
	out, f, d := opening(x.p.cfg.Scrub(x.ids), b)
	if d.Action.Stops() {
		return nil, errScrub
	}
	if bytes.Equal(out, b) {
		return f, nil
	}
	for _, e := range at {
		if name := string(out[e.from-1-len(e.k) : e.from-1]); name != e.k {
			delete(h, e.k)
			continue
		}
		if v := string(out[e.from:e.to]); v != string(b[e.from:e.to]) && e.i < len(h[e.k]) {
			h[e.k][e.i] = strings.NewReplacer("\r", "*", "\n", "*").Replace(v)
		}
	}
	return f, nil
}
