//go:build linux

package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"guard/internal/testutil"
)

type scriptCommand = func(ts *testscript.TestScript, neg bool, args []string)

// scriptCommands are what scripts can use besides testscript's own.
func scriptCommands() map[string]scriptCommand {
	return map[string]scriptCommand{
		"api": cmdAPI, "apitoken": cmdAPIToken, "apisaw": cmdAPISaw,
		"issuerapi": cmdIssuerAPI, "issuersaw": cmdIssuerSaw, "sink": cmdSink, "sinkgot": cmdSinkGot,
		"registry": cmdRegistry, "registrysaw": cmdRegistrySaw, "registrygot": cmdRegistryGot, "cargo": cmdCargo,
		"gitserver": cmdGitServer, "gitsaw": cmdGitSaw,
		"clientserver": cmdClientServer, "clientsaw": cmdClientSaw, "s3server": cmdS3Server, "cloud": cmdCloud,
		"sshkey": cmdSSHKey, "sshserver": cmdSSHServer, "keyfile": cmdKeyFile,
		"pg": cmdPG, "pglogin": cmdPGLogin, "redisserver": cmdRedisServer, "mailserver": cmdMailServer, "kubecert": cmdKubeCert, "imapserver": cmdIMAPServer, "mongoserver": cmdMongoServer, "rediscli": cmdRedisCLI,
		"hashivault": cmdHashiVault, "vaultdo": cmdVaultDo, "vaultroles": cmdVaultRoles,
		"mysql": cmdMySQL, "mysqlsays": cmdMySQLSays,
		"keyring": cmdKeyring, "echoserver": cmdEchoServer, "freeport": cmdFreePort,
		"holds": cmdHolds, "plant": cmdPlant, "waitfor": cmdWaitFor, "jsonkeys": cmdJSONKeys, "differ": cmdDiffer, "quietly": cmdQuietly,
		"records": cmdRecords, "oauth": cmdOAuth, "oidc": cmdOIDC, "oauthrefreshed": cmdOAuthRefreshed,
	}
}

func need(ts *testscript.TestScript, args []string, n int, usage string) {
	if len(args) != n {
		ts.Fatalf("usage: %s", usage)
	}
}

// wait is testutil.WaitFor in a script's words.
func wait(ts *testscript.TestScript, what string, cond func() bool) {
	for end := time.Now().Add(30 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("did not come true: %s", what)
		}
	}
}

// authority is the script's own CA; $CA is its file.
func authority(ts *testscript.TestScript, s *state) *testutil.CA {
	if s.ca == nil {
		s.ca = testutil.NewCA(s.t.T)
		ts.Setenv("CA", s.ca.File)
	}
	return s.ca
}

func portOf(rawURL string) string {
	u, _ := url.Parse(rawURL)
	return u.Port()
}

// api NAME VAR: an API at host NAME that takes the token in $VAR. $API_PORT is its port.
func cmdAPI(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "api NAME VAR")
	s := stateOf(ts)
	a := testutil.APIServer(s.t.T, authority(ts, s), ts.Getenv(args[1]), args[0])
	s.api[args[0]] = a
	ts.Setenv("API_PORT", portOf(a.URL))
}

// apitoken NAME FILE: from now on the API takes what is in FILE.
func cmdAPIToken(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "apitoken NAME FILE")
	stateOf(ts).api[args[0]].SetToken(strings.TrimSpace(ts.ReadFile(args[1])))
}

// [!] apisaw NAME VAR: the last request had the value of $VAR as its bearer token.
func cmdAPISaw(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "[!] apisaw NAME VAR")
	seen := stateOf(ts).api[args[0]].Seen()
	if got := len(seen) > 0 && seen[len(seen)-1] == "Bearer "+ts.Getenv(args[1]); got == neg {
		ts.Fatalf("%d requests came, the last one with $%s: %v", len(seen), args[1], got)
	}
}

// issuer is an API that takes the tokens in a file, as it is at each request.
type issuer struct {
	accepted string
	mu       sync.Mutex
	took     []string
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	b, err := os.ReadFile(i.accepted)
	if err != nil || token == "" || !slices.Contains(strings.Fields(string(b)), token) {
		http.Error(w, "bad credentials", http.StatusUnauthorized)
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.took = append(i.took, token)
	io.WriteString(w, "ok\n")
}

// issuerapi NAME FILE: an API at host NAME that takes the tokens in FILE, a line
// each. $API_PORT is its port.
func cmdIssuerAPI(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "issuerapi NAME FILE")
	s := stateOf(ts)
	i := &issuer{accepted: ts.MkAbs(args[1])}
	s.issuers[args[0]] = i
	ts.Setenv("API_PORT", portOf(testutil.HTTPSServer(s.t.T, authority(ts, s), i, args[0]).URL))
}

