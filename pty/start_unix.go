//go:build unix

package pty

import (
	"fmt"
	"os"
	"os/exec"

	"github.com/creack/pty"
)

// Start starts cmd as the leader of a new session on a new terminal of that
// size, and returns its master. Standard streams that cmd has already stay.
func Start(cmd *exec.Cmd, rows, cols uint16) (*os.File, error) {
	m, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: rows, Cols: cols})
	if err != nil {
		return nil, fmt.Errorf("start on a terminal: %w", err)
	}
	return m, nil
}
