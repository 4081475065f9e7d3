package main

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"guard"
	"guard/matcher/formats"
	"guard/policy"
	"guard/vault"
)

// importItem is one value that was found, in one place or more.
type importItem struct {
	name, context string
	kind          string
	hosts         []string
	env, user     string
	in            []guard.Position
	value         guard.Secret
	places        []*importPlace
	fromFile      bool   // a file names its hosts
	foreign       bool   // and that file is not the user's own in $HOME
	known         string // the credential that has this value already
	skip          string // why it is not stored
	stored        bool
	placeholder   string // of what is stored, or known
	form          string // what its form says it is, where its kind does not
}

// importPlace is where a file holds an item.
type importPlace struct {
	file      *importFile
	c         candidate
	line      int
	stay      string // why it is not rewritten
	rewritten bool
}

// importPlan is what an import does.
type importPlan struct {
	context string
	files   []*importFile
	items   []*importItem
}

func (p *importPlan) wipe() {
	for _, it := range p.items {
		it.value.Wipe()
		for _, pl := range it.places {
			clear(pl.c.value)
		}
	}
}

// count says how many credentials would be stored, and files rewritten.
func (p *importPlan) count(rewrite bool) (store, files int) {
	touched := map[*importFile]bool{}
	for _, it := range p.items {
		if it.skip != "" {
			continue
		}
		if it.known == "" {
			store++
		}
		for _, pl := range it.places {
			touched[pl.file] = touched[pl.file] || pl.stay == ""
		}
	}
	for _, yes := range touched {
		if yes && rewrite {
			files++
		}
	}
	return store, files
}

// of returns the items that f holds.
func (p *importPlan) of(f *importFile) (out []*importItem) {
	for _, it := range p.items {
		if slices.ContainsFunc(it.places, func(pl *importPlace) bool { return pl.file == f }) {
			out = append(out, it)
		}
	}
	return out
}

// foreignHosts are hosts that files of projects name.
func (p *importPlan) foreignHosts() (out []string) {
	for _, it := range p.items {
		if it.foreign && it.skip == "" && it.known == "" {
			for _, h := range it.hosts {
				out = append(out, fmt.Sprintf("%s (%s)", h, it.name))
			}
		}
	}
	return out
}

func (it *importItem) credential() string {
	if it.known != "" {
		return it.known
	}
	return it.name
}

func (it *importItem) shownKind() string {
	if it.form != "" && it.kind == "generic" {
		return "generic (" + it.form + ")"
	}
	return it.kind
}

// does says what is done about the i-th place of it.
func (it *importItem) does(i int, rewrite bool) string {
	var out []string
	switch {
	case it.skip != "":
		return "skip: " + it.skip
	case it.known != "":
		out = append(out, "in the vault already")
	case i > 0:
		out = append(out, "the same value")
	default:
		out = append(out, "store")
	}
	switch stay := it.places[i].stay; {
	case rewrite && stay == "":
		out = append(out, "rewrite")
	case rewrite:
		out = append(out, "leave in the file")
	}
	return strings.Join(out, ", ")
}

// judge is what a plan is made with.
type judge struct {
	a       *app
	v       *vault.Vault
	flags   importFlags
	context string
	own     map[string]string           // fingerprint -> why it is skipped: placeholders, dead values, parts
	have    map[string]guard.Credential // fingerprint of a current value -> its credential
	names   map[string]bool             // taken
	envs    map[string]bool
	formats *formats.Set
	random  bool // only what looks drawn at random is looked at for its form, since the rules take 20 ms to make
}

// planImport reads what the files hold and decides about each value.
func (a *app) planImport(v *vault.Vault, cname string, files []*importFile, o importFlags) (*importPlan, error) {
	j := &judge{a: a, v: v, flags: o, context: cname, own: map[string]string{}, have: map[string]guard.Credential{}, names: map[string]bool{}, envs: map[string]bool{}}
	if err := j.learn(); err != nil {
		return nil, err
	}
	defer func() {
		if j.formats != nil {
			j.formats.Close()
		}
	}()
	p := &importPlan{context: cname, files: files}
	byValue := map[string]*importItem{}
	var all []string // values, to be in no name
	for _, f := range files {
		for _, c := range importParser(f.format)(f.data) {
			it, print, err := j.item(f, c)
			if err != nil {
				p.wipe()
				return nil, err
			}
			if it == nil {
				clear(c.value)
				continue
			}
			if first := byValue[print]; first != nil && it.skip == "" && first.skip == "" {
				first.join(it)
				it.value.Wipe()
				continue
			}
			byValue[print] = it
			p.items = append(p.items, it)
		}
	}
	for _, it := range p.items {
		for _, pl := range it.places {
			if len(pl.c.value) >= 8 {
				all = append(all, string(pl.c.value))
			}
		}
	}
	for _, it := range p.items {
		j.finish(it, all)
	}
	return p, nil
}

