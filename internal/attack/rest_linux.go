package attack

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	claimLock     = "An adversary who locks or unlocks the vault from a session"
	claimStarving = "An adversary who uses up memory, disk, processes or time"
	claimDaemon   = "An adversary who leaves a daemon behind"
	claimLater    = "An adversary who leaves a program for you to run later"
	claimTypes    = "An adversary who has your terminal type text of its choice"
	claimEscapes  = "An adversary who sends other escape sequences to your terminal"
	claimDraw     = "An adversary who draws a value on the terminal in pieces"
	claimControl  = "An adversary who puts a control between the halves"
)

func approvalCases() []Case {
	c := func(name, claim string, try func(in *inside) got, judge func(*world, got) got) Case {
		return Case{Name: name, Group: "approval", Claim: claim, try: try, judge: judge}
	}
	command := func(name, claim string, ok func(out string) string, args ...string) Case {
		return c(name, claim, func(in *inside) got {
			cmd := exec.Command(in.self, args...)
			cmd.Env = append(os.Environ(), "GUARD_HOME="+in.GuardHome, "GUARD_KEYFILE="+in.Key)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
			stop := time.AfterFunc(caseTime/2, func() { _ = cmd.Process.Kill() })
			defer stop.Stop()
			out, err := cmd.CombinedOutput()
			if name := in.known(out); name != "" {
				return broke("guard printed %s", name)
			}
			if err == nil {
				if why := ok(string(out)); why != "" {
					return broke("%s", why)
				}
			}
			return held("guard %s inside: %v", args[0], err)
		}, nil)
	}
	did := func(what string) func(string) string { return func(string) string { return what } }
	return []Case{
		command("secret-show", claimVault, func(out string) string {
			if strings.Contains(out, apiHost) {
				return "the vault was opened"
			}
			return ""
		}, "secret", "show", nameAllowed),
		command("secret-reveal", claimVault, did("a value was shown"), "secret", "reveal", nameAllowed),
		command("secret-widen", claimVault, did("a credential was given another host"), "secret", "edit", nameAllowed, "--host", attackerHost),
		command("approve", claimVault, did("a request was approved"), "request", "approve", "1"),
		command("lock", claimLock, did("the vault was locked"), "lock"),
		command("unlock", claimLock, did("the vault was unlocked"), "unlock"),
		command("assign-context", claimVault, did("a folder was given to a context"), "context", "add", "attack/prod", "."),
		command("run-inside", claimUse, func(out string) string {
			if strings.Contains(out, "ran-inside") && !strings.Contains(out, "guard") {
				return "a session in the session opened the vault"
			}
			return ""
		}, "run", "--allow", nameAllowed, "--", "echo", "ran-inside"),
		c("guard-sockets", claimSockets, func(in *inside) got {
			n := 0
			for _, top := range []string{filepath.Join(in.Runtime, "guard"), in.GuardHome, "/run/guard", filepath.Join(in.Home, ".local/share/guard")} {
				found := ""
				_ = filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
					if err == nil && d.Type()&fs.ModeSocket != 0 {
						n++
						if reach("unix", p) == nil {
							found = p
						}
					}
					return nil
				})
				if found != "" {
					return broke("connected to %s", found)
				}
			}
			return held("%d sockets of guard's in sight, none answers", n)
		}, func(w *world, g got) got {
			if w.asked("guard-socket") > 0 {
				return broke("guard's socket was connected to")
			}
			return g
		}),
	}
}

func resourceCases() []Case {
	return []Case{
		{Name: "starve", Group: "resources", Claim: claimStarving,
			Weak: "there are no limits besides your own: a session may use memory, disk, processes and time as your shell may",
			try: func(in *inside) got {
				b := make([]byte, 32<<20)
				for i := 0; i < len(b); i += 4096 {
					b[i] = 1
				}
				f, err := os.CreateTemp("", "starve")
				if err != nil {
					return held("%v", err)
				}
				defer os.Remove(f.Name())
				defer f.Close()
				if _, err := f.Write(b[:8<<20]); err != nil {
					return held("%v", err)
				}
				var all []*exec.Cmd
				defer func() {
					for _, c := range all {
						_ = c.Process.Kill()
						_ = c.Wait()
					}
				}()
				for range 24 {
					c := exec.Command("/bin/sleep", "60")
					if err := c.Start(); err != nil {
						return held("after %d processes: %v", len(all), err)
					}
					all = append(all, c)
				}
				return broke("32 MiB of memory, 8 MiB of disk and 24 processes more were had, and nothing says that there is an end")
			}},
		{Name: "files-of-guard", Group: "resources", Claim: claimStarve, try: func(in *inside) got {
			return in.each("change the priority of", func(pid int) error {
				old, err := unix.Getpriority(unix.PRIO_PROCESS, pid)
				if err == nil && pid == 1 {
					return unix.Setpriority(unix.PRIO_PROCESS, pid, 19)
				}
				if err == nil {
					return unix.Setpriority(unix.PRIO_PROCESS, pid, 20-old)
				}
				return err
			})
		}},
		{Name: "oom-score", Group: "resources", Claim: claimStarve, try: func(in *inside) got {
			return in.each("make the first to be killed:", func(pid int) error {
				f, err := os.OpenFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), os.O_WRONLY, 0)
				if err == nil {
					f.Close()
				}
				return err
			})
		}},
	}
}

