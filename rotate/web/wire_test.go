package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"guard"
	"guard/rotate"
	"guard/rotate/rotatetest"
)

// wire is an issuer on loopback: it speaks as its documentation says, and misbehaves
// as its knobs say.
type wire struct {
	*httptest.Server
	mu   sync.Mutex
	all  []*issued
	n    int
	log  bytes.Buffer // method, path and query of what was asked
	hits []string     // "METHOD /path"

	// The knobs.
	newFails time.Duration                                 // a new value is not accepted for so long
	oldWorks time.Duration                                 // a revoked one is, for so long
	lie      bool                                          // a deletion is answered, and nothing is deleted
	drop     func(*http.Request) bool                      // it is done, and the connection breaks
	broken   func(*http.Request) bool                      // it is done, and 500 is answered
	slow     int                                           // so many requests are answered 429 with Retry-After: 0
	skew     time.Duration                                 // of its clock
	quota    int                                           // values that may live at a time; 0: any number
	refuse   bool                                          // it makes no more values
	page     int                                           // entries in a page; 0: all
	reuse    func(t *issued)                               // told of a value that is shown after its end
	answer   func(http.ResponseWriter, *http.Request) bool // answers instead
}

// issued is one value.
type issued struct {
	id, name, value, owner, extra string
	created, ended                time.Time
	idle, gone                    bool
	used                          bool
}

// serve starts one that answers with h, which is called one request at a time.
func serve(t *testing.T, h func(*wire, http.ResponseWriter, *http.Request)) *wire {
	t.Helper()
	w := &wire{}
	if os.Getenv("GUARD_ROTATETEST_CHILD") != "" {
		return w // a child attaches to its parent's
	}
	w.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		defer w.mu.Unlock()
		fmt.Fprintln(&w.log, r.Method, r.URL.RequestURI())
		w.hits = append(w.hits, r.Method+" "+r.URL.Path)
		rec := httptest.NewRecorder()
		rec.Header().Set("Date", time.Now().Add(w.skew).UTC().Format(http.TimeFormat))
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		switch {
		case w.slow > 0:
			w.slow--
			rec.Header().Set("Retry-After", "0")
			rec.WriteHeader(http.StatusTooManyRequests)
		case w.answer != nil && w.answer(rec, r):
		default:
			h(w, rec, r)
			r.Body = io.NopCloser(bytes.NewReader(body))
			if w.drop != nil && w.drop(r) {
				w.drop = nil
				if c, _, err := rw.(http.Hijacker).Hijack(); err == nil {
					c.Close()
				}
				return
			}
			if w.broken != nil && w.broken(r) {
				w.broken = nil
				rw.WriteHeader(http.StatusInternalServerError)
				return
			}
		}
		for k, v := range rec.Header() {
			rw.Header()[k] = v
		}
		rw.WriteHeader(rec.Code)
		rw.Write(rec.Body.Bytes())
	}))
	t.Cleanup(w.Close)
	return w
}

func (w *wire) host() string { return strings.TrimPrefix(w.URL, "http://") }

// give makes a value.
func (w *wire) give(owner, name, value string) *issued {
	w.n++
	v := &issued{id: fmt.Sprint(1000 + w.n), name: name, value: value, owner: owner, created: time.Now()}
	w.all = append(w.all, v)
	return v
}

// full says whether no more values may be made for owner.
func (w *wire) full(owner string) bool {
	return w.refuse || w.quota > 0 && len(w.of(owner)) >= w.quota
}

// of are the values of an owner that are listed.
func (w *wire) of(owner string) []*issued {
	var out []*issued
	for _, v := range w.all {
		if v.owner == owner && !v.gone {
			out = append(out, v)
		}
	}
	return out
}

func (w *wire) byID(id string) *issued {
	for _, v := range w.all {
		if v.id == id && !v.gone {
			return v
		}
	}
	return nil
}

// end revokes a value; it says whether there was one.
func (w *wire) end(v *issued) bool {
	if v == nil {
		return false
	}
	if !w.lie {
		v.gone = true
		if v.ended.IsZero() {
			v.ended = time.Now()
		}
	}
	return true
}

