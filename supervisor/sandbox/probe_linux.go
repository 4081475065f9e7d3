package sandbox

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Names of Report.Checks.
const (
	CheckNamespaces = "user namespaces"
	CheckMounts     = "own file tree"
	CheckOverlay    = "overlay on $HOME"
	CheckNetwork    = "own network"
	CheckNftables   = "nftables in the network"
	CheckNested     = "second user namespace"
	CheckSeccomp    = "system call filter"
	CheckLandlock   = "Landlock"
	CheckIdmap      = "idmapped mounts"
)

// Probe tries, in a short-lived child, what this machine offers. Without user
// namespaces the checks that need them are missing from the report.
func Probe() Report {
	r := Report{LandlockABI: landlockABI()}
	add := func(name string, err error, ok string) bool {
		c := Check{Name: name, OK: err == nil, Reason: ok}
		if err != nil {
			c.Reason = err.Error()
		}
		r.Checks = append(r.Checks, c)
		return err == nil
	}
	root := os.Geteuid() == 0
	contained := probeNamespaces(root, &r, add)
	switch abi := r.LandlockABI; {
	case abi == 0:
		add(CheckLandlock, unsupported("not in this kernel, or not in lsm= (Linux 5.13)"), "")
	case abi < 4:
		add(CheckLandlock, unsupported("ABI %d; the restricted tier needs 4 (Linux 6.7)", abi), "")
	case abi < 6:
		add(CheckLandlock, nil, fmt.Sprintf("ABI %d: signals and abstract sockets are left to the namespaces (6 has them, Linux 6.12)", abi))
	default:
		add(CheckLandlock, nil, fmt.Sprintf("ABI %d", abi))
	}
	_, err := seccompFilter(filterOptions{})
	filter := add(CheckSeccomp, err, "assembled for this processor")
	switch {
	case contained && filter:
		r.Tier = Contained
	case r.LandlockABI >= 4 && filter:
		r.Tier = Restricted
	default:
		r.Tier = Cooperative
	}
	return r
}

// probeNamespaces says whether the contained tier works.
func probeNamespaces(root bool, r *Report, add func(string, error, string) bool) bool {
	uid, gid := os.Geteuid(), os.Getegid()
	if root {
		uid, gid = agentUID(), agentUID()
	}
	p := initConfig{Agent: agentConfig{Dir: "/", Probe: true}, UID: uid, GID: gid}
	s := &session{tier: Contained}
	defer s.release()
	if !add(CheckNamespaces, s.spawn(&p, Config{}, root), "user, mount, pid, ipc, uts, cgroup and network namespaces start") {
		return false
	}
	ok := true
	if root {
		ok = add(CheckIdmap, probeIdmap(s.pid), os.TempDir()+" can be shown as another user's")
	}
	err := s.wire.send(message{Op: "start", Config: &p})
	var m message
	var fds []int
	if err == nil {
		m, fds, err = s.wire.recv()
		closeAll(fds)
	}
	if err != nil {
		return add(CheckMounts, s.death(err), "")
	}
	r.Checks = append(r.Checks, m.Checks...)
	for _, c := range m.Checks {
		if !c.OK && c.Name != CheckOverlay && c.Name != CheckNftables { // those have a substitute
			ok = false
		}
	}
	return ok
}

func probeIdmap(pid int) error {
	_, fds, err := trees(pid, &initConfig{Writable: []string{os.TempDir()}})
	closeAll(fds)
	return err
}

// probe is stage 1's side: it does what a session does, without an agent.
func (in *inner) probe() {
	m := message{Op: "probe"}
	add := func(name string, err error, ok string) {
		c := Check{Name: name, OK: err == nil, Reason: ok}
		if err != nil {
			c.Reason = err.Error()
		}
		m.Checks = append(m.Checks, c)
	}
	s, err := network(nil)
	add(CheckNetwork, err, "every address is local, lo is the only way")
	if err == nil {
		if len(s.notes) > 0 {
			err = unsupported("%s", s.notes[0])
		}
		add(CheckNftables, err, "TCP to every port is caught")
	}
	err = (&tree{c: in.c}).build()
	add(CheckMounts, err, "the host's files read-only, /proc, /dev, /run and /tmp of its own")
	if err == nil {
		add(CheckOverlay, probeOverlay(), "userxattr overlay mounts")
		var f *failure
		if f = in.startAgent(); f != nil {
			err = fmt.Errorf("%s: %w", f.step, f.err)
		}
		add(CheckNested, err, "the agent has its own uid, no capability, and the system call filter loads")
	}
	in.w.send(m)
}

func probeOverlay() error {
	for _, d := range []string{"/tmp/lower", "/tmp/upper", "/tmp/work", "/tmp/on"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	return unix.Mount("overlay", "/tmp/on", "overlay", unix.MS_NOSUID|unix.MS_NODEV,
		"userxattr,lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work")
}
