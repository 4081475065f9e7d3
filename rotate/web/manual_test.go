package web

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"guard"
	"guard/rotate"
	"guard/vault"
)

// fake answers for issuers' hosts, whatever name is asked.
type fake struct {
	mu    sync.Mutex
	live  map[string]bool
	asked []string // "METHOD host/path"
	bad   func(http.ResponseWriter, *http.Request) bool
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, r.Method+" "+r.Host+r.URL.Path)
	if f.bad != nil && f.bad(w, r) {
		return
	}
	value := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	for _, h := range []string{"PRIVATE-TOKEN", "x-api-key", "x-goog-api-key"} {
		if v := r.Header.Get(h); v != "" {
			value = v
		}
	}
	body, _ := io.ReadAll(r.Body)
	if r.Host == "hub.docker.com" {
		var b struct{ Identifier, Secret string }
		if json.Unmarshal(body, &b) == nil && b.Identifier == "me" {
			value = b.Secret
		}
	}
	switch r.Method + " " + r.Host + r.URL.Path {
	case "POST api.github.com/credentials/revoke":
		var b struct{ Credentials []string }
		if json.Unmarshal(body, &b) != nil || r.Header.Get("Authorization") != "" {
			w.WriteHeader(http.StatusForbidden) // as it answers who is authenticated
			return
		}
		for _, v := range b.Credentials {
			delete(f.live, v)
		}
		w.WriteHeader(http.StatusAccepted)
	case "DELETE gitlab.corp.test/api/v4/personal_access_tokens/self":
		if !f.live[value] {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		delete(f.live, value)
		w.WriteHeader(http.StatusNoContent)
	case "POST slack.com/api/auth.test":
		if f.live[value] {
			io.WriteString(w, `{"ok":true}`)
		} else {
			io.WriteString(w, `{"ok":false,"error":"token_revoked"}`)
		}
	case "POST slack.com/api/auth.revoke":
		delete(f.live, value)
		io.WriteString(w, `{"ok":true,"revoked":true}`)
	default:
		switch {
		case strings.HasPrefix(r.URL.Path, "/stolen"):
			w.Header().Set("X-Value", value)
		case f.live[value]:
			io.WriteString(w, `{}`)
		case r.Host == "generativelanguage.googleapis.com":
			w.WriteHeader(http.StatusBadRequest)
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
}

// RoundTrip is the network between guard and the issuers.
func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		return nil, errors.New("not by https")
	}
	w := httptest.NewRecorder()
	r.Host = r.URL.Host
	if r.Body == nil {
		r.Body = http.NoBody
	}
	f.ServeHTTP(w, r)
	return w.Result(), nil
}

const oldValue, newValue = "the-old-value-of-a-token", "the-new-value-of-a-token"

