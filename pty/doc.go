// Package pty is the user's side of the terminal: raw mode and its way back,
// the size, and a copier that passes everything an agent outputs through a
// [guard.Filter] before it is displayed. It does not make the agent's terminal
// (except for [Start], where there are no namespaces) and does not own the
// agent.
//
// The path of a byte that the agent writes:
//
//	agent -> slave | master -> read until there is no more, or enough
//	  -> Filter -> one write to the user's terminal
//
// Nothing is on a timer while the filter holds nothing back: an echoed
// keystroke takes one read, one filter call and one write. When it does hold
// something back, the wait for more bytes gets a limit, and after it the
// filter is told to let go ([guard.Pause]).
//
// The path of a keystroke: terminal -> master, unread and unchanged. guard
// reads the terminal only when a byte is there and the agent's terminal is
// open; so a key pressed after the agent ended, or while it is suspended, is
// for whoever reads the terminal next.
//
// Goroutines: [Session.Run] copies output on the goroutine of its caller, so
// that a panic there runs the caller's deferred Restore, and starts three more
// (input, size, cancellation) that have ended when it returns. [Copy] starts
// one for a source that is not a file, and none else.
package pty
