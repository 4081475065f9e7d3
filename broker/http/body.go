package http

import (
	"bytes"
	"errors"
	"io"
	"mime"
	nethttp "net/http"
	"strings"

	"guard"
	"guard/broker/pack"
	"guard/policy"
)

const (
	maxSwapBody = 1 << 20 // form and JSON bodies up to this are searched for placeholders to swap
	spoolMem    = 1 << 20 // of a body that must be unpacked first; the rest is in a file
	spoolMemGit = 8 << 20 // of a push
)

// inspectBody shows the body to the leak line: while it streams where that is
// possible, before anything is sent where it must be unpacked. done frees what
// it holds; call it when the exchange has ended. The error is a *refusal, a
// *gitReport or the client's failure.
func (x *exchange) inspectBody(nethttp.ResponseWriter) (done func(), err error) {
	r := x.in
	done = func() {}
	if r.Body == nil || r.Body == nethttp.NoBody || r.ContentLength == 0 {
		return done, x.endHead()
	}
	codings, err := codingsOf(r.Header)
	if err != nil {
		return done, err
	}
	push := x.push && r.Method == nethttp.MethodPost
	kind, cs := x.bodySwaps()
	if x.model || push || len(codings) > 0 || len(cs) > 0 { // more streams than one
		if err := x.endHead(); err != nil {
			return done, err
		}
	}
	if x.model && !push && (len(cs) == 0 || len(codings) > 0) {
		if handled, err := x.inspectModel(codings); handled {
			return done, err
		}
	}
	if push || len(codings) > 0 {
		return x.inspectSpooled(codings, push)
	}
	if len(cs) > 0 {
		return done, x.inspectFields(kind, cs)
	}
	f := x.judged
	if x.judged = nil; f == nil {
		f = x.p.cfg.Open(x.origin())
	}
	x.body = x.stream(r.Body, both(f, x.foreign(), x.refuseForeign))
	return done, nil
}

// endHead ends the stream of the headers, if no body goes on with it.
func (x *exchange) endHead() error {
	f := x.judged
	if x.judged = nil; f == nil {
		return nil
	}
	if out, d := f(nil, guard.End); d.Action.Stops() || len(out) > 0 {
		return leakRefusal(d, "a header")
	}
	return nil
}

// filter is a stream of the request's own on the leak line.
func (x *exchange) filter() guard.Filter {
	return both(x.p.cfg.Open(x.origin()), x.foreign(), x.refuseForeign)
}

func (x *exchange) stopped(d guard.Decision) error {
	r := leakRefusal(d, "the body")
	if d.Rule == "placeholder-host" || d.Rule == policy.RuleDecoy {
		r.layer = "credential"
	}
	return r
}

func (x *exchange) stream(src io.ReadCloser, f guard.Filter) *filtered {
	return &filtered{src: src, f: f, pauses: x.in.ContentLength < 0, stop: x.stopped}
}

// inspected is a body that was judged already.
func (x *exchange) inspected(src io.Reader, n int64) {
	x.body = x.stream(io.NopCloser(src), func(p []byte, _ guard.Step) ([]byte, guard.Decision) {
		return p, guard.Decision{Action: guard.Pass}
	})
	if len(x.in.Trailer) == 0 {
		x.length = n // trailers need the chunked form
	}
}

// inspectSpooled takes the whole body first, unpacks it and judges what is in.
func (x *exchange) inspectSpooled(codings []string, push bool) (done func(), err error) {
	mem := spoolMem
	if push {
		mem = spoolMemGit
	}
	raw, plain := pack.NewSpool(x.p.cfg.SpoolDir, mem), pack.NewSpool(x.p.cfg.SpoolDir, mem)
	done = func() { raw.Close(); plain.Close() }
	if _, err := io.Copy(raw, x.in.Body); err != nil {
		return done, spoolError(err)
	}
	src := raw
	if len(codings) > 0 {
		// As it is, too: a container has room for bytes that unpacking skips.
		_, bare, err := x.pass(io.Discard, raw.Reader(), x.filter())
		if err != nil {
			return done, err
		}
		dec, err := decoder(raw.Reader(), codings)
		if err != nil {
			return done, undecodable()
		}
		f := x.filter()
		if push {
			f = func(p []byte, _ guard.Step) ([]byte, guard.Decision) { return p, guard.Decision{Action: guard.Pass} }
		}
		_, masked, err := x.pass(plain, dec, f)
		if err != nil {
			return done, err
		}
		switch {
		case masked:
			x.coding = true
			src = plain
		case bare:
			return done, x.stopped(guard.Decision{Action: guard.Block})
		}
	}
	if push {
		sent := raw
		if len(codings) > 0 {
			sent = plain
		}
		if err := x.inspectPush(sent); err != nil {
			return done, err
		}
	}
	x.inspected(src.Reader(), src.Size())
	return done, nil
}

