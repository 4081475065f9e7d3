package http

import (
	"bufio"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	nethttp "net/http"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// codingsOf returns the codings of Content-Encoding in the order in which they
// were applied, without identity; unknown ones are a *refusal.
func codingsOf(h nethttp.Header) ([]string, error) {
	var cs []string
	for _, v := range h["Content-Encoding"] {
		for c := range strings.SplitSeq(v, ",") {
			switch c = strings.ToLower(strings.TrimSpace(c)); c {
			case "", "identity":
			case "gzip", "x-gzip", "deflate", "br", "zstd":
				cs = append(cs, c)
			default:
				return nil, undecodable()
			}
		}
	}
	if len(cs) > 3 {
		return nil, undecodable()
	}
	return cs, nil
}

// decoder undoes codings. Bytes after the end of the coded stream are an error.
func decoder(r io.Reader, codings []string) (io.Reader, error) {
	for i := len(codings) - 1; i >= 0; i-- {
		src := bufio.NewReader(r)
		switch codings[i] {
		case "gzip", "x-gzip":
			r = &lazy{open: func() (io.Reader, error) { return gzip.NewReader(src) }}
		case "deflate":
			r = &exact{src: src, r: &lazy{open: func() (io.Reader, error) {
				// RFC 9110 means zlib; some send raw DEFLATE.
				if b, err := src.Peek(2); err == nil && b[0]&0x0f == 8 && (uint(b[0])<<8|uint(b[1]))%31 == 0 {
					return zlib.NewReader(src)
				}
				return flate.NewReader(src), nil
			}}}
		case "br":
			r = brotli.NewReader(src)
		case "zstd":
			d, err := zstd.NewReader(src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(64<<20), zstd.WithDecoderLowmem(true))
			if err != nil {
				return nil, err
			}
			r = d // with a concurrency of 1 it has no goroutines to be closed
		}
	}
	return r, nil
}

// lazy opens a reader when it is read from: a decoder wants its header, which
// a streaming sender may not have sent yet.
type lazy struct {
	open func() (io.Reader, error)
	r    io.Reader
}

func (l *lazy) Read(p []byte) (int, error) {
	if l.r == nil {
		r, err := l.open()
		if err != nil {
			return 0, err
		}
		l.r = r
	}
	return l.r.Read(p)
}

// exact fails if src holds more than r takes.
type exact struct {
	src *bufio.Reader
	r   io.Reader
}

func (e *exact) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err == io.EOF {
		if _, more := e.src.Peek(1); more == nil {
			return n, errors.New("bytes after the end of the coded body")
		}
	}
	return n, err
}
