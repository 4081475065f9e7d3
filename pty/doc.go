// Package pty is the user's side of the terminal: raw mode and its way back,
// the size, and a copier that passes everything an agent outputs through a
// [guard.Filter] before it is displayed. It does not make the agent's terminal
// (except for [Start], where there are no namespaces) and does not own the
// agent.
//
// The path of a byte that the agent writes:
//
//	agent -> slave | master -> read until there is no more, or enough
//	  -> without what would make the terminal type -> Filter
//	  -> without what the filter's masks made of that kind -> one write to it
//
// The terminal is opened once more for that, without waiting (ahead_unix.go): what it
// does not take at once, at most 32 KiB, is kept and written while the next bytes are
// waited for; so a terminal that displays slowly, or not at all, stops the agent as it
// would without guard. Where it cannot be opened again (it is another user's, or this
// is not Linux), more than a few lines are written by a goroutine of their own
// (aside.go), with at most 64 KiB waiting.
//
// Nothing is on a timer while the filter holds nothing back: an echoed
// keystroke takes one read, one filter call and one write. When it does hold
// something back, the wait for more bytes gets a limit, and after it the
// filter is told, once, to let go of what is too short to matter ([guard.Pause]).
//
// An agent can ask a terminal questions in its output, and the answer arrives as
// if it had been typed. Controls whose answer an agent can choose (the title, the
// clipboard, ENQ, DECRQSS and others: see tame.go), and DECUDK and kitty's remote
// control, are dropped, also in the passthrough of tmux and screen; questions
// whose answers have a fixed form (device attributes, cursor position, colours,
// modes) pass. Not covered: a sequence that is cut over several passthrough
// strings, which the outer terminal puts together, and XTGETTCAP, whose answer
// repeats hexadecimal digits. An OSC 52 that writes the clipboard passes unless
// [Session].NoClipboard is set.
//
// The path of a keystroke: terminal -> [Session].In -> master. guard reads the
// terminal only when a byte is there and the agent's terminal is open; so a key
// pressed after the agent ended, or while it is suspended, is for whoever reads
// the terminal next.
//
// What is typed is never held back (typed.go): fewer than 8 bytes at once, and
// what begins with ESC, as keys and answers of the terminal do, go on as soon as
// they are judged. A value that is typed key by key is therefore with the agent
// but for its last byte when it is found. More at once is a paste, of which what
// may be a value's beginning waits for 5 ms, or, inside bracketed paste, until
// the paste's end or a second of silence. A paste without brackets that comes in
// pieces of fewer than 8 bytes, or in pieces more than 5 ms apart, is as typed.
//
// Where the agent asked in its last second, the answer may come after its end:
// then Run waits for up to 100 ms and drops what has an answer's form (Linux).
// What was read cannot be put back, so it reads only when at least three bytes are
// there at once, which somebody's typing is not. An arrow key may be lost, or the
// first byte of a paste at that moment.
//
// Goroutines: [Session.Run] reads and judges output on the goroutine of its
// caller, so that a panic there runs the caller's deferred Restore, and starts
// up to four more (display, input, size, cancellation) that have ended when it returns.
// A panic of display or of In is brought to the caller's. [Copy] starts
// one for a source that is not a file, and none else.
package pty
