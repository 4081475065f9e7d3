package http

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net"
	nethttp "net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"guard"
	"guard/broker"
)

// Issuing takes the credentials that replies give out: those of token endpoints
// (RFC 6749, RFC 8628) and of requests that make credentials (issuers.txt). The
// agent gets a placeholder for each. The zero value refuses such requests.
type Issuing struct {
	// Allow decides about a request that carries none of the vault's credentials:
	// the agent logs in by itself. u.Action is token:login or token:mint. For one
	// that carries some, the use line decides, with the same actions.
	Allow func(u guard.Use) guard.Decision
	// Begin is called before a request that carries credentials and asks for
	// tokens, so that two do not use one refresh token; end when its reply was stored.
	Begin func(ctx context.Context, creds []guard.Credential) (end func(), err error)
	// Store keeps what was issued, durably, before the agent hears of it, and
	// returns the placeholder of each. From then on Config.Creds has it. It takes the
	// values over.
	Store func(Issue) ([]string, error)
}

// Issue is what one reply gave out.
type Issue struct {
	Use      guard.Use // the request; no credential in it
	Rule     string    // of issuers.txt, or "oauth"
	Endpoint string    // its URL without query
	JSON     bool      // it was asked in JSON
	// Client has client_id and client_secret as the agent sent them, and
	// Authorization the header: with placeholders.
	Client        url.Values
	Authorization string
	// Account is what tells one login at this host from another: who asked, and for whom.
	Account  string
	Parents  []guard.Credential // that were in the request
	Hosts    []string           // where the tokens may go
	Tokens   []Token
	Lifetime time.Duration // of the access token; 0: not said
}

// Token is one of them.
type Token struct {
	Field string // its name in the reply, in lower case, without - and _
	Value guard.Secret
}

// issue is what a request asks for.
type issue struct {
	action string // token:login, token:mint
	rule   string
	sure   bool // the request says so; otherwise the reply does
	own    bool // an agent's own login, if nothing of the vault's is in it
	none   bool // the reply should hold nothing, and may be anything
	ok     bool // allowed without a credential
	fields []string
	form   url.Values // its fields, by folded names, and of its query
	json   bool
	client url.Values
}

// tokenFields are those of RFC 6749, OpenID Connect and RFC 7591.
func tokenFields() []string {
	return []string{"accesstoken", "refreshtoken", "idtoken", "devicesecret", "registrationaccesstoken"}
}

// mintFields are usual names of what a request made, besides those of its rule.
func mintFields() []string {
	return []string{"token", "secret", "clientsecret", "secretkey", "secretaccesskey", "sessiontoken", "privatekey", "apikey", "password"}
}

//go:embed issuers.txt
var issuersText string

type issuer struct {
	action, name string
	any          bool
	hosts        []string
	path         []string
	field        string
	values       []string
	fields       []string
	to           []string // of "hosts"
}

func parseIssuers(text string) ([]issuer, error) {
	var out []issuer
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		if len(f) != 6 || !slices.Contains([]string{"login", "mint", "own", "hosts"}, f[0]) || !slices.Contains([]string{"A", "W", "-"}, f[2]) {
			return nil, errors.New("issuers: " + line)
		}
		r := issuer{action: f[0], name: f[1], any: f[2] == "A", hosts: strings.Split(f[3], ",")}
		if f[0] == "hosts" {
			r.to = strings.Split(f[4], ",")
			out = append(out, r)
			continue
		}
		p, cond, has := strings.Cut(f[4], "?")
		if has {
			field, values, _ := strings.Cut(cond, "=")
			r.field, r.values = fold(field), strings.Split(values, "|")
		}
		r.path = segments(p)
		if f[5] != "-" {
			r.fields = strings.Split(f[5], ",")
		}
		out = append(out, r)
	}
	return out, nil
}

// segments is a path as lenient servers read it: without case, empty segments,
// dots, parameters and a format's suffix.
func segments(p string) []string {
	var out []string
	for s := range strings.SplitSeq(p, "/") {
		if s, _, _ = strings.Cut(s, ";"); s == "" || s == "." {
			continue
		}
		if s == ".." {
			out = out[:max(0, len(out)-1)]
			continue
		}
		out = append(out, strings.TrimRight(strings.ToLower(s), " ."))
	}
	if n := len(out); n > 0 {
		out[n-1] = strings.TrimSuffix(strings.TrimSuffix(out[n-1], ".json"), ".xml")
	}
	return out
}

func matchSegments(pat, p []string) bool {
	if len(pat) == 0 {
		return len(p) == 0
	}
	if pat[0] == "**" {
		for i := 0; i <= len(p); i++ {
			if matchSegments(pat[1:], p[i:]) {
				return true
			}
		}
		return false
	}
	if len(p) == 0 {
		return false
	}
	ok, err := path.Match(pat[0], p[0])
	return err == nil && ok && matchSegments(pat[1:], p[1:])
}

// fold is a field's name without case, - and _.
func fold(name string) string {
	if strings.IndexFunc(name, func(c rune) bool { return (c < 'a' || c > 'z') && (c < '0' || c > '9') }) < 0 {
		return name
	}
	return strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(name))
}

