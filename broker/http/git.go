package http

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	nethttp "net/http"
	"strconv"
	"strings"

	"guard"
)

// FormatRule begins the rule of a decision about a credential's format; its
// reason says what was found.
const FormatRule = "format "

// gitReport is a refusal of a push in git's own words: every ref is reported
// as rejected, with the reason (gitprotocol-pack(5), "Report Status").
type gitReport struct {
	refs     []string
	sideband bool
	status   bool // the client asked for a report
	reason   string
	d        guard.Decision
}

func (g *gitReport) Error() string { return "push refused by " + g.d.Rule }

func (g *gitReport) write(w nethttp.ResponseWriter) {
	var report bytes.Buffer
	pkt(&report, "unpack ok\n")
	for _, ref := range g.refs {
		pkt(&report, "ng "+ref+" refused by guard\n")
	}
	report.WriteString("0000")
	var body bytes.Buffer
	if g.sideband {
		for line := range strings.SplitSeq(strings.TrimSpace(g.reason), "\n") {
			pkt(&body, "\x02guard: "+line+"\n")
		}
		for b := report.Bytes(); len(b) > 0; {
			n := min(len(b), 900)
			pkt(&body, "\x01"+string(b[:n]))
			b = b[n:]
		}
		body.WriteString("0000")
	} else {
		body = report
	}
	h := w.Header()
	h.Set("Content-Type", "application/x-git-receive-pack-result")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Guard-Decision", "deny")
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(nethttp.StatusOK)
	w.Write(body.Bytes())
}

// maxPkt is the longest pkt-line's text (gitprotocol-common(5)).
const maxPkt = 65516

func pkt(w *bytes.Buffer, s string) {
	s = s[:min(len(s), maxPkt)]
	fmt.Fprintf(w, "%04x%s", len(s)+4, s)
}

// inspectPush judges what a push would send: its commands, and every object of
// its pack. The error is a *gitReport or a *refusal.
func (x *exchange) inspectPush(body *spool) error {
	g := &gitReport{}
	src := body.Reader()
	hash, text, err := g.commands(src)
	if err != nil {
		return unreadablePush("its commands could not be read")
	}
	got, d := whole(x.pushed(pathKind, "a ref name or option"), text)
	if d.Action.Stops() || !bytes.Equal(got, text) {
		return g.refuse(d, "a ref name or option")
	}
	start, _ := src.Seek(0, io.SeekCurrent)
	if start == body.Size() {
		return nil // deletions only, or the probe of an authentication
	}
	p := &pack{src: body, start: start, size: body.Size(), hash: hash}
	refs := shown(strings.Join(g.refs, ","))
	err = p.each(func(kind byte, object string) guard.Filter { return x.pushed(kind, refs+" "+object) })
	var hit *objectHit
	switch {
	case errors.As(err, &hit):
		return g.refuse(hit.d, hit.object)
	case errors.Is(err, errThin):
		return g.thin()
	case errors.Is(err, errTooMany):
		return g.because(guard.Decision{Action: guard.Block, Rule: "uninspectable"},
			fmt.Sprintf("the pack has more than %d objects, so it could not be inspected", maxObjects), "push in steps: git push REMOTE OLDER-COMMIT:refs/heads/BRANCH")
	case err != nil:
		return unreadablePush("its pack could not be read")
	}
	return nil
}

// pushed is the filter of one thing that a push sends: what is known, and what
// has the form of a credential. A tree's own bytes are not looked through for
// forms, since names of objects lie between the names of files; its paths are.
func (x *exchange) pushed(kind byte, what string) guard.Filter {
	o := x.origin()
	o.Path += " " + what
	f := both(x.p.cfg.Open(o), x.foreign(), x.refuseForeign)
	if x.p.cfg.Formats == nil || kind == treeKind {
		return f
	}
	forms := x.p.cfg.Formats(o)
	return func(p []byte, s guard.Step) ([]byte, guard.Decision) {
		out, d := f(p, s)
		if d.Action.Stops() || d.Action == guard.Redact {
			return out, d
		}
		if _, d := forms(p, s); d.Action.Stops() {
			return nil, d
		}
		return out, d
	}
}

func unreadablePush(why string) *refusal {
	return refuse(nethttp.StatusForbidden, "leak", "uninspectable", "the push cannot be inspected: "+why, "run git gc and git fsck, then push again")
}

// refuse says that where (an object, for one) holds what d is about.
func (g *gitReport) refuse(d guard.Decision, where string) error {
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
	return g.because(d, where+" holds "+what, append([]string{"take it out of every commit that is pushed (" + next + "), then push again"}, d.NextSteps...)...)
}

// because refuses the push with a reason and what to do about it.
func (g *gitReport) because(d guard.Decision, reason string, next ...string) error {
	d.Reason, d.NextSteps = reason, next
	g.d = d
	g.reason = "push refused: " + reason + "\nnothing was sent; " + strings.Join(next, "\nor: ")
	if d.Rule != "" {
		g.reason += "\nrule: " + d.Rule
	}
	if !g.status {
		// A client that asks for no report would take this answer for success.
		return &refusal{status: nethttp.StatusForbidden, layer: "leak", credential: d.Secret.Name, d: d}
	}
	return g
}

// thin refuses a pack that cannot be inspected because a part of it is on the
// other side only.
func (g *gitReport) thin() error {
	return g.because(guard.Decision{Action: guard.Block, Rule: "thin-pack"},
		"the pack is thin (it has deltas whose base is not in it), so it could not be inspected", "push again with: git push --no-thin")
}

// commands reads the pkt-lines before the pack: commands, shallow lines, push
// options, a push certificate. It returns the hash's size and the text.
func (g *gitReport) commands(r io.Reader) (hash int, text []byte, err error) {
	hash = 20
	options := false
	for section := 0; ; {
		line, flush, err := readPkt(r)
		if err != nil {
			return 0, nil, err
		}
		if flush {
			section++
			if section == 1 && options {
				continue // a section of push options follows
			}
			return hash, text, nil
		}
		text = append(append(text, line...), '\n')
		if len(text) > 16<<20 {
			return 0, nil, errors.New("too many commands")
		}
		if section > 0 {
			continue
		}
		cmd, caps, has := bytes.Cut(line, []byte{0})
		if has {
			for c := range strings.FieldsSeq(string(caps)) {
				switch {
				case c == "side-band-64k":
					g.sideband = true
				case c == "report-status", c == "report-status-v2":
					g.status = true
				case c == "push-options":
					options = true
				case c == "object-format=sha256":
					hash = 32
				}
			}
		}
		if f := strings.Fields(string(cmd)); len(f) == 3 && len(f[0]) == len(f[1]) {
			g.refs = append(g.refs, f[2])
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

// noThin adds the capability no-thin to what a server tells a pushing client
// (gitprotocol-capabilities(5)): the client then sends whole packs, in which
// every delta's base is there to be inspected.
func noThin(r io.Reader) io.Reader {
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
