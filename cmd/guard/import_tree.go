package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"guard"
	"guard/broker/aws"
)

// leaf is a text in a JSON or YAML file, and the way to it: names of members, and
// "-" and a number for the entries of lists.
type leaf struct {
	path     []string
	value    string
	from, to int // of the text, without quotes
	write    func(string) (string, bool)
}

func (l leaf) is(path ...string) bool {
	if len(l.path) != len(path) {
		return false
	}
	for i, p := range path {
		if p != "*" && p != l.path[i] {
			return false
		}
	}
	return true
}

// parseTree reads a file that is JSON or else the plain YAML that programs write.
func parseTree(b []byte) []leaf {
	if t := bytes.TrimSpace(b); len(t) > 0 && t[0] == '{' {
		return jsonLeaves(b)
	}
	return yamlLeaves(b)
}

// jsonLeaves are the strings of a JSON object; none if it is not valid.
func jsonLeaves(b []byte) (out []leaf) {
	if !json.Valid(b) {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	type level struct {
		list bool
		n    int
		key  string
		open bool // a value comes next
	}
	var stack []level
	way := func() (path []string) {
		for _, l := range stack {
			if l.list {
				path = append(path, "-")
			} else {
				path = append(path, l.key)
			}
		}
		return path
	}
	for {
		before := int(d.InputOffset())
		tok, err := d.Token()
		if err == io.EOF || err != nil {
			return out
		}
		top := len(stack) - 1
		if delim, ok := tok.(json.Delim); ok {
			switch delim {
			case '{', '[':
				if len(stack) > 64 {
					return out
				}
				stack = append(stack, level{list: delim == '['})
			default:
				stack = stack[:top]
				if top > 0 && !stack[top-1].list {
					stack[top-1].open = false
				}
			}
			continue
		}
		if top < 0 {
			return out
		}
		s, text := tok.(string)
		if l := &stack[top]; !l.list && !l.open {
			l.key, l.open = s, true
			continue
		} else if !l.list {
			l.open = false
		}
		if text {
			from := before + bytes.IndexByte(b[before:], '"') + 1
			out = append(out, leaf{way(), s, from, int(d.InputOffset()) - 1, jsonText})
		}
	}
}

func jsonText(p string) (string, bool) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if e.Encode(p) != nil {
		return "", false
	}
	t := strings.TrimSuffix(out.String(), "\n")
	return t[1 : len(t)-1], true
}

var yamlScalar = regexp.MustCompile(`^([A-Za-z0-9+/=_.:@~-][^#"'\s]*)\s*(?:#.*)?$`)

