package attack

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	claimVault   = "An adversary who reads the vault, its key file or guard's settings"
	claimMask    = "An adversary who takes a mask away"
	claimDotenv  = "An adversary who reads .env or .npmrc"
	claimStdin   = "An adversary who uses the standard input that guard was given"
	claimHome    = "An adversary who writes over $HOME"
	claimRepo    = "An adversary who edits guard.toml"
	claimLog     = "An adversary who edits the log"
	claimProgram = "An adversary who changes guard's program, or the folder that it is in"
)

func fileCases() []Case {
	c := func(name, claim string, try func(in *inside) got) Case {
		return Case{Name: name, Group: "files", Claim: claim, try: try}
	}
	return []Case{
		c("environment", claimDotenv, func(in *inside) got {
			b, _ := os.ReadFile("/proc/self/environ")
			if name := in.known([]byte(strings.Join(os.Environ(), "\n") + string(b))); name != "" {
				return broke("%s is in the environment", name)
			}
			return held("the environment holds placeholders")
		}),
		c("vault-path", claimVault, func(in *inside) got { return in.readable(in.vaultFiles()...) }),
		c("key-path", claimVault, func(in *inside) got { return in.readable(in.Key) }),
		c("settings-path", claimVault, func(in *inside) got { return in.readable(filepath.Join(in.Home, ".config/guard/config.toml")) }),
		c("vault-hard-link", claimVault, func(in *inside) got {
			p := filepath.Join(in.Project, "hard-"+in.Nonce[:6])
			defer os.Remove(p)
			for _, from := range in.vaultFiles() {
				if os.Link(from, p) == nil {
					return in.readable(p)
				}
			}
			return held("no link to the vault can be made")
		}),
		c("vault-symlink", claimVault, func(in *inside) got {
			p := filepath.Join(in.Project, "soft-"+in.Nonce[:6])
			defer os.Remove(p)
			if err := os.Symlink(in.GuardHome, p); err != nil {
				return skip("%v", err)
			}
			return in.readable(filepath.Join(p, "vault.gv1"), filepath.Join(p, "audit/log.jsonl"))
		}),
		c("vault-other-names", claimVault, func(in *inside) got {
			var all []string
			for _, f := range in.vaultFiles() {
				all = append(all, "/proc/self/root"+f, filepath.Dir(f)+"/./../"+filepath.Base(filepath.Dir(f))+"/"+filepath.Base(f))
			}
			return in.readable(all...)
		}),
		c("dotenv", claimDotenv, func(in *inside) got {
			return in.noFile(filepath.Join(in.Project, ".env"), filepath.Join(in.Project, "config"))
		}),
		c("home-credentials", claimDotenv, func(in *inside) got {
			return in.noFile(filepath.Join(in.Home, ".npmrc"), filepath.Join(in.Home, ".netrc"), filepath.Join(in.Home, ".aws"), filepath.Join(in.Home, ".config"))
		}),
		c("dotenv-write", claimDotenv, func(in *inside) got {
			f, err := os.OpenFile(filepath.Join(in.Project, ".env"), os.O_WRONLY, 0)
			if err == nil {
				f.Close()
			}
			return refused("open .env to write", err)
		}),
		c("mask-links", claimMask, func(in *inside) got {
			p := filepath.Join(in.Project, ".env")
			if in.inFile(p) {
				return broke("the file is not masked")
			}
			link := filepath.Join(in.Project, "l-"+in.Nonce[:6])
			defer os.Remove(link)
			if os.Link(p, link) == nil && in.inFile(link) {
				return broke("a hard link shows what is below")
			}
			if os.Rename(p, link) == nil {
				bad := in.inFile(link) || in.inFile(p)
				_ = os.Rename(link, p)
				if bad {
					return broke("renamed, it shows what is below")
				}
			}
			for _, q := range []string{"/proc/self/root" + p, "/proc/self/cwd/.env"} {
				if in.inFile(q) {
					return broke("%s shows what is below", q)
				}
			}
			return held("neither links, a rename nor other names show what is below")
		}),
		c("mask-parent", claimMask, func(in *inside) got {
			dir := filepath.Join(in.Project, "config")
			if in.inFile(filepath.Join(dir, ".env")) {
				return broke("the file is not masked")
			}
			if err := os.Rename(dir, dir+"-moved"); err == nil {
				bad := in.inFile(filepath.Join(dir+"-moved", ".env"))
				_ = os.Rename(dir+"-moved", dir)
				if bad {
					return broke("below the renamed folder is the file itself")
				}
				return held("the mask goes with the folder")
			} else {
				return held("rename: %v", err)
			}
		}),
		c("mask-handle", claimMask, func(in *inside) got {
			h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, filepath.Join(in.Project, "config"), 0)
			if err != nil {
				return held("name_to_handle_at: %v", err)
			}
			fd, err := unix.Open(in.Project, unix.O_RDONLY, 0)
			if err != nil {
				return held("%v", err)
			}
			defer unix.Close(fd)
			f, err := unix.OpenByHandleAt(fd, h, unix.O_RDONLY)
			if err == nil {
				unix.Close(f)
			}
			return refused("open by handle", err)
		}),
		c("mask-mount-calls", claimMask, func(in *inside) got {
			fd, err := unix.OpenTree(unix.AT_FDCWD, in.Project, unix.OPEN_TREE_CLONE)
			if err == nil {
				unix.Close(fd)
				return broke("open_tree made a copy of the mounts")
			}
			fd, ferr := unix.Fsopen("tmpfs", 0)
			if ferr == nil {
				unix.Close(fd)
				return broke("fsopen")
			}
			return held("open_tree: %v, fsopen: %v", err, ferr)
		}),
		c("mask-unmount", claimMask, func(in *inside) got { return in.nested("unmask") }),
		c("mask-bind", claimMask, func(in *inside) got { return in.nested("bind") }),
		c("descriptors", claimStdin, func(in *inside) got {
			for fd, to := range in.fds {
				if fd > 2 && !strings.HasPrefix(to, in.Project) {
					return broke("descriptor %d was inherited", fd)
				}
				if fd <= 2 && strings.HasPrefix(to, "/") && to != "/dev/null" && !strings.HasPrefix(to, "/dev/pts/") {
					return broke("descriptor %d is a file of the host's", fd)
				}
			}
			return held("%d descriptors, none of them a file or a folder of the host's", len(in.fds))
		}),
		c("stdin-folder", claimStdin, func(in *inside) got {
			for _, p := range []string{"/proc/self/fd/0/..", "/dev/stdin/.."} {
				if names, err := os.ReadDir(p); err == nil {
					return broke("%d names beside standard input", len(names))
				}
			}
			if f, err := os.OpenFile("/proc/self/fd/0", os.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
				_, werr := f.Write([]byte("x"))
				f.Close()
				_ = werr
			}
			return held("standard input leads nowhere")
		}),
		{Name: "hard-link-before", Group: "files", Claim: "An adversary who has another hard link to a hidden file",
			Weak: "a second name of the same file, made before the session, is another file for a mask; guard says so at the start",
			try:  func(in *inside) got { return in.readable(filepath.Join(in.Project, "lib", "second-name")) }},
		{Name: "plain-copy", Group: "files", Claim: "An adversary who reads a plain copy of a value elsewhere in $HOME",
			Weak: "a copy under a name that tells nothing is not looked for in all of $HOME; what is sent of it is searched",
			try:  func(in *inside) got { return in.noFile(filepath.Join(in.Home, "music")) }},
		{Name: "xattr", Group: "files", Claim: "An adversary who reads a value in an extended attribute of a file",
			Weak: "extended attributes are not looked through; what is sent of them is searched",
			try: func(in *inside) got {
				b := make([]byte, 200)
				n, err := unix.Getxattr(filepath.Join(in.Project, "lib", "attributes"), "user.note", b)
				if err != nil {
					return skip("no extended attributes on this file system: %v", err)
				}
				if name := in.known(b[:n]); name != "" {
					return broke("%s", name)
				}
				return held("no value")
			}},
	}
}

