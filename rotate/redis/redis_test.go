package redis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"guard"
	"guard/internal/testutil"
	"guard/rotate"
	"guard/rotate/rotatetest"
)

const boss = "the-admin-value-of-redis"

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// server is a real Redis on loopback.
type server struct {
	Port, Log, ACL string
}

func start(t testing.TB, acl bool) *server {
	t.Helper()
	if os.Getenv("GUARD_ROTATETEST_CHILD") != "" {
		return nil // a child attaches to its parent's
	}
	bin := testutil.Need(t, "redis-server", "redis-server")
	dir := t.TempDir()
	s := &server{Port: strconv.Itoa(testutil.FreePort(t)), Log: filepath.Join(dir, "log"), ACL: filepath.Join(dir, "users.acl")}
	args := []string{"--port", s.Port, "--bind", "127.0.0.1", "--save", "", "--dir", dir, "--logfile", s.Log, "--loglevel", "debug", "--slowlog-log-slower-than", "0"}
	users := "user default off\nuser boss on >" + boss + " ~* &* +@all\nuser other on >another-value-entirely ~* &* +@all\n"
	if acl {
		must(t, os.WriteFile(s.ACL, []byte(users), 0o600))
		args = append(args, "--aclfile", s.ACL)
	} else {
		for line := range strings.Lines(users) {
			args = append(append(args, "--user"), strings.Fields(line)[1:]...)
		}
	}
	cmd := osexec.Command(bin, args...)
	must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	testutil.WaitFor(t, "redis-server answers", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+s.Port)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return s
}

// as logs in.
func (s *server) as(user, password string) (*conn, error) {
	c, err := dial(context.Background(), "127.0.0.1", s.Port, nil)
	if err != nil {
		return nil, err
	}
	if _, err := c.do("AUTH", user, password); err != nil {
		c.close()
		if says(err, "WRONGPASS") {
			err = rotate.ErrRefused
		}
		return nil, err
	}
	return c, nil
}

func (s *server) do(tb testing.TB, args ...string) value {
	tb.Helper()
	c, err := s.as("boss", boss)
	must(tb, err)
	defer c.close()
	v, err := c.do(args...)
	must(tb, err)
	return v
}

var users atomic.Int64

type state struct {
	Server server
	User   string
	Mode   string
}

// open makes a user, rotated by an admin ("admin"), by itself ("self"), or whose
// value is a URL ("url").
func open(srv *server, mode string) rotatetest.Open {
	return func(tb testing.TB, attach string) rotatetest.Fixture {
		tb.Helper()
		st := state{User: fmt.Sprintf("app-%d", users.Add(1)), Mode: mode}
		const first = "first-value-of-the-user"
		if attach != "" {
			must(tb, json.Unmarshal([]byte(attach), &st))
			srv = &st.Server
		} else {
			st.Server = *srv
			rights := "+@all"
			if mode == "url" {
				rights = "+get" // not even PING
			}
			srv.do(tb, "ACL", "SETUSER", st.User, "on", ">"+first, "~*", rights)
		}
		b, err := json.Marshal(st)
		must(tb, err)
		spec, value := "redis", first
		if mode != "self" {
			spec += ",admin=boss"
		}
		if mode == "url" {
			value = "redis://" + st.User + ":" + first + "@127.0.0.1:" + srv.Port + "/0"
		}
		password := func(v string) string {
			_, pw, err := rotate.Password(guard.Credential{}, guard.NewSecret([]byte(v)))
			must(tb, err)
			return string(pw.Reveal())
		}
		hosts := []string{"127.0.0.1:" + srv.Port}
		return rotatetest.Fixture{
			Name: "redis", Provider: Provider{}, State: string(b), Value: value,
			Credential: guard.Credential{Name: "cache", Kind: "redis", Hosts: hosts, User: st.User, Rotate: spec},
			Others:     []rotatetest.Other{{Credential: guard.Credential{Name: "boss", Kind: "redis", Hosts: hosts, User: "boss"}, Value: boss}},
			Login: func(v string) error {
				c, err := srv.as(st.User, password(v))
				if err == nil {
					c.close()
				}
				return err
			},
			Session: func(v string) (uint32, func() bool, error) {
				c, err := srv.as(st.User, password(v))
				if err != nil {
					return 0, nil, err
				}
				tb.Cleanup(c.close)
				id := srv.find(tb, st.User, c.LocalAddr().String())
				return id, func() bool { _, err := c.do("GET", "x"); return err == nil || isServer(err) }, nil
			},
			Lock: func() (func(), error) {
				who := "boss"
				if mode == "self" {
					who = st.User
				}
				c, err := srv.as("other", "another-value-entirely")
				must(tb, err)
				defer c.close()
				_, err = c.do("ACL", "SETUSER", who, "-acl|setuser")
				return func() {
					c, err := srv.as("other", "another-value-entirely")
					must(tb, err)
					defer c.close()
					_, err = c.do("ACL", "SETUSER", who, "+acl|setuser")
					must(tb, err)
				}, err
			},
			Logs: func() []byte {
				b, err := os.ReadFile(srv.Log)
				must(tb, err)
				c, err := srv.as("other", "another-value-entirely")
				must(tb, err)
				defer c.close()
				slow, err := c.everything("SLOWLOG", "GET", "1000")
				must(tb, err)
				return append(b, slow...)
			},
		}
	}
}

