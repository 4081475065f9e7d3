package mail

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"guard"
)

// imap is one connection to an IMAP server.
type imap struct {
	*link
	reads    bool // the scope lets it read only
	mechs    []string
	caps     []string
	filter   guard.Filter
	held     int
	commands int
	flow     *flow

	mu sync.Mutex // writes to the client, a response at a time
}

// IMAP serves one connection to its end, and closes it.
func (h *Handler) IMAP(ctx context.Context, c net.Conn, host string, port int) {
	defer c.Close()
	unhook := context.AfterFunc(ctx, func() { c.Close() })
	defer unhook()
	l := h.start(ctx, c, host, port, "imap", guard.ChannelIMAP, 993)
	if l == nil {
		return
	}
	if !h.ready() {
		_ = l.c.say("* BYE guard's mail broker is not set up in this session; guard doctor says what is missing")
		return
	}
	s := &imap{link: l, flow: newFlow()}
	var wg sync.WaitGroup
	defer func() {
		c.Close()
		s.detach()
		wg.Wait()
		if s.used && h.Ended != nil {
			h.Ended(s.use(s.cred, s.scope(), ""), fmt.Sprintf("%d commands, %d refused", s.commands, s.refusals), time.Since(s.begin))
		}
	}()
	if s.c.say("* OK ["+s.before()+"] guard") != nil {
		return
	}
	line, err := s.greet()
	if err != nil {
		return
	}
	if s.filter = h.Open(s.origin()); s.filter == nil {
		return
	}
	_ = s.up.SetDeadline(time.Time{})
	from := s.up.r // a client that is gone at once has s.up taken away
	wg.Go(func() {
		defer c.Close()
		defer s.flow.end()
		_ = s.back(from)
	})
	if line != "" && s.command(line) != nil {
		return
	}
	for {
		line, err := s.c.line()
		if errors.Is(err, errLine) {
			s.tell("* BYE guard refuses lines that are longer than 16 KiB, or that have a lone CR or LF")
		}
		if err != nil || s.command(line) != nil {
			return
		}
	}
}

// scope is the action that the connection was allowed.
func (s *imap) scope() string {
	if s.reads {
		return "mail:read"
	}
	return "mail:write"
}

func (s *imap) tell(line string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.c.say(line)
}

// What commands do. What is in neither is refused.
const (
	readers = " CAPABILITY NOOP ID ENABLE EXAMINE SELECT LIST LSUB XLIST STATUS NAMESPACE CHECK CLOSE UNSELECT SEARCH ESEARCH SORT THREAD FETCH IDLE LOGOUT GETQUOTA GETQUOTAROOT GETMETADATA GETANNOTATION MYRIGHTS GETACL LISTRIGHTS LANGUAGE COMPARATOR "
	writers = " STORE APPEND EXPUNGE COPY MOVE CREATE DELETE RENAME SUBSCRIBE UNSUBSCRIBE SETMETADATA SETANNOTATION REPLACE CATENATE "
)

