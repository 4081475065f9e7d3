package policy

import (
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"guard"
)

// request is a use as Cedar is asked about it, and the words that it came in.
type request struct {
	use      guard.Use
	on       types.EntityUID // a credential or a host
	resource types.Entity
	host     string // canonical; "" none, "?" none that can be read in one way
	port     int
	text     string // what is acted on, in its one reading
	path     string
	plain    bool // text and path have one reading
	protocol string
	taking   bool // counts are enforced: the use follows
}

// unreadable stands for a host that guard cannot read in one way only. No pattern
// matches it.
const unreadable = "?"

func newRequest(u guard.Use, on types.Entity) *request {
	q := &request{use: u, on: on.UID, resource: on, port: u.Port, plain: true, protocol: string(u.Channel)}
	if u.Host != "" || u.Port != 0 {
		h, ok := canonical(u.Host)
		if q.host = h; !ok || u.Port < 1 || u.Port > 65535 {
			q.host, q.port = unreadable, 0
		}
	}
	ok := true
	if u.Resource != "" {
		if q.text, ok = normalResource(u.Action, u.Resource); !ok {
			q.text, q.plain = "", strings.Trim(u.Resource, "/") == "" // "/" is nothing in particular
		}
	}
	if u.Path != "" {
		if q.path, ok = normalPath(u.Path); !ok {
			q.path, q.plain = "", false
		}
	}
	return q
}

// normalPath decodes a path's escapes; false where servers may read it in two ways.
func normalPath(s string) (string, bool) {
	if !strings.HasPrefix(s, "/") {
		return s, !strings.ContainsAny(s, "%\\?#") && utf8.ValidString(s)
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			hi, lo := unhex(s, i+1), unhex(s, i+2)
			if hi < 0 || lo < 0 {
				return "", false
			}
			c = byte(hi<<4 | lo)
			// What need not be escaped, and is, means something to somebody.
			if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~/\\%;?#", c) >= 0 {
				return "", false
			}
			i += 2
		} else if strings.IndexByte("\\;?#", c) >= 0 {
			return "", false
		}
		if c < 0x20 || c == 0x7f {
			return "", false
		}
		b.WriteByte(c)
	}
	out := b.String()
	if !utf8.ValidString(out) || strings.Contains(out, "//") {
		return "", false
	}
	for part := range strings.SplitSeq(out, "/") {
		if part == "." || part == ".." {
			return "", false
		}
	}
	return out, true
}

