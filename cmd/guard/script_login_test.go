//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"guard/internal/testutil"
)

// oidc NAME LIFE: node's oidc-provider as https://NAME, whose access tokens live LIFE
// seconds. $OIDC_PORT is its port. Every token that it gives out is a canary.
func cmdOIDC(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "oidc NAME LIFE")
	s := stateOf(ts)
	program, err := filepath.Abs("testdata/oidc.mjs")
	ts.Check(err)
	cmd := exec.Command("node", program, "https://"+args[0], args[1])
	cmd.Env = append(os.Environ(), "CLIENTS="+ts.Getenv("CLIENTS"), "NODE_NO_WARNINGS=1")
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	var words bytes.Buffer
	cmd.Stderr = &words
	ts.Check(cmd.Start())
	s.t.T.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	port := ""
	for port == "" && lines.Scan() {
		if t := strings.TrimSpace(lines.Text()); regexp.MustCompile(`^[0-9]+$`).MatchString(t) {
			port = t
		}
	}
	if port == "" {
		_ = cmd.Wait()
		ts.Fatalf("oidc-provider did not start: %s", words.String())
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "127.0.0.1:" + port})
	proxy.Rewrite, proxy.Director = func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", "127.0.0.1:"+port, args[0]
		r.Out.Header.Set("X-Forwarded-Proto", "https")
		r.Out.Header.Set("X-Forwarded-Host", args[0])
		r.Out.Header.Del("Accept-Encoding")
	}, nil
	proxy.Transport = &http.Transport{DisableKeepAlives: true}
	proxy.ModifyResponse = func(r *http.Response) error {
		if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
			return nil
		}
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		var m map[string]any
		if json.Unmarshal(b, &m) == nil {
			for _, k := range []string{"access_token", "refresh_token", "id_token", "device_code"} {
				if v, ok := m[k].(string); ok {
					s.t.plant("TOKEN", v)
				}
			}
			if m["device_code"] != nil {
				m["interval"] = 1 // the test's time
			}
			if b, err = json.Marshal(m); err != nil {
				return err
			}
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
		r.Header.Set("Content-Length", fmt.Sprint(len(b)))
		return nil
	}
	ts.Setenv("OIDC_PORT", portOf(testutil.HTTPSServer(s.t.T, authority(ts, s), proxy, args[0]).URL))
}

// browseProgram is a user agent without a screen: it follows the pages of the address it
// is given, logs in where it is asked to, and goes back to where it is sent. $BROWSE
// changes what it does:
//
//	deny        takes the way out instead of agreeing
//	stop        asks for the page, and goes no further
//	strangers   first brings answers that are not of this login
//	mixup       says that the answer comes from another issuer
//	replay      brings the answer twice
//
// What happened is in $BROWSE_LOG, a line a step.
func browseProgram() {
	log, err := os.OpenFile(os.Getenv("BROWSE_LOG"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	defer log.Close()
	b := &browser{log: log, mode: os.Getenv("BROWSE")}
	if err := b.open(os.Args[len(os.Args)-1]); err != nil {
		fmt.Fprintln(log, "failed:", err)
		os.Exit(1)
	}
	fmt.Fprintln(log, "done")
}

type browser struct {
	log    io.Writer
	mode   string
	client *http.Client
}

var (
	formTag  = regexp.MustCompile(`(?s)<form([^>]*)>(.*?)</form>`)
	inputTag = regexp.MustCompile(`<(?:input|button)[^>]*>`)
	attr     = regexp.MustCompile(`([a-z]+)="([^"]*)"`)
	abort    = regexp.MustCompile(`href="([^"]*/abort)"`)
)

func attrs(tag string) map[string]string {
	out := map[string]string{}
	for _, m := range attr.FindAllStringSubmatch(tag, -1) {
		out[m[1]] = html.UnescapeString(m[2])
	}
	return out
}

func (b *browser) open(address string) error {
	pem, err := os.ReadFile(os.Getenv("CA"))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	var d net.Dialer
	b.client = &http.Client{Jar: jar, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if strings.HasSuffix(addr, ".example.com:443") {
				addr = "127.0.0.1:" + os.Getenv("OIDC_PORT")
			}
			return d.DialContext(ctx, network, addr)
		},
	}, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if r.URL.Hostname() == "127.0.0.1" {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	resp, err := b.client.Get(address)
	for range 12 {
		if err != nil {
			return err
		}
		page, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return err
		}
		if to, err := resp.Location(); err == nil {
			return b.back(to)
		}
		if b.mode == "stop" {
			return nil
		}
		next, err := b.answer(resp.Request.URL, string(page))
		if err != nil {
			return fmt.Errorf("%s answered %d: %w", resp.Request.URL.Path, resp.StatusCode, err)
		}
		if next == nil {
			return nil
		}
		resp, err = b.client.Do(next)
		if err != nil {
			return err
		}
	}
	return errors.New("the pages have no end")
}

// answer is what the user does on a page; nil: there is nothing to do.
func (b *browser) answer(at *url.URL, page string) (*http.Request, error) {
	if m := abort.FindStringSubmatch(page); m != nil && b.mode == "deny" {
		to, err := at.Parse(html.UnescapeString(m[1]))
		if err != nil {
			return nil, err
		}
		fmt.Fprintln(b.log, "took the way out")
		return http.NewRequest(http.MethodGet, to.String(), nil)
	}
	m := formTag.FindStringSubmatch(page)
	if m == nil {
		if strings.Contains(page, "error") {
			return nil, errors.New("there is no form on a page that speaks of an error")
		}
		return nil, nil
	}
	to, err := at.Parse(attrs(m[1])["action"])
	if err != nil {
		return nil, err
	}
	form := url.Values{}
	for _, tag := range inputTag.FindAllString(m[2], -1) {
		if a := attrs(tag); a["name"] != "" {
			form.Set(a["name"], a["value"])
		}
	}
	if b.mode == "deny" && strings.Contains(page, `name="abort"`) {
		form.Set("abort", "yes")
		fmt.Fprintln(b.log, "took the way out")
	}
	for k, v := range map[string]string{"login": "somebody", "password": "anything"} {
		if _, asked := form[k]; asked {
			form.Set(k, v)
		}
	}
	r, err := http.NewRequest(http.MethodPost, to.String(), strings.NewReader(form.Encode()))
	if err == nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return r, err
}

// back goes to the redirect on the loopback.
func (b *browser) back(to *url.URL) error {
	get := func(what string, change func(q url.Values)) {
		u := *to
		q := u.Query()
		if change != nil {
			change(q)
		}
		u.RawQuery = q.Encode()
		resp, err := b.client.Get(u.String())
		if err != nil {
			fmt.Fprintf(b.log, "%s: nobody there\n", what)
			return
		}
		resp.Body.Close()
		fmt.Fprintf(b.log, "%s: %d\n", what, resp.StatusCode)
	}
	switch b.mode {
	case "strangers":
		get("guessed state", func(q url.Values) { q.Set("state", "guessed") })
		get("no state", func(q url.Values) { q.Del("state") })
		get("two codes", func(q url.Values) { q.Add("code", "another") })
	case "mixup":
		get("mixed up", func(q url.Values) { q.Set("iss", "https://evil.example.com") })
		return nil
	}
	get("answer", nil)
	if b.mode == "replay" {
		get("again", nil)
	}
	return nil
}