// command serves one command after the login, with its literals.
func (s *imap) command(line string) error {
	tag, rest, _ := strings.Cut(line, " ")
	name, args, _ := strings.Cut(rest, " ")
	name = strings.ToUpper(name)
	if !isTag(tag) || name == "" {
		s.tell("* BAD want: TAG COMMAND")
		return errStopped
	}
	known := name
	if name == "UID" {
		sub, _, _ := strings.Cut(args, " ")
		known = strings.ToUpper(sub)
		if !strings.Contains(" SEARCH FETCH SORT THREAD STORE COPY MOVE EXPUNGE REPLACE ", " "+known+" ") {
			known = ""
		}
	}
	eight := known == "APPEND" && (s.offers("BINARY") || s.offers("UTF8=ACCEPT") || s.offers("UTF8=ONLY") || s.offers("IMAP4rev2"))
	n, sync, lit, bad := scan(line, false, eight)
	if name == "IDLE" && len(rest) > len(name) {
		bad = "IDLE takes nothing" // its go-ahead is not a literal's
	}
	if bad != "" {
		return s.unclear(tag, line, bad)
	}
	is := func(list string) bool { return known != "" && strings.Contains(list, " "+known+" ") }
	switch {
	case is(readers):
		if s.reads && name == "SELECT" {
			line = tag + " EXAMINE " + args
		}
	case is(writers) && !s.reads:
	case is(writers):
		d := s.h.Decide(s.use(s.cred, "mail:write", ""))
		if d.Allowed() {
			d = guard.Decision{Action: guard.Block, Rule: "scope", Reason: "this connection was allowed to read only"}
		}
		d.Secret = s.cred.ID()
		s.refused(s.cred, "mail:write", "", known, d)
		return s.refuse(tag, line, "[NOPERM] "+denied(d))
	default:
		s.refused(s.cred, s.scope(), "", "unknown", guard.Decision{Action: guard.Block, Rule: "imap command", Reason: "a command that guard does not pass"})
		return s.refuse(tag, line, "[CANNOT] guard refuses this command: it does not know it, or it gives others access, makes bearer URLs or changes the connection")
	}
	s.commands++
	if err := s.flow.begin(tag, lit); err != nil {
		return err
	}
	for lit {
		// Upstream every literal is a synchronizing one.
		s.flow.ask(tag, !sync)
		if err := s.pass(strings.TrimSuffix(strings.TrimSuffix(line, "}"), "+") + "}"); err != nil {
			return err
		}
		taken, err := s.flow.answer()
		switch {
		case err != nil:
			return err
		case !taken && sync:
			return nil
		case !taken:
			return s.discard(line)
		}
		if err := s.passBytes(n, known == "APPEND"); err != nil {
			return err
		}
		if line, err = s.c.line(); err != nil {
			return err
		}
		if n, sync, lit, bad = scan(line, true, eight); bad != "" {
			s.tell("* BYE guard refuses this command: " + bad)
			return errStopped
		}
	}
	if err := s.pass(line); err != nil {
		return err
	}
	if name == "IDLE" {
		done, err := s.c.line()
		if err != nil {
			return err
		}
		if !strings.EqualFold(done, "DONE") {
			s.tell("* BYE guard wants DONE after IDLE")
			return errStopped
		}
		return s.pass("DONE")
	}
	return nil
}

// unclear answers a line that servers may read in more than one way.
func (s *imap) unclear(tag, line, bad string) error {
	s.refused(s.cred, s.scope(), "", "unclear", guard.Decision{Action: guard.Block, Rule: "imap grammar", Reason: bad})
	if err := s.tell(tag + " BAD guard refuses this command: " + bad); err != nil {
		return err
	}
	if strings.HasSuffix(line, "+}") { // what comes next is of nobody knows what
		s.tell("* BYE guard cannot tell where this command ends")
		return errStopped
	}
	return nil
}

// refuse answers a command that does not go on, and throws away the rest of it.
func (s *imap) refuse(tag, line, words string) error {
	if err := s.tell(tag + " NO " + words); err != nil {
		return err
	}
	return s.discard(line)
}

// discard throws away what comes behind the first line of a command.
func (s *imap) discard(line string) error {
	for more := false; ; more = true {
		n, sync, ok, bad := scan(line, more, true)
		if bad != "" {
			s.tell("* BYE guard cannot tell where this command ends")
			return errStopped
		}
		if !ok || sync { // the client waits, and is told no
			return nil
		}
		if _, err := io.CopyN(io.Discard, s.c.r, n); err != nil {
			return err
		}
		var err error
		if line, err = s.c.line(); err != nil {
			return err
		}
	}
}

// pass sends a line on. The server may answer it: so the filter keeps nothing of it,
// and what follows is another stream if it did.
func (s *imap) pass(line string) error {
	if err := s.put([]byte(line+"\r\n"), guard.More); err != nil || s.held == 0 {
		return err
	}
	if err := s.put(nil, guard.Pause); err != nil || s.held == 0 {
		return err
	}
	if err := s.put(nil, guard.End); err != nil {
		return err
	}
	s.held = 0
	if s.filter = s.h.Open(s.origin()); s.filter == nil {
		return errStopped
	}
	return nil
}

