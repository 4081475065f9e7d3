package attack

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// target is what the agent is told: where things are, and how to know a value when
// it sees one, but none of them.
type target struct {
	Boundary, Case string
	TTY            bool
	Nonce          string
	Guard, Victim  int // process ids on the host
	Exe            string
	GuardHome, Key string
	Home, Project  string
	Runtime        string
	Sockets        map[string][]string // by the case's name; what the host really has behind "real:"
	Abstract       string
	BusPort        int
	AttackerPort   int
	UDPPort        int
	APIHost        string
	AttackerHost   string
	AttackerCA     string
	Placeholder    string // of the credential that the first session allows
	Other          string // of one that none does
	OtherHost      string
	KeyName        string
	KeyRing        int
	Lacks          map[string]bool   // sockets that this kernel has not
	Half1, Half2   string            // hex; exclusive or of both is a stored value
	Hashes         map[string]string // SHA-256 of a value, in hex: which one it is
	Report         string
}

// inside is the agent.
type inside struct {
	target
	file string // where the target was read from
	self string // this program
	fds  map[int]string
}

func held(format string, a ...any) got  { return got{Held, fmt.Sprintf(format, a...)} }
func broke(format string, a ...any) got { return got{NotHeld, fmt.Sprintf(format, a...)} }
func skip(format string, a ...any) got  { return got{NotTried, fmt.Sprintf(format, a...)} }

// caseTime ends a case that hangs.
const caseTime = 15 * time.Second

// agent runs the cases. args are the target's file, and, for a process that a case
// starts, "@" and what it does.
func agent(args []string) int {
	if len(args) == 0 {
		return 2
	}
	in := &inside{file: args[0], fds: descriptors()}
	in.self, _ = os.Executable()
	// guard's process id is known once it was started, and then the file is there.
	for until := time.Now().Add(caseTime); ; {
		b, err := os.ReadFile(in.file)
		if err == nil && json.Unmarshal(b, &in.target) == nil {
			break
		}
		if time.Now().After(until) {
			fmt.Fprintln(os.Stderr, "guard: no target:", err)
			return 2
		}
		time.Sleep(5 * time.Millisecond)
	}
	if len(args) > 1 {
		return in.helper(args[1], args[2:])
	}
	out, err := os.OpenFile(in.Report, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		fmt.Fprintln(os.Stderr, "guard: no report:", err)
		return 2
	}
	defer out.Close()
	say := json.NewEncoder(out)
	for _, c := range Cases() {
		if c.tty != in.TTY || in.Case != "" && c.Name != in.Case {
			continue
		}
		_ = say.Encode(map[string]any{"case": c.Name, "got": in.one(c)})
	}
	_ = say.Encode(map[string]any{"case": "", "got": held("all were tried")})
	return 0
}

// one tries a case. It ends it when it hangs, and says so.
func (in *inside) one(c Case) got {
	done := make(chan got, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- skip("the attack itself failed")
			}
		}()
		done <- c.try(in)
	}()
	select {
	case g := <-done:
		return g
	case <-time.After(caseTime):
		return skip("it did not end within %s", caseTime)
	}
}

// contained says that the session has namespaces of its own, so that what is tried
// reaches nothing else.
func (in *inside) contained() bool { return in.Boundary == "namespace" }

// value is a stored value that the agent has from elsewhere.
func (in *inside) value() []byte {
	a, _ := hex.DecodeString(in.Half1)
	b, _ := hex.DecodeString(in.Half2)
	for i := range a {
		a[i] ^= b[i]
	}
	return a
}

var canaryForm = regexp.MustCompile(`ghp_[0-9A-Za-z]{36}`)

// known returns which value is in b; "": none.
func (in *inside) known(b []byte) string {
	for _, m := range canaryForm.FindAll(b, -1) {
		sum := sha256.Sum256(m)
		if name := in.Hashes[hex.EncodeToString(sum[:])]; name != "" {
			return name
		}
	}
	return ""
}

