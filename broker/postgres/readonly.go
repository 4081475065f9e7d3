package postgres

import (
	"slices"
	"strings"
)

// What a connection with db:read may send. The server has the last word: its
// transactions are read-only (default_transaction_read_only). This keeps a client from
// taking that back, and from what such a transaction does not stop: files, programs,
// locks, messages to and the end of other sessions, other databases, functions that do
// something. A statement passes if it is known to read; what is not known does not.

// writes says, in words, why sql is not one that only reads; "" where it is.
func writes(sql []byte) string {
	all, why := statements(sql)
	for _, s := range all {
		if why == "" {
			why = judge(s)
		}
	}
	return why
}

const notReading = "it is not known to only read"

// modes are the words of a transaction that reads.
var modes = []string{"work", "transaction", "isolation", "level", "serializable", "repeatable", "read", "committed", "uncommitted", "only", "not", "deferrable"}

func judge(s []token) string {
	first := token{}
	for _, t := range s {
		if !t.sign("(") {
			first = t
			break
		}
	}
	if s[0].sign("(") && !isQuery(first) {
		return notReading
	}
	switch {
	case isQuery(first):
		return query(s)
	case first.is("explain"):
		return explains(s[1:])
	case first.is("prepare"):
		return prepares(s)
	case first.is("declare"):
		for i, t := range s {
			if i > 1 && t.is("for") {
				return inner(s[i+1:])
			}
		}
	case first.is("execute"):
		return query(s[min(2, len(s)):])
	case first.is("set"):
		return sets(s[1:])
	case first.is("reset"):
		// Not transaction_read_only: that goes to what it is without any setting, "off".
		if at(s, 1).is("all", "role") || at(s, 1).is("session") && at(s, 2).is("authorization") || at(s, 1).is("transaction", "time") || len(s) == 2 && settable(s[1]) && strings.ToLower(s[1].text) != "transaction_read_only" {
			return bare(s)
		}
		return "it sets something that guard does not know as harmless"
	case first.is("begin", "start"):
		return plain(s[1:], modes)
	case first.is("commit", "end"):
		return plain(s[1:], []string{"work", "transaction", "and", "no", "chain"})
	case first.is("rollback", "abort"):
		if at(s, 1).is("prepared") {
			return notReading
		}
		return bare(s)
	case first.is("show", "fetch", "move", "close", "deallocate", "discard", "savepoint", "release", "listen", "unlisten"):
		return bare(s)
	case first.is("copy"):
		return copies(s)
	case first.is("lock"):
		return locks(s)
	}
	return notReading
}

func isQuery(t token) bool { return t.is("select", "with", "values", "table") }

// inner judges a query in another statement.
func inner(s []token) string {
	for _, t := range s {
		if !t.sign("(") {
			if isQuery(t) {
				return query(s)
			}
			break
		}
	}
	return notReading
}

// bare is for statements that hold names only.
func bare(s []token) string {
	for _, t := range s {
		if t.sign("(") {
			return notReading
		}
	}
	return ""
}

// plain is for those that hold these words only.
func plain(s []token, words []string) string {
	for _, t := range s {
		if !t.is(words...) && !t.sign(",") {
			if t.is("write") {
				return "it asks for a transaction that writes"
			}
			return notReading
		}
	}
	return ""
}

