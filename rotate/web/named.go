package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"guard"
	"guard/rotate"
)

// asked is one step at one issuer: where it is, and who asks.
type asked struct {
	client *Client
	job    rotate.Job
}

// base is the issuer's address: option key, or standard. It ends without a slash.
func (a asked) base(key, standard string) (string, error) {
	raw := a.job.Options[key]
	if raw == "" {
		raw = standard
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())) {
		return "", fmt.Errorf("%s of %s's rotate option wants https://HOST[/PATH]: %w", key, a.job.Credential.Name, rotate.ErrPermanent)
	}
	return strings.TrimRight(raw, "/"), nil
}

// home says whether base is at one of c's hosts: a value goes nowhere else.
func home(c guard.Credential, base string) error {
	u, err := url.Parse(base)
	if err == nil && slices.ContainsFunc(c.Hosts, func(h string) bool {
		name, port, err := net.SplitHostPort(h)
		if err != nil {
			name, port = h, ""
		}
		if port != "" && port != u.Port() && !(u.Port() == "" && port == "443") {
			return false
		}
		if suffix, wild := strings.CutPrefix(name, "*."); wild {
			return strings.HasSuffix(strings.ToLower(u.Hostname()), "."+strings.ToLower(suffix))
		}
		return strings.EqualFold(name, u.Hostname())
	}) {
		return nil
	}
	return fmt.Errorf("%s does not belong to %s, so its value is not sent there: %w", c.Name, where(base), rotate.ErrPermanent)
}

// text is a value as a request carries it.
func text(s guard.Secret) string { return string(s.Reveal()) }

// own is the value of the credential that is rotated, if base is its home.
func (a asked) own(base string, value guard.Secret) (string, error) {
	return text(value), home(a.job.Credential, base)
}

// admin is the value of the credential that option key names, if base is its home.
func (a asked) admin(key, base string) (string, guard.Credential, error) {
	name := a.job.Options[key]
	if name == "" || a.job.Admin == nil {
		return "", guard.Credential{}, fmt.Errorf("%s's rotate option needs %s=NAME, a credential that may make and delete others: %w", a.job.Credential.Name, key, rotate.ErrPermanent)
	}
	v, c, err := a.job.Admin(name)
	if err != nil {
		return "", c, fmt.Errorf("%s=%s: %w", key, name, err)
	}
	defer v.Wipe()
	if err := home(c, base); err != nil {
		return "", c, err
	}
	return text(v), c, nil
}

// do asks with the job's roots.
func (a asked) do(ctx context.Context, r request) (*reply, error) {
	r.ca = a.job.Options["ca"]
	return a.client.do(ctx, r)
}

// get asks as an admin and reads the answer into v, which may be nil. A status in none
// is no failure.
func (a asked) get(ctx context.Context, doing string, r request, v any, none ...int) (*reply, error) {
	res, err := a.do(ctx, r)
	if err != nil {
		return nil, err
	}
	if slices.Contains(none, res.status) {
		return res, nil
	}
	if err := res.admin(doing); err != nil {
		return res, err
	}
	if v != nil {
		return res, res.read(v)
	}
	return res, nil
}

// admin is err for who asks as an admin: a 401 says nothing of the value that is rotated.
func (r *reply) admin(doing string) error {
	if r.status == http.StatusUnauthorized {
		return fmt.Errorf("%s: the issuer does not accept who asks (401): %w", doing, rotate.ErrPermanent)
	}
	return r.err(doing)
}

// entry is one value that the issuer has, without the value.
type entry struct {
	id, name string
	hint     string // what the issuer shows of it
	idle     bool   // it is not accepted any more
}

// made is a new value.
type made struct {
	value, id, user string
	expires         time.Time
}

// named is an issuer that chooses its values, and keeps them by ids.
type named struct {
	list   func(context.Context) ([]entry, error)
	create func(ctx context.Context, name string) (made, error)
	remove func(ctx context.Context, id string) error // one that is not there is no failure
}

// nameOf is what a new value is called at the issuer. It is the same when the step is
// taken again, and nobody else's.
func nameOf(j rotate.Job) string { return "guard-" + j.Intent }

// mint makes one value of this rotation's name. One that an earlier try made, whose
// answer nobody saw, is deleted first.
func (n named) mint(ctx context.Context, j rotate.Job) (guard.Secret, error) {
	all, err := n.list(ctx)
	if err != nil {
		return guard.Secret{}, err
	}
	for _, e := range all {
		if e.name == nameOf(j) && !e.idle {
			if err := n.remove(ctx, e.id); err != nil {
				return guard.Secret{}, fmt.Errorf("delete what an earlier try made: %w", err)
			}
		}
	}
	m, err := n.create(ctx, nameOf(j))
	if err != nil {
		return guard.Secret{}, err
	}
	return m.keep(j)
}

func (m made) keep(j rotate.Job) (guard.Secret, error) {
	if m.value == "" {
		return guard.Secret{}, fmt.Errorf("the issuer's answer holds no value")
	}
	j.Names(m.id, m.user)
	j.Expires(m.expires)
	return guard.NewSecret([]byte(m.value)), nil
}

// refusedToMake is a failure of create: where the issuer said no, nothing was made.
func refusedToMake(r *reply, err error) error {
	var later *rotate.RetryAfter
	if err == nil || r == nil || r.status < 400 || r.status >= 500 || errors.As(err, &later) {
		return err
	}
	return rotate.NotMade(err)
}

// byHint is the id of the one entry whose hint goes with the value; "": none or several.
func byHint(all []entry, goes func(hint string) bool) string {
	id := ""
	for _, e := range all {
		if e.hint == "" || !goes(e.hint) {
			continue
		}
		if id != "" {
			return ""
		}
		id = e.id
	}
	return id
}

// masked says whether a hint such as "sk-abc...wxyz" goes with value.
func masked(hint, value string) bool {
	for _, dots := range []string{"...", "…", "***"} {
		if front, back, ok := strings.Cut(hint, dots); ok {
			front, back = strings.TrimRight(front, ".*"), strings.TrimLeft(back, ".*")
			return len(front)+len(back) >= 4 && len(value) >= len(front)+len(back) && strings.HasPrefix(value, front) && strings.HasSuffix(value, back)
		}
	}
	return false
}

// unknownOld is what Revoke answers where it cannot be told which value the old one is.
func unknownOld(page, kind string) error {
	return &rotate.ByHand{Page: page, Steps: []string{"find the old " + kind + " and delete it: guard cannot tell which of them it is (id=ID in the rotate option tells it)"}}
}
