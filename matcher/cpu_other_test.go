//go:build !unix

package matcher

func cpuSeconds() float64 { return 0 }
