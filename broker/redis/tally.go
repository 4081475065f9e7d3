package redis

import (
	"fmt"
	"strings"
)

// tally counts what a connection did, by class. It holds no data.
type tally struct {
	reads, writes, others, refused int
	errors                         int // the server's
}

func (t *tally) sent(c class) {
	switch c {
	case read:
		t.reads++
	case write, another, mint:
		t.writes++
	default:
		t.others++
	}
}

// String says it in words for the log: "12 read, 3 write, 1 refused".
func (t *tally) String() string {
	var out []string
	for _, c := range []struct {
		n    int
		what string
	}{{t.reads, "read"}, {t.writes, "write"}, {t.others, "other"}, {t.refused, "refused"}, {t.errors, "errors"}} {
		if c.n > 0 {
			out = append(out, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	if len(out) == 0 {
		return "no command"
	}
	return strings.Join(out, ", ")
}
