//go:build linux

package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"guard/internal/testutil"
)

// world is one context: a project, an environment and a profile, with what it has and what its
// session saw.
type world struct {
	project, env, profile string
	id                    string // what no other world's words hold
	context               string // as guard names it
	token, sshPub, role   string
	password              string
	v                     *visit

	placeholder, ca, session string
	keys                     string
	shown                    map[string]string // what its agent finds, by where
}

func (w *world) only() string { return "only-" + w.id }

// TestWorlds makes every pair of two projects, two environments and both profiles in one vault,
// runs a session in each of them at once, in one folder, and wants nothing of one in another.
func TestWorlds(t *testing.T) {
	testutil.Leftovers(t)
	t.Run("all", worlds)
	pgServer.Stop()
}

func worlds(t *testing.T) {
	h := newHouse(t)
	db := pgServer.Get(t)
	var all []*world
	for _, project := range []string{"amber", "birch"} {
		for _, env := range []string{"dev", "prod"} {
			for _, profile := range []string{"interactive", "daemon"} {
				all = append(all, h.newWorld(db, project, env, profile))
			}
		}
	}
	// The folder is one world's by the user's word; the repository says another one, and is not asked.
	h.guard("", "context", "add", "amber/dev", h.path("proj"))
	for _, w := range all {
		w.v = h.visit("--context", w.project+"/"+w.env, "--profile", w.profile, "--allow", "tok", "--allow", w.only(), "--allow", "key", "--allow", "db",
			"--env", "WORLD="+w.id, "--host-port", dbPort(db))
	}
	var wg sync.WaitGroup
	for _, w := range all {
		wg.Go(func() { w.look(t, h, db) })
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	h.upstream(t, all)
	for _, w := range all {
		wg.Go(func() { w.search(t, h) })
	}
	wg.Wait()
	pairs := 0
	for _, a := range all {
		for _, b := range all {
			if a != b {
				pairs++
				h.crossed(t, a, b, db)
			}
		}
	}
	if pairs != 56 {
		t.Errorf("%d pairs", pairs)
	}
	h.cannotName(t, all)
	for _, w := range all {
		if status := w.v.end(); status != 0 {
			t.Errorf("%s: status %d\n%s", w.context, status, w.v.said.String())
		}
	}
	h.later(t, all)
	h.records(t, all)
	if said := h.guard("", "audit", "verify"); !strings.Contains(said, "whole") {
		t.Error(said)
	}
}

func (h *house) newWorld(db *testutil.Server, project, env, profile string) *world {
	h.t.Helper()
	w := &world{project: project, env: env, profile: profile, id: "w" + strings.ToLower(testutil.Random(8)), context: project + "/" + env}
	in := w.context
	if profile == profileDaemon {
		w.context += daemonContext
	}
	w.token, w.password = testutil.Canary(h.t), testutil.Random(24)
	h.set(in, profile, "tok", w.token, "--host", "api.example.com", "--env", "TOK", "--kind", "generic")
	h.set(in, profile, w.only(), testutil.Canary(h.t), "--host", "api.example.com", "--kind", "generic", "--env", "ONLY")
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		h.t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		h.t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		h.t.Fatal(err)
	}
	w.sshPub = strings.Fields(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))[1]
	h.set(in, profile, "key", string(pem.EncodeToMemory(block)), "--host", "git.example.com", "--kind", "ssh-key")
	w.role = w.id
	db.Exec(h.t, fmt.Sprintf(`create role %s login password '%s'`, w.role, w.password))
	h.set(in, profile, "db", w.password, "--host", db.Addr, "--kind", "postgres", "--user", w.role, "--env", "PGPASSWORD")
	h.guard("", "exec", "allow", "run-"+w.id, "--with", "tok=TOK", "--context", in, "--profile", profile, "--", "/usr/bin/printenv", "WORLD")
	return w
}

