package postgres

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// tally counts what the server says that statements did, by their class: the first
// words of CommandComplete. It holds no SQL, and no more classes than there are.
type tally struct {
	done   map[string]*effect
	errors int
	mu     sync.Mutex
	denied int // by guard
}

type effect struct{ statements, rows int }

// maxTag is the length in bytes of the longest CommandComplete that is looked at.
const maxTag = 64

// classes are the tags that have a number of rows.
var classes = []string{"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "COPY", "FETCH", "MOVE"}

// complete takes the payload of a CommandComplete: a tag such as "INSERT 0 5".
func (t *tally) complete(payload []byte) {
	words := strings.Fields(string(bytes.TrimSuffix(payload, []byte{0})))
	if len(words) == 0 {
		return
	}
	class, rows := "other", 0
	if slices.Contains(classes, words[0]) {
		class = words[0]
		rows, _ = strconv.Atoi(words[len(words)-1])
	}
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

// error takes the kind of a message that is passed on.
func (t *tally) error(kind byte) {
	if kind == 'E' {
		t.errors++
	}
}

// refuse counts a statement that guard refused; another goroutine may call it.
func (t *tally) refuse() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.denied++
}

// String says it in words for the log: "12 SELECT (340 rows), 1 error".
func (t *tally) String() string {
	var out []string
	for _, class := range slices.Sorted(maps.Keys(t.done)) {
		e := t.done[class]
		s := fmt.Sprintf("%d %s", e.statements, class)
		if class != "other" {
			s += fmt.Sprintf(" (%d rows)", e.rows)
		}
		out = append(out, s)
	}
	if t.errors > 0 {
		out = append(out, fmt.Sprintf("%d errors", t.errors))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.denied > 0 {
		out = append(out, fmt.Sprintf("%d refused by guard", t.denied))
	}
	if len(out) == 0 {
		return "no statement"
	}
	return strings.Join(out, ", ")
}
