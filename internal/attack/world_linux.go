package attack

import (
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	nameAllowed  = "attack-allowed"
	nameStored   = "attack-stored"
	apiHost      = "api.example.com"
	attackerHost = "attacker.example.net"
)

// world is what one boundary is attacked in. It is thrown away.
type world struct {
	exe, boundary, only string
	top, home, project  string
	guardHome, key      string
	runtime             string
	nonce               string
	env                 []string

	values      map[string]string // allowed, stored, found, process, socket, key
	placeholder string
	other       string

	ca                    *authority
	apiPort, attackerPort int
	busPort, udpPort      int
	victim                *exec.Cmd
	ring                  int

	used      atomic.Bool // the rightful use got to the server
	busAsked  atomic.Int64
	datagrams atomic.Int64
	mu        sync.Mutex
	socketHit map[string]int
	attacker  map[string][]byte // what came, by case
	api       map[string][]byte
	output    []byte // of the session, standard output and error
	terminal  []byte // of the session with a terminal
	typed     []byte // what was left for the shell to read

	repoFile, configFile []byte
	exeWas               fs.FileInfo
	closers              []func()
	wg                   sync.WaitGroup
}

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// canary is a random value in the shape of a token; nobody's.
func canary() string {
	b := make([]byte, 36)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	for i := range b {
		b[i] = base62[int(b[i])%len(base62)]
	}
	return "ghp" + "_" + string(b)
}

// authority is a certificate authority of this world's.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "guard attack"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{key, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, nil
}

func (a *authority) leaf(hosts ...string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: hosts[0]}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: hosts, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, &key.PublicKey, a.key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// newWorld makes a world. close takes it away, also after an error.
func newWorld(exe, boundary, only string) (_ *world, err error) {
	w := &world{exe: exe, boundary: boundary, only: only, socketHit: map[string]int{}, attacker: map[string][]byte{}, api: map[string][]byte{}, values: map[string]string{}}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.top, err = os.MkdirTemp("", "guard-attack-"); err != nil {
		return nil, err
	}
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	w.nonce = hex.EncodeToString(b[:])
	w.home, w.project = filepath.Join(w.top, "home"), filepath.Join(w.top, "project")
	w.guardHome, w.key, w.runtime = filepath.Join(w.top, "gh"), filepath.Join(w.top, "key"), filepath.Join(w.top, "run")
	for _, name := range []string{"allowed", "stored", "process", "socket", "key", "copy"} {
		w.values[name] = canary()
	}
	for _, d := range []string{w.home, w.project, w.runtime, filepath.Join(w.home, "bin")} {
		if err = os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	w.env = []string{"HOME=" + w.home, "GUARD_HOME=" + w.guardHome, "GUARD_KEYFILE=" + w.key, "XDG_RUNTIME_DIR=" + w.runtime, "PATH=" + os.Getenv("PATH"), "TERM=xterm", "LANG=C.UTF-8",
		"DBUS_SESSION_BUS_ADDRESS=unix:path=" + filepath.Join(w.runtime, "bus"), "SSH_AUTH_SOCK=" + filepath.Join(w.runtime, "ssh-agent.sock"),
		"GNOME_KEYRING_CONTROL=" + filepath.Join(w.runtime, "keyring"), "TMUX=" + filepath.Join(w.runtime, "tmux-0/default") + ",1,0"}
	if d := os.Getenv("TMPDIR"); d != "" {
		w.env = append(w.env, "TMPDIR="+d)
	}
	if err = w.serve(); err != nil {
		return nil, fmt.Errorf("start the servers: %w", err)
	}
	if err = w.plant(); err != nil {
		return nil, fmt.Errorf("lay out what is to be attacked: %w", err)
	}
	return w, w.store()
}

// serve starts the credential's host, the adversary's, and what else listens.
func (w *world) serve() error {
	var err error
	if w.ca, err = newAuthority(); err != nil {
		return err
	}
	start := func(h http.HandlerFunc, hosts ...string) (int, error) {
		s := httptest.NewUnstartedServer(h)
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		if len(hosts) > 0 {
			cert, err := w.ca.leaf(hosts...)
			if err != nil {
				return 0, err
			}
			s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
			s.StartTLS()
		} else {
			s.Start()
		}
		w.closers = append(w.closers, func() { s.CloseClientConnections(); s.Close() })
		return s.Listener.Addr().(*net.TCPAddr).Port, nil
	}
	if w.apiPort, err = start(w.serveAPI, apiHost); err != nil {
		return err
	}
	if w.attackerPort, err = start(w.serveAttacker, attackerHost); err != nil {
		return err
	}
	bus, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	w.busPort = bus.Addr().(*net.TCPAddr).Port
	w.accept(bus, func() { w.busAsked.Add(1) })
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	w.udpPort = udp.LocalAddr().(*net.UDPAddr).Port
	w.closers = append(w.closers, func() { udp.Close() })
	w.wg.Go(func() {
		b := make([]byte, 2000)
		for {
			if _, _, err := udp.ReadFrom(b); err != nil {
				return
			}
			w.datagrams.Add(1)
		}
	})
	return nil
}

// accept answers every connection with a value, as a keychain would.
func (w *world) accept(l net.Listener, hit func()) {
	w.closers = append(w.closers, func() { l.Close() })
	w.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			hit()
			_ = c.SetDeadline(time.Now().Add(time.Second))
			_, _ = io.WriteString(c, w.values["socket"]+"\n")
			c.Close()
		}
	})
}

