package main

import (
	"bytes"
	"encoding/base64"
	"net/url"
	"regexp"
	"strings"

	"guard"
)

// candidate is what a parser says of one value in a file.
type candidate struct {
	from, to int    // of the file's bytes that are replaced
	value    []byte // as programs read it; the candidate's own
	// write is how a placeholder is written from from to to, ok if it can be.
	write func(placeholder string) (text string, ok bool)
	// more are other bytes that change with it: an access key's id.
	more []change

	label string // what names it: a variable, a profile, a host
	kind  string // "": guessed
	hosts []string
	env   string
	user  string
	in    []guard.Position

	named bool   // it is one only if its name or form says so: a variable
	ref   bool   // it says where a value is, and is none
	skip  string // why it is none
	stay  string // why it stays in the file
}

// change replaces the bytes from from to to by what text makes of the placeholder.
type change struct {
	from, to int
	text     func(placeholder string) string
}

// importParser is the parser of one of importFormats.
func importParser(format string) func([]byte) []candidate {
	return map[string]func([]byte) []candidate{
		"dotenv": parseDotenv, "aws": parseAWS, "netrc": parseNetrc, "npmrc": parseNpmrc, "docker": parseDocker, "gh": parseGH, "kube": parseKube,
		"pypirc": parsePypirc, "pip": parsePip, "environ": parseEnviron, "git": parseGitCredentials, "gcloud": parseGcloud, "ssh": parseSSHKey, "shell": parseShell,
	}[format]
}

var (
	plainText  = regexp.MustCompile(`^[A-Za-z0-9_.,:/@%+=~-]+$`)
	dotenvKey  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*`)
	shellName  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*`)
	dotenvRef  = regexp.MustCompile("^\\$[A-Za-z_]|\\$[{(]|`")
	dotenvSpec = strings.NewReplacer(`\n`, "\n", `\r`, "\r", `\t`, "\t", `\"`, `"`, `\\`, `\`, `\$`, `$`)
)

func asItIs(p string) (string, bool) { return p, plainText.MatchString(p) }

func doubleQuoted(p string) (string, bool) {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "\n", `\n`, "\r", `\r`).Replace(p), true
}

func without(quote string) func(string) (string, bool) {
	return func(p string) (string, bool) { return p, !strings.Contains(p, quote) }
}

// parseDotenv reads KEY=VALUE lines with "export", single, double and back quotes,
// values of several lines and comments, as the dotenv libraries do.
func parseDotenv(b []byte) (out []candidate) {
	i := len(b) - len(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")))
	for i < len(b) {
		end := lineEnd(b, i)
		at := i + blanksAt(b[i:end])
		if rest, ok := bytes.CutPrefix(b[at:end], []byte("export")); ok && blanksAt(rest) > 0 {
			at = end - len(rest) + blanksAt(rest)
		}
		key := dotenvKey.Find(b[at:end])
		at += len(key)
		at += blanksAt(b[at:end])
		i = end + 1
		if key == nil || at >= end || b[at] != '=' && !bytes.HasPrefix(b[at:end], []byte(": ")) {
			continue
		}
		at++
		at += blanksAt(b[at:end])
		if at >= end {
			continue
		}
		c := candidate{label: string(key), env: string(key), named: true}
		if q := b[at]; q == '\'' || q == '"' || q == '`' {
			if to := closing(b, at); to >= 0 {
				raw := b[at+1 : to]
				c.from, c.to, c.value, c.write = at+1, to, bytes.Clone(raw), without(string(q))
				if q == '`' {
					c.skip = "it is in backquotes, which some programs run and others take for quotes"
				}
				if q == '"' {
					c.value, c.write = []byte(dotenvSpec.Replace(string(raw))), doubleQuoted
					c.ref = dotenvRef.Match(raw)
				}
				out = append(out, c)
				i = lineEnd(b, to) + 1
				continue
			}
			c.skip = "its quote has no end"
		}
		to := end
		for j := at; j+1 < end; j++ {
			if (b[j] == ' ' || b[j] == '\t') && b[j+1] == '#' {
				to = j
				break
			}
		}
		raw := bytes.TrimRight(b[at:to], " \t\r")
		if len(raw) == 0 {
			continue
		}
		c.from, c.to, c.value, c.ref = at, at+len(raw), bytes.Clone(raw), dotenvRef.Match(raw)
		c.write = func(p string) (string, bool) {
			if plainText.MatchString(p) {
				return p, true
			}
			q, ok := doubleQuoted(p)
			return `"` + q + `"`, ok
		}
		out = append(out, c)
	}
	return pairAWS(b, out)
}

