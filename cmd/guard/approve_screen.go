package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"guard/approve"
	"guard/supervisor"
)

func (a *approvals) setScreen(over supervisor.Over) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = over
}

// codeLetters are those of codes: none is a key of the question.
const codeLetters = "bcefghjkmnpqrtuvwxyz"

// panel is a question on the screen. Only who reads it can answer: two letters that are new each
// time come before the key.
type panel struct {
	r      approve.Request
	code   string
	typed  string
	more   bool
	answer approve.Answer
	ok     bool
}

func newPanel(r approve.Request) *panel {
	var code []byte
	for len(code) < 2 {
		var b [1]byte
		_, _ = rand.Read(b[:]) // never fails (crypto/rand)
		if n := int(b[0]); n < 256-256%len(codeLetters) {
			code = append(code, codeLetters[n%len(codeLetters)])
		}
	}
	return &panel{r: r, code: string(code)}
}

// draw is what is shown: the keys first, so that no text of the agent's pushes them away.
func (p *panel) draw(rows, cols int) []string {
	out := []string{"guard: a program in the session asks you", ""}
	lasting := p.r.Lasting() && p.r.Profile != profileDaemon
	switch {
	case p.r.Kind == approve.KindAsk && p.r.Missing:
		out = append(out, "  give it the value in another terminal: guard request approve "+p.r.ID)
	case len(p.typed) < len(p.code):
		out = append(out, fmt.Sprintf("  to answer, type the letters  %s  and then a key:", p.code))
	default:
		out = append(out, "  now the key:")
	}
	for _, k := range []struct {
		key, life string
		there     bool
	}{{"o", approve.Once, p.r.Kind != approve.KindAsk}, {"s", approve.Session, p.r.Lasting()}, {"a", approve.Always, lasting}} {
		if k.there && !(p.r.Kind == approve.KindAsk && p.r.Missing) {
			text := "  " + k.key + "  allow " + p.r.Lasts(k.life)
			for len(text) > cols && cols > 20 {
				out, text = append(out, text[:cols]), "     "+text[cols:]
			}
			out = append(out, text)
		}
	}
	out = append(out, "  d  deny, in this session      D  deny always      Ctrl-C  deny      ?  more", "")
	for _, l := range p.r.Lines(time.Now()) {
		if !p.more && (l.Name == "started by" || l.Name == "refused by") {
			continue
		}
		text := fmt.Sprintf("  %-12s %s", l.Name, l.Text)
		for len(text) > cols && cols > 20 {
			out, text = append(out, text[:cols]), fmt.Sprintf("  %-12s %s", "", text[cols:])
		}
		out = append(out, text)
	}
	return out
}

func (p *panel) key(k byte) (done bool) {
	say := func(allow bool, life string) bool {
		p.answer, p.ok = approve.Answer{Allow: allow, Life: life}, true
		return true
	}
	missing := p.r.Kind == approve.KindAsk && p.r.Missing
	switch {
	case k == 3:
		return say(false, approve.Once)
	case k == '?':
		p.more = !p.more
		return false
	case len(p.typed) < len(p.code):
		if p.typed += string(k); p.typed != p.code[:len(p.typed)] {
			p.typed = ""
		}
		return false
	case k == 'd':
		return say(false, approve.Once)
	case k == 'D':
		return say(false, approve.Always)
	case missing:
	case k == 'o' && p.r.Kind != approve.KindAsk:
		return say(true, approve.Once)
	case k == 's' && p.r.Lasting():
		return say(true, approve.Session)
	case k == 'a' && p.r.Lasting() && p.r.Profile != profileDaemon:
		return say(true, approve.Always)
	}
	p.typed = ""
	return false
}

// askOnScreen asks on the session's terminal.
func (s *session) askOnScreen(ctx context.Context, r approve.Request) (approve.Answer, bool) {
	s.approvals.mu.Lock()
	over := s.approvals.over
	s.approvals.mu.Unlock()
	if over == nil {
		return approve.Answer{}, false
	}
	p := newPanel(r)
	if err := over(ctx, p.draw, p.key); err != nil || !p.ok {
		return approve.Answer{}, false
	}
	p.answer.At, p.answer.By = time.Now().UTC(), whoAnswers("the session's terminal")
	return p.answer, true
}