func dump(r *http.Request) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s\nHost: %s\n", r.Method, r.RequestURI, r.Host)
	_ = r.Header.Write(&b)
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	b.Write(body)
	for _, p := range [][]byte{body, unbase64(body)} {
		if z, err := gzip.NewReader(bytes.NewReader(p)); err == nil {
			plain, _ := io.ReadAll(io.LimitReader(z, 1<<20))
			b.Write(plain)
		}
	}
	return b.Bytes()
}

func unbase64(b []byte) []byte {
	p, err := base64.StdEncoding.DecodeString(string(b))
	if err != nil {
		return nil
	}
	return p
}

// caseOf is the case of a request's path: the part behind the first.
func caseOf(path string) string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if len(parts) < 2 {
		return ""
	}
	return parts[1]
}

func (w *world) serveAttacker(rw http.ResponseWriter, r *http.Request) {
	b := dump(r)
	w.mu.Lock()
	defer w.mu.Unlock()
	name := caseOf(r.URL.Path)
	w.attacker[name] = append(w.attacker[name], b...)
}

// serveAPI is the credential's host: it knows the value, repeats it, and publishes
// what it is told.
func (w *world) serveAPI(rw http.ResponseWriter, r *http.Request) {
	b := dump(r)
	name := caseOf(r.URL.Path)
	w.mu.Lock()
	w.api[name] = append(w.api[name], b...)
	w.mu.Unlock()
	if strings.HasPrefix(r.URL.Path, "/redirect/") {
		http.Redirect(rw, r, "https://"+attackerHost+"/a/"+name, http.StatusFound)
		return
	}
	if r.Header.Get("Authorization") != "Bearer "+w.values["allowed"] {
		rw.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.used.Store(true)
	v := w.values["allowed"]
	rw.Header().Set("X-Token", v)
	if name != "replies" {
		return
	}
	fmt.Fprintf(rw, "%s %s %s %s\n", v, base64.StdEncoding.EncodeToString([]byte(v)), base64.StdEncoding.EncodeToString([]byte("xy"+v)), hex.EncodeToString([]byte(v)))
}

// plant lays out files, sockets, a process and a key with values of their own.
func (w *world) plant() error {
	w.repoFile, w.configFile = []byte("# what this project needs: nothing\n"), []byte("# the user's settings\n")
	files := map[string]string{
		filepath.Join(w.project, ".env"):              "API_TOKEN=" + w.values["allowed"] + "\n",
		filepath.Join(w.project, "config/.env"):       "OTHER_TOKEN=" + w.values["stored"] + "\n",
		filepath.Join(w.project, "lib/attributes"):    "nothing\n",
		filepath.Join(w.home, ".npmrc"):               "//registry.example.com/:_authToken=" + w.values["allowed"] + "\n",
		filepath.Join(w.home, ".netrc"):               "machine api.example.com login x password " + w.values["stored"] + "\n",
		filepath.Join(w.home, ".aws/credentials"):     "[default]\naws_secret_access_key = " + w.values["stored"] + "\n",
		filepath.Join(w.home, ".config/guard/config"): "",
		filepath.Join(w.home, "music/a/b/c/d/e/one"):  "x " + w.values["copy"] + "\n",
		filepath.Join(w.home, ".bashrc"):              "# the user's\n",
		filepath.Join(w.top, "ca.pem"):                string(w.ca.pem),
	}
	files[filepath.Join(w.home, ".config/guard/config.toml")] = string(w.configFile)
	delete(files, filepath.Join(w.home, ".config/guard/config"))
	for p, text := range files {
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			return err
		}
	}
	_ = unix.Setxattr(filepath.Join(w.project, "lib/attributes"), "user.note", []byte(w.values["copy"]), 0)
	var err error
	if w.exeWas, err = os.Stat(w.exe); err != nil {
		return err
	}
	b, err := os.ReadFile(w.exe)
	if err != nil {
		return err
	}
	if err := os.WriteFile(w.agent(), b, 0o755); err != nil {
		return err
	}
	for _, s := range userSockets {
		if err := w.listen(s.name, w.place(s.plant)); err != nil {
			return err
		}
	}
	if err := w.listen("guard-socket", filepath.Join(w.runtime, "guard", "attack.sock")); err != nil {
		return err
	}
	abstract, err := net.Listen("unix", "@"+w.abstract())
	if err != nil {
		return err
	}
	w.accept(abstract, func() { w.hit("abstract") })

	// A process of the user's with a value in its environment, its memory and a file.
	unlinked, err := os.CreateTemp(w.top, "open")
	if err != nil {
		return err
	}
	defer unlinked.Close()
	if _, err := unlinked.WriteString(w.values["process"]); err != nil {
		return err
	}
	if err := os.Remove(unlinked.Name()); err != nil {
		return err
	}
	w.victim = exec.Command("/bin/sleep", "600")
	w.victim.Env = []string{"TOKEN=" + w.values["process"]}
	w.victim.ExtraFiles = []*os.File{unlinked}
	if err := w.victim.Start(); err != nil {
		return err
	}
	w.closers = append(w.closers, func() { _ = w.victim.Process.Kill(); _ = w.victim.Wait() })
	// A key in the kernel's keyring of this user, where there is one.
	if id, err := unix.AddKey("user", w.keyName(), []byte(w.values["key"]), unix.KEY_SPEC_USER_KEYRING); err == nil {
		w.ring = unix.KEY_SPEC_USER_KEYRING
		w.closers = append(w.closers, func() { _, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_KEYRING, 0, 0) })
	}
	return nil
}

