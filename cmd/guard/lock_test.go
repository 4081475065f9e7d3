//go:build linux

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"guard"
	"guard/internal/testutil"
	"guard/vault"
)

// here is guard in this process, with a vault of its own, and a clock that the test sets.
type here struct {
	*app
	t        *testing.T
	key      string
	at       time.Time
	sleeping time.Duration
}

func newHere(t *testing.T) *here {
	t.Helper()
	dir := t.TempDir()
	h := &here{t: t, key: filepath.Join(dir, "key"), at: time.Now()}
	env := map[string]string{"HOME": dir, "GUARD_HOME": filepath.Join(dir, "gh"), "GUARD_KEYFILE": h.key, "XDG_CONFIG_HOME": filepath.Join(dir, "config")}
	said, err := os.Create(filepath.Join(dir, "said"))
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { said.Close(); null.Close() })
	h.app = &app{stdin: null, stdout: said, stderr: said, getenv: func(k string) string { return env[k] }}
	v, err := vault.Create(h.home(), vault.KeyFile{Path: h.key, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if _, err := v.Set(guard.Credential{Name: "tok"}, guard.NewSecret([]byte(testutil.Canary(t)))); err != nil {
		t.Fatal(err)
	}
	return h
}

// command runs one that wants exit status want, and returns what it says.
func (h *here) command(want int, args ...string) string {
	h.t.Helper()
	from, _ := h.stderr.Seek(0, 1)
	b := *h.app
	if got := b.run(context.Background(), args); got != want {
		all, _ := os.ReadFile(h.stderr.Name())
		h.t.Fatalf("guard %q: status %d, want %d\n%s", args, got, want, all[from:])
	}
	all, _ := os.ReadFile(h.stderr.Name())
	return string(all[from:])
}

func (h *here) holder(id string) *holder {
	h.t.Helper()
	v, err := vault.Open(h.home(), vault.KeyFile{Path: h.key})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(v.Close)
	o, err := h.hold(v, id, clock{now: func() time.Time { return h.at }, asleep: func() time.Duration { return h.sleeping }})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(o.close)
	return o
}

func (h *here) checks(hs ...*holder) {
	h.t.Helper()
	for _, o := range hs {
		if err := o.check(); err != nil {
			h.t.Fatal(err)
		}
	}
}

func works(v *vault.Vault) error {
	s, err := v.Get(guard.SecretID{Name: "tok"})
	s.Wipe()
	return err
}

func (h *here) locks(want bool, hs ...*holder) {
	h.t.Helper()
	for _, o := range hs {
		if err := works(o.vault); errors.Is(err, vault.ErrLocked) != want || err != nil && !want {
			h.t.Fatalf("%s: %v, want locked: %v", o.id, err, want)
		}
		if o.locked() != want {
			h.t.Fatalf("%s: uses are refused: %v, want %v", o.id, o.locked(), want)
		}
	}
}

func (h *here) config(text string) {
	h.t.Helper()
	if err := writeFile(h.configPath(), []byte(text)); err != nil {
		h.t.Fatal(err)
	}
}

func TestLockAndUnlock(t *testing.T) {
	h := newHere(t)
	a, b := h.holder("a"), h.holder("b")
	var why string
	opened := 0
	a.shut, a.opened = func(w string) { why = w }, func() { opened++ }
	h.checks(a, b)
	h.locks(false, a, b)

	if err := h.setLock("guard lock", h.at); err != nil {
		t.Fatal(err)
	}
	if !a.locked() || works(a.vault) != nil {
		t.Error("uses are refused from the moment of the lock, which is before the keys go")
	}
	h.checks(a, b)
	h.locks(true, a, b)
	if why != "guard lock" {
		t.Errorf("why: %q", why)
	}
	if _, err := h.hold(a.vault, "late", machineClock()); !errors.Is(err, vault.ErrLocked) {
		t.Errorf("a session that began meanwhile: %v", err)
	}
	for _, args := range [][]string{{"secret", "ls"}, {"secret", "show", "tok"}, {"vault", "ls"}, {"rotate", "tok"}, {"policy", "explain", "tok", "http:read"}} {
		if said := h.command(exitRefused, args...); !strings.Contains(said, "guard unlock opens it") {
			t.Errorf("%q: %s", args, said)
		}
	}
	if said := h.command(exitDone, "lock"); !strings.Contains(said, "2 running guard processes") {
		t.Error(said)
	}
	h.command(exitDone, "unlock")
	h.checks(a, b)
	h.locks(false, a, b)
	h.command(exitDone, "secret", "ls")
	if opened != 1 {
		t.Errorf("told %d times that it is open", opened)
	}
	h.command(exitDone, "unlock") // again, for nobody
	a.close()
	b.close()
	for _, want := range []string{"a.ticket", "a.answer", "held/a", "state"} {
		if _, err := os.Stat(h.lockPath(want)); err == nil {
			t.Errorf("%s is left", want)
		}
	}
}

func TestIdleLock(t *testing.T) {
	h := newHere(t)
	h.command(exitDone, "vault", "idle", "15m")
	a, b := h.holder("a"), h.holder("b")
	start := h.at
	step := func(after time.Duration, want bool) {
		t.Helper()
		h.at = start.Add(after)
		h.checks(a, b)
		h.locks(want, a, b)
	}
	step(14*time.Minute, false)
	a.use()
	step(28*time.Minute, false) // a use in one session keeps the others open
	step(29*time.Minute-time.Second, false)
	step(29*time.Minute, true)
	if n, _ := h.lockedBy(); n.Why != "idle" {
		t.Errorf("%+v", n)
	}
	h.command(exitDone, "unlock")
	h.checks(a, b)
	h.locks(false, a, b)

	// With nothing running, whoever comes later finds it locked; one without the setting does not.
	a.close()
	b.close()
	h.keepUsed(time.Now().Add(-15 * time.Minute))
	if said := h.command(exitRefused, "secret", "ls"); !strings.Contains(said, "(idle)") {
		t.Error(said)
	}
	h.command(exitDone, "unlock")
	h.command(exitDone, "vault", "idle", "off")
	h.keepUsed(time.Now().Add(-48 * time.Hour))
	h.command(exitDone, "secret", "ls")
	h.command(exitUsage, "vault", "idle", "soon")
	h.command(exitUsage, "vault", "idle", "-5m")
	h.config("suspend_lock = false\n# kept\n[table]\nidle_lock_of = 1\n")
	h.command(exitDone, "vault", "idle", "20m")
	if s, err := h.settings(); err != nil || s.IdleLock != 20*time.Minute || s.SuspendLock {
		t.Errorf("%+v, %v", s, err)
	}
	if b, _ := os.ReadFile(h.configPath()); !strings.Contains(string(b), "# kept\n[table]\nidle_lock_of = 1\n") {
		t.Errorf("the rest of the file is gone: %s", b)
	}
	h.config("idle_lock = 15\n")
	h.command(exitRefused, "secret", "ls") // what cannot be read is no "never"
}

func TestSuspendLock(t *testing.T) {
	h := newHere(t)
	h.sleeping = 3 * time.Hour // before this process began
	a := h.holder("a")
	h.checks(a)
	h.sleeping += 100 * time.Millisecond // the clocks are read one after the other
	h.checks(a)
	h.locks(false, a)
	h.sleeping += time.Second
	h.checks(a)
	h.locks(true, a)
	if n, _ := h.lockedBy(); n.Why != "suspend" {
		t.Errorf("%+v", n)
	}
	h.command(exitDone, "unlock")
	h.checks(a)
	h.checks(a)
	h.locks(false, a) // the same suspend does not lock again
	a.close()
	h.config("suspend_lock = false\n")
	b := h.holder("b")
	h.sleeping += time.Hour
	h.checks(b)
	h.locks(false, b)
}

// What a process of the same user tries that gets at the folder: nothing gives keys back.
func TestLockAttacks(t *testing.T) {
	h := newHere(t)
	a := h.holder("a")
	if err := h.setLock("guard lock", h.at); err != nil {
		t.Fatal(err)
	}
	h.checks(a)
	state := h.lockPath(lockState)
	if err := os.Remove(state); err != nil {
		t.Fatal(err)
	}
	h.checks(a)
	h.locks(true, a)

	// An answer is good once.
	ticket, err := os.ReadFile(h.lockPath("a.ticket"))
	if err != nil {
		t.Fatal(err)
	}
	h.command(exitDone, "unlock")
	answer, err := os.ReadFile(h.lockPath("a.answer"))
	if err != nil {
		t.Fatal(err)
	}
	h.checks(a)
	h.locks(false, a)
	if err := h.setLock("guard lock", h.at); err != nil {
		t.Fatal(err)
	}
	h.checks(a)
	put := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(h.lockPath(name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, b := range map[string][]byte{"the last answer": answer, "nothing": {}, "garbage": []byte(`{"key":"AAAA","box":"AAAA"}`)} {
		put("a.answer", b)
		_ = a.check() // says so once
		h.locks(true, a)
		if _, err := os.Stat(h.lockPath("a.answer")); err == nil {
			t.Errorf("%s is kept", name)
		}
	}

	// Tickets of those who never had the vault open are not answered, nor are old ones by new keys.
	release, err := vault.TryLock(h.lockPath(heldFolder, "thief"))
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	put("thief.ticket", []byte(strings.Replace(string(ticket), `"key":"`, `"key":"AA`, 1)))
	if said := h.command(exitDone, "unlock"); !strings.Contains(said, "thief is not a process that had the vault open") {
		t.Error(said)
	}
	if _, err := os.Stat(h.lockPath("thief.answer")); err == nil {
		t.Error("the thief was answered")
	}
	h.checks(a)
	h.locks(false, a)

	// What cannot be read is locked.
	for name, f := range map[string]func() error{
		"empty":    func() error { return os.WriteFile(state, nil, 0o600) },
		"a folder": func() error { return os.Mkdir(state, 0o700) },
		"dangling": func() error { return os.Symlink("/nowhere/at/all", state) },
	} {
		if err := f(); err != nil {
			t.Fatal(err)
		}
		if !a.locked() {
			t.Errorf("%s: uses go on", name)
		}
		os.Remove(state)
	}

	// Neither a keychain alone nor a session's own word unlocks.
	if err := h.setLock("guard lock", h.at); err != nil {
		t.Fatal(err)
	}
	b := *h.app
	env := h.getenv
	b.getenv = func(k string) string {
		if k == "GUARD_KEYFILE" {
			return ""
		}
		return env(k)
	}
	if got := b.run(context.Background(), []string{"unlock"}); got != exitRefused {
		t.Errorf("without a key and a terminal: status %d", got)
	}
	b.getenv = func(k string) string {
		if k == "GUARD_SESSION" {
			return "s"
		}
		return env(k)
	}
	for _, verb := range []string{"lock", "unlock"} {
		if got := b.run(context.Background(), []string{verb}); got != exitRefused {
			t.Errorf("guard %s in a session: status %d", verb, got)
		}
	}
	if _, locked := h.lockedBy(); !locked {
		t.Error("it was unlocked")
	}
}

// Locking and unlocking at once leaves nobody behind.
func TestLockRaces(t *testing.T) {
	h := newHere(t)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	var hs []*holder
	for _, id := range []string{"a", "b", "c"} {
		o := h.holder(id)
		hs = append(hs, o)
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := o.check(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 40 {
		if err := h.setLock("guard lock", h.at); err != nil {
			t.Error(err)
		}
		h.command(exitDone, "unlock")
	}
	close(stop)
	wg.Wait()
	h.checks(hs...)
	h.locks(false, hs...)
}

// Real sessions: their agents can neither lock nor unlock, and what they output is scanned on.
func TestLockedSession(t *testing.T) {
	testutil.Leftovers(t)
	t.Run("all", func(t *testing.T) {
		h := newHouse(t)
		value := testutil.Canary(t)
		h.set("acme/dev", "interactive", "tok", value, "--host", "api.example.com", "--env", "TOK")
		h.guard("", "context", "add", "acme/dev", h.path("proj"))
		v := h.visit("--allow", "tok")
		if said := v.ask(callAPI); said != "hello  200" {
			t.Fatalf("%q\n%s", said, v.said.String())
		}
		// The agent does not lock.
		agent := "for f in '' '-u GUARD_SESSION'; do env $f GUARD_HOME=" + h.path("gh") + " GUARD_KEYFILE=" + h.path("key") + " guard %s; done; "
		v.ask(strings.ReplaceAll(agent, "%s", "lock") + "mkdir -p " + h.path("gh", "lock") + "; echo '{}' >" + h.path("gh", "lock", "state"))
		if said := v.ask(callAPI); said != "hello  200" {
			t.Errorf("an agent locked: %q", said)
		}
		if said := h.guard("", "lock"); !strings.Contains(said, "locked. 1 running guard processes") {
			t.Error(said)
		}
		refused := func(when string) {
			t.Helper()
			if said := v.ask(callAPI); !strings.Contains(said, `"rule":"vault locked"`) || !strings.HasSuffix(said, " 403") || !strings.Contains(said, "guard unlock") {
				t.Errorf("%s: %q", when, said)
			}
		}
		refused("locked")
		if said := v.ask(`printf '%s\n' ` + value[:10] + `'` + value[10:] + `'`); strings.Contains(said, value) || !strings.Contains(said, "[tok]") {
			t.Error("output is not scanned while it is locked")
		}
		// Nor unlock: by command, by hand, by a signal, by what was there before.
		v.ask(strings.ReplaceAll(agent, "%s", "unlock") + "rm -rf " + h.path("gh", "lock") + "; kill -USR1 1; kill -HUP 1; kill -CONT $PPID; true")
		refused("after the agent tried")
		if status, said := h.try("", "run", "--boundary", "namespace", "--", "true"); status != 125 || !strings.Contains(said, "guard unlock opens it") {
			t.Errorf("a new session: %d %s", status, said)
		}
		// Taking the state away gives no key back.
		if err := os.Remove(h.path("gh", "lock", "state")); err != nil {
			t.Fatal(err)
		}
		refused("without the state")
		h.guard("", "unlock")
		testutil.WaitFor(t, "uses go on", func() bool { return v.ask(callAPI) == "hello  200" })
		if status := v.end(); status != 0 {
			t.Errorf("status %d\n%s", status, v.said.String())
		}
		log := h.guard("", "audit", "show", "--json")
		for _, want := range []string{`"type":"vault.lock"`, `"type":"vault.unlock"`, `"rule":"vault locked"`} {
			if !strings.Contains(log, want) {
				t.Errorf("the log has no %s", want)
			}
		}
		if left, _ := filepath.Glob(h.path("gh", "lock", "held", "*")); len(left) != 0 {
			t.Errorf("left: %v", left)
		}

		// What a credential logged in ends, since nobody is asked about each statement.
		db := pgServer.Get(t)
		defer pgServer.Stop()
		role, password := "r"+strings.ToLower(testutil.Random(10)), testutil.Random(24)
		db.Exec(t, "create role "+role+" login password '"+password+"'")
		h.set("acme/dev", "interactive", "db", password, "--host", db.Addr, "--kind", "postgres", "--user", role, "--env", "PGPASSWORD")
		d := h.visit("--allow", "db", "--host-port", dbPort(db))
		d.ask(`mkfifo /tmp/in; psql -XAtq "host=127.0.0.1 port=` + dbPort(db) + ` user=` + role + ` dbname=postgres sslmode=disable" </tmp/in >/tmp/out 2>&1 & exec 3>/tmp/in`)
		d.ask(`echo 'select 40+2;' >&3`)
		testutil.WaitFor(t, "the database answers", func() bool { return strings.Contains(d.ask("cat /tmp/out"), "42") })
		h.guard("", "lock")
		d.ask(`echo 'select 50+5;' >&3; exec 3>&-; wait`)
		if said := d.ask("cat /tmp/out"); strings.Contains(said, "55") || !strings.Contains(said, "connection") {
			t.Errorf("a login that stood goes on: %q", said)
		}
		h.guard("", "unlock")
		if status := d.end(); status != 0 {
			t.Errorf("status %d\n%s", status, d.said.String())
		}

		// One that ends instead.
		w := h.visit("--allow", "tok", "--lock-ends-session")
		w.ask("true")
		h.guard("", "lock")
		if status := w.end(); status != 125 || !strings.Contains(w.said.String(), "the vault was locked") {
			t.Errorf("status %d\n%s", status, w.said.String())
		}
		h.guard("", "unlock")
		h.guard("", "audit", "verify")
	})
}
