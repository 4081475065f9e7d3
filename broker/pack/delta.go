package pack

import "errors"

var errDelta = errors.New("a delta that cannot be applied")

func varint(b []byte) (n int64, rest []byte, err error) {
	for shift := 0; len(b) > 0 && shift < 56; shift += 7 {
		c := b[0]
		b = b[1:]
		n |= int64(c&0x7f) << shift
		if c&0x80 == 0 {
			return n, b, nil
		}
	}
	return 0, nil, errDelta
}

// instructions calls copy and insert for what a delta does, and returns the
// sizes that it announces.
func instructions(delta []byte, size func(src, dst int64) error, cp func(off, n int64) error, insert func([]byte) error) error {
	src, d, err := varint(delta)
	if err != nil {
		return err
	}
	dst, d, err := varint(d)
	if err != nil {
		return err
	}
	if err := size(src, dst); err != nil {
		return err
	}
	for len(d) > 0 {
		op := d[0]
		d = d[1:]
		switch {
		case op&0x80 != 0:
			var off, n int64
			for i := range 7 {
				if op>>i&1 == 0 {
					continue
				}
				if len(d) == 0 {
					return errDelta
				}
				if i < 4 {
					off |= int64(d[0]) << (8 * i)
				} else {
					n |= int64(d[0]) << (8 * (i - 4))
				}
				d = d[1:]
			}
			if n == 0 {
				n = 0x10000
			}
			if err := cp(off, n); err != nil {
				return err
			}
		case op != 0 && int(op) <= len(d):
			if err := insert(d[:op]); err != nil {
				return err
			}
			d = d[op:]
		default:
			return errDelta
		}
	}
	return nil
}

func apply(base, delta []byte) ([]byte, error) {
	var out []byte
	var want int64
	err := instructions(delta, func(src, dst int64) error {
		if src != int64(len(base)) || dst > maxObject {
			return errDelta
		}
		want = dst
		out = make([]byte, 0, dst)
		return nil
	}, func(off, n int64) error {
		if off+n > int64(len(base)) || int64(len(out))+n > want {
			return errDelta
		}
		out = append(out, base[off:off+n]...)
		return nil
	}, func(b []byte) error {
		if int64(len(out)+len(b)) > want {
			return errDelta
		}
		out = append(out, b...)
		return nil
	})
	if err == nil && int64(len(out)) != want {
		err = errDelta
	}
	return out, err
}
