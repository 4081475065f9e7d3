//go:build !(cgo && hyperscan)

package formats

func newEngine(anchors []anchor, _ string) (engine, error) { return newGoEngine(anchors), nil }

func engineVersion() string { return "go" }
