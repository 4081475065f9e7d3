//go:build linux

package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"guard/internal/testutil"
	"guard/internal/testutil/vm"
	"guard/supervisor/sandbox"
)

// pgServer is one server for every script that needs one.
var pgServer testutil.PostgresServer

func TestMain(m *testing.M) {
	// A sandbox runs this binary again as its first processes.
	if handled, code := sandbox.Stage(os.Args); handled {
		os.Exit(code)
	}
	if os.Getpid() == 1 && os.Args[0] == machineInit {
		vm.Machine(m.Run)
	}
	testscript.Main(stopping{m}, map[string]func(){
		"guard":  func() { main() },
		"status": statusProgram,
		"term":   termProgram,

		"writes": writesProgram,

		"grpcclient": grpcClientProgram,
		"browse":     browseProgram,
	})
}

// stopping ends what tests share.
type stopping struct{ m *testing.M }

func (s stopping) Run() int {
	defer pgServer.Stop()
	return s.m.Run()
}

// TestScripts runs testdata/*.txtar, each in a folder, a home and a vault of its
// own. $CANARY and $CANARY2 are random values that are in no script: after each
// one they are looked for in all that was printed and in every file that is left.
func TestScripts(t *testing.T) {
	testutil.Leftovers(t)
	t.Run("all", func(t *testing.T) { runScripts(t, "testdata") })
	pgServer.Stop()
}

func runScripts(t *testing.T, dir string) {
	testscript.RunT(&scriptT{T: t}, testscript.Params{
		Dir: dir, Setup: setup, Cmds: scriptCommands(), Condition: scriptCondition, RequireUniqueNames: true,
		WorkdirRoot: t.TempDir(), // testscript's own stays behind when -run chooses some scripts
	})
}

// leaky are scripts that let the canary out, each by a way that the harness must
// find and name.
var leaky = map[string]struct{ script, found string }{
	"stdout":  {`exec sh -c 'echo "$CANARY"'`, "CANARY is in standard output, standard error or the terminal: bytes #0, raw"},
	"stderr":  {`exec sh -c 'echo "$CANARY" >&2'`, "raw"},
	"base64":  {`exec sh -c 'printf "x%s" "$CANARY2" | base64 -w0'`, "CANARY2 is in standard output, standard error or the terminal: bytes #0, base64 at offset 1"},
	"hex":     {`exec sh -c 'printf %s "$CANARY" | od -An -tx1 | tr -d " \n"'`, "hex"},
	"percent": {`exec sh -c 'printf %s "$CANARY" | od -An -tx1 | tr -d "\n" | tr " " %'`, "bytes #1, raw"},
	"early":   {"exec sh -c 'echo \"$CANARY\"'\n# the next phase\nexec true", "raw"},
	"failing": {"exec sh -c 'echo \"$CANARY\"; exit 1'", "raw"},
	"home":    {"guard init\nexec sh -c 'echo \"$CANARY\" >$GUARD_HOME/x'", "/gh/x, raw"},
	"work":    {`exec sh -c 'mkdir a; echo "$CANARY" >a/x; chmod 0 a'`, "/proj/a/x, raw"},
	"temp":    {`exec sh -c 'echo "$CANARY" >$TMPDIR/x'`, "/.tmp/x, raw"},
	"name":    {`exec sh -c 'echo >"$CANARY"'`, "what is left on disk: name"},
}