// isRead says whether the request can only read.
func (x *exchange) isRead() bool {
	switch x.in.Method {
	case nethttp.MethodGet, nethttp.MethodHead, nethttp.MethodOptions:
		return !overridden(x.in)
	}
	return false
}

const peekMax = 64 << 10

// classify finds out whether the request asks for a credential. It reads the
// beginning of the body, where that says it.
func (x *exchange) classify() error {
	fields, isJSON, err := x.peekFields()
	if err != nil {
		return err
	}
	if x.in.URL.RawQuery != "" {
		for k, vs := range x.in.URL.Query() {
			fields[fold(k)] = append(fields[fold(k)], vs...)
		}
	}
	if t := x.in.Header.Get("X-Amz-Target"); t != "" {
		fields["xamztarget"] = append(fields["xamztarget"], t)
	}
	at := segments(x.path)
	asked := func() *issue {
		client := url.Values{}
		for _, k := range []string{"client_id", "client_secret"} {
			if vs := fields[fold(k)]; len(vs) > 0 {
				client.Set(k, vs[0])
			}
		}
		return &issue{form: fields, json: isJSON, client: client, action: "token:login", fields: tokenFields()}
	}
	read := x.isRead()
	own := false
	for _, r := range x.view.issuers {
		if !r.matches(read, at, fields) {
			continue
		}
		if r.action == "own" {
			own = true
			continue
		}
		is := asked()
		is.sure, is.rule, is.action, is.none = true, r.name, "token:"+r.action, r.fields == nil
		is.fields = append(is.fields, r.fields...)
		if r.action == "mint" {
			is.fields = append(is.fields, mintFields()...)
		}
		x.issue = is
		return nil
	}
	last := ""
	if len(at) > 0 {
		last = at[len(at)-1]
	}
	grant := slices.ContainsFunc(fields["granttype"], isGrant)
	if !grant && !strings.Contains(last, "token") && last != "oauth" {
		return nil
	}
	is := asked()
	switch {
	case grant:
		is.sure, is.rule = true, "oauth"
		is.own = own && slices.Contains(fields["granttype"], "refresh_token")
	case own && strings.Contains(last, "token"):
		is.rule, is.own = "oauth", true
	default:
		is.rule = "oauth"
		if last == "token" {
			is.fields = append(is.fields, "token") // registries (distribution spec)
		}
	}
	x.issue = is
	return nil
}

// matches says whether a request to one of r's hosts, that only reads or not, is r's.
func (r *issuer) matches(read bool, at []string, fields url.Values) bool {
	if !r.any && read || !matchSegments(r.path, at) {
		return false
	}
	return r.field == "" || slices.ContainsFunc(fields[r.field], func(v string) bool { return slices.Contains(r.values, v) })
}

// isGrant says whether v is a grant of OAuth 2.0 that gives out tokens.
func isGrant(v string) bool {
	switch v = strings.TrimSpace(v); v {
	case "authorization_code", "refresh_token", "client_credentials", "password":
		return true
	}
	return strings.HasPrefix(v, "urn:ietf:params:oauth:grant-type:") || strings.HasPrefix(v, "urn:openid:params:grant-type:")
}

// peekFields returns the fields of a form, a multipart form or a JSON object in
// the body, by folded names, without taking anything from it. A body that may be
// a stream without end is left alone.
func (x *exchange) peekFields() (fields url.Values, isJSON bool, err error) {
	r := x.in
	fields = url.Values{}
	if r.Body == nil || r.Body == nethttp.NoBody || r.ContentLength == 0 || x.push {
		return fields, false, nil
	}
	kind, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	known := kind == "application/x-www-form-urlencoded" || kind == "multipart/form-data" || isJSONType(kind)
	if !known && (r.ContentLength < 0 || r.ContentLength > peekMax) || known && r.ContentLength > peekMax {
		return fields, false, nil
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, peekMax+1))
	if err != nil {
		return nil, false, spoolError(err)
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(b), r.Body), r.Body}
	if len(b) > peekMax {
		return fields, false, nil
	}
	if codings, err := codingsOf(r.Header); err == nil && len(codings) > 0 {
		dec, err := decoder(bytes.NewReader(b), codings)
		if err != nil {
			return fields, false, nil
		}
		b, _ = io.ReadAll(io.LimitReader(dec, peekMax)) // what is wrong with it is found out when it is inspected
	}
	if kind == "multipart/form-data" {
		mr := multipart.NewReader(bytes.NewReader(b), params["boundary"])
		for {
			p, err := mr.NextRawPart()
			if err != nil {
				return fields, false, nil
			}
			v, _ := io.ReadAll(io.LimitReader(p, 4<<10))
			fields[fold(p.FormName())] = append(fields[fold(p.FormName())], string(v))
		}
	}
	// Servers that do not look at the type read what it is.
	if t := bytes.TrimSpace(b); len(t) > 0 && t[0] == '{' {
		_, err := rewriteJSON(t, func(at, text string) (string, bool) {
			if !strings.Contains(at, ".") {
				fields[fold(at)] = append(fields[fold(at)], text)
			}
			return "", false
		})
		return fields, err == nil, nil
	}
	for pair := range strings.SplitSeq(string(b), "&") {
		k, v, _ := strings.Cut(pair, "=")
		if len(k) <= 64 {
			k, v = unescape(strings.ReplaceAll(k, "+", " ")), unescape(strings.ReplaceAll(v, "+", " "))
			fields[fold(strings.TrimSpace(k))] = append(fields[fold(strings.TrimSpace(k))], strings.TrimSpace(v))
		}
	}
	return fields, false, nil
}

