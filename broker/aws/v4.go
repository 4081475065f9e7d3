package aws

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	nethttp "net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	algHMAC  = "AWS4-HMAC-SHA256"
	algECDSA = "AWS4-ECDSA-P256-SHA256"

	unsigned  = "UNSIGNED-PAYLOAD"
	dateForm  = "20060102T150405Z"
	maxSkew   = 15 * time.Minute
	maxExpire = 7 * 24 * time.Hour
)

// keys are what signs.
type keys struct{ id, secret, token string }

// signature is one of a request, as it came.
type signature struct {
	alg     string
	id      string
	scope   string // without the key's id: "date/region/service/aws4_request"
	region  string
	service string
	signed  []string // names of headers, in lower case, sorted
	value   string
	date    time.Time
	query   bool
	expires time.Duration // of a presigned URL
}

func (s *signature) ecdsa() bool { return s.alg == algECDSA }

// errNone says that a request has no signature.
var errNone = errors.New("no signature")

// fault is what is wrong with a signature: a code of AWS's, and a sentence.
type fault struct{ code, text string }

func (f *fault) Error() string { return f.text }

func wrong(code, text string) error { return &fault{code, text} }

// parse finds r's signature.
func parse(r *nethttp.Request) (*signature, error) {
	auths := r.Header["Authorization"]
	q, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, wrong("InvalidArgument", "the query cannot be read")
	}
	inQuery := q.has("X-Amz-Signature") || q.has("X-Amz-Algorithm") || q.has("X-Amz-Credential")
	v2 := q.has("AWSAccessKeyId")
	header := false
	for _, a := range auths {
		switch scheme, _, _ := strings.Cut(strings.TrimSpace(a), " "); {
		case strings.HasPrefix(scheme, "AWS4-"):
			header = true
		case scheme == "AWS" || strings.HasPrefix(scheme, "AWS3"):
			v2 = true
		}
	}
	switch {
	case len(auths) > 1 && (header || v2 || inQuery), inQuery && len(auths) > 0, v2 && (header || inQuery):
		return nil, wrong("InvalidArgument", "the request has more than one signature")
	case v2:
		return nil, wrong("InvalidRequest", "Signature Version 2 is not served: sign with Version 4")
	case inQuery:
		return parsePresigned(q)
	case header:
		return parseHeader(r, auths[0])
	}
	return nil, errNone
}

func parseHeader(r *nethttp.Request, v string) (*signature, error) {
	alg, rest, _ := strings.Cut(strings.TrimSpace(v), " ")
	s := &signature{alg: alg}
	seen := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		k, v, ok := strings.Cut(strings.TrimSpace(part), "=")
		if _, twice := seen[k]; !ok || twice {
			return nil, wrong("AuthorizationHeaderMalformed", "the Authorization header is not one of Signature Version 4")
		}
		seen[k] = v
	}
	if len(seen) != 3 {
		return nil, wrong("AuthorizationHeaderMalformed", "the Authorization header wants Credential, SignedHeaders and Signature, and nothing else")
	}
	dates := r.Header["X-Amz-Date"]
	date := ""
	switch {
	case len(dates) == 1:
		date = dates[0]
	case len(dates) == 0 && len(r.Header["Date"]) == 1:
		t, err := nethttp.ParseTime(r.Header.Get("Date"))
		if err != nil {
			return nil, wrong("AccessDenied", "the request's date cannot be read")
		}
		date = t.UTC().Format(dateForm)
	default:
		return nil, wrong("AccessDenied", "a signed request needs one x-amz-date")
	}
	return s, s.fill(seen["Credential"], seen["SignedHeaders"], seen["Signature"], date)
}

