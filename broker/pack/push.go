package pack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"guard"
)

// FormatRule begins the rule of a decision about a credential's format; its
// reason says what was found.
const FormatRule = "format "

// Open starts the stream in which one thing is judged that a push sends: an object
// of that kind, or all paths (PathKind), or the commands. what names it for a person.
type Open func(kind byte, what string) guard.Filter

// Push is what a client says before its pack: commands, shallow lines, push options,
// a push certificate (gitprotocol-pack(5)).
type Push struct {
	Refs     []string // that are to be changed
	Sideband bool     // the client reads side-band-64k
	Status   bool     // it asked for a report
	Hash     int      // bytes of an object's name
	Packed   bool     // a pack follows: not all commands delete
	Lines    int      // pkt-lines of the commands; 0: the client wants nothing
	text     []byte
}

// Report says that a push is refused, and why, in git's own words: every ref is
// reported as rejected. Where Push.Status is false its client would take such an answer
// for success.
type Report struct {
	Push     *Push
	Decision guard.Decision
	Reason   string // for a person, in lines
}

func (g *Report) Error() string { return "push refused by " + g.Decision.Rule }

// UnreadableError says that what is pushed cannot be read, so not be judged either.
type UnreadableError struct{ Why string }

func (e *UnreadableError) Error() string { return "the push cannot be inspected: " + e.Why }

// Body is the answer of git-receive-pack (gitprotocol-pack(5), "Report Status").
func (g *Report) Body() []byte {
	var report bytes.Buffer
	pkt(&report, "unpack ok\n")
	for _, ref := range g.Push.Refs {
		pkt(&report, "ng "+ref+" refused by guard\n")
	}
	report.WriteString("0000")
	if !g.Push.Sideband {
		return report.Bytes()
	}
	var body bytes.Buffer
	for line := range strings.SplitSeq(strings.TrimSpace(g.Reason), "\n") {
		pkt(&body, "\x02guard: "+line+"\n")
	}
	for b := report.Bytes(); len(b) > 0; {
		n := min(len(b), 900)
		pkt(&body, "\x01"+string(b[:n]))
		b = b[n:]
	}
	body.WriteString("0000")
	return body.Bytes()
}

// maxPkt is the longest pkt-line's text (gitprotocol-common(5)).
const maxPkt = 65516

func pkt(w *bytes.Buffer, s string) {
	s = s[:min(len(s), maxPkt)]
	fmt.Fprintf(w, "%04x%s", len(s)+4, s)
}

// Judge judges the commands and every object of the pack, which is in body from start
// on. The error is a *Report or an *UnreadableError.
func (p *Push) Judge(body *Spool, start int64, open Open) error {
	f := open(PathKind, "a ref name or option")
	got, d := f(p.text, guard.More)
	n, stops := len(got), d.Action.Stops() || d.Action == guard.Redact
	if !stops {
		got, d = f(nil, guard.End)
		stops = d.Action.Stops() || d.Action == guard.Redact || n+len(got) != len(p.text)
	}
	if stops {
		return p.refuse(d, "a ref name or option")
	}
	if start == body.Size() {
		return nil // deletions only, or the probe of an authentication
	}
	k := &pack{src: body, start: start, size: body.Size(), hash: p.Hash}
	refs := shown(strings.Join(p.Refs, ","))
	err := k.each(func(kind byte, object string) guard.Filter { return open(kind, refs+" "+object) })
	var hit *objectHit
	switch {
	case errors.As(err, &hit):
		return p.refuse(hit.d, hit.object)
	case errors.Is(err, errThin):
		return p.because(guard.Decision{Action: guard.Block, Rule: "thin-pack"},
			"the pack is thin (it has deltas whose base is not in it), so it could not be inspected", "push again with: git push --no-thin")
	case errors.Is(err, errTooMany):
		return p.because(guard.Decision{Action: guard.Block, Rule: "uninspectable"},
			fmt.Sprintf("the pack has more than %d objects, so it could not be inspected", maxObjects), "push in steps: git push REMOTE OLDER-COMMIT:refs/heads/BRANCH")
	case err != nil:
		return &UnreadableError{"its pack could not be read"}
	}
	return nil
}

