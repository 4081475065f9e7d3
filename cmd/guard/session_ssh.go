package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"guard"
	"guard/broker"
	"guard/broker/ssh"
	"guard/supervisor/sandbox"
)

// sshSocket is where a session finds the agent.
const sshSocket = "/run/guard/ssh-agent.sock"

// sshKeys are the keys that the session is told of. What may be done with them
// is the policy's to say.
func (s *session) sshKeys() []guard.Credential {
	return slices.DeleteFunc(slices.Clone(s.credentials()), func(c guard.Credential) bool {
		return c.Kind != ssh.KindKey && c.Kind != ssh.KindCA || c.Decoy || !s.flags.allows(c.Name)
	})
}

// showAgent leads ssh to the agent, in tiers that can have one.
func (s *session) showAgent(env *environment, boundary string) {
	if len(s.sshKeys()) == 0 {
		return
	}
	if boundary != "namespace" {
		s.app.say("the ssh keys that are allowed cannot be used in this tier: their agent is a Unix socket, which needs a session with namespaces of its own")
		return
	}
	env.set("SSH_AUTH_SOCK", sshSocket)
}

// systemKnownHosts are the machine's host keys, for all its users.
const systemKnownHosts = "/etc/ssh/ssh_known_hosts"

// addSSH makes the agent's socket, and shows known_hosts to read only, as it is on the host but
// with the gateway's key for the hosts that the gateway speaks for: there guard looks
// at the host's own key.
func (s *session) addSSH(c *sandbox.Config, shared []string) error {
	if len(s.sshKeys()) == 0 {
		return nil
	}
	c.Unix = append(c.Unix, sshSocket)
	host, err := ssh.NewHostKey()
	if err != nil {
		return err
	}
	s.sshHost = host
	dir := filepath.Join(s.home, ".ssh")
	isShared := slices.ContainsFunc(shared, func(d string) bool { return within(dir, d) })
	var text []byte
	for _, name := range s.userKnownHosts() {
		b, err := os.ReadFile(name)
		if err == nil {
			text = append(append(text, bytes.TrimRight(b, "\n")...), '\n')
		} else if len(s.flags.sshKnownHosts) > 0 {
			return fmt.Errorf("read --ssh-known-hosts: %w", err)
		}
	}
	var hosts []string
	for _, k := range s.sshKeys() {
		hosts = append(hosts, k.Hosts...)
	}
	// First: some clients look no further than a host's first line.
	if system, err := os.ReadFile(systemKnownHosts); err == nil {
		c.Files = append(c.Files, sandbox.File{Path: systemKnownHosts, Content: append(host.KnownHosts(hosts, system), system...), Mode: 0o444})
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text = append(host.KnownHosts(hosts, text), text...)
	if _, err := os.Lstat(dir); err == nil && isShared {
		c.ReadOnly = append(c.ReadOnly, dir) // what the next session would trust
	}
	file := filepath.Join(dir, "known_hosts")
	if _, err := os.Lstat(file); err == nil || !isShared {
		c.Files = append(c.Files, sandbox.File{Path: file, Content: text, Mode: 0o444})
	}
	return nil
}

// userKnownHosts are the user's files of host keys: ssh's own, or --ssh-known-hosts.
func (s *session) userKnownHosts() []string {
	if len(s.flags.sshKnownHosts) > 0 {
		return s.flags.sshKnownHosts
	}
	dir := filepath.Join(s.home, ".ssh")
	return []string{filepath.Join(dir, "known_hosts"), filepath.Join(dir, "known_hosts2")}
}

// knownHosts reads them as they are now, and the machine's.
func (s *session) knownHosts() (*ssh.KnownHosts, error) {
	return ssh.ReadKnownHosts(append(s.userKnownHosts(), systemKnownHosts, "/etc/ssh/ssh_known_hosts2")...)
}

// checkSSH refuses a file of host keys that the agent could write, and a
// source-address that is none.
func (s *session) checkSSH() error {
	shared, err := s.shared()
	if err != nil {
		return err
	}
	for i, name := range s.flags.sshKnownHosts {
		p, err := filepath.Abs(name)
		if err == nil {
			p, err = filepath.EvalSymlinks(p)
		}
		if err != nil {
			return fmt.Errorf("--ssh-known-hosts: %w", err)
		}
		if slices.ContainsFunc(shared, func(d string) bool { return within(p, d) }) {
			return usagef("--ssh-known-hosts %s: the agent can write there, and would choose which hosts your keys log in to: keep a copy elsewhere", name)
		}
		s.flags.sshKnownHosts[i] = p
	}
	for a := range strings.SplitSeq(s.flags.sshSource, ",") {
		if _, err := netip.ParsePrefix(a); a != "" && err != nil {
			if _, err := netip.ParseAddr(a); err != nil {
				return usagef("--ssh-source-address %q: want addresses or ADDRESS/BITS, separated by commas", s.flags.sshSource)
			}
		}
	}
	return nil
}

// sshAgent serves the keys of this session, and the gateway their hosts; nil where there is
// none to serve.
func (s *session) sshAgent(line *broker.Line, login broker.Login, pushed guard.OpenFilter) (*ssh.Agent, *ssh.Gateway) {
	if len(s.sshKeys()) == 0 {
		return nil, nil
	}
	a := &ssh.Agent{
		Session: s.info, Credentials: s.sshKeys, Use: line.Use, Value: s.vault.Get, Refused: line.Refuse, Tell: s.tellSSH,
		KnownHosts: s.knownHosts, Source: s.flags.sshSource,
	}
	if s.sshHost == nil { // a tier without names of its own: nobody comes
		return a, nil
	}
	g := ssh.NewGateway(a, login, s.sshHost)
	g.Formats = pushed
	return a, g
}

// maxTold bounds the refusals that one session's user is told of by the line: the
// log has all of them.
const maxTold = 50

// tellSSH says a refusal to the user once: the agent's protocol has no words for it.
func (s *session) tellSSH(u guard.Use, d guard.Decision) {
	where := ""
	if u.Host != "" {
		where = ", host " + net.JoinHostPort(u.Host, strconv.Itoa(u.Port))
	}
	name := u.Credential.Name
	if name == "" {
		name = "none"
	}
	method, path := u.Method, ""
	if method == "" {
		method = "agent"
	}
	if u.Resource != "" {
		r := u.Resource
		if len(r) > 64 {
			r = r[:64] + "..."
		}
		path = ", for " + strconv.QuoteToASCII(r)
	}
	text := fmt.Sprintf("ssh refused (layer: broker, credential %s%s, method %s%s, rule %q): %s; next: %s", name, where, method, path, d.Rule, d.Reason, strings.Join(d.NextSteps, "; or "))
	key := "ssh\x00" + text
	s.mu.Lock()
	told := s.told[key] || s.sshTold >= maxTold
	if !told {
		s.told[key] = true
		s.sshTold++
	}
	s.mu.Unlock()
	if told {
		return
	}
	if b := s.conceal.bytes([]byte(text)); b != nil {
		text = string(b)
	}
	s.app.say("%s", text)
}
