package ssh

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"regexp"
	"strings"

	"guard"
	"guard/broker/pack"
)

// gitCommand is what git runs at a server.
type gitCommand struct{ name, path string }

func (c gitCommand) push() bool { return c.name == "receive-pack" }

var (
	// As git writes it: the path in single quotes, with '\'' and '\!' in it.
	gitWord = regexp.MustCompile(`^(?:[A-Za-z0-9_./-]*/)?git[- ](receive-pack|upload-pack|upload-archive) +(?:'((?:[^'\\\x00]|'\\['!]')*)'|"([^"\\$` + "`" + `\x00]*)"|([A-Za-z0-9_./~@:+-]+)) *$`)
	quoted  = strings.NewReplacer(`'\''`, `'`, `'\!'`, `!`)
	// What a shell would make a push of, in another form.
	hidden = strings.NewReplacer(`'`, "", `"`, "", `\`, "")
)

// parseGit reads a command. One that pushes and is not as git writes it is refused:
// what follows would not be known for a pack.
func parseGit(command string) (gitCommand, *guard.Decision) {
	if m := gitWord.FindStringSubmatch(command); m != nil {
		path := m[3] + m[4]
		if m[2] != "" {
			path = quoted.Replace(m[2])
		}
		return gitCommand{m[1], path}, nil
	}
	if strings.Contains(strings.ToLower(hidden.Replace(command)), "receive-pack") {
		d := refusal("ssh push", "a push is inspected, and this command for one is not in git's own form, so that guard does not know what comes", "push with git push")
		return gitCommand{}, &d
	}
	return gitCommand{}, nil
}

// gitUse is the use of a key for a git command: repo:read and repo:push as over HTTPS,
// or a login, where only that is allowed.
func (t *gate) gitUse(c guard.Credential, git gitCommand) guard.Use {
	login := t.login(c)
	login.Method, login.Path = "git-"+git.name, git.path
	u := login
	u.Action = "repo:read"
	u.Resource = strings.TrimSuffix(strings.Trim(strings.TrimPrefix(git.path, "~"), "/"), ".git")
	read := t.g.Login.Decide(u).Allowed()
	if git.push() {
		u.Action = "repo:push"
	}
	switch {
	case t.g.Login.Decide(u).Allowed():
		return u
	case t.g.Login.Decide(login).Allowed() || !read: // what its refusal says is what is missing
		return login
	}
	return u
}

// noThin asks clients for packs that can be judged.
func noThin(r io.Reader) io.Reader { return pack.NoThin(r) }

const pushMem = 8 << 20 // of a push; the rest is in a file

// push takes what the client pushes, judges it, and sends it on as a whole. Nothing that
// comes after the pack is. told: it was refused, and the client knows.
func (s *sessionChannel) push(r *relay, u guard.Use) (told bool) {
	spool := pack.NewSpool(s.g.SpoolDir, pushMem)
	defer spool.Close()
	p, err := pack.ReadPush(io.TeeReader(s.ch, spool))
	switch {
	case err != nil && spool.Size() == 0: // the client has seen what there is, and wants nothing
		_ = r.there.CloseWrite()
		return false
	case err != nil:
		return s.unreadable(r, u, "its commands could not be read")
	}
	start := spool.Size()
	if p.Packed {
		if err := pack.Copy(spool, s.ch, p.Hash); err != nil {
			if errors.Is(err, pack.ErrSpool) {
				return s.unreadable(r, u, "it is larger than can be kept until it is judged")
			}
			return s.unreadable(r, u, "its pack could not be read")
		}
	}
	err = p.Judge(spool, start, s.pushed(u))
	var report *pack.Report
	switch {
	case errors.As(err, &report):
		r.halt()
		d := report.Decision
		s.refuse(u, d)
		if !p.Sideband || !p.Status {
			_, _ = s.ch.Stderr().Write(explain(u, d))
		}
		if p.Status {
			_, _ = s.ch.Write(report.Body())
		}
		_ = s.ch.CloseWrite()
		_, _ = s.ch.SendRequest("exit-status", false, binary.BigEndian.AppendUint32(nil, 1))
		return true
	case err != nil:
		return s.unreadable(r, u, "its pack could not be read")
	}
	if _, err := io.Copy(r.there, spool.Reader()); err != nil {
		return false // the server is gone, and has said why
	}
	_ = r.there.CloseWrite()
	_, _ = io.Copy(io.Discard, s.ch)
	return false
}

// unreadable refuses a push that cannot be judged.
func (s *sessionChannel) unreadable(r *relay, u guard.Use, why string) (told bool) {
	if r.over.Load() {
		return false // the server ended it, and the client had nowhere to send the rest
	}
	r.halt()
	d := refusal("uninspectable", "the push cannot be inspected: "+why, "run git gc and git fsck, then push again")
	s.refuse(u, d)
	s.sorry(u, d)
	return true
}

// pushed judges one thing that a push sends: what is known, and what has the form of a
// credential. A tree's own bytes are not looked through for forms, since names of
// objects lie between the names of files; its paths are.
func (s *sessionChannel) pushed(u guard.Use) pack.Open {
	return func(kind byte, what string) guard.Filter {
		o := s.origin(u)
		o.Path += " " + what
		f := s.g.Login.Open(o)
		if s.g.Formats == nil || kind == pack.TreeKind {
			return f
		}
		forms := s.g.Formats(o)
		return func(p []byte, step guard.Step) ([]byte, guard.Decision) {
			out, d := f(p, step)
			if d.Action.Stops() || d.Action == guard.Redact {
				return out, d
			}
			if _, fd := forms(p, step); fd.Action.Stops() {
				return nil, fd
			}
			return out, d
		}
	}
}

// filter judges what a client sends to a command that is no push, and stops what looks like
// one all the same.
func (t *gate) filter(o guard.Origin) guard.Filter {
	f := t.g.Login.Open(o)
	var tail []byte
	return func(p []byte, step guard.Step) ([]byte, guard.Decision) {
		tail = append(tail, p[:min(len(p), len(packed))]...)
		if bytes.Contains(tail, packed) || bytes.Contains(p, packed) {
			return nil, refusal("ssh push", "a git pack was sent to a command that guard does not know for git's", "push with git push")
		}
		tail = append(tail[:0], tail[max(0, len(tail)-len(packed)):]...)
		if len(p) >= len(packed) {
			tail = append(tail[:0], p[len(p)-len(packed):]...)
		}
		return f(p, step)
	}
}

// packed is the end of a push's commands with the beginning of its pack.
var packed = []byte("0000PACK\x00\x00\x00\x02")
