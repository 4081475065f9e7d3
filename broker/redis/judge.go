package redis

import (
	"bytes"
	"strconv"
	"strings"

	"guard"
)

// verdict is what becomes of a command. The zero verdict is refused by nobody
// and goes on as it is.
type verdict struct {
	text    []byte // answered with this, and not sent
	end     bool   // and the connection ends
	instead []byte // sent instead
	as      entryKind
	replace []byte // for as: replace
	login   bool   // needs a login before it is judged
	reset   bool
}

// judge decides on a command of which the arguments are args, all of them or
// (whole is false) the first.
func (l *link) judge(args [][]byte, whole bool) verdict {
	k, known := l.table.find(args[0])
	switch {
	case l.up == nil && is(args[0], "QUIT"):
		return verdict{text: []byte("+OK\r\n"), end: true}
	case l.up == nil && k.class != auth:
		return verdict{login: true}
	case known && !whole && (k.all() || k.names || k.sub != nil && len(args) < 2):
		return l.refuse("guard looks at all of this command, and it is too long", "no argument of it may be that long", upper(args[0]))
	}
	if k.script {
		if at, _ := script(args); !whole && at >= len(args) {
			return l.refuse("guard looks at the whole of a script, and this one is too long", "a script may have 64 KiB", upper(args[0]))
		}
	}
	if k.script && migrates(args) {
		return l.refuse("guard refuses a script that names MIGRATE: it has the server send data to a host that guard does not see", "ask the user to do it outside the session", upper(args[0]))
	}
	c := unknown
	if known {
		c = k.of(args)
	}
	switch c {
	case unknown:
		if known {
			return l.refuse("guard does not know this subcommand, and refuses what it does not know", "", upper(args[0]))
		}
		return l.refuse("guard does not know this command, and neither did the server when the session began", "what is not known is refused", "unknown")
	case never:
		return l.refuse("guard refuses this command whatever the scope: it shows what other clients send, stops replies from being told apart, or has the server send data elsewhere", "ask the user to do it outside the session", upper(args[0]))
	case auth:
		return l.auth(args)
	case mint:
		if !whole {
			return l.refuse("guard looks at all of this command, and it is too long", "no argument of it may be that long", upper(args[0]))
		}
		d, err := l.h.Use(l.use(l.cred, "token:mint"), func(guard.Secret) (string, error) { return "sent", nil })
		if err != nil {
			l.did.refused++
			l.dirty = l.multi
			return verdict{text: denied(d)}
		}
		if err := l.minted(args); err != nil {
			l.dirty = l.multi
			return verdict{text: refusal("guard could not keep the password that this command sets, so it was not sent", "tell the user; guard doctor says what is missing")}
		}
	case write:
		if l.reads {
			hint := ""
			if is(args[0], "EVAL") || is(args[0], "EVALSHA") || is(args[0], "FCALL") {
				hint = "; " + upper(args[0]) + "_RO reads"
			}
			return l.outside("db:write", hint, upper(args[0]))
		}
		if !l.wide && (k.sub == nil && (is(args[0], "EVAL") || is(args[0], "EVALSHA") || is(args[0], "FCALL"))) {
			return l.refuse("the scope names databases, and a script can choose another", "ask the user for a scope without one", upper(args[0]))
		}
	case another:
		if v, no := l.another(args); no {
			return v
		}
	case reset:
		l.did.sent(c)
		return verdict{reset: true, as: swallow}
	case multi:
		l.multi = true
	case discard:
		l.multi, l.dirty = false, false
	case exec:
		if l.multi && l.dirty {
			l.multi, l.dirty = false, false
			return verdict{instead: []byte("*1\r\n$7\r\nDISCARD\r\n"), as: replace, replace: []byte("-EXECABORT Transaction discarded because guard refused a command of it.\r\n")}
		}
		l.multi = false
	case pubsub:
		l.loose = true
	}
	l.did.sent(c)
	if k.names {
		l.version.Store(int64(l.current()))
	}
	if k.names && !l.hide.idle() {
		if l.multi || l.loose || !whole {
			return l.refuse("guard rewrites the reply of this command, and cannot here", "send it outside of MULTI, on a connection without subscriptions", upper(args[0]))
		}
		return verdict{as: rewrite}
	}
	return verdict{}
}

