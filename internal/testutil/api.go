package testutil

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// API is an HTTPS server that takes one bearer token. Its endpoints:
//
//	/echo          what came: {"method","path","query","headers","body"}
//	/events?n=N    N server-sent events "data: {"n":I}", each flushed; then the end
//	/whoami        {"ok":true}
//
// Any request without "Authorization: Bearer TOKEN" gets 401 and
// {"error":"bad credentials"}.
type API struct {
	*httptest.Server
	mu       sync.Mutex
	token    string
	requests map[string]int
	refused  int
	seen     []string
}

// APIServer starts one for names (see [CA.Server]); it ends with the test.
func APIServer(t testing.TB, ca *CA, token string, names ...string) *API {
	t.Helper()
	a := &API{token: token, requests: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", echo)
	mux.HandleFunc("/events", events)
	mux.HandleFunc("/whoami", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, map[string]any{"ok": true}) })
	a.Server = HTTPSServer(t, ca, a.check(mux), names...)
	return a
}

func (a *API) check(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		auth := r.Header.Get("Authorization")
		a.mu.Lock()
		a.requests[r.URL.Path]++
		a.seen = append(a.seen, auth)
		ok := a.token != "" && auth == "Bearer "+a.token
		if !ok {
			a.refused++
		}
		a.mu.Unlock()
		if !ok {
			reply(w, http.StatusUnauthorized, map[string]any{"error": "bad credentials"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// SetToken replaces the token; the one before is refused from now on.
func (a *API) SetToken(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.token = token
}

// Requests is how many requests path got, refused ones included.
func (a *API) Requests(path string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.requests[path]
}

// Refused is how many requests got 401.
func (a *API) Refused() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refused
}

// Seen lists the Authorization header of every request, in order.
func (a *API) Seen() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.seen...)
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		reply(w, http.StatusBadRequest, map[string]any{"error": "body ended early"})
		return
	}
	reply(w, http.StatusOK, map[string]any{
		"method": r.Method, "path": r.URL.Path, "query": r.URL.RawQuery, "headers": r.Header, "body": string(body),
	})
}

func events(w http.ResponseWriter, r *http.Request) {
	n := 3
	fmt.Sscan(r.URL.Query().Get("n"), &n)
	w.Header().Set("Content-Type", "text/event-stream")
	for i := range n {
		if _, err := fmt.Fprintf(w, "data: {\"n\":%d}\n\n", i); err != nil {
			return
		}
		http.NewResponseController(w).Flush()
	}
}