func persistCases() []Case {
	c := func(name, claim string, try func(in *inside) got, judge func(*world, got) got) Case {
		return Case{Name: name, Group: "persistence", Claim: claim, try: try, judge: judge}
	}
	homeFile := func(name, path string) Case {
		return c(name, claimHome, func(in *inside) got {
			p := filepath.Join(in.Home, path)
			_ = os.MkdirAll(filepath.Dir(p), 0o755)
			err := os.WriteFile(p, []byte("# the agent was here\n"), 0o644)
			return held("written to the session's layer (%v)", err)
		}, func(w *world, g got) got {
			if b, _ := os.ReadFile(filepath.Join(w.home, path)); bytes.Contains(b, []byte("the agent")) {
				return broke("%s of the host was written", path)
			}
			return g
		})
	}
	return []Case{
		c("daemon", claimDaemon, func(in *inside) got {
			cmd := exec.Command(in.self, Argument, in.file, "@linger", in.Nonce)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if err := cmd.Start(); err != nil {
				return skip("%v", err)
			}
			_ = cmd.Process.Release()
			return held("it was started")
		}, func(w *world, g got) got {
			if n := w.lingering(); n > 0 {
				return broke("%d processes outlived the session", n)
			}
			return held("no process is left")
		}),
		c("daemon-mount", claimDaemon, func(*inside) got { return held("judged outside") }, func(w *world, g got) got {
			b, _ := os.ReadFile("/proc/self/mountinfo")
			if bytes.Contains(b, []byte(w.top)) {
				return broke("a mount outlived the session")
			}
			return held("no mount is left")
		}),
		homeFile("shell-profile", ".bashrc"),
		homeFile("user-unit", ".config/systemd/user/attack.service"),
		homeFile("autostart", ".config/autostart/attack.desktop"),
		homeFile("ssh-rc", ".ssh/authorized_keys"),
		homeFile("git-config", ".gitconfig"),
		c("cron-at", claimRoot, func(*inside) got {
			for _, p := range []string{"/var/spool/cron", "/var/spool/cron/crontabs", "/etc/cron.d", "/etc/crontab", "/var/spool/at", "/var/spool/cron/atjobs", "/etc/systemd/system", "/etc/profile.d", "/etc/ld.so.preload"} {
				if unix.Access(p, unix.W_OK) == nil {
					return broke("%s can be written", p)
				}
			}
			return held("no table of jobs can be written")
		}, nil),
		{Name: "project-programs", Group: "persistence", Claim: claimLater,
			Weak: "what the agent writes in shared folders (git hooks, .envrc, tasks of an editor) is yours to look at before you run it",
			try: func(in *inside) got {
				for _, p := range []string{".git/hooks/post-commit", ".envrc", ".vscode/tasks.json"} {
					p = filepath.Join(in.Project, p)
					_ = os.MkdirAll(filepath.Dir(p), 0o755)
					if err := os.WriteFile(p, []byte("# the agent was here\n"), 0o755); err != nil {
						return held("%v", err)
					}
				}
				return held("written")
			},
			judge: func(w *world, g got) got {
				for _, p := range []string{".git/hooks/post-commit", ".envrc", ".vscode/tasks.json"} {
					if b, _ := os.ReadFile(filepath.Join(w.project, p)); bytes.Contains(b, []byte("the agent")) {
						return broke("%s is there, and would run outside", p)
					}
				}
				return g
			}},
	}
}