// TestHarness runs scripts that leak and wants each of them to fail.
func TestHarness(t *testing.T) {
	dir := t.TempDir()
	for name, l := range leaky {
		if err := os.WriteFile(filepath.Join(dir, name+".txtar"), []byte(l.script+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestLeakyScripts$")
	cmd.Env = append(os.Environ(), "GUARD_LEAKY_SCRIPTS="+dir)
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Error("scripts that leak pass")
	}
	for name, l := range leaky {
		_, part, _ := strings.Cut(string(out), "--- FAIL: TestLeakyScripts/"+name+" ")
		part, _, _ = strings.Cut(part, "--- FAIL: ")
		if !strings.Contains(part, l.found) {
			t.Errorf("%s: not found as it should be:\n%s", name, part)
		}
	}
	if strings.Contains(string(out), "ghp_") {
		t.Error("the harness itself shows a canary")
	}
}

// TestLeakyScripts is for TestHarness.
func TestLeakyScripts(t *testing.T) {
	if dir := os.Getenv("GUARD_LEAKY_SCRIPTS"); dir != "" {
		runScripts(t, dir)
	}
}

// ordinaryUser is a user of this machine without any rights: PostgreSQL and the
// session bus want one that has a name.
func ordinaryUser(t *testing.T) int {
	b, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	best := 0
	for line := range strings.Lines(string(b)) {
		f := strings.Split(line, ":")
		if len(f) < 3 {
			continue
		}
		uid, err := strconv.Atoi(f[2])
		switch {
		case err != nil:
		case uid >= 1000 && uid < 60000:
			return uid
		case f[0] == "games" || best == 0 && f[0] == "daemon":
			best = uid
		}
	}
	if best == 0 {
		t.Fatal("/etc/passwd has no ordinary user")
	}
	return best
}

// TestScriptsAsOrdinaryUser runs the same scripts again without root's rights.
func TestScriptsAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		return // TestScripts was that
	}
	testutil.Leftovers(t)
	uid := ordinaryUser(t)
	as := testutil.AsUser(t, uid)
	cmd := exec.CommandContext(t.Context(), "guard.test", "-test.run=^TestScripts$", "-test.timeout=5m")
	if testing.Verbose() {
		cmd.Args = append(cmd.Args, "-test.v")
	}
	cmd.Env = append(cmd.Env, "GUARD_TEST_ALL="+os.Getenv("GUARD_TEST_ALL"), "GUARD_TEST_CLIENTS="+clientPackages(), "GUARD_TEST_S3="+s3Program())
	as(cmd)
	// The binary and the scripts may lie where only root gets at.
	home := cmd.Dir
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path = filepath.Join(home, "guard.test")
	cmd.Err = nil
	if err := os.WriteFile(cmd.Path, self, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(home, "testdata"), os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("as uid %d: %v\n%s", uid, err, out)
	} else if testing.Verbose() {
		t.Logf("%s", out)
	}
}

// scriptT is the T of the scripts. It gets the whole log of each one, whether it
// failed or not, and looks for the canaries there.
type scriptT struct {
	*testing.T
	mu       sync.Mutex
	canaries map[string]string // value -> name
	holders  map[string]bool   // files of the user's that hold one rightly
}

func (t *scriptT) Run(name string, f func(testscript.T)) {
	t.T.Run(name, func(tt *testing.T) {
		f(&scriptT{T: tt, canaries: map[string]string{}, holders: map[string]bool{}})
	})
}

// Verbose keeps testscript from throwing away the log of phases that went well.
func (t *scriptT) Verbose() bool { return true }

func (t *scriptT) plant(name, value string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.canaries[value] = name
}

func (t *scriptT) holds(path string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.holders[path] = true
}

// mask makes a text fit to be shown.
func (t *scriptT) mask(s string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for value, name := range t.canaries {
		s = strings.ReplaceAll(s, value, "["+name+"]")
	}
	return s
}

// Log gets the script's log at its end. It begins with the environment, where
// the canaries are, up to an empty line.
func (t *scriptT) Log(args ...any) {
	t.Helper()
	text := fmt.Sprint(args...)
	if env, rest, ok := strings.Cut(text, "\n\n"); ok && strings.HasPrefix(env, "WORK=") {
		text = rest
	}
	for value, name := range t.values() {
		t.report(name, "standard output, standard error or the terminal", value, []byte(text), unescape([]byte(text)))
	}
	if t.Failed() || testing.Verbose() {
		t.T.Log(t.mask(text))
	}
}

