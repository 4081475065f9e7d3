//go:build !(cgo && hyperscan)

package matcher

// newEngine is the other engine, where there is one.
func newEngine(needles [][]byte) (engine, error) { return newGoEngine(needles), nil }

func engineVersion() string { return goName }
