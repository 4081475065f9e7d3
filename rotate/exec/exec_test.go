package exec

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"guard"
	"guard/rotate"
	"guard/rotate/rotatetest"
)

// issuer is a token service in a folder: tokens.json maps an intent to its
// token, "" being the first. mint is idempotent for an intent.
const issuer = `#!/usr/bin/python3
import fcntl, json, os, secrets, sys
req = json.load(sys.stdin)
base = os.path.dirname(os.path.abspath(sys.argv[0]))
assert sorted(os.environ) in (["HOME", "LANG", "PATH"], ["HOME", "LANG", "LC_CTYPE", "PATH"]), sorted(os.environ)
assert os.getcwd() == "/", os.getcwd()
lock = open(base + "/lock", "w"); fcntl.flock(lock, fcntl.LOCK_EX)
path = base + "/tokens.json"
tokens = json.load(open(path))
def save():
    with open(path + ".new", "w") as f: json.dump(tokens, f)
    os.rename(path + ".new", path)
step = req["step"]
if step == "mint":
    if os.path.exists(base + "/refuse"):
        print(json.dumps({"ok": False, "error": "quota: no more tokens for " + req["current"]})); sys.exit()
    if req["intent"] not in tokens:
        tokens[req["intent"]] = MINT
        save()
    print(json.dumps({"ok": True, "value": tokens[req["intent"]]}))
elif step == "verify":
    print(json.dumps({"ok": req["candidate"] in tokens.values()}))
elif step == "revoke":
    tokens = {k: v for k, v in tokens.items() if v != req["current"]}
    save()
    print(json.dumps({"ok": True}))
elif step == "verify-dead":
    print(json.dumps({"ok": req["current"] not in tokens.values()}))
else:
    sys.exit(3)
`

const first = "first-token-of-the-issuer"

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func open(mint string) rotatetest.Open {
	return func(tb testing.TB, dir string) rotatetest.Fixture {
		if dir == "" {
			dir = tb.TempDir()
			must(tb, os.WriteFile(filepath.Join(dir, "issuer"), []byte(strings.ReplaceAll(issuer, "MINT", mint)), 0o700))
			must(tb, os.WriteFile(filepath.Join(dir, "tokens.json"), []byte(`{"":"`+first+`"}`), 0o600))
		}
		options := map[string]string{"cmd": filepath.Join(dir, "issuer")}
		must(tb, Pin(options))
		return rotatetest.Fixture{
			Name: "exec", Provider: Provider{}, State: dir, Value: first,
			Credential: guard.Credential{Name: "token", Kind: "generic", Hosts: []string{"issuer.test"}, Rotate: rotate.Providers{"exec": Provider{}}.Format("exec", options)},
			Login: func(v string) error {
				b, err := os.ReadFile(filepath.Join(dir, "tokens.json"))
				if err != nil {
					return err
				}
				tokens := map[string]string{}
				if err := json.Unmarshal(b, &tokens); err != nil {
					return err
				}
				for _, t := range tokens {
					if t == v {
						return nil
					}
				}
				return rotate.ErrRefused
			},
			Lock: func() (func(), error) {
				p := filepath.Join(dir, "refuse")
				return func() { os.Remove(p) }, os.WriteFile(p, nil, 0o600)
			},
		}
	}
}

// The issuer makes the value.
func TestConformance(t *testing.T) { rotatetest.Test(t, open(`"tok_" + secrets.token_hex(16)`)) }

// The program takes the value that guard chose.
func TestConformanceCandidate(t *testing.T) { rotatetest.Once(t, open(`req["candidate"]`)) }

func job(t *testing.T, script string, options ...string) rotate.Job {
	t.Helper()
	p := filepath.Join(t.TempDir(), "program")
	must(t, os.WriteFile(p, []byte(script), 0o700))
	o := map[string]string{"cmd": p}
	must(t, Pin(o))
	for i := 0; i+1 < len(options); i += 2 {
		o[options[i]] = options[i+1]
	}
	return rotate.Job{
		Intent: "i", Step: rotate.StepMint, Credential: guard.Credential{Name: "token"}, Options: o,
		Current: guard.NewSecret([]byte("s3cret/Value+that~is")), Candidate: guard.NewSecret([]byte("n3w-Value_that=comes")),
	}
}

func TestNoValueIsShown(t *testing.T) {
	value := "s3cret/Value+that~is"
	forms := map[string]string{
		"raw": value, "part": "xx" + value[4:11] + "xx", "upper": strings.ToUpper(value), "hex": hex.EncodeToString([]byte(value)),
		"HEX": strings.ToUpper(hex.EncodeToString([]byte(value))), "base64": base64.StdEncoding.EncodeToString([]byte(value)),
		"shift 1": base64.StdEncoding.EncodeToString([]byte("x" + value)), "shift 2": base64.StdEncoding.EncodeToString([]byte("xy" + value + "z")),
		"url": "s3cret%2FValue%2Bthat~is", "candidate": "n3w-Value_that=comes",
	}
	for name, form := range forms {
		for _, script := range []string{
			"#!/bin/sh\necho harmless >&2\necho 'it was " + form + "' >&2\nexit 1\n",
			"#!/bin/sh\necho '{\"ok\":false,\"error\":\"it was " + form + "\"}'\n",
			"#!/bin/sh\necho '{" + form + "'\n",
		} {
			_, err := Provider{}.Mint(context.Background(), job(t, script))
			if err == nil {
				t.Fatal("no error")
			}
			if strings.Contains(err.Error(), form) || strings.Contains(err.Error(), "it was") {
				t.Errorf("%s is shown: %v", name, err)
			}
		}
	}
	_, err := Provider{}.Mint(context.Background(), job(t, "#!/bin/sh\necho the quota is used up >&2\nexit 4\n"))
	if err == nil || !strings.Contains(err.Error(), "the quota is used up") || !strings.Contains(err.Error(), "exit status 4") {
		t.Errorf("what the program says is not shown: %v", err)
	}
}

