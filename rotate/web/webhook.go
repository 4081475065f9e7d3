package web

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"guard"
	"guard/rotate"
)

// Webhook rotates a credential with a service of the user's, which is POSTed one JSON
// object a step, as package exec writes it to a program:
//
//	step        "mint", "verify", "revoke" or "verify-dead"
//	credential, context, user, hosts, version
//	intent      an id that stays the same when a step is taken again
//	current     the old value
//	candidate   at mint a random value that may be used; afterwards the new value
//	emergency   true: the old value got out
//
// and answers 200 with {"ok":BOOL, "value":"...", "retry_after_s":N}; value is the new
// one, at mint, and candidate where it is left out. ok false says: made nothing, refused,
// not revoked, still accepted. Any other status says nothing, and the step is taken again.
//
// The header Guard-Signature is "t=UNIX,v1=HEX", HEX being the HMAC-SHA256 of
// "UNIX.BODY" with the value of the credential that option sign names. The service
// refuses what is older than some minutes.
type Webhook struct {
	Client Client
}

// About describes it.
func (Webhook) About() rotate.About {
	return rotate.About{
		Name: "webhook",
		Options: []rotate.Option{
			{Key: "url", About: "https address that each step is posted to", Must: true},
			{Key: "sign", About: "credential whose value signs what is posted; its host is that of url", Must: true},
			caOption(),
		},
		Privileges: "what the service needs",
		Sessions:   "the service's revoke step ends them",
		Limits:     "old and new value travel in the body, to url's host alone; values must be text; what the service says besides is not shown",
		Calls:      []string{"POST url with Guard-Signature: t=UNIX,v1=HMAC-SHA256"},
	}
}

type webhookRequest struct {
	Step       string   `json:"step"`
	Credential string   `json:"credential"`
	Context    string   `json:"context"`
	Version    int      `json:"version"`
	User       string   `json:"user,omitempty"`
	Hosts      []string `json:"hosts,omitempty"`
	Intent     string   `json:"intent"`
	Current    string   `json:"current"`
	Candidate  string   `json:"candidate"`
	Emergency  bool     `json:"emergency"`
}

type webhookAnswer struct {
	OK    *bool   `json:"ok"`
	Value string  `json:"value"`
	After float64 `json:"retry_after_s"`
}

// Choose makes a value of 40 letters and digits (238 bits), which the service may use.
func (Webhook) Choose(rotate.Job) (guard.Secret, error) { return rotate.NewPassword(40), nil }

// Check says whether the address and the signing credential go together.
func (w Webhook) Check(_ context.Context, j rotate.Job) error {
	_, _, _, err := w.at(j)
	return err
}

func (w Webhook) at(j rotate.Job) (a asked, base, key string, err error) {
	a = asked{&w.Client, j}
	if base, err = a.base("url", ""); err == nil {
		key, _, err = a.admin("sign", base)
	}
	return a, base, key, err
}

// signature is what Guard-Signature says of body.
func signature(key string, at time.Time, body []byte) string {
	t := strconv.FormatInt(at.Unix(), 10)
	m := hmac.New(sha256.New, []byte(key))
	m.Write([]byte(t + "."))
	m.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(m.Sum(nil))
}

func (w Webhook) post(ctx context.Context, j rotate.Job, candidate guard.Secret) (webhookAnswer, error) {
	var got webhookAnswer
	a, base, key, err := w.at(j)
	if err != nil {
		return got, err
	}
	req := webhookRequest{
		Step: j.Step, Credential: j.Credential.Name, Context: j.Credential.Context, Version: j.Credential.Version, User: j.Credential.User,
		Hosts: j.Credential.Hosts, Intent: j.Intent, Current: text(j.Current), Candidate: text(candidate), Emergency: j.Emergency,
	}
	if !utf8.ValidString(req.Current) || !utf8.ValidString(req.Candidate) {
		return got, fmt.Errorf("the value of %s is not text, which is all that a webhook can carry: %w", j.Credential.Name, rotate.ErrPermanent)
	}
	b, err := json.Marshal(req)
	if err != nil {
		return got, fmt.Errorf("write the step: %w", rotate.ErrPermanent)
	}
	defer clear(b)
	r, err := a.do(ctx, request{method: http.MethodPost, url: base, raw: b, header: map[string]string{"Guard-Signature": signature(key, time.Now(), b)}})
	if err != nil {
		return got, err
	}
	if err := r.admin("the webhook's " + j.Step + " step"); err != nil {
		return got, err
	}
	if err := r.read(&got); err != nil {
		return got, err
	}
	if got.OK == nil {
		return got, fmt.Errorf("the webhook's %s step was answered without ok", j.Step)
	}
	return got, nil
}

func (a webhookAnswer) failure(step string) error {
	err := fmt.Errorf("the webhook's %s step is not ok", step)
	if a.After > 0 {
		return &rotate.RetryAfter{After: time.Duration(min(a.After, 86400) * float64(time.Second)), Err: err}
	}
	return err
}

// Mint posts the mint step.
func (w Webhook) Mint(ctx context.Context, j rotate.Job) (guard.Secret, error) {
	a, err := w.post(ctx, j, j.Candidate)
	if err != nil {
		return guard.Secret{}, err
	}
	if !*a.OK {
		return guard.Secret{}, rotate.NotMade(a.failure(j.Step))
	}
	return guard.NewSecret([]byte(a.Value)), nil
}

// Verify posts verify, or verify-dead where j.Step is that.
func (w Webhook) Verify(ctx context.Context, j rotate.Job, value guard.Secret) error {
	if j.Step == rotate.StepDead {
		a, err := w.post(ctx, j, j.Candidate)
		switch {
		case err != nil:
			return err
		case *a.OK:
			return fmt.Errorf("verify-dead is ok: %w", rotate.ErrRefused)
		case a.After > 0:
			return a.failure(j.Step)
		}
		return nil
	}
	a, err := w.post(ctx, j, value)
	if err != nil || *a.OK {
		return err
	}
	return fmt.Errorf("%w: %w", rotate.ErrRefused, a.failure(j.Step))
}

// Revoke posts the revoke step.
func (w Webhook) Revoke(ctx context.Context, j rotate.Job) error {
	a, err := w.post(ctx, j, j.Candidate)
	if err == nil && !*a.OK {
		err = a.failure(j.Step)
	}
	return err
}