// yamlLeaves are the plain and quoted texts of a YAML file that is written as gh
// and kubectl do: mappings and lists by indentation, one text on a line.
func yamlLeaves(b []byte) (out []leaf) {
	type level struct {
		indent int
		key    string
	}
	var stack []level
	for i := 0; i < len(b); {
		end := lineEnd(b, i)
		line, start := strings.TrimRight(string(b[i:end]), "\r \t"), i
		i = end + 1
		m := yamlKey.FindStringSubmatchIndex(line)
		if m == nil || strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		lead := line[m[2]:m[3]]
		for len(stack) > 0 && stack[len(stack)-1].indent >= len(lead) {
			stack = stack[:len(stack)-1]
		}
		for at, r := range lead { // an entry of a list begins
			if r == '-' {
				for len(stack) > 0 && (stack[len(stack)-1].indent > at || stack[len(stack)-1].indent == at && stack[len(stack)-1].key == "-") {
					stack = stack[:len(stack)-1]
				}
				stack = append(stack, level{at, "-"})
			}
		}
		if len(stack) > 64 {
			return out
		}
		stack = append(stack, level{len(lead), strings.Trim(line[m[4]:m[5]], `"'`)})
		if m[6] < 0 || m[6] == m[7] {
			continue
		}
		l := leaf{from: start + m[6], write: asItIs}
		for _, s := range stack {
			l.path = append(l.path, s.key)
		}
		text := line[m[6]:m[7]]
		switch {
		case text[0] == '"':
			if end := closing([]byte(text), 0); end > 0 && !strings.Contains(text[:end], `\`) {
				l.from, l.to, l.value, l.write = l.from+1, l.from+end, text[1:end], jsonText
			}
		case text[0] == '\'':
			if end := strings.IndexByte(text[1:], '\''); end > 0 {
				l.from, l.to, l.value, l.write = l.from+1, l.from+1+end, text[1:1+end], without("'")
			}
		default:
			if s := yamlScalar.FindStringSubmatch(text); s != nil {
				l.to, l.value = l.from+len(s[1]), s[1]
			}
		}
		if l.value != "" {
			out = append(out, l)
		}
	}
	return out
}

func (l leaf) candidate() candidate {
	return candidate{from: l.from, to: l.to, value: []byte(l.value), write: l.write}
}

// parseDocker reads docker's and podman's logins.
func parseDocker(b []byte) (out []candidate) {
	for _, l := range parseTree(b) {
		path := l.path
		if len(path) == 3 && path[0] == "auths" {
			path = path[1:]
		}
		if len(path) != 2 || l.value == "" {
			continue
		}
		c := l.candidate()
		switch path[1] {
		case "auth":
			c.basic()
		case "identitytoken", "registrytoken", "password":
		default:
			continue
		}
		host := path[0]
		if u, err := url.Parse(host); err == nil && u.Host != "" {
			host = u.Host
		}
		host, _, _ = strings.Cut(host, "/")
		c.label, c.hosts = "docker-"+host, []string{host}
		if slices.Contains([]string{"index.docker.io", "docker.io", "registry-1.docker.io"}, host) {
			c.kind, c.hosts, c.label = "docker-hub", nil, "docker-hub"
		}
		out = append(out, c)
	}
	return out
}

// parseGH reads the tokens of the GitHub CLI.
func parseGH(b []byte) (out []candidate) {
	for _, l := range parseTree(b) {
		user := ""
		switch {
		case l.is("*", "users", "*", "oauth_token"):
			user = l.path[2]
		case l.is("*", "oauth_token"):
		default:
			continue
		}
		c := l.candidate()
		c.kind, c.user, c.label, c.hosts = "github-pat", user, "github-"+l.path[0], []string{l.path[0]}
		if l.path[0] == "github.com" {
			c.hosts, c.label = nil, "github-pat"
		}
		out = append(out, c)
	}
	return out
}

// parseKube reads the tokens, passwords and client keys of a kubeconfig. A user's
// hosts are those of the clusters that a context joins with it.
func parseKube(b []byte) (out []candidate) {
	type entry struct{ name, server, cluster, user, cert, login string }
	leaves := parseTree(b)
	// Entries of a list are told apart by where "name" and the rest lie: one entry is
	// what comes between two that begin one.
	lists := map[string][]*entry{}
	at := make([]*entry, len(leaves))
	starts := entryStarts(b, leaves)
	for i, l := range leaves {
		if len(l.path) < 3 || l.path[1] != "-" {
			continue
		}
		list := l.path[0]
		if starts[i] || len(lists[list]) == 0 {
			lists[list] = append(lists[list], &entry{})
		}
		e := lists[list][len(lists[list])-1]
		at[i] = e
		switch {
		case l.is("*", "-", "name"):
			e.name = l.value
		case l.is("clusters", "-", "cluster", "server"):
			e.server = l.value
		case l.is("contexts", "-", "context", "cluster"):
			e.cluster = l.value
		case l.is("contexts", "-", "context", "user"):
			e.user = l.value
		case l.is("users", "-", "user", "client-certificate-data"):
			e.cert = l.value
		case l.is("users", "-", "user", "username"):
			e.login = l.value
		}
	}
	hosts := func(user string) (out []string) {
		for _, ctx := range lists["contexts"] {
			for _, cl := range lists["clusters"] {
				if u, err := url.Parse(cl.server); ctx.user == user && cl.name == ctx.cluster && err == nil && u.Host != "" && !slices.Contains(out, u.Host) {
					out = append(out, u.Host)
				}
			}
		}
		return out
	}
	for i, l := range leaves {
		if at[i] == nil || l.path[0] != "users" {
			continue
		}
		c := l.candidate()
		c.label, c.hosts = "kube-"+at[i].name, hosts(at[i].name)
		switch {
		case l.is("users", "-", "user", "token"):
			c.kind = "kube"
		case l.is("users", "-", "user", "password"):
			c.user = at[i].login
		case l.is("users", "-", "user", "client-key-data"):
			c.encoded(base64.StdEncoding, "")
			// guard run --client-cert wants the certificate with it.
			if cert, err := base64.StdEncoding.DecodeString(at[i].cert); err == nil && c.skip == "" {
				c.value = slices.Concat(bytes.TrimSpace(cert), []byte("\n"), c.value)
			}
			c.kind, c.label = "generic", c.label+"-key"
			c.stay = "kubectl wants a key here that it can parse, so that it stays (sessions see the file without it)"
		default:
			continue
		}
		out = append(out, c)
	}
	return out
}

// entryStarts says of each leaf whether it is the first of a list's entry.
func entryStarts(b []byte, leaves []leaf) []bool {
	starts := make([]bool, len(leaves))
	end := 0
	for i, l := range leaves {
		between := b[end:max(end, l.from)]
		// In YAML an entry begins with a dash at a line's start, in JSON with a brace at
		// the list's level: either comes between it and the leaf before it.
		if len(l.path) >= 3 && l.path[1] == "-" {
			for line := range bytes.Lines(between) {
				t := bytes.TrimLeft(line, " ")
				starts[i] = starts[i] || bytes.HasPrefix(t, []byte("- "))
			}
			starts[i] = starts[i] || bytes.Contains(bytes.Join(bytes.Fields(between), nil), []byte("},{"))
		}
		end = max(end, l.to)
	}
	return starts
}

// parseGcloud reads a service account's key, or the login of gcloud.
func parseGcloud(b []byte) (out []candidate) {
	var kind, email string
	leaves := jsonLeaves(b)
	for _, l := range leaves {
		switch {
		case l.is("type"):
			kind = l.value
		case l.is("client_email"):
			email = l.value
		}
	}
	for _, l := range leaves {
		c := l.candidate()
		switch {
		case kind == "service_account" && l.is("private_key"):
			name, rest, _ := strings.Cut(email, "@")
			project, _, _ := strings.Cut(rest, ".")
			c.kind, c.label = aws.GoogleKind, "gcp-"+project+"-"+name
			if ref := importMark(l.value); !ref {
				c.value = bytes.Clone(b) // all of the file is what guard keeps
			}
			// A session gets a key file of its own, whatever this one says.
			c.write = func(p string) (string, bool) { return markText + p[:min(8, len(p))], true }
		case kind == "authorized_user" && l.is("refresh_token"):
			c.kind, c.label, c.hosts = "generic", "gcloud-login", []string{"oauth2.googleapis.com"}
			c.in = []guard.Position{{Place: "form", Name: "refresh_token"}}
		default:
			continue
		}
		out = append(out, c)
	}
	return out
}

// markText begins what stands in the place of a value whose placeholder no program reads.
const markText = "kept-by-guard-"

func importMark(s string) bool { return strings.HasPrefix(s, markText) }

// parseSSHKey takes a private key's whole file.
func parseSSHKey(b []byte) []candidate {
	if formatOfContent(b) != "ssh" {
		return nil
	}
	c := candidate{from: 0, to: len(b), value: bytes.Clone(b), label: "ssh", kind: "ssh-key", write: func(p string) (string, bool) { return p, true }}
	t := bytes.TrimSpace(b)
	if bytes.Contains(t, []byte("ENCRYPTED")) || openSSHProtected(t) {
		c.skip = "it is protected by a passphrase, and nobody is there to type it in a session: left as it is"
	}
	return []candidate{c}
}

// openSSHProtected says that a key in OpenSSH's format (PROTOCOL.key) has a cipher.
func openSSHProtected(b []byte) bool {
	first, rest, _ := bytes.Cut(b, []byte("\n"))
	if !bytes.Contains(first, []byte("OPENSSH PRIVATE KEY")) {
		return false
	}
	body, _, _ := bytes.Cut(rest, []byte("-----"))
	key, err := base64.StdEncoding.DecodeString(string(bytes.Join(bytes.Fields(body), nil)))
	defer clear(key)
	head := []byte("openssh-key-v1\x00\x00\x00\x00\x04none")
	return err == nil && !bytes.HasPrefix(key, head)
}

// parseAWS reads the profiles of ~/.aws/credentials and ~/.aws/config.
func parseAWS(b []byte) []candidate {
	lines := parseINI(b)
	var out []candidate
	for _, l := range lines {
		if l.key != "aws_secret_access_key" || l.value == "" {
			continue
		}
		c := candidate{from: l.from, to: l.to, value: []byte(l.value), write: asItIs, label: "aws-" + strings.TrimPrefix(l.section, "profile ")}
		var id, token iniLine
		for _, k := range lines {
			switch {
			case k.section != l.section:
			case k.key == "aws_access_key_id":
				id = k
			case k.key == "aws_session_token":
				token = k
			}
		}
		c.awsKey(id.value, token.value, [2]int{id.from, id.to}, [2]int{token.from, token.to})
		out = append(out, c)
	}
	return out
}

// awsKey makes c the secret key that goes with id and, of a session, token.
func (c *candidate) awsKey(id, token string, idAt, tokenAt [2]int) {
	c.kind, c.env = aws.Kind, "AWS_SECRET_ACCESS_KEY"
	if id == "" {
		c.skip = "no access key id is beside it"
		return
	}
	c.user = id
	c.more = []change{{idAt[0], idAt[1], aws.KeyID}}
	if token != "" && !c.ref {
		v, err := json.Marshal(map[string]string{"AccessKeyId": id, "SecretAccessKey": string(c.value), "SessionToken": token})
		if err != nil {
			c.skip = "it is no text"
			return
		}
		clear(c.value)
		c.value = v
		c.more = append(c.more, change{tokenAt[0], tokenAt[1], func(string) string { return "" }})
	}
}

// pairAWS joins the variables of an AWS key, each with the last of its like.
func pairAWS(b []byte, cs []candidate) []candidate {
	var id, token *candidate
	for i := range cs {
		switch cs[i].label {
		case "AWS_ACCESS_KEY_ID":
			id = &cs[i]
		case "AWS_SESSION_TOKEN":
			token = &cs[i]
		}
	}
	for i := range cs {
		if cs[i].label != "AWS_SECRET_ACCESS_KEY" || cs[i].skip != "" {
			continue
		}
		c := &cs[i]
		var idText, tokenText string
		var idAt, tokenAt [2]int
		if id != nil && !id.ref && bytes.Equal(b[id.from:id.to], id.value) {
			idText, idAt = string(id.value), [2]int{id.from, id.to}
		}
		if token != nil && !token.ref && len(token.value) > 0 {
			tokenText, tokenAt = string(token.value), [2]int{token.from, token.to}
		}
		c.awsKey(idText, tokenText, idAt, tokenAt)
		c.label, c.named = "aws", false
	}
	return slices.DeleteFunc(cs, func(c candidate) bool {
		return c.label == "AWS_ACCESS_KEY_ID" || c.label == "AWS_SESSION_TOKEN" && slices.ContainsFunc(cs, func(k candidate) bool { return k.label == "aws" })
	})
}
