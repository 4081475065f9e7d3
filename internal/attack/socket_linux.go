package attack

import (
	"os"
	"path/filepath"
	"strings"
)

// userSockets are sockets that lead to what the user's other programs hold. The
// first path is made for the attack, below the runtime folder, $HOME (~) or the
// project (.); the others are where a real one would be.
var userSockets = []struct {
	name  string
	plant string
	real  []string
}{
	{"session-bus", "bus", []string{"$DBUS_SESSION_BUS_ADDRESS", "$XDG_RUNTIME_DIR/bus"}},
	{"keyring-control", "keyring/control", []string{"$XDG_RUNTIME_DIR/keyring/control", "$XDG_RUNTIME_DIR/keyring/ssh"}},
	{"ssh-agent", "ssh-agent.sock", []string{"$SSH_AUTH_SOCK", "$XDG_RUNTIME_DIR/ssh-agent.socket", "$XDG_RUNTIME_DIR/openssh_agent"}},
	{"gpg-agent", "~/.gnupg/S.gpg-agent", []string{"$HOME/.gnupg/S.gpg-agent", "$XDG_RUNTIME_DIR/gnupg/S.gpg-agent"}},
	{"docker", "~/.docker/run/docker.sock", []string{"/run/docker.sock", "/var/run/docker.sock", "$XDG_RUNTIME_DIR/docker.sock", "/run/containerd/containerd.sock"}},
	{"podman", "podman/podman.sock", []string{"$XDG_RUNTIME_DIR/podman/podman.sock", "/run/podman/podman.sock"}},
	{"x11", "X11-unix/X0", []string{"/tmp/.X11-unix/X0", "/tmp/.X11-unix/X1"}},
	{"wayland", "wayland-0", []string{"$XDG_RUNTIME_DIR/wayland-0"}},
	{"tmux", "tmux-0/default", []string{"$TMUX", "/tmp/tmux-0/default", "/tmp/tmux-1000/default"}},
	{"screen", "screens/S-user/1.tty", nil},
	{"systemd-user", "systemd/private", []string{"$XDG_RUNTIME_DIR/systemd/private", "/run/systemd/private"}},
	{"system-bus", "dbus/system_bus_socket", []string{"/run/dbus/system_bus_socket", "/var/run/dbus/system_bus_socket"}},
	{"nscd", "nscd/socket", []string{"/run/nscd/socket", "/var/run/nscd/socket"}},
	{"resolved", "systemd/resolve/io.systemd.Resolve", []string{"/run/systemd/resolve/io.systemd.Resolve"}},
	{"nix-daemon", "nix/daemon-socket/socket", []string{"/nix/var/nix/daemon-socket/socket"}},
	{"watchman", "./.watchman/sock", []string{"/usr/local/var/run/watchman/root-state/sock"}},
	{"editor", "vscode-ipc.sock", []string{"$VSCODE_IPC_HOOK_CLI", "$VSCODE_GIT_IPC_HANDLE"}},
	{"notify", "notify", []string{"$NOTIFY_SOCKET", "/run/systemd/notify"}},
}

func socketCases() []Case {
	var all []Case
	for _, s := range userSockets {
		all = append(all, Case{Name: s.name, Group: "sockets", Claim: claimSockets,
			try: func(in *inside) got {
				var last error
				for _, p := range in.Sockets[s.name] {
					p = strings.TrimPrefix(p, "real:")
					if last = reach("unix", p); last == nil {
						return broke("connected to %s", p)
					}
				}
				return held("%d sockets: %v", len(in.Sockets[s.name]), last)
			},
			judge: func(w *world, g got) got {
				if w.asked(s.name) > 0 {
					return broke("the socket was connected to")
				}
				return g
			},
		})
	}
	return append(all, Case{Name: "sockets-by-name", Group: "sockets", Claim: claimSockets, try: func(in *inside) got {
		// As programs do to get around a path that is too long, or covered.
		for name, paths := range in.Sockets {
			dir, base := filepath.Split(paths[0])
			for _, p := range []string{"/proc/self/root" + paths[0], dir + "../" + filepath.Base(filepath.Clean(dir)) + "/" + base} {
				if reach("unix", p) == nil {
					return broke("%s by another name", name)
				}
			}
			link := filepath.Join(os.TempDir(), "s-"+in.Nonce[:6])
			_ = os.Remove(link)
			if os.Symlink(paths[0], link) == nil {
				err := reach("unix", link)
				_ = os.Remove(link)
				if err == nil {
					return broke("%s by a link", name)
				}
			}
		}
		return held("neither by links nor by other names")
	}})
}
