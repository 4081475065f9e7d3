package http

import (
	"encoding/base64"
	nethttp "net/http"
	"net/url"
	"strings"

	"guard"
	"guard/broker"
	"guard/policy"
)

// head is what goes on of a request's head after inspection: masks are as long
// as what they hide.
type head struct {
	path  string // escaped
	query string // raw
	text  []byte // all of it, and what it decodes to, for the search for placeholders
	names string // of the headers, in lower case: what a name is as it arrives was lost
	edits []func(nethttp.Header)
}

func (h *head) apply(out, in *nethttp.Request) {
	out.URL.RawQuery = h.query
	out.URL.ForceQuery = in.URL.ForceQuery
	if h.path != in.URL.EscapedPath() {
		setPath(out.URL, h.path)
	}
	for _, e := range h.edits {
		e(out.Header)
	}
}

func setPath(u *url.URL, escaped string) {
	if p, err := url.PathUnescape(escaped); err == nil {
		u.Path, u.RawPath = p, escaped
	}
}

const withheld = "(withheld)"

// inspectHead shows method, path, query and headers to the leak line, also as
// they read decoded.
func (x *exchange) inspectHead() *refusal {
	r := x.in
	h := &head{path: r.URL.EscapedPath(), query: r.URL.RawQuery}
	x.masked = h
	x.fixConnection()

	// The path goes first, under no name: a record of a leak names the path.
	x.path = ""
	target := newParts()
	target.add(r.Method, nil)
	target.derived(r.Method, strings.ToLower(r.Method))
	target.add(h.path, func(s string) { h.path = s })
	target.add(h.query, func(s string) { h.query = s })
	target.derived(h.path, unescape(h.path))
	target.derived(h.query, unescape(strings.ReplaceAll(h.query, "+", " ")))
	target.add(x.meta.host, nil)
	if ref := target.run(x, "the URL"); ref != nil {
		x.path = withheld
		return ref
	}
	x.method, x.path = r.Method, h.path
	if p, err := url.PathUnescape(h.path); err == nil && strings.IndexFunc(p, func(c rune) bool { return c < ' ' || c == 0x7f }) < 0 {
		x.path = p
	}

	fields := newParts()
	for k, vs := range r.Header {
		if ref := checkName(k); ref != nil {
			return ref
		}
		h.names += strings.ToLower(k) + "\n"
		if k == "Proxy-Authorization" {
			continue // the session's own token; it goes no further
		}
		fields.add(k, nil)
		fields.derived(k, strings.ToLower(k)) // as HTTP/2 sends it
		for i, v := range vs {
			fields.add(v, func(s string) {
				h.edits = append(h.edits, func(out nethttp.Header) {
					if ws := out[k]; i < len(ws) {
						ws[i] = s
					}
				})
			})
			if user, ok := basic(v); ok {
				fields.derived("", user)
			}
		}
	}
	var ref *refusal
	if x.judged, ref = fields.begin(x, "a header"); ref != nil {
		return ref
	}
	h.text = append(target.buf, fields.buf...)
	return nil
}

// parts are strings that are inspected as one stream.
type parts struct {
	buf   []byte
	at    []int // start of each, in buf
	size  []int
	patch []func(string) // takes the masked string; nil: cannot be masked
}

func newParts() *parts { return &parts{buf: make([]byte, 0, 1024)} }

func (p *parts) add(s string, patch func(string)) {
	p.at = append(p.at, len(p.buf))
	p.size = append(p.size, len(s))
	p.patch = append(p.patch, patch)
	p.buf = append(append(p.buf, s...), '\n')
}

// derived adds what raw decodes to, if that differs.
func (p *parts) derived(raw, decoded string) {
	if decoded != raw && decoded != "" {
		p.add(decoded, nil)
	}
}

func (p *parts) run(x *exchange, where string) *refusal {
	f, ref := p.begin(x, where)
	if f != nil {
		f(nil, guard.End)
	}
	return ref
}

