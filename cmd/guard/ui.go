package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"golang.org/x/term"

	"guard"
	"guard/pty"
)

// The rules of the user interface: results go to standard output, everything
// said about them to standard error with "guard: " before it; questions go to
// the terminal itself, so that redirections do not swallow them; colour only on
// a terminal, and not with NO_COLOR.

func (a *app) say(format string, v ...any) {
	text := fmt.Sprintf("guard: "+format+"\n", v...)
	if rawTerminal(a.stderr) {
		// The agent's program is in the middle of a line, maybe, and its rows must not shift.
		text = "\r" + strings.ReplaceAll(text, "\n", "\r\n")
	}
	io.WriteString(a.stderr, text)
}

func (a *app) colour(f *os.File) bool {
	return a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}

func paint(on bool, code, s string) string {
	if !on {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// table prints rows aligned, the first one as the heading.
func (a *app) table(rows [][]string) error {
	w := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(w, strings.TrimRight(strings.Join(r, "\t"), "\t "))
	}
	return w.Flush()
}

// printJSON writes v as one line.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// errNoTerminal: there is nobody to ask.
var errNoTerminal = errors.New("there is no terminal to ask on")

// openTTY is the user's terminal, whatever is redirected. Inside a sandbox it
// would be the agent's, so no command that asks is of use there.
func openTTY() (*os.File, error) {
	f, err := os.OpenFile(ttyPath, os.O_RDWR, 0)
	if err != nil {
		return nil, errNoTerminal
	}
	return f, nil
}

// askHidden asks for a value without echo, once for each prompt.
func askHidden(prompts ...string) ([][]byte, error) {
	tty, err := openTTY()
	if err != nil {
		return nil, err
	}
	defer tty.Close()
	return pty.ReadHidden(tty, prompts...)
}

// confirm asks a yes or no question; only "y" and "yes" are yes.
func confirm(prompt string) (bool, error) {
	tty, err := openTTY()
	if err != nil {
		return false, err
	}
	defer tty.Close()
	fmt.Fprint(tty, prompt+" [y/N] ")
	line, err := bufio.NewReader(tty).ReadString('\n')
	if err != nil && err != io.EOF {
		return false, err
	}
	line = strings.ToLower(strings.TrimSpace(line))
	return line == "y" || line == "yes", nil
}

// oneLine trims the one newline that editors and echo leave at a value's end.
func oneLine(b []byte) []byte {
	b = trimSuffix(b, '\n')
	return trimSuffix(b, '\r')
}

func trimSuffix(b []byte, c byte) []byte {
	if n := len(b); n > 0 && b[n-1] == c {
		return b[:n-1]
	}
	return b
}

func positions(ps []guard.Position) string {
	var s []string
	for _, p := range ps {
		s = append(s, p.String())
	}
	return strings.Join(s, ",")
}
