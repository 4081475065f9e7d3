package http

import (
	"errors"
	"io"
	nethttp "net/http"
	"strconv"

	"guard"
	"guard/broker/pack"
)

// gitReport is a refusal of a push in git's own words.
type gitReport struct{ *pack.Report }

func (g *gitReport) write(w nethttp.ResponseWriter) {
	body := g.Body()
	h := w.Header()
	h.Set("Content-Type", "application/x-git-receive-pack-result")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Guard-Decision", "deny")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(nethttp.StatusOK)
	w.Write(body)
}

// inspectPush judges what a push would send: its commands, and every object of
// its pack. The error is a *gitReport or a *refusal.
func (x *exchange) inspectPush(body *pack.Spool) error {
	src := body.Reader()
	p, err := pack.ReadPush(src)
	if err != nil {
		return unreadablePush("the push cannot be inspected: its commands could not be read")
	}
	start, _ := src.Seek(0, io.SeekCurrent)
	err = p.Judge(body, start, x.pushed)
	var report *pack.Report
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &report):
		return unreadablePush(err.Error())
	case !p.Status:
		// A client that asks for no report would take one for success.
		return &refusal{status: nethttp.StatusForbidden, layer: "leak", credential: report.Decision.Secret.Name, d: report.Decision}
	}
	return &gitReport{report}
}

// pushed is the filter of one thing that a push sends: what is known, and what
// has the form of a credential. A tree's own bytes are not looked through for
// forms, since names of objects lie between the names of files; its paths are.
func (x *exchange) pushed(kind byte, what string) guard.Filter {
	o := x.origin()
	o.Path += " " + what
	f := both(x.p.cfg.Open(o), x.foreign(), x.refuseForeign)
	if x.p.cfg.Formats == nil || kind == pack.TreeKind {
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
	return refuse(nethttp.StatusForbidden, "leak", "uninspectable", why, "run git gc and git fsck, then push again")
}