// [!] issuersaw NAME VAR: a request with the value of $VAR was served.
func cmdIssuerSaw(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "[!] issuersaw NAME VAR")
	i := stateOf(ts).issuers[args[0]]
	i.mu.Lock()
	defer i.mu.Unlock()
	if got := slices.Contains(i.took, ts.Getenv(args[1])); got == neg {
		ts.Fatalf("%d requests were served, one with $%s: %v", len(i.took), args[1], got)
	}
}

// sink is an HTTPS server that takes everything and answers 200.
type sink struct {
	mu  sync.Mutex
	got bytes.Buffer
	n   int
}

func (k *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	k.mu.Lock()
	k.n++
	fmt.Fprintf(&k.got, "%s %s\n", r.Method, r.RequestURI)
	r.Header.Write(&k.got)
	k.got.Write(body)
	for name, v := range r.Trailer {
		fmt.Fprintf(&k.got, "%s: %s\n", name, v)
	}
	k.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, `{"ok":true,"from":"sink"}`+"\n")
}

// sink NAME: a server at host NAME that keeps what comes. $SINK_PORT is its port.
func cmdSink(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 1, "sink NAME")
	s := stateOf(ts)
	k := &sink{}
	s.sinks[args[0]] = k
	var srv *httptest.Server = testutil.HTTPSServer(s.t.T, authority(ts, s), k, args[0])
	ts.Setenv("SINK_PORT", portOf(srv.URL))
}

// [!] sinkgot NAME TEXT|$VAR-in-any-encoding: what the server got holds it.
func cmdSinkGot(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "[!] sinkgot NAME TEXT")
	k := stateOf(ts).sinks[args[0]]
	k.mu.Lock()
	defer k.mu.Unlock()
	got := bytes.Contains(k.got.Bytes(), []byte(args[1]))
	if len(args[1]) >= 16 && !got {
		found, err := testutil.Find(args[1], k.got.Bytes(), unescape(k.got.Bytes()))
		ts.Check(err)
		got = len(found) > 0
	}
	if got == neg {
		ts.Fatalf("%d requests came; they hold it: %v\n%s", k.n, got, k.got.String())
	}
}

// gitserver NAME VAR: a git server at host NAME that takes the token in $VAR.
// $GIT_PORT is its port, $GIT_DIR_SERVED the bare repository.
func cmdGitServer(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "gitserver NAME VAR")
	s := stateOf(ts)
	s.git = testutil.GitServer(s.t.T, authority(ts, s), ts.Getenv(args[1]), args[0])
	ts.Setenv("GIT_PORT", portOf(s.git.URL))
	ts.Setenv("GIT_DIR_SERVED", s.git.Dir)
}

// [!] gitsaw VAR: the last password that the git server got is $VAR.
func cmdGitSaw(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 1, "[!] gitsaw VAR")
	seen := stateOf(ts).git.Seen()
	if got := len(seen) > 0 && seen[len(seen)-1] == ts.Getenv(args[0]); got == neg {
		ts.Fatalf("%d passwords came, the last one is $%s: %v", len(seen), args[0], got)
	}
}

// pg ROLE VAR: a role whose password is $VAR. $PG_PORT is the server's port.
func cmdPG(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "pg ROLE VAR")
	s := pgServer.Get(stateOf(ts).t.T)
	s.Exec(stateOf(ts).t.T, fmt.Sprintf("drop role if exists %s; create role %[1]s login password '%s'", args[0], ts.Getenv(args[1])))
	_, port, _ := net.SplitHostPort(s.Addr)
	ts.Setenv("PG_PORT", port)
}

// [!] pglogin ROLE VAR: the server takes $VAR as the role's password.
func cmdPGLogin(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "[!] pglogin ROLE VAR")
	s := pgServer.Get(stateOf(ts).t.T)
	err := ts.Exec("psql", "-XAtqc", "select 1", s.DSN(args[0], ts.Getenv(args[1])))
	if (err != nil) != neg {
		ts.Fatalf("login of %s: %v", args[0], err)
	}
}

// keyring: a session bus with an unlocked keyring, and its variables.
func cmdKeyring(ts *testscript.TestScript, neg bool, args []string) {
	for _, kv := range testutil.Keyring(stateOf(ts).t.T) {
		if k, v, _ := strings.Cut(kv, "="); k != "HOME" {
			ts.Setenv(k, v)
		}
	}
}