// learn reads what the vault has.
func (j *judge) learn() error {
	values, err := j.v.Values("")
	if err != nil {
		return err
	}
	for _, v := range values {
		why := ""
		switch v.Class {
		case guard.Placeholder, guard.Decoy:
			why = "it is a placeholder of guard's"
		case guard.Retired:
			why = "it is a dead value of " + v.ID.Name
		case guard.Live:
			if v.ID.Context == j.context {
				why = "it is a part or an older value of " + v.ID.Name + ", which the vault has"
			}
		}
		if why != "" {
			p, err := j.a.fingerprint(j.v, v.Secret)
			if err != nil {
				return err
			}
			j.own[p] = why
		}
		v.Secret.Wipe()
	}
	cs, err := j.v.List(j.context)
	if err != nil {
		return err
	}
	for _, c := range cs {
		j.names[c.Name] = true
		j.envs[c.Env] = true
		if c.Decoy {
			continue
		}
		p := j.a.fingerprintOf(j.v, c.ID())
		j.have[p] = c
		delete(j.own, p)
	}
	return nil
}

// item judges one candidate; nil if it is no credential.
func (j *judge) item(f *importFile, c candidate) (*importItem, string, error) {
	pl := &importPlace{file: f, c: c, line: 1 + bytes.Count(f.data[:c.from], []byte("\n")), stay: c.stay}
	it := &importItem{context: j.context, kind: c.kind, user: c.user, in: c.in, value: guard.NewSecret(bytes.Clone(c.value)), places: []*importPlace{pl}}
	print, err := j.a.fingerprint(j.v, it.value)
	if err != nil {
		return nil, "", err
	}
	guess := vault.GuessKind(it.value)
	if c.kind == "" || c.kind == "generic" && len(c.in) == 0 {
		it.kind = guess
	}
	if it.kind == "generic" && c.named {
		if k, ok := kindByEnv(c.label); ok {
			it.kind = k
		}
	}
	web := urlHosts(c.value, it.kind)
	if c.named && c.ref && !tellingName(c.label) {
		return nil, "", nil
	}
	if c.named && !c.ref {
		if !tellingName(c.label) || locates(c.value) && len(web) == 0 && !reference.Match(c.value) {
			if it.form, err = j.form(c); err != nil {
				return nil, "", err
			}
			if guess == "generic" && it.form == "" && len(web) == 0 {
				return nil, "", nil
			}
		}
		if isURLKind(it.kind) && len(web) == 0 {
			return nil, "", nil // a URL without a password
		}
	}
	if known, ok := j.have[print]; ok {
		it.known, it.placeholder, it.kind, it.hosts, it.env, it.user = known.Name, known.Placeholder, known.Kind, known.Hosts, known.Env, known.User
		return it, print, nil
	}
	switch {
	case j.own[print] != "":
		it.skip = j.own[print]
	case c.skip != "":
		it.skip = c.skip
	case importMark(string(c.value)):
		it.skip = "it is a placeholder of guard's"
	case c.ref:
		it.skip = "it refers to a value that is elsewhere"
	default:
		it.skip = weak(c.value)
	}
	it.name = c.label
	if f.format == "ssh" {
		it.name = "ssh-" + strings.TrimPrefix(f.info.Name(), "id_")
	}
	if c.env != "" && envFits(c.env) {
		it.env = c.env
	}
	j.takeHosts(it, f, append(slices.Clone(c.hosts), web...))
	// A token at a host of somebody else's is named after the host.
	if k, _ := vault.KindByName(guess); !it.fromFile && (len(k.Formats) > 0 && guess == it.kind || c.named && it.kind != "generic" && !isURLKind(it.kind)) {
		it.name = it.kind
	}
	if f.format == "ssh" && f.own {
		var user string
		if it.hosts, user = sshHosts(j.a.userHome(), f.path); user != "" {
			it.user = user
		}
		it.hosts = slices.DeleteFunc(it.hosts, func(h string) bool { return policy.CheckHost(h) != nil })
		it.fromFile = len(it.hosts) > 0
	}
	return it, print, nil
}

// takeHosts gives it the hosts that the file says, where they can be hosts, or
// else its kind's.
func (j *judge) takeHosts(it *importItem, f *importFile, hosts []string) {
	k, _ := vault.KindByName(it.kind)
	for _, h := range hosts {
		if policy.CheckHost(h) != nil || strings.HasPrefix(h, "*") {
			it.skip = "it names a host that is none"
			return
		}
		if !slices.Contains(it.hosts, h) && !slices.Contains(k.Hosts, h) {
			it.hosts = append(it.hosts, h)
		}
	}
	if len(it.hosts) == 0 {
		it.hosts = slices.Clone(k.Hosts)
		return
	}
	it.fromFile, it.foreign = true, !f.own
	if slices.ContainsFunc(hosts, func(h string) bool { return slices.Contains(k.Hosts, h) }) {
		it.hosts = append(slices.Clone(k.Hosts), it.hosts...)
	}
}

