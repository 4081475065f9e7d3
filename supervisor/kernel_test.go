//go:build linux

package supervisor

import (
	"os"
	"sync"
	"testing"
	"time"

	"guard"
	"guard/supervisor/sandbox"
)

// finds is a Kernel that finds what a test says.
type finds struct {
	mu   sync.Mutex
	ch   chan Find
	done bool
}

func (k *finds) Attach(int, bool) error { return nil }

func (k *finds) Read() (Find, error) {
	f, ok := <-k.ch
	if !ok {
		return f, os.ErrClosed
	}
	return f, nil
}

func (k *finds) Stop() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.done {
		k.done = true
		close(k.ch)
	}
	return nil
}

// verdict is a leak that went through the line, and what was decided.
type verdict struct {
	leak guard.Leak
	d    guard.Decision
}

// throughLine runs a watcher over found, with also judged by other sources, and
// returns what reached the log.
func throughLine(t *testing.T, tier sandbox.Tier, action guard.Action, found []Find, judged ...guard.Leak) (out []verdict, killed bool) {
	t.Helper()
	line := &Line{
		Decide: func(l guard.Leak) guard.Decision { return guard.Decision{Action: action, Rule: "policy"} },
		Record: func(l guard.Leak, d guard.Decision) (uint64, error) {
			if l.Source == SourceKernel {
				out = append(out, verdict{l, d})
			}
			return 1, nil
		},
		kill: func() { killed = true },
	}
	k := &finds{ch: make(chan Find, len(found))}
	w := newWatcher(k, line, func(s string) { t.Log(s) }, []int{5432})
	w.host = map[uint64]bool{hostDev: true}
	w.copied[fileKey{pipeDev, 7}] = true
	if err := w.attach(1, true); err != nil {
		t.Fatal(err)
	}
	w.begin(tier, os.Getpid())
	for _, f := range found {
		f.At = time.Now().Add(-time.Second)
		k.ch <- f
	}
	for _, l := range judged {
		line.Judge(l)
	}
	if err := w.finish(); err != nil {
		t.Fatal(err)
	}
	return out, killed
}

const (
	hostDev = 8<<20 | 1
	pipeDev = 13
	ownDev  = 77
)

func find(ch guard.Channel, dev, inode uint64) Find {
	return Find{Leak: guard.Leak{Origin: guard.Origin{Channel: ch}, Secret: guard.SecretID{Name: "tok"}, Length: 40}, Device: dev, Inode: inode, FD: -1}
}

