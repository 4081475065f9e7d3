package approve

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// maxShown bounds what is shown of one thing, in characters.
const maxShown = 300

// Plain is s as a person is to see it who decides about it: printable ASCII, everything
// else as an escape, so that it cannot drive a terminal, turn around, or look like other
// letters; bounded, with the end kept, since that is where a name differs.
func Plain(s string) string { return plain(s, maxShown) }

func plain(s string, most int) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r >= 0x20 && r < 0x7f:
			b.WriteByte(byte(r))
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		i += n
		if b.Len() > 1<<16 {
			b.WriteString("...")
			break
		}
	}
	t := b.String()
	if len(t) <= most {
		return t
	}
	head := most * 2 / 3
	return fmt.Sprintf("%s [%d more] %s", t[:head], len(t)-most, t[len(t)-(most-head):])
}

// Line is one line of what is shown.
type Line struct{ Name, Text string }

// Lines say who asks for what, in words that are safe on a terminal.
func (r Request) Lines(now time.Time) []Line {
	var out []Line
	add := func(name, text string) {
		if text != "" {
			out = append(out, Line{name, text})
		}
	}
	add("asks", r.what())
	add("may then", r.power())
	if r.Host != "" {
		name := "host"
		if r.Kind == KindAsk {
			name = "host, it says"
		}
		add(name, Plain(hostPort(r.Host, r.Port))+unusual(r.Host))
	}
	if r.Method != "" || r.Path != "" {
		add("request", strings.TrimSpace(Plain(r.Method)+" "+Plain(r.Path)))
	}
	if r.Query != "" {
		add("query", "sha256 "+plain(r.Query, 64))
	}
	switch {
	case r.Body != "":
		add("body", fmt.Sprintf("%d bytes, sha256 %s", r.BodySize, plain(r.Body, 64)))
	case r.Unread != "":
		add("body", "not read yet: whatever comes")
	}
	if r.Resource != "" && r.Resource != r.Path {
		add("on", Plain(r.Resource))
	}
	program := Plain(r.Exe)
	if r.PID > 0 {
		program += fmt.Sprintf(" [%d]", r.PID)
	}
	switch {
	case r.Kind == KindConnect:
	case r.ExeSHA256 != "":
		program += ", sha256 " + plain(r.ExeSHA256, 64)
	case r.Kind == KindUse:
		program = strings.TrimSpace(program + " (not known for sure)")
	}
	add("program", strings.TrimSpace(program))
	add("started by", Plain(r.Ancestors))
	add("task", Plain(r.Task))
	add("context", Plain(r.Context)+", session "+Plain(r.Session))
	add("refused by", Plain(r.Rule)+": "+Plain(r.Why))
	if r.Reason != "" {
		add("it says", `"`+Plain(r.Reason)+`"  (the agent's words)`)
	}
	add("until", r.Expires.UTC().Format(time.RFC3339)+left(r.Expires.Sub(now)))
	return out
}

func left(d time.Duration) string {
	if d <= 0 {
		return " (over)"
	}
	return fmt.Sprintf(" (%s left)", d.Round(time.Second))
}

func hostPort(h string, port int) string {
	if port == 0 {
		return h
	}
	if strings.Contains(h, ":") {
		h = "[" + h + "]"
	}
	return fmt.Sprintf("%s:%d", h, port)
}

// unusual warns of names that may look like others.
func unusual(host string) string {
	for l := range strings.SplitSeq(strings.ToLower(host), ".") {
		if strings.HasPrefix(l, "xn--") {
			return "  (written in other letters: it may look like another name)"
		}
	}
	for _, r := range host {
		if r >= 0x80 {
			return "  (has letters that may look like others)"
		}
	}
	return ""
}

func (r Request) what() string {
	name, action := Plain(r.Credential), Plain(r.Action)
	switch {
	case r.Kind == KindConnect:
		return "to connect to a host that is not listed, by " + action
	case r.Kind == KindAsk && r.Missing:
		return fmt.Sprintf("for a credential %s, which there is none of, for %s", name, action)
	case r.Kind == KindAsk:
		return fmt.Sprintf("for %s to be allowed for %s", name, action)
	}
	return fmt.Sprintf("to use %s for %s", name, action)
}

// power says in words what can be done with what is asked for.
func (r Request) power() string {
	at := ""
	if r.Host != "" && r.Kind != KindAsk {
		at = " at " + Plain(hostPort(r.Host, r.Port))
	}
	switch r.Action {
	case "http:read":
		return "read whatever " + Plain(r.Credential) + " may read" + at
	case "http:write":
		return "change, send and delete whatever " + Plain(r.Credential) + " may" + at
	case "repo:read":
		return "fetch repositories" + at
	case "repo:push":
		return "push to repositories" + at + ": publish commits, overwrite branches where the server lets it"
	case "db:read":
		return "read what the database user may read" + at
	case "db:query", "db:write", "use":
		return "do everything that " + Plain(r.Credential) + " may" + at
	case "token:mint":
		return "make further credentials" + at
	case "token:login":
		return "log in" + at
	case "exec:run":
		return "run a listed command with the value, out of the agent's reach"
	case "https", "http", "tcp":
		return "send anything that is no known credential" + at
	}
	return Plain(r.Action) + " with " + Plain(r.Credential) + at
}

// Lasts says in words what answering with a life allows.
func (r Request) Lasts(life string) string {
	like := Plain(r.Credential) + " for " + Plain(r.Action)
	if r.Host != "" && r.Kind != KindAsk {
		like += " at " + Plain(hostPort(r.Host, r.Port))
	}
	switch r.Kind {
	case KindUse:
		like += " by this program, any path"
	case KindConnect:
		like = "connections to " + Plain(hostPort(r.Host, r.Port)) + " by " + Plain(r.Action)
	}
	switch life {
	case Once:
		if r.Kind == KindConnect {
			return like + ", for a minute"
		}
		return "this request alone"
	case Session:
		return like + ", in this session"
	case Always:
		return like + ", in every session of this context"
	}
	return like
}
