package aws

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// The x-amz-content-sha256 of bodies in chunks.
const (
	streamSigned        = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	streamSignedTrailer = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
	streamECDSA         = "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"
	streamECDSATrailer  = "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER"
	streamUnsigned      = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
)

const (
	maxChunk   = 16 << 20 // of a chunk that is signed, which is held
	maxLine    = 1 << 10  // the head of a chunk
	maxTrailer = 8 << 10
	padded     = 144 // length of an ECDSA signature in chunks, filled up with '*'
)

// streaming is the sort of a body in chunks.
type streaming struct{ signed, trailer, ecdsa bool }

func streamingOf(payload string) (streaming, bool) {
	switch payload {
	case streamSigned:
		return streaming{signed: true}, true
	case streamSignedTrailer:
		return streaming{signed: true, trailer: true}, true
	case streamECDSA:
		return streaming{signed: true, ecdsa: true}, true
	case streamECDSATrailer:
		return streaming{signed: true, trailer: true, ecdsa: true}, true
	case streamUnsigned:
		return streaming{trailer: true}, true
	}
	return streaming{}, false
}

var (
	errFraming = errors.New("the body's chunks are not as documented")
	errChunk   = errors.New("a chunk's signature does not verify")
	errLength  = errors.New("the body is not as long as x-amz-decoded-content-length says")
)

// chain makes and checks the signatures of a body's chunks, each of which is of the
// one before.
type chain struct {
	by    *signer
	alg   string
	date  string
	scope string
	last  string
}

func newChain(by *signer, s *signature, seed string) *chain {
	return &chain{by: by, alg: s.alg, date: s.date.Format(dateForm), scope: s.scope, last: seed}
}

var emptySum = hex.EncodeToString(sha256.New().Sum(nil))

func (c *chain) chunk(sum string) string {
	return c.alg + "-PAYLOAD\n" + c.date + "\n" + c.scope + "\n" + c.last + "\n" + emptySum + "\n" + sum
}

func (c *chain) trailer(sum string) string {
	return c.alg + "-TRAILER\n" + c.date + "\n" + c.scope + "\n" + c.last + "\n" + sum
}

// check verifies value as that of text and moves on.
func (c *chain) check(text, value string) bool {
	bare := value
	if c.by.ecdsa != nil {
		if len(value) > padded {
			return false
		}
		bare = strings.TrimRight(value, "*")
	}
	if !c.by.verify(text, bare) {
		return false
	}
	c.last = bare
	return true
}

// next signs text and moves on.
func (c *chain) next(text string) (string, error) {
	v, err := c.by.sign(text)
	if err != nil {
		return "", err
	}
	c.last = v
	if c.by.ecdsa != nil && len(v) < padded {
		v += strings.Repeat("*", padded-len(v))
	}
	return v, nil
}

// frames are a body's chunks: what the reader found, for the writer.
type frames struct {
	mu      sync.Mutex
	sizes   []int64
	ended   bool
	trailer []byte // canonical lines, "name:value\n"
}

func (f *frames) push(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sizes = append(f.sizes, n)
}

func (f *frames) pop() (int64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.sizes) == 0 {
		return 0, false
	}
	n := f.sizes[0]
	f.sizes = f.sizes[1:]
	return n, true
}

func (f *frames) end(trailer []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended, f.trailer = true, trailer
}

func (f *frames) whole() ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.trailer, f.ended && len(f.sizes) == 0
}

// dechunker gives the data of a body in chunks. Each chunk's signature is verified
// at its end: data comes out before, and a wrong one ends the body with an error, so
// that what got it never sees a whole request.
type dechunker struct {
	src   *bufio.Reader
	close io.Closer
	kind  streaming
	chain *chain // nil: not signed
	names []string
	found *frames

	want  int64 // decoded length
	got   int64
	left  int64
	sig   string
	sum   hash.Hash
	begun bool
	err   error
}

func newDechunker(body io.ReadCloser, kind streaming, c *chain, want int64, trailers []string, found *frames) *dechunker {
	return &dechunker{src: bufio.NewReaderSize(body, 64<<10), close: body, kind: kind, chain: c, want: want, names: trailers, found: found, sum: sha256.New()}
}

// Close closes the body.
func (d *dechunker) Close() error { return d.close.Close() }

