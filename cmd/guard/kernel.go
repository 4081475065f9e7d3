package main

import (
	"guard/bpf"
	"guard/supervisor/notify"
	"guard/supervisor/sandbox"
)

// kernelChecks is what the kernel offers for watching writes, as rows of doctor.
func kernelChecks(rep bpf.Report) []sandbox.Check {
	var out []sandbox.Check
	for _, f := range rep.Features {
		out = append(out, sandbox.Check{Name: "bpf: " + f.Name, OK: f.OK, Reason: f.Reason})
	}
	handed := sandbox.Check{Name: "writes handed over", OK: true, Reason: "seccomp notifications, pidfd_getfd"}
	if err := notify.Supported(); err != nil {
		handed.OK, handed.Reason = false, err.Error()
	}
	return append(out, handed)
}
