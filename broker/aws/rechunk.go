package aws

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"strconv"
)

// rechunker puts data into chunks of the sizes that found has, signed anew.
type rechunker struct {
	src   io.ReadCloser
	kind  streaming
	chain *chain // nil: not signed
	found *frames
	want  int64 // of data; 0: not known

	got  int64
	out  []byte // to be given next
	buf  []byte // a chunk that is being signed
	left int64  // of a chunk that is not
	done bool
	err  error
	peek [1]byte
}

// Close closes the data.
func (r *rechunker) Close() error { return r.src.Close() }

// Read gives chunks.
func (r *rechunker) Read(p []byte) (int, error) {
	for {
		switch {
		case len(r.out) > 0:
			n := copy(p, r.out)
			r.out = r.out[n:]
			return n, nil
		case r.left > 0:
			if int64(len(p)) > r.left {
				p = p[:r.left]
			}
			n, err := r.src.Read(p)
			r.left -= int64(n)
			if r.err = r.count(n); r.err != nil {
				r.left = 0
				return 0, r.err
			}
			if r.left == 0 {
				r.out = []byte("\r\n")
			} else if err != nil {
				r.err, r.done, r.left = short(err), true, 0
			}
			if n > 0 {
				return n, nil
			}
		case r.err != nil:
			return 0, r.err
		case r.done:
			return 0, io.EOF
		default:
			if err := r.chunk(); err != nil {
				r.err = err
			}
		}
	}
}

// count adds n bytes that were read. The last ones do not go on before the end of the
// body was found good: a server may take an upload for whole that has no end.
func (r *rechunker) count(n int) error {
	r.got += int64(n)
	if n == 0 || r.want == 0 || r.got < r.want {
		return nil
	}
	if _, err := io.ReadFull(r.src, r.peek[:]); err == nil {
		return errLength
	} else if err != io.EOF {
		return err
	}
	return nil
}

// chunk starts the next one. A byte of it is read first: that makes the reader at the
// other end find its size.
func (r *rechunker) chunk() error {
	_, err := io.ReadFull(r.src, r.peek[:])
	if err == io.EOF {
		return r.last()
	}
	if err != nil {
		return err
	}
	n, ok := r.found.pop()
	if !ok {
		return errLength
	}
	size := strconv.FormatInt(n, 16)
	if r.chain == nil {
		first := r.peek[0]
		if err := r.count(1); err != nil {
			return err
		}
		r.out = append([]byte(size+"\r\n"), first)
		if r.left = n - 1; r.left == 0 {
			r.out = append(r.out, "\r\n"...)
		}
		return nil
	}
	// The signature comes before the data, so that all of it is read first: the head's
	// place is kept free in front.
	room := len(size) + len(";chunk-signature=") + 64 + 2
	if r.kind.ecdsa {
		room += padded - 64
	}
	if need := room + int(n) + 2; cap(r.buf) < need {
		r.buf = make([]byte, need)
	}
	b := r.buf[:room+int(n)+2]
	data := b[room : room+int(n)]
	data[0] = r.peek[0]
	if _, err := io.ReadFull(r.src, data[1:]); err != nil {
		return short(err)
	}
	if err := r.count(int(n)); err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	sig, err := r.chain.next(r.chain.chunk(hex.EncodeToString(sum[:])))
	if err != nil {
		return err
	}
	copy(b, size+";chunk-signature="+sig+"\r\n")
	copy(b[room+int(n):], "\r\n")
	r.out = b
	return nil
}

// last is the empty chunk, trailers and the end.
func (r *rechunker) last() error {
	trailer, ok := r.found.whole()
	if !ok {
		return errLength
	}
	r.done = true
	var b bytes.Buffer
	b.WriteString("0")
	if r.chain != nil {
		sig, err := r.chain.next(r.chain.chunk(emptySum))
		if err != nil {
			return err
		}
		b.WriteString(";chunk-signature=" + sig)
	}
	b.WriteString("\r\n")
	for line := range bytes.Lines(trailer) {
		b.Write(bytes.TrimSuffix(line, []byte("\n")))
		b.WriteString("\r\n")
	}
	if r.kind.trailer && r.chain != nil {
		sum := sha256.Sum256(trailer)
		sig, err := r.chain.next(r.chain.trailer(hex.EncodeToString(sum[:])))
		if err != nil {
			return err
		}
		b.WriteString("x-amz-trailer-signature:" + sig + "\r\n")
	}
	b.WriteString("\r\n")
	r.out = b.Bytes()
	return nil
}