// join adds another place of the same value, and what the user's own files say
// about it more than the first did.
func (it *importItem) join(o *importItem) {
	it.places = append(it.places, o.places...)
	if it.known != "" || o.foreign {
		return
	}
	for _, h := range o.hosts {
		if !slices.Contains(it.hosts, h) {
			it.hosts = append(it.hosts, h)
		}
	}
	it.fromFile = it.fromFile || o.fromFile
	if it.user == "" {
		it.user = o.user
	}
}

// finish gives it its name and variable, and makes sure that no word of it is a value.
func (j *judge) finish(it *importItem, values []string) {
	if it.known == "" {
		k, _ := vault.KindByName(it.kind)
		if it.user == "" {
			it.user = k.User
		}
		if it.env == "" {
			it.env = k.Env
			if isURLKind(it.kind) && len(urlHosts(it.places[0].c.value, it.kind)) > 0 {
				it.env = k.URLEnv
			}
		}
		it.name = importName(it.name, it.kind)
		holds := func(s string) bool {
			return slices.ContainsFunc(values, func(v string) bool { return strings.Contains(s, v) || strings.Contains(s, strings.ToLower(v)) }) ||
				s != "" && vault.GuessKind(guard.NewSecret([]byte(s))) != "generic"
		}
		if holds(it.user) {
			it.user = ""
		}
		if strings.ContainsFunc(it.user, func(r rune) bool { return r < ' ' || r == 127 || r == utf8.RuneError }) || len(it.user) > 256 {
			it.user = ""
		}
		if holds(it.name) || slices.ContainsFunc(it.hosts, holds) {
			it.name, it.hosts, it.skip = "-", nil, "its name or host holds a value"
		}
		if holds(it.env) {
			it.env = ""
		}
		if it.skip == "" {
			it.name = j.unique(it.name)
			if it.foreign && j.flags.yes && !j.flags.trustHosts {
				it.skip = "a project's file names its hosts: confirm them on the terminal, or with --trust-hosts"
			}
		}
	}
	for _, pl := range it.places {
		if pl.stay == "" && pl.c.write == nil {
			pl.stay = "a placeholder cannot be written there"
		}
	}
}

func (j *judge) unique(name string) string {
	out := name
	for n := 2; j.names[out]; n++ {
		suffix := fmt.Sprintf("-%d", n)
		out = name[:min(len(name), 64-len(suffix))] + suffix
	}
	j.names[out] = true
	return out
}

var (
	notInName   = regexp.MustCompile(`[^a-z0-9._-]+`)
	tellingVar  = regexp.MustCompile(`(?i)(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|PASSWRD|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|ENCRYPTION_?KEY|SIGNING_?KEY|MASTER_?KEY|CREDENTIALS?|WEBHOOK_?URL|(^|_)(PASS|PWD|AUTH|PAT|DSN|KEY|PW))$|SECRET|PASSWORD`)
	plainVar    = regexp.MustCompile(`(?i)(_ID|_FILE|_PATH|_DIR|_NAME|_HOST|_PORT|_USER|_EMAIL|_EXPIRES?|_EXPIRY|_TTL|_ENABLED|_TYPE|_LENGTH|_ALGORITHM|_REGION|_VERSION)$|PUBLIC|PUBLISHABLE`)
	reservedVar = regexp.MustCompile(`(?i)^(LD_|DYLD_|GUARD_|GIT_|BASH_|NODE_|NPM_CONFIG_|PYTHON|PERL|RUBY|JAVA_|_JAVA|SSL_|CURL_|REQUESTS_|XDG_|DBUS_|SSH_)|^(PATH|HOME|SHELL|ENV|IFS|PS[0-9]|PROMPT_COMMAND|TERM|LANG|USER|PWD|OLDPWD|TMPDIR|EDITOR|VISUAL|PAGER)$|_PROXY$`)
	reference   = regexp.MustCompile(`(?i)^(op|bw|vault|env|file|keyring|cmd|ref\+[a-z]+|akv|gcpsm|awssm|secretref|doppler|infisical)://|^(vault|secretref|ssm|sops):|^arn:aws[a-z-]*:(secretsmanager|ssm):|^\{\{.*\}\}$|^<[^>]*>$|^%[A-Z_]+%$|^\$[({A-Za-z_]|^ENC\[`)
	docWords    = regexp.MustCompile(`(?i)change[-_ ]?me|replace[-_ ]?(me|this|with)|place[-_]?holder|your[-_ ]?(own|secret|token|password|api|key|value)|insert[-_ ]|example|dummy|x{6,}|\*{4,}|\.\.\.|todo|fix[-_]?me|redacted|put[-_]|<.*>|(^|[^a-z])(test|fake|sample|mock)[-_]`)
	locating    = regexp.MustCompile(`^([a-z][a-z0-9+.-]*://|/|\./|\.\./|~/)|^(true|false|yes|no|on|off|null|none|[0-9]+|[0-9a-fA-F.:]+:[0-9]+)$`)
	sshConfigKV = regexp.MustCompile(`^\s*([A-Za-z]+)(?:\s*=\s*|\s+)"?([^"]*?)"?\s*$`)
)