func lineEnd(b []byte, i int) int {
	if n := bytes.IndexByte(b[i:], '\n'); n >= 0 {
		return i + n
	}
	return len(b)
}

func blanksAt(b []byte) int { return len(b) - len(bytes.TrimLeft(b, " \t")) }

// closing is where the quote ends that begins at i; -1 if nowhere.
func closing(b []byte, i int) int {
	q := b[i]
	for j := i + 1; j < len(b); j++ {
		switch {
		case b[j] == '\\' && q == '"':
			j++
		case b[j] == q:
			return j
		}
	}
	return -1
}

// word is one word of a shell's line.
type word struct {
	from, to int
	eq       int // where the first = is, if all before it is plain; -1
	text     []byte
	after    int  // what of text comes after the =
	dynamic  bool // the shell would expand something in it
}

// parseShell reads the assignments of a shell's file: NAME=VALUE, with export and
// its like before it, set -gx of fish, setenv.
func parseShell(b []byte) (out []candidate) {
	var words []word
	flush := func() {
		out = append(out, assignments(words)...)
		words = nil
	}
	for i := 0; i < len(b); {
		switch c := b[i]; {
		case c == ' ' || c == '\t' || c == '\r':
			i++
		case c == '\\' && i+1 < len(b) && b[i+1] == '\n':
			i += 2
		case c == '#':
			i = lineEnd(b, i)
		case strings.IndexByte("\n;&|()<>{}", c) >= 0:
			flush()
			i++
		default:
			w := shellWord(b, i)
			words = append(words, w)
			i = w.to
		}
	}
	flush()
	return pairAWS(b, out)
}

