//go:build linux

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"guard/internal/testutil"
)

// sshkey KIND NAME: a new private key (ed25519, rsa, ecdsa) in $KEYS/NAME, its public half in
// $KEYS/NAME.pub and $NAME_PUB. The parts of it that are secret must be in no other file
// and in no output, as with the canaries.
func cmdSSHKey(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "sshkey KIND NAME")
	var key any
	var secret []byte
	var err error
	switch args[0] {
	case "ed25519":
		var k ed25519.PrivateKey
		_, k, err = ed25519.GenerateKey(rand.Reader)
		key, secret = k, k.Seed()
	case "rsa":
		var k *rsa.PrivateKey
		k, err = rsa.GenerateKey(rand.Reader, 2048)
		ts.Check(err)
		key, secret = k, k.D.Bytes()
	case "ecdsa":
		var k *ecdsa.PrivateKey
		k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		ts.Check(err)
		key, secret = k, k.D.FillBytes(make([]byte, 32))
	default:
		ts.Fatalf("sshkey %s", args[0])
	}
	ts.Check(err)
	block, err := ssh.MarshalPrivateKey(key, "")
	ts.Check(err)
	text := pem.EncodeToMemory(block)
	s := stateOf(ts)
	s.t.plant(args[1], string(secret)) // its base64 and hex are looked for too
	s.t.plant(args[1]+" (file)", sshSecretLine(ts, block.Bytes, secret, text))
	signer, err := ssh.NewSignerFromKey(key)
	ts.Check(err)
	dir := filepath.Join(ts.Getenv("WORK"), "keys")
	ts.Check(os.MkdirAll(dir, 0o700))
	ts.Setenv("KEYS", dir)
	file := filepath.Join(dir, args[1])
	ts.Check(os.WriteFile(file, text, 0o600))
	s.t.holds(file)
	pub := bytes.TrimSpace(ssh.MarshalAuthorizedKey(signer.PublicKey()))
	ts.Check(os.WriteFile(file+".pub", append(pub, '\n'), 0o644))
	ts.Setenv(strings.ToUpper(args[1])+"_PUB", string(pub))
}

// keyfile FILE: it holds a key rightly.
func cmdKeyFile(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 1, "keyfile FILE")
	stateOf(ts).t.holds(ts.MkAbs(args[0]))
}

// sshSecretLine is a line of the key's file that has nothing but secret bytes.
func sshSecretLine(ts *testscript.TestScript, blob, secret, text []byte) string {
	const width = 48 // bytes in a line of PEM
	at := bytes.Index(blob, secret)
	if at < 0 {
		ts.Fatalf("the key's file does not hold the key as it is")
	}
	lines := strings.Split(string(text), "\n")[1:]
	line := lines[(at+len(secret)/2)/width]
	return line[:min(len(line), 64)]
}

// sshserver HOST [VAR=VALUE...]: sshd on 127.0.0.1, which lets $SSH_USER log in with the keys in
// $KEYS/authorized_keys, or a certificate by $KEYS/ca.pub. Its key is in the user's known_hosts as
// HOST's, and in $KEYS/HOST.hostkey. $SSH_PORT is its port; with strange=1 its key is known nowhere.
func cmdSSHServer(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 1 {
		ts.Fatalf("usage: sshserver HOST [strange=1]")
	}
	s := stateOf(ts)
	sshd, err := exec.LookPath("/usr/sbin/sshd")
	if err != nil && os.Getenv("GUARD_TEST_ALL") == "" {
		s.t.T.Skip("sshd is not installed: apt-get install openssh-server")
	}
	ts.Check(err)
	keys := filepath.Join(ts.Getenv("WORK"), "keys")
	ts.Check(os.MkdirAll(keys, 0o700))
	_, hostKey, err := ed25519.GenerateKey(rand.Reader)
	ts.Check(err)
	block, err := ssh.MarshalPrivateKey(hostKey, "")
	ts.Check(err)
	dir := s.t.T.TempDir()
	file := filepath.Join(dir, "host")
	ts.Check(os.WriteFile(file, pem.EncodeToMemory(block), 0o600))
	signer, err := ssh.NewSignerFromKey(hostKey)
	ts.Check(err)
	pub := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	ts.Check(os.WriteFile(filepath.Join(keys, args[0]+".hostkey"), []byte(args[0]+" "+pub+"\n"), 0o644))
	if !slices.Contains(args[1:], "strange=1") {
		home := filepath.Join(ts.Getenv("HOME"), ".ssh")
		ts.Check(os.MkdirAll(home, 0o700))
		f, err := os.OpenFile(filepath.Join(home, "known_hosts"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		ts.Check(err)
		_, err = fmt.Fprintf(f, "%s %s\n", args[0], pub)
		ts.Check(err)
		ts.Check(f.Close())
	}
	port := strconv.Itoa(testutil.FreePort(s.t.T))
	conf := filepath.Join(dir, "conf")
	text := "Port " + port + "\nListenAddress 127.0.0.1\nHostKey " + file + "\nAuthorizedKeysFile " + keys + "/authorized_keys\nUsePAM no\nStrictModes no\nPasswordAuthentication no\n" +
		"KbdInteractiveAuthentication no\nSubsystem sftp internal-sftp\nPidFile none\nLogLevel VERBOSE\nAllowAgentForwarding yes\nMaxStartups 100\n"
	if _, err := os.Stat(keys + "/ca.pub"); err == nil {
		text += "TrustedUserCAKeys " + keys + "/ca.pub\n"
	}
	ts.Check(os.WriteFile(conf, []byte(text), 0o600))
	me, err := osuser.Current()
	ts.Check(err)
	ts.Setenv("SSH_USER", me.Username)
	ts.Setenv("SSH_PORT", port)
	log, err := os.Create(filepath.Join(dir, "log"))
	ts.Check(err)
	defer log.Close()
	ts.Setenv("SSH_LOG", log.Name())
	// Root's sshd wants a folder in /run; a user without a shell of his own gets one. Both
	// are this process's alone.
	script := "mount -t tmpfs none /run && mkdir /run/sshd && exec " + sshd + " -D -e -f " + conf
	flags := []string{"--mount"}
	if me.Uid != "0" {
		passwd := filepath.Join(dir, "passwd")
		ts.Check(os.WriteFile(passwd, []byte(fmt.Sprintf("root:x:0:0::/:/bin/sh\n%s:x:%s:%s::%s:/bin/sh\nsshd:x:65534:65534::/:/bin/false\n", me.Username, me.Uid, me.Gid, ts.Getenv("HOME"))), 0o644))
		script = "mount --bind " + passwd + " /etc/passwd && exec " + sshd + " -D -e -f " + conf
		flags = []string{"--user", "--map-current-user", "--keep-caps", "--mount"}
	}
	cmd := exec.Command("unshare", append(flags, "sh", "-c", script)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "HOME="+ts.Getenv("HOME"))
	ts.Check(cmd.Start())
	s.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	wait(ts, "sshd answers", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}
