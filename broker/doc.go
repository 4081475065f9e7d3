// Package broker serves an agent's requests that need a credential: the use
// line (Line), the only way out (Egress), and the front that hands every
// connection of the sandbox to the handler of its protocol (Server). The
// protocols are in subpackages.
//
// The use line is one function, Line.Use: policy decides, the audit log records,
// the vault gives a copy of the value, the handler sends it, the copy is wiped,
// the result is recorded. No decision or no record means no use.
//
// Goroutines: Server.Serve starts one per listener and one per connection and
// returns when all have ended. Pipe starts two and waits for both.
package broker
