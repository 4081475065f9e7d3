package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"guard"
	brokerhttp "guard/broker/http"
	"guard/policy"
	"guard/vault"
)

// logins are the credentials that issuers gave to sessions of this context: what
// of them this session may use, and what is refreshed.
type logins struct {
	mu      sync.Mutex
	here    map[string]bool // issued to this session, by name
	told    map[string]bool
	next    map[string]time.Time // of a login: not to be tried before
	granted *policy.Policy       // the session's policy, and what logins add to it; nil: none do
}

func newLogins() *logins {
	return &logins{here: map[string]bool{}, told: map[string]bool{}, next: map[string]time.Time{}}
}

// decideUse is policy's answer, also for what was issued.
func (s *session) decideUse(u guard.Use) guard.Decision { return s.policyNow().Use(timed(u)) }

// policyNow is the session's policy, with what logins added to it.
func (s *session) policyNow() *policy.Policy {
	s.logins.mu.Lock()
	defer s.logins.mu.Unlock()
	if p := s.logins.granted; p != nil {
		return p
	}
	return s.policy
}

// allowIssued lets the session use what was issued to it, and what sessions before
// it were given by logins that are allowed again: with what a credential was got by,
// or at a host of --allow-login. Nothing is widened: what came by a credential
// that is allowed for less is allowed for as much.
func (s *session) allowIssued() error {
	all, err := s.vault.Issued(s.info.Context)
	if err != nil || len(all) == 0 {
		return err
	}
	explicit, err := s.flags.grants()
	if err != nil {
		return err
	}
	creds := s.credentials()
	s.logins.mu.Lock()
	defer s.logins.mu.Unlock()
	flags := s.flags
	flags.allow = slices.Clone(flags.allow)
	for _, c := range creds {
		is, ok := all[c.Name]
		if !ok {
			continue
		}
		for _, g := range s.issuedGrants(c, is, all, explicit) {
			flags.allow = append(flags.allow, g.String())
		}
	}
	if len(flags.allow) == len(s.flags.allow) {
		return nil
	}
	p, err := newPolicy(flags, s.info, creds, findRepoFile(s.dir, s.home))
	if err != nil {
		return err
	}
	s.logins.granted = p
	return nil
}

// issuedGrants are those of one credential that was issued.
func (s *session) issuedGrants(c guard.Credential, is vault.Issued, all map[string]vault.Issued, explicit []policy.Grant) []policy.Grant {
	use := policy.Grant{Name: c.Name, Scope: policy.Scope{Verb: "use"}}
	var out []policy.Grant
	for _, g := range explicit {
		switch {
		case g.Name == c.Name:
		case slices.Contains(is.Parents, g.Name) && strings.HasPrefix(g.Scope.Verb, "token:"):
			out = append(out, use)
		case slices.Contains(is.Parents, g.Name):
			out = append(out, policy.Grant{Name: c.Name, Scope: g.Scope})
		case is.Part == refreshPart && all[g.Name].Login == is.Login:
			out = append(out, use) // its own scope says for what: see storeIssued
		}
	}
	if len(is.Parents) > 0 {
		return out
	}
	if s.logins.here[c.Name] {
		return append(out, use)
	}
	if u, err := url.Parse(is.Endpoint); err == nil {
		host, port := splitHostPort(u.Host, 443)
		if s.policy.Login(guard.Use{Session: s.info, Action: "token:login", Host: host, Port: port}).Allowed() {
			out = append(out, use)
		}
	}
	return out
}

const refreshPart = "refreshtoken"

// issuing is the broker's way to keep what replies give out.
func (s *session) issuing() brokerhttp.Issuing {
	return brokerhttp.Issuing{Allow: s.policy.Login, Begin: s.beginRefresh, Store: s.storeIssued}
}

// beginRefresh waits until nobody else refreshes the tokens of a login: an issuer
// that sees a refresh token twice takes it for stolen, and ends the login.
func (s *session) beginRefresh(ctx context.Context, creds []guard.Credential) (end func(), err error) {
	end = func() {}
	all, err := s.vault.Issued(s.info.Context)
	if err != nil {
		return end, err
	}
	for _, c := range creds {
		if is, ok := all[c.Name]; ok && is.Part == refreshPart {
			ctx, cancel := context.WithTimeout(ctx, switchWait)
			defer cancel()
			return s.vault.Lock(ctx.Done(), s.info.Context+" "+is.Login)
		}
	}
	return end, nil
}

