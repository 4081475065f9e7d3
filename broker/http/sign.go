package http

import (
	nethttp "net/http"
	"strconv"
	"strings"

	"guard"
)

// SignRequest is a request as Config.Sign sees it: its head is clean, egress allowed
// it, and nothing of it was sent.
type SignRequest struct {
	*nethttp.Request // the agent's; a Body that takes the place of its own goes on instead
	Host             string
	Port             int
	TLS              bool
	Creds            []guard.Credential // of the context
	Home             func(guard.Credential) bool
	Use              guard.Use // describes it, without a credential
}

// Signing is what Config.Sign makes of a request that is its own to sign, or to
// answer.
type Signing struct {
	Credential guard.Credential
	Channel    guard.Channel // "": ChannelHTTP
	Action     string        // "": by the method
	Resource   string
	// Mint says that the reply gives out credentials, of which MintFields are names
	// besides the usual ones, in lower case, without - and _.
	Mint       bool
	MintFields []string
	// Apply signs out, which is on its way; value is the credential's, and not kept.
	// Its errors are the upstream's failure, or a Refused.
	Apply func(out *nethttp.Request, value string) error
	// Deny is the shape of a refusal; nil: guard's own.
	Deny func(Denial) (contentType string, body []byte)
	// Refused stops the request; Reply answers it here.
	Refused *Refused
	Reply   *Reply
}

// Denial is what a refusal says.
type Denial struct {
	Status     int
	Error      string
	Layer      string
	Credential string
	Host       string
	Method     string
	Path       string
	Rule       string
	Reason     string
	NextSteps  []string
	RequestID  string
}

// Refused is why a request is not signed. It is an error.
type Refused struct {
	Status   int // 0: 403
	Layer    string
	Decision guard.Decision
}

func (r *Refused) Error() string { return "refused by " + r.Decision.Rule + ": " + r.Decision.Reason }

// Reply is an answer of guard's own.
type Reply struct {
	Status      int
	ContentType string
	Body        []byte
}

// sign asks Config.Sign about the request. done says that it was answered.
func (x *exchange) sign(w nethttp.ResponseWriter) (done bool, ref *refusal) {
	if x.p.cfg.Sign == nil {
		return false, nil
	}
	r := &SignRequest{Request: x.in, Host: x.meta.host, Port: x.meta.port, TLS: x.meta.tls, Creds: x.creds, Home: x.isHome, Use: x.use(guard.Credential{})}
	s := x.p.cfg.Sign(r)
	if s == nil {
		return false, nil
	}
	x.signing = s
	if s.Refused != nil {
		x.p.cfg.Line.Refuse(x.use(s.Credential), s.Refused.Decision)
		return false, s.refusal(s.Refused)
	}
	if s.Reply != nil {
		h := w.Header()
		h.Set("Content-Type", s.Reply.ContentType)
		h.Set("Content-Length", strconv.Itoa(len(s.Reply.Body)))
		h.Set("Cache-Control", "no-store")
		w.WriteHeader(s.Reply.Status)
		if x.method != nethttp.MethodHead {
			w.Write(s.Reply.Body)
		}
		return true, nil
	}
	x.length = x.in.ContentLength
	x.addSwap(swap{cred: s.Credential, signs: true, edits: []edit{
		func(*nethttp.Request, string) error { return x.plaintext(s.Credential) },
		func(out *nethttp.Request, value string) error {
			err := s.Apply(out, value)
			if r, ok := err.(*Refused); ok {
				return s.refusal(r)
			}
			return err
		},
	}})
	return false, nil
}

func (s *Signing) refusal(r *Refused) *refusal {
	out := &refusal{status: r.Status, layer: r.Layer, credential: s.Credential.Name, d: r.Decision}
	if out.status == 0 {
		out.status = nethttp.StatusForbidden
	}
	if out.layer == "" {
		out.layer = "credential"
	}
	return out
}

// mints makes the reply one that gives out credentials.
func (x *exchange) mints() {
	if s := x.signing; s != nil && s.Mint && (x.issue == nil || !x.issue.sure) {
		x.issue = &issue{sure: true, rule: "sign", action: "token:mint", fields: append(append(tokenFields(), mintFields()...), s.MintFields...), form: map[string][]string{}, client: map[string][]string{}}
	}
}

// ranges says whether parts of replies may go on: what the host could tell is a key
// that it was never sent, since requests are signed with it.
func (x *exchange) ranges() bool {
	if x.signing == nil {
		return false
	}
	for _, id := range x.ids {
		if id.Name != x.signing.Credential.Name || id.Context != x.signing.Credential.Context {
			return false
		}
	}
	return true
}

// denied is the body of r in the shape of the protocol that is signed.
func (x *exchange) denied(r *refusal) (contentType string, body []byte, ok bool) {
	if x.signing == nil || x.signing.Deny == nil {
		return "", nil, false
	}
	contentType, body = x.signing.Deny(Denial{
		Status: r.status, Error: errorWord(r), Layer: r.layer, Credential: r.credential, Host: x.meta.host, Method: x.method, Path: x.path,
		Rule: r.d.Rule, Reason: r.d.Reason, NextSteps: append([]string{}, r.d.NextSteps...), RequestID: x.id,
	})
	return contentType, body, true
}

// bare takes aws-chunked out of a reply's Content-Encoding: some servers keep what an
// upload said, and their replies are in no chunks.
func (x *exchange) bare(h nethttp.Header) {
	if x.signing == nil {
		return
	}
	var keep []string
	for _, v := range h["Content-Encoding"] {
		for c := range strings.SplitSeq(v, ",") {
			if c = strings.TrimSpace(c); c != "" && !strings.EqualFold(c, "aws-chunked") {
				keep = append(keep, c)
			}
		}
	}
	delete(h, "Content-Encoding")
	if len(keep) > 0 {
		h["Content-Encoding"] = []string{strings.Join(keep, ", ")}
	}
}