// Read gives data.
func (d *dechunker) Read(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if d.left == 0 {
		if d.err = d.head(); d.err != nil {
			return 0, d.err
		}
		if d.left == 0 {
			if d.err = d.finish(); d.err == nil {
				d.err = io.EOF
			}
			return 0, d.err
		}
	}
	if int64(len(p)) > d.left {
		p = p[:d.left]
	}
	n, err := d.src.Read(p)
	if d.chain != nil {
		d.sum.Write(p[:n])
	}
	d.left -= int64(n)
	d.got += int64(n)
	if err != nil && d.left > 0 {
		d.err = short(err)
		return n, d.err
	}
	if d.left == 0 {
		if d.err = d.tail(); d.err != nil {
			return 0, d.err // not the last bytes of a chunk that is wrong
		}
	}
	return n, nil
}

func short(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// line reads one that ends in CRLF.
func (d *dechunker) line(limit int) (string, error) {
	var b []byte
	for {
		part, err := d.src.ReadSlice('\n')
		b = append(b, part...)
		if len(b) > limit {
			return "", errFraming
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if err != nil {
			return "", short(err)
		}
		s, ok := strings.CutSuffix(string(b), "\r\n")
		if !ok || strings.ContainsAny(s, "\r\n") {
			return "", errFraming
		}
		return s, nil
	}
}

// head reads the line before a chunk: "SIZE;chunk-signature=HEX", or "SIZE".
func (d *dechunker) head() error {
	line, err := d.line(maxLine)
	if err != nil {
		return err
	}
	size, ext, has := strings.Cut(line, ";")
	n, err := strconv.ParseUint(size, 16, 62)
	if err != nil || size == "" || len(size) > 15 || strings.ContainsAny(size, "+-_xX") {
		return errFraming
	}
	if d.chain == nil && has {
		return errFraming
	}
	if d.chain != nil {
		if d.sig, has = strings.CutPrefix(ext, "chunk-signature="); !has {
			return errFraming
		}
		if n > maxChunk {
			return errFraming
		}
		d.sum.Reset()
	}
	d.left = int64(n)
	if d.got+d.left > d.want {
		return errLength
	}
	if n > 0 {
		d.found.push(d.left)
	}
	return nil
}

// tail is what follows a chunk's data.
func (d *dechunker) tail() error {
	if d.chain != nil && !d.chain.check(d.chain.chunk(hex.EncodeToString(d.sum.Sum(nil))), d.sig) {
		return errChunk
	}
	var end [2]byte
	if _, err := io.ReadFull(d.src, end[:]); err != nil {
		return short(err)
	}
	if end != [2]byte{'\r', '\n'} {
		return errFraming
	}
	return nil
}

// finish reads what follows the last head: the empty chunk's signature, trailers, the
// end. Nothing may come after it.
func (d *dechunker) finish() error {
	if d.got != d.want {
		return errLength
	}
	if d.chain != nil && !d.chain.check(d.chain.chunk(emptySum), d.sig) {
		return errChunk
	}
	trailer, err := d.trailers()
	if err != nil {
		return err
	}
	if _, err := d.src.ReadByte(); err != io.EOF {
		if err == nil {
			return errFraming
		}
		return err
	}
	d.found.end(trailer)
	return nil
}

func (d *dechunker) trailers() ([]byte, error) {
	var lines []byte
	seen := map[string]bool{}
	signed := false
	for size := 0; ; {
		line, err := d.line(maxTrailer)
		if err != nil {
			return nil, err
		}
		if size += len(line); size > maxTrailer {
			return nil, errFraming
		}
		if line == "" {
			if len(seen) != len(d.names) || d.kind.trailer && d.chain != nil && !signed {
				return nil, errFraming
			}
			return lines, nil
		}
		name, value, ok := strings.Cut(line, ":")
		name, value = strings.ToLower(name), strings.TrimSpace(value)
		switch {
		case !ok || !d.kind.trailer || signed || seen[name]:
			return nil, errFraming
		case name == "x-amz-trailer-signature":
			sum := sha256.Sum256(lines)
			if d.chain == nil || !d.chain.check(d.chain.trailer(hex.EncodeToString(sum[:])), value) {
				return nil, errChunk
			}
			signed = true
		case !slices.Contains(d.names, name):
			return nil, errFraming
		default:
			for _, c := range []byte(value) {
				if c < ' ' || c > '~' {
					return nil, errFraming
				}
			}
			seen[name] = true
			lines = append(lines, name+":"+value+"\n"...)
		}
	}
}
