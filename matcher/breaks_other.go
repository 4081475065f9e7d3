//go:build !amd64

package matcher

func crossed(b []byte, from int, places, out []uint16, g *bridges) []uint16 {
	return crossedGo(b, from, places, out, g)
}
