//go:build !amd64

package matcher

// planesOf are the planes of the characters of b, a block for each element of dst.
func planesOf(dst []planes, b []byte, a *alphabetOf) { planesGo(dst, b, a) }
