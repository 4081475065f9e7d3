package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"guard"
	"guard/audit"
	"guard/policy"
	"guard/vault"
)

var loginCommand = command{
	name: "login", args: "SERVICE [FLAGS] | --issuer URL [FLAGS]",
	short:   "log in with a browser or a code (OAuth), and keep the tokens in the vault",
	example: "guard login github --device --client-id ID\nguard login work --issuer https://login.example.com --client-id ID --host api.example.com\nguard run --allow github -- claude",
	run:     runLogin,
}

type loginFlags struct {
	clientID, secretFile, issuer, context, env string
	scopes, hosts, resolve, ca                 []string
	device, noBrowser                          bool
	port                                       int
	within                                     time.Duration
}

func runLogin(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	var o loginFlags
	f.StringVar(&o.clientID, "client-id", "", "the client id of your application (also GUARD_CLIENT_ID_SERVICE in the environment)")
	f.StringVar(&o.secretFile, "client-secret-file", "", "file of the client's secret, for issuers that want one")
	f.StringVar(&o.issuer, "issuer", "", "URL of an OpenID Connect or OAuth issuer, whose metadata names its endpoints")
	f.StringArrayVar(&o.scopes, "scope", nil, "scope to ask for, instead of the service's (repeatable)")
	f.StringArrayVar(&o.hosts, "host", nil, "host where the access token belongs, instead of the service's (repeatable)")
	f.StringVar(&o.env, "env", "", "variable that shows the access token's placeholder to agents")
	f.BoolVar(&o.device, "device", false, "show a code to enter on another device, instead of opening a browser here")
	f.BoolVar(&o.noBrowser, "no-browser", false, "only show the address, and open no browser")
	f.IntVar(&o.port, "redirect-port", 0, "port of 127.0.0.1 to which the browser comes back, for issuers that want a fixed one")
	f.DurationVar(&o.within, "within", 10*time.Minute, "how long to wait for the login")
	f.StringArrayVar(&o.resolve, "resolve", nil, "HOST:PORT:ADDR[:PORT], send connections for HOST:PORT to that address (repeatable)")
	f.StringArrayVar(&o.ca, "ca", nil, "file of further roots that the issuer may be certified by (repeatable)")
	f.StringVar(&o.context, "context", "", "context the credential belongs to: PROJECT or PROJECT/ENV (default: the current folder's)")
	if err := parse(f, args); err != nil {
		return err
	}
	if a.getenv("GUARD_SESSION") != "" {
		return errors.New("guard login is for the user, not for a session: guard run --allow-login HOST lets an agent log in by itself")
	}
	if f.NArg() != 1 {
		return usagef("login takes one SERVICE, or a name with --issuer: %s", strings.Join(serviceNames(), ", "))
	}
	name := f.Arg(0)
	svc, known := vault.ServiceByName(name)
	switch {
	case o.issuer != "":
		if err := checkEndpoint(o.issuer); err != nil {
			return usageError{fmt.Errorf("--issuer: %w", err)}
		}
		svc = vault.Service{Name: name, Title: name, Issuer: strings.TrimSuffix(o.issuer, "/"), Scopes: []string{"openid", "offline_access"}}
		if strings.HasSuffix(o.issuer, "/") {
			svc.Issuer = o.issuer // an issuer's name is compared as it is
		}
	case !known:
		return usagef("unknown service %q: want one of %s, or --issuer URL", name, strings.Join(serviceNames(), ", "))
	}
	for _, h := range o.hosts {
		if err := policy.CheckHost(h); err != nil {
			return usageError{err}
		}
	}
	if o.clientID == "" {
		o.clientID = a.getenv("GUARD_CLIENT_ID_" + strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(name)))
	}
	if o.clientID == "" {
		where := ""
		if svc.Register != "" {
			where = ": register an application at " + svc.Register
		}
		return usagef("%s wants to know which application logs in: --client-id ID%s", svc.Title, where)
	}
	if svc.Confidential && o.secretFile == "" {
		return usagef("%s wants the application's secret too: --client-secret-file FILE", svc.Title)
	}
	if o.port < 0 || o.port > 65535 {
		return usagef("--redirect-port %d is not a port", o.port)
	}
	if o.scopes != nil {
		svc.Scopes = o.scopes
	}
	if o.hosts != nil {
		svc.Hosts = o.hosts
	}
	if o.env != "" {
		svc.Env = o.env
	}
	cname, err := a.resolveContext(o.context)
	if err != nil {
		return err
	}
	v, err := a.openVault()
	if err != nil {
		return err
	}
	defer v.Close()
	if err := a.loginName(v, cname, name); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, o.within)
	defer cancel()
	l, err := a.newLogin(ctx, svc, o)
	if err != nil {
		return err
	}
	defer l.close()
	var got tokens
	if o.device || svc.DeviceFirst && o.secretFile == "" {
		got, err = l.deviceFlow(ctx)
	} else {
		got, err = l.codeFlow(ctx)
	}
	if err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("nobody logged in within %v: nothing was stored", o.within)
		}
		if ctx.Err() != nil {
			return errors.New("stopped: nothing was stored")
		}
		return err
	}
	defer got.wipe()
	return a.keepLogin(v, cname, name, svc, l, got)
}

