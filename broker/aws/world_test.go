package aws

import (
	"bytes"
	"io"
	nethttp "net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"guard"
	"guard/broker"
)

// realSecret is what the vault holds.
func realSecret() string { return strings.Repeat("real/", 8) }

func testNow() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

func creds() []guard.Credential {
	return []guard.Credential{
		{Name: "s3", Context: "default", Version: 1, Kind: Kind, User: realID, Hosts: []string{"s3.test", "*.v.test", "*.amazonaws.com"}, Placeholder: placeholder},
		{Name: "bait", Context: "default", Version: 1, Kind: Kind, Hosts: []string{"s3.test"}, Placeholder: "decoyDECOYdecoyDECOYdecoyDECOYdecoyDECOY", Decoy: true},
	}
}

func newSigner() *Signer {
	return &Signer{
		Now: testNow, Active: func(guard.Credential) bool { return true },
		Decide: func(u guard.Use) guard.Decision {
			if strings.HasPrefix(u.Resource, "mine/") {
				return guard.Decision{Action: guard.Pass}
			}
			return guard.Decision{Action: guard.Block, Rule: "scope", Reason: "outside"}
		},
	}
}

func wrap(r *nethttp.Request) *Request {
	host := broker.CanonicalHost(r.Host)
	return &Request{Request: r, Host: host, Port: 443, TLS: true, Creds: creds(), Home: func(c guard.Credential) bool { return broker.MatchHost(c.Hosts, host, 443) }}
}

// agent is what an agent's client does: it signs r with the placeholder key.
type agent struct {
	service, region, alg string
	keys                 keys
	at                   time.Time
	skip                 []string // headers that it does not sign
	presign              int      // seconds; 0: in a header
}

func newAgent() agent {
	return agent{service: "s3", region: "us-east-1", alg: algHMAC, keys: keys{id: KeyID(placeholder), secret: placeholder}, at: testNow()}
}

func (a agent) sign(t testing.TB, r *nethttp.Request, payload string) *signature {
	t.Helper()
	sig := &signature{alg: a.alg, id: a.keys.id, region: a.region, service: a.service, date: a.at, query: a.presign > 0}
	sig.scope = a.at.Format("20060102") + "/" + a.region + "/" + a.service + "/aws4_request"
	if sig.ecdsa() {
		sig.scope = a.at.Format("20060102") + "/" + a.service + "/aws4_request"
	}
	if !sig.query {
		r.Header.Set("X-Amz-Date", a.at.Format(dateForm))
	}
	sig.signed = []string{"host"}
	for k := range r.Header {
		if low := strings.ToLower(k); strings.HasPrefix(low, "x-amz-") || low == "content-type" {
			sig.signed = append(sig.signed, low)
		}
	}
	for _, s := range a.skip {
		for i, n := range sig.signed {
			if n == s {
				sig.signed = append(sig.signed[:i], sig.signed[i+1:]...)
				break
			}
		}
	}
	sortStrings(sig.signed)
	names := strings.Join(sig.signed, ";")
	q, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		t.Fatal(err)
	}
	if sig.query {
		q = append(q, pair{"X-Amz-Algorithm", a.alg}, pair{"X-Amz-Credential", a.keys.id + "/" + sig.scope}, pair{"X-Amz-Date", a.at.Format(dateForm)}, pair{"X-Amz-Expires", strconv.Itoa(a.presign)}, pair{"X-Amz-SignedHeaders", names})
	}
	by, err := sig.signer(a.keys)
	if err != nil {
		t.Fatal(err)
	}
	text, ok := sig.toSign(r, q, canonicalPath(r.URL, a.service), payload)
	if !ok {
		t.Fatal("a header is missing")
	}
	if sig.value, err = by.sign(text); err != nil {
		t.Fatal(err)
	}
	if sig.query {
		r.URL.RawQuery = q.canonical(false) + "&X-Amz-Signature=" + sig.value
		return sig
	}
	r.Header.Set("Authorization", a.alg+" Credential="+a.keys.id+"/"+sig.scope+", SignedHeaders="+names+", Signature="+sig.value)
	return sig
}

func sortStrings(s []string) {
	for i := range s {
		for j := i; j > 0 && s[j] < s[j-1]; j-- {
			s[j], s[j-1] = s[j-1], s[j]
		}
	}
}

// server verifies r as AWS does, with the real key, and returns its body's data.
func server(t testing.TB, r *nethttp.Request, id, secret string) ([]byte, error) {
	t.Helper()
	sig, err := parse(r)
	if err != nil {
		return nil, err
	}
	if sig.id != id {
		return nil, wrong("InvalidAccessKeyId", sig.id)
	}
	if err := sig.covered(r); err != nil {
		return nil, err
	}
	by, err := sig.signer(keys{id: id, secret: secret})
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if r.ContentLength >= 0 && int64(len(body)) != r.ContentLength {
		t.Errorf("Content-Length %d, %d bytes", r.ContentLength, len(body))
	}
	payload := r.Header.Get("X-Amz-Content-Sha256")
	if payload == "" {
		if payload = unsigned; !s3Like(sig.service) || !sig.query {
			payload, _ = takeBody(&nethttp.Request{Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body))})
		}
	}
	q, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	text, ok := sig.toSign(r, q, canonicalPath(r.URL, sig.service), payload)
	if !ok || !by.verify(text, sig.value) {
		return nil, wrong("SignatureDoesNotMatch", "the server's: "+text)
	}
	kind, is := streamingOf(payload)
	if !is {
		return body, nil
	}
	var c *chain
	if kind.signed {
		c = newChain(by, sig, sig.value)
	}
	n, err := decodedLength(r)
	if err != nil {
		return nil, err
	}
	names, err := trailerNames(r, kind)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(newDechunker(io.NopCloser(bytes.NewReader(body)), kind, c, n, names, &frames{}))
}

// pass sends r by way of s, to the server.
func pass(t testing.TB, s *Signer, r *nethttp.Request) (*Signing, []byte, error) {
	t.Helper()
	g := s.Sign(wrap(r))
	if g == nil || g.Refused != nil {
		return g, nil, nil
	}
	out := r.Clone(r.Context())
	if out.Body == nil {
		out.Body = nethttp.NoBody
	}
	if err := g.Apply(out, realSecret()); err != nil {
		return g, nil, err
	}
	b, err := server(t, out, realID, realSecret())
	return g, b, err
}
