//go:build !(cgo && hyperscan)

package matcher

func newEngine(needles [][]byte) (engine, error) { return newGoEngine(needles), nil }

func engineVersion() string { return "go" }