// look uses everything that the world has, and keeps what its agent sees.
func (w *world) look(t *testing.T, h *house, db *testutil.Server) {
	fail := func(what, said string) { t.Errorf("%s: %s: %s\n%s", w.context, what, said, w.v.said.String()) }
	for range 2 {
		if said := w.v.ask(callAPI); said != "hello  200" {
			fail("the API", said)
			return
		}
	}
	w.placeholder = strings.TrimSpace(w.v.ask(`echo "$TOK"`))
	w.session = strings.TrimSpace(w.v.ask(`echo "$GUARD_SESSION"`))
	w.ca = w.v.ask(`cat /run/guard/ca.pem`)
	w.keys = w.v.ask(`ssh-add -L`)
	if !strings.Contains(w.keys, w.sshPub) || strings.Count(w.keys, "ssh-ed25519") != 1 {
		fail("its ssh agent", w.keys)
	}
	if said := w.v.ask(psql(db, w.role)); strings.TrimSpace(said) != w.role {
		fail("its database", said)
	}
	// What programs keep for the next time: a git credential, a token, a file's name.
	w.v.ask(`mkdir -p "$HOME/.cache" && echo kept-` + w.id + ` >"$HOME/.cache/` + w.id + `"`)
	w.v.ask(`git config --global credential.helper 'store --file ~/.cache/git'; printf 'https://` + w.id + `:%s@api.example.com\n' "$TOK" >~/.cache/git`)
	w.v.ask(`echo "//api.example.com/:_authToken=$TOK" >>"$HOME/.npmrc"`)
}

func dbPort(db *testutil.Server) string { return db.Addr[strings.LastIndexByte(db.Addr, ':')+1:] }

func psql(db *testutil.Server, role string) string {
	return fmt.Sprintf(`psql -XAtqc "select current_user" "host=127.0.0.1 port=%s user=%s dbname=postgres sslmode=disable"`, dbPort(db), role)
}

// upstream wants every world's own value at the API, by connections of its own.
func (h *house) upstream(t *testing.T, all []*world) {
	h.mu.Lock()
	defer h.mu.Unlock()
	conns := map[string]string{}
	for _, c := range h.seen {
		i := slices.IndexFunc(all, func(w *world) bool { return w.id == c.world })
		if i < 0 || all[i].token != c.token {
			t.Errorf("the API got another value than world %q has", c.world)
		}
		if was, ok := conns[c.conn]; ok && was != c.world {
			t.Errorf("one connection to the API served %s and %s", was, c.world)
		}
		conns[c.conn] = c.world
	}
	if len(h.seen) != 2*len(all) {
		t.Errorf("%d calls", len(h.seen))
	}
	h.seen = nil
}

// certificates are those of a bundle.
func certificates(t *testing.T, bundle string) (out []*x509.Certificate) {
	t.Helper()
	for rest := []byte(bundle); ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			return out
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
}

// sessionCA is the authority in a session's bundle that is no other session's.
func sessionCA(t *testing.T, w *world) *x509.Certificate {
	t.Helper()
	var own []*x509.Certificate
	for _, c := range certificates(t, w.ca) {
		if strings.Contains(strings.ToLower(c.Subject.String()), "guard") && c.Subject.CommonName != "guard test CA" {
			own = append(own, c)
		}
	}
	if len(own) != 1 {
		t.Fatalf("%s: %d authorities of sessions", w.context, len(own))
	}
	return own[0]
}

// search keeps what w's agent finds when it looks everywhere, after all worlds have been used.
func (w *world) search(t *testing.T, h *house) {
	w.shown = map[string]string{}
	for what, x := range map[string]struct{ line, has string }{
		"files":     {`find / \( -path /proc -o -path /sys -o -path /usr \) -prune -o -print 2>/dev/null | grep -F -e .cache/w -e @ -e lock/held -e audit`, ".cache/" + w.id},
		"mounts":    {`cat /proc/self/mountinfo /proc/self/mounts /proc/self/maps`, " /proc"},
		"variables": {`cat /proc/self/environ | tr '\0' '\n'; set`, "WORLD=" + w.id},
		"home":      {`cat "$HOME"/.npmrc "$HOME"/.git-credentials "$HOME"/.gitconfig 2>/dev/null; cat "$HOME"/.cache/*; ls -laR "$HOME"`, w.placeholder},
		"guard":     {`guard status; guard status --json; guard secret ls; guard exec ls; ls -laR ` + h.path("gh"), "there is no vault"},
		"sockets":   {`cat /proc/net/unix; ls -la /run/guard /tmp /dev/shm`, "ssh-agent.sock"},
	} {
		if w.shown[what] = w.v.ask(x.line); !strings.Contains(w.shown[what], x.has) {
			t.Errorf("%s: %s do not even show its own %q", w.context, what, x.has)
		}
	}
	if !strings.Contains(w.shown["home"], "kept-"+w.id) || !strings.Contains(w.shown["home"], "https://"+w.id+":") {
		t.Errorf("%s: nothing was kept in its home: %s", w.context, w.shown["home"])
	}
}

