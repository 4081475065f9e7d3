package attack

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

const (
	claimElsewhere = "An adversary who sends a placeholder to a host of its own"
	claimBody      = "An adversary who puts a placeholder into a body, a path or a query, to have the value published"
	claimRepeat    = "An adversary who has the server repeat the value"
	claimUse       = "An adversary who uses a credential that was not allowed"
	claimGuess     = "An adversary who guesses the value from the placeholder"
	claimNothing   = "An adversary who reads the environment, `.env` or a tool's file, with no vault or with one that does not have the value"
)

func placeholderCases() []Case {
	c := func(name, claim string, try func(in *inside) got, judge func(*world, got) got) Case {
		return Case{Name: name, Group: "placeholders", Claim: claim, try: try, judge: func(w *world, g got) got {
			if !w.used.Load() {
				return skip("the rightful use of the credential failed, so that this says nothing")
			}
			return judge(w, g)
		}}
	}
	same := func(_ *world, g got) got { return g }
	notElsewhere := func(name string) func(*world, got) got {
		return func(w *world, g got) got {
			if w.attackerHas(name, w.values["allowed"]) {
				return broke("the adversary's server got the value")
			}
			return g
		}
	}
	published := func(name string) func(*world, got) got {
		return func(w *world, g got) got {
			if w.apiLeaked(name) {
				return broke("the server got the value where it is published")
			}
			return g
		}
	}
	return []Case{
		c("replies", claimRepeat, func(in *inside) got {
			// The rightful use, whose reply says the value in many ways.
			b, status := in.api("GET", "/own/replies", nil, nil)
			if status != http.StatusOK {
				return skip("status %d", status)
			}
			if name := in.known(b); name != "" {
				return broke("the reply has %s", name)
			}
			for word := range strings.FieldsSeq(string(b)) {
				for _, dec := range []func(string) ([]byte, error){base64.StdEncoding.DecodeString, hex.DecodeString} {
					if p, err := dec(word); err == nil && in.known(p) != "" {
						return broke("the reply has the value, encoded")
					}
				}
			}
			return held("the reply has the placeholder (%d bytes)", len(b))
		}, same),
		c("other-host", claimElsewhere, func(in *inside) got {
			return in.post("other-host", nil, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+in.Placeholder) }, "")
		}, notElsewhere("other-host")),
		c("other-host-basic", claimElsewhere, func(in *inside) got {
			return in.post("other-host-basic", nil, func(r *http.Request) { r.SetBasicAuth("x", in.Placeholder) }, "")
		}, notElsewhere("other-host-basic")),
		c("other-host-body", claimElsewhere, func(in *inside) got { return in.post("other-host-body", []byte(in.Placeholder), nil, "") }, notElsewhere("other-host-body")),
		c("body", claimBody, func(in *inside) got {
			_, s := in.api("POST", "/own/body", []byte(`{"body":"`+in.Placeholder+`"}`), nil)
			return held("status %d", s)
		}, published("body")),
		c("query", claimBody, func(in *inside) got {
			_, s := in.api("GET", "/own/query?q="+in.Placeholder, nil, nil)
			return held("status %d", s)
		}, published("query")),
		c("path", claimBody, func(in *inside) got {
			_, s := in.api("GET", "/own/path/"+in.Placeholder, nil, nil)
			return held("status %d", s)
		}, published("path")),
		c("header", claimBody, func(in *inside) got {
			_, s := in.api("GET", "/own/header", nil, func(r *http.Request) { r.Header.Set("X-Meta", in.Placeholder) })
			return held("status %d", s)
		}, published("header")),
		c("not-allowed", claimUse, func(in *inside) got {
			b, s := in.api("GET", "/own/not-allowed", nil, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+in.Other) })
			if name := in.known(b); name != "" {
				return broke("the reply has %s", name)
			}
			return held("status %d", s)
		}, func(w *world, g got) got {
			if w.apiSaw("not-allowed", w.values["stored"]) {
				return broke("the credential was used")
			}
			return g
		}),
		c("guess", claimGuess, func(in *inside) got {
			if in.known([]byte(in.Placeholder)) != "" || in.Placeholder == "" {
				return broke("the placeholder is the value")
			}
			return held("of the value it has the length and the alphabet")
		}, func(w *world, g got) got {
			v := w.values["allowed"]
			for i := 4; i+6 <= len(v); i++ {
				if strings.Contains(w.placeholder, v[i:i+6]) {
					return broke("six bytes of the value are in the placeholder")
				}
			}
			return g
		}),
		{Name: "other-session", Group: "placeholders", Claim: claimUse, tty: true, try: func(in *inside) got {
			_, s := in.api("GET", "/own/other-session", nil, nil)
			return held("in a session that does not allow it: status %d", s)
		}, judge: func(w *world, g got) got {
			if w.apiSaw("other-session", w.values["allowed"]) {
				return broke("the placeholder worked in a session that was not allowed it")
			}
			return g
		}},
		{Name: "after-session", Group: "placeholders", Claim: claimElsewhere, try: func(in *inside) got { return held("carried out") }, judge: func(w *world, g got) got {
			client := w.client()
			r, err := http.NewRequest("GET", fmt.Sprintf("https://127.0.0.1:%d/own/after-session", w.apiPort), nil)
			if err != nil {
				return skip("%v", err)
			}
			r.Header.Set("Authorization", "Bearer "+w.placeholder)
			resp, err := client.Do(r)
			if err != nil {
				return skip("%v", err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized {
				return broke("the placeholder is worth something without guard")
			}
			return held("outside of a session the placeholder is refused by the server")
		}},
		{Name: "found-values", Group: "placeholders", Claim: claimNothing, try: func(in *inside) got { return in.noFile(in.Project + "/config") }},
	}
}

// api asks the credential's host with the placeholder, and returns the reply.
func (in *inside) api(method, path string, body []byte, change func(*http.Request)) (reply []byte, status int) {
	for _, way := range in.ways("") {
		if way == "loopback" {
			continue
		}
		r, err := http.NewRequest(method, "https://"+in.APIHost+path, bytes.NewReader(body))
		if err != nil {
			return nil, 0
		}
		r.Header.Set("Authorization", "Bearer "+in.Placeholder)
		r.Header.Set("User-Agent", url.PathEscape(in.Boundary))
		if change != nil {
			change(r)
		}
		resp, err := in.clientFor(way).Do(r)
		if err != nil {
			continue
		}
		reply, _ = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		for k, v := range resp.Header {
			reply = append(reply, fmt.Sprintf("\n%s: %s", k, v)...)
		}
		resp.Body.Close()
		return reply, resp.StatusCode
	}
	return nil, 0
}
