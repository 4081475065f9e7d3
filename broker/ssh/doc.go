// Package ssh is an ssh-agent whose keys never leave guard: it speaks
// draft-ietf-sshm-ssh-agent on a socket inside the session, and signs with keys
// of the vault what it can prove to be a login at one of their hosts.
//
// # What is signed
//
// A request's data is parsed to its last byte, and is one of two things:
//
//	userauth   string session id, byte 50, string user, string "ssh-connection",
//	           string method, bool true, string algorithm, string key[, string host key]
//	           (RFC 4252, section 7; the host key in publickey-hostbound-v00@openssh.com)
//	signature  "SSHSIG", string namespace, string reserved, string hash, string digest
//	           (OpenSSH's PROTOCOL.sshsig), where the namespace is "git"
//
// Everything else is refused, so that the agent is no oracle for other
// protocols that sign with such keys (TLS, JWT, other namespaces of SSHSIG).
//
// # Where a login goes
//
// The session id is the exchange hash of a key exchange, and the server signs it
// with its host key. Whoever has that signature has proof of the host, whatever the network
// in between did: the hash holds the host key, so that a signature made for one
// connection is worth nothing on another.
//
// Every login has to be for a connection that guard carries (Agent.Watch) and that is
// open: the session's connections go through the broker, and a server's host key and
// signature are in its first key exchange, which is not encrypted. The hash itself is in no
// packet, but in the data to be signed, and only the right one fits the signature. So
// dropbear, libssh2, Go's and old OpenSSH's clients are bound as well as new ones, and whoever
// is led to the agent's socket from elsewhere (ssh -R, a relay) can log in to nothing. A
// login through another host (ssh -J) is inside of that one's encrypted connection, where guard
// does not see it, and is refused.
//
// What a client proves by session-bind@openssh.com (PROTOCOL.agent; OpenSSH since 8.9) is
// checked besides: one for a connection to the agent, not for forwarding. Any other makes the
// connection useless: OpenSSH's client goes on when its bind is refused.
//
// The host key has to be in the user's known_hosts (KnownHosts) under the name and port that the
// connection goes to, which is to be one of the credential's hosts: names and ports, hashed
// names, patterns, @revoked, and @cert-authority with host certificates.
//
// A git signature is for no connection. It is made for a process of the session that the
// connection can name (broker.Process) while it lives.
//
// The user in the data must be the credential's, where it has one (several:
// separated by commas).
//
// # The gateway
//
// Connections of the session to the hosts of its keys end in a Gateway, which logs in at the server
// itself: for the client it is the server, with a host key that the session's known_hosts has for
// these hosts, and any client is let in, since only the session is led there; where several keys are
// for a host, the client says by a login with the agent which one. For the server it is the client: the
// server's own key has to be in the user's known_hosts, the login is signed as above, one use of the key for each
// command. Commands, shells, subsystems (sftp) and connections through the server (ssh -L, -W)
// go on; forwarding to the session (ssh -R), of the agent and of X11 does not.
//
// What a client sends goes through the leak line. git-receive-pack as git writes it is a push, which is taken
// apart and judged before any of it goes on (package broker/pack); a command that has its name in another
// form is refused, and so is whatever sends the beginning of a push to another command. Uses of git's commands
// have the actions repo:read and repo:push, or ssh:connect where policy allows only that. A refusal is on
// the client's standard error, in words and as JSON, and in git's own report for a push.
//
// With a gateway the agent signs no login for connections that could come by it and do not.
//
// # What is not served
//
// Adding, removing and locking keys; forwarded agents, with everything that comes
// by them; SHA-1 signatures; DSA. A frame is 256 KiB at most, a connection is closed when
// one takes longer than 30 s to come, and there are 256 connections at a time, 32 of one
// process. A new one takes the place of the one that was silent for the longest time
// when all are taken, and when half are, if that was 30 s.
//
// # Certificates
//
// Of a credential of kind ssh-ca the value is a certificate authority's key, and
// the agent offers a key pair of its own, which is in memory only, with a
// certificate: principals are the credential's user, it is valid from a minute ago
// for 5 minutes on, and permits a terminal but no forwarding. It is made anew when
// 2 minutes are left.
//
// # What does not hold
//
// A login is leave to do what the server allows this user: a program at the server that turns what it is
// sent into a push, in a form that nobody announced, is not known for one. The reply of git-lfs-authenticate, which
// holds a token, is not looked into. What goes to hosts that the user opened
// (--allow-host) with a key that the session has by itself is encrypted from end to end. A process of the session that leads others to the agent (a relay, ssh -R, forwarding by
// dropbear or OpenSSH before 8.9) gets git signatures for them while the session lasts, but no
// login from there to elsewhere; and one that carries a login's own bytes is the connection that
// guard sees, and ends with the session. A git signature is over a digest: what is signed
// is not known. Parsed keys are overwritten after each signature as far as
// Go's libraries let one reach them.
//
// Goroutines: Serve starts one for each connection and waits for all.
package ssh