func (w *world) agent() string    { return filepath.Join(w.home, "bin", "guard") }
func (w *world) abstract() string { return "guard-attack-" + w.nonce }
func (w *world) keyName() string  { return "guard-attack-" + w.nonce }

func (w *world) place(p string) string {
	switch {
	case strings.HasPrefix(p, "~/"):
		return filepath.Join(w.home, p[2:])
	case strings.HasPrefix(p, "./"):
		return filepath.Join(w.project, p[2:])
	}
	return filepath.Join(w.runtime, p)
}

// listen makes a socket at path. A path that is too long is bound by a name of its folder.
func (w *world) listen(name, path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	at := path
	if len(path) > 100 {
		d, err := os.Open(dir)
		if err != nil {
			return err
		}
		defer d.Close()
		at = fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), filepath.Base(path))
	}
	l, err := net.Listen("unix", at)
	if err != nil {
		return err
	}
	if err := os.Chmod(path, 0o777); err != nil {
		l.Close()
		return err
	}
	w.accept(l, func() { w.hit(name) })
	return nil
}

func (w *world) hit(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.socketHit[name]++
}

func (w *world) asked(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.socketHit[name]
}

// target is what the agent is told in a session.
func (w *world) target(tty bool, guard int) target {
	t := target{Boundary: w.boundary, Case: w.only, TTY: tty, Nonce: w.nonce, Guard: guard, Victim: w.victim.Process.Pid, Exe: w.exe, GuardHome: w.guardHome, Key: w.key,
		Home: w.home, Project: w.project, Runtime: w.runtime, Sockets: map[string][]string{}, Abstract: w.abstract(), BusPort: w.busPort, AttackerPort: w.attackerPort,
		UDPPort: w.udpPort, APIHost: apiHost, AttackerHost: attackerHost, AttackerCA: string(w.ca.pem), Placeholder: w.placeholder, Other: w.other, KeyName: w.keyName(), KeyRing: w.ring,
		Lacks: map[string]bool{}, Hashes: map[string]string{}, Report: filepath.Join(w.project, fmt.Sprintf("report-%t.jsonl", tty))}
	for _, s := range userSockets {
		t.Sockets[s.name] = append([]string{w.place(s.plant)}, realSockets(s.real)...)
	}
	for _, f := range families {
		err := openSocket(f.fam, f.typ, f.pro)
		t.Lacks[f.name] = errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ESOCKTNOSUPPORT)
	}
	for name, v := range w.values {
		sum := sha256.Sum256([]byte(v))
		t.Hashes[hex.EncodeToString(sum[:])] = "the " + name + " value"
	}
	// Two halves that say nothing one by one: the agent has the value from elsewhere.
	v := []byte(w.values["stored"])
	pad := make([]byte, len(v))
	_, _ = rand.Read(pad) // never fails (crypto/rand)
	t.Half1 = hex.EncodeToString(pad)
	for i := range pad {
		pad[i] ^= v[i]
	}
	t.Half2 = hex.EncodeToString(pad)
	return t
}

// realSockets are those of names that are there on this machine.
func realSockets(names []string) []string {
	var all []string
	for _, n := range names {
		n, _, _ = strings.Cut(os.ExpandEnv(n), ",")
		n = strings.TrimPrefix(n, "unix:path=")
		if fi, err := os.Stat(n); filepath.IsAbs(n) && err == nil && fi.Mode()&fs.ModeSocket != 0 {
			all = append(all, "real:"+n)
		}
	}
	return all
}

// close takes everything away.
func (w *world) close() {
	for i := len(w.closers) - 1; i >= 0; i-- {
		w.closers[i]()
	}
	w.closers = nil
	w.wg.Wait()
	if w.top == "" {
		return
	}
	// A session's layers hold folders that nobody may enter.
	_ = filepath.WalkDir(w.top, func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	_ = os.RemoveAll(w.top)
}

// client is one of the world's own, outside.
func (w *world) client() *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.ca.pem)
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: apiHost}}}
}
