//go:build unix

package testutil

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Keyring starts a session bus with an unlocked GNOME keyring, both of this
// test alone, and returns the variables with which a program finds it:
// DBUS_SESSION_BUS_ADDRESS, HOME, XDG_DATA_HOME and XDG_RUNTIME_DIR.
func Keyring(t testing.TB) []string {
	t.Helper()
	bus := need(t, "dbus-daemon", "dbus")
	keyring := need(t, "gnome-keyring-daemon", "gnome-keyring")
	// A socket's path has at most 107 bytes, which t.TempDir can use up.
	dir, err := os.MkdirTemp("", "guard-kr-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "XDG_DATA_HOME=" + filepath.Join(dir, "data"), "XDG_RUNTIME_DIR=" + dir,
	}
	address := "unix:path=" + filepath.Join(dir, "bus")
	// No folder of services: the bus would start a second, locked keyring for
	// whoever asks before the first is up.
	config := filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(config, []byte(fmt.Sprintf(busConfig, address)), 0o600); err != nil {
		t.Fatal(err)
	}
	own(t, exec.Command(bus, "--nofork", "--nopidfile", "--config-file="+config), env, "")
	WaitFor(t, "the session bus listens", func() bool {
		_, err := os.Stat(filepath.Join(dir, "bus"))
		return err == nil
	})
	env = append(env, "DBUS_SESSION_BUS_ADDRESS="+address)
	own(t, exec.Command(keyring, "--foreground", "--unlock", "--components=secrets", "--control-directory="+filepath.Join(dir, "control")), env, "test\n")
	WaitFor(t, "the keyring answers, unlocked", func() bool {
		send := exec.Command("dbus-send", "--session", "--print-reply", "--dest=org.freedesktop.secrets", "/org/freedesktop/secrets/aliases/default",
			"org.freedesktop.DBus.Properties.Get", "string:org.freedesktop.Secret.Collection", "string:Locked")
		send.Env = env
		out, err := send.Output()
		return err == nil && strings.Contains(string(out), "boolean false")
	})
	return env[1:]
}

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>`

// own starts a server and ends it, with what it started, after the test.
func own(t testing.TB, cmd *exec.Cmd, env []string, stdin string) {
	t.Helper()
	var log bytes.Buffer
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, io.Reader(strings.NewReader(stdin)), &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(fmt.Errorf("start %s: %w", filepath.Base(cmd.Path), err))
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", filepath.Base(cmd.Path), log.String())
		}
	})
}
