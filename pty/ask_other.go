//go:build !unix

package pty

import (
	"os"

	"golang.org/x/term"
)

// ReadHidden shows each prompt on tty and reads a line after it without echo.
func ReadHidden(tty *os.File, prompts ...string) (lines [][]byte, err error) {
	for _, p := range prompts {
		if _, err := tty.WriteString(p); err != nil {
			return nil, err
		}
		line, err := term.ReadPassword(int(tty.Fd()))
		tty.WriteString("\r\n")
		if err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return lines, nil
}
