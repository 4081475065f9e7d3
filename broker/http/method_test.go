package http

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"guard/internal/testutil"
	"io"
	nethttp "net/http"
	"strings"
	"testing"

	"guard"
)

// A method is the first word of a request: what it holds leaves with it.
func TestMethodsAreInspected(t *testing.T) {
	e := newEnv(t)
	e.action = guard.Block
	s := &seen{}
	e.upstream("web.test", 443, s)
	e.upstream("plain.test", 80, s)
	short := "SESAME-OPEN-NOW" // a value that could be a method
	open := e.proxy.cfg.Open
	e.proxy.cfg.Open = func(o guard.Origin) guard.Filter {
		if strings.Contains(o.Method, short) || strings.Contains(o.Method, canary) {
			t.Errorf("a record would name %q", o.Method)
		}
		a, b := open(o), search(guard.Block, map[string]string{short: "", strings.ToLower(short) + "x": ""}, nil)
		return func(p []byte, st guard.Step) ([]byte, guard.Decision) {
			if out, d := b(p, st); d.Action.Stops() {
				return out, d
			}
			return a(p, st)
		}
	}
	for _, tt := range []struct {
		method string
		status int
	}{
		{canary, 501}, {tokenValue, 501}, {tokenPlaceholder, 501}, {strings.ToUpper(canary), 501}, {"get", 501}, {"Purge", 501},
		{"A%41", 501}, {strings.Repeat("A", 17), 501}, {"A_B", 501}, {"PRI", 200}, {short, 403}, {short + "X", 403},
		{"PURGE", 200}, {"M-SEARCH", 200}, {"PATCH", 200}, {"PROPFIND", 200}, {"UPDATEREDIRECTREF", 200}, {"QUERY", 200}, {"TRACE", 405},
	} {
		for _, h2 := range []bool{false, true} {
			if tt.method == "PRI" && h2 {
				continue
			}
			n := s.completed()
			res, body := do(t, e.client("web.test", 443, h2), tt.method, "https://web.test/", nil)
			switch tt.status {
			case 200:
				if r, _ := s.last(); res.StatusCode != 200 || r.Method != tt.method {
					t.Errorf("%s, h2 %v: %d, upstream got %q", tt.method, h2, res.StatusCode, r.Method)
				}
				continue
			case 403:
				wantDenied(t, res, body, 403, "leak", "test-leak")
			default:
				wantDenied(t, res, body, tt.status, "protocol", "method")
			}
			if s.completed() != n || tt.status != 405 && strings.Contains(body, tt.method) {
				t.Errorf("%s, h2 %v: arrived, or is quoted: %s", tt.method, h2, body)
			}
		}
		if got := e.raw("plain.test", 80, tt.method+" / HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, fmt.Sprintf("HTTP/1.1 %d ", tt.status)) && tt.method != "PRI" {
			t.Errorf("%s over plain http: %.40q", tt.method, got)
		}
	}
}

func TestHeaderNamesAreInspected(t *testing.T) {
	e := newEnv(t)
	s := &seen{}
	e.upstream("web.test", 443, s)
	for _, h2 := range []bool{false, true} {
		c := e.client("web.test", 443, h2)
		for name, rule := range map[string]string{
			"X-" + strings.Repeat("a", 63):                    "header-name",
			tokenValue:                                        "header-name",
			"X-" + strings.ToUpper(canary):                    "test-leak",
			tokenPlaceholder[4:]:                              "header-name",
			"X-Amz-Server-Side-Encryption-Customer-Key-Md5":   "",
			"X-" + strings.Repeat("abcdefghij-", 5) + "-1-ok": "",
		} {
			res, body := do(t, c, "GET", "https://web.test/", nil, name, "1")
			switch rule {
			case "":
				if res.StatusCode != 200 {
					t.Errorf("%s: %d %s", name, res.StatusCode, body)
				}
			case "test-leak":
				wantDenied(t, res, body, 403, "leak", rule)
			default:
				wantDenied(t, res, body, 400, "protocol", rule)
			}
		}
		// A placeholder is found whatever became of its case.
		e.creds = append(e.creds, guard.Credential{Name: "named", Context: "default", Version: 1, Hosts: []string{"api.test"}, Placeholder: "PlaceHolder-Word"})
		res, body := do(t, c, "GET", "https://web.test/", nil, "x-placeholder-word", "1")
		wantDenied(t, res, body, 403, "credential", "placeholder-host")
	}
	r, _ := nethttp.NewRequest("POST", "https://web.test/", &slowReader{parts: []string{"abc"}})
	r.Trailer = nethttp.Header{tokenValue: {"1"}}
	res, err := e.client("web.test", 443, false).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	if res.StatusCode == 200 {
		t.Errorf("a value as a trailer's name: %d %s", res.StatusCode, b)
	}
}

// The words that git shows say how to push so that it can be inspected.
func TestThinPushIsReported(t *testing.T) {
	e := newEnv(t)
	s := &seen{}
	e.upstream("code.git.test", 443, s)
	p := &testutil.Packfile{}
	// Three letters of a base that only the other side has.
	d := append(binary.AppendUvarint(binary.AppendUvarint(nil, 256), 3), 0x91, 'a', 1, 0x91, 'b', 1, 0x91, 'c', 1)
	p.Add(7, bytes.Repeat([]byte{9}, 20), d, len(d))
	var body bytes.Buffer
	zero := strings.Repeat("0", 40)
	line := zero + " " + strings.Repeat("1", 40) + " refs/heads/main\x00 report-status side-band-64k"
	fmt.Fprintf(&body, "%04x%s", len(line)+4, line)
	body.WriteString("0000")
	body.Write(p.Whole())
	res, got := do(t, e.client("code.git.test", 443, false), "POST", "https://code.git.test/o/r.git/git-receive-pack", &body, "Content-Type", pushType)
	if res.StatusCode != 200 || res.Header.Get("X-Guard-Decision") != "deny" || !strings.Contains(got, "git push --no-thin") || !strings.Contains(got, "ng refs/heads/main refused by guard") {
		t.Errorf("%d %q", res.StatusCode, got)
	}
	if s.completed() > 0 {
		t.Error("it arrived")
	}
}
