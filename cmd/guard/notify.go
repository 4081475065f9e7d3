package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/BurntSushi/toml"

	"guard/approve"
	"guard/rotate"
	"guard/rotate/exec"
)

// notifySettings are the [notify] table of config.toml: who else is told of an incident.
type notifySettings struct {
	Desktop       bool     `toml:"desktop"`          // a notification of the desktop (org.freedesktop.Notifications)
	Webhook       string   `toml:"webhook"`          // URL that gets each notice as JSON by POST
	WebhookKey    string   `toml:"webhook_key_file"` // file whose bytes sign it: X-Guard-Signature: sha256=HMAC-SHA256 of the body, in hex
	Command       []string `toml:"command"`          // program, by its absolute path, and arguments; gets each notice as text on standard input
	CommandSHA256 string   `toml:"command_sha256"`   // of the program: guard runs no other
}

// notifySettings reads the table. A mistake in it is an error, since nobody would be told.
func (a *app) notifySettings() (n notifySettings, err error) {
	var file struct {
		Notify notifySettings `toml:"notify"`
	}
	b, err := os.ReadFile(a.configPath())
	if errors.Is(err, os.ErrNotExist) {
		return n, nil
	}
	if err == nil {
		err = toml.Unmarshal(b, &file)
	}
	n = file.Notify
	if err == nil {
		err = n.check()
	}
	if err != nil {
		return notifySettings{}, fmt.Errorf("%s: %w", a.configPath(), err)
	}
	return n, nil
}

func (n notifySettings) check() error {
	if n.Webhook != "" {
		u, err := url.Parse(n.Webhook)
		if err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && isLoopback(u.Hostname())) {
			return errors.New("notify.webhook: want an https URL")
		}
	}
	if n.WebhookKey != "" && !filepath.IsAbs(n.WebhookKey) {
		return errors.New("notify.webhook_key_file: want an absolute path")
	}
	if len(n.Command) > 0 {
		sum, err := exec.Hash(n.Command[0])
		switch {
		case !filepath.IsAbs(n.Command[0]):
			return errors.New("notify.command: want the program's absolute path")
		case err != nil:
			return fmt.Errorf("notify.command %s: %w", n.Command[0], err)
		case n.CommandSHA256 == "":
			return fmt.Errorf("notify.command: pin the program with command_sha256 = %q", sum)
		case !strings.EqualFold(n.CommandSHA256, sum):
			return fmt.Errorf("notify.command %s is not the program that was pinned: look at it, then set command_sha256 = %q", n.Command[0], sum)
		}
	}
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// notice is what is sent of an incident. It holds no value, and of the agent's words
// none but paths and hosts of where it leaked.
type notice struct {
	Incident   string    `json:"incident"`
	Context    string    `json:"context"`
	Credential string    `json:"credential"`
	Version    int       `json:"version"`
	Escaped    bool      `json:"escaped"`
	Leaks      int       `json:"leaks"`
	Channels   []string  `json:"channels"`
	First      time.Time `json:"first"`
	State      string    `json:"state"`
	Result     string    `json:"result"`
	Dead       bool      `json:"dead"`
	MS         float64   `json:"ms"`
	Next       []string  `json:"next_steps,omitempty"`

	Request string    `json:"request,omitempty"` // a question that waits: no incident
	Until   time.Time `json:"until,omitzero"`    // when it ends
}

func noticeOf(i rotate.Incident) notice {
	n := notice{
		Incident: i.ID, Context: i.Context, Credential: i.Credential, Version: i.Version, Escaped: i.Escaped, Leaks: i.Leaks,
		First: i.First, State: i.State, Result: i.Result, Dead: i.Dead, MS: i.MS, Next: i.Next,
	}
	seen := map[string]bool{}
	for _, p := range i.Places {
		if !seen[p.Channel] {
			seen[p.Channel] = true
			n.Channels = append(n.Channels, p.Channel)
		}
	}
	return n
}

// String is the notice on one line.
func (n notice) String() string {
	if n.Request != "" {
		return fmt.Sprintf("a session in context %s %s, until %s. guard request show %s", n.Context, n.Result, n.Until.UTC().Format(time.RFC3339), n.Request)
	}
	reach, dead := "stopped everywhere", "the old value is not proven dead"
	if n.Escaped {
		reach = "it got out"
	}
	if n.Dead {
		dead = "the old value was tried and refused"
	}
	return fmt.Sprintf("%s (context %s, version %d) leaked, %s: %s; %s. guard incident show %s", n.Credential, n.Context, n.Version, reach, n.Result, dead, n.Incident)
}

// notifier sends notices. However many come at once, they are one message.
type notifier struct {
	app  *app
	conf notifySettings
	wait time.Duration // how long notices are collected

	mu      sync.Mutex
	waiting []notice
	timer   *time.Timer
	sending sync.WaitGroup
}

