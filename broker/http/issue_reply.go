package http

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"mime"
	nethttp "net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"guard"
	"guard/vault"
)

const maxIssued = 1 << 20 // bytes of a reply that gives out credentials

// capture takes the credentials out of a reply that gives some out: into the
// vault, with placeholders in their place.
func (x *exchange) capture(res *nethttp.Response) error {
	if err := x.captureLocation(res.Header); err != nil {
		return err
	}
	if res.Body == nil || res.Body == nethttp.NoBody || x.method == nethttp.MethodHead || res.StatusCode == nethttp.StatusSwitchingProtocols {
		return nil
	}
	is := x.issue
	if is == nil {
		// A small JSON reply to something that is no read may be one, whatever it is called.
		if x.isRead() || x.model || res.ContentLength <= 0 || res.ContentLength > peekMax/4 {
			return nil
		}
		is = &issue{action: "token:login", rule: "oauth", fields: tokenFields(), form: url.Values{}, client: url.Values{}}
	}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	form := kind == "application/x-www-form-urlencoded"
	if is.own || !is.sure && (!isJSONType(kind) && !form || x.isRead() && len(x.swaps) == 0) {
		return nil
	}
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxIssued+1))
	whole := err == nil && len(raw) <= maxIssued
	b := raw
	if codings, cerr := codingsOf(res.Header); cerr != nil {
		whole = false
	} else if len(codings) > 0 && whole {
		dec, derr := decoder(bytes.NewReader(raw), codings)
		if derr == nil {
			b, derr = io.ReadAll(io.LimitReader(dec, maxIssued+1))
		}
		whole = derr == nil && len(b) <= maxIssued
	}
	var found []issued
	if whole {
		found, err = x.findTokens(b, is)
	}
	if !whole || err != nil {
		return x.unread(res, is, raw, err)
	}
	if len(found) == 0 {
		giveBack(res, raw)
		return nil
	}
	places, err := x.store(is, found, lifetime(b))
	if err != nil {
		return err
	}
	out, err := rewriteTokens(b, is, put(found, places))
	if err != nil {
		return errIssued
	}
	for _, k := range []string{"Content-Encoding", "Digest", "Content-Digest", "Repr-Digest", "Content-Md5", "Etag", "X-Amz-Crc32"} {
		res.Header.Del(k)
	}
	res.Body.Close()
	res.Body = io.NopCloser(bytes.NewReader(out))
	if len(res.Trailer) == 0 || x.in.ProtoMajor != 1 {
		res.ContentLength = int64(len(out))
		res.Header.Set("Content-Length", strconv.Itoa(len(out)))
	}
	return nil
}

var errIssued = refuse(502, "upstream", "token-reply", "the reply gives out a credential in a way that guard cannot read, so it was withheld", "ask for JSON: Accept: application/json", "tell the user")

// unread is for a reply that could not be read: one that gives out a credential
// for sure does not go on; of an error, only that it is one.
func (x *exchange) unread(res *nethttp.Response, is *issue, raw []byte, err error) error {
	if !is.sure || is.none {
		giveBack(res, raw)
		return nil
	}
	res.Body.Close()
	if res.StatusCode/100 == 2 || res.StatusCode/100 == 1 {
		return errIssued
	}
	const text = "guard withheld the body of this reply: it is of a request for a credential, and could not be read\n"
	h := res.Header
	h.Del("Content-Encoding")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	res.Body, res.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	return nil
}

// giveBack puts before the rest of a body what was read of it.
func giveBack(res *nethttp.Response, raw []byte) {
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(raw), res.Body), res.Body}
}

// issued is a credential in a reply. Its text is in the reply's buffer as well,
// which is not wiped.
type issued struct{ field, text string }

// put puts the placeholders of found in.
func put(found []issued, places []string) func(at, v string) (string, bool) {
	return func(_, v string) (string, bool) {
		for i, t := range found {
			if t.text == v {
				return places[i], true
			}
		}
		return "", false
	}
}

// findTokens returns the credentials in b, each once. The error says that b is
// neither JSON nor XML nor a form.
func (x *exchange) findTokens(b []byte, is *issue) ([]issued, error) {
	var out []issued
	seen := map[[sha256.Size]byte]bool{}
	_, err := rewriteTokens(b, is, func(at, v string) (string, bool) {
		field := fold(at[strings.LastIndexByte(at, '.')+1:])
		named := slices.Contains(is.fields, field)
		if len(v) < 8 || !named && !(is.sure && looksIssued(v)) || slices.ContainsFunc(x.creds, func(c guard.Credential) bool { return c.Placeholder == v }) {
			return "", false
		}
		if sum := sha256.Sum256([]byte(v)); !seen[sum] {
			seen[sum] = true
			out = append(out, issued{fold(strings.ReplaceAll(at, ".", "")), v})
		}
		return "", false
	})
	return out, err
}

