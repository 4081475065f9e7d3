package redis

import (
	"regexp"
	"strconv"
)

var (
	escaped = regexp.MustCompile(`\\(?:[0-9]{1,3}|x[0-9A-Fa-f]{2})`)
	joined  = regexp.MustCompile(`["']\s*\.\.\s*["']`)
	sending = regexp.MustCompile(`(?i)(?:["']|\[\r?\n?)migrate["'\]]`)
)

// script finds the Lua text, or the words for one, of a command that runs or stores a
// script: at is the index of the text, or 0, words that of the first argument that the
// script gets, or 0.
func script(args [][]byte) (at, words int) {
	switch {
	case is(args[0], "EVAL"), is(args[0], "EVAL_RO"):
		return 1, 3
	case is(args[0], "EVALSHA"), is(args[0], "EVALSHA_RO"), is(args[0], "FCALL"), is(args[0], "FCALL_RO"):
		return 0, 3
	case len(args) < 2:
	case is(args[0], "SCRIPT") && is(args[1], "LOAD"):
		return 2, 0
	case is(args[0], "FUNCTION") && is(args[1], "LOAD"):
		if len(args) > 2 && is(args[2], "REPLACE") {
			return 3, 0
		}
		return 2, 0
	}
	return 0, 0
}

// migrates says whether a script names MIGRATE, the one command that scripts may call
// and that has the server send its data to a host that egress never sees, or gets that
// name. Of ways to spell it, quotes of all kinds, escapes and pieces that are joined are seen;
// a script may put it together in ways that are not, such as string.char.
func migrates(args [][]byte) bool {
	at, words := script(args)
	if at > 0 && at < len(args) {
		text := escaped.ReplaceAllFunc(args[at], func(e []byte) []byte {
			digits, base := string(e[1:]), 10
			if digits[0] == 'x' {
				digits, base = digits[1:], 16
			}
			n, _ := strconv.ParseUint(digits, base, 16)
			return []byte{byte(n)}
		})
		if sending.Match(joined.ReplaceAll(text, nil)) {
			return true
		}
	}
	if words > 0 {
		for _, a := range args[min(words, len(args)):] {
			if is(a, "MIGRATE") {
				return true
			}
		}
	}
	return false
}
