package http

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	nethttp "net/http"
	"strconv"
	"strings"

	"guard"
	"guard/broker"
)

// denial is the body of a refusal: these keys and no others, but for a model's API
// (modelDenial).
type denial struct {
	Error string `json:"error"`
	broker.Refusal
}

// refusal is an error that becomes an answer to the client.
type refusal struct {
	status     int
	layer      string // "credential", "leak", "egress", "protocol", "upstream"
	credential string
	d          guard.Decision
}

func (r *refusal) Error() string { return "refused by " + r.d.Rule + ": " + r.d.Reason }

func refuse(status int, layer, rule, reason string, next ...string) *refusal {
	return &refusal{status: status, layer: layer, d: guard.Decision{Action: guard.Block, Rule: rule, Reason: reason, NextSteps: next}}
}

// leakRefusal is what the leak line's stop becomes.
func leakRefusal(d guard.Decision, where string) *refusal {
	if d.Rule == "" {
		d.Rule = "leak"
	}
	if d.Reason == "" {
		d.Reason = where + " of the request holds a secret; nothing of it was sent"
	}
	if len(d.NextSteps) == 0 {
		d.NextSteps = []string{"send the request without the secret", "use the credential's placeholder in an authentication header"}
	}
	return &refusal{status: nethttp.StatusForbidden, layer: "leak", credential: d.Secret.Name, d: d}
}

func newID() string {
	return strings.ToLower(rand.Text()[:16])
}

// answer writes r to the client: status, the JSON body, and for 403 the header
// that tells it from an upstream's own.
func (x *exchange) answer(w nethttp.ResponseWriter, r *refusal) {
	body := x.denialBody(denial{
		Error: errorWord(r),
		Refusal: broker.Refusal{
			Layer: r.layer, Credential: r.credential, Host: x.meta.host, Method: x.method, Path: x.path,
			Rule: r.d.Rule, Reason: r.d.Reason, NextSteps: append([]string{}, r.d.NextSteps...), RequestID: x.id,
		},
	}, r.status)
	h := w.Header()
	clear(h)
	h.Set("Content-Type", "application/json")
	if kind, b, ok := x.denied(r); ok {
		body = b
		h.Set("Content-Type", kind)
	}
	if x.git {
		h.Set("Content-Type", "text/plain; charset=utf-8") // git shows a text body as "remote: ..."
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if r.layer != "upstream" {
		h.Set("X-Guard-Decision", "deny")
	}
	w.WriteHeader(r.status)
	if x.method != nethttp.MethodHead {
		w.Write(body)
	}
	if x.p.cfg.Log != nil {
		x.p.cfg.Log.Info("refused", slog.String("host", x.meta.host), slog.Int("status", r.status), slog.String("layer", r.layer), slog.String("rule", r.d.Rule), slog.String("request_id", x.id))
	}
}

func errorWord(r *refusal) string {
	switch r.layer {
	case "upstream":
		return "upstream_failed"
	case "protocol":
		return "bad_request"
	}
	return "policy_denied"
}

// fromError makes a refusal of what sending a request upstream came to. It
// uses no text of the error, which may quote input.
func fromError(err error, host string, port int) *refusal {
	var (
		r  *refusal
		ee *broker.EgressError
		op *net.OpError
		de *net.DNSError
	)
	at := net.JoinHostPort(host, strconv.Itoa(port))
	switch {
	case errors.As(err, &r):
		return r
	case errors.As(err, &ee):
		return &refusal{status: nethttp.StatusForbidden, layer: "egress", d: ee.Decision}
	case isCertError(err):
		return refuse(502, "upstream", "upstream-certificate", certReason(err, at), "ask the user to check the host's certificate; --ca FILE adds a root that guard trusts")
	case errors.As(err, &de):
		return refuse(502, "upstream", "upstream-name", fmt.Sprintf("the name %s could not be resolved", host), "check the host name")
	case errors.As(err, &op) && op.Op == "dial":
		return refuse(502, "upstream", "upstream-connect", fmt.Sprintf("no connection to %s could be made", at), "check that the service is running, then try again")
	}
	return refuse(502, "upstream", "upstream", fmt.Sprintf("%s did not answer the request properly", at), "try again; the request may or may not have been carried out")
}