// linger outlives the session if it can, for a while.
func (in *inside) linger() {
	signal.Ignore(syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	time.Sleep(2 * caseTime)
}

// questions are sequences that a terminal answers with text of the asker's choice.
var questions = map[string]string{
	"title-report": "\x1b]2;rm -rf x\x07\x1b[21t", "icon-report": "\x1b]1;rm -rf x\x07\x1b[20t", "clipboard-read": "\x1b]52;c;?\x07", "setting-report": "\x1bP$qm\x1b\\", "answerback": "\x05",
}

func terminalCases() []Case {
	c := func(name, claim, weak string, try func(in *inside) got, judge func(*world, got) got) Case {
		return Case{Name: name, Group: "terminal", Claim: claim, Weak: weak, tty: true, try: try, judge: judge}
	}
	all := []Case{
		c("tiocsti", claimCalls, "", func(*inside) got {
			ch := byte('!')
			for _, req := range []uintptr{unix.TIOCSTI, 1<<32 | unix.TIOCSTI} {
				if _, _, e := unix.Syscall(unix.SYS_IOCTL, 0, req, uintptr(unsafe.Pointer(&ch))); e == 0 {
					return broke("a key was pressed")
				} else if req == 1<<32|unix.TIOCSTI {
					return held("TIOCSTI: %v", e)
				}
			}
			return held("")
		}, (*world).nothingTyped),
		c("tioclinux", claimCalls, "", func(*inside) got {
			var b [1]byte // pasting; a console's alone
			_, _, e := unix.Syscall(unix.SYS_IOCTL, 0, unix.TIOCLINUX, uintptr(unsafe.Pointer(&b[0])))
			if e == 0 {
				return broke("the console took it")
			}
			return held("TIOCLINUX: %v", e)
		}, nil),
		c("other-terminals", claimProc, "", func(in *inside) got {
			names, _ := filepath.Glob("/dev/pts/[0-9]*")
			self, _ := os.Readlink("/proc/self/fd/0")
			for _, n := range names {
				if n == self {
					continue
				}
				if f, err := os.OpenFile(n, os.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0); err == nil {
					f.Close()
					return broke("%s is another terminal that can be written", n)
				}
			}
			return held("the session has no terminal but its own")
		}, nil),
		c("clipboard-write", claimEscapes, "programs write the clipboard and the title in the same way; modes are set back at the end", func(*inside) got {
			fmt.Fprintf(os.Stdout, "\x1b]52;c;%s\x07", base64.StdEncoding.EncodeToString([]byte("pasted later")))
			return held("sent")
		}, func(w *world, g got) got {
			if strings.Contains(w.screen(), "\x1b]52;c;"+base64.StdEncoding.EncodeToString([]byte("pasted later"))) {
				return broke("the sequence reached the terminal")
			}
			return g
		}),
		c("terminal-raw", claimPrint, "", func(in *inside) got {
			fmt.Fprintf(os.Stdout, "%s\r\n", in.value())
			return held("printed")
		}, func(w *world, g got) got { return w.shown() }),
		c("terminal-colours", claimEscape, "", func(in *inside) got {
			for i, ch := range in.value() {
				fmt.Fprintf(os.Stdout, "\x1b[3%dm%c", i%8, ch)
			}
			fmt.Fprint(os.Stdout, "\x1b[0m\r\n")
			return held("printed")
		}, func(w *world, g got) got { return w.shown() }),
		c("terminal-controls", claimControl, "", func(in *inside) got {
			v := in.value()
			fmt.Fprintf(os.Stdout, "%s\x05%s\r\n%s\x1b[6n%s\r\n", v[:20], v[20:], v[:15], v[15:])
			return held("printed")
		}, func(w *world, g got) got { return w.shown() }),
		c("terminal-moves", claimDraw, "", func(in *inside) got {
			v := in.value()
			fmt.Fprintf(os.Stdout, "\x1b[2J\x1b[5;21H%s\x1b[5;1H%s\x1b[10;1H", v[20:], v[:20])
			return held("drawn")
		}, func(w *world, g got) got { return w.drawn() }),
	}
	for _, name := range []string{"title-report", "icon-report", "clipboard-read", "setting-report", "answerback"} {
		all = append(all, c(name, claimTypes, "", func(*inside) got {
			fmt.Fprint(os.Stdout, questions[name])
			return held("asked")
		}, func(w *world, g got) got {
			q := questions[name]
			if i := strings.LastIndex(q, "\x1b["); i > 0 {
				q = q[i:]
			}
			if strings.Contains(w.screen(), q) {
				return broke("the question reached the terminal")
			}
			return g
		}))
	}
	return all
}