// pass copies src to dst through f, and says whether anything was masked.
func (x *exchange) pass(dst io.Writer, src io.Reader, f guard.Filter) (n int64, masked bool, err error) {
	t := x.stream(io.NopCloser(src), func(p []byte, s guard.Step) ([]byte, guard.Decision) {
		out, d := f(p, s)
		masked = masked || d.Action == guard.Redact
		return out, d
	})
	t.pauses = false
	n, err = io.Copy(dst, struct{ io.Reader }{t})
	var r *refusal
	if err != nil && !errors.As(err, &r) {
		if errors.Is(err, pack.ErrSpool) {
			return n, masked, spoolError(err)
		}
		return n, masked, undecodable()
	}
	return n, masked, err
}

func undecodable() *refusal {
	return refuse(nethttp.StatusForbidden, "leak", "uninspectable", "the body's Content-Encoding could not be undone, so it could not be inspected", "send the body uncompressed, or with gzip, deflate, br or zstd")
}

func spoolError(err error) error {
	if errors.Is(err, pack.ErrSpool) {
		return refuse(nethttp.StatusRequestEntityTooLarge, "leak", "uninspectable", "the body is too large to be unpacked and inspected before it is sent", "send it in smaller parts")
	}
	return refuse(nethttp.StatusBadRequest, "protocol", "body", "the request's body ended early")
}

// bodySwaps finds the credentials of this host that may be in the body, as it
// says it is.
func (x *exchange) bodySwaps() (place string, cs []guard.Credential) {
	kind, _, err := mime.ParseMediaType(x.in.Header.Get("Content-Type"))
	switch {
	case err != nil:
		return "", nil
	case kind == "application/x-www-form-urlencoded", kind == "multipart/form-data":
		place = "form"
	case kind == "application/json", strings.HasSuffix(kind, "+json"):
		place = "json"
	default:
		return "", nil
	}
	for _, c := range x.creds {
		if c.Placeholder == "" || c.Decoy || !x.isHome(c) {
			continue
		}
		for _, pos := range c.In {
			if pos.Place == place {
				cs = append(cs, c)
				break
			}
		}
	}
	return place, cs
}

// inspectFields judges a form or JSON body and finds the placeholders to be
// swapped in it. A body that is larger than maxSwapBody streams on unchanged.
func (x *exchange) inspectFields(place string, cs []guard.Credential) error {
	b, err := io.ReadAll(io.LimitReader(x.in.Body, maxSwapBody+1))
	if err != nil {
		return spoolError(err)
	}
	if len(b) > maxSwapBody {
		x.body = x.stream(struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(b), x.in.Body), x.in.Body}, x.filter())
		return nil
	}
	b, d := x.judge(b)
	if d.Action.Stops() {
		return x.stopped(d)
	}
	x.inspected(bytes.NewReader(b), int64(len(b)))
	kind := x.in.Header.Get("Content-Type")
	multi := strings.HasPrefix(strings.ToLower(strings.TrimSpace(kind)), "multipart/")
	for _, c := range cs {
		s := swap{cred: c}
		for _, pos := range c.In {
			if pos.Place != place {
				continue
			}
			change := func(b []byte, value string, same bool) ([]byte, int) {
				total := 0
				for _, st := range stands(c) {
					is, n := st.ph, 0 // the same: only to find out whether there is one
					if !same {
						is = st.of(value)
					}
					switch {
					case place == "json":
						b, n = swapJSON(b, pos.Name, st.ph, is)
					case multi:
						b, n = swapMultipart(b, kind, pos.Name, st.ph, is)
					default:
						var out string
						out, n = swapForm(string(b), pos.Name, st.ph, is)
						b = []byte(out)
					}
					total += n
				}
				return b, total
			}
			if _, n := change(b, "", true); n == 0 {
				continue
			}
			s.edits = append(s.edits, func(out *nethttp.Request, value string) error {
				if err := x.plaintext(c); err != nil {
					return err
				}
				b, _ = change(b, value, false)
				setBody(out, b)
				return nil
			})
		}
		x.addSwap(s)
	}
	return nil
}