// closing is the index of the parenthesis that closes s[open].
func closing(s []token, open int) int {
	depth := 0
	for i := open; i < len(s); i++ {
		switch {
		case s[i].sign("("):
			depth++
		case s[i].sign(")"):
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return len(s)
}

// maxAlias is how many tokens may stand in what an alias without AS names.
const maxAlias = 1000

// opening is the index of the parenthesis that s[end] closes; -1: it is far away.
func opening(s []token, end int) int {
	depth := 0
	for i := end; i >= max(0, end-maxAlias); i-- {
		switch {
		case s[i].sign(")"):
			depth++
		case s[i].sign("("):
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// columns says whether names alone stand in the parenthesis that s[open] opens.
func columns(s []token, open int) bool {
	for _, t := range s[open+1:] {
		if !t.name() && !t.sign(",") {
			return t.sign(")")
		}
	}
	return false
}

func explains(s []token) string {
	if at(s, 0).sign("(") && !isQuery(at(s, 1)) && !at(s, 1).sign("(") {
		end := closing(s, 0)
		for _, t := range s[1:end] {
			if t.sign("(") {
				return notReading
			}
		}
		s = s[min(end+1, len(s)):]
	}
	for at(s, 0).is("analyze", "analyse", "verbose") {
		s = s[1:]
	}
	switch {
	case at(s, 0).is("execute", "declare"):
		return judge(s)
	}
	return inner(s)
}

// prepares reads PREPARE name [(types)] AS query.
func prepares(s []token) string {
	if at(s, 1).is("transaction") {
		return notReading
	}
	i := 2
	if at(s, i).sign("(") {
		i = closing(s, i) + 1
	}
	if !at(s, i).is("as") {
		return notReading
	}
	return inner(s[i+1:])
}

// locks lets pass what every query takes.
func locks(s []token) string {
	if at(s, len(s)-1).is("nowait") {
		s = s[:len(s)-1]
	}
	n := len(s) - 4
	if n < 2 || !s[n].is("in") || !s[n+1].is("access") || !s[n+2].is("share") || !s[n+3].is("mode") {
		return "it locks a table"
	}
	return bare(s)
}

// copies lets pass COPY to the client.
func copies(s []token) string {
	i := 1
	if at(s, i).sign("(") {
		end := closing(s, i)
		if end >= len(s) {
			return notReading
		}
		if why := inner(s[i+1 : end]); why != "" {
			return why
		}
		i = end + 1
	} else {
		for at(s, i).name() && !s[i].is("to", "from") || at(s, i).sign(".") {
			i++
		}
		if at(s, i).sign("(") { // the columns
			if !columns(s, i) {
				return notReading
			}
			i = closing(s, i) + 1
		}
	}
	if !at(s, i).is("to") || !at(s, i+1).is("stdout") {
		return "it copies, but not to the client (COPY ... TO STDOUT)"
	}
	for _, t := range s[i+2:] {
		if t.is("from", "program", "where") {
			return notReading
		}
	}
	return ""
}

// query judges what reads tables.
func query(s []token) string {
	for i, t := range s {
		prev, next := at(s, i-1), at(s, i+1)
		switch {
		case t.is("into"):
			return "it writes what it reads (INTO)"
		case t.is("for") && next.is("update", "share", "no", "key"):
			return "it locks rows"
		case t.is("insert", "update", "delete", "merge") && !prev.sign("."):
			return "it holds " + strings.ToUpper(t.text) + " (a column of that name is written in double quotes)"
		case next.sign("(") && t.name():
			if why := calls(s, i); why != "" {
				return why
			}
		}
	}
	return ""
}

// calls judges a name with a parenthesis behind it.
func calls(s []token, i int) string {
	t, prev := s[i], at(s, i-1)
	first := i // of the name with its schema
	for at(s, first-1).sign(".") && at(s, first-2).name() {
		first -= 2
	}
	before := at(s, first-1)
	switch {
	case before.sign(":") && at(s, first-2).sign(":"):
		return "" // a type's size
	case before.is("as", "recursive", "with") && first == i:
		return "" // an alias, or the name of a part of the query
	case prev.sign(")") && columns(s, i+1) && opening(s, i-1) >= 0 && !at(s, opening(s, i-1)-1).is("on"):
		return "" // an alias without AS; but SELECT DISTINCT ON (a) f(b)
	case t.kind == word && !prev.sign(".") && slices.Contains(syntax(), t.text):
		return ""
	case first < i && (first != i-2 || s[first].text != "pg_catalog" && s[first].text != "information_schema"):
		return "guard does not know functions of the schema " + strings.ToUpper(s[first].text)
	case t.text == "set_config":
		return configures(s, i)
	case t.kind == word && !prev.sign(".") && at(s, first-1).is("tablesample") && t.is("bernoulli", "system"):
		return ""
	case known(t.text):
		return ""
	}
	return "guard does not know the function " + strings.ToUpper(t.text) + ""
}

// configures judges set_config(...) at s[i].
func configures(s []token, i int) string {
	name := at(s, i+2)
	if name.kind == text && at(s, i+3).sign(",") {
		low := strings.ToLower(name.text)
		value := at(s, i+4)
		if slices.Contains(settings(), low) || planner(low) || reading[low] != nil && value.kind == text && at(s, i+5).sign(",") && slices.Contains(reading[low], strings.ToLower(value.text)) {
			return ""
		}
	}
	// What pg_dump asks.
	var all []string
	for _, t := range s[i:min(i+20, len(s))] {
		all = append(all, t.text)
	}
	if name.is("name") && strings.Join(all, " ") == "set_config ( name , view, foreign-table , false ) from pg_settings where name = restrict_nonsystem_relation_kind" && at(s, len(s)-1).kind == text {
		return ""
	}
	return "it sets something that guard does not know as harmless"
}

// reading are the settings on which reading SQL, and the scope, depend, and the values that
// they may have.
var reading = map[string][]string{
	"default_transaction_read_only": yes, "transaction_read_only": yes, "standard_conforming_strings": yes,
	"client_encoding": encodings, "names": encodings,
}

var (
	yes = []string{"on", "true", "yes", "1"}
	// encodings have no byte of ASCII in the middle of a character.
	encodings = []string{
		"utf8", "utf-8", "unicode", "sql_ascii", "latin1", "latin2", "latin3", "latin4", "latin5", "latin6", "latin7", "latin8", "latin9", "latin10", "iso-8859-1", "iso_8859_1", "iso88591",
		"iso_8859_5", "iso_8859_6", "iso_8859_7", "iso_8859_8", "win1250", "win1251", "win1252", "win1253", "win1254", "win1255", "win1256", "win1257", "win1258", "win866", "win874",
		"koi8", "koi8r", "koi8u", "euc_jp", "euc_cn", "euc_kr", "euc_tw", "euc_jis_2004",
	}
)

// planner says whether it is one of the families that only guide how a query is run.
func planner(name string) bool {
	for _, p := range []string{"enable_", "jit", "geqo", "cpu_", "parallel_"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// settable says whether a session may set it to anything.
func settable(t token) bool {
	name := strings.ToLower(t.text)
	return t.name() && (slices.Contains(settings(), name) || planner(name) || reading[name] != nil)
}

// sets judges what follows SET.
func sets(s []token) string {
	const unknown = "it sets something that guard does not know as harmless"
	if at(s, 0).is("session") && at(s, 1).is("characteristics") {
		if !at(s, 2).is("as") || !at(s, 3).is("transaction") {
			return unknown
		}
		return plain(s[4:], modes)
	}
	if at(s, 0).is("session") && at(s, 1).is("authorization") {
		if at(s, 2).is("default") && len(s) == 3 {
			return ""
		}
		return unknown + ": another role"
	}
	if at(s, 0).is("session", "local") {
		s = s[1:]
	}
	name := at(s, 0)
	switch {
	case name.is("transaction"):
		if at(s, 1).is("snapshot") && at(s, 2).kind == text && len(s) == 3 {
			return ""
		}
		return plain(s[1:], modes)
	case name.is("session", "role"):
		return unknown + ": another role"
	case name.is("time") && at(s, 1).is("zone"):
		return bare(s)
	case name.is("names"):
		if len(s) == 2 && slices.Contains(encodings, strings.ToLower(s[1].text)) && s[1].kind != escape {
			return ""
		}
		return unknown + ": an encoding"
	case name.is("xml") && at(s, 1).is("option"):
		return bare(s)
	}
	if !at(s, 1).sign("=") && !at(s, 1).is("to") || !settable(name) {
		return unknown + ": " + strings.ToUpper(name.text)
	}
	if ok := reading[strings.ToLower(name.text)]; ok != nil {
		v := at(s, 2)
		if v.is("default") && len(s) == 3 && strings.ToLower(name.text) != "transaction_read_only" {
			return "" // what it was at the login
		}
		if len(s) != 3 || v.kind == escape || v.kind == mark || !slices.Contains(ok, strings.ToLower(v.text)) {
			return unknown + ": " + strings.ToUpper(name.text)
		}
	}
	return bare(s)
}