var jwtLike = regexp.MustCompile(`^eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*$`)

// looksIssued says whether v is a credential by its looks.
func looksIssued(v string) bool {
	if jwtLike.MatchString(v) {
		return true
	}
	k := vault.GuessKind(guard.NewSecret([]byte(v)))
	return k != "generic" && !strings.Contains(v, "://")
}

// rewriteTokens hands the strings of b to visit, as JSON, XML or a form.
func rewriteTokens(b []byte, is *issue, visit func(at, v string) (string, bool)) ([]byte, error) {
	t := bytes.TrimSpace(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")))
	switch {
	case len(t) == 0:
		return b, nil
	case t[0] == '{' || t[0] == '[' || t[0] == '"':
		return rewriteJSON(t, visit)
	case t[0] == '<':
		return rewriteXML(t, visit)
	}
	if !isForm(t) {
		return nil, errors.New("neither JSON, XML nor a form")
	}
	return []byte(rewriteForm(string(t), visit)), nil
}

// isForm wants every pair to be one, and a name that a reply of a token endpoint has.
func isForm(b []byte) bool {
	known := false
	for pair := range strings.SplitSeq(string(b), "&") {
		k, v, ok := strings.Cut(pair, "=")
		if !ok || k == "" || strings.ContainsAny(pair, " \r\n\t<>\"{}") {
			return false
		}
		if _, err := url.QueryUnescape(v); err != nil {
			return false
		}
		switch fold(k) {
		case "accesstoken", "error", "tokentype", "scope", "errordescription", "refreshtoken", "idtoken", "devicecode":
			known = true
		}
	}
	return known
}

func rewriteForm(s string, visit func(at, v string) (string, bool)) string {
	pairs := strings.Split(s, "&")
	for i, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		name, err1 := url.QueryUnescape(k)
		dec, err2 := url.QueryUnescape(v)
		if err1 != nil || err2 != nil {
			continue
		}
		if is, change := visit(name, dec); change {
			pairs[i] = k + "=" + url.QueryEscape(is)
		}
	}
	return strings.Join(pairs, "&")
}

// rewriteXML does it for the text of elements that have nothing but text.
func rewriteXML(b []byte, visit func(at, v string) (string, bool)) ([]byte, error) {
	d := xml.NewDecoder(bytes.NewReader(b))
	d.Strict = true
	var out []byte
	last := 0
	name := ""
	for {
		before := d.InputOffset()
		tok, err := d.Token()
		if err == io.EOF {
			return append(out, b[last:]...), nil
		}
		if err != nil {
			return nil, err
		}
		switch t := tok.(type) {
		case xml.StartElement:
			name = t.Name.Local
			for _, a := range t.Attr {
				if _, change := visit(a.Name.Local, a.Value); change {
					return nil, errors.New("a credential in an attribute")
				}
			}
		case xml.EndElement:
			name = ""
		case xml.CharData:
			text := strings.TrimSpace(string(t))
			is, change := visit(name, text)
			if !change {
				continue
			}
			out = append(out, b[last:before]...)
			var esc bytes.Buffer
			if err := xml.EscapeText(&esc, []byte(is)); err != nil {
				return nil, err
			}
			out = append(out, esc.Bytes()...)
			last = int(d.InputOffset())
		}
	}
}

// lifetime is expires_in, of JSON or a form.
func lifetime(b []byte) time.Duration {
	var life time.Duration
	_, _ = rewriteTokens(b, nil, func(at, v string) (string, bool) {
		if n, err := strconv.ParseFloat(v, 64); fold(at) == "expiresin" && err == nil && n > 0 && n < 1e9 {
			life = time.Duration(n * float64(time.Second))
		}
		return "", false
	})
	return life
}

