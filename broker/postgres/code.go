package postgres

import (
	"bytes"
	"strings"
)

// bodyMints looks for words about roles in the code of DO or of a function, whatever of
// it is a string in turn (EXECUTE 'CREATE ROLE x'), and reads it with and without its
// comments. A statement that is put together while the code runs is not seen.
func bodyMints(body []byte) bool {
	return wordsMint(body) || wordsMint(withoutComments(body))
}

func wordsMint(code []byte) bool {
	last := ""
	table, write := false, false
	for _, w := range bytes.FieldsFunc(code, func(r rune) bool { return r < 0x80 && (r == '$' || !isWord(byte(r))) }) {
		now := strings.ToLower(string(w))
		switch now {
		case "role", "user", "group", "default":
			if last == "create" && now != "default" || last == "alter" {
				return true
			}
		case "pg_authid", "pg_auth_members":
			table = true
		case "insert", "update", "delete", "merge", "copy":
			write = true
		}
		if last = now; table && write {
			return true
		}
	}
	return false
}

// withoutComments puts a space for each comment, wherever it stands.
func withoutComments(code []byte) []byte {
	var out []byte
	for i := 0; i < len(code); i++ {
		rest := code[i:]
		end := 0 // of the comment
		switch {
		case bytes.HasPrefix(rest, []byte("--")):
			if end = bytes.IndexAny(rest, "\n\r"); end < 0 {
				end = len(rest) - 1
			}
		case bytes.HasPrefix(rest, []byte("/*")):
			depth := 1
			for end = 2; end < len(rest) && depth > 0; end++ {
				switch {
				case bytes.HasPrefix(rest[end:], []byte("*/")):
					depth--
					end++
				case bytes.HasPrefix(rest[end:], []byte("/*")):
					depth++
					end++
				}
			}
			end--
		default:
			out = append(out, code[i])
			continue
		}
		out = append(out, ' ')
		i += end
	}
	return out
}