// begin is run. It returns the filter, if that has nothing of p left to judge.
func (p *parts) begin(x *exchange, where string) (guard.Filter, *refusal) {
	out, f, d := opening(x.p.cfg.Open(x.origin()), p.buf)
	if d.Action.Stops() {
		return nil, leakRefusal(d, where)
	}
	for i, at := range p.at {
		was, is := p.buf[at:at+p.size[i]], out[at:at+p.size[i]]
		if string(was) == string(is) {
			continue
		}
		if p.patch[i] == nil {
			// Masked where it cannot be: decoded, a name. Nothing goes.
			d.Action = guard.Block
			return nil, leakRefusal(d, where)
		}
		p.patch[i](string(is))
	}
	return f, nil
}

// unescape decodes what is percent-encoded, once, and leaves the rest.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			hi, lo := unhex(s[i+1]), unhex(s[i+2])
			if hi >= 0 && lo >= 0 {
				b.WriteByte(byte(hi<<4 | lo))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// basic decodes "Basic ..." (RFC 7617).
func basic(v string) (string, bool) {
	scheme, cred, ok := strings.Cut(v, " ")
	if !ok || !strings.EqualFold(scheme, "basic") {
		return "", false
	}
	cred = strings.TrimRight(strings.TrimSpace(cred), "=")
	b, err := base64.RawStdEncoding.DecodeString(cred)
	if err != nil {
		return "", false
	}
	return string(b), true
}

// fixConnection takes out of Connection what would make a proxy drop a
// header that must arrive: only real connection options stay.
func (x *exchange) fixConnection() {
	vs := x.in.Header["Connection"]
	if len(vs) == 0 {
		return
	}
	var keep []string
	for _, v := range vs {
		for t := range strings.SplitSeq(v, ",") {
			t = strings.TrimSpace(t)
			switch strings.ToLower(t) {
			case "close", "keep-alive", "upgrade", "te", "trailer", "http2-settings", "proxy-connection", "proxy-authorization":
				keep = append(keep, t)
			}
		}
	}
	if keep == nil {
		x.in.Header.Del("Connection")
		return
	}
	x.in.Header["Connection"] = []string{strings.Join(keep, ", ")}
}

// findPlaceholders decides what happens to every placeholder in the head: at
// home and in an allowed position it will be swapped, at home elsewhere it
// stays, and towards another host the request is refused.
func (x *exchange) findPlaceholders() *refusal {
	text := string(x.masked.text)
	for i, c := range x.creds {
		if c.Placeholder == "" {
			continue
		}
		if !mentions(text, x.book.stands[i]) && !strings.Contains(x.masked.names, x.book.lower[i]) {
			continue
		}
		if x.view.away[i] {
			if x.model {
				continue
			}
			return &refusal{status: nethttp.StatusForbidden, layer: "credential", credential: c.Name, d: x.refuseForeign(c)}
		}
		s := swap{cred: c}
		for _, pos := range positions(c) {
			s.edits = append(s.edits, x.headEdits(c, pos)...)
		}
		x.addSwap(s)
	}
	return nil
}

func (x *exchange) isHome(c guard.Credential) bool {
	return broker.MatchHost(c.Hosts, x.meta.host, x.meta.port)
}

// foreign are the credentials whose placeholders must not go to this host: a
// decoy's must go to none.
func (x *exchange) foreign() []guard.Credential { return x.view.foreign }

// refuseForeign records that c's placeholder was on its way to a host that is
// not its own.
func (x *exchange) refuseForeign(c guard.Credential) guard.Decision {
	d := guard.Decision{
		Action: guard.Block, Rule: "placeholder-host", Secret: c.ID(),
		Reason:    "the credential " + c.Name + " does not belong to " + x.meta.host,
		NextSteps: []string{"send it to its own hosts only", "ask the user, if the credential should be used here: guard secret edit " + c.Name},
	}
	if c.Decoy {
		d.Rule, d.Reason, d.NextSteps = policy.RuleDecoy, c.Name+" is not to be used: the user has been told", []string{"go on without it"}
	}
	x.p.cfg.Line.Refuse(x.use(c), d)
	return d
}