// store keeps tokens, if that is allowed, and returns their placeholders.
func (x *exchange) store(is *issue, found []issued, life time.Duration) ([]string, error) {
	was := x.issue
	x.issue = is
	defer func() { x.issue = was }()
	if len(x.swaps) == 0 && !is.ok {
		d := x.allowIssue()
		if !d.Allowed() {
			x.p.cfg.Line.Refuse(x.use(guard.Credential{}), d)
			return nil, &refusal{status: nethttp.StatusForbidden, layer: "credential", d: d}
		}
	}
	if x.p.cfg.Issuing.Store == nil {
		return nil, errIssued
	}
	u := x.use(guard.Credential{})
	u.Action, u.At = is.action, time.Now()
	scheme := "http://"
	if x.meta.tls {
		scheme = "https://"
	}
	i := Issue{
		Use: u, Rule: is.rule, Endpoint: scheme + x.place() + x.in.URL.EscapedPath(), JSON: is.json, Client: is.client, Authorization: x.in.Header.Get("Authorization"),
		Account: account(is, found), Hosts: x.issuedHosts(), Lifetime: life,
	}
	for _, f := range found {
		i.Tokens = append(i.Tokens, Token{Field: f.field, Value: guard.NewSecret([]byte(f.text))})
	}
	for _, s := range x.swaps {
		i.Parents = append(i.Parents, s.cred)
	}
	places, err := x.p.cfg.Issuing.Store(i)
	if err != nil || len(places) != len(found) {
		return nil, refuse(502, "upstream", "token-store", "the reply gave out a credential that could not be stored, so it was withheld", "tell the user; guard doctor says what is missing")
	}
	for _, c := range x.p.cfg.Creds() {
		if slices.Contains(places, c.Placeholder) {
			x.p.remember(x.meta.host, c.ID())
		}
	}
	return places, nil
}

// account is a short name for who asked, and for whom: the client, the user, and
// for a client's own tokens what they are for.
func account(is *issue, found []issued) string {
	h := sha256.New()
	add := func(k string, vs ...string) { io.WriteString(h, k+"\x00"+strings.Join(vs, "\x00")+"\x01") }
	add("client", is.client.Get("client_id"))
	if slices.Contains(is.form["granttype"], "client_credentials") {
		for _, k := range []string{"scope", "audience", "resource"} {
			add(k, is.form[k]...)
		}
	}
	add("user", is.form["username"]...)
	for _, t := range found {
		parts := strings.Split(t.text, ".")
		var claims struct {
			Sub string `json:"sub"`
		}
		if len(parts) != 3 {
			continue
		}
		if b, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil && json.Unmarshal(b, &claims) == nil && claims.Sub != "" {
			add("sub", claims.Sub)
			break
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:3])
}

// captureLocation takes tokens out of a redirect: the implicit flow (RFC 6749,
// section 4.2.2) has them in the fragment, others in the query.
func (x *exchange) captureLocation(h nethttp.Header) error {
	for _, k := range []string{"Location", "Content-Location", "Refresh"} {
		for i, v := range h[k] {
			low := strings.ToLower(v)
			if !strings.Contains(low, "token") {
				continue
			}
			is := &issue{action: "token:login", rule: "oauth", fields: tokenFields(), form: url.Values{}, client: url.Values{}}
			if x.issue != nil {
				is.ok, is.client = x.issue.ok, x.issue.client
			}
			if id := x.in.URL.Query().Get("client_id"); id != "" {
				is.client.Set("client_id", id)
			}
			var found []issued
			find := func(at, v string) (string, bool) {
				if slices.Contains(is.fields, fold(at)) && len(v) >= 8 && !slices.ContainsFunc(x.creds, func(c guard.Credential) bool { return c.Placeholder == v }) {
					found = append(found, issued{fold(at), v})
				}
				return "", false
			}
			rewriteLocation(v, find)
			if len(found) == 0 {
				continue
			}
			places, err := x.store(is, found, 0)
			if err != nil {
				return err
			}
			h[k][i] = rewriteLocation(v, put(found, places))
		}
	}
	return nil
}

// rewriteLocation hands the parameters of a URL's query and fragment to visit.
func rewriteLocation(v string, visit func(at, v string) (string, bool)) string {
	rest, frag, hasFrag := strings.Cut(v, "#")
	base, query, hasQuery := strings.Cut(rest, "?")
	out := base
	if hasQuery {
		out += "?" + rewriteForm(query, visit)
	}
	if hasFrag {
		// A fragment may hold a path and a query of its own.
		head, params, split := strings.Cut(frag, "?")
		if split {
			out += "#" + head + "?" + rewriteForm(params, visit)
		} else {
			out += "#" + rewriteForm(frag, visit)
		}
	}
	return out
}