// refuse says that where (an object, for one) holds what d is about.
func (p *Push) refuse(d guard.Decision, where string) *Report {
	what := "a secret"
	switch {
	case d.Secret.Name != "":
		what = "the credential " + d.Secret.Name
	case strings.HasPrefix(d.Rule, FormatRule):
		what = d.Reason
	}
	next := "git commit --amend, or git filter-repo for older commits"
	switch {
	case strings.HasPrefix(where, "commit"):
		next = "reword the commit or its author: git commit --amend --reset-author, or git rebase -i"
	case strings.HasPrefix(where, "a ref"):
		next = "rename the branch or tag: git branch -m"
	case strings.HasPrefix(where, "tag"):
		next = "make the tag again: git tag -f -a"
	}
	return p.because(d, where+" holds "+what, append([]string{"take it out of every commit that is pushed (" + next + "), then push again"}, d.NextSteps...)...)
}

// because refuses the push with a reason and what to do about it.
func (p *Push) because(d guard.Decision, reason string, next ...string) *Report {
	d.Reason, d.NextSteps = reason, next
	text := "push refused: " + reason + "\nnothing was sent; " + strings.Join(next, "\nor: ")
	if d.Rule != "" {
		text += "\nrule: " + d.Rule
	}
	return &Report{Push: p, Decision: d, Reason: text}
}

// ReadPush reads the pkt-lines before the pack, and nothing of the pack.
func ReadPush(r io.Reader) (*Push, error) {
	p := &Push{Hash: 20}
	options := false
	for section := 0; ; {
		line, flush, err := readPkt(r)
		if err != nil {
			return nil, err
		}
		if flush {
			section++
			if section == 1 && options {
				continue // a section of push options follows
			}
			return p, nil
		}
		if p.text = append(append(p.text, line...), '\n'); len(p.text) > 16<<20 {
			return nil, errors.New("too many commands")
		}
		if section > 0 {
			continue
		}
		p.Lines++
		cmd, caps, has := bytes.Cut(line, []byte{0})
		if has {
			for c := range strings.FieldsSeq(string(caps)) {
				switch {
				case c == "side-band-64k":
					p.Sideband = true
				case c == "report-status", c == "report-status-v2":
					p.Status = true
				case c == "push-options":
					options = true
				case c == "object-format=sha256":
					p.Hash = 32
				}
			}
		}
		if f := strings.Fields(string(cmd)); len(f) == 3 && len(f[0]) == len(f[1]) {
			p.Refs = append(p.Refs, f[2])
			p.Packed = p.Packed || strings.Trim(f[1], "0") != ""
		}
	}
}

func readPkt(r io.Reader) (line []byte, flush bool, err error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, false, err
	}
	n, err := strconv.ParseUint(string(size[:]), 16, 16)
	if err != nil {
		return nil, false, errors.New("not a pkt-line")
	}
	switch {
	case n == 0:
		return nil, true, nil
	case n < 4:
		return nil, false, errors.New("not a pkt-line")
	}
	line = make([]byte, n-4)
	_, err = io.ReadFull(r, line)
	return line, false, err
}

// NoThin adds the capability no-thin to what a server tells a pushing client
// (gitprotocol-capabilities(5)): the client then sends whole packs, in which
// every delta's base is there to be inspected.
func NoThin(r io.Reader) io.Reader {
	var head bytes.Buffer
	src := io.TeeReader(r, &head)
	for range 4 {
		start := head.Len()
		line, _, err := readPkt(src)
		if err != nil {
			break
		}
		if bytes.IndexByte(line, 0) < 0 {
			continue
		}
		head.Truncate(start)
		pkt(&head, strings.TrimSuffix(string(line), "\n")+" no-thin\n")
		break
	}
	return io.MultiReader(&head, r)
}
