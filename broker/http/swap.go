package http

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	nethttp "net/http"
	"net/url"
	"strings"

	"guard"
)

// swap is what one credential's value does to a request.
type swap struct {
	cred  guard.Credential
	edits []edit
	cert  bool // the value is shown as a client certificate
	signs bool // the value signs, and is not sent
}

// edit puts value where a placeholder is.
type edit func(out *nethttp.Request, value string) error

func (x *exchange) addSwap(s swap) {
	if len(s.edits) == 0 {
		return
	}
	for i := range x.swaps {
		if x.swaps[i].cred.ID() == s.cred.ID() {
			x.swaps[i].edits = append(x.swaps[i].edits, s.edits...)
			return
		}
	}
	x.swaps = append(x.swaps, s)
}

// isAuthHeader says whether k (canonical) carries authentication.
func isAuthHeader(k string) bool {
	switch k {
	case "Authorization", "X-Api-Key", "Api-Key", "X-Auth-Token", "Private-Token", "X-Goog-Api-Key":
		return true
	}
	return false
}

func positions(c guard.Credential) []guard.Position {
	if len(c.In) == 0 {
		return []guard.Position{{Place: "auth"}}
	}
	return c.In
}

// plaintext refuses a value over a connection that others can read.
func (x *exchange) plaintext(c guard.Credential) error {
	if x.meta.tls || x.p.cfg.Egress.Loopback(x.meta.host, x.meta.port) {
		return nil
	}
	r := refuse(nethttp.StatusForbidden, "credential", "plaintext", "a credential is not sent over plain http", "use https")
	r.credential, r.d.Secret = c.Name, c.ID()
	x.p.cfg.Line.Refuse(x.use(c), r.d)
	return r
}

// headEdits are the edits for c's placeholder in position pos of the head.
func (x *exchange) headEdits(c guard.Credential, pos guard.Position) []edit {
	var es []edit
	for _, st := range stands(c) {
		es = append(es, x.standEdits(st, pos)...)
	}
	if len(es) > 0 {
		es = append([]edit{func(*nethttp.Request, string) error { return x.plaintext(c) }}, es...)
	}
	return es
}

func (x *exchange) standEdits(st stand, pos guard.Position) []edit {
	var es []edit
	ph := st.ph
	header := func(k string, basicOnly bool) {
		for i, v := range x.in.Header[k] {
			if user, ok := basic(v); ok && strings.Contains(user, ph) {
				es = append(es, setHeader(k, i, func(old, value string) string {
					user, _ := basic(old)
					scheme, _, _ := strings.Cut(old, " ")
					return scheme + " " + base64.StdEncoding.EncodeToString([]byte(strings.ReplaceAll(user, ph, st.of(value))))
				}))
			} else if !basicOnly && strings.Contains(v, ph) {
				es = append(es, setHeader(k, i, func(old, value string) string { return strings.ReplaceAll(old, ph, st.of(value)) }))
			}
		}
	}
	switch pos.Place {
	case "auth":
		for k := range x.in.Header {
			if isAuthHeader(k) {
				header(k, false)
			}
		}
	case "basic":
		header("Authorization", true)
	case "header":
		header(nethttp.CanonicalHeaderKey(pos.Name), false)
	case "query":
		if _, n := swapForm(x.masked.query, pos.Name, ph, ph); n > 0 {
			es = append(es, func(out *nethttp.Request, value string) error {
				out.URL.RawQuery, _ = swapForm(out.URL.RawQuery, pos.Name, ph, st.of(value))
				return nil
			})
		}
	case "path":
		if _, n := swapPath(x.masked.path, ph, ph); n > 0 {
			es = append(es, func(out *nethttp.Request, value string) error {
				p, _ := swapPath(out.URL.EscapedPath(), ph, st.of(value))
				setPath(out.URL, p)
				return nil
			})
		}
	}
	return es
}

func setHeader(k string, i int, change func(old, value string) string) edit {
	return func(out *nethttp.Request, value string) error {
		vs := out.Header[k]
		if i >= len(vs) {
			return nil
		}
		v := change(vs[i], value)
		for _, c := range []byte(v) {
			if c < ' ' && c != '\t' || c == 0x7f {
				return refuse(nethttp.StatusForbidden, "credential", "value", "the credential's value has characters that no header may have", "tell the user to store it again, without a line break")
			}
		}
		vs[i] = v
		return nil
	}
}

// swapForm replaces ph in the values of field name of a form-encoded s, and
// leaves the rest as it is.
func swapForm(s, name, ph, value string) (string, int) {
	n := 0
	fields := strings.Split(s, "&")
	for i, f := range fields {
		k, v, _ := strings.Cut(f, "=")
		key, err := url.QueryUnescape(k)
		if err != nil || key != name {
			continue
		}
		if dec, err := url.QueryUnescape(v); err == nil && strings.Contains(dec, ph) {
			fields[i] = k + "=" + url.QueryEscape(strings.ReplaceAll(dec, ph, value))
			n++
		}
	}
	return strings.Join(fields, "&"), n
}

// swapPath replaces ph in the segments of an escaped path.
func swapPath(s, ph, value string) (string, int) {
	n := 0
	segs := strings.Split(s, "/")
	for i, seg := range segs {
		if dec, err := url.PathUnescape(seg); err == nil && strings.Contains(dec, ph) {
			segs[i] = url.PathEscape(strings.ReplaceAll(dec, ph, value))
			n++
		}
	}
	return strings.Join(segs, "/"), n
}

// swapJSON replaces ph in the strings at path ("a.b"; the elements of an array
// have their array's path) and leaves every other byte as it is.
func swapJSON(b []byte, path, ph, value string) ([]byte, int) {
	type span struct {
		from, to int
		text     string
	}
	var spans []span
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var walk func(at string) bool
	walk = func(at string) bool {
		before := d.InputOffset()
		tok, err := d.Token()
		if err != nil {
			return false
		}
		switch t := tok.(type) {
		case json.Delim:
			for d.More() {
				sub := at
				if t == '{' {
					k, err := d.Token()
					if err != nil {
						return false
					}
					key, _ := k.(string)
					if sub = key; at != "" {
						sub = at + "." + key
					}
				}
				if !walk(sub) {
					return false
				}
			}
			_, err := d.Token()
			return err == nil
		case string:
			if at == path && strings.Contains(t, ph) {
				end := int(d.InputOffset())
				start := int(before) + bytes.IndexByte(b[before:end], '"')
				spans = append(spans, span{start, end, t})
			}
		}
		return true
	}
	for walk("") {
	}
	if len(spans) == 0 {
		return b, 0
	}
	var out []byte
	last := 0
	for _, s := range spans {
		var enc bytes.Buffer
		e := json.NewEncoder(&enc)
		e.SetEscapeHTML(false)
		if err := e.Encode(strings.ReplaceAll(s.text, ph, value)); err != nil {
			return b, 0
		}
		out = append(out, b[last:s.from]...)
		out = append(out, bytes.TrimRight(enc.Bytes(), "\n")...)
		last = s.to
	}
	return append(out, b[last:]...), len(spans)
}

// setBody replaces the request's body.
func setBody(out *nethttp.Request, b []byte) {
	out.Body = io.NopCloser(bytes.NewReader(b))
	out.ContentLength = int64(len(b))
}
