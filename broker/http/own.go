package http

import (
	"bytes"
	"errors"
	nethttp "net/http"
	"strconv"

	"guard/broker"
)

// Do serves a request of guard's own as it does the agent's: placeholders are
// swapped where they may go, it is decided and recorded, and what the reply gives
// out is kept. r has an absolute URL, and ends with its context. It returns the
// status, which is 403 and the like where it was refused, and no more than 64 KiB
// of the body.
func (p *Proxy) Do(r *nethttp.Request) (status int, body []byte, err error) {
	if !p.enter() {
		return 0, nil, nethttp.ErrServerClosed
	}
	defer p.active.Done()
	m := meta{host: broker.CanonicalHost(r.URL.Hostname()), port: 80, tls: r.URL.Scheme == "https", exe: "guard"}
	if m.tls {
		m.port = 443
	}
	if ps := r.URL.Port(); ps != "" {
		if m.port, err = strconv.Atoi(ps); err != nil {
			return 0, nil, err
		}
	}
	r.Proto, r.ProtoMajor, r.ProtoMinor, r.Host = "HTTP/1.1", 1, 1, r.URL.Host
	x := &exchange{p: p, meta: m, in: r, id: newID(), method: r.Method, length: r.ContentLength}
	w := &answer{header: nethttp.Header{}, status: nethttp.StatusOK}
	defer func() {
		if recover() != nil { // how a reverse proxy gives up in the middle of a body
			status, body, err = 0, nil, errors.New("the reply ended early")
		}
	}()
	x.serve(w)
	return w.status, w.body.Bytes(), nil
}

// answer keeps the beginning of one.
type answer struct {
	header nethttp.Header
	status int
	wrote  bool
	body   bytes.Buffer
}

func (a *answer) Header() nethttp.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if !a.wrote && status >= 200 {
		a.status, a.wrote = status, true
	}
}

func (a *answer) Write(p []byte) (int, error) {
	a.wrote = true
	if room := 64<<10 - a.body.Len(); room > 0 {
		a.body.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// Flush makes it an http.Flusher.
func (a *answer) Flush() {}
