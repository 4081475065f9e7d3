// Package exec runs a command for the agent, outside of the agent's reach, with
// a credential's real value: for programs whose protocol no broker speaks.
//
// # Who decides what
//
// The user writes down, beforehand, which program may be run with which
// credentials and with what arguments (Rule). The agent asks for a command line
// (Request). A rule fits if the credentials are the same, the program is the same
// file by absolute path and SHA-256, and each argument is matched by its pattern
// (Rule.Match). Then the use line decides about every credential, as for any
// other use: no rule, no decision or no record means that nothing is run.
//
// # What the command gets
//
// An environment of its own, of which the agent says nothing; the values in the
// variables or files that the rule names; an empty folder, and in it copies of
// those files that the agent sent and the rule lets in, as plain files without
// the right to be executed. What guard starts it in, and that it reaches no host
// but those of its credentials and of the rule, is the business of whoever gives
// Server.Start.
//
// # What comes back
//
// Standard output and standard error, each through the leak line, and the exit
// status; afterwards, likewise through the leak line, those files that the agent
// asked for and the rule lets out.
//
// # On the wire
//
// Frames in both directions over one connection, each of a byte of type, four bytes of
// length (big endian, at most 64 KiB) and that many bytes. From the client: one r (a
// Request in JSON), then i (a tar archive of the inputs, in pieces) until I, then 0
// (standard input) until E; s (one byte, the number of a signal: 1, 2 or 15) at any
// time after r. From the server: 1 and 2 (standard output and error), f (a tar archive of
// the outputs, in pieces), and at the end x (an Exit in JSON) or d (a Refusal in JSON).
//
// Goroutines: Server.Serve starts one that reads the client, one that feeds standard
// input and two that read the command's output; it returns when all of them have ended.
// Run, the client, starts one that sends, which ends with the connection or with its input.
package exec
