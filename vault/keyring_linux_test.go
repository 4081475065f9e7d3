package vault

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"guard"
)

func pageOf(b []byte) uintptr {
	return uintptr(unsafe.Pointer(&b[0])) &^ uintptr(os.Getpagesize()-1)
}

// The real Secret Service, on a session bus of the test's own.
func TestKeyring(t *testing.T) {
	requireTool(t, "dbus-run-session")
	requireTool(t, "gnome-keyring-daemon")
	home := t.TempDir()
	for _, d := range []string{"run", "home"} {
		if err := os.Mkdir(filepath.Join(home, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// A bus that starts no services: a call that comes before the daemon has its
	// name would start another one, which is locked.
	conf := filepath.Join(home, "bus.conf")
	if err := os.WriteFile(conf, []byte(`<busconfig><type>session</type><listen>unix:dir=`+home+`</listen>
		<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>`), 0o600); err != nil {
		t.Fatal(err)
	}
	c := child("keyring", filepath.Join(home, "home", "vault"), KeyFile{Path: filepath.Join(home, "key")})
	exe := c.Path
	c.Path = must(exec.LookPath("dbus-run-session"))
	c.Args = []string{"dbus-run-session", "--config-file=" + conf, "--", "sh", "-c", `
		printf pw | gnome-keyring-daemon --foreground --unlock --components=secrets >/dev/null 2>&1 &
		daemon=$!
		"$0"
		rc=$?
		kill $daemon
		wait $daemon
		exit $rc`, exe}
	c.Env = append(c.Env, "HOME="+filepath.Join(home, "home"), "XDG_RUNTIME_DIR="+filepath.Join(home, "run"),
		"XDG_DATA_HOME=", "XDG_CONFIG_HOME=", "XDG_CACHE_HOME=", "DBUS_SESSION_BUS_ADDRESS=")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func childKeyring(dir string, key KeyFile) error {
	k := Keyring{}
	if err := waitFor(func() error { _, _, err := k.Enrol("probe"); return err }); err != nil {
		return fmt.Errorf("the keyring does not come up: %w", err)
	}
	if err := k.Forget("probe"); err != nil {
		return err
	}
	if err := k.Forget("probe"); err != nil {
		return fmt.Errorf("forget nothing: %w", err)
	}
	v, err := Create(dir, k)
	if err != nil {
		return err
	}
	defer v.Close()
	if _, err := v.Set(guard.Credential{Name: "a"}, secret(canary)); err != nil {
		return err
	}
	// What the keychain has is 32 bytes, and no secret.
	out, err := exec.Command("secret-tool", "lookup", "service", "guard", "username", v.ID()).Output()
	if err == nil && (len(out) != 44 || strings.Contains(string(out), "canary")) {
		return fmt.Errorf("the item has %d bytes", len(out))
	}
	w, err := Open(dir, k)
	if err != nil {
		return err
	}
	s, err := w.Get(guard.SecretID{Name: "a"})
	w.Close()
	if err != nil || string(s.Reveal()) != canary {
		return fmt.Errorf("get: %w", err)
	}
	if err := v.AddSlot(k); !errors.Is(err, ErrExists) {
		return fmt.Errorf("a second keyring slot: %v", err)
	}
	if w, err = Open(dir, k); err != nil {
		return fmt.Errorf("the refused slot broke the first: %w", err)
	}
	w.Close()
	key.Create = true
	if err := v.AddSlot(key); err != nil {
		return err
	}
	// The item is gone, or another one: said so, and the other slot opens.
	if err := k.Forget(v.ID()); err != nil {
		return err
	}
	if _, err := Open(dir, k); !errors.Is(err, ErrNoUnlocker) || !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("the item is gone: %v", err)
	}
	if _, _, err := k.Enrol(v.ID()); err != nil {
		return err
	}
	if _, err := Open(dir, k); !errors.Is(err, ErrWrongKey) {
		return fmt.Errorf("another item: %v", err)
	}
	if w, err = Open(dir, k, key); err != nil {
		return err
	}
	w.Close()
	if err := v.RemoveSlot("keyring"); err != nil {
		return err
	}
	if err := v.AddSlot(k); err != nil {
		return err
	}
	w, err = Open(dir, k)
	if err != nil {
		return fmt.Errorf("set up again: %w", err)
	}
	w.Close()
	return k.Forget(v.ID())
}

// waitFor tries f until it works, for at most 20 seconds.
func waitFor(f func() error) error {
	end := time.Now().Add(20 * time.Second)
	for {
		err := f()
		if err == nil || time.Now().After(end) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestNoBus(t *testing.T) {
	dir := t.TempDir()
	quiet := filepath.Join(dir, "quiet") // a bus that takes connections and says nothing
	l, err := net.Listen("unix", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	for name, addr := range map[string]string{
		"a socket that is not there": "unix:path=" + filepath.Join(dir, "none"),
		"two":                        "unix:path=" + filepath.Join(dir, "none") + ",guid=00;unix:abstract=guard-test-none",
		"a silent one":               "unix:path=" + quiet,
		"nonsense":                   "nonsense",
	} {
		t.Setenv("DBUS_SESSION_BUS_ADDRESS", addr)
		k := Keyring{Timeout: 300 * time.Millisecond}
		_, _, err := k.Enrol("id")
		want(t, err, ErrNoKeyring)
		if _, err := Create(filepath.Join(dir, "vault"), k); !errors.Is(err, ErrNoKeyring) || Exists(filepath.Join(dir, "vault")) {
			t.Errorf("%s: create: %v", name, err)
		}
	}
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
	if _, err := os.Stat(fmt.Sprintf("/run/user/%d/bus", os.Getuid())); err != nil {
		// And no bus is started for the occasion: dbus-launch would say so.
		bin := t.TempDir()
		mark := filepath.Join(bin, "started")
		if err := os.WriteFile(filepath.Join(bin, "dbus-launch"), []byte("#!/bin/sh\n: >"+mark+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
		_, err := Keyring{}.Unlock("id", nil)
		want(t, err, ErrNoKeyring)
		if _, err := os.Stat(mark); err == nil {
			t.Error("a bus was started")
		}
	}
	// A vault with a keyring slot and another one opens without a bus.
	v, vdir, key := opened(t)
	v.mu.Lock()
	if err := v.update(func(n *state) error {
		s := n.slots[0]
		s.Kind, s.Name = keyringName, keyringName
		n.slots = append([]slot{s}, n.slots...)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	v.mu.Unlock()
	reopen(t, vdir, Keyring{}, key)
	_, err = Open(vdir, Keyring{})
	want(t, err, ErrNoKeyring)
}
