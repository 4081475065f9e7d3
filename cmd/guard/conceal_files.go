package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"guard"
	"guard/matcher"
)

// Files of nothing but credentials are shown only in so far as guard knows what
// is in them, and so that the program whose file it is still reads it: entries
// with a placeholder, and of these what says whose and where, never a value that
// guard does not know.

// known says whether b holds a placeholder.
func (c *conceal) known(b []byte) bool {
	return slices.ContainsFunc(c.matcher.Scan(b), func(h matcher.Hit) bool { return h.Class == guard.Placeholder })
}

// onlyKnown is what is shown of a file of credentials, in which values are
// placeholders already. name is its path in the home folder.
func (c *conceal) onlyKnown(name string, b []byte) []byte {
	switch base := filepath.Base(name); {
	case base == ".netrc":
		return c.knownMachines(b)
	case filepath.Ext(base) == ".json":
		return c.knownJSON(b)
	case base == ".pypirc", strings.HasPrefix(base, "credentials"):
		return c.knownSections(b)
	case name == ".kube/config":
		return c.knownYAML(b, kubeFields)
	case name == ".config/gh/hosts.yml", name == ".config/hub":
		return c.knownBlocks(c.knownYAML(b, ghFields))
	}
	return c.knownLines(b)
}

// knownLines keeps the lines that hold a placeholder.
func (c *conceal) knownLines(b []byte) []byte {
	var out []byte
	for line := range bytes.Lines(b) {
		if c.known(line) {
			out = append(out, line...)
		}
	}
	return out
}

var netrcToken = regexp.MustCompile(`"(?:\\.|[^"\\])*"|\S+`)

// knownMachines keeps the machines of a .netrc file with a placeholder as their
// password (curl's and GNU's form).
func (c *conceal) knownMachines(b []byte) []byte {
	var out, entry []byte
	known := false
	flush := func() {
		if known {
			out = append(append(out, entry...), '\n')
		}
		entry, known = nil, false
	}
	var tokens []string
	for line := range bytes.Lines(b) {
		if trimmed := bytes.TrimSpace(line); !bytes.HasPrefix(trimmed, []byte("#")) {
			tokens = append(tokens, netrcToken.FindAllString(string(trimmed), -1)...)
		}
	}
	for i := 0; i < len(tokens); i++ {
		word := tokens[i]
		value := ""
		if i+1 < len(tokens) {
			value = tokens[i+1]
		}
		switch word {
		case "default":
			flush()
			entry = []byte("default")
			continue
		case "machine":
			flush()
			entry = []byte("machine " + value)
		case "login":
			entry = append(entry, "\n\tlogin "+value...)
		case "password":
			if c.known([]byte(value)) {
				entry, known = append(entry, "\n\tpassword "+value...), true
			}
		case "account": // some keep a second password here
			if c.known([]byte(value)) {
				entry = append(entry, "\n\taccount "+value...)
			}
		default:
			continue // a macro's body
		}
		i++
	}
	flush()
	return out
}

// plainFields say whose a credential is and where it goes.
var plainFields = []string{
	"username", "user", "login", "email", "name", "account", "repository", "url", "index", "index-servers", "registry", "host", "protocol",
	"git_protocol", "credential-provider",
}

// knownJSON keeps members that hold a placeholder, the way to them, and plain
// fields beside them.
func (c *conceal) knownJSON(b []byte) []byte {
	var v any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return c.knownLines(b)
	}
	v, ok := c.knownValue(v)
	if !ok {
		return nil
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "\t")
	if e.Encode(v) != nil {
		return nil
	}
	return out.Bytes()
}

func (c *conceal) knownValue(v any) (any, bool) {
	switch v := v.(type) {
	case string:
		return v, c.known([]byte(v))
	case []any:
		v = slices.DeleteFunc(v, func(e any) bool { _, ok := c.knownValue(e); return !ok })
		return v, len(v) > 0
	case map[string]any:
		out := map[string]any{}
		beside := false
		for k, e := range v {
			if e, ok := c.knownValue(e); ok {
				out[k] = e
				_, text := e.(string)
				beside = beside || text
			}
		}
		for k, e := range v {
			if _, text := e.(string); text && beside && slices.Contains(plainFields, strings.ToLower(k)) {
				out[k] = e
			}
		}
		return out, len(out) > 0
	}
	return nil, false
}

// knownSections keeps the sections of an INI or TOML file that hold a
// placeholder, and of these its lines and plain fields; of [distutils] all.
func (c *conceal) knownSections(b []byte) []byte {
	var out, section []byte
	known, list := false, false
	flush := func() {
		if known || list {
			out = append(out, section...)
		}
		section, known, list = nil, false, false
	}
	for line := range bytes.Lines(b) {
		text := string(bytes.TrimSpace(line))
		if strings.HasPrefix(text, "[") {
			flush()
			section = append(section, line...)
			list = text == "[distutils]"
			continue
		}
		key := text
		if i := strings.IndexAny(text, "=:"); i >= 0 {
			key = text[:i]
		}
		key = strings.Trim(key, ` "'`)
		switch {
		case c.known(line):
			known = true
		case list, slices.Contains(plainFields, strings.ToLower(key)):
		default:
			continue
		}
		section = append(section, line...)
	}
	flush()
	return out
}

var (
	ghFields   = []string{"user", "git_protocol", "protocol"}
	kubeFields = []string{
		"apiVersion", "kind", "server", "certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify", "tls-server-name",
		"name", "cluster", "user", "namespace", "current-context", "username",
	}
	yamlKey = regexp.MustCompile(`^( *(?:- +)*)("[^"]+"|'[^']+'|[^\s"'#{\[&*!|>%@-][^:\s]*(?::[^:\s]+)*):(?:\s+(.*))?$`)
)

// knownYAML keeps lines that hold a placeholder, those that open a list or a
// mapping, and the fields that are named. What is not written in a plain way goes.
func (c *conceal) knownYAML(b []byte, fields []string) []byte {
	var out []byte
	drop := -1 // lines that are indented by more belong to one that went
	for line := range bytes.Lines(b) {
		text := strings.TrimRight(string(line), "\r\n ")
		indent := len(text) - len(strings.TrimLeft(text, " "))
		switch {
		case strings.TrimSpace(text) == "" || strings.HasPrefix(strings.TrimSpace(text), "#"):
			continue
		case drop >= 0 && indent > drop && !c.known(line):
			continue
		}
		drop = -1
		m := yamlKey.FindStringSubmatch(text)
		switch {
		case c.known(line):
		case m != nil && m[3] == "":
		case m != nil && slices.Contains(fields, strings.Trim(m[2], `"'`)) && !strings.ContainsAny(m[3][:1], "{[|>&*!"):
		default:
			drop = indent
			if m != nil {
				drop = len(m[1]) // where the key is
			}
			if m != nil && strings.Contains(m[1], "-") { // an entry of a list begins here all the same
				out = append(out, m[1]+m[2]+":\n"...)
			}
			continue
		}
		out = append(append(out, text...), '\n')
	}
	return out
}

// knownBlocks keeps the members of a YAML file's topmost mapping that hold a
// placeholder.
func (c *conceal) knownBlocks(b []byte) []byte {
	var out, block []byte
	flush := func() {
		if c.known(block) {
			out = append(out, block...)
		}
		block = nil
	}
	for line := range bytes.Lines(b) {
		if line[0] != ' ' && line[0] != '-' {
			flush()
		}
		block = append(block, line...)
	}
	flush()
	return out
}
