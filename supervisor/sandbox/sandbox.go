// Package sandbox is the boundary around an agent: it starts a program that
// can reach nothing of the host but what it was given, and hands every way out
// of it to the caller as a listener.
//
// Three processes take part. The caller holds the secrets and calls Start.
// Start runs its own executable again as "__init" in new user, mount, pid, ipc,
// uts, cgroup and network namespaces: stage 1, process 1 of the session. It
// builds the file tree and the network, sends the sockets back, and stays as
// session leader, reaper and keeper of job control. Stage 1 runs the executable
// once more as "__agent" in a second user and mount namespace in which the
// agent has a non-zero uid: there every mount is locked. Stage 2 gives up all
// capabilities, applies Landlock and seccomp, and becomes the agent.
//
// Stage 1 holds no secret, and no descriptor of the host when the agent runs.
// When its socket to the caller ends, it ends, and the kernel kills the rest.
//
// Stage 1 can change what the agent sees while it runs (Mask, Hide): mounts go
// down from its namespace to the agent's, and never up. It has process ids that
// nobody else gets and is not in /proc, since for the kernel it has the agent's
// uid: so that limits, priorities and its score for running out of memory are
// not the agent's to set.
//
// A Unix socket with a path is reached whatever the network namespace is, so
// those of the host are covered when the session starts: where they were bound,
// next to that, relative to the working folder of any process, and those of
// Config.Sockets. A session does not see /run, /tmp and /dev of the host, and
// what is below Home goes through an overlay, where a socket of the host refuses
// connections. What is left: a socket that the host binds during the session
// in a folder of Config.Writable, until Hide covers it, or in one that is
// neither of these and open to the agent's uid; and one that was moved to
// another such folder after bind, outside of Writable.
//
// Where user namespaces are not to be had, weaker tiers exist (Tier). Nothing
// degrades silently: Sandbox.Notes says in words what was lost, and why. Only
// what this machine lacks leads to a weaker tier (Unavailable): nothing that a
// project has in its folders does.
//
// Goroutines: Config.Before and Config.Notify are called by one each, for which
// Start waits; one reads the control socket and one waits for stage 1, both
// from Start until Close; a merged listener has one for each of its sockets
// until it is closed.
package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
)

// Config says what to run and what it may reach. The zero value of every field
// is the strictest.
type Config struct {
	Argv []string // the program, looked up in PATH of Env, and its arguments
	Env  []string // KEY=VALUE; nothing is added
	Dir  string   // working folder, absolute

	Writable []string // folders and files of the host shared read-write (Dir is among them)
	Hidden   []string // paths of the host to hide: a folder becomes an empty one, a file an empty one
	Files    []File   // paths shown with other content, read-only
	ReadOnly []string // paths inside writable areas that stay read-only
	// Sockets are Unix sockets and FIFOs of the host that the caller found in
	// Writable: they are covered, unless Writable names them. Those that
	// /proc/net/unix leads to are covered anyhow.
	Sockets []string

	Home string // the user's home folder; "" for none
	// HomeUpper is a folder of the host that keeps what the agent writes to
	// Home outside of Writable; "" keeps it in memory until the session ends.
	HomeUpper string

	HostPorts []int // ports of 127.0.0.1 inside whose connections are handed over by Sandbox.HostPort
	// Unix are paths inside of sockets whose connections are handed over by
	// Sandbox.Unix, below /run, which the session has for itself. They cannot be taken
	// away, and the folder below /run that they are in is to read only. The tiers below
	// Contained have none.
	Unix []string

	TTY        bool   // give the agent a terminal of its own
	Rows, Cols uint16 // its first size; 0: 24 by 80
	Stdin      *os.File
	Stdout     *os.File
	Stderr     *os.File // with TTY, nil is the terminal; without, /dev/null

	Boundary  string // "auto" (also ""), "namespace", "landlock", "proxy", "none"
	ProxyAddr string // the one "127.0.0.1:PORT" of the host that the landlock tier lets the agent connect to

	// NoZeroCopy refuses sendfile, splice, tee, vmsplice and copy_file_range
	// with EINVAL, so that programs fall back to read and write, whose bytes can
	// be judged; likewise cloning of files, and SO_ZEROCOPY.
	NoZeroCopy bool

	// NoCore keeps the program, and what it starts, from leaving a core file.
	NoCore bool

	// Notify gets the listener of a filter that hands over every write, pwrite64,
	// writev, pwritev and pwritev2 of the session, to be done by whoever holds it, and every
	// sendto, sendmsg and sendmmsg, to be looked at (package notify). It is called before the agent's first instruction, and must
	// have the calls served when it returns: the start goes on with one. uid and gid
	// are the agent's on the host. In tiers below Restricted there is no filter, so
	// it is not called, and Notes says so.
	Notify func(listener *os.File, uid, gid int) error

	// Before is called once the session's first process is there. That prepares
	// the session meanwhile, but starts no other process before Before returned. pid
	// is in the caller's pid namespace; own says that it has one to itself. An error
	// ends the start, and leads to no weaker tier.
	Before func(pid int, own bool) error
}

