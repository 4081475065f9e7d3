package mysql

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// tally counts what statements did, by the class of the first word. It holds no SQL,
// and no more classes than there are.
type tally struct {
	done            map[string]*effect
	errors, refused int
}

type effect struct{ statements, rows int }

// complete counts one result of a statement.
func (t *tally) complete(class string, rows int) {
	if t.done == nil {
		t.done = map[string]*effect{}
	}
	e := t.done[class]
	if e == nil {
		e = &effect{}
		t.done[class] = e
	}
	e.statements++
	e.rows += rows
}

// String says it in words for the log: "12 SELECT (340 rows), 1 errors".
func (t *tally) String() string {
	var out []string
	for _, class := range slices.Sorted(maps.Keys(t.done)) {
		e := t.done[class]
		out = append(out, fmt.Sprintf("%d %s (%d rows)", e.statements, class, e.rows))
	}
	if t.errors > 0 {
		out = append(out, fmt.Sprintf("%d errors", t.errors))
	}
	if t.refused > 0 {
		out = append(out, fmt.Sprintf("%d refused", t.refused))
	}
	if len(out) == 0 {
		return "no statement"
	}
	return strings.Join(out, ", ")
}
