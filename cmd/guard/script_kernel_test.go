//go:build linux

package main

import (
	"fmt"

	"guard/bpf"
)

// scriptCondition says for [bpf] and [lsm] whether the kernel lets this process
// search writes, and refuse them. Every script that asks has a part for each
// answer.
func scriptCondition(cond string) (bool, error) {
	o := bpf.Options{PIDNamespace: ownPIDNamespace()}
	switch cond {
	case "cargo":
		return cargoProgram() != "", nil
	case "s3":
		return s3Program() != "", nil
	case "npmclients":
		return clientPackages() != "", nil
	case "bpf":
	case "lsm":
		o.Refuse = true
	default:
		return false, fmt.Errorf("unknown condition %q", cond)
	}
	if kernelLacks() != "" {
		return false, nil
	}
	d, err := bpf.OpenDetector(o)
	if err != nil {
		return false, nil
	}
	return true, d.Close()
}
