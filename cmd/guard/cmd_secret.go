package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"guard"
	"guard/audit"
	"guard/policy"
	"guard/vault"
)

var secretCommand = command{
	name: "secret", args: "set NAME [FLAGS] | decoy NAME --like KIND [FLAGS] | ls | show NAME | edit NAME [FLAGS] | rm NAME | reveal NAME | kinds",
	short: "store, list and remove credentials",
	example: "guard secret set github-pat --kind github-pat\n" +
		"guard secret set db --kind postgres --host db.internal:5432 --user app --rotate postgres --stdin < password\n" +
		"guard secret set db --kind postgres --host db.internal:5432 --lease database/creds/app\n" +
		"guard secret decoy admin-token --like github-pat --env GH_ADMIN_TOKEN\n" +
		"guard secret ls",
	run: runSecret,
}

// credentialFlags are what `secret set` and `secret edit` take.
type credentialFlags struct {
	kind, env, context, expires, rotate, user string
	like                                      string
	hosts, in, scopes                         []string
	fromEnv, fromFile, fromRef                string
	store, lease                              string
	stdin, json, yes                          bool
}

func runSecret(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	var o credentialFlags
	f.StringVar(&o.kind, "kind", "", "what it is (guard secret kinds lists them; default: guessed from the value's prefix)")
	f.StringArrayVar(&o.hosts, "host", nil, "host it may be sent to: HOST, HOST:PORT or *.DOMAIN (repeatable; default: the kind's)")
	f.StringVar(&o.env, "env", "", "variable that shows the agent its placeholder (default: the kind's)")
	f.StringArrayVar(&o.in, "in", nil, "where in a request it may go: header:NAME, basic, query:NAME, path, form:FIELD, json:PATH, frame (repeatable; default: authentication headers)")
	f.StringArrayVar(&o.scopes, "scope", nil, "what it may ever be used for, such as repo:push or read (repeatable; default: anything)")
	f.StringVar(&o.context, "context", "", "context it belongs to: PROJECT or PROJECT/ENV (default: the current folder's)")
	profile := profileFlag(f)
	f.StringVar(&o.expires, "expires", "", "when it stops being usable: a duration such as 72h, or a date 2006-01-02")
	f.StringVar(&o.rotate, "rotate", "", "how it is replaced: PROVIDER[,key=value]... (guard rotate --providers lists them)")
	f.StringVar(&o.user, "user", "", "login name that goes with it")
	f.StringVar(&o.like, "like", "", "decoy: the kind of credential that it looks like. There is no value behind it, any use of it is refused, recorded as an incident, and told to you")
	f.StringVar(&o.fromEnv, "from-env", "", "take the value from this variable")
	f.StringVar(&o.fromFile, "from-file", "", "take the value from this file")
	f.StringVar(&o.fromRef, "from-ref", "", "fetch the value once from env://VAR, file:///PATH[#KEY], keyring://SERVICE/USER, cmd:///PATH [ARG...], op://... or bw://ITEM[/FIELD]")
	f.BoolVar(&o.stdin, "stdin", false, "take the value from standard input")
	f.StringVar(&o.store, "store", "", "vault://MOUNT/PATH#FIELD: the value stays where it is in the team's store (guard vault store) and is read there by each session; none: it is kept in the vault itself (default: in the team's store, if there is one)")
	f.StringVar(&o.lease, "lease", "", "MOUNT/creds/ROLE, MOUNT/sts/ROLE or MOUNT/issue/ROLE[,KEY=VALUE]... of the team's store: a new login (databases, AWS) or certificate (PKI) in each session, renewed while it lasts and revoked at its end")
	f.BoolVar(&o.json, "json", false, "one JSON object a credential")
	f.BoolVar(&o.yes, "yes", false, "remove without asking")
	if err := parse(f, args); err != nil {
		return err
	}
	verb, name := f.Arg(0), f.Arg(1)
	want := map[string]int{"set": 2, "decoy": 2, "ls": 1, "show": 2, "edit": 2, "rm": 2, "reveal": 2, "kinds": 1}[verb]
	if want == 0 {
		return usagef("secret %q: want set, decoy, ls, show, edit, rm, reveal or kinds", verb)
	}
	if f.NArg() > want {
		if verb == "set" {
			// Never echo it: it is likely the value itself.
			return usagef("secret set takes one argument, the name: a value is never taken from an argument (other programs can read it there); use the prompt, --stdin, --from-file or --from-env. If you typed the value, treat it as seen")
		}
		return usagef("secret %s: too many arguments", verb)
	}
	if f.NArg() < want {
		return usagef("secret %s needs the credential's name", verb)
	}
	if err := o.checkDecoy(verb); err != nil {
		return err
	}
	if verb == "kinds" {
		return a.listKinds()
	}
	if o.context != "" {
		if err := checkContext(o.context); err != nil {
			return err
		}
	}
	v, err := a.openVault()
	if err != nil {
		return err
	}
	defer v.Close()
	switch verb {
	case "ls":
		return a.listSecrets(v, o, *profile)
	}
	context, _, err := a.world(o.context, *profile)
	if err != nil {
		return err
	}
	if err := a.openContext(v, context); err != nil {
		return err
	}
	switch verb {
	case "set":
		return a.setSecret(ctx, v, context, name, o)
	case "decoy":
		return a.setDecoy(v, context, name, o)
	case "show":
		return a.showSecret(v, context, name, o)
	case "edit":
		cr, err := v.Edit(context, name, func(cr *guard.Credential) error { return o.apply(cr) })
		if err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "changed %s in context %s\n", cr.Name, cr.Context)
		if o.rotate != "" {
			a.checkRotation(v, context, name)
		}
		return a.note(v, audit.Record{Type: "secret.edit", Credential: cr.Name, Context: cr.Context})
	case "rm":
		if _, err := v.Find(context, name); err != nil {
			return err
		}
		if !o.yes {
			ok, err := confirm(fmt.Sprintf("guard: remove %s (context %s)? Its value cannot be brought back.", name, context))
			if err != nil {
				return fmt.Errorf("%w; --yes removes without asking", err)
			}
			if !ok {
				return errors.New("nothing was removed")
			}
		}
		where := a.keptWhere(v, context, name)
		if err := v.Remove(context, name); err != nil {
			return err
		}
		if strings.HasPrefix(where, "vault://") {
			a.say("its value stays at %s: vault kv metadata delete removes it there, for everybody", where)
		}
		fmt.Fprintf(a.stdout, "removed %s from context %s\n", name, context)
		return a.note(v, audit.Record{Type: "secret.rm", Credential: name, Context: context})
	case "reveal":
		return a.revealSecret(v, context, name)
	}
	return nil
}

