package aws

import (
	"context"
	"errors"
	nethttp "net/http"
	"slices"
	"strings"
	"time"

	"guard"
	"guard/broker"
	"guard/policy"
)

// Kind is that of credentials that sign requests to AWS.
const Kind = "aws"

// Request is one of the agent's, whose head is clean.
type Request struct {
	*nethttp.Request // Sign may put another Body, ContentLength and Content-Encoding in
	Host             string
	Port             int
	TLS              bool
	Creds            []guard.Credential // of the context
	Home             func(guard.Credential) bool
	Use              guard.Use
}

// Signing is what is made of a request: it is signed by Apply with Credential, as
// Action on Resource, or refused, or answered.
type Signing struct {
	Credential guard.Credential
	Channel    guard.Channel
	Action     string // "": by the method
	Resource   string
	Mint       bool     // the reply gives out credentials
	MintFields []string // what it calls them, in lower case, without - and _
	Apply      func(out *nethttp.Request, value string) error
	Deny       func(Denial) (contentType string, body []byte)
	Refused    *Refused
	Reply      *Reply
}

// Refused is why a request is not signed. It is an error, also of bodies and Apply.
type Refused struct {
	Decision guard.Decision
	code     string // AWS's
}

func (r *Refused) Error() string { return "refused by " + r.Decision.Rule + ": " + r.Decision.Reason }

// Reply is an answer of guard's own.
type Reply struct {
	Status      int
	ContentType string
	Body        []byte
}

// Signer signs for the agent. The zero value signs nothing that is allowed nowhere;
// all fields but Now are required for what they say.
type Signer struct {
	// Active says whether the session may use a credential at all: only then is what
	// goes to its hosts without a signature refused.
	Active func(guard.Credential) bool
	// Decide is policy's answer, for what a request does besides what the use line is
	// asked: the source of a copy.
	Decide func(guard.Use) guard.Decision
	// Scopes are what the session may use a credential for, for the policies of
	// sessions and the scopes of tokens; none: anything.
	Scopes func(guard.Credential) []policy.Scope
	// Client asks STS and token endpoints. It must not follow redirects.
	Client *nethttp.Client
	// Minted is told of each value that was asked for with a credential, before it is used,
	// so that it is looked for from then on: secret keys and tokens of STS, access
	// tokens. It gets a copy of its own. Optional.
	Minted func(c guard.Credential, value guard.Secret)
	// Session names the session to STS, at most 24 letters and digits.
	Session string
	// Key is the placeholder key of service accounts; see GoogleFile. Optional.
	Key *ServiceKey
	// Now is the clock; nil is time.Now.
	Now func() time.Time

	minted minted
}

func (s *Signer) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// tell gives copies of values to Minted.
func (s *Signer) tell(c guard.Credential, values ...string) {
	if s.Minted == nil {
		return
	}
	for _, v := range values {
		s.Minted(c, guard.NewSecret([]byte(v)))
	}
}

// Sign looks at a request; nil: it is none of this package's.
func (s *Signer) Sign(r *Request) *Signing {
	if g := s.google(r); g != nil {
		return g
	}
	var at guard.Credential // one that belongs to this host
	endpoint := broker.MatchHost([]string{"*.amazonaws.com", "*.amazonaws.com.cn", "*.api.aws"}, r.Host, r.Port)
	here := !endpoint || awsEndpoint(r.Host)
	var all []guard.Credential
	for _, c := range r.Creds {
		if c.Kind != Kind || c.Placeholder == "" {
			continue
		}
		all = append(all, c)
		if !c.Decoy && at.Name == "" && here && r.Home(c) && s.Active != nil && s.Active(c) {
			at = c
		}
	}
	if len(all) == 0 {
		return nil
	}
	sig, err := parse(r.Request)
	var c guard.Credential
	known := false
	for _, one := range all {
		id, _ := Options(one.User)
		if sig != nil && (sig.id == KeyID(one.Placeholder) || sig.id == id) || sig == nil && mentions(r.Request, KeyID(one.Placeholder)) {
			c, known = one, true
			break
		}
	}
	if !known {
		if at.Name == "" {
			return nil
		}
		deny := s.shape(r, sig)
		switch {
		case errors.Is(err, errNone):
			return refused(at, deny, wrong("MissingSecurityHeader", "the request is not signed"))
		case err != nil:
			return refused(at, deny, err)
		}
		return refused(at, deny, wrong("InvalidAccessKeyId", "the request is signed with a key that is not the session's"))
	}
	deny := s.shape(r, sig)
	if c.Decoy {
		return &Signing{Credential: c, Channel: guard.ChannelAWS, Deny: deny, Refused: &Refused{Decision: guard.Decision{
			Action: guard.Block, Rule: policy.RuleDecoy, Secret: c.ID(), Reason: c.Name + " is not to be used: the user has been told", NextSteps: []string{"go on without it"},
		}}}
	}
	if !here || !r.Home(c) {
		return &Signing{Credential: c, Channel: guard.ChannelAWS, Deny: deny, Refused: &Refused{Decision: guard.Decision{
			Action: guard.Block, Rule: "placeholder-host", Secret: c.ID(), Reason: "the credential " + c.Name + " does not belong to " + r.Host,
			NextSteps: []string{"sign requests to its own hosts only", "ask the user, if the credential should be used here: guard secret edit " + c.Name},
		}}}
	}
	if err == nil {
		err = s.check(sig, r.Request)
	}
	if err != nil {
		return refused(c, deny, err)
	}
	return s.sign(r, sig, c, deny)
}

