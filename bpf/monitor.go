package bpf

import "guard"

// ChannelTLS is what a program handed to its TLS library: plaintext on its way to a socket.
const ChannelTLS guard.Channel = "tls"

// MonitorOptions of a Monitor.
type MonitorOptions struct {
	Options
	// TLS searches also what programs hand to libssl, GnuTLS, Go's crypto/tls and
	// OpenSSL inside of their own executable, where symbols say where that is. It
	// detects, and refuses nothing.
	TLS bool

	// Guards is told, by Follow, of every guard that begins and is no other guard's child, and of its end. At is
	// to be compared with Event.Call: what is found at or before the end was found while it ran. May be nil.
	Guards func(pid int, ended bool, at uint64)

	own string // for tests: guard's executable, if it is not this one
}

// TLSReport says what a Monitor sees of TLS.
type TLSReport struct {
	// Files that have a probe, by name, with the functions that it sits at.
	Files map[string][]string
	// Uncovered are the processes that began to speak TLS on a socket by none of these
	// files, by program.
	Uncovered map[string]int
	// Failed are files with such a function at which no probe could be put.
	Failed map[string]string
	// Lost news of processes and files: a new TLS library may have gone unnoticed.
	Lost uint64
}

// UncoveredProcesses is the sum over all programs.
func (r TLSReport) UncoveredProcesses() int {
	n := 0
	for _, k := range r.Uncovered {
		n += k
	}
	return n
}

// Piece is some bytes that a process is about to write, at most a page.
type Piece struct {
	PID    int
	Stream StreamID
	Offset int64  // of its first byte in the call's bytes
	Bytes  []byte // until the next Read
	About  []byte // for Pieces.Describe; until the next Read
}

// StreamID tells streams apart: what goes to one file, pipe or socket, whoever writes it.
type StreamID struct{ Device, Inode, Other uint64 }