// apply sets in c what flags were given.
func (o credentialFlags) apply(c *guard.Credential) error {
	if o.kind != "" {
		if _, ok := vault.KindByName(o.kind); !ok {
			return usagef("unknown kind %q (guard secret kinds lists them)", o.kind)
		}
		c.Kind = o.kind
	}
	for _, h := range o.hosts {
		if err := policy.CheckHost(h); err != nil {
			return usageError{err}
		}
	}
	if o.hosts != nil {
		c.Hosts = o.hosts
	}
	if o.env != "" {
		if strings.ContainsAny(o.env, "= \t\n") {
			return usagef("--env %q is not a variable's name", o.env)
		}
		c.Env = o.env
	}
	if o.in != nil {
		c.In = nil
		for _, s := range o.in {
			p, err := guard.ParsePosition(s)
			if err != nil {
				return usageError{err}
			}
			c.In = append(c.In, p)
		}
	}
	for _, s := range o.scopes {
		if _, err := policy.ParseGrant("x:" + s); err != nil {
			return usageError{err}
		}
	}
	if o.scopes != nil {
		c.Scopes = o.scopes
	}
	if o.expires != "" {
		t, err := parseExpiry(o.expires)
		if err != nil {
			return err
		}
		c.Expires = t
	}
	if o.rotate != "" {
		if _, _, err := providers().Parse(o.rotate); err != nil {
			return usageError{err}
		}
		spec, err := providers().Pin(o.rotate)
		if err != nil {
			return err
		}
		c.Rotate = spec
	}
	if o.user != "" {
		c.User = o.user
	}
	return nil
}

func parseExpiry(s string) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return time.Now().Add(d).UTC().Truncate(time.Second), nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, usagef("--expires %q: want a duration such as 72h, or a date such as 2027-01-31", s)
}

// value reads the credential's value from where the flags say.
func (a *app) value(name string, o credentialFlags) ([]byte, error) {
	n := 0
	for _, given := range []bool{o.fromEnv != "", o.fromFile != "", o.fromRef != "", o.stdin} {
		if given {
			n++
		}
	}
	switch {
	case n > 1:
		return nil, usagef("--from-env, --from-file, --from-ref and --stdin exclude one another")
	case o.fromEnv != "":
		s := a.getenv(o.fromEnv)
		if s == "" {
			return nil, fmt.Errorf("the variable %s is not set", o.fromEnv)
		}
		return []byte(s), nil
	case o.fromFile != "":
		b, err := os.ReadFile(o.fromFile)
		if err != nil {
			return nil, fmt.Errorf("read the value: %w", err)
		}
		return stripNewline(b), nil
	case o.fromRef != "":
		return a.fromRef(o.fromRef)
	case o.stdin:
		b, err := io.ReadAll(io.LimitReader(a.stdin, 1<<20))
		if err != nil {
			return nil, fmt.Errorf("read the value from standard input: %w", err)
		}
		return stripNewline(b), nil
	}
	lines, err := askHidden(fmt.Sprintf("guard: value of %s (not shown): ", name))
	if err != nil {
		return nil, err
	}
	return lines[0], nil
}

