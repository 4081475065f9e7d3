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
	if g.status {
		pkt(&report, "unpack ok\n")
		for _, ref := range g.refs {
			pkt(&report, "ng "+ref+" refused by guard\n")
		}
		report.WriteString("0000")
	}
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

func pkt(w *bytes.Buffer, s string) { fmt.Fprintf(w, "%04x%s", len(s)+4, s) }

// inspectPush judges what a push would send: its commands, and every object of
// its pack. The error is a *gitReport or a *refusal.
func (x *exchange) inspectPush(body *spool) error {
	g := &gitReport{}
	src := body.Reader()
	hash, text, err := g.commands(src)
	if err != nil {
		return unreadablePush("its commands could not be read")
	}
	got, d := whole(x.filter(), text)
	if d.Action.Stops() || !bytes.Equal(got, text) {
		return g.refuse(d, "a ref name or option")
	}
	start, _ := src.Seek(0, io.SeekCurrent)
	if start == body.Size() {
		return nil // deletions only, or the probe of an authentication
	}
	p := &pack{src: body, start: start, hash: hash}
	err = p.each(func(object string) guard.Filter {
		o := x.origin()
		o.Path += " " + strings.Join(g.refs, ",") + " " + object
		return both(x.p.cfg.Open(o), x.foreign(), x.refuseForeign)
	})
	var hit *objectHit
	switch {
	case errors.As(err, &hit):
		return g.refuse(hit.d, hit.object)
	case errors.Is(err, errThin):
		return g.thin()
	case err != nil:
		return unreadablePush("its pack could not be read")
	}
	return nil
}

func unreadablePush(why string) *refusal {
	return refuse(nethttp.StatusForbidden, "leak", "uninspectable", "the push cannot be inspected: "+why, "run git gc and git fsck, then push again")
}

func (g *gitReport) refuse(d guard.Decision, where string) error {
	g.d = d
	what := "a secret"
	if d.Secret.Name != "" {
		what = "the credential " + d.Secret.Name
	}
	g.reason = fmt.Sprintf("push refused: %s holds %s\nnothing was sent; take it out of every commit (git rebase, git commit --amend), then push again", where, what)
	if d.Rule != "" {
		g.reason += "\nrule: " + d.Rule
	}
	return g
}

// thin refuses a pack that cannot be inspected because a part of it is on the
// other side only.
func (g *gitReport) thin() error {
	g.d = guard.Decision{Action: guard.Block, Rule: "thin-pack", Reason: "the pack is thin: it has deltas whose base is not in it", NextSteps: []string{"git push --no-thin"}}
	g.reason = "push refused: the pack is thin (it has deltas whose base is not in it), so it could not be inspected\nnothing was sent; push again with: git push --no-thin\nrule: " + g.d.Rule
	return g
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