// echoserver tcp|udp VAR: a server on 127.0.0.1 that answers "echo " and what came;
// $VAR is its port, and VAR_GOT a file with what came.
func cmdEchoServer(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "echoserver tcp|udp VAR")
	s := stateOf(ts)
	file := ts.MkAbs("../" + args[1] + ".got")
	ts.Check(os.WriteFile(file, nil, 0o600))
	ts.Setenv(args[1]+"_GOT", file)
	keep := func(p []byte) {
		f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			f.Write(p)
			f.Close()
		}
	}
	var port int
	var wg sync.WaitGroup
	var stop io.Closer
	switch args[0] {
	case "tcp":
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		ts.Check(err)
		port, stop = l.Addr().(*net.TCPAddr).Port, l
		wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				wg.Go(func() {
					defer c.Close()
					end := time.AfterFunc(30*time.Second, func() { c.Close() })
					defer end.Stop()
					buf := make([]byte, 4096)
					first := "echo " // what was sent may come in pieces
					for {
						n, err := c.Read(buf)
						keep(buf[:n])
						if n > 0 {
							fmt.Fprintf(c, "%s%s", first, buf[:n])
							first = ""
						}
						if err != nil {
							return
						}
					}
				})
			}
		})
	case "udp":
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		ts.Check(err)
		port, stop = c.LocalAddr().(*net.UDPAddr).Port, c
		wg.Go(func() {
			buf := make([]byte, 4096)
			for {
				n, _, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				keep(buf[:n])
			}
		})
	default:
		ts.Fatalf("echoserver: want tcp or udp")
	}
	ts.Setenv(args[1], fmt.Sprint(port))
	s.t.Cleanup(func() { stop.Close(); wg.Wait() })
}

// freeport VAR: $VAR is a port on which nothing listens.
func cmdFreePort(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 1, "freeport VAR")
	ts.Setenv(args[0], fmt.Sprint(testutil.FreePort(stateOf(ts).t.T)))
}

// [!] holds FILE VAR: FILE holds the value of $VAR, raw. Where it does it is the
// user's own copy, and no find of the search at the end.
func cmdHolds(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "[!] holds FILE VAR")
	path := ts.MkAbs(args[0])
	b, err := os.ReadFile(path)
	ts.Check(err)
	if got := bytes.Contains(b, []byte(ts.Getenv(args[1]))); got == neg {
		ts.Fatalf("%s holds $%s: %v", args[0], args[1], got)
	}
	if !neg {
		stateOf(ts).t.holds(path)
	}
}

// plant FILE VAR: what is in FILE is a secret of an issuer's; from now on it is
// $VAR and looked for, outside of FILE, as the canaries are.
func cmdPlant(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "plant FILE VAR")
	path := ts.MkAbs(args[0])
	b, err := os.ReadFile(path)
	ts.Check(err)
	v := strings.TrimSpace(string(b))
	if len(v) < 16 {
		ts.Fatalf("%s holds %d bytes: no secret", args[0], len(v))
	}
	s := stateOf(ts)
	s.t.plant(args[1], v)
	s.t.holds(path)
	ts.Setenv(args[1], v)
}

// differ VAR VAR: their values are not the same.
func cmdDiffer(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "differ VAR VAR")
	if ts.Getenv(args[0]) == ts.Getenv(args[1]) {
		ts.Fatalf("$%s and $%s are the same", args[0], args[1])
	}
}

// waitfor FILE PATTERN: until a line of FILE matches.
func cmdWaitFor(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "waitfor FILE PATTERN")
	re := regexp.MustCompile("(?m)" + args[1])
	path := ts.MkAbs(args[0])
	wait(ts, args[0]+" matches "+args[1], func() bool {
		b, err := os.ReadFile(path)
		return err == nil && re.Match(b)
	})
}

// jsonkeys FILE KEY...: every line of FILE is a JSON object that has the keys. A
// key a.b is key b of every object in the list, or of the object, a.
func cmdJSONKeys(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: jsonkeys FILE KEY...")
	}
	n := 0
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		n++
		var v any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			ts.Fatalf("line %d is no JSON: %v: %s", n, err, line)
		}
		for _, key := range args[1:] {
			if !hasKey(v, strings.Split(key, ".")) {
				ts.Fatalf("line %d has no %s: %s", n, key, line)
			}
		}
	}
	if n == 0 {
		ts.Fatalf("%s holds no line", args[0])
	}
}

func hasKey(v any, path []string) bool {
	if len(path) == 0 {
		return true
	}
	switch v := v.(type) {
	case map[string]any:
		sub, ok := v[path[0]]
		return ok && hasKey(sub, path[1:])
	case []any:
		for _, e := range v {
			if !hasKey(e, path) {
				return false
			}
		}
		return len(v) > 0
	}
	return false
}

// quietly FILE CMD...: runs CMD with its standard output in FILE, which may hold
// what the log must not, such as three megabytes.
func cmdQuietly(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: quietly FILE CMD...")
	}
	err := ts.Exec("sh", append([]string{"-c", `out=$1; shift; exec "$@" >"$out"`, "sh", ts.MkAbs(args[0])}, args[1:]...)...)
	if (err != nil) != neg {
		ts.Fatalf("%s: %v", args[1], err)
	}
}

var escapes = regexp.MustCompile(`%[0-9A-Fa-f]{2}|\\+u00[0-9A-Fa-f]{2}`)

// unescape undoes percent encoding and JSON's escapes of bytes.
func unescape(p []byte) []byte {
	return escapes.ReplaceAllFunc(p, func(m []byte) []byte {
		b, _ := hex.DecodeString(string(m[len(m)-2:])) // two hex digits, as matched
		return b
	})
}
