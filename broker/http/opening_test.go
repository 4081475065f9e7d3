package http

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	nethttp "net/http"
	"net/url"
	"strings"
	"testing"

	"guard"
	"guard/matcher"
)

// masking is a filter that masks what m finds, and lets go of what is safe.
func masking(m *matcher.Matcher) guard.Filter {
	st := m.Stream()
	var held []byte
	var at int64
	return func(p []byte, s guard.Step) ([]byte, guard.Decision) {
		held = append(held, p...)
		hits, safe := st.Write(p)
		if s == guard.End {
			hits, safe = append(hits, st.Close()...), at+int64(len(held))
		}
		d := guard.Decision{Action: guard.Pass}
		for _, h := range hits {
			d.Action = guard.Redact
			for i := max(h.Start, at); i < h.End; i++ {
				held[i-at] = '*'
			}
		}
		n := safe - at
		out := bytes.Clone(held[:n])
		held, at = held[n:], safe
		return out, d
	}
}

// encoded is v in forms that a head may hold it in.
func encoded(v string) map[string]string {
	var numbers, escaped, percent strings.Builder
	for i := range len(v) {
		fmt.Fprintf(&numbers, "%d, ", v[i])
		fmt.Fprintf(&escaped, `\u%04x`, v[i])
		fmt.Fprintf(&percent, "%%%02X", v[i])
	}
	return map[string]string{
		"raw": v, "base64": base64.StdEncoding.EncodeToString([]byte(v)), "base64url": base64.RawURLEncoding.EncodeToString([]byte("user:" + v)),
		"hex": hex.EncodeToString([]byte(v)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(v))), "numbers": numbers.String(), "escaped": escaped.String(),
		"percent": percent.String(), "twice": base64.StdEncoding.EncodeToString([]byte(hex.EncodeToString([]byte(v)))), "query": "a=" + url.QueryEscape(v) + "&b=2",
		"escape after": v + "\\", "percent after": v + "%4", "part of base64 after": v + "QUJD", "cut line": v[:20] + " \\",
	}
}

// TestHeadsFilterGoesOn looks for a value in a head and in the body behind it, in
// every form and at places where something is held back: whatever the head ends in,
// all of it is masked before the head goes on, what comes next is judged as if it
// was alone, and halves on both sides are none.
func TestHeadsFilterGoesOn(t *testing.T) {
	v := "gh" + "p_" + strings.Repeat("aB3xK9", 6)
	m, err := matcher.New([]guard.Value{{ID: guard.SecretID{Name: "v", Version: 1}, Secret: guard.NewSecret([]byte(v))}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	pass := func(f guard.Filter, b string) string {
		out, d := whole(f, []byte(b))
		if d.Action.Stops() {
			t.Fatalf("stopped: %s", d.Reason)
		}
		return string(out)
	}
	forms := encoded(v)
	forms["none"] = "nothing of it"
	for i := range len(v) {
		forms[fmt.Sprintf("first %d", i)] = v[:i]
	}
	shared := 0
	for hn, h := range forms {
		for _, end := range []string{"\n", "", " \n", "\r\n"} {
			head := "content-type\ntext/plain\nx-value\n" + h + end
			alone := pass(masking(m), head)
			out, rest, d := opening(masking(m), []byte(head))
			if string(out) != alone || d.Action.Stops() {
				t.Fatalf("%s, %q: the head goes on as %q, alone as %q", hn, end, out, alone)
			}
			if rest == nil {
				continue
			}
			shared++
			for bn, b := range map[string]string{"second half": v[len(v)/2:], "all": v, "all, hex": forms["hex"], "its last bytes": v[3:] + "\n", "none": "ok"} {
				_, rest, _ := opening(masking(m), []byte(head))
				if got, want := pass(rest, b), pass(masking(m), b); got != want {
					t.Errorf("%s, %q, then %s: the body goes on as %q, alone as %q", hn, end, bn, got, want)
				}
			}
		}
	}
	if shared < 8 {
		t.Errorf("only %d heads gave their filter on", shared)
	}
}

// TestRequestsAreApart sends halves of a value in requests that follow each other on
// one connection, and then all of it: halves are no leak here, all of it is found
// whatever came before, also after requests that ended in the middle.
func TestRequestsAreApart(t *testing.T) {
	e := newEnv(t)
	e.upstream("api.test", 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		b, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/half": // of another value, as the end of a reply
			io.WriteString(w, tokenValue[:len(tokenValue)/2])
		case "/rest":
			io.WriteString(w, tokenValue[len(tokenValue)/2:])
		case "/all":
			w.Header().Set("X-All", tokenValue)
			io.WriteString(w, "is "+tokenValue)
		case "/abort":
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, tokenValue[:len(tokenValue)/2])
			w.(nethttp.Flusher).Flush()
			panic(nethttp.ErrAbortHandler)
		default:
			fmt.Fprint(w, len(b))
		}
	}))
	for _, h2 := range []bool{false, true} {
		c := e.client("api.test", 443, h2)
		half := len(tokenValue) / 2
		for round := range 3 {
			for i, body := range []string{"x=" + canary[:len(canary)/2], canary[len(canary)/2:] + "&y=1"} {
				if res, text := do(t, c, "POST", "https://api.test/", strings.NewReader(body)); res.StatusCode != 200 {
					t.Errorf("round %d: half %d alone is refused: %d %s", round, i, res.StatusCode, text)
				}
			}
			if res, text := do(t, c, "POST", "https://api.test/", strings.NewReader("x="+canary)); res.StatusCode != 403 {
				t.Errorf("round %d: all of it passes: %d %s", round, res.StatusCode, text)
			}
			if res, _ := do(t, c, "GET", "https://api.test/", nil, "X-Value", canary); res.StatusCode != 403 {
				t.Errorf("round %d: all of it passes in a header: %d", round, res.StatusCode)
			}
			if res, err := c.Get("https://api.test/abort"); err == nil {
				if b, err := io.ReadAll(res.Body); err == nil {
					t.Errorf("an aborted reply ends well: %q", b)
				}
				res.Body.Close()
			}
			if _, text := do(t, c, "GET", "https://api.test/half", nil); strings.Contains(text, tokenValue[:8]) {
				t.Errorf("round %d: the beginning of a value in a reply: %q", round, text)
			}
			if _, text := do(t, c, "GET", "https://api.test/rest", nil); text != tokenValue[half:] {
				t.Errorf("round %d: a second half was taken for the end of a value: %q", round, text)
			}
			res, text := do(t, c, "GET", "https://api.test/all", nil)
			if strings.Contains(text, tokenValue) || res.Header.Get("X-All") == tokenValue {
				t.Errorf("round %d: a value in a reply: %q, %q", round, text, res.Header.Get("X-All"))
			}
		}
	}
}
