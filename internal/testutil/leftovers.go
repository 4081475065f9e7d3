package testutil

import (
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// kinds are what a test must not leave behind, each a function that lists what
// there is: a name that is shown, by an identity that stays.
type kinds map[string]func() (map[string]string, error)

// Leftovers has the test fail if, after all cleanups that were registered later
// than this call, there is something that was not there at the call: goroutines
// and, on Linux, descendant processes (orphans too: the test becomes their
// reaper), mounts, file descriptors, threads in another network namespace,
// named network namespaces, and control groups with "guard" in their path. What
// ends asynchronously gets time to. Call it first in a test, and not in one that
// runs in parallel with others.
func Leftovers(t testing.TB) {
	t.Helper()
	settle()
	kinds := osKinds()
	kinds["goroutine"] = goroutines
	before := map[string]map[string]string{}
	for kind, list := range kinds {
		have, err := list()
		if err != nil {
			t.Fatalf("list each %s: %v", kind, err)
		}
		before[kind] = have
	}
	t.Cleanup(func() {
		for _, l := range leftovers(kinds, before, 10*time.Second) {
			t.Error("left behind: " + l)
		}
	})
}

// leftovers lists what is new, once nothing is or the time is over.
func leftovers(kinds kinds, before map[string]map[string]string, limit time.Duration) (left []string) {
	waitFor(func() bool {
		left = nil
		for _, kind := range slices.Sorted(maps.Keys(kinds)) {
			now, err := kinds[kind]()
			if err != nil {
				left = append(left, fmt.Sprintf("%s: %v", kind, err))
				continue
			}
			for _, id := range slices.Sorted(maps.Keys(now)) {
				if _, was := before[kind][id]; !was {
					left = append(left, kind+" "+now[id])
				}
			}
		}
		return len(left) == 0
	}, limit)
	return left
}

// settle makes the runtime open what it opens once: its poller.
func settle() {
	r, w, err := os.Pipe()
	if err == nil {
		r.Close()
		w.Close()
	}
}

// goroutines lists all but the caller's, the runtime's and package testing's.
func goroutines() (map[string]string, error) {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	all := map[string]string{}
	for i, g := range strings.Split(string(buf), "\n\n") {
		head, stack, _ := strings.Cut(g, "\n")
		f := strings.Fields(head)
		if i == 0 || len(f) < 2 || strings.Contains(stack, "testing.tRunner(") || strings.Contains(stack, "testing.(*M)") ||
			strings.HasPrefix(stack, "os/signal.signal_recv") || strings.Contains(stack, "os/signal.loop") ||
			strings.HasPrefix(stack, "runtime.") && !strings.Contains(stack, "created by") {
			continue
		}
		all[f[1]] = g
	}
	return all, nil
}