// later wants that what one world's programs kept is there in its next session, and in no other one's.
func (h *house) later(t *testing.T, all []*world) {
	t.Helper()
	for _, b := range all {
		said := h.guard("", "run", "--boundary", "namespace", "--bpf", "off", "--context", b.project+"/"+b.env, "--profile", b.profile, "--",
			"sh", "-c", `cat "$HOME"/.cache/* "$HOME"/.npmrc; ls -aR "$HOME"`)
		for _, a := range all {
			for _, kept := range []string{"kept-" + a.id, a.placeholder, "https://" + a.id + ":"} {
				if strings.Contains(said, kept) != (a == b) {
					t.Errorf("%s in the next session of %s: %q is there: %v", a.context, b.context, kept, a != b)
				}
			}
		}
	}
}

// crossed tries in b's session all that is a's.
func (h *house) crossed(t *testing.T, a, b *world, db *testutil.Server) {
	t.Helper()
	bad := func(format string, args ...any) {
		t.Errorf("%s in %s: "+format, append([]any{a.context, b.context}, args...)...)
	}
	if a.placeholder == b.placeholder || a.placeholder == "" {
		bad("one placeholder for both")
	}
	// a's placeholder means nothing: it goes out as it is, as any text does.
	before := len(h.calls())
	if said := b.v.ask(strings.ReplaceAll(callAPI, "$TOK", a.placeholder)); !strings.Contains(said, "200") {
		bad("a foreign placeholder is told from any other text: %q", said)
	}
	for _, c := range h.calls()[before:] {
		if c.world == b.id && c.token != a.placeholder {
			bad("a placeholder became a value")
		}
	}
	// The authorities: neither trusts what the other one signs.
	ca, cb := sessionCA(t, a), sessionCA(t, b)
	if bytes.Equal(ca.RawSubjectPublicKeyInfo, cb.RawSubjectPublicKeyInfo) || cb.CheckSignatureFrom(ca) == nil {
		bad("the sessions' authorities are one")
	}
	for _, c := range certificates(t, b.ca) {
		if c.Equal(ca) {
			bad("its authority is trusted")
		}
	}
	if strings.Contains(b.keys, a.sshPub) {
		bad("its ssh key is in the agent")
	}
	// The database: a role that is another world's, and one that there is not, get one answer.
	none := "wxxxxxxxx"
	theirs := strings.ReplaceAll(b.v.ask(psql(db, a.role)), a.role, none)
	if nobody := b.v.ask(psql(db, none)); theirs != nobody || strings.Contains(theirs, a.role) && !strings.Contains(nobody, none) {
		bad("its role is answered by %q, and none by %q", theirs, nobody)
	}
	// Commands of the user's list.
	theirs = strings.ReplaceAll(b.v.ask("guard exec --with tok -- run-"+a.id+" x"), a.id, none)
	if nobody := b.v.ask("guard exec --with tok -- run-" + none + " x"); theirs != nobody || !strings.Contains(nobody, "run-"+none) {
		bad("its command is answered by %q, and none by %q", theirs, nobody)
	}
	for what, said := range b.shown {
		for _, theirs := range []string{a.id, a.placeholder, a.token, a.sshPub, a.session, a.context + "\n", homeName(a.context) + "/"} {
			if strings.Contains(said, theirs) && !strings.Contains(b.context, strings.TrimSpace(theirs)) {
				bad("%s show %q", what, theirs)
			}
		}
	}
	// a's value in b's output: b has nothing of it, and nothing says that it is a's.
	said := b.v.ask(`printf '%s\n' ` + a.token[:9] + `'` + a.token[9:] + `'`)
	if strings.Contains(said, "tok") || strings.Contains(said, a.context) || !strings.Contains(said, a.token) {
		bad("its value is told from other text")
	}
	if strings.Contains(b.v.said.String(), a.id) || strings.Contains(b.v.said.String(), a.session) {
		bad("standard error names it")
	}
}

func (h *house) calls() []call {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.seen)
}

