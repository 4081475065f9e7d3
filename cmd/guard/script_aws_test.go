//go:build linux

package main

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base32"
	"encoding/pem"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// s3Program is where internal/setup/s3.sh puts versitygw, an S3 server; "" where it
// could not be built.
func s3Program() string {
	path, err := filepath.Abs("../../.cache/versitygw")
	if err != nil {
		return ""
	}
	if env := os.Getenv("GUARD_TEST_S3"); env != "" {
		path = env
	}
	if _, err := exec.LookPath(path); err != nil {
		return ""
	}
	return path
}

// s3server NAME VAR: an S3 server at host NAME, whose secret key is $VAR. $S3_ID is
// its access key id, $S3_PORT its port, $AWS what scripts use for the AWS CLI.
func cmdS3Server(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "s3server NAME VAR")
	s := stateOf(ts)
	cert := authority(ts, s).Server(s.t.T, args[0])
	dir := s.t.T.TempDir()
	var chain bytes.Buffer
	for _, der := range cert.Certificate {
		ts.Check(pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	ts.Check(err)
	for name, b := range map[string][]byte{"cert.pem": chain.Bytes(), "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})} {
		ts.Check(os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
	data := filepath.Join(dir, "data")
	side := filepath.Join(dir, "side")
	ts.Check(os.Mkdir(data, 0o700))
	ts.Check(os.Mkdir(side, 0o700))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	addr := l.Addr().String()
	ts.Check(l.Close())
	id := newAccessKey()
	cmd := exec.Command(s3Program(), "--quiet", "--port", addr, "--cert", filepath.Join(dir, "cert.pem"), "--key", filepath.Join(dir, "key.pem"), "posix", "--sidecar", side, data)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID="+id, "ROOT_SECRET_ACCESS_KEY="+ts.Getenv(args[1]))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	ts.Check(cmd.Start())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	s.t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: s.ca.Pool(), ServerName: args[0]}}, Timeout: 5 * time.Second}
	wait(ts, "the S3 server answers", func() bool {
		select {
		case <-ended:
			ts.Fatalf("the S3 server ended: %s", out.String())
		default:
		}
		res, err := client.Get("https://" + addr + "/")
		if err != nil {
			return false
		}
		return res.Body.Close() == nil
	})
	_, port, _ := net.SplitHostPort(addr)
	ts.Setenv("S3_PORT", port)
	ts.Setenv("S3_ID", id)
}

// newAccessKey is one that nobody has.
func newAccessKey() string {
	var b [10]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return "AKIA" + base32.StdEncoding.EncodeToString(b[:])
}
