package attack

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const claimSockets = "An adversary who asks the keychain, ssh-agent, gpg-agent, Docker or any other socket"

func keyringCases() []Case {
	c := func(name, claim string, try func(in *inside) got, judge func(*world, got) got) Case {
		return Case{Name: name, Group: "keychains", Claim: claim, try: try, judge: judge}
	}
	all := []Case{
		c("bus-variable", claimSockets, func(in *inside) got {
			for _, k := range []string{"DBUS_SESSION_BUS_ADDRESS", "GNOME_KEYRING_CONTROL", "SSH_AUTH_SOCK", "GPG_AGENT_INFO", "DOCKER_HOST", "XAUTHORITY", "WAYLAND_DISPLAY", "TMUX"} {
				if v := os.Getenv(k); strings.Contains(v, in.Runtime) {
					return broke("%s leads to the user's", k)
				}
			}
			return held("no variable leads to the user's")
		}, nil),
		c("bus-abstract", claimSockets, func(in *inside) got {
			return refused("connect to an abstract socket of the user's", reach("unix", "@"+in.Abstract))
		}, nil),
		c("bus-tcp", claimSockets, func(in *inside) got {
			return refused("connect to a bus on the loopback", reach("tcp", fmt.Sprintf("127.0.0.1:%d", in.BusPort)))
		}, func(w *world, g got) got {
			if w.busAsked.Load() > 0 {
				return broke("the bus on the loopback was asked")
			}
			return g
		}),
		c("secret-tool", claimSockets, func(in *inside) got {
			return in.client("secret-tool", "lookup", "guard", "attack")
		}, busJudge),
		c("busctl", claimSockets, func(in *inside) got { return in.client("busctl", "--user", "list") }, busJudge),
		c("kernel-keyring", claimCalls, func(in *inside) got {
			id, err := unix.KeyctlSearch(in.KeyRing, "user", in.KeyName, 0)
			if err == nil {
				b := make([]byte, 100)
				n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, b, 0)
				if err == nil && in.known(b[:min(n, len(b))]) != "" {
					return broke("the key was read")
				}
				return broke("the key was found")
			}
			if _, rerr := unix.RequestKey("user", in.KeyName, "", 0); rerr == nil {
				return broke("the key was found by request_key")
			}
			if in.KeyRing == 0 {
				return skip("this machine has no kernel keyring for guard to put a key in: %v", err)
			}
			return held("keyctl: %v", err)
		}, nil),
		c("proc-keys", claimCalls, func(in *inside) got {
			b, err := os.ReadFile("/proc/keys")
			if strings.Contains(string(b), in.KeyName) {
				return broke("the user's keys are listed in /proc/keys")
			}
			if in.KeyRing == 0 {
				return skip("this machine has no kernel keyring for guard to put a key in")
			}
			return held("the user's key is not in /proc/keys (%v)", err)
		}, nil),
	}
	all[len(all)-1].Weak = "the names of an ordinary user's kernel keys are listed there; none of them can be read" // proc-keys
	return all
}

func busJudge(w *world, g got) got {
	if n := w.asked("session-bus"); n > 0 && g.Result != NotTried {
		return broke("the session bus was asked")
	}
	return g
}

// client runs a client of the session bus with the address that it would have had.
func (in *inside) client(name string, args ...string) got {
	if _, err := exec.LookPath(name); err != nil {
		return skip("%s is not installed", name)
	}
	if _, err := os.Stat(in.Sockets["session-bus"][0]); err == nil && !in.contained() {
		// There it would wait for an answer of the bus.
		return refused(name+" could connect", reach("unix", in.Sockets["session-bus"][0]))
	}
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "DBUS_SESSION_BUS_ADDRESS=unix:path="+in.Sockets["session-bus"][0], "XDG_RUNTIME_DIR="+in.Runtime)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stop := time.AfterFunc(caseTime/2, func() { _ = cmd.Process.Kill() })
	defer stop.Stop()
	out, err := cmd.CombinedOutput()
	if name := in.known(out); name != "" {
		return broke("%s was printed", name)
	}
	return refused(name, err)
}
