// Package pack judges what a git push sends, however it travels: the commands before
// the pack (Push), and every object of the packfile as it will be, with deltas applied,
// each under its name and the path at which a commit of the pack has it.
//
// A push is judged as a whole before any of it goes on: it lies in a Spool, which is
// memory for little and a file without a name for much. Copy takes a pack from a
// connection that does not say where the pack ends.
//
// What does not hold: a value in two objects, a half in each, is in neither; an object
// that only the other side has cannot be judged, so a thin pack is refused, and servers are made to
// say that they take none (NoThin).
package pack