// gather is how long notices are collected into one message.
const gather = time.Second

func (a *app) newNotifier() (*notifier, error) {
	conf, err := a.notifySettings()
	return &notifier{app: a, conf: conf, wait: gather}, err
}

func (n *notifier) tells() bool {
	return n.conf.Desktop || n.conf.Webhook != "" || len(n.conf.Command) > 0
}

// tell sends an incident that is settled, a moment later.
func (n *notifier) tell(i rotate.Incident) { n.later(noticeOf(i)) }

// ask sends that a question waits, a moment later.
func (n *notifier) ask(r approve.Request) {
	if n != nil {
		n.later(notice{Request: r.ID, Context: r.Context, Credential: r.Credential, First: r.Asked, Until: r.Expires, State: r.State, Result: "asks " + askedFor(r)})
	}
}

func (n *notifier) later(x notice) {
	if !n.tells() {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.waiting = append(n.waiting, x)
	if n.timer == nil {
		n.sending.Add(1)
		n.timer = time.AfterFunc(n.wait, func() {
			defer n.sending.Done()
			n.flush()
		})
	}
}

// close sends what waits, and waits until it is sent.
func (n *notifier) close() {
	n.mu.Lock()
	if n.timer != nil && n.timer.Stop() {
		n.mu.Unlock()
		n.flush()
		n.sending.Done()
	} else {
		n.mu.Unlock()
	}
	n.sending.Wait()
}

func (n *notifier) flush() {
	n.mu.Lock()
	all := n.waiting
	n.waiting, n.timer = nil, nil
	n.mu.Unlock()
	if len(all) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	for _, err := range n.send(ctx, all) {
		n.app.say("a notice could not be sent: %v", err)
	}
}

// send sends to everyone who is to be told; an error for each who could not be.
func (n *notifier) send(ctx context.Context, all []notice) (errs []error) {
	var text strings.Builder
	for _, x := range all {
		text.WriteString(visible(x.String()) + "\n")
	}
	try := func(who string, f func() error) {
		if err := f(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", who, err))
		}
	}
	if n.conf.Desktop {
		try("desktop", func() error { return desktopNotice(ctx, n.app.getenv, all, text.String()) })
	}
	if n.conf.Webhook != "" {
		try("webhook", func() error { return n.post(ctx, all) })
	}
	if len(n.conf.Command) > 0 {
		try("command", func() error { return n.command(ctx, text.String()) })
	}
	return errs
}

func (n *notifier) post(ctx context.Context, all []notice) error {
	body, err := json.Marshal(map[string]any{"notices": all})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.conf.Webhook, bytes.NewReader(body))
	if err != nil {
		return errors.New("the URL cannot be asked")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "guard")
	if n.conf.WebhookKey != "" {
		key, err := os.ReadFile(n.conf.WebhookKey)
		if err != nil {
			return err
		}
		m := hmac.New(sha256.New, bytes.TrimSpace(key))
		m.Write(body)
		req.Header.Set("X-Guard-Signature", "sha256="+hex.EncodeToString(m.Sum(nil)))
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		// The URL itself may be a secret: its host is enough.
		return fmt.Errorf("%s could not be reached", req.URL.Host)
	}
	res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return fmt.Errorf("%s answered %d", req.URL.Host, res.StatusCode)
	}
	return nil
}

func (n *notifier) command(ctx context.Context, text string) error {
	if err := n.conf.check(); err != nil { // it may have been changed since
		return err
	}
	cmd := osexec.CommandContext(ctx, n.conf.Command[0], n.conf.Command[1:]...)
	cmd.Dir, cmd.Stdin = "/", strings.NewReader(text)
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + n.app.userHome(), "LANG=C.UTF-8"}
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", n.conf.Command[0], err)
	}
	return nil
}

var notifyCommand = command{
	name: "notify", args: "test", short: "try who is told of incidents: desktop, webhook, command (see config.toml's [notify])",
	example: "guard notify test",
	run: func(a *app, ctx context.Context, c *command, args []string) error {
		f := a.flags(c)
		if err := parse(f, args); err != nil {
			return err
		}
		if f.NArg() != 1 || f.Arg(0) != "test" {
			return usagef("notify wants test")
		}
		n, err := a.newNotifier()
		if err != nil {
			return err
		}
		if !n.tells() {
			return fmt.Errorf("nobody is told: write a [notify] table with desktop, webhook or command into %s", a.configPath())
		}
		errs := n.send(ctx, []notice{{Incident: "test", Context: defaultContext, Credential: "none", First: time.Now().UTC(), State: "closed", Result: "this is a test of guard's notices, nothing leaked"}})
		if len(errs) == 0 {
			a.say("sent")
		}
		return errors.Join(errs...)
	},
}