// storeIssued keeps what a reply gave out, and says which placeholders the agent
// gets. Record first: what is not recorded is not kept.
func (s *session) storeIssued(i brokerhttp.Issue) ([]string, error) {
	defer func() {
		for _, t := range i.Tokens {
			t.Value.Wipe()
		}
	}()
	all, err := s.vault.Issued(s.info.Context)
	if err != nil {
		return nil, err
	}
	from := vault.Issued{Login: loginName(i), Endpoint: i.Endpoint, JSON: i.JSON, Client: i.Client.Encode(), Authorization: basicOnly(i.Authorization), At: time.Now().UTC()}
	for _, p := range i.Parents {
		if is, ok := all[p.Name]; ok && is.Part == refreshPart {
			// A refresh: what comes takes the place of what was.
			from.Login, from.Parents = is.Login, is.Parents
			if from.Client == "" {
				from.Client = is.Client
			}
			continue
		}
		if !slices.Contains(from.Parents, p.Name) {
			from.Parents = append(from.Parents, p.Name)
		}
	}
	if i.Use.Action == "token:mint" {
		from.Login += "-" + strconv.FormatInt(from.At.UnixMilli(), 36) // each is another one
	}
	if i.Lifetime > 0 {
		from.Expires = from.At.Add(i.Lifetime)
	}
	var places, names []string
	for _, t := range i.Tokens {
		c := guard.Credential{Context: s.info.Context, Kind: "oauth", Hosts: i.Hosts, Name: partName(from.Login, t.Field)}
		is := from
		is.Part = t.Field
		switch {
		case t.Field == refreshPart:
			c.Hosts = []string{endpointHost(i)}
			c.In = []guard.Position{{Place: "form", Name: "refresh_token"}, {Place: "json", Name: "refresh_token"}, {Place: "json", Name: "refreshToken"}}
			c.Scopes = []string{refreshScope(i.Use.Path)}
			is.Expires = time.Time{}
		case i.Use.Action == "token:mint":
			if k := vault.GuessKind(t.Value); k != "generic" {
				c.Kind = k
			}
			for _, p := range i.Parents {
				c.Hosts = p.Hosts
			}
		}
		r := s.record("credential.issued")
		r.Credential, r.Channel, r.Host, r.Method, r.Path, r.Scope = c.Name, string(i.Use.Channel), i.Use.Host, i.Use.Method, i.Use.Path, i.Use.Action
		r.PID, r.Exe, r.Decision, r.Rule, r.Reason = i.Use.PID, i.Use.Exe, guard.Pass.String(), i.Rule, "a reply gave it out; the agent has a placeholder"
		if _, err := s.append(r); err != nil {
			return nil, err
		}
		if c, err = s.vault.SetIssued(c, t.Value, is); err != nil {
			return nil, err
		}
		places, names = append(places, c.Placeholder), append(names, c.Name)
	}
	s.logins.mu.Lock()
	_, had := all[names[0]]
	told := had || s.logins.told[from.Login]
	s.logins.told[from.Login] = true
	for _, n := range names {
		s.logins.here[n] = true
	}
	delete(s.logins.next, from.Login)
	s.logins.mu.Unlock()
	s.refresh()
	if err := s.allowIssued(); err != nil {
		return nil, err
	}
	if !told {
		s.app.say("%s gave out %s: stored, and the agent has placeholders (guard secret show %s says where they may go)", visible(i.Use.Host), strings.Join(names, ", "), names[0])
	}
	return places, nil
}

// basicOnly is an Authorization header if it has a client's name and secret.
func basicOnly(v string) string {
	if scheme, _, ok := strings.Cut(v, " "); !ok || !strings.EqualFold(scheme, "basic") {
		return "" // a bearer token would be another login's
	}
	return v
}

// loginName is made of the host, and of whose login it is.
func loginName(i brokerhttp.Issue) string {
	kind := "oauth-"
	if i.Use.Action == "token:mint" {
		kind = "minted-"
	}
	host := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '-'
	}, strings.ToLower(i.Use.Host))
	if len(host) > 32 {
		host = strings.TrimLeft(host[len(host)-32:], ".-")
	}
	return kind + host + "-" + i.Account
}

// partName names one credential of a login.
func partName(login, field string) string {
	switch field {
	case "accesstoken", "token", "":
		return login
	case refreshPart:
		return login + "-refresh"
	case "idtoken":
		return login + "-id"
	}
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, field)
	if room := 63 - len(login); len(clean) > room {
		clean = clean[len(clean)-room:]
	}
	return login + "-" + clean
}