// cannotName wants that a session is refused another world's names in the words that it is refused
// names in that there are not.
func (h *house) cannotName(t *testing.T, all []*world) {
	t.Helper()
	none := "only-wxxxxxxxx"
	for _, b := range all {
		in := []string{"--context", b.project + "/" + b.env, "--profile", b.profile}
		for _, verb := range [][]string{{"run", "--allow", "NAME"}, {"run", "--deny", "NAME"}, {"secret", "show", "NAME"}, {"policy", "explain", "NAME", "http:read"}, {"rotate", "NAME"}} {
			if verb[1] != "--allow" && b != all[0] {
				continue
			}
			ask := func(name string) string {
				args := slices.Clone(verb)
				for i := range args {
					args[i] = strings.ReplaceAll(args[i], "NAME", name)
				}
				args = append(args, in...)
				if verb[0] == "run" {
					args = append(args, "--", "true")
				}
				status, said := h.try("", args...)
				if status == 0 {
					t.Errorf("%s: guard %q went well", b.context, args)
				}
				return strings.ReplaceAll(said, name, none)
			}
			nobody := ask(none)
			for _, a := range all {
				if a == b || verb[1] != "--allow" && a != all[1] && a != all[2] && a != all[4] {
					continue
				}
				if said := ask(a.only()); said != nobody {
					t.Errorf("%s in %s: guard %q says %q, and of no name %q", a.context, b.context, verb, said, nobody)
				}
			}
		}
	}
}

// records wants that the log of one world holds no session of another.
func (h *house) records(t *testing.T, all []*world) {
	t.Helper()
	read := func(args ...string) (sessions, contexts map[string]bool) {
		t.Helper()
		sessions, contexts = map[string]bool{}, map[string]bool{}
		for line := range strings.Lines(h.guard("", append([]string{"audit", "show", "--json"}, args...)...)) {
			var r struct{ Session, Context string }
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatal(err)
			}
			sessions[r.Session], contexts[r.Context] = true, true
		}
		return sessions, contexts
	}
	for _, b := range all {
		sessions, contexts := read("--context", b.project+"/"+b.env, "--profile", b.profile)
		if !sessions[b.session] || len(contexts) != 1 || !contexts[b.context] {
			t.Errorf("%s: the log has %v", b.context, contexts)
		}
		for _, a := range all {
			if a != b && sessions[a.session] {
				t.Errorf("the log of %s has the session of %s", b.context, a.context)
			}
		}
		if leaks := h.guard("", "audit", "show", "--json", "--type", "leak", "--session", b.session); strings.Contains(leaks, `"type":"leak"`) {
			t.Errorf("%s: a leak is recorded where none was of its own: %s", b.context, leaks)
		}
	}
	if _, contexts := read("--context", "amber"); len(contexts) != 4 {
		t.Errorf("of a project: %v", contexts)
	}
	if _, contexts := read("--context", "amber/dev"); len(contexts) != 2 {
		t.Errorf("of an environment: %v", contexts)
	}
	if _, contexts := read("--profile", "daemon"); len(contexts) != 4 {
		t.Errorf("of the daemons: %v", contexts)
	}
}