func parsePresigned(q query) (*signature, error) {
	for _, k := range []string{"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Signature"} {
		if q.count(k) != 1 {
			return nil, wrong("AuthorizationQueryParametersError", "a presigned URL wants "+k+" once")
		}
	}
	if q.count("X-Amz-Expires") > 1 || q.count("X-Amz-Security-Token") > 1 || q.count("X-Amz-Content-Sha256") > 1 || q.count("X-Amz-Region-Set") > 1 {
		return nil, wrong("AuthorizationQueryParametersError", "a parameter of the presigned URL is there twice")
	}
	s := &signature{alg: q.get("X-Amz-Algorithm"), query: true, expires: maxSkew}
	if e := q.get("X-Amz-Expires"); e != "" {
		n, err := strconv.Atoi(e)
		if err != nil || n < 1 || time.Duration(n)*time.Second > maxExpire {
			return nil, wrong("AuthorizationQueryParametersError", "X-Amz-Expires must be a number of seconds, at most a week")
		}
		s.expires = time.Duration(n) * time.Second
	}
	return s, s.fill(q.get("X-Amz-Credential"), q.get("X-Amz-SignedHeaders"), q.get("X-Amz-Signature"), q.get("X-Amz-Date"))
}

func (s *signature) fill(credential, headers, value, date string) error {
	var ok bool
	s.id, s.scope, ok = strings.Cut(credential, "/")
	parts := strings.Split(s.scope, "/")
	switch {
	case !ok || s.id == "":
		return wrong("AuthorizationHeaderMalformed", "the signature names no access key")
	case s.alg == algHMAC && len(parts) == 4:
		s.region, s.service = parts[1], parts[2]
	case s.alg == algECDSA && len(parts) == 3:
		s.service = parts[1]
	case s.alg != algHMAC && s.alg != algECDSA:
		return wrong("InvalidRequest", "the signature's algorithm is neither "+algHMAC+" nor "+algECDSA)
	default:
		return wrong("AuthorizationHeaderMalformed", "the signature's scope wants date, region, service and aws4_request")
	}
	if parts[len(parts)-1] != "aws4_request" || s.service == "" || !plain(s.service) || !plain(s.region) {
		return wrong("AuthorizationHeaderMalformed", "the signature's scope wants date, region, service and aws4_request")
	}
	t, err := time.Parse(dateForm, date)
	if err != nil {
		return wrong("AccessDenied", "the request's date cannot be read")
	}
	s.date = t
	if parts[0] != t.Format("20060102") {
		return wrong("SignatureDoesNotMatch", "the date of the signature's scope is not that of the request")
	}
	s.signed = strings.Split(headers, ";")
	if !slices.IsSorted(s.signed) || len(slices.Compact(slices.Clone(s.signed))) != len(s.signed) || strings.ToLower(headers) != headers {
		return wrong("AuthorizationHeaderMalformed", "SignedHeaders wants names in lower case, in order, each once")
	}
	s.value = value
	return nil
}

func plain(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '*' {
			return false
		}
	}
	return true
}

// covered says what must be signed and is not: the host, and whatever AWS acts on.
func (s *signature) covered(r *nethttp.Request) error {
	if !slices.Contains(s.signed, "host") {
		return wrong("AccessDenied", "the signature does not cover the host")
	}
	for k := range r.Header {
		name := strings.ToLower(k)
		if strings.HasPrefix(name, "x-amz-") && !slices.Contains(s.signed, name) {
			return wrong("AccessDenied", "there were headers present in the request which were not signed: "+shown(name))
		}
	}
	return nil
}

func shown(name string) string {
	if len(name) > 64 || !plain(name) {
		return "x-amz-..."
	}
	return name
}

// fresh says whether the date is one that AWS would take.
func (s *signature) fresh(now time.Time) error {
	if s.query {
		switch {
		case now.After(s.date.Add(s.expires)):
			return wrong("AccessDenied", "Request has expired")
		case now.Before(s.date.Add(-maxSkew)):
			return wrong("AccessDenied", "Request is not yet valid")
		}
		return nil
	}
	if d := now.Sub(s.date); d > maxSkew || d < -maxSkew {
		return wrong("RequestTimeTooSkewed", "The difference between the request time and the current time is too large.")
	}
	return nil
}

// query is a query string as it came, decoded, in order.
type query []pair