// stripNewline drops the newline at the end of a one-line value; a value of
// several lines, such as a PEM key, keeps its own.
func stripNewline(b []byte) []byte {
	if bytes.Count(b, []byte("\n")) <= 1 {
		return oneLine(b)
	}
	return b
}

func (a *app) setSecret(ctx context.Context, v *vault.Vault, context, name string, o credentialFlags) error {
	cr, err := v.Find(context, name)
	fresh := errors.Is(err, vault.ErrNotFound)
	if err != nil && !fresh {
		return err
	}
	if done, err := a.setElsewhere(ctx, v, context, name, o); done || err != nil {
		return err
	}
	if fresh {
		cr = guard.Credential{Name: name, Context: context}
	}
	if err := o.apply(&cr); err != nil {
		return err
	}
	named := cr.Kind // what a kind is called is that kind, unless its value says otherwise
	if k, ok := vault.KindByName(name); ok && named == "" {
		named = k.Name
	}
	if vault.IsKeyFile(named) && o.fromEnv == "" && o.fromFile == "" && o.fromRef == "" && !o.stdin {
		return usagef("a value of kind %s is a file of many lines: guard secret set %s --from-file FILE", named, name)
	}
	b, err := a.value(name, o)
	if err != nil {
		return err
	}
	s := guard.NewSecret(b)
	defer s.Wipe()
	if cr.Kind == "" {
		if cr.Kind = vault.GuessKind(s); cr.Kind == "generic" && named != "" {
			cr.Kind = named
		}
	}
	if cr, err = v.Set(cr, s); err != nil {
		return err
	}
	if err := a.note(v, audit.Record{Type: "secret.set", Credential: name, Context: context, Version: cr.Version, Fingerprint: a.fingerprintOf(v, cr.ID())}); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "stored %s (%s, version %d) in context %s\n", name, cr.Kind, cr.Version, context)
	if o.rotate != "" {
		a.checkRotation(v, context, name)
	}
	if err := a.goOn(ctx, v, context, name); err != nil {
		return err
	}
	if len(cr.Hosts) == 0 {
		a.say("%s has no host yet, so it can be used nowhere: guard secret edit %s --host HOST", name, name)
	}
	return nil
}

// checkDecoy refuses what a decoy cannot have, and --like elsewhere.
func (o credentialFlags) checkDecoy(verb string) error {
	switch {
	case verb != "set" && (o.store != "" || o.lease != ""):
		return usagef("--store and --lease are for guard secret set")
	case verb != "decoy" && o.like != "":
		return usagef("--like is for guard secret decoy")
	case verb != "decoy":
	case o.like == "":
		return usagef("secret decoy needs --like KIND (guard secret kinds lists them)")
	case o.kind != "" || o.rotate != "" || o.expires != "" || o.scopes != nil || o.fromEnv != "" || o.fromFile != "" || o.fromRef != "" || o.stdin:
		return usagef("a decoy has no value: only --like, --host, --env, --in, --user and --context go with it")
	}
	return nil
}

// setDecoy makes a credential that there is not, for somebody to fall for.
func (a *app) setDecoy(v *vault.Vault, context, name string, o credentialFlags) error {
	cr := guard.Credential{Name: name, Context: context}
	o.kind = o.like
	if err := o.apply(&cr); err != nil {
		return err
	}
	cr, err := v.Decoy(cr)
	if err != nil {
		return err
	}
	if err := a.note(v, audit.Record{Type: "secret.decoy", Credential: name, Context: context, Version: cr.Version}); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "made %s, a decoy like a %s, in context %s\n", name, cr.Kind, cr.Context)
	if cr.Env == "" {
		a.say("%s has no variable: put what guard secret show %s calls its placeholder where it is to be found", name, name)
	}
	return nil
}

// checkRotation says now what would stop a rotation later, when it matters.
func (a *app) checkRotation(v *vault.Vault, cname, name string) {
	r, err := a.newRunner(v, nil)
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		err = r.Check(ctx, cname, name)
	}
	if err != nil {
		a.say("stored, but %s could not be rotated as it is: %v", name, err)
	}
}

// note writes one record of what the user did by hand.
func (a *app) note(v *vault.Vault, r audit.Record) error {
	log, err := a.openAudit(v, nil)
	if err != nil {
		return err
	}
	defer log.Close()
	if _, err = log.Append(r); err != nil {
		return err
	}
	return a.keepHead(v, log)
}

