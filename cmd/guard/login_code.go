package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// callbackPath is where the browser comes back to.
const callbackPath = "/callback"

// codeFlow logs in with a browser: an authorization code with PKCE, to a redirect on
// the loopback (RFC 6749, 4.1; RFC 7636; RFC 8252, 7.3).
func (l *login) codeFlow(ctx context.Context) (tokens, error) {
	if l.meta.Authorize == "" {
		return tokens{}, fmt.Errorf("%s has no login by browser: try --device", l.svc.Title)
	}
	if l.meta.Challenges != nil && !slices.Contains(l.meta.Challenges, "S256") {
		return tokens{}, fmt.Errorf("%s does not take PKCE with S256, without which a code that somebody else sees is enough to log in: try --device", l.svc.Title)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(l.flags.port)))
	if err != nil {
		return tokens{}, fmt.Errorf("wait for the browser: %w; another program has port %d: choose one with --redirect-port", plainError(err), l.flags.port)
	}
	state, nonce, verifier := randomText(), "", randomText()
	if slices.Contains(l.svc.Scopes, "openid") {
		nonce = randomText()
	}
	redirect := "http://" + listener.Addr().String() + callbackPath
	sum := sha256.Sum256([]byte(verifier))
	q := url.Values{
		"response_type": {"code"}, "client_id": {l.id}, "redirect_uri": {redirect}, "state": {state}, "scope": {strings.Join(l.svc.Scopes, " ")},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	if nonce != "" {
		q.Set("nonce", nonce)
	}
	if slices.Contains(l.svc.Scopes, "offline_access") {
		q.Set("prompt", "consent") // OpenID Connect Core, section 11
	}
	for k, v := range l.svc.Extra {
		q.Set(k, v)
	}
	at, err := url.Parse(l.meta.Authorize)
	if err != nil {
		listener.Close()
		return tokens{}, errors.New("its authorization endpoint is no URL")
	}
	if at.RawQuery != "" {
		at.RawQuery += "&"
	}
	at.RawQuery += q.Encode()
	cb := &callback{state: state, issuer: l.meta.Issuer, named: l.meta.NamesSelf, host: hostOfURL(l.meta.Authorize), got: make(chan answer, 1)}
	code, err := cb.await(ctx, listener, func() { l.open(at.String()) })
	if err != nil {
		return tokens{}, err
	}
	return l.exchange(ctx, url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {redirect}, "code_verifier": {verifier}}, nonce)
}

// open shows the address and, where there is one, opens a browser.
func (l *login) open(address string) {
	l.app.say("log in at %s", address)
	if l.flags.noBrowser {
		return
	}
	var argv []string
	switch b := l.app.getenv("BROWSER"); {
	case b != "":
		argv = append(strings.Fields(b), address)
	case runtime.GOOS == "darwin":
		argv = []string{"open", address}
	case runtime.GOOS == "windows":
		argv = []string{"rundll32", "url.dll,FileProtocolHandler", address}
	case l.app.getenv("DISPLAY") != "" || l.app.getenv("WAYLAND_DISPLAY") != "":
		argv = []string{"xdg-open", address}
	default:
		return
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = os.Environ()
	if err := cmd.Start(); err != nil {
		l.app.say("no browser could be opened (%v): open the address yourself", plainError(err))
		return
	}
	_ = cmd.Process.Release() // it is the user's, and may stay
}

// answer is what the browser brought.
type answer struct {
	code string
	err  error
}

// callback is the redirect's end.
type callback struct {
	state, issuer string
	named         bool // the issuer says that it names itself in answers (RFC 9207)
	host          string
	got           chan answer

	mu   sync.Mutex
	done bool
}

// await serves until the browser came back with an answer to this login.
func (cb *callback) await(ctx context.Context, listener net.Listener, started func()) (string, error) {
	server := &http.Server{Handler: http.HandlerFunc(cb.serve), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 32 << 10}
	var wg sync.WaitGroup
	failed := make(chan error, 1)
	wg.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	})
	defer wg.Wait()
	defer func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if server.Shutdown(stop) != nil { // the page goes out first
			server.Close()
		}
	}()
	started()
	select {
	case a := <-cb.got:
		return a.code, a.err
	case err := <-failed:
		return "", fmt.Errorf("wait for the browser: %w", err)
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// serve takes one answer. What is not of this login is refused and forgotten: any
// page that a browser shows can send it here.
func (cb *callback) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	refuse := func(status int, text string) {
		w.WriteHeader(status)
		fmt.Fprintln(w, text)
	}
	if r.Method != http.MethodGet || r.URL.Path != callbackPath {
		refuse(http.StatusNotFound, "guard waits for a login here, and for nothing else.")
		return
	}
	q := r.URL.Query()
	for _, k := range []string{"state", "code", "error", "iss"} {
		if len(q[k]) > 1 {
			refuse(http.StatusBadRequest, "This answer says one thing twice: guard does not take it.")
			return
		}
	}
	if subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(cb.state)) != 1 {
		refuse(http.StatusBadRequest, "This answer is not of the login that guard waits for. Start it from the terminal again.")
		return
	}
	var a answer
	switch iss := q.Get("iss"); {
	case iss == "" && cb.named, iss != "" && cb.issuer != "" && iss != cb.issuer:
		// RFC 9207, section 2.4: an answer of another issuer's would carry its code to this one.
		a.err = fmt.Errorf("the answer to the login does not come from %s but from %s: nothing was sent there", visible(cb.issuer), visible(cmpOr(iss, "nobody that it names")))
	case q.Get("error") != "":
		a.err = &oauthError{host: cb.host, code: q.Get("error"), text: q.Get("error_description")}
	case q.Get("code") == "":
		a.err = fmt.Errorf("%s answered without a code", visible(cb.host))
	default:
		a.code = q.Get("code")
	}
	cb.mu.Lock()
	again := cb.done
	cb.done = true
	cb.mu.Unlock()
	if again {
		refuse(http.StatusGone, "This login is over.")
		return
	}
	if a.err != nil {
		refuse(http.StatusBadRequest, "guard did not log in. The terminal says why.")
	} else {
		refuse(http.StatusOK, "guard has the answer. You can close this page.")
	}
	cb.got <- a
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
