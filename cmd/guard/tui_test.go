//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"guard/internal/testutil"
)

// tuiCase is a real program, run plainly and under guard side by side in two
// windows of one tmux server.
type tuiCase struct {
	name  string
	needs string   // a program, or a path from the repository's root, without which it is skipped
	sh    string   // what runs, by sh
	env   []string // more of the environment
	steps []tuiStep
	// same returns what of a screen has to be the same; nil: all of it.
	same func(screen string) string
}

// tuiStep waits until both screens match wait and are the same, masks aside, and
// then types keys (tmux's names) or resizes.
type tuiStep struct {
	wait string
	keys []string
	size [2]int // columns, rows
	mask bool   // the value has to be on the plain screen, and its mask on the other
}

var tuiCases = []tuiCase{
	{name: "colours", sh: "python3 colours.py; read x", steps: []tuiStep{{wait: "END"}}},
	{name: "progress", sh: "python3 progress.py; read x", steps: []tuiStep{{wait: "100%.*\n.*END"}}},
	{name: "value", sh: "clear; echo before; sh show.sh; printf '\\033[7m%s\\033[0m after\\n' \"$(sh show.sh)\"; echo END; read x", steps: []tuiStep{{wait: "after\nEND", mask: true}}},
	{name: "vim", needs: "vim", sh: "vim -Nu NONE -n -i NONE --cmd 'set nomore shortmess+=I' -c 'syntax on' -c 'set number ruler hlsearch' code.c", steps: []tuiStep{
		{wait: "printf", keys: []string{"/", "line", "Enter"}},
		{wait: "/line", keys: []string{"G", "o", "typed text", "Escape"}},
		{wait: "typed text", keys: []string{":r !sh show.sh", "Enter"}},
		{wait: "typed text", mask: true, keys: []string{":split", "Enter"}},
		{wait: "code.c.*(?s:.*)code.c", keys: []string{":qa!", "Enter"}}, {},
	}},
	{name: "less", needs: "less", sh: "less -N long.txt", steps: []tuiStep{
		{wait: "long.txt", keys: []string{"Space"}}, {wait: "line 30 ", keys: []string{"G"}},
		{wait: "line 500 ", keys: []string{"?line 25 ", "Enter"}}, {wait: "line 25", keys: []string{"q"}}, {},
	}},
	{name: "git log", needs: "git", env: []string{"GIT_PAGER=less -R"}, sh: "git -c color.ui=always log -p --stat --no-abbrev", steps: []tuiStep{
		{wait: "commit [0-9a-f]{40}", keys: []string{"Space"}}, {wait: "diff --git", keys: []string{"q"}}, {},
	}},
	{name: "curses form", sh: "python3 form.py; read x", steps: []tuiStep{
		{wait: "Name:", keys: []string{"somebody", "Tab"}}, {wait: "somebody", keys: []string{"elsewhere", "Enter"}},
		{wait: "sent somebody elsewhere", keys: []string{"q"}}, {wait: "END"},
	}},
	{name: "shell", needs: "bash", env: []string{"PS1=ready> "}, sh: "exec bash --norc --noprofile -i", steps: []tuiStep{
		{wait: "ready>", keys: []string{"stty size", "Enter"}}, {wait: "30 100\n", size: [2]int{71, 17}},
		{wait: "ready>", keys: []string{"stty size; echo $COLUMNS", "Enter"}}, {wait: "17 71\n71\n", keys: []string{"echo a long command that is longer than one line of the window is now, and wraps"}},
		{wait: "and wraps", keys: []string{"C-a", "C-k"}}, {wait: `71\nready>\s*$`, keys: []string{"printf '\\033[1mbold\\033[0m\\n'; sleep 1000", "Enter"}}, {wait: "bold", keys: []string{"C-c"}}, {wait: "\\^C", keys: []string{"exit", "Enter"}}, {},
	}},
	{name: "npm install", needs: "npm", env: []string{"npm_config_cache=.npm", "npm_config_update_notifier=false"}, sh: "npm install ./dep --no-audit --no-fund --offline; echo END; read x",
		steps: []tuiStep{{wait: "added 1 package.*\n(?s:.*)END"}},
		same:  func(s string) string { return regexp.MustCompile(`in \d+m?s`).ReplaceAllString(s, "in T") }},
	// Numbers change, and inside are other processes: what is there of the frame.
	{name: "top", needs: "top", sh: "top -d 100 -e k", steps: []tuiStep{{wait: "PID USER.*COMMAND", keys: []string{"h"}}, {wait: "Help for Interactive", keys: []string{"q"}}, {wait: "PID USER.*COMMAND", keys: []string{"q"}}, {}}, same: tuiFrame},
	{name: "htop", needs: "htop", sh: "htop -d 100", steps: []tuiStep{{wait: "F10", keys: []string{"F1"}}, {wait: "invert sort order", keys: []string{"q"}}, {wait: "F10", keys: []string{"F10"}}, {}}, same: tuiFrame},
	{name: "agent", needs: ".cache/agent/node_modules/.bin/gemini", env: []string{"COLORTERM=truecolor"}, sh: `exec node "$AGENT"`, steps: []tuiStep{
		{wait: "Do you trust(?s:.*)3. Don't trust", keys: []string{"Down"}}, {wait: "● 2"},
	}},
}

