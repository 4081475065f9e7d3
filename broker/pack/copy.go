package pack

import (
	"bufio"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"io"
)

// Copy copies one packfile (gitformat-pack(5)) from r to w, and stops where it
// ends: its objects are inflated to find that, and nothing is checked that Judge
// checks. hash is the size of an object's name. Bytes that r had to say behind the
// pack may have been read, and are not copied. Memory does not grow with the pack.
func Copy(w io.Writer, r io.Reader, hash int) error {
	c := &teeing{r: bufio.NewReaderSize(r, 64<<10), w: bufio.NewWriterSize(w, 64<<10)}
	var head [12]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return err
	}
	if string(head[:4]) != "PACK" {
		return errors.New("not a pack")
	}
	n := binary.BigEndian.Uint32(head[8:])
	if n > maxObjects {
		return errTooMany
	}
	p := &pack{hash: hash}
	var z io.ReadCloser
	for range n {
		o, err := p.header(c)
		if err != nil {
			return err
		}
		if err := p.made1(o.size); err != nil {
			return err
		}
		if z == nil {
			z, err = zlib.NewReader(c)
		} else {
			err = z.(zlib.Resetter).Reset(c, nil)
		}
		if err != nil {
			return err
		}
		if k, err := io.Copy(io.Discard, io.LimitReader(z, o.size+1)); err != nil || k != o.size {
			return errors.Join(errObjectSize, c.err)
		}
	}
	if _, err := io.CopyN(io.Discard, c, int64(hash)); err != nil {
		return err
	}
	if c.err != nil {
		return c.err
	}
	return c.w.Flush()
}

// teeing copies what is read through it, byte for byte.
type teeing struct {
	r   *bufio.Reader
	w   *bufio.Writer
	err error // of w
}

func (t *teeing) Read(p []byte) (int, error) {
	if t.err != nil {
		return 0, t.err
	}
	n, err := t.r.Read(p)
	if _, werr := t.w.Write(p[:n]); werr != nil {
		t.err = werr
	}
	return n, err
}

func (t *teeing) ReadByte() (byte, error) {
	if t.err != nil {
		return 0, t.err
	}
	b, err := t.r.ReadByte()
	if err == nil {
		t.err = t.w.WriteByte(b)
	}
	return b, err
}