type pair struct{ k, v string }

func parseQuery(raw string) (query, error) {
	var q query
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		k, v, _ := strings.Cut(part, "=")
		dk, err := url.QueryUnescape(k)
		if err != nil {
			return nil, err
		}
		dv, err := url.QueryUnescape(v)
		if err != nil {
			return nil, err
		}
		q = append(q, pair{dk, dv})
	}
	return q, nil
}

// Names of AWS's parameters are taken whatever their case: a server may.
func (q query) count(k string) int {
	n := 0
	for _, p := range q {
		if strings.EqualFold(p.k, k) {
			n++
		}
	}
	return n
}

func (q query) has(k string) bool { return q.count(k) > 0 }

func (q query) get(k string) string {
	for _, p := range q {
		if strings.EqualFold(p.k, k) {
			return p.v
		}
	}
	return ""
}

// set puts v in the place of k, or at the end; "" takes it out.
func (q query) set(k, v string) query {
	for i := range q {
		if strings.EqualFold(q[i].k, k) {
			if v == "" {
				return slices.Delete(slices.Clone(q), i, i+1)
			}
			q[i].v = v
			return q
		}
	}
	if v == "" {
		return q
	}
	return append(q, pair{k, v})
}

// canonical is the canonical query string without the signature; it is a query string
// as well.
func (q query) canonical(presigned bool) string {
	var parts []string
	for _, p := range q {
		if presigned && strings.EqualFold(p.k, "X-Amz-Signature") {
			continue
		}
		parts = append(parts, escape(p.k, false)+"="+escape(p.v, false))
	}
	slices.Sort(parts) // '=' sorts after what a name may hold but for letters and digits, see below
	slices.SortStableFunc(parts, func(a, b string) int {
		ak, av, _ := strings.Cut(a, "=")
		bk, bv, _ := strings.Cut(b, "=")
		if c := strings.Compare(ak, bk); c != 0 {
			return c
		}
		return strings.Compare(av, bv)
	})
	return strings.Join(parts, "&")
}

// escape is UriEncode of the AWS documentation.
func escape(s string, slashes bool) string {
	const hexa = "0123456789ABCDEF"
	n := 0
	for i := range len(s) {
		if !unreserved(s[i], slashes) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	b := make([]byte, 0, len(s)+2*n)
	for i := range len(s) {
		if c := s[i]; unreserved(c, slashes) {
			b = append(b, c)
		} else {
			b = append(b, '%', hexa[c>>4], hexa[c&15])
		}
	}
	return string(b)
}

func unreserved(c byte, slashes bool) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.' || c == '~' || slashes && c == '/'
}

// canonicalPath is the path as it is signed: S3 signs it as it is, the others encode
// it once more and take dots out.
func canonicalPath(u *url.URL, service string) string {
	if s3Like(service) {
		if u.Path == "" {
			return "/"
		}
		return escape(u.Path, true)
	}
	p := u.EscapedPath()
	if p == "" {
		return "/"
	}
	return escape(dotless(p), true)
}

func s3Like(service string) bool {
	return service == "s3" || service == "s3express" || service == "s3-object-lambda" || service == "s3-outposts"
}

// dotless is RFC 3986, section 5.2.4, and takes double slashes for one.
func dotless(p string) string {
	var out []string
	for seg := range strings.SplitSeq(p, "/") {
		switch seg {
		case "", ".":
		case "..":
			out = out[:max(0, len(out)-1)]
		default:
			out = append(out, seg)
		}
	}
	s := "/" + strings.Join(out, "/")
	if strings.HasSuffix(p, "/") && s != "/" {
		s += "/"
	}
	return s
}

