package matcher

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"io"
	"math/bits"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// spares are decompressors that are not in use: making one costs more than what most
// of them are for, a header that was met by accident.
type spares struct {
	flate []io.ReadCloser
	zlib  []io.ReadCloser
	gzip  []*gzip.Reader
	zstd  []*zstd.Decoder
	bufs  [][]byte
}

const outSize = 4 << 10 // bytes that are taken out of a decompressor at a time

// take returns the last one of a list, or a new one.
func take[T any](list *[]T, make func() T) T {
	n := len(*list)
	if n == 0 {
		return make()
	}
	x := (*list)[n-1]
	*list = (*list)[:n-1]
	return x
}

func (s *spares) buf() []byte { return take(&s.bufs, func() []byte { return make([]byte, outSize) }) }

func (s *spares) flateReader() io.ReadCloser {
	return take(&s.flate, func() io.ReadCloser { return flate.NewReader(strings.NewReader("")) })
}

func (s *spares) gzipReader() *gzip.Reader {
	return take(&s.gzip, func() *gzip.Reader { return new(gzip.Reader) })
}

func (s *spares) zlibReader() io.ReadCloser {
	return take(&s.zlib, func() io.ReadCloser {
		r, err := zlib.NewReader(strings.NewReader("\x78\x9c"))
		if err != nil {
			panic(err) // that is a header
		}
		return r
	})
}

func (s *spares) zstdReader() *zstd.Decoder {
	return take(&s.zstd, func() *zstd.Decoder {
		z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			panic(err) // the options are right
		}
		return z
	})
}

const maxWindow = 8 << 20 // bytes of a Zstandard frame's window

// drop lets go of them.
func (s *spares) drop() {
	for _, z := range s.zstd {
		z.Close()
	}
	for _, b := range s.bufs {
		clear(b)
	}
	*s = spares{}
}

// tried is how many bytes are tried before a coroutine is made for a member.
const tried = 512

// nothing says that what b begins with, which isMagic knows, comes to an end in b, or is
// no such thing, before as many bytes came out as a needle has: then there is nothing to
// find in it.
func (s *spares) nothing(b []byte) bool {
	switch b[0] {
	case 0x28:
		return noFrame(b)
	case 'P': // not compressed, or encrypted
		return len(b) >= 10 && (b[6]&1 != 0 || binary.LittleEndian.Uint16(b[8:]) != 8)
	}
	b = b[:min(len(b), tried)]
	switch {
	case b[0] == 'x' && len(b) > 2 && ends(b[2:]), b[0] == 0x1f && len(b) > 10 && b[3] == 0 && ends(b[10:]):
		return true
	}
	src := bytes.NewReader(b)
	var r io.Reader
	switch b[0] {
	case 0x1f:
		z := s.gzipReader()
		if err := z.Reset(src); err != nil {
			s.gzip = append(s.gzip, z)
			return src.Len() > 0
		}
		z.Multistream(false)
		defer func() { s.gzip = append(s.gzip, z) }()
		r = z
	case 'x':
		z := s.zlibReader()
		defer func() { s.zlib = append(s.zlib, z) }()
		if err := z.(zlib.Resetter).Reset(src, nil); err != nil {
			return src.Len() > 0
		}
		r = z
	default:
		return false
	}
	var out [minNeedle]byte
	for n := 0; n < len(out); {
		k, err := r.Read(out[n:])
		if n += k; err != nil {
			return n < len(out) && src.Len() > 0
		}
	}
	return false
}

// ends says that a deflate stream (RFC 1951) that begins as b does begins with a block of
// fixed codes that comes to its end, and that of the stream, or is none, before as many
// bytes came out as a needle has. It says no where that takes more than a look.
func ends(b []byte) bool {
	if len(b) < 8 || b[0]>>1&3 != 1 {
		return false
	}
	x, n := binary.LittleEndian.Uint64(b)>>3, uint(61) // the bits that are left
	number := func(size uint) int {
		v := int(x & (1<<size - 1))
		x, n = x>>size, n-size
		return v
	}
	code := func(size uint) int { // its first bit is the highest one
		return int(bits.Reverse64(uint64(number(size))) >> (64 - size))
	}
	for made := 0; made < minNeedle && n >= 8+5+5+13; {
		c := code(7)
		if c >= 24 { // 8 bits or 9
			if c>>2 != 0b11000 {
				code(1 + uint(c/96))
				made++
				continue
			}
			c = 24 + (c&3)<<1 + code(1)
		}
		// The end, or 256 more than c, which is a length: of 11 bytes at least from 9 on.
		switch {
		case c == 0:
			return b[0]&1 != 0
		case c > 29:
			return true
		case c > 8 && c < 29:
			number(uint(c-5) / 4)
		}
		d := code(5)
		if d > 29 {
			return true
		}
		if d > 3 {
			more := uint(d/2 - 1)
			d = 2<<more + d&1<<more + number(more)
		}
		if d >= made {
			return true // from before the beginning
		}
		made += c + 2
	}
	return false
}

// noFrame says that no byte comes out of a Zstandard frame (RFC 8878, 3.1.1) that begins
// as b does: it needs a dictionary, or a window that is too large, or its first block
// cannot be one.
func noFrame(b []byte) bool {
	if len(b) < 5 {
		return false
	}
	d, at := b[4], 5
	window := uint64(0)
	single := d&0x20 != 0
	if !single {
		if len(b) < 6 {
			return false
		}
		w := b[5]
		base := uint64(1) << (10 + w>>3)
		if window = base + base/8*uint64(w&7); window > maxWindow {
			return true
		}
		at++
	}
	dictionary := at
	at += [4]int{0, 1, 2, 4}[d&3]
	fields := [4]int{0, 2, 4, 8}
	if single {
		fields[0] = 1
	}
	at += fields[d>>6]
	if len(b) < at+4 {
		return false
	}
	for _, c := range b[dictionary : dictionary+[4]int{0, 1, 2, 4}[d&3]] {
		if c != 0 {
			return true
		}
	}
	block := uint32(b[at]) | uint32(binary.LittleEndian.Uint16(b[at+1:]))<<8
	kind, size := block>>1&3, block>>3
	switch {
	case kind == 3, size > 128<<10, !single && uint64(size) > window:
		return true
	case kind == 2: // its literals cannot be coded as those of the block before
		return size < 2 || b[at+3]&3 == 3
	}
	return false
}