func endpointHost(i brokerhttp.Issue) string {
	if u, err := url.Parse(i.Endpoint); err == nil {
		return u.Host
	}
	return i.Use.Host
}

// refreshScope holds a refresh token to its endpoint.
func refreshScope(path string) string {
	scope := "token:login/" + strings.Trim(path, "/")
	if _, err := policy.ParseScope(scope); err != nil || strings.ContainsAny(path, "*?[") {
		return "token:login"
	}
	return scope
}

const (
	// refreshEvery is how often it is looked what has to be refreshed.
	refreshEvery = 250 * time.Millisecond
	// refreshBefore is how long before its end a token is refreshed, if it lives for
	// more than five times that; otherwise at four fifths of its life.
	refreshBefore = 5 * time.Minute
	// refreshAgain is how soon a refresh that failed is tried again.
	refreshAgain = 30 * time.Second
)

// keepLogins refreshes tokens before they end, for as long as the session may use
// them, until ctx ends. What refreshes is a request like any of the agent's: it is
// decided, recorded and captured.
func (s *session) keepLogins(ctx context.Context, proxy *brokerhttp.Proxy) error {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	var all map[string]vault.Issued
	seen := uint64(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if s.lock.locked() {
			continue
		}
		if now := s.vault.Generation(); now != seen {
			got, err := s.vault.Issued(s.info.Context)
			if err != nil {
				continue // the vault is busy or gone: the next tick sees
			}
			all, seen = got, now
		}
		for name, is := range all {
			if is.Part == refreshPart || is.Expires.IsZero() || time.Now().Before(due(is)) {
				continue
			}
			s.logins.mu.Lock()
			wait := time.Now().Before(s.logins.next[is.Login])
			if !wait {
				s.logins.next[is.Login] = time.Now().Add(refreshAgain)
			}
			s.logins.mu.Unlock()
			if wait {
				continue
			}
			if err := s.refreshLogin(ctx, proxy, name, is); err != nil && ctx.Err() == nil {
				s.app.say("%s could not be refreshed before it ends: %v", name, err)
			}
		}
	}
}

func due(is vault.Issued) time.Time {
	life := is.Expires.Sub(is.At)
	return is.Expires.Add(-min(refreshBefore, life/5))
}

// refreshLogin asks for new tokens (RFC 6749, section 6).
func (s *session) refreshLogin(ctx context.Context, proxy *brokerhttp.Proxy, name string, is vault.Issued) error {
	var token guard.Credential
	for _, c := range s.credentials() {
		if c.Name == partName(is.Login, refreshPart) {
			token = c
		}
	}
	if token.Name == "" {
		return nil // there is none: the agent logs in again
	}
	u, err := url.Parse(is.Endpoint)
	if err != nil {
		return errors.New("its endpoint is no URL")
	}
	host, port := splitHostPort(u.Host, 443)
	if !s.decideUse(guard.Use{Session: s.info, Credential: token, Channel: guard.ChannelHTTP, Action: "token:login", Resource: u.Path, Host: host, Port: port, At: time.Now()}).Allowed() {
		return nil // not this session's
	}
	form, err := url.ParseQuery(is.Client)
	if err != nil {
		return errors.New("its client is not known any more")
	}
	form.Set("grant_type", "refresh_token")
	form.Set("refresh_token", token.Placeholder)
	body, kind := form.Encode(), "application/x-www-form-urlencoded"
	if is.JSON {
		fields := map[string]string{}
		for k := range form {
			fields[k] = form.Get(k)
		}
		b, err := json.Marshal(fields)
		if err != nil {
			return err
		}
		body, kind = string(b), "application/json"
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, is.Endpoint, strings.NewReader(body))
	if err != nil {
		return errors.New("its endpoint cannot be asked")
	}
	r.Header.Set("Content-Type", kind)
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "guard")
	if is.Authorization != "" {
		r.Header.Set("Authorization", is.Authorization)
	}
	status, _, err := proxy.Do(r)
	if err == nil && status/100 != 2 {
		err = fmt.Errorf("%s answered %d (guard audit show --credential %s)", visible(u.Host), status, token.Name)
	}
	rec := s.record("credential.refresh")
	rec.Credential, rec.Host, rec.Path, rec.Result = name, u.Host, u.Path, "success"
	if err != nil {
		rec.Result, rec.Reason = "failure", err.Error()
	}
	if _, aerr := s.append(rec); aerr != nil {
		return errors.Join(err, aerr)
	}
	return err
}
