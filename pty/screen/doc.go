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
// Sequences that hardly any program uses and that a model cannot follow everywhere
// are not let out: VT52 and Tektronix modes, rectangles, guarded areas, memory lock,
// DECBI and DECFI, single shifts, saved modes, IL and DL outside the scroll region, text
// of other sizes (its text is), and control sequences that are not well-formed. C1
// controls are written as sequences of 7 bits.
//
// Not covered: a value down a column in the midst of other text that was printed
// with it; values apart from each other by more than blanks; widths of characters on
// which the terminal and UAX #11 do not agree; what a terminal other than the user's
// own would show.
//
// # Speed
//
// Output that a program prints line after line, with colours, does not go through
// the model at all: see plain.go. Everything else costs about 10 microseconds a
// piece of text or control, most of it for the search.
package screen