// vaultFiles are the files of guard's that hold something.
func (in *inside) vaultFiles() []string {
	return []string{filepath.Join(in.GuardHome, "vault.gv1"), filepath.Join(in.GuardHome, "vault.gv1.bak"), filepath.Join(in.GuardHome, "audit/log.jsonl"), filepath.Join(in.GuardHome, "audit.head")}
}

// readable says whether a byte of one of paths can be read.
func (in *inside) readable(paths ...string) got {
	var last error
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if len(b) > 0 {
			return broke("%d bytes of %s", len(b), filepath.Base(p))
		}
		if err != nil {
			last = err
		}
	}
	if last == nil {
		return held("empty inside")
	}
	return held("%v", last)
}

func (in *inside) inFile(p string) bool {
	b, _ := os.ReadFile(p)
	return in.known(b) != ""
}

// unmask is root in namespaces of its own, and unmounts.
func (in *inside) unmask() got {
	targets := []string{filepath.Join(in.Project, ".env"), filepath.Join(in.Project, "config", ".env"), in.GuardHome, in.Key, in.Runtime, filepath.Join(in.Home, ".npmrc"), in.Project, in.Home, "/run", "/tmp", "/"}
	for range 2 {
		for _, p := range targets {
			for _, flag := range []int{0, unix.MNT_DETACH} {
				if p == "/" || p == in.Project || p == in.Home {
					continue // taken away, nothing is left to look at
				}
				_ = unix.Unmount(p, flag)
			}
			_ = unix.Mount("", p, "", unix.MS_REMOUNT|unix.MS_BIND, "")
		}
	}
	return in.below(in.Project, in.Home, in.GuardHome, in.Key)
}

