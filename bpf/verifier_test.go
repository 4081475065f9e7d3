//go:build linux && (amd64 || arm64)

package bpf

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// The verifier of the running kernel accepts every program of every object that
// it has a hook for, in every scope.
func TestVerifierAcceptsEveryProgram(t *testing.T) {
	canWatch(t)
	defer unlimited()()
	for name, object := range map[string]struct {
		open   func() (*ebpf.CollectionSpec, error)
		needs  []string
		refuse bool
	}{
		"detect": {loadDetect, []string{Loop}, false}, "bounded": {loadBounded, nil, false}, "block": {loadBlock, needs(LSM), true},
		"fallback": {loadFallback, needs(FmodRet), true}, "tls": {loadTls, []string{Loop}, false}, "ship": {loadShip, []string{Loop}, false},
	} {
		if err := probed().Need(object.needs...); err != nil {
			t.Logf("%s: %v", name, err)
			continue
		}
		spec, err := object.open()
		if err != nil {
			t.Fatal(err)
		}
		o := Options{PIDNamespace: 1, Cgroup: 1, Processes: []int{1}, All: true, Strict: object.refuse, Terminals: true}
		o.Refuse, o.Rescans = o.Strict, o.Strict
		if err := o.configure(spec, &Detector{}); err != nil {
			t.Fatal(err)
		}
		all := len(spec.Programs)
		if err := drop(spec, o, btf.NewCache()); err != nil {
			t.Fatal(err)
		}
		if len(spec.Programs) < all-1 {
			t.Errorf("%s: %d of %d programs have a hook here", name, len(spec.Programs), all)
		}
		coll, err := ebpf.NewCollection(spec)
		if err != nil {
			var v *ebpf.VerifierError
			if errors.As(err, &v) {
				t.Errorf("%s: %+v", name, v)
			} else {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		for p, prog := range coll.Programs {
			if info, err := prog.Info(); err == nil {
				if n, ok := info.VerifiedInstructions(); ok {
					t.Logf("%s: %s: %d instructions looked at", name, p, n)
				}
			}
		}
		coll.Close()
	}
}
