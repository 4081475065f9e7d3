package mysql

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"guard"
)

// The names of the rules by which a statement is refused.
const (
	rulePassword = "passwords"
	ruleRead     = "read-only"
	ruleCommand  = "command"
	ruleCharset  = "charset"
)

// verdict is what is found in a text of SQL.
type verdict struct {
	class string // of the first statement, for the tally
	// mint: it makes or changes an account or its password, or may.
	mint bool
	// minted are the passwords that stand in it, with their accounts.
	minted []account
	// why it is refused under db:read, in words; "": it is not.
	write string
	// charset: it sets one in which a backslash may be half of a character.
	charset bool
	// use are the databases that it changes to.
	use []string
	// kill is what it kills, where that is all that it does; kills: it kills.
	kill  kill
	kills bool
}

type kill struct {
	id   uint32 // 0: not a plain number
	verb string // "", "connection" or "query"
}

// account is a name and a password of a statement.
type account struct{ user, password string }

// judge reads sql in all ways. system: the default database may be "mysql".
// readOnly: the connection may only read.
func judge(sql []byte, system, readOnly bool) verdict {
	var v verdict
	plain := !bytes.ContainsAny(sql, "\\") // then all ways are the same
	for i, way := range ways {
		if i > 0 && plain {
			break
		}
		l := read(sql, way.single, way.double)
		all, few := l.readings()
		if !l.clear || !few || l.cut && readOnly {
			v.write = "guard cannot tell what it does: it has comments with code, a NUL, or -- before what is a space in some charsets, which servers read in different ways"
			v.mint = v.mint || !l.clear || !few // it may
		}
		for n, stmts := range all {
			if i == 0 && n == 0 {
				v.class = classOf(stmts)
			}
			for _, s := range stmts {
				v.mint = v.mint || mints(s, system, 0)
				if i == 0 && n == 0 {
					v.minted = append(v.minted, passwords(s)...)
				}
				v.charset = v.charset || setsCharset(s)
				for _, db := range uses(s) {
					if !slices.Contains(v.use, db) {
						v.use = append(v.use, db)
					}
				}
				if k, ok := kills(s); ok {
					v.kills = true
					if v.kill = (kill{}); len(stmts) == 1 && l.codes == 0 {
						v.kill = k
					}
				}
				if readOnly && v.write == "" {
					v.write = writes(s)
				}
			}
		}
	}
	return v
}

// interesting says whether sql may hold anything that judge finds where
// everything may be done: reading a large INSERT token by token would cost more
// than the rest of its way.
func interesting(sql []byte) bool {
	low := bytes.ToLower(sql)
	for _, w := range []string{"user", "password", "identified", "grant", "role", "global_priv", "authentication_string", "prepare", "immediate", "use", "charset", "character", "names", "kill", "priv", "_client", "mysql", "init_", "install", "call"} {
		if bytes.Contains(low, []byte(w)) {
			return true
		}
	}
	return false
}

