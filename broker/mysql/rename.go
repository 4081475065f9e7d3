package mysql

import "guard/broker"

// rename replaces the real login by the client's in what the server says.
type rename struct{ from, to string }

func (r rename) text(s string) string { return string(r.words([]byte(s))) }

// words replaces whole words only.
func (r rename) words(b []byte) []byte { return broker.ReplaceWord(b, r.from, r.to, isName) }
