package mail

import (
	"bytes"
	"strings"
	"sync"
)

// scan reads one line of a command as RFC 9051 has it: the literal that it ends with,
// if any, or why it is none that every server reads in the same way. more is for
// what follows a literal; eight lets a literal8 be, as in APPEND.
func scan(line string, more, eight bool) (n int64, sync, ok bool, bad string) {
	if more && line != "" && line[0] != ' ' && line[0] != ')' {
		return 0, false, false, "something sticks to the end of a literal"
	}
	begins := func(i int) bool { return i > 0 && (line[i-1] == ' ' || line[i-1] == '(') }
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '"':
			if !begins(i) {
				return 0, false, false, "a quote is inside of a word"
			}
			for i++; i < len(line) && line[i] != '"'; i++ {
				if line[i] == '\\' {
					i++
				}
			}
			if i >= len(line) {
				return 0, false, false, "a quoted string has no end"
			}
			if i+1 < len(line) && line[i+1] != ' ' && line[i+1] != ')' {
				return 0, false, false, "something sticks to the end of a quoted string"
			}
		case c == '{':
			if i > 0 && line[i-1] == '~' {
				if !eight || !begins(i-1) {
					return 0, false, false, "a literal8 is for APPEND, where the server takes it"
				}
			} else if !begins(i) {
				return 0, false, false, "a literal is inside of a word"
			}
			if n, sync, ok = literal(line[i:]); !ok || strings.Contains(line[i+1:], "{") {
				return 0, false, false, "a literal is not at the line's end, or has no size"
			}
			return n, sync, true, ""
		case c < ' ' || c == 0x7f:
			return 0, false, false, "a control character is outside of a literal"
		}
	}
	return 0, false, false, ""
}

// flow knows which commands the server has not answered, and what it says to a
// literal. A literal goes on only once the server asked for it: so what it does not
// take for one is never there for it to take for commands.
type flow struct {
	mu    sync.Mutex
	wake  *sync.Cond
	open  map[string]int // unanswered commands, by tag
	n     int            // of them
	want  string         // the tag of the literal that waits, "" for none
	quiet bool           // the client does not wait for the go-ahead
	taken bool
	gone  bool
}

func newFlow() *flow {
	f := &flow{open: map[string]int{}}
	f.wake = sync.NewCond(&f.mu)
	return f
}

// begin notes a command that is about to be sent. One with a literal waits until
// all before it are answered, so that a go-ahead can be nobody else's.
func (f *flow) begin(tag string, alone bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for alone && f.n > 0 && !f.gone {
		f.wake.Wait()
	}
	if f.gone {
		return errStopped
	}
	f.open[tag]++
	f.n++
	return nil
}

// ask says that a line with a literal is about to be sent.
func (f *flow) ask(tag string, quiet bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.want, f.quiet, f.taken = tag, quiet, false
}

// go ahead or not: the server's answer to ask.
func (f *flow) answer() (taken bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for !f.taken && f.open[f.want] > 0 && !f.gone {
		f.wake.Wait()
	}
	taken = f.taken
	f.want = ""
	if f.gone {
		return false, errStopped
	}
	return taken, nil
}

// hides says whether a response is a go-ahead that the client does not wait for.
func (f *flow) hides(line []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return line[0] == '+' && f.want != "" && f.quiet && !f.taken
}

// said takes note of a response, by the first line of it.
func (f *flow) said(line []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	word, _, _ := bytes.Cut(line, []byte(" "))
	switch tag := strings.TrimRight(string(word), "\r\n"); {
	case line[0] == '+':
		f.taken = f.taken || f.want != ""
	case f.open[tag] > 0:
		if f.n--; f.open[tag] == 1 {
			delete(f.open, tag)
		} else {
			f.open[tag]--
		}
	default:
		return
	}
	f.wake.Broadcast()
}

func (f *flow) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = true
	f.wake.Broadcast()
}