// minted hands on the passwords that a command sets.
func (l *link) minted(args [][]byte) error {
	if l.h.Minted == nil || len(args) < 3 {
		return nil
	}
	for i, a := range args[2:] {
		user := string(args[2])
		switch {
		case is(args[0], "ACL") && is(args[1], "SETUSER") && i > 0 && len(a) > 1 && a[0] == '>':
			a = a[1:]
		case is(args[0], "CONFIG") && i%2 == 1 && is(args[i+1], "requirepass") && len(a) > 0:
			user = "default"
		default:
			continue
		}
		if err := l.h.Minted(l.use(l.cred, "token:mint"), user, guard.NewSecret(bytes.Clone(a))); err != nil {
			return err
		}
	}
	return nil
}

func (l *link) refuse(message, hint, name string) verdict {
	l.dirty = l.multi
	l.refused(l.cred, l.action, name, guard.Decision{Action: guard.Block, Rule: "redis command", Reason: message})
	return verdict{text: refusal(message, hint)}
}

// outside is the refusal of what the scope does not cover, in policy's words.
func (l *link) outside(action, hint, name string) verdict {
	l.dirty = l.multi
	d := l.h.Decide(l.use(l.cred, action))
	if d.Allowed() { // it was not, when the connection began
		d = guard.Decision{Action: guard.Block, Rule: "scope", Reason: "this connection was allowed to read only", NextSteps: []string{"connect again"}}
	}
	d.Secret = l.cred.ID()
	l.refused(l.cred, action, name, d)
	d.Reason += hint
	return verdict{text: denied(d)}
}

// another judges commands that name a database.
func (l *link) another(args [][]byte) (verdict, bool) {
	name := upper(args[0])
	db := -1
	switch {
	case name == "SELECT" && len(args) == 2:
		if n, ok := number(args[1]); ok && n >= 0 && n < 1<<20 {
			db = int(n)
		}
	case l.reads:
		return l.outside("db:write", "", name), true
	case name == "COPY" && len(args) <= 3:
		return verdict{}, false
	}
	if !l.wide {
		if db < 0 {
			return l.refuse("the scope names databases, and this command may reach another", "ask the user for a scope without one", name), true
		}
		u := l.use(l.cred, l.action)
		u.Resource, u.Path = strconv.Itoa(db), "/"+strconv.Itoa(db)
		if d := l.h.Decide(u); !d.Allowed() {
			l.dirty = l.multi
			d.Secret = l.cred.ID()
			l.refused(l.cred, l.action, name, d)
			return verdict{text: denied(d)}, true
		}
	}
	if db >= 0 {
		l.db = db
	}
	return verdict{}, false
}

// auth answers AUTH, and takes the login out of HELLO.
func (l *link) auth(args [][]byte) verdict {
	var user, password string
	has := false
	rest := args[:min(2, len(args))]
	if is(args[0], "AUTH") {
		switch len(args) {
		case 2:
			password = string(args[1])
		case 3:
			user, password = string(args[1]), string(args[2])
		default:
			return verdict{text: []byte("-ERR wrong number of arguments for 'auth' command\r\n")}
		}
		has = true
	} else {
		for i := 2; i < len(args); i++ {
			switch {
			case is(args[i], "AUTH") && i+2 < len(args):
				user, password, has = string(args[i+1]), string(args[i+2]), true
				i += 2
			case is(args[i], "SETNAME") && i+1 < len(args):
				rest = append(rest[:len(rest):len(rest)], args[i], args[i+1])
				i++
			default:
				return verdict{text: []byte("-ERR Syntax error in HELLO option\r\n")}
			}
		}
	}
	if has {
		cred, no := l.identify(password)
		if no == nil && l.up != nil && cred.Name != l.cred.Name {
			no = []byte("-ERR guard: this connection is logged in with " + l.cred.Name + "; open another one for " + cred.Name + "\r\n")
		}
		if no != nil {
			return verdict{text: no}
		}
		if l.up == nil {
			if user != "default" && len(user) <= 64 && !strings.ContainsAny(user, "\r\n") {
				l.user = user
			}
			if no := l.enter(func() (guard.Credential, []byte) { return l.identify(password) }); no != nil {
				return verdict{text: no}
			}
		}
		if is(args[0], "AUTH") {
			return verdict{text: []byte("+OK\r\n")}
		}
	} else if l.up == nil {
		if no := l.enter(l.pick); no != nil {
			return verdict{text: no}
		}
	}
	l.did.sent(conn)
	return verdict{instead: command(rest...)}
}
