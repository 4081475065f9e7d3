package main

import (
	"guard/bpf"
	"guard/supervisor/sandbox"
)

// kernelChecks is what the kernel offers for watching writes, as rows of doctor.
func kernelChecks() []sandbox.Check {
	var out []sandbox.Check
	for _, f := range bpf.Probe().Features {
		out = append(out, sandbox.Check{Name: "bpf: " + f.Name, OK: f.OK, Reason: f.Reason})
	}
	return out
}