func TestOnlyThePinnedProgramRuns(t *testing.T) {
	ran := filepath.Join(t.TempDir(), "ran")
	script := "#!/bin/sh\ntouch " + ran + "\necho '{\"ok\":true,\"value\":\"v\"}'\n"
	ctx := context.Background()
	refused := func(name string, j rotate.Job, want string) {
		t.Helper()
		_, err := Provider{}.Mint(ctx, j)
		if err == nil || !errors.Is(err, rotate.ErrPermanent) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(ran); err == nil {
			t.Fatalf("%s: it ran", name)
		}
	}
	j := job(t, script)
	must(t, os.WriteFile(j.Options["cmd"], []byte(script+"\n"), 0o700))
	refused("changed", j, "not the one that was recorded")
	j = job(t, script)
	delete(j.Options, "sha256")
	refused("no hash", j, "was not recorded")
	j = job(t, script)
	must(t, os.Chmod(j.Options["cmd"], 0o777))
	refused("writable", j, "others may write")
	j = job(t, script)
	must(t, os.Chmod(filepath.Dir(j.Options["cmd"]), 0o777))
	refused("in a writable folder", j, "others may write")
	j = job(t, script)
	must(t, os.Chown(j.Options["cmd"], 12345, -1))
	if os.Geteuid() == 0 {
		refused("of another user", j, "another user")
	}
	j = job(t, script)
	j.Options["cmd"] = "program"
	refused("relative", j, "absolute")
	j = job(t, script)
	open := t.TempDir()
	must(t, os.Chmod(open, 0o777))
	must(t, os.Symlink(j.Options["cmd"], filepath.Join(open, "link")))
	j.Options["cmd"] = filepath.Join(open, "link")
	refused("a link in a writable folder", j, "others may write")
}

func TestAnswers(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct{ script, want string }{
		"nothing":     {"#!/bin/sh\n", "JSON object"},
		"two objects": {"#!/bin/sh\necho '{\"ok\":true}{\"ok\":true}'\n", "more than one"},
		"too much":    {"#!/bin/sh\nhead -c 100000 /dev/zero\n", "more than"},
		"status":      {"#!/bin/sh\necho '{\"ok\":true,\"value\":\"v\"}'; exit 1\n", "failed"},
		"not text":    {"#!/bin/sh\nhead -c 100 /dev/urandom\n", "JSON object"},
	} {
		if _, err := (Provider{}).Mint(ctx, job(t, c.script)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := Provider{}.Mint(ctx, job(t, "#!/bin/sh\necho '{\"ok\":false,\"error\":\"slow down\",\"retry_after_s\":1.5}'\n"))
	var later *rotate.RetryAfter
	if !errors.As(err, &later) || later.After != 1500*time.Millisecond {
		t.Errorf("retry_after_s: %v", err)
	}
	// A program that cannot say whether the value works is not a refusal.
	j := job(t, "#!/bin/sh\nexit 1\n")
	for _, step := range []string{rotate.StepVerify, rotate.StepDead} {
		j.Step = step
		if err := (Provider{}).Verify(ctx, j, j.Current); err == nil || errors.Is(err, rotate.ErrRefused) {
			t.Errorf("%s: %v", step, err)
		}
	}
	j = job(t, "#!/bin/sh\necho '{\"ok\":false}'\n")
	j.Step = rotate.StepDead
	if err := (Provider{}).Verify(ctx, j, j.Current); err != nil {
		t.Errorf("not dead: %v", err)
	}
	bin := job(t, "#!/bin/sh\n")
	bin.Current = guard.NewSecret([]byte("\xff\xfe\xfd"))
	if _, err := (Provider{}).Mint(ctx, bin); err == nil || !strings.Contains(err.Error(), "not text") {
		t.Errorf("bytes that are no text: %v", err)
	}
}

// What the program leaves behind is ended with it.
func TestTimeoutEndsTheWholeGroup(t *testing.T) {
	dir := t.TempDir()
	pidFile := filepath.Join(dir, "pid")
	j := job(t, fmt.Sprintf("#!/bin/sh\nsleep 1000 &\necho $! > %s.new; mv %s.new %s\nwait\n", pidFile, pidFile, pidFile), "timeout", "300ms")
	_, err := Provider{}.Mint(context.Background(), j)
	if err == nil || !strings.Contains(err.Error(), "took longer") {
		t.Fatal(err)
	}
	b, err := os.ReadFile(pidFile)
	must(t, err)
	for {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(b)) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}