// ProxyPort is where Sandbox.TCP listens on 127.0.0.1 inside, for clients that
// are told of a proxy. It is fixed, so that the agent's environment can name it
// before there is a session; nobody inside can take it, since guard is first.
const ProxyPort = 3128

// File is a path that the agent sees with other content than the host has.
type File struct {
	Path    string
	Content []byte
	Mode    fs.FileMode // permission bits; 0: 0444
}

// Tier says how strong a boundary is.
type Tier string

const (
	Contained   Tier = "contained"   // namespaces: no route out, no host process, no host socket
	Restricted  Tier = "restricted"  // Landlock and seccomp: hidden files and no TCP but to the proxy
	Cooperative Tier = "cooperative" // proxy variables alone: the agent could reach anything
	None        Tier = "none"        // nothing
)

// EventKind is what happened to the agent.
type EventKind uint8

const (
	Failed    EventKind = iota // the session ended without the agent's exit status
	Stopped                    // by a job control signal
	Continued                  // after a stop
	Exited                     // by itself or by a signal
)

func (k EventKind) String() string {
	return [...]string{"failed", "stopped", "continued", "exited"}[k&3]
}

// Event tells what happened to the agent. Exited or Failed is the last one.
type Event struct {
	Kind   EventKind
	Signal syscall.Signal // of Stopped, and of Exited if a signal ended the agent
	Code   int            // of Exited: the exit status, or 128 + Signal
	Err    error          // of Failed
}

// StartError says why the agent does not run. Code is the exit status for it,
// as env(1) and shells have it: 127 not found, 126 found but not executable,
// 125 everything else.
type StartError struct {
	Code int
	Op   string // what was tried
	Err  error
}

func (e *StartError) Error() string { return e.Op + ": " + e.Err.Error() }
func (e *StartError) Unwrap() error { return e.Err }

// Sandbox is a running agent and the ways out of it.
type Sandbox struct {
	Tier  Tier
	Notes []string // what fell back and why, in words

	// TCP gets every TCP connection that the agent makes to anything but
	// 127.0.0.0/8 and ::1, and those to ProxyPort; what it accepts is a *Conn.
	// Nil in tiers below Contained, as are DNSUDP, DNSTCP, HostPort and Unix.
	TCP      net.Listener
	DNSUDP   net.PacketConn
	DNSTCP   net.Listener
	HostPort map[int]net.Listener
	// Unix has a listener for each of Config.Unix; what it accepts is a *UnixConn.
	Unix map[string]net.Listener

	PTY *os.File // the terminal's master side; nil without Config.TTY

	s *session
}

// Check is one answer of Probe.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason"` // what works, or why it does not and what would help
}

// Report is what this machine offers.
type Report struct {
	Tier   Tier    `json:"tier"` // what Boundary "auto" gives
	Checks []Check `json:"checks"`
	// LandlockABI is the kernel's; 0: no Landlock.
	LandlockABI int `json:"landlock_abi"`
}

// unsupported is an error that is errors.ErrUnsupported, with a reason.
func unsupported(format string, a ...any) error {
	return fmt.Errorf("%w: %w", fmt.Errorf(format, a...), errors.ErrUnsupported)
}