// shellWord reads the word that begins at i.
func shellWord(b []byte, i int) word {
	w := word{from: i, eq: -1}
	plain := true
	for ; i < len(b); i++ {
		c := b[i]
		switch {
		case strings.IndexByte(" \t\r\n;&|()<>", c) >= 0:
			w.to = i
			return w
		case c == '=' && plain && w.eq < 0:
			w.eq = i
			w.after = len(w.text) + 1
			w.text = append(w.text, c)
		case c == '\\':
			if i++; i < len(b) && b[i] != '\n' {
				w.text = append(w.text, b[i])
			}
			plain = false
		case c == '\'' || c == '"':
			end := closing(b, i)
			if end < 0 {
				w.to, w.dynamic = len(b), true
				return w
			}
			plain = false
			raw := b[i+1 : end]
			if c == '"' {
				w.dynamic = w.dynamic || unescaped(raw)
				raw = []byte(strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\$`, `$`, "\\`", "`", "\\\n", "").Replace(string(raw)))
			}
			w.text = append(w.text, raw...)
			i = end
		default:
			w.dynamic = w.dynamic || c == '$' || c == '`'
			w.text = append(w.text, c)
		}
	}
	w.to = len(b)
	return w
}

// unescaped says that the shell would expand something between double quotes.
func unescaped(raw []byte) bool {
	for i := 0; i < len(raw); i++ {
		switch raw[i] {
		case '\\':
			i++
		case '$', '`':
			return true
		}
	}
	return false
}

func shellQuoted(p string) (string, bool) {
	if plainText.MatchString(p) && p[0] != '~' {
		return p, true
	}
	return "'" + p + "'", !strings.Contains(p, "'")
}

// assignments are those of one command.
func assignments(words []word) (out []candidate) {
	add := func(name string, from, to int, value []byte, w word) {
		if len(value) > 0 && shellName.FindString(name) == name {
			out = append(out, candidate{from: from, to: to, value: bytes.Clone(value), write: shellQuoted, label: name, env: name, named: true, ref: w.dynamic})
		}
	}
	if len(words) > 2 && (string(words[0].text) == "set" || string(words[0].text) == "setenv") {
		rest := words[1:]
		exported := string(words[0].text) == "setenv"
		for len(rest) > 0 && bytes.HasPrefix(rest[0].text, []byte("-")) {
			exported = exported || bytes.IndexByte(rest[0].text, 'x') >= 0
			rest = rest[1:]
		}
		if exported && len(rest) == 2 {
			add(string(rest[0].text), rest[1].from, rest[1].to, rest[1].text, rest[1])
		}
		return out
	}
	for i, w := range words {
		if w.eq < 0 {
			switch string(w.text) {
			case "export", "declare", "typeset", "local", "readonly", "env", "then", "else", "do", "if", "while":
				continue
			}
			if i > 0 && bytes.HasPrefix(w.text, []byte("-")) {
				continue
			}
			break // the command: what comes after are its arguments
		}
		add(string(w.text[:w.after-1]), w.eq+1, w.to, w.text[w.after:], w)
	}
	return out
}

// iniLine is one KEY = VALUE line of an INI file.
type iniLine struct {
	section, key, value string
	from, to            int // of the value
}

// parseINI reads sections and plain lines; lines that go on with the one before
// are left out.
func parseINI(b []byte) (out []iniLine) {
	section := ""
	for i := 0; i < len(b); {
		end := lineEnd(b, i)
		line := b[i:end]
		start := i
		i = end + 1
		text := bytes.TrimSpace(line)
		switch {
		case len(text) == 0 || text[0] == '#' || text[0] == ';':
		case text[0] == '[':
			name, _, _ := strings.Cut(string(text[1:]), "]")
			section = strings.TrimSpace(name)
		case line[0] == ' ' || line[0] == '\t':
		default:
			eq := bytes.IndexAny(line, "=:")
			if eq < 0 {
				continue
			}
			from := start + eq + 1 + blanksAt(line[eq+1:])
			value := bytes.TrimRight(b[from:end], " \t\r")
			out = append(out, iniLine{section, strings.ToLower(strings.TrimSpace(string(line[:eq]))), string(value), from, from + len(value)})
		}
	}
	return out
}

// parsePypirc reads the passwords of ~/.pypirc.
func parsePypirc(b []byte) (out []candidate) {
	type server struct{ repository, username string }
	servers := map[string]server{}
	lines := parseINI(b)
	for _, l := range lines {
		s := servers[l.section]
		switch l.key {
		case "repository":
			s.repository = l.value
		case "username":
			s.username = l.value
		}
		servers[l.section] = s
	}
	for _, l := range lines {
		if l.key != "password" || l.value == "" {
			continue
		}
		s := servers[l.section]
		c := candidate{from: l.from, to: l.to, value: []byte(l.value), write: asItIs, label: l.section, user: s.username}
		u, err := url.Parse(s.repository)
		switch {
		case s.repository == "" && l.section == "testpypi":
			c.hosts = []string{"test.pypi.org"}
		case s.repository == "":
			c.kind = "pypi"
		case err == nil && u.Host != "":
			c.hosts = []string{u.Host}
			if u.Host == "upload.pypi.org" {
				c.kind, c.hosts = "pypi", nil
			}
		}
		if l.section != "pypi" {
			c.label = "pypi-" + l.section
		}
		out = append(out, c)
	}
	return out
}

// parseNetrc reads the passwords of a .netrc file, as curl and GNU do.
func parseNetrc(b []byte) (out []candidate) {
	var host, login string
	var open []int // candidates of the entry that is read: its login may come after
	macro := false
	want := ""
	for i := 0; i < len(b); {
		end := lineEnd(b, i)
		line, start := b[i:end], i
		i = end + 1
		text := bytes.TrimSpace(line)
		if len(text) == 0 {
			macro = false
		}
		if macro || len(text) == 0 || text[0] == '#' {
			continue
		}
		for _, m := range netrcToken.FindAllIndex(line, -1) {
			raw := string(line[m[0]:m[1]])
			from, to := start+m[0], start+m[1]
			if want == "" {
				switch raw {
				case "machine", "default":
					host, login, open = "", "", nil
				}
				switch raw {
				case "machine", "login", "password", "account":
					want = raw
				case "macdef":
					macro = true
				}
				if macro {
					break
				}
				continue
			}
			value := raw
			quoted := len(raw) > 1 && raw[0] == '"' && raw[len(raw)-1] == '"'
			if quoted {
				from, to = from+1, to-1
				value = unquoteNetrc(raw[1 : len(raw)-1])
			}
			switch want {
			case "machine":
				host = value
			case "login":
				login = value
				for _, j := range open {
					out[j].user = value
				}
			case "password":
				c := candidate{from: from, to: to, value: []byte(value), write: asItIs, label: host, user: login}
				if quoted {
					c.write = func(p string) (string, bool) { return p, !strings.ContainsAny(p, "\"\\\n") }
				}
				if host != "" {
					c.hosts = []string{host}
				}
				open = append(open, len(out))
				out = append(out, c)
			}
			want = ""
		}
	}
	for i := range out {
		out[i].label = "netrc-" + out[i].label
	}
	return out
}

func unquoteNetrc(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
			switch s[i] {
			case 'n':
				out.WriteByte('\n')
				continue
			case 't':
				out.WriteByte('\t')
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// parseNpmrc reads the tokens and passwords of an .npmrc file; the part before the
// last colon of a key says whose they are.
func parseNpmrc(b []byte) (out []candidate) {
	lines := npmLines(b)
	values := map[string]string{}
	for _, l := range lines {
		values[l.key] = strings.Trim(l.value, `"'`)
	}
	for _, l := range lines {
		scope, field := "", l.key
		if i := strings.LastIndexByte(l.key, ':'); i >= 0 && strings.HasPrefix(l.key, "//") {
			scope, field = l.key[:i+1], l.key[i+1:]
		}
		if field != "_authToken" && field != "_auth" && field != "_password" {
			continue
		}
		place := strings.TrimPrefix(scope, "//")
		if scope == "" {
			place = "registry.npmjs.org/"
			if u, err := url.Parse(values["registry"]); err == nil && u.Host != "" {
				place = u.Host + "/"
			}
		}
		host, _, _ := strings.Cut(strings.TrimSuffix(place, ":"), "/")
		c := candidate{from: l.from, to: l.to, value: []byte(l.value), write: asItIs, label: "npm-" + host, hosts: []string{host}, user: values[scope+"username"]}
		if v := l.value; len(v) > 1 && (v[0] == '"' || v[0] == '\'') && v[len(v)-1] == v[0] {
			c.from, c.to, c.value = l.from+1, l.to-1, []byte(v[1:len(v)-1])
		}
		if host == "registry.npmjs.org" {
			c.kind, c.hosts, c.label = "npm", nil, "npm"
		}
		c.ref = bytes.Contains(c.value, []byte("${"))
		switch {
		case c.ref:
		case field == "_auth":
			c.basic()
		case field == "_password":
			c.encoded(base64.StdEncoding, "")
		}
		out = append(out, c)
	}
	return out
}

// npmLines are KEY = VALUE lines whose keys have colons.
func npmLines(b []byte) (out []iniLine) {
	for i := 0; i < len(b); {
		end := lineEnd(b, i)
		line, start := b[i:end], i
		i = end + 1
		text := bytes.TrimSpace(line)
		eq := bytes.IndexByte(line, '=')
		if len(text) == 0 || text[0] == '#' || text[0] == ';' || eq < 0 {
			continue
		}
		from := start + eq + 1 + blanksAt(line[eq+1:])
		value := bytes.TrimRight(b[from:end], " \t\r")
		out = append(out, iniLine{key: strings.TrimSpace(string(line[:eq])), value: string(value), from: from, to: from + len(value)})
	}
	return out
}

// encoded decodes the value, which is before and the value in base64.
func (c *candidate) encoded(enc *base64.Encoding, before string) {
	plain, err := enc.DecodeString(string(c.value))
	if err != nil {
		c.skip = "it is no base64, which it has to be here"
		return
	}
	clear(c.value)
	c.value = bytes.Clone(plain[len(before):])
	clear(plain)
	c.write = func(p string) (string, bool) { return enc.EncodeToString([]byte(before + p)), true }
}

// basic decodes a user name, a colon and a password in base64.
func (c *candidate) basic() {
	plain, err := base64.StdEncoding.DecodeString(string(c.value))
	defer clear(plain)
	user, _, ok := bytes.Cut(plain, []byte(":"))
	if err != nil || !ok {
		c.skip = "it is no user name and password in base64, which it has to be here"
		return
	}
	c.user = string(user)
	c.encoded(base64.StdEncoding, c.user+":")
}

// parseGitCredentials reads git's store: a URL a line.
func parseGitCredentials(b []byte) (out []candidate) {
	for i := 0; i < len(b); {
		end := lineEnd(b, i)
		line, start := bytes.TrimRight(b[i:end], " \t\r"), i
		i = end + 1
		scheme := bytes.Index(line, []byte("://"))
		at := bytes.LastIndexByte(line, '@')
		if scheme < 1 || at < scheme {
			continue
		}
		from, to := scheme+3, at
		user := string(line[from:to])
		c := candidate{write: func(p string) (string, bool) { return strings.ReplaceAll(url.QueryEscape(p), "+", "%20"), true }}
		if name, pass, ok := bytes.Cut(line[from:to], []byte(":")); ok && len(pass) > 0 && string(pass) != "x-oauth-basic" {
			user, from = string(name), from+len(name)+1
			c.user, _ = url.PathUnescape(user)
		} else {
			to = from + len(name) // the token is the name
		}
		value, err := url.PathUnescape(string(line[from:to]))
		if err != nil || value == "" {
			continue
		}
		host, _, _ := bytes.Cut(line[at+1:], []byte("/"))
		c.from, c.to, c.value, c.label, c.hosts = start+from, start+to, []byte(value), "git-"+string(host), []string{string(host)}
		out = append(out, c)
	}
	return out
}