// tuiFrame keeps the lines that are the same for any processes and numbers.
func tuiFrame(screen string) string {
	var kept []string
	screen = tuiEscapes.ReplaceAllString(screen, "")
	for plain := range strings.Lines(screen) {
		plain = strings.Join(strings.Fields(plain), " ") // columns are as wide as the greatest process id
		switch {
		case strings.HasPrefix(plain, "PID"), strings.Contains(plain, "F10"), strings.Contains(screen, "Help for Interactive"), strings.Contains(screen, "invert sort order"):
			kept = append(kept, plain)
		case strings.HasPrefix(plain, "%Cpu"), strings.HasPrefix(plain, "Tasks:"), strings.HasPrefix(plain, "KiB"):
			kept = append(kept, regexp.MustCompile(`[\d. ]+`).ReplaceAllString(plain, " "))
		}
	}
	return strings.Join(kept, "\n")
}

var tuiEscapes = regexp.MustCompile(`\x1b\[[0-9;:]*m`)

var tuiFiles = map[string]string{
	"colours.py": `for y in range(12):
    print("".join("\033[48;2;%d;%d;%dm\033[38;5;%dm%s" % (x * 3, y * 20, 255 - x * 3, x + y, "漢" if x % 20 == 0 else "x" if x % 20 != 1 else "") for x in range(80)) + "\033[0m")
for i in range(108): print("\033[%dm%d\033[0m" % (i, i), end=" ")
print("\n\033[4:3m\033[58;2;255;0;0mcurly\033[0m \033]8;;http://example.com\033\\link\033]8;;\033\\ \033(0lqqk\033(B é e\u0301 👩\u200d💻\nEND")
`,
	"progress.py": `import sys, time
for i in range(101):
    sys.stdout.write("\r\033[K\033[32m" + "━" * (i // 2) + "\033[90m" + "━" * (50 - i // 2) + "\033[0m %3d%%" % i)
    sys.stdout.flush()
    if i % 10 == 0: sys.stdout.write("\n\033[2mstep %d\033[0m\033[1A" % i)
    time.sleep(0.002)
print("\n\033[KEND")
`,
	"form.py": `import curses
def main(w):
    curses.start_color(); curses.use_default_colors(); curses.init_pair(1, curses.COLOR_YELLOW, curses.COLOR_BLUE)
    curses.mousemask(curses.ALL_MOUSE_EVENTS); curses.curs_set(1)
    w.bkgd(" ", curses.color_pair(1)); w.box(); w.addstr(0, 3, " A form ", curses.A_BOLD)
    for i, name in enumerate(("Name:", "Place:")): w.addstr(3 + 2 * i, 4, name)
    w.addstr(3, 12, "_" * 20, curses.A_UNDERLINE); w.addstr(5, 12, "_" * 20, curses.A_UNDERLINE); w.move(3, 12); w.refresh()
    fields, at = ["", ""], 0
    while True:
        k = w.get_wch()
        if k == "\t": at = 1 - at
        elif k == "\n": break
        else: fields[at] += k
        w.addstr(3 + 2 * at, 12, fields[at], curses.A_REVERSE); w.move(3 + 2 * at, 12 + len(fields[at])); w.refresh()
    p = curses.newwin(5, 50, 10, 10); p.box(); p.addstr(2, 2, "sent " + " ".join(fields), curses.A_BLINK | curses.A_BOLD); p.refresh()
    while w.get_wch() != "q": pass
curses.wrapper(main)
print("END")
`,
	"code.c":           "#include <stdio.h>\n\n/* a comment */\nint main(void)\n{\n\tfor (int line = 0; line < 10; line++)\n\t\tprintf(\"line %d\\n\", line);\n\treturn 0;\n}\n",
	"dep/package.json": `{"name": "dep", "version": "1.0.0"}`,
	"package.json":     `{"name": "top", "version": "1.0.0"}`,
}