// loginName refuses a name that a credential has that did not come by a login: its
// value would be gone.
func (a *app) loginName(v *vault.Vault, context, name string) error {
	issued, err := v.Issued(context)
	if err != nil {
		return err
	}
	for _, n := range []string{name, partName(name, refreshPart)} {
		if _, err := v.Find(context, n); errors.Is(err, vault.ErrNotFound) {
			continue
		} else if err != nil {
			return err
		}
		if issued[n].Login != name {
			return fmt.Errorf("%s is a credential that you stored: guard secret rm %s first", n, n)
		}
	}
	return nil
}

// keepLogin stores what a login gave out, as what an issuer gives to a session, so
// that sessions refresh it.
func (a *app) keepLogin(v *vault.Vault, context, name string, svc vault.Service, l *login, got tokens) error {
	log, err := a.openAudit(v, nil)
	if err != nil {
		return err
	}
	defer log.Close()
	token, _ := url.Parse(l.meta.Token)
	from := vault.Issued{Login: name, Endpoint: l.meta.Token, Client: l.clientForm().Encode(), At: time.Now().UTC()}
	if got.lifetime > 0 {
		from.Expires = from.At.Add(got.lifetime)
	}
	hosts := svc.Hosts
	if len(hosts) == 0 {
		a.say("%s has no host yet, so it can be used nowhere: guard secret edit %s --host HOST", name, name)
	}
	store := func(c guard.Credential, s guard.Secret, is vault.Issued) error {
		if _, err := log.Append(audit.Record{Type: "credential.issued", Credential: c.Name, Context: context, Host: token.Host, Path: token.Path, Scope: strings.Join(got.scopes, " "), Decision: guard.Pass.String(), Rule: "guard login",
			Reason: "the user logged in"}); err != nil {
			return err
		}
		_, err := v.SetIssued(c, s, is)
		return err
	}
	// What refreshes goes first: an access token alone ends, and a login without it is
	// no use to anybody.
	if got.refresh.Len() > 0 {
		is := from
		is.Part, is.Expires = refreshPart, time.Time{}
		c := guard.Credential{Context: context, Kind: "oauth", Name: partName(name, refreshPart), Hosts: []string{token.Host}, Scopes: []string{refreshScope(token.Path)},
			In: []guard.Position{{Place: "form", Name: "refresh_token"}}}
		if err := store(c, got.refresh, is); err != nil {
			return err
		}
	}
	is := from
	is.Part = "accesstoken"
	c := guard.Credential{Context: context, Kind: "oauth", Name: name, Hosts: hosts}
	if err := store(c, got.access, is); err != nil {
		return err
	}
	cr, err := v.Edit(context, name, func(c *guard.Credential) error {
		if len(hosts) > 0 {
			c.Hosts = slices.Clone(hosts)
		}
		if svc.Env != "" {
			c.Env = svc.Env
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := a.keepHead(v, log); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "logged in: stored %s (%s, version %d) in context %s\n", cr.Name, cr.Kind, cr.Version, cr.Context)
	switch {
	case got.refresh.Len() > 0 && !from.Expires.IsZero():
		a.say("it ends %s, and sessions that may use it refresh it before: guard run --allow %s -- CMD", from.Expires.Local().Format("2006-01-02 15:04"), name)
	case !from.Expires.IsZero():
		a.say("it ends %s, and came with nothing to refresh it by: log in again then", from.Expires.Local().Format("2006-01-02 15:04"))
	}
	return nil
}

func serviceNames() (out []string) {
	for _, s := range vault.Services() {
		out = append(out, s.Name)
	}
	return out
}

// checkEndpoint says why a URL is none that tokens may travel to: plain HTTP only to
// this machine itself (RFC 8252, section 8.3).
func checkEndpoint(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return errors.New("it is no URL of a server")
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme == "https" || u.Scheme == "http" && ip != nil && ip.IsLoopback() {
		return nil
	}
	return errors.New("it must begin with https://")
}