func unhex(s string, i int) int {
	if i >= len(s) {
		return -1
	}
	switch c := s[i]; {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

var statements = map[string]string{"db:read": "read", "db:write": "write", "db:query": "unknown"}

var weekdays = [...]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// context is what policies that look at want are told. Every attribute of the schema
// that they look at is there.
func (p *Policy) context(q *request, s *set) types.Record {
	m := make(types.RecordMap, len(s.context)+1)
	at := q.use.At.In(p.zone)
	for _, name := range s.context {
		switch name {
		case "protocol":
			m[name] = types.String(q.protocol)
		case "host":
			m[name] = types.String(q.host)
		case "port":
			m[name] = types.Long(q.port)
		case "method":
			m[name] = types.String(q.use.Method)
		case "path":
			m[name] = types.String(q.path)
		case "resource":
			m[name] = types.String(q.text)
		case "matches":
			m[name] = q.matches(s.globs)
		case "statement":
			st := statements[q.use.Action]
			if q.use.Action == "token:mint" && databases[q.use.Channel] {
				st = "account"
			}
			m[name] = types.String(st)
		case "time":
			m[name] = types.NewDatetime(q.use.At)
		case "day":
			m[name] = types.String(weekdays[at.Weekday()])
		case "hour":
			m[name] = types.Long(at.Hour())
		case "minute":
			m[name] = types.Long(at.Hour()*60 + at.Minute())
		case "count":
			m[name] = types.Long(p.budget.of(q.use.Credential.Name).Count)
		case "bytes":
			m[name] = types.Long(p.budget.of(q.use.Credential.Name).Bytes)
		case "spent":
			m[name] = p.spent(s, q.taking)
		case "listed":
			m[name] = types.Boolean(q.use.Action == "connect" && p.listed(q.host, q.port, q.protocol) != "")
		case "address":
			if a, err := netip.ParseAddr(q.host); err == nil {
				m[name] = types.IPAddr(netip.PrefixFrom(a, a.BitLen()))
			}
		}
	}
	return types.NewRecord(m)
}

var databases = map[guard.Channel]bool{guard.ChannelPostgres: true, guard.ChannelMySQL: true, guard.ChannelRedis: true, guard.ChannelMongo: true}

// matches are those of globs that what is acted on fits.
func (q *request) matches(globs []string) types.Set {
	if q.text == "" {
		return types.Set{}
	}
	var vs []types.Value
	for _, g := range globs {
		if matchGlob(g, q.text) {
			vs = append(vs, types.String(g))
		}
	}
	return types.NewSet(vs...)
}

// spent are the grants of s of which nothing is left. Without taking, uses are not
// counted: a connection that was allowed goes on when it was the last one.
func (p *Policy) spent(s *set, taking bool) types.Set {
	var vs []types.Value
	for _, r := range s.rules {
		if r.grant == nil || r.grant.Limits.Count == 0 && r.grant.Limits.Bytes == 0 {
			continue
		}
		key := r.grant.Grant.String()
		used := p.budget.of(key)
		if l := r.grant.Limits; taking && l.Count > 0 && used.Count >= l.Count || l.Bytes > 0 && used.Bytes >= l.Bytes {
			vs = append(vs, types.String(key))
		}
	}
	return types.NewSet(vs...)
}

// world is what Cedar finds of entities: those of one request, and those of all.
type world struct {
	p         *Policy
	principal types.Entity
	resource  types.Entity
}

// Get is of types.EntityGetter.
func (w *world) Get(id types.EntityUID) (types.Entity, bool) {
	switch id {
	case w.principal.UID:
		return w.principal, true
	case w.resource.UID:
		return w.resource, true
	}
	e, ok := w.p.entities[id]
	return e, ok
}

// principal is the session, with the program that asks where a policy looks at that.
func (p *Policy) principal(u guard.Use, exe bool) types.Entity {
	if !exe {
		return p.sessionEntity
	}
	e := p.sessionEntity
	m := e.Attributes.Map()
	m["exe"] = types.String(u.Exe)
	if p.hash != nil {
		m["exe_sha256"] = types.String(p.hash(u.PID, u.Exe))
	}
	e.Attributes = types.NewRecord(m)
	return e
}

func newSessionEntity(s guard.Session) types.Entity {
	return types.Entity{
		UID: uid(typeSession, s.ID), Parents: types.NewEntityUIDSet(uid(typeContext, s.Context)),
		Attributes: types.NewRecord(types.RecordMap{
			"context": types.String(s.Context), "profile": types.String(s.Profile), "task": types.String(s.Task), "dir": types.String(s.Dir),
			"exe": types.String(""), "exe_sha256": types.String(""),
		}),
	}
}

func newCredentialEntity(c guard.Credential) types.Entity {
	m := types.RecordMap{
		"name": types.String(c.Name), "kind": types.String(c.Kind), "context": types.String(c.Context), "decoy": types.Boolean(c.Decoy),
		"hosts": stringSet(c.Hosts), "scopes": stringSet(c.Scopes), "labels": stringSet(Labels(c)),
	}
	if !c.Expires.IsZero() {
		m["expires"] = types.NewDatetime(c.Expires)
	}
	return types.Entity{UID: uid(typeCredential, c.Name), Parents: types.NewEntityUIDSet(uid(typeContext, c.Context)), Attributes: types.NewRecord(m)}
}

// Labels are what a policy may know a credential by, besides its name: "kind:KIND",
// "project:PROJECT", "env:ENV", and "provider:FIRST-WORD-OF-KIND".
func Labels(c guard.Credential) []string {
	project, env, _ := strings.Cut(c.Context, "/")
	provider, _, _ := strings.Cut(c.Kind, "-")
	var out []string
	for _, l := range [][2]string{{"kind", c.Kind}, {"provider", provider}, {"project", project}, {"env", env}} {
		if l[1] != "" {
			out = append(out, l[0]+":"+l[1])
		}
	}
	return out
}

func newHostEntity(host string) types.Entity {
	return types.Entity{UID: uid(typeHost, host), Attributes: types.NewRecord(types.RecordMap{
		"name": types.String(host), "private": types.Boolean(private(host) != ""),
	})}
}

func stringSet(ss []string) types.Set {
	vs := make([]types.Value, len(ss))
	for i, s := range ss {
		vs[i] = types.String(s)
	}
	return types.NewSet(vs...)
}

// actionEntities are the actions and what each is a part of.
func actionEntities() types.EntityMap {
	out := types.EntityMap{}
	for a := range actions {
		var above []types.EntityUID
		for verb := range covers {
			if verb != a && (Scope{Verb: verb}).verbCovers(a) {
				above = append(above, uid(typeAction, verb))
			}
		}
		out[uid(typeAction, a)] = types.Entity{UID: uid(typeAction, a), Parents: types.NewEntityUIDSet(above...)}
	}
	return out
}

// contextEntities are PROJECT/ENV in PROJECT.
func contextEntities(out types.EntityMap, name string) {
	e := types.Entity{UID: uid(typeContext, name)}
	if project, _, ok := strings.Cut(name, "/"); ok {
		e.Parents = types.NewEntityUIDSet(uid(typeContext, project))
		out[uid(typeContext, project)] = types.Entity{UID: uid(typeContext, project)}
	}
	out[e.UID] = e
}

func (q *request) cedar(p *Policy, principal types.Entity, s *set) cedar.Request {
	return cedar.Request{Principal: principal.UID, Action: uid(typeAction, q.use.Action), Resource: q.on, Context: p.context(q, s)}
}

// timeless says whether a use has no time, which no clock of this package gives it.
func (q *request) timeless() bool { return q.use.At.Equal(time.Time{}) }