// mentions says whether r names the key id where signatures do.
func mentions(r *nethttp.Request, id string) bool {
	for _, a := range r.Header["Authorization"] {
		if strings.Contains(a, id) {
			return true
		}
	}
	return strings.Contains(r.URL.RawQuery, id)
}

func refused(c guard.Credential, deny func(Denial) (string, []byte), err error) *Signing {
	return &Signing{Credential: c, Channel: guard.ChannelAWS, Deny: deny, Refused: refusal(c, err)}
}

// refusal is a fault as a decision.
func refusal(c guard.Credential, err error) *Refused {
	code := "AccessDenied"
	var f *fault
	if errors.As(err, &f) {
		code = f.code
	}
	next := []string{"sign with the session's AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY as they are, with Signature Version 4"}
	switch code {
	case "RequestTimeTooSkewed":
		next = []string{"use the machine's clock: what signs had another time"}
	case "InvalidAccessKeyId", "MissingSecurityHeader":
		next = append(next, "if this host should be reached without it, ask the user to name the credential's hosts: guard secret edit "+c.Name+" --host HOST")
	}
	return &Refused{code: code, Decision: guard.Decision{Action: guard.Block, Rule: "aws-signature", Secret: c.ID(), Reason: err.Error(), NextSteps: next}}
}

func (s *Signer) check(sig *signature, r *nethttp.Request) error {
	if err := sig.covered(r); err != nil {
		return err
	}
	return sig.fresh(s.now())
}

// sign verifies the placeholder's signature, and returns how to make the real one.
func (s *Signer) sign(r *Request, sig *signature, c guard.Credential, deny func(Denial) (string, []byte)) *Signing {
	in := r.Request
	payload, err := s.payload(r, sig)
	if err != nil {
		return refused(c, deny, err)
	}
	q, err := parseQuery(in.URL.RawQuery)
	if err != nil {
		return refused(c, deny, wrong("InvalidArgument", "the query cannot be read"))
	}
	agent, err := sig.signer(keys{id: sig.id, secret: c.Placeholder})
	if err != nil {
		return refused(c, deny, err)
	}
	text, ok := sig.toSign(in, q, canonicalPath(in.URL, sig.service), payload)
	if ok = ok && agent.verify(text, sig.value); !ok {
		// Some clients sign the path as it is.
		text, has := sig.toSign(in, q, in.URL.EscapedPath(), payload)
		ok = has && agent.verify(text, sig.value)
	}
	if !ok {
		return refused(c, deny, wrong("SignatureDoesNotMatch", "the signature does not verify with the session's key"))
	}

	form, err := formOf(in)
	if err != nil {
		return refused(c, deny, err)
	}
	bucket, control := bucketOf(c, r.Host, r.Port)
	act, err := classify(in, sig.service, bucket, form, control)
	if err != nil {
		return refused(c, deny, err)
	}
	if src, has, err := copySource(in); err != nil {
		return refused(c, deny, err)
	} else if has {
		u := r.Use
		u.Credential, u.Channel, u.Action, u.Resource = c, guard.ChannelAWS, "s3:get", src
		if d := s.decide(u); !d.Allowed() {
			d.Secret = c.ID()
			return &Signing{Credential: c, Channel: guard.ChannelAWS, Action: act.name, Resource: act.resource, Deny: deny, Refused: &Refused{Decision: d}}
		}
	}

	g := &Signing{Credential: c, Channel: guard.ChannelAWS, Action: act.name, Resource: act.resource, Mint: act.mints(), MintFields: mintFields(), Deny: deny}
	var body func(out *nethttp.Request, seed string, by *signer, real *signature) error
	if kind, is := streamingOf(payload); is {
		if body, err = s.chunks(r, sig, kind, agent, c); err != nil {
			return refused(c, deny, err)
		}
	}
	g.Apply = func(out *nethttp.Request, value string) error {
		k, err := keysOf(value, c.User)
		if err != nil {
			return refusal(c, wrong("AccessDenied", "the credential "+c.Name+" cannot sign: "+err.Error()))
		}
		if k, err = s.session(out.Context(), c, k); err != nil {
			ref := refusal(c, err)
			ref.Decision.Rule, ref.Decision.NextSteps = "aws-session", []string{"tell the user: what STS says of the credential's role or user is theirs to change"}
			return ref
		}
		return resign(out, sig, k, payload, body)
	}
	return g
}