// files says whether one of paths, or a file below it, holds a value.
func (in *inside) files(paths ...string) (string, error) {
	var last error
	for _, p := range paths {
		found := ""
		err := filepath.WalkDir(p, func(path string, d os.DirEntry, err error) error {
			if err != nil {
				last = err
				return nil
			}
			if d.Type().IsRegular() || d.Type()&os.ModeSymlink != 0 {
				b, err := os.ReadFile(path)
				if err != nil {
					last = err
				} else if name := in.known(b); name != "" {
					found = name + " in " + path
					return filepath.SkipAll
				}
			}
			return nil
		})
		if found != "" {
			return found, nil
		}
		if err != nil {
			last = err
		}
	}
	return "", last
}

func (in *inside) noFile(paths ...string) got {
	found, err := in.files(paths...)
	if found != "" {
		return broke("%s", found)
	}
	if err != nil {
		return held("no value: %v", err)
	}
	return held("no value in %s", strings.Join(paths, ", "))
}

// first is what the worst of several tries came to.
func worst(gs ...got) got {
	best := got{NotTried, "nothing to try"}
	for _, g := range gs {
		if g.Result == NotHeld {
			return g
		}
		if g.Result == Held && best.Result != Held {
			best = g
		}
	}
	return best
}

// refused is held when err is set.
func refused(what string, err error) got {
	if err != nil {
		return held("%s: %v", what, err)
	}
	return broke("%s: it was let", what)
}

// own says whether a process id is this process's or a descendant's.
func own(pid int) bool {
	for range 50 {
		if pid == os.Getpid() {
			return true
		}
		if pid <= 1 {
			return false
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return false
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(f) < 2 {
			return false
		}
		pid, _ = strconv.Atoi(f[1])
	}
	return false
}

// foreign are the processes of the user's that can be seen and are not the agent's
// own: guard, the victim, and in a session with a pid namespace its first process.
func (in *inside) foreign() []int {
	pids := []int{}
	for _, p := range []int{in.Guard, in.Victim} {
		if !own(p) {
			pids = append(pids, p)
		}
	}
	if in.contained() {
		pids = append(pids, 1)
		names, _ := os.ReadDir("/proc")
		for _, n := range names {
			if p, err := strconv.Atoi(n.Name()); err == nil && !own(p) && !slices.Contains(pids, p) {
				pids = append(pids, p)
			}
		}
	}
	return pids
}

// descriptors are those that are open, without the runtime's own.
func descriptors() map[int]string {
	all := map[int]string{}
	names, _ := os.ReadDir("/proc/self/fd")
	for _, n := range names {
		fd, _ := strconv.Atoi(n.Name())
		to, err := os.Readlink("/proc/self/fd/" + n.Name())
		if err == nil && !strings.Contains(to, "eventpoll") && !strings.Contains(to, "eventfd") && !strings.HasPrefix(to, "/proc/") {
			all[fd] = to
		}
	}
	return all
}

// again runs this program as a helper of a case, and returns what it said.
func (in *inside) again(attr *syscall.SysProcAttr, what string, args ...string) (string, error) {
	cmd := exec.Command(in.self, append([]string{Argument, in.file, "@" + what}, args...)...)
	cmd.SysProcAttr = attr
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

// nested runs a helper as root of namespaces of its own.
func (in *inside) nested(what string, args ...string) got {
	out, err := in.again(&syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}, what, args...)
	var g got
	if json.Unmarshal([]byte(out), &g) == nil && g.Result != "" {
		return g
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return held("no namespace in the session: %v", err)
	}
	return skip("the process in the namespace said nothing: %v", err)
}

// helper is a process that a case started.
func (in *inside) helper(what string, args []string) int {
	say := func(g got) int {
		_ = json.NewEncoder(os.Stdout).Encode(g)
		return 0
	}
	switch what {
	case "@unmask":
		return say(in.unmask())
	case "@bind":
		return say(in.bind())
	case "@uid":
		return say(got{Held, strconv.Itoa(os.Geteuid())})
	case "@linger":
		in.linger()
	case "@idle":
		time.Sleep(caseTime)
	}
	return 0
}

// dial connects within a second.
func dial(network, addr string) (net.Conn, error) {
	return net.DialTimeout(network, addr, time.Second)
}

// reach says whether an address answers.
func reach(network, addr string) error {
	c, err := dial(network, addr)
	if err == nil {
		c.Close()
	}
	return err
}