func (a *app) listSecrets(v *vault.Vault, o credentialFlags, profile string) error {
	if o.context != "" {
		if err := a.openContext(v, o.context); err != nil {
			return err
		}
	}
	cs, err := v.List(o.context)
	if err == nil && o.context != "" && profile != profileInteractive && !strings.HasSuffix(o.context, daemonContext) {
		var more []guard.Credential
		if err := a.openContext(v, o.context+daemonContext); err != nil {
			return err
		}
		more, err = v.List(o.context + daemonContext)
		cs = append(cs, more...)
	}
	if err != nil {
		return err
	}
	if profile != "" {
		if err := checkProfile(profile); err != nil {
			return err
		}
		cs = slices.DeleteFunc(cs, func(c guard.Credential) bool {
			return strings.HasSuffix(c.Context, daemonContext) != (profile == profileDaemon)
		})
	}
	seals, err := v.SealedContexts()
	if err != nil {
		return err
	}
	for _, s := range seals {
		if !s.Open && o.context == "" {
			a.say("%s is sealed, and not listed: name it with --context", s.Context)
		}
	}
	slices.SortFunc(cs, func(x, y guard.Credential) int {
		return strings.Compare(x.Context+"\x00"+x.Name, y.Context+"\x00"+y.Name)
	})
	if o.json {
		for _, c := range cs {
			if err := a.printJSON(c); err != nil {
				return err
			}
		}
		return nil
	}
	if len(cs) == 0 {
		a.say("nothing stored yet: guard secret set NAME")
		return nil
	}
	rows := [][]string{{"NAME", "CONTEXT", "KIND", "VERSION", "HOSTS", "ENV", "ROTATE", "UPDATED"}}
	for _, c := range cs {
		rows = append(rows, []string{c.Name, c.Context, c.Kind, fmt.Sprint(c.Version), strings.Join(c.Hosts, ","),
			c.Env, strings.SplitN(c.Rotate, ",", 2)[0], c.Updated.Local().Format("2006-01-02 15:04")})
	}
	return a.table(rows)
}

func (a *app) showSecret(v *vault.Vault, context, name string, o credentialFlags) error {
	c, err := v.Find(context, name)
	if err != nil {
		return err
	}
	if o.json {
		return a.printJSON(c)
	}
	vs, err := v.Versions(context, name)
	if err != nil {
		return err
	}
	expires := "never"
	if !c.Expires.IsZero() {
		expires = c.Expires.Local().Format("2006-01-02 15:04")
	}
	in := positions(c.In)
	if in == "" {
		in = "authentication headers, Basic"
	}
	rows := [][]string{{"name", c.Name}, {"context", c.Context}, {"kind", c.Kind}, {"hosts", strings.Join(c.Hosts, ", ")},
		{"env", c.Env}, {"in", in}, {"scopes", strings.Join(c.Scopes, ", ")}, {"user", c.User}, {"rotate", c.Rotate},
		{"expires", expires}, {"placeholder", c.Placeholder}, {"kept", a.keptWhere(v, context, name)}}
	if c.Decoy {
		rows = append(rows, []string{"decoy", "yes: nothing is behind it, and any use is an alarm"})
	}
	for _, ver := range vs {
		rows = append(rows, []string{fmt.Sprintf("version %d", ver.Number), fmt.Sprintf("%v, made %s", ver.State, ver.Created.Local().Format("2006-01-02 15:04"))})
	}
	return a.table(rows)
}

// revealSecret prints a value, on the terminal only and after a yes.
func (a *app) revealSecret(v *vault.Vault, cname, name string) error {
	c, err := v.Find(cname, name)
	if err != nil {
		return err
	}
	if c.Decoy {
		return fmt.Errorf("%s is a decoy: its placeholder is all there is (guard secret show %s)", name, name)
	}
	if !term.IsTerminal(int(a.stdout.Fd())) {
		return errors.New("reveal shows a value on a terminal only, and standard output is none")
	}
	ok, err := confirm(fmt.Sprintf("guard: show the value of %s (context %s) on this screen?", name, cname))
	if err != nil {
		return err
	}
	if !ok {
		return errors.New("not shown")
	}
	if err := a.note(v, audit.Record{Type: "secret.reveal", Credential: name, Context: cname, Version: c.Version}); err != nil {
		return err
	}
	if err := a.holdStored(context.Background(), v, cname, name); err != nil {
		return err
	}
	s, err := v.Get(guard.SecretID{Context: cname, Name: name})
	if err != nil {
		return err
	}
	defer s.Wipe()
	_, err = a.stdout.Write(append(s.Reveal(), '\n'))
	return err
}

func (a *app) listKinds() error {
	rows := [][]string{{"KIND", "HOSTS", "ENV", "GOES IN"}}
	for _, k := range vault.Kinds() {
		in := positions(k.In)
		if in == "" {
			in = "authentication headers, Basic"
		}
		rows = append(rows, []string{k.Name, strings.Join(k.Hosts, ","), k.Env, in})
	}
	return a.table(rows)
}