// TestTUI compares the screens of real programs with and without guard, as tmux
// has them, cell by cell with their colours.
func TestTUI(t *testing.T) {
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("tmux is not installed: apt-get install tmux")
	}
	testutil.Leftovers(t)
	tm := newTUI(t)
	for _, c := range tuiCases {
		t.Run(c.name, func(t *testing.T) { tm.run(t, c) })
	}
}

type tui struct {
	guard, root, base, conf string
	env                     []string
	value, mask             string
}

func newTUI(t *testing.T) *tui {
	guard, err := exec.LookPath("guard")
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	base, err := os.MkdirTemp("", "tui") // short: the path of a socket is in it
	if err != nil {
		t.Fatal(err)
	}
	u := &tui{guard: guard, root: root, base: base, conf: filepath.Join(base, "conf"), value: testutil.Canary(t)}
	u.mask = "[tok]" + strings.Repeat("*", len(u.value)-5)
	t.Cleanup(func() {
		_ = u.tmux("kill-server").Run() // there is none if nothing was started
		testutil.WaitFor(t, "tmux has ended", func() bool { return u.tmux("ls").Run() != nil })
		// A guard whose terminal is gone still writes how far its log is.
		testutil.WaitFor(t, "guard has ended", func() bool { return !anyProcessOf(base) })
		_ = filepath.WalkDir(base, func(path string, d os.DirEntry, _ error) error { // a session's layers hold folders that nobody may read
			if d != nil && d.IsDir() {
				_ = os.Chmod(path, 0o700)
			}
			return nil
		})
		if err := os.RemoveAll(base); err != nil {
			t.Error(err)
		}
	})
	// With a style the terminal answers what its colours are, as real ones do.
	u.write(t, "conf", "set -g status off\nset -g remain-on-exit on\nset -g escape-time 0\nset -g default-terminal screen-256color\nset -g window-style fg=#e0e0e0,bg=#101010\nset -g default-shell /bin/sh\n")
	home := filepath.Join(base, "home")
	u.env = append(testutil.GitEnv(home), "PATH="+filepath.Dir(guard)+":"+systemPath+":"+filepath.Dir(lookPathOr("node", "/usr/bin/node")),
		"HOME="+home, "GUARD_KEYFILE="+filepath.Join(base, "key"), "TZ=UTC", "LANG=C.UTF-8", "TERM=screen-256color", "TMUX_TMPDIR="+base)
	var long strings.Builder
	for i := range 500 {
		fmt.Fprintf(&long, "line %d %s\n", i+1, strings.Repeat("word ", i%40))
	}
	for _, side := range []string{"plain", "guard"} {
		for name, text := range tuiFiles {
			u.write(t, side+"/here/proj/"+name, text)
		}
		u.write(t, side+"/here/proj/long.txt", long.String())
		// The value in a form that guard does not look for in files.
		u.write(t, side+"/here/proj/show.sh", "echo '"+shift(u.value, 1)+"' | tr B-ZAb-za A-Za-z\n")
		dir := filepath.Join(base, side, "here", "proj")
		for _, args := range [][]string{{"init", "-q"}, {"add", "code.c", "long.txt", "form.py"}, {"commit", "-q", "-m", "first: a commit"}} {
			cmd := exec.Command("git", args...)
			cmd.Dir = dir
			cmd.Env = append(u.env, "GIT_AUTHOR_DATE=2026-01-02T03:04:05Z", "GIT_COMMITTER_DATE=2026-01-02T03:04:05Z")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("git %s: %v: %s", args[0], err, out)
			}
		}
	}
	if err := os.MkdirAll(home, 0o755); err != nil {
		t.Fatal(err)
	}
	u.do(t, "new-session", "-d", "-s", "keep", "sleep 1000000") // a server ends with its last session
	return u
}