// What is nobody else's is judged, once, by where it went; what another source
// judges is left to it.
func TestKernelFinds(t *testing.T) {
	refused := find(guard.ChannelFile, hostDev, 9)
	refused.Refused = true
	late := refused
	late.Offset = -20
	byFiles := guard.Leak{Origin: guard.Origin{Channel: guard.ChannelFile, Source: "files", Path: t.TempDir()}, Secret: guard.SecretID{Name: "tok"}}
	inFile := find(guard.ChannelFile, hostDev, inodeOf(byFiles.Path))
	named := find(guard.ChannelFile, hostDev, 1)
	named.Path = byFiles.Path
	byBroker := guard.Leak{Origin: guard.Origin{Channel: guard.ChannelHTTP, Source: "broker"}, Secret: guard.SecretID{Name: "tok"}}
	other := byBroker
	other.Secret.Name = "other"
	const inside, seen = RuleInside, RuleSeen
	for _, c := range []struct {
		name   string
		tier   sandbox.Tier
		find   Find
		judged []guard.Leak
		rule   string // "": nothing is judged
		act    guard.Action
		out    bool // counts as released
	}{
		{"the terminal", sandbox.Contained, find(guard.ChannelTerminal, 30, 3), nil, "", 0, false},
		{"another terminal, without a /dev of its own", sandbox.Cooperative, find(guard.ChannelTerminal, 30, 3), nil, seen, guard.Warn, true},
		{"the pipe that is standard output", sandbox.Contained, find(guard.ChannelPipe, pipeDev, 7), nil, "", 0, false},
		{"a pipe between two processes", sandbox.Contained, find(guard.ChannelPipe, pipeDev, 8), nil, inside, guard.Warn, false},
		{"the same in a weaker tier", sandbox.Restricted, find(guard.ChannelPipe, pipeDev, 8), nil, seen, guard.Warn, true},
		{"a FIFO in a shared folder", sandbox.Contained, find(guard.ChannelPipe, hostDev, 8), nil, seen, guard.Warn, true},
		{"memory, or the session's /tmp", sandbox.Contained, find(guard.ChannelFile, ownDev, 8), nil, inside, guard.Warn, false},
		{"a shared file that Files did not find it in", sandbox.Contained, find(guard.ChannelFile, hostDev, 8), nil, seen, guard.Warn, true},
		{"a shared file that it did find it in, by its inode", sandbox.Contained, inFile, []guard.Leak{byFiles}, "", 0, false},
		{"and by its path", sandbox.Contained, named, []guard.Leak{byFiles}, "", 0, false},
		{"another shared file", sandbox.Contained, find(guard.ChannelFile, hostDev, 8), []guard.Leak{byFiles}, seen, guard.Warn, true},
		{"a socket that the broker judged", sandbox.Contained, find(guard.ChannelSocket, 9, 8), []guard.Leak{byBroker}, "", 0, false},
		{"a socket, and the broker judged another value", sandbox.Contained, find(guard.ChannelSocket, 9, 8), []guard.Leak{other}, inside, guard.Warn, false},
		{"a socket in a tier where it may lead anywhere", sandbox.Cooperative, find(guard.ChannelSocket, 9, 8), nil, seen, guard.Warn, true},
		{"a socket where only the proxy can be reached", sandbox.Restricted, find(guard.ChannelSocket, 9, 8), nil, "", 0, false},
		{"what is no file", sandbox.Contained, find("other", 0, 0), nil, inside, guard.Warn, false},
		{"refused", sandbox.Contained, refused, []guard.Leak{byFiles}, RuleRefused, guard.Block, false},
		{"refused, with a first part out", sandbox.Contained, late, nil, RuleRefused, guard.Block, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, killed := throughLine(t, c.tier, guard.Redact, []Find{c.find}, c.judged...)
			if killed {
				t.Error("the agent is ended")
			}
			if c.rule == "" {
				if len(got) != 0 {
					t.Fatalf("judged twice: %+v", got)
				}
				return
			}
			if len(got) != 1 {
				t.Fatalf("%d records", len(got))
			}
			if v := got[0]; v.d.Rule != c.rule || v.d.Action != c.act || v.leak.Partial != c.out || v.leak.Source != SourceKernel {
				t.Errorf("%+v, released %v", v.d, v.leak.Partial)
			}
		})
	}
}

func TestKernelFindEndsTheAgent(t *testing.T) {
	got, killed := throughLine(t, sandbox.Contained, guard.Kill, []Find{find(guard.ChannelFile, hostDev, 8)})
	if !killed || len(got) != 1 || got[0].d.Action != guard.Kill || !got[0].leak.Partial {
		t.Errorf("killed %v, %+v", killed, got)
	}
}

// A value that is found in several forms in one call is one leak, and one that is
// written again and again is not recorded again and again.
func TestKernelFindsAreBounded(t *testing.T) {
	whole, bare := find(guard.ChannelFile, ownDev, 8), find(guard.ChannelFile, ownDev, 8)
	bare.Offset, bare.Length = 4, 36
	whole.Call, bare.Call = 1, 1
	if got, _ := throughLine(t, sandbox.Contained, guard.Redact, []Find{whole, bare}); len(got) != 1 {
		t.Errorf("%d records of one write", len(got))
	}
	var many []Find
	for i := range 100 {
		f := find(guard.ChannelFile, ownDev, 8)
		f.Offset = int64(i) * 1000
		many = append(many, f)
	}
	if got, _ := throughLine(t, sandbox.Contained, guard.Redact, many); len(got) != maxRecords {
		t.Errorf("%d records", len(got))
	}
	for i := range many {
		many[i].Inode = uint64(i)
	}
	if got, _ := throughLine(t, sandbox.Contained, guard.Redact, many); len(got) != len(many) {
		t.Errorf("%d records of %d files", len(got), len(many))
	}
}