// importName makes a credential's name of what a file calls it.
func importName(label, kind string) string {
	n := strings.Trim(notInName.ReplaceAllString(strings.ToLower(strings.ReplaceAll(label, "_", "-")), "-"), "-._")
	if n == "" {
		n = kind
	}
	if n = strings.TrimRight(n[:min(len(n), 58)], "-._"); n == "" {
		n = "imported"
	}
	return n
}

func tellingName(name string) bool {
	return tellingVar.MatchString(name) && !plainVar.MatchString(name)
}

// locates says that a value is a path, a URL, a switch or a number.
func locates(v []byte) bool { return locating.Match(v) }

// envFits says that an agent may be shown a placeholder in this variable: none that
// programs obey.
func envFits(name string) bool {
	return shellName.FindString(name) == name && len(name) <= 128 && !reservedVar.MatchString(name)
}

// kindByEnv is the kind whose variable name is.
func kindByEnv(name string) (string, bool) {
	for _, k := range vault.Kinds() {
		if k.Env != "" && k.Env == name {
			return k.Name, true
		}
	}
	return "", false
}

func isURLKind(kind string) bool {
	k, _ := vault.KindByName(kind)
	return len(k.Schemes) > 0
}

// weak says why a value is not worth storing; "" if it is.
func weak(v []byte) string {
	switch {
	case len(v) < 8:
		return "shorter than 8 bytes, which would be found everywhere in output"
	case len(v) > 64<<10:
		return "longer than 64 KiB"
	case reference.Match(v):
		return "it refers to a value that is elsewhere"
	case !utf8.Valid(v) || bytes.ContainsFunc(v, func(r rune) bool { return r < ' ' && r != '\n' && r != '\r' && r != '\t' || r == 127 }):
		return "it holds control characters"
	case bytes.Count(v, v[:1]) == len(v):
		return "it is one character again and again"
	}
	body := v
	if at := bytes.LastIndexByte(v, '@'); at > 0 && bytes.Contains(v, []byte("://")) {
		body = v[:at] // the host may be example.com
	}
	if len(v) < 512 && docWords.Match(body) {
		return "it is a placeholder such as documents have"
	}
	return ""
}

// urlHosts are the hosts of a URL with a password in it, with the kind's port.
func urlHosts(v []byte, kind string) (out []string) {
	scheme, rest, ok := strings.Cut(string(v), "://")
	if !ok || strings.ContainsAny(scheme, " \n\t") || len(scheme) > 32 {
		return nil
	}
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	at := strings.LastIndexByte(rest, '@')
	if at < 0 {
		return nil
	}
	if _, pass, ok := strings.Cut(rest[:at], ":"); !ok || pass == "" {
		return nil
	}
	k, _ := vault.KindByName(kind)
	for h := range strings.SplitSeq(rest[at+1:], ",") {
		if k.Port != "" && (strings.LastIndexByte(h, ':') < 0 || strings.HasSuffix(h, "]")) {
			h += ":" + k.Port
		}
		out = append(out, h)
	}
	return out
}

// form says what a variable's value is by its form: "" if no rule that is sure
// knows it.
func (j *judge) form(c candidate) (string, error) {
	if len(c.value) < 8 || locates(c.value) || j.random && !slices.ContainsFunc(bytes.FieldsFunc(c.value, notInToken), random) {
		return "", nil
	}
	if j.formats == nil {
		set, err := formats.New(formats.Options{CacheDir: j.a.cacheDir()})
		if err != nil {
			return "", err
		}
		j.formats = set
	}
	text := slices.Concat([]byte(c.label+"="), c.value, []byte("\n"))
	defer clear(text)
	for _, f := range j.formats.Scan(text, "") {
		if f.Confidence >= formats.High && f.Start >= int64(len(c.label)) {
			return f.Provider + " " + f.Kind, nil
		}
	}
	return "", nil
}