func (t *scriptT) Fatal(args ...any) {
	t.Helper()
	t.T.Fatal(t.mask(fmt.Sprint(args...)))
}

func (t *scriptT) values() map[string]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := map[string]string{}
	for v, n := range t.canaries {
		m[v] = n
	}
	return m
}

// report fails the test where value is in places.
func (t *scriptT) report(name, where, value string, places ...any) {
	t.Helper()
	found, err := testutil.Find(value, places...)
	if err != nil {
		t.Errorf("%s was not searched: %v", where, t.mask(err.Error()))
	}
	for _, f := range found {
		t.mu.Lock()
		rightly := t.holders[strings.TrimPrefix(f.Where, "file ")]
		t.mu.Unlock()
		if !rightly {
			t.Errorf("%s is in %s: %s", name, where, t.mask(f.String()))
		}
	}
}

// searchFiles looks through all that the script left.
func (t *scriptT) searchFiles(work string) {
	// A session's layers hold folders that nobody may read, their owner included.
	_ = filepath.WalkDir(work, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	for value, name := range t.values() {
		t.report(name, "what is left on disk", value, work)
	}
}

const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// setup gives a script its home, its vault's place, its working folder and its
// canaries.
func setup(env *testscript.Env) error {
	t, ok := env.T().(*scriptT)
	if !ok {
		return fmt.Errorf("the scripts run with a %T", env.T())
	}
	home, proj := filepath.Join(env.WorkDir, "home"), filepath.Join(env.WorkDir, "proj")
	for _, d := range []string{home, proj} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	guard, err := exec.LookPath("guard")
	if err != nil {
		return err
	}
	for _, kv := range testutil.GitEnv(home) {
		if !strings.HasPrefix(kv, "PATH=") {
			env.Vars = append(env.Vars, kv)
		}
	}
	for _, name := range []string{"CANARY", "CANARY2"} {
		v := testutil.Canary(t.T)
		t.plant(name, v)
		env.Setenv(name, v)
	}
	env.Setenv("PATH", filepath.Dir(guard)+":"+systemPath)
	env.Setenv("HOME", home)
	env.Setenv("GUARD_HOME", filepath.Join(env.WorkDir, "gh"))
	env.Setenv("GUARD_KEYFILE", filepath.Join(env.WorkDir, "key"))
	env.Setenv("TZ", "UTC")
	env.Setenv("LANG", "C.UTF-8")
	env.Setenv("TERM", "xterm")
	env.Cd = proj
	env.Setenv("CLIENTS", clientPackages())
	env.Setenv("ROLE", "r"+strings.ToLower(testutil.Random(12)))
	env.Values[stateKey{}] = &state{t: t}
	env.Defer(func() { t.searchFiles(env.WorkDir) })
	return nil
}

type stateKey struct{}

// state is what the commands of one script share.
type state struct {
	t       *scriptT
	ca      *testutil.CA
	api     map[string]*testutil.API
	git     *testutil.Git
	reg     *testutil.Registry
	clients *clientServer
	issuers map[string]*issuer
	// sinks are servers that take everything and keep it.
	sinks map[string]*sink
	oauth *testutil.OAuth
	vault *testutil.VaultServer
}

func stateOf(ts *testscript.TestScript) *state {
	s := ts.Value(stateKey{}).(*state)
	if s.api == nil {
		s.api, s.issuers, s.sinks = map[string]*testutil.API{}, map[string]*issuer{}, map[string]*sink{}
	}
	return s
}

// TestScriptsAreThere keeps the set from shrinking unnoticed.
func TestScriptsAreThere(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 40 {
		t.Errorf("%d scripts, %v", len(files), err)
	}
	slices.Sort(files)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "\nskip ") || strings.Contains(string(b), "sleep ") && !strings.Contains(string(b), "sleep infinity") {
			t.Errorf("%s skips or sleeps", f)
		}
	}
}
