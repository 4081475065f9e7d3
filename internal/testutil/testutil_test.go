package testutil

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestCanaryAndFind(t *testing.T) {
	v := Canary(t)
	if !regexp.MustCompile(`^ghp_[0-9A-Za-z]{36}$`).MatchString(v) || v == Canary(t) {
		t.Fatal("not a random token of GitHub's shape")
	}
	rev := []byte(v)
	slices.Reverse(rev)
	std, url := base64.StdEncoding, base64.URLEncoding
	for name, text := range map[string]string{
		"raw": "a" + v + "b", "hex": hex.EncodeToString([]byte("x" + v)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(v))),
		"reversed":  string(rev) + "\n",
		"base64 0":  std.EncodeToString([]byte("abc" + v)),
		"base64 1":  std.EncodeToString([]byte("a" + v + "tail")),
		"base64 2":  std.EncodeToString([]byte("ab" + v + "\n")),
		"base64url": url.EncodeToString([]byte("\xff\xfe" + v + "\xff\xff")),
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte("head "+text+" tail"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, place := range []any{[]byte(text), bytes.NewBufferString(text), strings.NewReader(text), dir, filepath.Join(dir, "f")} {
			if found, err := Find(v, place); err != nil || len(found) == 0 {
				t.Errorf("%s in a %T: found %v, %v", name, place, found, err)
			}
		}
	}
	dir := t.TempDir()
	if err := os.Symlink(v, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if found, err := Find(v, dir); err != nil || len(found) != 1 {
		t.Errorf("in a link's target: %v, %v", found, err)
	}
	if err := os.Mkdir(filepath.Join(dir, v), 0o700); err != nil {
		t.Fatal(err)
	}
	if found, err := Find(v, dir); err != nil || len(found) != 2 {
		t.Errorf("in a name: %v, %v", found, err)
	}
	if found, err := Find(v, t.TempDir(), []byte(Canary(t)), v[:20]+"/none"); err == nil || len(found) != 0 {
		t.Errorf("in nothing: %v, %v", found, err)
	}
	if _, err := Find("short", []byte("x")); err == nil {
		t.Error("searched for a short value")
	}
	if _, err := Find(v, 7); err == nil {
		t.Error("searched a number")
	}
}

// recorder is a test that notes that it failed.
type recorder struct {
	testing.TB
	text string
}

func (r *recorder) Helper()           {}
func (r *recorder) Error(args ...any) { r.text += args[0].(string) }
func (r *recorder) Errorf(format string, args ...any) {
	for _, a := range args {
		r.text += a.(string)
	}
}

func TestSearchFailsAndDoesNotPrintTheValue(t *testing.T) {
	v := Canary(t)
	dir := filepath.Join(t.TempDir(), v)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r := &recorder{TB: t}
	Search(r, v, []byte("x"+v), dir, filepath.Join(dir, "none"))
	if r.text == "" || strings.Contains(r.text, v) {
		t.Error("Search did not fail, or printed the value")
	}
	Search(t, v, []byte("nothing"), t.TempDir())
}

func TestAPIServer(t *testing.T) {
	Leftovers(t)
	ca := NewCA(t)
	tok, next := Canary(t), Canary(t)
	a := APIServer(t, ca, tok)
	client := ca.Client()
	do := func(token, path, body string) (int, string) {
		req, err := http.NewRequest(http.MethodPost, a.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	status, body := do(tok, "/echo?q=1", "hello")
	var got struct {
		Method, Path, Query, Body string
		Headers                   http.Header
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 {
		t.Fatal(status, err)
	}
	if got.Method != "POST" || got.Path != "/echo" || got.Query != "q=1" || got.Body != "hello" || got.Headers.Get("Authorization") != "Bearer "+tok {
		t.Errorf("echo said %+v", got)
	}
	if status, body := do(tok, "/events?n=2", ""); status != 200 || body != "data: {\"n\":0}\n\ndata: {\"n\":1}\n\n" {
		t.Errorf("events: %d %q", status, body)
	}
	a.SetToken(next)
	for token, want := range map[string]int{tok: 401, "": 401, next: 200} {
		if status, _ := do(token, "/whoami", ""); status != want {
			t.Errorf("after the change: %d, want %d", status, want)
		}
	}
	if a.Requests("/whoami") != 3 || a.Refused() != 2 || len(a.Seen()) != 5 {
		t.Errorf("counted %d, %d, %d", a.Requests("/whoami"), a.Refused(), len(a.Seen()))
	}
	if _, err := http.Get(a.URL + "/whoami"); err == nil {
		t.Error("trusted without the CA")
	}
}

func TestFreePort(t *testing.T) {
	if p := FreePort(t); p < 1024 {
		t.Error(p)
	}
}