func world(t *testing.T, f *fake, c guard.Credential) (*vault.Vault, *rotate.Runner) {
	t.Helper()
	dir := t.TempDir()
	v, err := vault.Create(filepath.Join(dir, "vault"), vault.KeyFile{Path: filepath.Join(dir, "key"), Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	c.Name, c.Context = "tok", "c"
	if _, err := v.Set(c, guard.NewSecret([]byte(oldValue))); err != nil {
		t.Fatal(err)
	}
	j, err := rotate.OpenJournal(filepath.Join(dir, "rotate"))
	if err != nil {
		t.Fatal(err)
	}
	p := Manual{Client: Client{Transport: f}}
	return v, &rotate.Runner{
		Vault: v, Journal: j, Providers: rotate.Providers{"manual": p}, VerifyFor: 30 * time.Millisecond, DeadFor: 60 * time.Millisecond,
		Default: func(c guard.Credential) string {
			if CanDefault(c.Kind) {
				return "manual"
			}
			return ""
		},
	}
}

// Every kind that has a page: the person is sent there; once the new value is
// stored, both are tried.
func TestManual(t *testing.T) {
	for kind, s := range services() {
		k, ok := vault.KindByName(kind)
		if !ok {
			t.Errorf("%s is no kind", kind)
			continue
		}
		if !strings.HasPrefix(s.page, "https://") || s.probe == nil && len(s.steps) == 0 {
			t.Errorf("%s: page %q, steps %q", kind, s.page, s.steps)
		}
		for _, h := range s.hosts {
			if !strings.Contains(strings.Join(k.Hosts, " "), h) {
				t.Errorf("%s: %s is not a host of the kind", kind, h)
			}
		}
		if kind == "aws" || kind == "gcp-service-account" || kind == "azure-app" {
			continue // tried by providers of their own
		}
		for _, m := range []rotate.Mode{rotate.Graceful, rotate.Emergency} {
			t.Run(kind+" "+m.String(), func(t *testing.T) {
				f := &fake{live: map[string]bool{oldValue: true}}
				c := guard.Credential{Kind: "generic", Hosts: k.Hosts, User: "me"}
				if kind == "gitlab-pat" {
					c.Hosts = []string{"gitlab.corp.test"}
				}
				v, r := world(t, f, c)
				// A made-up value has no kind that would fit: it is named afterwards.
				edit := func(c *guard.Credential) error { c.Kind = kind; return nil }
				if _, err := v.Edit("c", "tok", edit); err != nil {
					t.Skip("the kind takes values of its own form only")
				}
				rep, err := r.Rotate(context.Background(), "c", "tok", m, "")
				if !errors.Is(err, rotate.ErrByHand) || rep.State != "by hand" || !strings.Contains(rep.Next[0], s.page) {
					t.Fatalf("%+v, %v", rep, err)
				}
				if m == rotate.Emergency && s.revoke != nil && (f.live[oldValue] || !rep.Dead) {
					t.Errorf("not revoked at once: %+v", rep)
				}
				if m == rotate.Graceful && !f.live[oldValue] {
					t.Error("revoked before there is a new one")
				}
				f.mu.Lock()
				f.live[newValue] = true
				if s.revoke == nil {
					delete(f.live, oldValue) // as the page's steps say
				}
				f.mu.Unlock()
				cr, err := v.Find("c", "tok")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := v.Set(cr, guard.NewSecret([]byte(newValue))); err != nil {
					t.Fatal(err)
				}
				reps, err := r.Resume(context.Background())
				if s.probe == nil {
					if !errors.Is(err, rotate.ErrAlive) || reps[0].Dead {
						t.Errorf("said to be dead, and nobody tried: %+v, %v", reps, err)
					}
					return
				}
				if err != nil || len(reps) != 1 || !reps[0].Dead || reps[0].State != "done" {
					t.Fatalf("%+v, %v", reps, err)
				}
				if f.live[oldValue] || !f.live[newValue] {
					t.Errorf("live: %v", f.live)
				}
				for _, a := range f.asked {
					host, _, _ := strings.Cut(strings.Fields(a)[1], "/")
					if !strings.Contains(strings.Join(c.Hosts, " "), host) {
						t.Errorf("asked %s, which the credential does not belong to", a)
					}
				}
			})
		}
	}
}

// A value goes to no host that is not its credential's, and after no redirect.
func TestManualKeepsTheValueAtHome(t *testing.T) {
	f := &fake{live: map[string]bool{oldValue: true}}
	m := Manual{Client: Client{Transport: f}}
	j := rotate.Job{Step: rotate.StepVerify, Credential: guard.Credential{Name: "tok", Kind: "stripe", Hosts: []string{"api.other.test"}}, Options: map[string]string{}}
	secret := guard.NewSecret([]byte(oldValue))
	for _, probe := range []string{"", "https://evil.test/x", "http://api.other.test/x", "https://api.other.test@evil.test/x", "/x", "%"} {
		j.Options["probe"] = probe
		if err := m.Verify(context.Background(), j, secret); err == nil {
			t.Errorf("probe %q was asked", probe)
		}
	}
	j.Options["probe"] = "https://api.other.test/x"
	f.bad = func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Location", "https://evil.test/stolen")
		w.WriteHeader(http.StatusTemporaryRedirect)
		return true
	}
	if err := m.Verify(context.Background(), j, secret); err == nil || errors.Is(err, rotate.ErrRefused) {
		t.Error(err)
	}
	for _, a := range f.asked {
		if !strings.Contains(a, " api.other.test/") {
			t.Errorf("asked %s", a)
		}
	}
}

// Only what says so is a refusal, and no error holds what an issuer answered.
func TestManualReadsStatuses(t *testing.T) {
	f := &fake{live: map[string]bool{}}
	m := Manual{Client: Client{Transport: f}}
	j := rotate.Job{Step: rotate.StepDead, Credential: guard.Credential{Name: "tok", Kind: "stripe", Hosts: []string{"api.stripe.com"}}, Options: map[string]string{}}
	secret := guard.NewSecret([]byte(oldValue))
	for status, want := range map[int]string{200: "alive", 403: "alive", 401: "refused", 404: "?", 429: "later", 500: "?", 503: "later", 302: "?"} {
		f.bad = func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
			io.WriteString(w, "you sent "+oldValue)
			return true
		}
		err := m.Verify(context.Background(), j, secret)
		var later *rotate.RetryAfter
		got := "?"
		switch {
		case err == nil:
			got = "alive"
		case errors.Is(err, rotate.ErrRefused):
			got = "refused"
		case errors.As(err, &later):
			if got = "later"; later.After != 7*time.Second {
				t.Errorf("%d: after %v", status, later.After)
			}
		}
		if got != want || err != nil && strings.Contains(err.Error(), oldValue) {
			t.Errorf("%d: %s, want %s: %v", status, got, want, err)
		}
	}
}