var classes = []string{"SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "SHOW", "CALL", "CREATE", "ALTER", "DROP", "SET", "BEGIN", "START", "COMMIT", "ROLLBACK"}

// classOf names the class of the first statement, of those that the log knows.
func classOf(stmts [][]token) string {
	if len(stmts) > 0 {
		for _, t := range stmts[0] {
			if t.sign("(") {
				continue
			}
			if c := strings.ToUpper(t.text); t.kind == word && slices.Contains(classes, c) {
				return c
			}
			break
		}
	}
	return "other"
}

func at(s []token, i int) token {
	if i >= 0 && i < len(s) {
		return s[i]
	}
	return token{}
}

// maxNesting bounds how deep statements in strings of PREPARE are followed.
const maxNesting = 4

// systemTables hold accounts and what they may do.
var systemTables = []string{"user", "global_priv", "db", "tables_priv", "columns_priv", "procs_priv", "proxies_priv", "roles_mapping", "role_edges", "default_roles", "password_history"}

// mints says whether s makes or changes an account or its password. It is looked for
// at every place of a statement, since bodies of routines hold statements too.
func mints(s []token, system bool, depth int) bool {
	write, table, mysql := false, false, system
	for i, t := range s {
		prev, next := at(s, i-1), at(s, i+1)
		name := t.kind == word || t.kind == quoted || t.kind == double
		low := strings.ToLower(t.text)
		if name && low == "mysql" && next.sign(".") {
			mysql, table = true, true // also by a view of one's own, and under another name
		}
		if name && slices.Contains(systemTables, low) && (!prev.sign(".") || strings.EqualFold(at(s, i-2).text, "mysql")) {
			table = true
		}
		if name && (low == "authentication_string" || low == "global_priv") {
			table, mysql = true, true
		}
		switch {
		case t.is("insert", "update", "delete", "replace", "load", "truncate", "alter", "drop", "rename", "import"):
			write = true
			if t.text == "alter" && next.is("user", "role") && !prev.is("show") {
				return true
			}
			if t.text == "rename" && next.is("user") {
				return true
			}
			if t.text == "alter" && next.is("if") && at(s, i+2).is("exists") && at(s, i+3).is("user", "role") {
				return true
			}
		case t.is("create"):
			write = true
			n := i + 1
			if at(s, n).is("or") && at(s, n+1).is("replace") {
				n += 2
			}
			if at(s, n).is("user", "role") && !prev.is("show") {
				return true
			}
		case t.is("set") && (next.is("password") || next.is("global", "session", "local") && at(s, i+2).is("password")):
			// Not UPDATE t SET password: a column.
			if next.is("password") && at(s, i+2).sign("=") && slices.ContainsFunc(s[:i], func(w token) bool {
				return w.is("update", "insert", "replace", "load") && (w.code == 0 || w.code == t.code)
			}) {
				continue
			}
			return true
		case i == 0 && t.is("install"), name && strings.HasPrefix(low, "init_") && s[0].is("set"):
			return true // code in the server, or SQL that others run when they log in
		case i == 0 && t.is("call"):
			// What a procedure does with a string is its own affair, but for this.
			for _, arg := range s[1:] {
				if arg.kind != text && arg.kind != double || depth == maxNesting {
					continue
				}
				inner, _ := statements([]byte(arg.text), true, true)
				if slices.ContainsFunc(inner, func(in []token) bool { return mints(in, system, depth+1) }) {
					return true
				}
			}
		case t.is("identified") && next.is("by", "with", "via", "as"):
			return true
		case t.is("grant") && !prev.is("with", "revoke", ",") && !next.is("option"):
			return true
		case t.is("prepare") || t.is("immediate") && prev.is("execute"):
			from := i + 1
			if t.is("prepare") {
				if !at(s, i+2).is("from") {
					continue // a name, or DEALLOCATE PREPARE
				}
				from = i + 3
			}
			lit := at(s, from)
			rest := at(s, from+1)
			if lit.kind != text && lit.kind != double || depth == maxNesting || rest.kind != 0 && !rest.is("using") {
				return true // nobody can tell
			}
			for _, way := range ways {
				inner, _ := statements([]byte(lit.text), way.single, way.double)
				for _, in := range inner {
					if mints(in, system, depth+1) {
						return true
					}
				}
			}
		}
	}
	return write && table && mysql
}

// passwords finds the passwords in plain text of a statement that mints.
func passwords(s []token) (out []account) {
	user := ""
	for i, t := range s {
		str := func(n int) bool { k := at(s, n).kind; return k == text || k == double }
		switch {
		case at(s, i-1).is("user", "for", "to", ",", "exists") && (t.kind == text || t.kind == double || t.kind == quoted || t.kind == word) && !t.is("if"):
			user = t.text
		case t.sign(","):
			user = at(s, i+1).text
		case t.is("by") && at(s, i-1).is("identified") || t.is("by") && at(s, i-3).is("identified"):
			if str(i + 1) {
				out = append(out, account{user, at(s, i+1).text})
			}
		case t.is("password") && at(s, i+1).sign("(") && str(i+2) && (at(s, i-1).is("using", "as") || at(s, i-1).sign("=")):
			out = append(out, account{user, at(s, i+2).text})
		case t.sign("=") && str(i+1) && at(s, 0).is("set") && at(s, 1).is("password"):
			if !strings.HasPrefix(at(s, i+1).text, "*") || len(at(s, i+1).text) != 41 {
				out = append(out, account{user, at(s, i+1).text})
			}
		}
	}
	return out
}

// charsets are those in which a backslash is always one.
var charsets = []string{"utf8", "utf8mb3", "utf8mb4", "latin1", "ascii", "binary", "default"}

// saved are the variables in which dumps keep the client's charset.
var saved = []string{"saved_cs_client", "old_character_set_client"}

// setsCharset says whether s sets a charset of the client that is none of charsets,
// or may.
func setsCharset(s []token) bool {
	set := false
	for i, t := range s {
		set = set || t.is("set") && !at(s, i-1).is("character")
		name := strings.ToLower(t.text)
		if slices.Contains(saved, name) && t.kind != text {
			read := at(s, i-1).sign("@") && at(s, i-2).sign("=") && at(s, i-3).is("character_set_client")
			kept := at(s, i+1).sign("=") && at(s, i+2).sign("@") && at(s, i+3).sign("@") && at(s, i+4).is("character_set_client")
			if !read && !kept {
				return true
			}
		}
		if !set {
			continue
		}
		n := i + 1
		switch {
		case t.is("names"), t.is("charset"), t.is("set") && at(s, i-1).is("character"):
			if at(s, n).sign("=") {
				n++
			}
		case name == "character_set_client" && t.kind != text:
			if at(s, n).sign(":") {
				n++
			}
			if !at(s, n).sign("=") {
				continue // it is read
			}
			n++
			if at(s, n).sign("@") && slices.Contains(saved, at(s, n+1).text) {
				continue
			}
		default:
			continue
		}
		if v := at(s, n); v.kind != word && v.kind != text && v.kind != double || !slices.Contains(charsets, strings.ToLower(v.text)) {
			return true
		}
		if at(s, n+1).kind != 0 && !at(s, n+1).is("collate") && !at(s, n+1).sign(",") {
			return true // an expression
		}
	}
	return false
}

// uses is the database that s changes to.
func uses(s []token) []string {
	var out []string
	for i, t := range s {
		if t.is("use") && i == 0 && (at(s, i+1).kind == word || at(s, i+1).kind == quoted || at(s, i+1).kind == double) {
			out = append(out, s[i+1].text)
		}
	}
	return out
}

// kills reads KILL [HARD | SOFT] [CONNECTION | QUERY] id.
func kills(s []token) (k kill, ok bool) {
	if !at(s, 0).is("kill") {
		return k, false
	}
	i := 1
	if at(s, i).is("hard", "soft") {
		i++
	}
	if at(s, i).is("connection", "query") {
		k.verb = s[i].text
		i++
	}
	if at(s, i).kind == number && i+1 == len(s) {
		id, err := strconv.ParseUint(s[i].text, 10, 32)
		if err == nil {
			k.id = uint32(id)
		}
	}
	return k, true
}

// refused is the decision for a statement that a rule of the broker stops.
func refused(rule, reason string, next ...string) guard.Decision {
	return guard.Decision{Action: guard.Block, Rule: rule, Reason: reason, NextSteps: next}
}
