package matcher

// Mask appends b to dst with every byte that a hit covers replaced by '*', and
// returns it. off is the stream offset of b[0]. Where it fits, the credential's
// name is written into the mask: "[github-pat]****". The length stays the same,
// and so do CR and LF, which keep the screen in shape; nothing else of a value
// is left. A hit may begin before b or end after it: masking the pieces of a
// stream one by one gives the same as masking it at once. dst may be b[:0].
// hits are sorted, as Scan and Write return them.
func Mask(dst, b []byte, hits []Hit, off int64) []byte {
	n := len(dst)
	dst = append(dst, b...)
	out := dst[n:]
	var done int64 // up to here earlier hits were masked
	for _, h := range hits {
		from, to := max(h.Start-off, 0), min(h.End-off, int64(len(out)))
		name := h.ID.Name
		label := name != "" && int64(len(name))+2 <= h.End-h.Start && h.Start >= done
		labelEnd := h.Start
		if label {
			labelEnd = h.Start + int64(len(name)) + 2
		}
		for i := max(from, min(done, h.End)-off, 0); i < to; i++ {
			switch at := off + i - h.Start; {
			case out[i] == '\n' || out[i] == '\r':
			case off+i >= labelEnd:
				out[i] = '*'
			case at == 0:
				out[i] = '['
			case off+i == labelEnd-1:
				out[i] = ']'
			default:
				out[i] = labelByte(name[at-1])
			}
		}
		done = max(done, h.End)
	}
	return dst
}

// labelByte keeps a name from breaking what it is written into: a screen, a
// string literal, JSON.
func labelByte(c byte) byte {
	if isAlnum(c) || c == '-' || c == '_' || c == '.' || c == '/' {
		return c
	}
	return '_'
}