func (s *imap) passBytes(n int64, message bool) error {
	var decoded func([]byte, guard.Step) string
	if message {
		if decoded = s.decoded(); decoded == nil {
			return errStopped
		}
	}
	look := func(p []byte, step guard.Step) error {
		if decoded == nil {
			return nil
		}
		bad := decoded(p, step)
		if bad == "" {
			return nil
		}
		s.refusals++
		s.tell("* BYE " + bad)
		s.up.Close()
		return errStopped
	}
	buf := make([]byte, 32<<10)
	for n > 0 {
		k, err := s.c.r.Read(buf[:min(n, int64(len(buf)))])
		if k > 0 {
			n -= int64(k)
			if err := look(buf[:k], guard.More); err != nil {
				return err
			}
			if n == 0 { // before the last of it goes on
				if err := look([]byte("\n"), guard.End); err != nil {
					return err
				}
			}
			if err := s.put(buf[:k], guard.More); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *imap) put(p []byte, step guard.Step) error {
	out, d := s.filter(p, step)
	if d.Action.Stops() {
		s.refusals++
		s.tell("* BYE " + stopped(d))
		s.up.Close() // what it has of the command has no end
		return errStopped
	}
	s.held += len(p) - len(out)
	if len(out) == 0 {
		return nil
	}
	_, err := s.up.Write(out)
	return err
}

// back sends the server's responses to the client, one at a time.
func (s *imap) back(r *bufio.Reader) error {
	for {
		if _, err := r.Peek(1); err != nil {
			return err
		}
		s.mu.Lock()
		err := s.response(r)
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// response is a line with its literals.
func (s *imap) response(r *bufio.Reader) error {
	var f guard.Filter
	if s.h.Scrub != nil {
		f = s.h.Scrub([]guard.SecretID{s.cred.ID()})
	}
	put := func(p []byte, step guard.Step) error {
		if f != nil {
			out, d := f(p, step)
			if d.Action.Stops() {
				return errStopped
			}
			p = out
		}
		if len(p) == 0 {
			return nil
		}
		_, err := s.c.Write(p)
		return err
	}
	data, begin := false, []byte(nil)
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		whole := err == nil
		if errors.Is(err, bufio.ErrBufferFull) {
			err = nil // longer than is looked into: in pieces
		}
		if err != nil {
			return err
		}
		if first { // a line of words has no literal, whatever it ends with
			data, begin = s.fetched(line), bytes.Clone(line[:min(len(line), 128)])
			if s.flow.hides(line) && whole {
				s.flow.said(begin)
				return nil
			}
		}
		out := line
		switch {
		case first && whole && bytes.HasPrefix(bytes.ToUpper(line), []byte("* CAPABILITY ")):
			out = []byte(s.capabilities(string(line)))
		case first && whole && !s.fetched(line):
			out = []byte(s.hide.words(s.capabilities(string(line))))
		}
		if err := put(out, guard.More); err != nil {
			return err
		}
		if !whole {
			continue
		}
		n, _, ok := literal(strings.TrimSuffix(string(line), "\r\n"))
		if !ok || !data {
			err := put(nil, guard.End)
			s.flow.said(begin)
			return err
		}
		buf := make([]byte, min(n, 32<<10))
		for n > 0 {
			k, err := r.Read(buf[:min(n, int64(len(buf)))])
			n -= int64(k)
			if perr := put(buf[:k], guard.More); perr != nil {
				return perr
			}
			if err != nil {
				return err
			}
		}
	}
}

// fetched says whether a response holds data of messages or mailboxes, which stay as
// they are.
func (s *imap) fetched(line []byte) bool {
	if !bytes.HasPrefix(line, []byte("* ")) {
		return false
	}
	for _, p := range []string{"OK", "NO", "BAD", "BYE", "PREAUTH"} {
		if bytes.HasPrefix(line[2:], []byte(p+" ")) {
			return false
		}
	}
	return true
}

// capabilities rewrites a CAPABILITY response or response code.
func (s *imap) capabilities(line string) string {
	i := strings.Index(strings.ToUpper(line), "CAPABILITY ")
	if i < 0 {
		return line
	}
	i += len("CAPABILITY ")
	end := i + strings.IndexAny(line[i:]+"]", "]\r")
	return line[:i] + strings.Join(s.passing(strings.Fields(line[i:end])), " ") + line[end:]
}
