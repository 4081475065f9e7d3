package attack

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sessionTime ends a session that hangs.
const sessionTime = 90 * time.Second

func run(ctx context.Context, o Options) ([]Row, error) {
	if o.Case != "" && find(o.Case) == nil {
		return nil, fmt.Errorf("no case is called %q (guard doctor --attack --json lists them)", o.Case)
	}
	if len(o.Boundaries) == 0 {
		o.Boundaries = Boundaries()
	}
	var rows []Row
	for _, b := range o.Boundaries {
		if Tier(b) == "" {
			return nil, fmt.Errorf("no boundary is called %q", b)
		}
		if o.Progress != nil {
			o.Progress(b)
		}
		w, err := newWorld(o.Exe, b, o.Case)
		if err != nil {
			return nil, err
		}
		got, why := w.attack(ctx)
		rows = append(rows, w.rows(got, why)...)
		w.close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return rows, nil
}

func find(name string) *Case {
	for _, c := range Cases() {
		if c.Name == name {
			return &c
		}
	}
	return nil
}

// rows judges what the agent says, case by case.
func (w *world) rows(said map[string]got, why error) []Row {
	var rows []Row
	for _, c := range Cases() {
		if w.only != "" && c.Name != w.only {
			continue
		}
		g, ok := said[c.Name]
		switch {
		case !ok:
			g = skip("the session did not get to it")
			if why != nil {
				g.Why += ": " + why.Error()
			}
		case c.judge != nil && g.Result == Held:
			g = c.judge(w, g)
		}
		r := Row{Case: c.Name, Group: c.Group, Claim: c.Claim, Tier: Tier(w.boundary), Result: g.Result, Reason: w.mask(g.Why), Declared: c.Weak != ""}
		if r.Declared && r.Result == NotHeld {
			r.Reason += " (as THREAT_MODEL.md says: " + c.Weak + ")"
		}
		rows = append(rows, r)
	}
	return rows
}

// mask keeps values out of a reason.
func (w *world) mask(s string) string {
	for name, v := range w.values {
		s = strings.ReplaceAll(s, v, "["+name+"]")
	}
	return strings.Join(strings.Fields(s), " ")
}

// guard runs a command of guard's outside, and returns its output.
func (w *world) guard(stdin string, args ...string) ([]byte, error) {
	cmd := exec.Command(w.exe, args...)
	cmd.Args[0] = "guard"
	cmd.Env, cmd.Dir, cmd.Stdin = w.env, w.project, strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("guard %s: %w: %s", args[0], err, w.mask(errs.String()))
	}
	return out.Bytes(), nil
}

// store makes the vault and its two credentials.
func (w *world) store() error {
	if _, err := w.guard("", "init", "--unlock", "keyfile"); err != nil {
		return err
	}
	for _, c := range []struct{ name, value, host string }{{nameAllowed, w.values["allowed"], apiHost}, {nameStored, w.values["stored"], "other.example.com"}} {
		if _, err := w.guard(c.value, "secret", "set", c.name, "--kind", "generic", "--stdin", "--host", c.host); err != nil {
			return err
		}
		out, err := w.guard("", "secret", "show", c.name, "--json")
		if err != nil {
			return err
		}
		var shown struct {
			Placeholder string `json:"placeholder"`
		}
		if err := json.Unmarshal(out, &shown); err != nil || shown.Placeholder == "" {
			return fmt.Errorf("guard secret show says no placeholder of %s", c.name)
		}
		if c.name == nameAllowed {
			w.placeholder = shown.Placeholder
		} else {
			w.other = shown.Placeholder
		}
	}
	// A second name of the key file, from before the session.
	_ = os.Link(w.key, filepath.Join(w.project, "lib", "second-name"))
	return nil
}

// attack runs the two sessions, and returns what the agent said.
func (w *world) attack(ctx context.Context) (map[string]got, error) {
	said := map[string]got{}
	var errs []error
	needsTTY, needsPlain := true, true
	if w.only != "" {
		needsTTY = find(w.only).tty
		needsPlain = !needsTTY
	}
	if needsTTY {
		errs = append(errs, w.session(ctx, true, said))
	}
	if needsPlain {
		// Only now: on a terminal guard would ask about it.
		if err := os.WriteFile(filepath.Join(w.project, "guard.toml"), w.repoFile, 0o644); err != nil {
			return said, err
		}
		errs = append(errs, w.session(ctx, false, said))
	}
	return said, errors.Join(errs...)
}

