package bpf

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	r := Probe()
	var names []string
	for _, f := range r.Features {
		names = append(names, f.Name)
		if f.OK == (f.Reason != "") {
			t.Errorf("%s: OK is %v and the reason %q", f.Name, f.OK, f.Reason)
		}
		if strings.Contains(f.Reason, "\n") || len(f.Reason) > 300 {
			t.Errorf("%s: not one line for a person: %q", f.Name, f.Reason)
		}
		err := r.Need(f.Name)
		if (err == nil) != f.OK || r.Has(f.Name) != f.OK {
			t.Errorf("%s: Need says %v", f.Name, err)
		}
		if err != nil && (!errors.Is(err, ErrNotSupported) || !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), f.Name)) {
			t.Errorf("%s: %v", f.Name, err)
		}
	}
	want := featureNames()
	slices.Sort(want)
	slices.Sort(names)
	if !slices.Equal(names, want) {
		t.Errorf("features %v, want %v", names, want)
	}
	var e *NotSupportedError
	if err := r.Need("telepathy"); !errors.As(err, &e) || len(e.Missing) != 1 {
		t.Errorf("a feature that nobody knows: %v", err)
	}
}