func (s *Signer) decide(u guard.Use) guard.Decision {
	if s.Decide == nil {
		return guard.Decision{Action: guard.Block, Rule: "default-deny", Reason: "nothing decides about the source of a copy in this session"}
	}
	return s.Decide(u)
}

// resign signs out with k: its head, and by body what is in chunks.
func resign(out *nethttp.Request, sig *signature, k keys, payload string, body func(*nethttp.Request, string, *signer, *signature) error) error {
	real := *sig
	real.id = k.id
	by, err := real.signer(k)
	if err != nil {
		return err
	}
	q, err := parseQuery(out.URL.RawQuery)
	if err != nil {
		return err
	}
	if body != nil { // the length that is signed is that of the chunks
		if err := body(out, "", nil, nil); err != nil {
			return err
		}
	}
	real.signed = nil
	for _, name := range sig.signed {
		_, has := out.Header[nethttp.CanonicalHeaderKey(name)]
		if name != "x-amz-security-token" && (has || name == "host" || name == "content-length") {
			real.signed = append(real.signed, name)
		}
	}
	out.Header.Del("X-Amz-Security-Token")
	if k.token != "" && !sig.query {
		out.Header.Set("X-Amz-Security-Token", k.token)
		real.signed = append(real.signed, "x-amz-security-token")
		slices.Sort(real.signed)
	}
	names := strings.Join(real.signed, ";")
	if sig.query {
		q = q.set("X-Amz-Credential", k.id+"/"+real.scope).set("X-Amz-SignedHeaders", names).set("X-Amz-Security-Token", k.token)
	}
	text, ok := real.toSign(out, q, canonicalPath(out.URL, real.service), payload)
	if !ok {
		return errors.New("a signed header is missing")
	}
	value, err := by.sign(text)
	if err != nil {
		return err
	}
	if sig.query {
		out.URL.RawQuery = q.canonical(true) + "&X-Amz-Signature=" + value
	} else {
		out.Header["Authorization"] = []string{real.alg + " Credential=" + k.id + "/" + real.scope + ", SignedHeaders=" + names + ", Signature=" + value}
	}
	if body != nil {
		return body(out, value, by, &real)
	}
	return nil
}

// payload is the last line of the canonical request. A body whose hash no header
// says is taken whole.
func (s *Signer) payload(r *Request, sig *signature) (string, error) {
	vs := r.Header["X-Amz-Content-Sha256"]
	q, err := parseQuery(r.URL.RawQuery)
	switch {
	case err != nil:
		return "", wrong("InvalidArgument", "the query cannot be read")
	case len(vs) > 1:
		return "", wrong("InvalidArgument", "x-amz-content-sha256 is there twice")
	case len(vs) == 1:
		if _, is := streamingOf(vs[0]); !is && vs[0] != unsigned && !isSum(vs[0]) || is && (sig.query || !s3Like(sig.service)) {
			return "", wrong("InvalidArgument", "x-amz-content-sha256 is not one that is served here")
		}
		// It is for S3. Of other services the body is read, so that what it asks for is known.
		if !s3Like(sig.service) {
			sum, err := takeBody(r.Request)
			if err == nil && sum != vs[0] && vs[0] != unsigned {
				err = wrong("XAmzContentSHA256Mismatch", "the body is not that of x-amz-content-sha256")
			}
			return vs[0], err
		}
		return vs[0], nil
	case q.has("X-Amz-Content-Sha256"):
		v := q.get("X-Amz-Content-Sha256")
		if v != unsigned && !isSum(v) || !s3Like(sig.service) {
			return "", wrong("InvalidArgument", "x-amz-content-sha256 is not one that is served here")
		}
		return v, nil
	case s3Like(sig.service) && sig.query:
		return unsigned, nil
	}
	return takeBody(r.Request)
}

func isSum(s string) bool {
	if len(s) != 64 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func contextOf(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, 20*time.Second)
}