// lookPathOr is where name is.
func lookPathOr(name, or string) string {
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	return or
}

// shift moves letters by n, as tr turns them back.
func shift(s string, n int) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return 'a' + (r-'a'+rune(n))%26
		case r >= 'A' && r <= 'Z':
			return 'A' + (r-'A'+rune(n))%26
		}
		return r
	}, s)
}

func (u *tui) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(u.base, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (u *tui) tmux(args ...string) *exec.Cmd {
	cmd := exec.Command("tmux", append([]string{"-L", "tui", "-f", u.conf}, args...)...)
	cmd.Env, cmd.Dir = u.env, u.base
	return cmd
}

func (u *tui) do(t *testing.T, args ...string) string {
	t.Helper()
	out, err := u.tmux(args...).CombinedOutput()
	if err != nil {
		t.Fatalf("tmux %s: %v: %s", args[0], err, out)
	}
	return string(out)
}

var tuiSides = [2]string{"plain", "guard"}

func (u *tui) run(t *testing.T, c tuiCase) {
	switch {
	case strings.HasPrefix(c.needs, ".cache"):
		if _, err := os.Stat(filepath.Join(u.root, c.needs)); err != nil {
			t.Skipf("%v: make setup-test fetches it where the npm registry can be reached", err)
		}
	case c.needs != "":
		if _, err := exec.LookPath(c.needs); err != nil {
			t.Skipf("%v: make setup-test installs it", err)
		}
	}
	// A vault for each: what is left of a session's end keeps the next one in the
	// same context from its layer of $HOME, which it says on the screen.
	env := append(slices.Clone(u.env), "GUARD_HOME="+filepath.Join(u.base, "gh-"+strings.ReplaceAll(c.name, " ", "-")))
	for _, c := range []struct{ in, args string }{{"", "init"}, {u.value, "secret set tok --kind generic --host a.example.com --stdin"}} {
		cmd := exec.Command(u.guard, strings.Fields(c.args)...)
		cmd.Env, cmd.Dir, cmd.Stdin = env, u.base, strings.NewReader(c.in)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("guard %s: %v: %s", c.args, err, out)
		}
	}
	agent, _ := filepath.EvalSymlinks(filepath.Join(u.root, c.needs))
	for i, side := range tuiSides {
		script := "cd " + filepath.Join(u.base, side, "here", "proj") + "\nexec env -i"
		for _, kv := range append(append([]string{"AGENT=" + agent}, env...), c.env...) {
			script += " " + quote(kv)
		}
		if i == 1 {
			script += " guard run"
			for _, a := range shareAgent(u.root) {
				script += " " + quote(a)
			}
			script += " --"
		}
		u.write(t, side+".sh", script+" sh -c "+quote(c.sh)+"\n")
		u.do(t, "new-session", "-d", "-s", side, "-x", "100", "-y", "30", "sh "+side+".sh")
	}
	defer func() {
		for _, side := range tuiSides {
			pid := strings.TrimSpace(u.do(t, "list-panes", "-t", side, "-F", "#{pane_pid}"))
			u.do(t, "kill-session", "-t", side)
			var stat []byte
			u.await(t, side+" has ended", func() bool {
				var err error
				stat, err = os.ReadFile("/proc/" + pid + "/stat")
				return pid == "" || err != nil || bytes.Contains(stat, []byte(") Z "))
			})
			if t.Failed() {
				t.Logf("its first process: %s", stat)
			}
		}
	}()
	for i, s := range c.steps {
		if s.wait == "" { // ends
			u.await(t, c.name+" ends", func() bool {
				return u.do(t, "list-panes", "-t", "plain", "-F", "#{pane_dead}")+u.do(t, "list-panes", "-t", "guard", "-F", "#{pane_dead}") == "1\n1\n"
			})
			continue
		}
		u.compare(t, c, i, s)
		for _, side := range tuiSides {
			for _, k := range s.keys {
				u.do(t, "send-keys", "-t", side, k)
			}
			if s.size[0] != 0 {
				u.do(t, "resize-window", "-t", side, "-x", fmt.Sprint(s.size[0]), "-y", fmt.Sprint(s.size[1]))
			}
		}
	}
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// compare waits until both screens are what the step wants.
func (u *tui) compare(t *testing.T, c tuiCase, i int, s tuiStep) {
	t.Helper()
	re := regexp.MustCompile(s.wait)
	var want, got string
	ok := false
	u.await(t, "", func() bool {
		want, got = u.screen(t, "plain"), u.screen(t, "guard")
		ok = re.MatchString(tuiEscapes.ReplaceAllString(want, "")) && re.MatchString(tuiEscapes.ReplaceAllString(got, ""))
		if s.mask {
			ok = ok && strings.Contains(want, u.value) && strings.Contains(got, u.mask)
		}
		want = strings.ReplaceAll(want, u.value, u.mask)
		if c.same != nil {
			want, got = c.same(want), c.same(got)
		}
		ok = ok && want == got && want != ""
		return ok || t.Failed()
	})
	if strings.Contains(got, u.value) {
		t.Fatalf("step %d: the value is on the screen", i+1)
	}
	if !ok {
		t.Fatalf("step %d: the screens differ, or do not show %q\n--- plain\n%s\n--- guard\n%s", i+1, s.wait, escaped(want), escaped(got))
	}
}

// await returns when ok holds, or, after a time that is only for failing, not.
func (u *tui) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) { // between looks
		if time.Now().After(end) {
			if what != "" {
				t.Errorf("did not come true: %s", what)
			}
			return
		}
	}
}

func (u *tui) screen(t *testing.T, side string) string {
	t.Helper()
	return u.do(t, "capture-pane", "-p", "-e", "-t", side)
}

func escaped(s string) string { return strings.ReplaceAll(s, "\x1b", "␛") }

// shareAgent are the flags with which a session sees the agent in .cache, also where
// this checkout is in /tmp, of which sessions have one of their own.
func shareAgent(root string) []string {
	dir, err := filepath.EvalSymlinks(filepath.Join(root, ".cache/agent"))
	if err != nil || !strings.HasPrefix(dir, "/tmp/") {
		return nil
	}
	return []string{"--share", dir}
}

// anyProcessOf says whether the environment or the command line of a process names dir.
func anyProcessOf(dir string) bool {
	for _, pattern := range []string{"/proc/[0-9]*/environ", "/proc/[0-9]*/cmdline"} {
		files, _ := filepath.Glob(pattern)
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte(dir)) {
				return true
			}
		}
	}
	return false
}