// canonicalHeaders are the lines of the headers in signed; ok is false if one of
// them is not there.
func canonicalHeaders(r *nethttp.Request, signed []string) (lines string, ok bool) {
	var b strings.Builder
	for _, name := range signed {
		var v string
		switch name {
		case "host":
			v = r.Host
			if v == "" {
				v = r.URL.Host
			}
		case "content-length":
			if r.ContentLength < 0 {
				return "", false
			}
			v = strconv.FormatInt(r.ContentLength, 10)
		default:
			vs, has := r.Header[nethttp.CanonicalHeaderKey(name)]
			if !has {
				return "", false
			}
			parts := make([]string, len(vs))
			for i, one := range vs {
				parts[i] = collapse(one)
			}
			v = strings.Join(parts, ",")
		}
		b.WriteString(name + ":" + v + "\n")
	}
	return b.String(), true
}

// collapse takes the spaces around v, and all but one of those in it.
func collapse(v string) string {
	v = strings.Trim(v, " \t")
	if !strings.Contains(v, "  ") {
		return v
	}
	for strings.Contains(v, "  ") {
		v = strings.ReplaceAll(v, "  ", " ")
	}
	return v
}

// toSign is the string to sign for r, whose body's hash is payload.
func (s *signature) toSign(r *nethttp.Request, q query, path, payload string) (string, bool) {
	lines, ok := canonicalHeaders(r, s.signed)
	if !ok {
		return "", false
	}
	sum := sha256.Sum256([]byte(r.Method + "\n" + path + "\n" + q.canonical(s.query) + "\n" + lines + "\n" + strings.Join(s.signed, ";") + "\n" + payload))
	return s.alg + "\n" + s.date.Format(dateForm) + "\n" + s.scope + "\n" + hex.EncodeToString(sum[:]), true
}

// signer signs strings.
type signer struct {
	hmac  []byte
	ecdsa *ecdsa.PrivateKey
}

func mac(key []byte, s string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(s))
	return m.Sum(nil)
}

// signer derives the key of s from k.
func (s *signature) signer(k keys) (*signer, error) {
	if s.ecdsa() {
		p, err := asymmetric(k)
		return &signer{ecdsa: p}, err
	}
	key := mac([]byte("AWS4"+k.secret), s.date.Format("20060102"))
	for _, part := range []string{s.region, s.service, "aws4_request"} {
		key = mac(key, part)
	}
	return &signer{hmac: key}, nil
}

// asymmetric derives the P-256 key of a key pair: NIST SP 800-108 in counter mode,
// and of its candidates the first that is in range.
func asymmetric(k keys) (*ecdsa.PrivateKey, error) {
	n := elliptic.P256().Params().N.Bytes()
	n[len(n)-1] -= 2 // N is odd and ends in 0x51: no borrow
	for counter := byte(1); counter < 255; counter++ {
		m := hmac.New(sha256.New, []byte("AWS4A"+k.secret))
		m.Write([]byte{0, 0, 0, 1})
		m.Write([]byte(algECDSA))
		m.Write([]byte{0})
		m.Write([]byte(k.id))
		m.Write([]byte{counter})
		m.Write([]byte{0, 0, 1, 0})
		c := m.Sum(nil)
		if slices.Compare(c, n) > 0 {
			continue
		}
		for i := len(c) - 1; i >= 0; i-- { // c + 1
			if c[i]++; c[i] != 0 {
				break
			}
		}
		return ecdsa.ParseRawPrivateKey(elliptic.P256(), c)
	}
	return nil, errors.New("no key can be derived from the key pair")
}

func (s *signer) sign(text string) (string, error) {
	if s.ecdsa == nil {
		return hex.EncodeToString(mac(s.hmac, text)), nil
	}
	sum := sha256.Sum256([]byte(text))
	sig, err := ecdsa.SignASN1(rand.Reader, s.ecdsa, sum[:])
	return hex.EncodeToString(sig), err
}

func (s *signer) verify(text, value string) bool {
	got, err := hex.DecodeString(value)
	if err != nil {
		return false
	}
	if s.ecdsa == nil {
		return hmac.Equal(got, mac(s.hmac, text))
	}
	sum := sha256.Sum256([]byte(text))
	return ecdsa.VerifyASN1(&s.ecdsa.PublicKey, sum[:], got)
}