// find is the id of the connection of user from addr.
func (s *server) find(tb testing.TB, user, addr string) uint32 {
	tb.Helper()
	for line := range strings.SplitSeq(string(s.do(tb, "CLIENT", "LIST").text), "\n") {
		var id uint32
		if strings.Contains(line, " addr="+addr+" ") && strings.Contains(line, " user="+user+" ") {
			_, err := fmt.Sscanf(line, "id=%d", &id)
			must(tb, err)
			return id
		}
	}
	tb.Fatal("no such connection")
	return 0
}

// everything is a command's reply as it came, the fixture's own passwords left out.
func (c *conn) everything(args ...string) ([]byte, error) {
	if _, err := fmt.Fprintf(c, "*%d\r\n", len(args)); err != nil {
		return nil, err
	}
	for _, a := range args {
		fmt.Fprintf(c, "$%d\r\n%s\r\n", len(a), a)
	}
	fmt.Fprint(c, "*2\r\n$4\r\nECHO\r\n$16\r\nend-of-the-reply\r\n")
	var out strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(line, "end-of-the-reply") {
			return []byte(strings.ReplaceAll(out.String(), ">first-value-of-the-user", "")), nil
		}
		out.WriteString(line)
	}
}

func TestConformanceAdmin(t *testing.T) { rotatetest.Test(t, open(start(t, true), "admin")) }

func TestConformanceSelf(t *testing.T) { rotatetest.Once(t, open(start(t, true), "self")) }

func TestConformanceURL(t *testing.T) { rotatetest.Once(t, open(start(t, true), "url")) }

// job is one of a user that boss rotates.
func job(srv *server, user, current, candidate string) rotate.Job {
	return rotate.Job{
		Intent: "i", Credential: guard.Credential{Name: "cache", Hosts: []string{"127.0.0.1:" + srv.Port}, User: user}, Options: map[string]string{"admin": "boss"},
		Current: guard.NewSecret([]byte(current)), Candidate: guard.NewSecret([]byte(candidate)),
		Admin: func(string) (guard.Secret, guard.Credential, error) {
			return guard.NewSecret([]byte(boss)), guard.Credential{Name: "boss", User: "boss"}, nil
		},
	}
}

const first, second = "first-value-of-the-user", "second-value-of-the-user"