func (w *world) session(ctx context.Context, tty bool, said map[string]got) error {
	ctx, cancel := context.WithTimeout(ctx, sessionTime)
	defer cancel()
	file := filepath.Join(w.project, fmt.Sprintf("target-%t.json", tty))
	args := []string{"run", "--no-rotate", "--boundary", w.boundary, "--ca", filepath.Join(w.top, "ca.pem"), "--events", filepath.Join(w.top, "events.jsonl")}
	if !tty {
		args = append(args, "--allow", nameAllowed)
	}
	for _, r := range [][3]any{{apiHost, 443, w.apiPort}, {attackerHost, 443, w.attackerPort}} {
		args = append(args, "--resolve", fmt.Sprintf("%s:%d:127.0.0.1:%d", r[0], r[1], r[2]))
	}
	args = append(args, "--", w.agent(), Argument, file)
	cmd := exec.CommandContext(ctx, w.exe, args...)
	cmd.Args[0] = "guard"
	cmd.Dir = w.project
	cmd.Env = append(append([]string{}, w.env...), "PLAIN_TOKEN="+w.values["allowed"])
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	var err error
	if tty {
		err = w.onTerminal(cmd, file)
	} else {
		var out safeBuffer
		cmd.Stdout, cmd.Stderr = &out, &out
		in, perr := cmd.StdinPipe()
		if perr != nil {
			return perr
		}
		if err = cmd.Start(); err == nil {
			err = w.tell(file, tty, cmd.Process.Pid)
			err = errors.Join(err, cmd.Wait())
		}
		in.Close()
		w.output = out.bytes()
	}
	done := false
	report, rerr := os.Open(w.target(tty, 0).Report)
	if rerr == nil {
		defer report.Close()
		for s := bufio.NewScanner(report); s.Scan(); {
			var line struct {
				Case string
				Got  got
			}
			if json.Unmarshal(s.Bytes(), &line) == nil {
				if line.Case == "" {
					done = true
				} else {
					said[line.Case] = line.Got
				}
			}
		}
	}
	if !done && err == nil {
		err = errors.New("the agent ended early")
	}
	if done {
		return nil // guard's exit status is the agent's, or says that there were leaks
	}
	return fmt.Errorf("%w: %s", err, w.mask(lastLines(string(w.output)+string(w.terminal))))
}

// lastLines are what guard said last.
func lastLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	var said []string
	for _, l := range lines[max(0, len(lines)-40):] {
		if i := strings.Index(l, "guard: "); i >= 0 {
			said = append(said, strings.TrimSpace(l[i:]))
		}
	}
	return strings.Join(said[max(0, len(said)-3):], "; ")
}

// tell writes the target, whole at once.
func (w *world) tell(file string, tty bool, pid int) error {
	b, err := json.Marshal(w.target(tty, pid))
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", b, 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) bytes() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.b.Bytes())
}

// onTerminal runs a session on a terminal of its own, and keeps what it displays and
// what is left to be read there afterwards.
func (w *world) onTerminal(cmd *exec.Cmd, file string) error {
	master, slave, err := openTerminal()
	if err != nil {
		return err
	}
	defer master.Close()
	defer slave.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	var out safeBuffer
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(&out, master)
	}()
	if err = cmd.Start(); err == nil {
		err = w.tell(file, true, cmd.Process.Pid)
		err = errors.Join(err, cmd.Wait())
	}
	// What a shell would read next.
	if t, terr := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS); terr == nil {
		t.Lflag &^= unix.ICANON | unix.ECHO
		t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 0, 0
		_ = unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, t)
		b := make([]byte, 4096)
		n, _ := unix.Read(int(slave.Fd()), b)
		w.typed = b[:max(n, 0)]
	}
	slave.Close() // the last one: the master ends
	<-copied
	w.terminal = out.bytes()
	return err
}

func openTerminal() (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, fmt.Errorf("open a terminal: %w", err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 100})
	}
	if err == nil {
		slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
		return nil, nil, fmt.Errorf("open a terminal: %w", err)
	}
	return master, slave, nil
}
