package matcher

// plausible says whether what isMagic takes for something compressed may be that,
// by what follows, as far as it is there. Two to four bytes are soon found by
// accident, and a decompressor for each would take long.
func plausible(b []byte) bool {
	switch b[0] {
	case 'x':
		return mayInflate(b[2:])
	case 0x1f:
		if len(b) < 4 {
			return true
		}
		// Reserved flags, and where there is nothing optional, the first block.
		return b[3]&0xe0 == 0 && (b[3] != 0 || len(b) <= 10 || mayInflate(b[10:]))
	case 0x28:
		return len(b) < 5 || b[4]&0x08 == 0 // RFC 8878, 3.1.1.1.1: reserved
	}
	return true
}

// mayInflate says whether b may begin a deflate stream (RFC 1951).
func mayInflate(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	switch b[0] >> 1 & 3 {
	case 3:
		return false
	case 0: // stored: a length, and its complement
		return len(b) < 5 || b[1]^b[3] == 0xff && b[2]^b[4] == 0xff
	case 1:
		return true
	}
	const header = 3 + 5 + 5 + 4 + 3*19 // bits: 74
	if len(b) < (header+7)/8 {
		return true
	}
	at := uint(3)
	take := func(n uint) uint {
		bits := uint(b[at/8])
		if at/8+1 < uint(len(b)) {
			bits |= uint(b[at/8+1]) << 8
		}
		v := bits >> (at % 8) & (1<<n - 1)
		at += n
		return v
	}
	literals, distances, codes := take(5)+257, take(5)+1, take(4)+4
	if literals > 286 || distances > 30 {
		return false
	}
	// The code is complete, as every compressor makes it.
	sum, used := uint(0), 0
	for range codes {
		if n := take(3); n > 0 {
			sum += 128 >> n
			used++
		}
	}
	return sum == 128 || used == 1
}
