//go:build unix

package pty

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"guard/internal/testutil"
)

// TestMain also is what TestJobControl has a shell run: guard's part of a
// session, which suspends itself on SIGUSR1 as main does when the agent stops.
func TestMain(m *testing.M) {
	if os.Getenv("GUARD_PTY_HELPER") == "" {
		os.Exit(m.Run())
	}
	if err := helper(); err != nil {
		fmt.Println("helper:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func helper() error {
	tm, err := OpenTerminal(os.Stdin, os.Stdout)
	if err != nil {
		return err
	}
	if err := tm.Raw(); err != nil {
		return err
	}
	defer tm.Restore()
	cmd := exec.Command("/bin/sh", "-c", `printf '\033[?2004hagent-%s\n' ready; while read line; do echo "got:$line"; stty size; [ "$line" = bye ] && exit; done`)
	master, err := Start(cmd, 24, 80)
	if err != nil {
		return err
	}
	defer master.Close()
	s := &Session{Master: master, Terminal: tm, Out: passAll}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGUSR1)
	cont := make(chan os.Signal, 1)
	signal.Notify(cont, syscall.SIGCONT)
	go func() {
		for range stop {
			if err := s.Suspend(); err != nil {
				panic(err)
			}
			syscall.Kill(os.Getpid(), syscall.SIGSTOP)
			<-cont // kill returns before the process stops
			if err := s.Resume(); err != nil {
				panic(err)
			}
		}
	}()
	fmt.Printf("pid=%d;\r\n", os.Getpid())
	if err := s.Run(context.Background()); err != nil {
		return err
	}
	return cmd.Wait()
}

// A session under a real shell: stopped, the shell has the keyboard and a sane
// terminal; continued, the agent has it again; ended, the shell again.
func TestJobControl(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed: apt-get install bash")
	}
	testutil.Leftovers(t)
	shell := exec.Command(bash, "--norc", "--noprofile", "--noediting", "-i")
	shell.Env = []string{"PATH=" + os.Getenv("PATH"), "PS1=$ ", "TERM=xterm", "HOME=" + t.TempDir()}
	m, err := Start(shell, 33, 99)
	if err != nil {
		t.Fatal(err)
	}
	u := &user{master: m, screen: newScreen()}
	shown := make(chan struct{})
	go func() { defer close(shown); u.screen.ReadFrom(m) }()
	defer func() {
		shell.Process.Kill()
		shell.Wait()
		<-shown
		m.Close()
	}()
	u.typed(t, "GUARD_PTY_HELPER=1 "+os.Args[0]+"\n")
	u.screen.waitFor(t, "agent-ready")
	pid, err := strconv.Atoi(regexp.MustCompile(`pid=(\d+);`).FindStringSubmatch(u.screen.String())[1])
	if err != nil {
		t.Fatal(err)
	}
	for round := 1; round <= 3; round++ {
		u.typed(t, fmt.Sprintf("a%d\r", round))
		u.screen.waitFor(t, fmt.Sprintf("got:a%d\r\n33 99\r\n", round))
		syscall.Kill(pid, syscall.SIGUSR1)
		u.screen.wait(t, "the shell's word that the job stopped", func(s string) bool { return strings.Count(s, "Stopped") == 2*round-1 })
		u.typed(t, fmt.Sprintf("echo shell-$((%d+1)); stty -a | grep -c ' icanon'; jobs\n", round))
		u.screen.waitFor(t, fmt.Sprintf("shell-%d\r\n1\r\n", round+1))
		u.screen.wait(t, "the list of jobs", func(s string) bool { return strings.Count(s, "Stopped") == 2*round })
		u.typed(t, "fg\n")
		u.screen.wait(t, "the agent's modes again", func(s string) bool { return strings.Count(s, "\x1b[?2004h") == round+1 })
	}
	u.typed(t, "bye\r")
	u.screen.waitFor(t, "got:bye\r\n33 99\r\n\x1b[?2004l$ ")
	u.typed(t, "echo after-$((2+3)); stty -a | grep -c ' icanon'\n")
	u.screen.waitFor(t, "after-5\r\n1\r\n")
}