// An intruder who is logged in gives the user a password of his own, over and over.
func TestIntruderWithAPasswordOfHisOwn(t *testing.T) {
	srv := start(t, true)
	srv.do(t, "ACL", "SETUSER", "app", "on", ">"+first, "~*", "+@all")
	done := make(chan int)
	go func() {
		n := 0
		for {
			c, err := srv.as("app", first)
			if err != nil {
				if c, err = srv.as("app", "the-password-of-the-intruder"); err != nil {
					done <- n
					return
				}
			}
			for err == nil {
				if _, err = c.do("ACL", "SETUSER", "app", ">the-password-of-the-intruder", "nopass"); err == nil {
					n++
				}
			}
			c.close()
		}
	}()
	testutil.WaitFor(t, "he is in", func() bool {
		c, err := srv.as("app", "the-password-of-the-intruder")
		if err == nil {
			c.close()
		}
		return err == nil
	})
	j := job(srv, "app", first, second)
	j.Emergency = true
	// What the runner does: revoked again until the old value is refused.
	testutil.WaitFor(t, "he is out", func() bool {
		must(t, Provider{}.Revoke(context.Background(), j))
		return errors.Is(Provider{}.Verify(context.Background(), j, j.Current), rotate.ErrRefused)
	})
	if n := <-done; n == 0 {
		t.Error("he did nothing")
	}
	for _, pw := range []string{first, "the-password-of-the-intruder", "anything"} {
		if _, err := srv.as("app", pw); !errors.Is(err, rotate.ErrRefused) {
			t.Errorf("%s: %v", pw, err)
		}
	}
}

// Without an ACL file or a configuration file, a restart brings the old password back.
func TestWhatARestartBringsBack(t *testing.T) {
	srv := start(t, false)
	srv.do(t, "ACL", "SETUSER", "app", "on", ">"+first, "~*", "+@all")
	j := job(srv, "app", first, second)
	for _, err := range []error{Provider{}.Check(context.Background(), j), func() error { _, err := Provider{}.Mint(context.Background(), j); return err }()} {
		if !errors.Is(err, rotate.ErrPermanent) || !strings.Contains(err.Error(), "aclfile") {
			t.Error(err)
		}
	}
	if _, err := srv.as("app", second); !errors.Is(err, rotate.ErrRefused) {
		t.Errorf("minted all the same: %v", err)
	}
	j.Options["volatile"] = "yes"
	_, err := Provider{}.Mint(context.Background(), j)
	must(t, err)
	must(t, Provider{}.Revoke(context.Background(), j))
}

func TestSaysWhatIsMissing(t *testing.T) {
	srv := start(t, true)
	srv.do(t, "ACL", "SETUSER", "app", "on", ">"+first, "~*", "+@all")
	for what, change := range map[string]func(*rotate.Job){
		"does not exist": func(j *rotate.Job) { j.Credential.User = "nobody" },
		"+acl +client": func(j *rotate.Job) {
			j.Admin = func(string) (guard.Secret, guard.Credential, error) {
				return guard.NewSecret([]byte("of-somebody-weak")), guard.Credential{Name: "weak", User: "weak"}, nil
			}
		},
		"leave admin= out":    func(j *rotate.Job) { j.Credential.User = "boss" },
		"where is the server": func(j *rotate.Job) { j.Credential.Hosts = nil },
		"not a number":        func(j *rotate.Job) { j.Options["port"] = "redis" },
		"tls":                 func(j *rotate.Job) { j.Options["tls"] = "maybe" },
		"speak TLS":           func(j *rotate.Job) { j.Options["tls"] = "yes" },
	} {
		srv.do(t, "ACL", "SETUSER", "weak", "on", ">of-somebody-weak", "+ping")
		j := job(srv, "app", first, second)
		change(&j)
		if err := (Provider{}).Check(context.Background(), j); err == nil || !strings.Contains(err.Error(), what) || strings.Contains(err.Error(), first) {
			t.Errorf("want %q: %v", what, err)
		}
	}
}