// bind looks below the masks by binds and overlays elsewhere.
func (in *inside) bind() got {
	at := filepath.Join("/tmp", "guard-b-"+in.Nonce[:6])
	for _, d := range []string{at, at + "-u", at + "-w"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return skip("%v", err)
		}
		defer os.Remove(d)
	}
	defer os.RemoveAll(at + "-w")
	for _, dir := range []string{in.Project, filepath.Dir(in.Project), in.Home, filepath.Dir(in.GuardHome), "/"} {
		mounts := []func() error{
			func() error { return unix.Mount(dir, at, "", unix.MS_BIND, "") },
			func() error { return unix.Mount(dir, at, "", unix.MS_BIND|unix.MS_REC, "") },
			func() error {
				return unix.Mount("overlay", at, "overlay", 0, "userxattr,lowerdir="+dir+",upperdir="+at+"-u,workdir="+at+"-w")
			},
		}
		for i, mount := range mounts {
			if mount() != nil {
				continue
			}
			rel := func(p string) string {
				r, _ := filepath.Rel(dir, p)
				return filepath.Join(at, r)
			}
			var g got
			if dir == in.Project || dir == in.Home {
				g = in.below(rel(in.Project), rel(in.Home))
			} else {
				g = in.below(rel(in.Project), rel(in.Home), rel(in.GuardHome), rel(in.Key))
			}
			_ = unix.Unmount(at, unix.MNT_DETACH)
			if g.Result == NotHeld {
				return broke("%s, by mount %d of %s", g.Why, i, filepath.Base(dir))
			}
		}
	}
	return held("no bind and no overlay shows what is below")
}

// below looks for what is hidden, below its folders.
func (in *inside) below(project, home string, more ...string) got {
	for _, p := range []string{filepath.Join(project, ".env"), filepath.Join(project, "config/.env"), filepath.Join(home, ".npmrc"), filepath.Join(home, ".aws/credentials")} {
		if in.inFile(p) {
			return broke("the file below the mask of %s", filepath.Base(p))
		}
	}
	if len(more) > 0 {
		for _, p := range []string{filepath.Join(more[0], "vault.gv1"), more[1]} {
			if b, _ := os.ReadFile(p); len(b) > 0 {
				return broke("%s", filepath.Base(p))
			}
		}
	}
	return held("what is below does not show, as root of a namespace")
}

// mark is a file that the agent tries to leave beside guard's program.
func (in *inside) mark() string { return filepath.Join(filepath.Dir(in.Exe), "guard-attack-"+in.Nonce) }

// lastCases may spoil the session, where they are not held.
func lastCases() []Case {
	return []Case{
		{Name: "guard-program", Group: "files", Claim: claimProgram, try: func(in *inside) got {
			if in.contained() {
				// What a session sees there may be its own: whether the host has it is judged outside.
				_ = os.WriteFile(in.mark(), nil, 0o644)
				_ = os.Remove(in.Exe)
				return held("the session's view of it is not the host's")
			}
			if unix.Access(in.Exe, unix.W_OK) == nil {
				return broke("guard's program can be written")
			}
			if unix.Access(filepath.Dir(in.Exe), unix.W_OK) == nil {
				return broke("the folder of guard's program can be written")
			}
			return held("neither the program nor its folder can be written")
		}, judge: (*world).programStands},
		{Name: "repository-policy", Group: "files", Claim: claimRepo, try: func(in *inside) got {
			p := filepath.Join(in.Project, "guard.toml")
			err := os.WriteFile(p, []byte("# widened by the agent\n"), 0o644)
			_ = os.Remove(p)
			_ = os.Rename(p, p+".old")
			return refused("write guard.toml", err)
		}, judge: (*world).unchangedRepo},
		{Name: "user-policy", Group: "files", Claim: claimHome, try: func(in *inside) got {
			p := filepath.Join(in.Home, ".config/guard/config.toml")
			_ = os.MkdirAll(filepath.Dir(p), 0o755)
			_ = os.WriteFile(p, []byte("# widened by the agent\n"), 0o644)
			return held("written, if at all, to a layer of the session's")
		}, judge: (*world).unchangedConfig},
		{Name: "log-append", Group: "files", Claim: claimLog, try: func(in *inside) got {
			f, err := os.OpenFile(filepath.Join(in.GuardHome, "audit/log.jsonl"), os.O_WRONLY|os.O_APPEND, 0)
			if err == nil {
				fmt.Fprintln(f, `{"type":"forged"}`)
				f.Close()
			}
			return refused("open the log", err)
		}, judge: (*world).logVerifies},
		{Name: "vault-parent", Group: "files", Claim: claimVault, try: func(in *inside) got {
			dir := in.GuardHome
			err := os.Rename(dir, dir+"-moved")
			if err == nil {
				_, serr := os.Stat(filepath.Join(dir+"-moved", "vault.gv1"))
				_ = os.Rename(dir+"-moved", dir)
				if serr == nil {
					return broke("the vault's folder was renamed")
				}
			}
			return held("%v", err)
		}},
		{Name: "vault-write", Group: "files", Claim: claimVault, try: func(in *inside) got {
			for _, p := range in.vaultFiles() {
				if f, err := os.OpenFile(p, os.O_WRONLY, 0); err == nil {
					fi, _ := f.Stat()
					f.Close()
					if fi.Size() > 0 {
						return broke("%s can be opened to write", filepath.Base(p))
					}
				}
			}
			return held("none of its %s files can be opened to write", strconv.Itoa(len(in.vaultFiles())))
		}},
	}
}
