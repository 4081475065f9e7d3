package main

import (
	"net"
	"strconv"
	"time"

	"guard"
)

// decoyUse is a refused use of a decoy, as a leak that was stopped.
func decoyUse(u guard.Use) guard.Leak {
	return guard.Leak{
		Origin: guard.Origin{Channel: u.Channel, Source: "broker", PID: u.PID, Exe: u.Exe, Host: u.Host, Port: u.Port, Method: u.Method, Path: u.Path},
		Secret: u.Credential.ID(), Class: guard.Decoy, Encoding: "raw", At: time.Now(),
	}
}

// alarm tells the user, once for each place, that a decoy was used, and writes the
// incident. Nothing is rotated: there is nothing behind it.
func (s *session) alarm(l guard.Leak) {
	at := string(l.Channel)
	if l.Host != "" {
		at = net.JoinHostPort(l.Host, strconv.Itoa(l.Port))
	}
	s.mu.Lock()
	key := l.Secret.String() + " " + at
	told := s.alarmed[key]
	s.alarmed[key] = true
	respond := s.respond
	s.mu.Unlock()
	if !told {
		who := ""
		if l.Exe != "" {
			who = " by " + visible(l.Exe)
		}
		s.app.say("ALARM: the decoy %s was used%s, towards %s, and refused: something in this session looks for credentials (guard incident ls)", l.Secret.Name, who, visible(at))
	}
	if respond != nil {
		respond.Leak(l.Secret, false, l)
	}
}
