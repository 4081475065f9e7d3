package main

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"guard/internal/testutil"
	"guard/rotate"
	"guard/rotate/exec"
)

// notifyApp is an app whose settings are in a folder of the test's.
func notifyApp(t *testing.T, config string, env map[string]string) *app {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "guard"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "guard", "config.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	errs, err := os.Create(filepath.Join(dir, "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { errs.Close() })
	return &app{stderr: errs, getenv: func(k string) string {
		switch k {
		case "XDG_CONFIG_HOME":
			return dir
		case "HOME":
			return dir
		}
		return env[k]
	}}
}

func leaked(n int) rotate.Incident {
	return rotate.Incident{ID: fmt.Sprintf("tok-%d-0000", n), Context: "shop", Credential: fmt.Sprintf("tok-%d", n), Version: n, State: "closed", Result: "replaced, and the old value is dead", Dead: true, Leaks: 10000,
		Places: []rotate.Place{{Channel: "http"}, {Channel: "http"}, {Channel: "file"}}}
}

// Ten thousand incidents at once are one message to each who is told.
func TestNoticesAreGathered(t *testing.T) {
	var mu sync.Mutex
	var bodies [][]byte
	var signs []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		bodies, signs = append(bodies, b), append(signs, r.Header.Get("X-Guard-Signature"))
	}))
	defer srv.Close()
	dir := t.TempDir()
	key, mail, out := filepath.Join(dir, "key"), filepath.Join(dir, "mail"), filepath.Join(dir, "out")
	if err := os.WriteFile(key, []byte("a-key-of-the-webhook\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mail, []byte("#!/bin/sh\n[ $1 = -s ] && cat >>"+out+" && echo end >>"+out+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	sum, err := exec.Hash(mail)
	if err != nil {
		t.Skipf("the folder for temporary files is one that others may write: %v", err)
	}
	a := notifyApp(t, fmt.Sprintf("idle_lock = \"15m\"\n[notify]\nwebhook = %q\nwebhook_key_file = %q\ncommand = [%q, \"-s\"]\ncommand_sha256 = %q\n", srv.URL+"/hook", key, mail, sum), nil)
	n, err := a.newNotifier()
	if err != nil {
		t.Fatal(err)
	}
	n.wait = time.Hour // only close sends
	for i := range 10000 {
		n.tell(leaked(i + 1))
	}
	n.close()
	if len(bodies) != 1 {
		t.Fatalf("%d messages", len(bodies))
	}
	var got struct{ Notices []notice }
	if err := json.Unmarshal(bodies[0], &got); err != nil || len(got.Notices) != 10000 {
		t.Fatalf("%d notices, %v", len(got.Notices), err)
	}
	if x := got.Notices[0]; x.Credential != "tok-1" || !x.Dead || x.Leaks != 10000 || len(x.Channels) != 2 {
		t.Errorf("%+v", x)
	}
	m := hmac.New(sha256.New, []byte("a-key-of-the-webhook"))
	m.Write(bodies[0])
	if signs[0] != "sha256="+hex.EncodeToString(m.Sum(nil)) {
		t.Errorf("signature %q", signs[0])
	}
	text, err := os.ReadFile(out)
	if err != nil || strings.Count(string(text), "end\n") != 1 || strings.Count(string(text), "\n") != 10001 {
		t.Errorf("the command got %d lines, %v", strings.Count(string(text), "\n"), err)
	}
	// Another program in its place is not run.
	if err := os.WriteFile(mail, []byte("#!/bin/sh\necho stolen >>"+out+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	n.tell(leaked(1))
	n.close()
	if text, _ = os.ReadFile(out); strings.Contains(string(text), "stolen") {
		t.Error("a program that was changed was run")
	}
	if _, err := a.newNotifier(); err == nil || !strings.Contains(err.Error(), "pinned") {
		t.Errorf("a changed program: %v", err)
	}
}

// A mistake in the settings, or an answer that is none, is said, without the URL's secret part.
func TestNoticesThatCannotBeSent(t *testing.T) {
	for config, want := range map[string]string{
		"[notify]\nwebhook = \"http://hooks.test/x\"":                              "https",
		"[notify]\nwebhook = \"nonsense\"":                                         "https",
		"[notify]\ncommand = [\"mail\"]":                                           "absolute",
		"[notify]\ncommand = [\"/bin/true\"]":                                      "command_sha256",
		"[notify]\ncommand = [\"/nowhere/mail\"]\ncommand_sha256 = \"00\"":         "/nowhere/mail",
		"[notify]\nwebhook = \"https://hooks.test/x\"\nwebhook_key_file = \"key\"": "absolute",
		"[notify]\ndesktop = 3":                                                    "config.toml",
	} {
		if _, err := notifyApp(t, config, nil).newNotifier(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", config, err)
		}
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/T0/secret-of-the-hook" {
			t.Errorf("followed to %s", r.URL.Path)
		}
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}))
	defer srv.Close()
	n, err := notifyApp(t, fmt.Sprintf("[notify]\nwebhook = %q\n", srv.URL+"/T0/secret-of-the-hook"), nil).newNotifier()
	if err != nil {
		t.Fatal(err)
	}
	errs := n.send(context.Background(), []notice{{}})
	srv.Close()
	errs = append(errs, n.send(context.Background(), []notice{{}})...)
	if len(errs) != 2 {
		t.Fatalf("%v", errs)
	}
	for _, err := range errs {
		if strings.Contains(err.Error(), "secret-of-the-hook") {
			t.Errorf("the URL is in %v", err)
		}
	}
}

// desktop is what a notification daemon exports.
type desktop struct{ got chan [2]string }

func (d desktop) Notify(app string, _ uint32, _, title, body string, _ []string, hints map[string]dbus.Variant, _ int32) (uint32, *dbus.Error) {
	d.got <- [2]string{title, fmt.Sprint(body, " urgency ", hints["urgency"].Value())}
	return 1, nil
}

func TestDesktopNotice(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there is no session bus here")
	}
	bus := osexec.Command(testutil.Need(t, "dbus-daemon", "dbus"), "--session", "--nofork", "--print-address")
	out, err := bus.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := bus.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { bus.Process.Kill(); bus.Wait() }()
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	c, err := dbus.Connect(strings.TrimSpace(address))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d := desktop{got: make(chan [2]string, 1)}
	if err := c.Export(d, "/org/freedesktop/Notifications", "org.freedesktop.Notifications"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.RequestName("org.freedesktop.Notifications", 0); err != nil {
		t.Fatal(err)
	}
	a := notifyApp(t, "[notify]\ndesktop = true\n", map[string]string{"DBUS_SESSION_BUS_ADDRESS": strings.TrimSpace(address)})
	n, err := a.newNotifier()
	if err != nil {
		t.Fatal(err)
	}
	i := leaked(1)
	i.Credential, i.Escaped, i.Dead = "<b>tok</b>", true, false
	n.tell(i)
	n.close()
	got := <-d.got
	if got[0] != "guard: a credential leaked" || !strings.Contains(got[1], "&lt;b&gt;tok") || !strings.Contains(got[1], "it got out") || !strings.HasSuffix(got[1], "urgency 2") {
		t.Errorf("%q", got)
	}
}
