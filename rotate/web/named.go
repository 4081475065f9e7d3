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
	nameless bool // its values have no names: those that were there before are remembered
	list     func(context.Context) ([]entry, error)
	create   func(ctx context.Context, name string) (made, error)
	remove   func(ctx context.Context, id string) error // one that is not there is no failure
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
	earlier := func(e entry) bool { return e.name == nameOf(j) && !e.idle }
	if n.nameless {
		before, again := strings.CutPrefix(j.Note, "before: ")
		if !again {
			var ids []string
			for _, e := range all {
				ids = append(ids, e.id)
			}
			if err := j.Remember("before: " + strings.Join(ids, " ")); err != nil {
				return guard.Secret{}, err
			}
		}
		ids := strings.Fields(before)
		since := func(e entry) bool { return again && !slices.Contains(ids, e.id) }
		if fresh := slices.DeleteFunc(slices.Clone(all), func(e entry) bool { return !since(e) }); len(fresh) > 1 {
			return guard.Secret{}, fmt.Errorf("%d values were made there since this rotation began, and guard made one at most: delete what nobody needs: %w", len(fresh), rotate.ErrPermanent)
		}
		earlier = since
	}
	for _, e := range all {
		if earlier(e) {
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
			return len(front)+len(back) >= 5 && len(value) >= len(front)+len(back) && strings.HasPrefix(value, front) && strings.HasSuffix(value, back)
		}
	}
	return false
}

// unknownOld is what Revoke answers where it cannot be told which value the old one is.
func unknownOld(page, kind string) error {
	return &rotate.ByHand{Page: page, Steps: []string{"find the old " + kind + " and delete it: guard cannot tell which of them it is (id=ID in the rotate option tells it)"}}
}

// kept is a provider whose issuer keeps its values by ids, from its parts: how values are
// tried, and which of them the old one is.
type kept struct {
	asked
	named
	try func(ctx context.Context, value string) error
	// which is a value's id for certain; "": it cannot be told.
	which func(ctx context.Context, all []entry, value string) (string, error)
	// goes says whether what the issuer shows of a value, its hint, is of this one;
	// nil: it shows nothing.
	goes func(hint, value string) bool
	page string // where a person finds them
	base string // where the value is tried
	// before is done before the old value is deleted; nil: nothing.
	before func(ctx context.Context, id string) error
}

func (k kept) verify(ctx context.Context, value guard.Secret) error {
	v, err := k.own(k.base, value)
	if err != nil {
		return err
	}
	return k.try(ctx, v)
}

func (k kept) check(ctx context.Context) error {
	all, err := k.list(ctx)
	if err != nil {
		return err
	}
	if err := k.verify(ctx, k.job.Current); err != nil {
		return err
	}
	id, err := k.which(ctx, all, text(k.job.Current))
	if err == nil && id == "" && k.shown(all, text(k.job.Current)) == "" {
		err = unknownOld(k.page, "one")
	}
	return err
}

// shown is the id of the one entry whose hint goes with value.
func (k kept) shown(all []entry, value string) string {
	if k.goes == nil {
		return ""
	}
	return byHint(all, func(h string) bool { return k.goes(h, value) })
}

const oldNote = "old: "

// revoke deletes the old value.
func (k kept) revoke(ctx context.Context) error {
	v, err := k.own(k.base, k.job.Current)
	if err != nil {
		return err
	}
	all, err := k.list(ctx)
	if err != nil {
		return err
	}
	id, told := strings.CutPrefix(k.job.Note, oldNote)
	if !told {
		id, err = k.which(ctx, all, v)
	}
	if err == nil && id == "" {
		// A hint is a few letters, which another value may have too once this one is
		// gone: it counts only while this one is accepted, and not for the new one.
		if errors.Is(k.try(ctx, v), rotate.ErrRefused) {
			return nil
		}
		if id = k.shown(all, v); id != "" && k.job.Candidate.Len() > 0 && k.shown(all, text(k.job.Candidate)) == id {
			id = ""
		}
	}
	switch {
	case err != nil:
		return err
	case id == "":
		return unknownOld(k.page, "one")
	case k.before != nil:
		err = k.before(ctx, id)
	case !told:
		err = k.job.Remember(oldNote + id) // taken again, it is this one and no other
	}
	if err != nil {
		return err
	}
	if err := k.remove(ctx, id); err != nil {
		return err
	}
	k.job.Mark(rotate.PartRevoked)
	return nil
}

// inList is j.ID if the issuer still has it.
func inList(all []entry, id string) string {
	if id != "" && slices.ContainsFunc(all, func(e entry) bool { return e.id == id }) {
		return id
	}
	return ""
}

// words splits an option at its plus signs.
func words(s string) []string {
	if s == "" {
		return []string{}
	}
	return strings.Split(s, "+")
}

// maxPages is how many pages of a list are read.
const maxPages = 1000

func tooManyPages() error {
	return fmt.Errorf("the list of what there is does not end: %w", rotate.ErrPermanent)
}