// A repository says neither context nor profile, and a folder is no daemon's.
func TestRepositoryChoosesNoWorld(t *testing.T) {
	h := newHouse(t)
	h.set("amber/dev", "interactive", "tok", testutil.Canary(t), "--host", "api.example.com", "--env", "TOK")
	h.set("amber/dev", "daemon", "tok", testutil.Canary(t), "--host", "api.example.com", "--env", "TOK")
	h.guard("", "context", "add", "amber/dev", h.path("proj"))
	for _, text := range []string{"context = \"birch\"\n", "profile = \"daemon\"\n", "context = \"amber/dev@daemon\"\n", "context = \"amber/prod\"\n"} {
		if err := os.WriteFile(h.path("proj", "guard.toml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if status, said := h.try("", "run", "--boundary", "none", "--allow", "tok", "--", "true"); status != 125 {
			t.Errorf("%q: status %d %s", text, status, said)
		}
	}
	for _, text := range []string{"context = \"amber\"\n", "context = \"amber/dev\"\n"} {
		if err := os.WriteFile(h.path("proj", "guard.toml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, profile := range []string{"interactive", "daemon"} {
			h.guard("", "run", "--boundary", "none", "--profile", profile, "--allow", "tok", "--", "true")
		}
	}
	for _, args := range [][]string{
		{"context", "add", "amber/dev@daemon", h.path("proj")}, {"run", "--profile", "root", "--", "true"},
		{"run", "--context", "amber/dev@daemon", "--profile", "interactive", "--", "true"}, {"run", "--context", "amber@other", "--", "true"},
		{"audit", "show", "--profile", "root"},
	} {
		if status, said := h.try("", args...); status != exitUsage {
			t.Errorf("%q: status %d %s", args, status, said)
		}
	}
}

// TestSealedContextIsNotInMemory looks for a sealed context's value, its metadata and its
// placeholder in all of a guard's memory while it serves another context.
func TestSealedContextIsNotInMemory(t *testing.T) {
	testutil.Leftovers(t)
	if os.Geteuid() != 0 {
		t.Skip("another process's memory is root's to read")
	}
	h := newHouse(t)
	dev, prod := testutil.Canary(t), testutil.Canary(t)
	h.set("amber/dev", "interactive", "tok", dev, "--host", "api.example.com", "--env", "TOK")
	h.set("amber/prod", "interactive", "deploy", prod, "--host", "prodhost-"+"7f3a9c.example.com", "--host", "api.example.com", "--env", "TOK")
	show := h.guard("", "secret", "show", "deploy", "--context", "amber/prod", "--json")
	var c struct{ Placeholder string }
	if err := json.Unmarshal([]byte(show), &c); err != nil {
		t.Fatal(err)
	}
	h.guard("", "context", "seal", "amber/prod", "--unlock", "keyfile", "--context-keyfile", h.path("prodkey"))
	v := h.visit("--context", "amber/dev", "--allow", "tok")
	if said := v.ask(callAPI); said != "hello  200" {
		t.Fatal(said)
	}
	found := func(pid int, what string) bool {
		t.Helper()
		ok, err := inMemory(pid, []byte(what))
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	pid := v.cmd.Process.Pid
	if !found(pid, dev) {
		t.Fatal("not even the session's own value was found: this test looks in the wrong place")
	}
	for name, what := range map[string]string{"value": prod, "placeholder": c.Placeholder, "host": "prodhost-" + "7f3a9c"} {
		if found(pid, what) {
			t.Errorf("the sealed context's %s is in guard's memory", name)
		}
	}
	// With its key it opens, and only then.
	if status, said := h.try("", "run", "--boundary", "none", "--context", "amber/prod", "--", "true"); status != 125 || strings.Contains(said, "deploy") {
		t.Errorf("without its key: %d %s", status, said)
	}
	w := h.visit("--context", "amber/prod", "--allow", "deploy", "--context-keyfile", h.path("prodkey"))
	if said := w.ask(callAPI); said != "hello  200" || !found(w.cmd.Process.Pid, prod) {
		t.Errorf("with its key: %q\n%s", said, w.said.String())
	}
	if w.ask("cat "+h.path("prodkey")+" 2>&1 | head -c 20 | od -An -tx1") == "" {
		t.Error("nothing said")
	}
	key, err := os.ReadFile(h.path("prodkey"))
	if err != nil {
		t.Fatal(err)
	}
	if said := w.ask("od -An -v -tx1 " + h.path("prodkey")); strings.Contains(strings.Join(strings.Fields(said), ""), fmt.Sprintf("%x", key)[:16]) {
		t.Error("the session reads the key of its own context")
	}
	// Locked, it comes back with its own key alone.
	h.guard("", "lock")
	if said := h.guard("", "unlock"); !strings.Contains(said, "amber/prod stays locked") {
		t.Error(said)
	}
	testutil.WaitFor(t, "dev goes on", func() bool { return v.ask(callAPI) == "hello  200" })
	if said := w.ask(callAPI); !strings.Contains(said, "403") {
		t.Errorf("prod goes on without its key: %q", said)
	}
	h.guard("", "unlock", "--context-keyfile", h.path("prodkey"))
	testutil.WaitFor(t, "prod goes on", func() bool { return w.ask(callAPI) == "hello  200" })
}

// inMemory says whether a process's memory holds what.
func inMemory(pid int, what []byte) (bool, error) {
	maps, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "maps"))
	if err != nil {
		return false, err
	}
	mem, err := os.Open(filepath.Join("/proc", fmt.Sprint(pid), "mem"))
	if err != nil {
		return false, err
	}
	defer mem.Close()
	read := 0
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasPrefix(mode, "rw") {
			continue
		}
		var tail []byte
		for at := from; at < to; at += 1 << 20 {
			b := make([]byte, min(1<<20, to-at))
			n, _ := mem.ReadAt(b, int64(at))
			read += n
			b = append(tail, b[:n]...)
			if bytes.Contains(b, what) {
				return true, nil
			}
			tail = slices.Clone(b[max(0, len(b)-len(what)+1):])
		}
	}
	if read < 1<<20 {
		return false, errors.New("the memory could not be read")
	}
	return false, nil
}