func isJSONType(kind string) bool {
	return kind == "application/json" || kind == "text/json" || strings.HasSuffix(kind, "+json") || strings.HasPrefix(kind, "application/x-amz-json")
}

// mayIssue decides about a request that asks for a credential, before it is
// sent; end is called when its reply was taken.
func (x *exchange) mayIssue() (end func(), ref *refusal) {
	end = func() {}
	is := x.issue
	if is == nil {
		return end, nil
	}
	if len(x.swaps) > 0 {
		is.own = false
		if x.p.cfg.Issuing.Begin == nil {
			return end, nil
		}
		var creds []guard.Credential
		for _, s := range x.swaps {
			creds = append(creds, s.cred)
		}
		stop, err := x.p.cfg.Issuing.Begin(x.in.Context(), creds)
		if err != nil {
			return end, refuse(nethttp.StatusForbidden, "credential", "token-busy", "the credential's tokens are being refreshed by another session", "try again in a few seconds")
		}
		return stop, nil
	}
	d := x.allowIssue()
	is.ok = d.Allowed()
	if is.ok {
		is.own = false
		return end, nil
	}
	if !is.sure || is.own {
		return end, nil
	}
	x.p.cfg.Line.Refuse(x.use(guard.Credential{}), d)
	return end, &refusal{status: nethttp.StatusForbidden, layer: "credential", d: d}
}

func (x *exchange) allowIssue() guard.Decision {
	if x.p.cfg.Issuing.Allow == nil || x.p.cfg.Issuing.Store == nil {
		return guard.Decision{Action: guard.Block, Rule: x.issue.action, Reason: "the request asks for a credential, and this session keeps none"}
	}
	u := x.use(guard.Credential{})
	u.Action = x.issue.action
	return x.p.cfg.Issuing.Allow(u)
}

// issuedHosts are where what was issued here may go: the hosts of issuers.txt,
// or those of the same registrable domain (publicsuffix.org); of a name without
// one, or an address, that place alone.
func (x *exchange) issuedHosts() []string {
	for _, r := range x.p.issuers {
		if r.action == "hosts" && broker.MatchHost(r.hosts, x.meta.host, x.meta.port) {
			return r.to
		}
	}
	own := x.place()
	if net.ParseIP(x.meta.host) != nil {
		return []string{own}
	}
	domain, err := publicsuffix.EffectiveTLDPlusOne(x.meta.host)
	if err != nil {
		return []string{own}
	}
	if domain == x.meta.host {
		return []string{domain, "*." + domain}
	}
	return []string{x.meta.host, domain, "*." + domain}
}

// place is the host, with its port where that is not HTTPS's.
func (x *exchange) place() string {
	if x.meta.port == 443 {
		return x.meta.host
	}
	return net.JoinHostPort(x.meta.host, strconv.Itoa(x.meta.port))
}

// rewriteJSON hands every string of b to visit, with its path ("a.b"; the
// elements of an array have their array's), and puts in what it returns instead.
// The error says that b is not one JSON value.
func rewriteJSON(b []byte, visit func(at, text string) (string, bool)) ([]byte, error) {
	if !json.Valid(b) {
		return nil, errors.New("not JSON")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var out []byte
	last := 0
	var walk func(at string) error
	walk = func(at string) error {
		before := d.InputOffset()
		tok, err := d.Token()
		if err != nil {
			return err
		}
		switch t := tok.(type) {
		case json.Delim:
			for d.More() {
				sub := at
				if t == '{' {
					k, err := d.Token()
					if err != nil {
						return err
					}
					if sub, _ = k.(string); at != "" {
						sub = at + "." + sub
					}
				}
				if err := walk(sub); err != nil {
					return err
				}
			}
			_, err := d.Token()
			return err
		case json.Number:
			visit(at, t.String())
		case string:
			is, change := visit(at, t)
			if !change {
				return nil
			}
			end := int(d.InputOffset())
			start := int(before) + bytes.IndexByte(b[before:end], '"')
			var enc bytes.Buffer
			e := json.NewEncoder(&enc)
			e.SetEscapeHTML(false)
			if err := e.Encode(is); err != nil {
				return err
			}
			out = append(append(out, b[last:start]...), bytes.TrimRight(enc.Bytes(), "\n")...)
			last = end
		}
		return nil
	}
	if err := walk(""); err != nil {
		return nil, err
	}
	return append(out, b[last:]...), nil
}
