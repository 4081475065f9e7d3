package ssh

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	xssh "golang.org/x/crypto/ssh"

	"guard"
	"guard/internal/testutil"
	"guard/rotate"
	"guard/rotate/rotatetest"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// newKey is a private key and its line of authorized keys.
func newKey(tb testing.TB, comment string) (private, line string) {
	tb.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	must(tb, err)
	block, err := xssh.MarshalPrivateKey(k, comment)
	must(tb, err)
	private = string(pem.EncodeToMemory(block))
	return private, lineOf(tb, private) + " " + comment
}

func lineOf(tb testing.TB, private string) string {
	tb.Helper()
	line, _, err := public(guard.NewSecret([]byte(private)))
	must(tb, err)
	return line
}

// server is a real sshd in namespaces of its own, where the processes are its own and
// the account "app" exists; with root, "root" too.
type server struct {
	Port, Dir, User string
	Boss            string // private key of root's
}

func (s *server) file(name string) string { return filepath.Join(s.Dir, name) }
func (s *server) keys() string            { return filepath.Join(s.Dir, "home", ".ssh", "authorized_keys") }

const appID = 61234

func start(tb testing.TB, settings ...string) *server {
	tb.Helper()
	if os.Getenv("GUARD_ROTATETEST_CHILD") != "" {
		return nil // a child attaches to its parent's
	}
	sshd := testutil.Need(tb, "/usr/sbin/sshd", "openssh-server")
	me, err := osuser.Current()
	must(tb, err)
	dir, err := os.MkdirTemp("", "guard-sshd")
	must(tb, err)
	tb.Cleanup(func() { os.RemoveAll(dir) })
	must(tb, os.Chmod(dir, 0o755))
	s := &server{Port: strconv.Itoa(testutil.FreePort(tb)), Dir: dir, User: "app"}
	uid, gid := appID, appID
	flags := []string{"--mount", "--pid", "--fork", "--kill-child", "--mount-proc"}
	if me.Uid != "0" {
		uid, gid = os.Getuid(), os.Getgid()
		flags = append([]string{"--user", "--map-current-user", "--keep-caps"}, flags...)
	}
	if out, err := exec.Command("unshare", append(flags, "true")...).CombinedOutput(); err != nil {
		tb.Skipf("no namespaces for a server of one's own: %s", out)
	}
	must(tb, os.MkdirAll(filepath.Dir(s.keys()), 0o700))
	for _, p := range []string{s.file("home"), filepath.Dir(s.keys())} {
		must(tb, os.Chown(p, uid, gid))
	}
	host, hostLine := newKey(tb, "host")
	must(tb, os.WriteFile(s.file("host"), []byte(host), 0o600))
	must(tb, os.WriteFile(s.file("known_hosts"), []byte("127.0.0.1 "+hostLine+"\n"), 0o644))
	var bossLine string
	s.Boss, bossLine = newKey(tb, "boss")
	must(tb, os.WriteFile(s.file("root_keys"), []byte(bossLine+"\n"), 0o644))
	must(tb, os.WriteFile(s.file("ca.pub"), nil, 0o644))
	must(tb, os.WriteFile(s.file("krl"), nil, 0o644))
	passwd := fmt.Sprintf("root:*:0:0::/:/bin/sh\napp:*:%d:%d::%s:/bin/sh\nsshd:*:65534:65534::/:/bin/false\n", uid, gid, s.file("home"))
	must(tb, os.WriteFile(s.file("passwd"), []byte(passwd), 0o644))
	conf := "Port " + s.Port + "\nListenAddress 127.0.0.1\nHostKey " + s.file("host") + "\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n" +
		"PidFile none\nLogLevel VERBOSE\nMaxStartups 1000\nUseDNS no\nPermitRootLogin yes\nRevokedKeys " + s.file("krl") + "\nTrustedUserCAKeys " + s.file("ca.pub") + "\n" +
		strings.Join(settings, "\n") + "\nAuthorizedKeysFile .ssh/authorized_keys\nMatch User root\nAuthorizedKeysFile " + s.file("root_keys") + "\n"
	must(tb, os.WriteFile(s.file("conf"), []byte(conf), 0o600))
	log, err := os.Create(s.file("log"))
	must(tb, err)
	defer log.Close()
	// Root's sshd wants a folder in /run.
	script := "mount -t tmpfs none /run && mkdir /run/sshd && mount --bind " + s.file("passwd") + " /etc/passwd && exec " + sshd + " -D -e -f " + s.file("conf")
	cmd := exec.Command("unshare", append(flags, "sh", "-c", script)...)
	cmd.Stdout, cmd.Stderr = log, log
	must(tb, cmd.Start())
	tb.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	testutil.WaitFor(tb, "sshd answers", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+s.Port)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return s
}

