// Package screen keeps values from being complete on a terminal's screen, in
// whatever way they are put there: drawn in pieces by cursor moves, in columns,
// backwards, over several frames, by insertion, deletion, scrolling or erasing. What
// is printed in one go is the stream's to find (package matcher); this looks at what
// the bytes make of the screen.
//
// [Screen.Wrap] stands behind the filter of the stream. What that lets out, a model
// of the terminal takes step by step; before a step that would complete a value is
// released, the value's characters are replaced by asterisks: those about to be
// printed in place, and those that are there already by a sequence that moves the
// cursor there and back, in their own colours. The cursor, the wrap that is due,
// colours, margins, origin and insert mode are as before it; the slot of DECSC, which
// is the program's, is not used.
//
// # What is looked at
//
// The row that changes, left to right, with the rows that it is joined to: those
// that were wrapped, or are full. Text that begins in one column on rows below each
// other, with an edge on its left: a blank, a border, or where the printing began.
// Rows that a scroll brings together. What a row reads as in each moment while text
// is drawn over other text. 16 rows of what was scrolled away. The text has the
// characters only: what combines with them, and what has no width, is left out. A
// value that was judged and may be seen is not judged again while it stays.
//
// Also: strings (titles, links, clipboard) without the control characters in them,
// which terminals leave out; and what several strings pass on to another terminal
// one after the other.
//
// # What is not known
//
// Terminals differ: see doubt.go. Where they do, and where the row of the cursor is
// not known, there is a model for each case, and a value must be complete in none.
// Where there would be too many, what is on the screen is scrolled into the
// terminal's history. Sequences that hardly any program uses and that a model
// cannot follow everywhere are not let out: VT52 and Tektronix modes, rectangles,
// guarded areas, memory lock, DECBI and DECFI, single shifts, saved modes, IL and DL
// outside the scroll region, switching to the screen that is shown, and control
// sequences that are not well-formed. Text of other sizes (OSC 66) is let out as
// text. C1 controls are written as sequences of 7 bits, ICH to the end of a line as
// ECH, and NUL after an asterisk, which fills up a mask, is taken out.
//
// Not covered: a value that takes a place for granted where there is other text,
// printed in one go with it, down a column; a value with blanks in it, or words
// that belong together, over several rows; lines of plain output whose parts of a
// value are apart by more than 320 bytes of the column; widths of characters on
// which the terminal and UAX #11 do not agree; the moments between two characters
// of one run as to what is below or above it; text on a status line. All of a value
// but what completes it has been on the screen, and stays in a log of the bytes. What
// is in the terminal's history cannot be overwritten there: only the rest is masked.
//
// # Speed
//
// Output that a program prints line after line, with colours, does not go through
// the model at all: see plain.go. Everything else costs some microseconds a piece of
// text, most of it for the search. What a row reads as is worked out once after
// each change of it (read.go), and of a piece that is printed over older text only
// what reads differently is looked at (segment.changed).
package screen
