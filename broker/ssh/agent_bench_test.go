package ssh

import (
	"net"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	xssh "golang.org/x/crypto/ssh"
)

// BenchmarkAgentSign is logins a second through the agent, each with its record,
// decision and copy of the value, and through OpenSSH's ssh-agent, which holds the
// key parsed: the same messages on a Unix socket. The log is in memory here; in a session
// each use waits for the disk besides.
func BenchmarkAgentSign(b *testing.B) {
	for _, kind := range []struct {
		name, alg string
		flags     uint32
	}{{"ed25519", xssh.KeyAlgoED25519, 0}, {"ecdsa", xssh.KeyAlgoECDSA256, 0}, {"rsa", xssh.KeyAlgoRSASHA512, flagSHA512}} {
		value, _ := newKey(b, kind.name)
		_, host := newKey(b, "ed25519")
		sid := newSID(b)
		bench := func(b *testing.B, c *client) {
			key := c.key()
			if !c.bind(host, sid, false) {
				b.Fatal("bind")
			}
			_ = c.SetDeadline(time.Time{})
			data := login(sid, "git", kind.alg, key, host.PublicKey().Marshal())
			for b.Loop() {
				if c.sign(key, data, kind.flags) == nil {
					b.Fatal("refused")
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "signatures/s")
		}
		b.Run(kind.name+"/guard", func(b *testing.B) {
			w := newWorld(b, map[string][]byte{"deploy": value}, deploy("git.example.com"))
			w.knows("git.example.com", host.PublicKey())
			w.carries(host, sid, "git.example.com", 22)
			bench(b, w.dial())
		})
		b.Run(kind.name+"/ssh-agent", func(b *testing.B) { bench(b, openSSHAgent(b, value)) })
	}
}

// openSSHAgent starts ssh-agent with one key.
func openSSHAgent(b *testing.B, value []byte) *client {
	path := filepath.Join(b.TempDir(), "a")
	cmd := exec.Command("ssh-agent", "-D", "-a", path)
	if err := cmd.Start(); err != nil {
		b.Skip(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() })
	var conn net.Conn
	var err error
	for range 1000 {
		if conn, err = net.Dial("unix", path); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	check(b, err)
	b.Cleanup(func() { conn.Close() })
	add := exec.Command("ssh-add", "-q", "-")
	add.Env = append(add.Environ(), "SSH_AUTH_SOCK="+path)
	in, err := add.StdinPipe()
	check(b, err)
	check(b, add.Start())
	_, _ = in.Write(value)
	in.Close()
	check(b, add.Wait())
	return &client{conn, b}
}