// live finds a value that is accepted now.
func (w *wire) live(value string) *issued {
	for _, v := range w.all {
		if v.value != value || value == "" {
			continue
		}
		over := v.gone || v.idle
		switch {
		case over && time.Since(v.ended) < w.oldWorks:
		case over:
			if w.reuse != nil {
				w.reuse(v)
			}
			return nil
		case v.name != "first" && time.Since(v.created) < w.newFails:
			return nil
		}
		return v
	}
	return nil
}

// paged is one page of vs, and what the next one is called.
func (w *wire) paged(vs []*issued, page string) ([]*issued, string) {
	if w.page == 0 {
		return vs, ""
	}
	n := 0
	fmt.Sscan(page, &n)
	n = max(n, 1)
	from, to := min((n-1)*w.page, len(vs)), min(n*w.page, len(vs))
	if to < len(vs) {
		return vs[from:to], fmt.Sprint(n + 1)
	}
	return vs[from:to], ""
}

func (w *wire) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// living are the values of owner that are accepted.
func (w *wire) living(owner string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, v := range w.of(owner) {
		if !v.idle {
			out = append(out, v.value)
		}
	}
	return out
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if v != nil {
		json.NewEncoder(w).Encode(v)
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// rand is a value as issuers make them.
func (w *wire) rand(prefix string) string {
	return prefix + string(rotate.NewPassword(36).Reveal())
}

// theIssuer describes one fake to the conformance suite.
type theIssuer struct {
	name     string
	provider rotate.Provider
	wire     *wire
	spec     string // options; URL is the issuer's
	kind     string
	user     string
	first    func(owner string) string // makes the first value
	others   []rotatetest.Other
	// try asks the issuer at url itself.
	try func(url, owner, value string) (*http.Response, error)
	// refused reads a status; nil: 401.
	refused func(status int) bool
	// orphans says that a value whose answer was lost cannot be found again.
	orphans    bool
	credential func(c *guard.Credential, owner string)
}

type wireState struct{ URL, Owner string }

// open makes a new owner with one value, at the fake.
func (i theIssuer) open() rotatetest.Open {
	return func(tb testing.TB, attach string) rotatetest.Fixture {
		tb.Helper()
		var st wireState
		value := ""
		if attach != "" {
			must(tb, json.Unmarshal([]byte(attach), &st))
		} else {
			i.wire.set(func() {
				i.wire.n++
				st = wireState{i.wire.URL, fmt.Sprint(i.wire.n)}
				value = i.first(st.Owner)
			})
			tb.Cleanup(func() {
				if n := len(i.wire.living(st.Owner)); n != 1 && !i.orphans && !tb.Failed() {
					tb.Errorf("%d values live at the issuer, want 1", n)
				}
			})
		}
		spec := strings.NewReplacer("URL", st.URL, "OWNER", st.Owner).Replace(i.spec)
		hosts := []string{strings.TrimPrefix(st.URL, "http://")}
		kind := i.kind
		if kind == "" {
			kind = "generic"
		}
		b, err := json.Marshal(st)
		must(tb, err)
		var others []rotatetest.Other
		for _, o := range i.others {
			o.Credential.Hosts = hosts
			others = append(others, o)
		}
		cred := guard.Credential{Name: "token", Kind: kind, Hosts: hosts, User: i.user, Rotate: i.name + "," + spec}
		if i.credential != nil {
			i.credential(&cred, st.Owner)
		}
		return rotatetest.Fixture{
			Name: i.name, Provider: i.provider, Value: value, State: string(b), Others: others,
			Credential: cred,
			Login: func(v string) error {
				res, err := i.try(st.URL, st.Owner, v)
				if err != nil {
					return err
				}
				res.Body.Close()
				switch {
				case i.refused != nil && i.refused(res.StatusCode), i.refused == nil && res.StatusCode == http.StatusUnauthorized:
					return rotate.ErrRefused
				case res.StatusCode == http.StatusOK:
					return nil
				}
				return fmt.Errorf("status %d", res.StatusCode)
			},
			Lock: func() (func(), error) {
				i.wire.set(func() { i.wire.refuse = true })
				return func() { i.wire.set(func() { i.wire.refuse = false }) }, nil
			},
			Logs: func() []byte {
				i.wire.mu.Lock()
				defer i.wire.mu.Unlock()
				return bytes.Clone(i.wire.log.Bytes())
			},
		}
	}
}

// tryWith asks url+path with a header.
func tryWith(method, path, header, prefix string) func(url, owner, value string) (*http.Response, error) {
	return func(url, _, value string) (*http.Response, error) {
		r, err := http.NewRequest(method, url+path, nil)
		if err != nil {
			return nil, err
		}
		r.Header.Set(header, prefix+value)
		return http.DefaultClient.Do(r)
	}
}

// knobs turns each knob and rotates in both orders: the invariant holds each time.
func knobs(t *testing.T, i theIssuer) {
	t.Helper()
	post := func(r *http.Request) bool { return r.Method == http.MethodPost }
	action := func(r *http.Request) string { _ = r.ParseForm(); return r.PostForm.Get("Action") }
	created := func(r *http.Request) bool {
		if a := action(r); a != "" {
			return a == "CreateAccessKey" || a == "AssumeRole"
		}
		return post(r) && (strings.Contains(r.URL.Path, "token") || strings.Contains(r.URL.Path, "key") || strings.Contains(strings.ToLower(r.URL.Path), "password"))
	}
	deleted := func(r *http.Request) bool {
		a := action(r)
		return r.Method == http.MethodDelete || a == "DeleteAccessKey" || a == "UpdateAccessKey" || a == "PutRolePolicy" || strings.HasSuffix(r.URL.Path, "removePassword")
	}
	for name, turn := range map[string]func(w *wire){
		"a new value takes a while":   func(w *wire) { w.newFails = 60 * time.Millisecond },
		"an old value takes a while":  func(w *wire) { w.oldWorks = 60 * time.Millisecond },
		"both":                        func(w *wire) { w.newFails, w.oldWorks = 40*time.Millisecond, 60*time.Millisecond },
		"its answer is lost":          func(w *wire) { w.drop = created },
		"500 after it was made":       func(w *wire) { w.broken = created },
		"the deletion's answer lost":  func(w *wire) { w.drop = deleted },
		"500 after it was deleted":    func(w *wire) { w.broken = deleted },
		"429":                         func(w *wire) { w.slow = 2 },
		"pages":                       func(w *wire) { w.page = 1 },
		"its clock is an hour ahead":  func(w *wire) { w.skew = time.Hour },
		"its clock is an hour behind": func(w *wire) { w.skew = -time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			reset := func() {
				i.wire.set(func() {
					w := i.wire
					w.newFails, w.oldWorks, w.drop, w.broken, w.slow, w.page, w.skew = 0, 0, nil, nil, 0, 0, 0
				})
			}
			defer reset()
			for _, m := range []rotate.Mode{rotate.Graceful, rotate.Emergency} {
				fx := i.open()(t, "")
				r := runner(t, fx)
				i.wire.set(func() { turn(i.wire) })
				rep, err := r.Rotate(t.Context(), "test", "token", m, "")
				for n := 0; err != nil && n < 5; n++ {
					var reps []rotate.Report
					if reps, err = r.Resume(t.Context()); len(reps) > 0 {
						rep = reps[0]
					}
				}
				reset()
				if err != nil || !rep.Dead || rep.State != "done" {
					t.Fatalf("%v: %+v, %v", m, rep, err)
				}
				settled(t, r, fx)
			}
		})
	}
	t.Run("cut off at each request", func(t *testing.T) {
		for _, m := range []rotate.Mode{rotate.Graceful, rotate.Emergency} {
			for _, done := range []bool{false, true} { // before the issuer did it, or after
				for n := 1; ; n++ {
					fx := i.open()(t, "")
					r := runner(t, fx)
					ctx, cancel := context.WithCancel(t.Context())
					at := 0
					count := func(*http.Request) bool {
						if at++; at == n {
							cancel()
						}
						return at == n
					}
					i.wire.set(func() {
						if done {
							i.wire.drop = count
						} else {
							i.wire.answer = func(w http.ResponseWriter, q *http.Request) bool {
								stop := count(q)
								if stop {
									w.WriteHeader(http.StatusBadGateway)
								}
								return stop
							}
						}
					})
					_, err := r.Rotate(ctx, "test", "token", m, "")
					cancel()
					i.wire.set(func() { i.wire.drop, i.wire.answer = nil, nil })
					if err != nil {
						if reps, err := r.Resume(t.Context()); err != nil && !errors.Is(err, rotate.ErrRolledBack) || len(reps) > 1 {
							t.Errorf("%v, request %d, done %v: %+v, %v", m, n, done, reps, err)
						}
					}
					settled(t, r, fx)
					if t.Failed() {
						return
					}
					if at < n {
						break
					}
				}
			}
		}
	})
	t.Run("200 and not revoked", func(t *testing.T) {
		fx := i.open()(t, "")
		r := runner(t, fx)
		r.DeadFor = 80 * time.Millisecond
		i.wire.set(func() { i.wire.lie = true })
		rep, err := r.Rotate(t.Context(), "test", "token", rotate.Graceful, "")
		if rep.Dead || rep.State != "open" || err == nil || !strings.Contains(err.Error(), "still alive") {
			t.Errorf("%+v, %v", rep, err)
		}
		i.wire.set(func() { i.wire.lie = false })
		reps, err := r.Resume(t.Context())
		if err != nil || len(reps) != 1 || !reps[0].Dead {
			t.Fatalf("%+v, %v", reps, err)
		}
		settled(t, r, fx)
	})
	t.Run("nothing of an answer is shown", func(t *testing.T) {
		fx := i.open()(t, "")
		r := runner(t, fx)
		for _, status := range []int{200, 302, 400, 401, 403, 404, 409, 429, 500, 503} {
			i.wire.set(func() {
				i.wire.answer = func(w http.ResponseWriter, _ *http.Request) bool {
					w.Header().Set("Location", "https://evil.test/"+fx.Value)
					w.WriteHeader(status)
					fmt.Fprintf(w, `{"error":"you sent %s","ErrorResponse":"<Error><Code>%s</Code></Error>"}`, fx.Value, fx.Value)
					return true
				}
			})
			r.DeadFor, r.VerifyFor = time.Millisecond, time.Millisecond
			_, err := r.Rotate(t.Context(), "test", "token", rotate.Graceful, "")
			if err == nil || strings.Contains(err.Error(), fx.Value) || strings.Contains(err.Error(), "evil") || strings.Contains(err.Error(), "you sent") {
				t.Errorf("%d: %v", status, err)
			}
		}
		i.wire.set(func() { i.wire.answer = nil })
		r.DeadFor, r.VerifyFor = 5*time.Second, time.Second
		if reps, err := r.Resume(t.Context()); err != nil {
			t.Fatalf("%+v, %v", reps, err)
		}
		if rep, err := r.Rotate(t.Context(), "test", "token", rotate.Graceful, ""); err != nil {
			t.Fatalf("%+v, %v", rep, err)
		}
		settled(t, r, fx)
	})
	t.Run("a value goes to no other host", func(t *testing.T) {
		fx := i.open()(t, "")
		fx.Credential.Hosts = []string{"api.elsewhere.test"}
		r := runner(t, fx)
		var before int
		i.wire.set(func() { before = i.wire.log.Len() })
		if err := i.provider.Verify(t.Context(), jobOf(t, r, fx), guard.NewSecret([]byte(fx.Value))); err == nil {
			t.Error("it was sent")
		}
		i.wire.set(func() {
			if i.wire.log.Len() != before {
				t.Errorf("asked: %s", i.wire.log.Bytes()[before:])
			}
		})
	})
}