// write puts lines into the account's keys.
func (s *server) write(tb testing.TB, lines ...string) {
	tb.Helper()
	must(tb, os.WriteFile(s.keys(), []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	if os.Getuid() == 0 {
		must(tb, os.Chown(s.keys(), appID, appID))
	}
}

func (s *server) read(tb testing.TB, name string) string {
	tb.Helper()
	b, err := os.ReadFile(name)
	must(tb, err)
	return string(b)
}

// as logs in. The host's key is not asked for: it is not this that is tested.
func (s *server) as(user string, key xssh.Signer) (*xssh.Client, error) {
	c, err := xssh.Dial("tcp", "127.0.0.1:"+s.Port, &xssh.ClientConfig{User: user, Auth: []xssh.AuthMethod{xssh.PublicKeys(key)}, HostKeyCallback: xssh.InsecureIgnoreHostKey()})
	if err != nil && strings.Contains(err.Error(), "unable to authenticate") {
		err = rotate.ErrRefused
	}
	return c, err
}

func (s *server) with(private string, ca bool) (*xssh.Client, error) {
	k, err := xssh.ParsePrivateKey([]byte(private))
	if err == nil && ca {
		k, err = certify(k, s.User)
	}
	if err != nil {
		return nil, err
	}
	return s.as(s.User, k)
}

// session is one that is open, with a process in it that says its id.
func (s *server) session(tb testing.TB, private string, ca bool) (pid uint32, alive func() bool, err error) {
	c, err := s.with(private, ca)
	if err != nil {
		return 0, nil, err
	}
	tb.Cleanup(func() { c.Close() })
	x, err := c.NewSession()
	must(tb, err)
	in, err := x.StdinPipe()
	must(tb, err)
	out, err := x.StdoutPipe()
	must(tb, err)
	must(tb, x.Start("echo $$; exec cat"))
	if _, err := fmt.Fscanln(out, &pid); err != nil {
		return 0, nil, err
	}
	return pid, func() bool {
		b := make([]byte, 2)
		if _, err := io.WriteString(in, "x\n"); err != nil {
			return false
		}
		_, err := io.ReadFull(out, b)
		return err == nil
	}, nil
}

type state struct {
	Server server
	Mode   string
}

const comment0 = "deploy@ci"

// open makes a key of the account, which is rotated by root ("admin"), by itself
// ("self"), or with a list of revoked keys ("krl"), or an authority ("ca").
func open(srv *server, mode string) rotatetest.Open {
	return func(tb testing.TB, attach string) rotatetest.Fixture {
		tb.Helper()
		st := state{Mode: mode}
		var value string
		if attach != "" {
			must(tb, json.Unmarshal([]byte(attach), &st))
			srv = &st.Server
		} else {
			st.Server = *srv
			var line string
			value, line = newKey(tb, comment0)
			if mode == "ca" {
				must(tb, os.WriteFile(srv.file("ca.pub"), []byte("# trusted\n"+line+"\n"), 0o644))
			} else {
				srv.write(tb, "# keys", "no-pty "+line)
			}
		}
		b, err := json.Marshal(st)
		must(tb, err)
		ca := mode == "ca"
		cred := guard.Credential{Name: "deploy", Kind: "ssh-key", Hosts: []string{"127.0.0.1:" + srv.Port}, User: srv.User, Rotate: "ssh,known_hosts=" + srv.file("known_hosts")}
		f := rotatetest.Fixture{Name: "ssh", Provider: Key{}, State: string(b), Value: value, Slow: true}
		if ca {
			f.Name, f.Provider = "ssh-ca", CA{}
			cred.Kind, cred.Rotate = "ssh-ca", "ssh-ca,trusted="+srv.file("ca.pub")+",krl="+srv.file("krl")+",known_hosts="+srv.file("known_hosts")
		}
		if mode == "krl" {
			cred.Rotate += ",krl=" + srv.file("krl")
		}
		if mode != "self" {
			cred.Rotate += ",admin=boss"
			f.Others = []rotatetest.Other{{Credential: guard.Credential{Name: "boss", Kind: "ssh-key", Hosts: cred.Hosts, User: "root"}, Value: srv.Boss}}
		}
		f.Credential = cred
		f.Login = func(v string) error {
			c, err := srv.with(v, ca)
			if err == nil {
				c.Close()
			}
			return err
		}
		f.Session = func(v string) (uint32, func() bool, error) { return srv.session(tb, v, ca) }
		if !ca {
			f.Lock = func() (func(), error) {
				// The account may not write its own folder of keys.
				dir := filepath.Dir(srv.keys())
				return func() { must(tb, os.Chmod(dir, 0o700)) }, os.Chmod(dir, 0o500)
			}
		}
		f.Logs = func() []byte { return []byte(srv.read(tb, srv.file("log"))) }
		return f
	}
}

func root(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("an account of its own needs root")
	}
}

func TestConformanceAdmin(t *testing.T) {
	root(t)
	if os.Getenv("GUARD_KILLS") == "" { // each login costs; TestKills dies at some points all the same
		rotatetest.Once(t, open(start(t), "admin"))
		return
	}
	rotatetest.Test(t, open(start(t), "admin"))
}

func TestKills(t *testing.T) {
	root(t)
	rotatetest.Kills(t, open(start(t), "krl"))
}

func BenchmarkLeak(b *testing.B) {
	root(b)
	rotatetest.Leak(b, open(start(b), "krl"))
}

func TestConformanceSelf(t *testing.T) { rotatetest.Once(t, open(start(t), "self")) }

func TestConformanceCA(t *testing.T) {
	root(t)
	rotatetest.Once(t, open(start(t), "ca"))
}

// job is one of a key that root rotates.
func job(srv *server, current, candidate string, options ...string) rotate.Job {
	o := map[string]string{"known_hosts": srv.file("known_hosts"), "admin": "boss"}
	for i := 0; i+1 < len(options); i += 2 {
		o[options[i]] = options[i+1]
	}
	return rotate.Job{
		Intent: "i", Credential: guard.Credential{Name: "deploy", Hosts: []string{"127.0.0.1:" + srv.Port}, User: "app"}, Options: o,
		Current: guard.NewSecret([]byte(current)), Candidate: guard.NewSecret([]byte(candidate)),
		Admin: func(string) (guard.Secret, guard.Credential, error) {
			return guard.NewSecret([]byte(srv.Boss)), guard.Credential{Name: "boss", User: "root"}, nil
		},
	}
}

var ctx = context.Background()

func refused(err error) bool { return errors.Is(err, rotate.ErrRefused) }

func itoa(n int) string { return strconv.Itoa(n) }

func mustRaw(tb testing.TB, private string) any {
	tb.Helper()
	k, err := xssh.ParseRawPrivateKey([]byte(private))
	must(tb, err)
	return k
}

func pemOf(b *pem.Block) []byte { return pem.EncodeToMemory(b) }
