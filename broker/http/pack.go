package http

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"guard"
)

// pack reads a packfile (gitformat-pack(5)) of a push and judges every object
// as it will be, not as it is stored: deltas are applied. A thin pack, with a
// delta whose base only the other side has, is errThin: its instructions may put
// a value together from characters of that base.
type pack struct {
	src   io.ReaderAt
	start int64
	hash  int // size of an object's name

	objects []object
	at      map[int64]int  // by offset from the pack's start
	named   map[string]int // by name
	cache   map[int][]byte
	cached  int
	made    int64
}

type object struct {
	kind   byte // 1 commit, 2 tree, 3 blob, 4 tag, 6 ofs-delta, 7 ref-delta
	data   int64
	size   int64
	base   int64  // offset, of an ofs-delta
	ref    string // name, of a ref-delta
	parent int    // index of the base; -1: not in the pack
	final  byte   // kind after deltas are applied; 0: not yet known
	depth  int
}

const (
	maxObject = 256 << 20 // of one that is needed whole, to apply a delta
	maxCache  = 64 << 20
	maxChain  = 4096      // git's own limit on delta chains is 4095
	maxMade   = 256 << 30 // of all results of deltas
)

// objectHit says that an object holds a secret.
type objectHit struct {
	object string
	d      guard.Decision
}

func (h *objectHit) Error() string { return "a secret in " + h.object }

var kinds = [...]string{1: "commit", 2: "tree", 3: "blob", 4: "tag"}

// each runs every object through a filter of its own. The error is an
// *objectHit, or says that the pack cannot be read.
func (p *pack) each(open func(object string) guard.Filter) error {
	p.at, p.named, p.cache = map[int64]int{}, map[string]int{}, map[int][]byte{}
	if err := p.scan(open); err != nil {
		return err
	}
	return p.resolve(open)
}

// scan reads the pack once from start to end. Objects that are whole are
// judged as they are inflated.
func (p *pack) scan(open func(string) guard.Filter) error {
	r := &counting{r: bufio.NewReaderSize(io.NewSectionReader(p.src, p.start, 1<<62), 64<<10)}
	var head [12]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	if string(head[:4]) != "PACK" || binary.BigEndian.Uint32(head[4:]) != 2 && binary.BigEndian.Uint32(head[4:]) != 3 {
		return errors.New("not a pack")
	}
	var z io.ReadCloser
	for range binary.BigEndian.Uint32(head[8:]) {
		at := r.n
		o, err := p.header(r)
		if err != nil {
			return err
		}
		o.data = r.n
		if o.kind == 6 {
			if o.base <= 0 || o.base > at {
				return errors.New("a delta's base is out of range")
			}
			o.base = at - o.base
		}
		if z == nil {
			z, err = zlib.NewReader(r)
		} else {
			err = z.(zlib.Resetter).Reset(r, nil)
		}
		if err != nil {
			return err
		}
		i := len(p.objects)
		if o.kind <= 4 {
			if err := p.judge(o, z, i, open); err != nil {
				return err
			}
		} else if n, err := io.Copy(io.Discard, io.LimitReader(z, o.size+1)); err != nil || n != o.size {
			return errors.New("a delta of another size than it says")
		}
		p.at[at] = i
		p.objects = append(p.objects, o)
	}
	if n, err := io.Copy(io.Discard, r); err != nil || n != int64(p.hash) {
		return errors.New("bytes after the pack")
	}
	return nil
}

// header reads an object's type, size and base.
func (p *pack) header(r *counting) (o object, err error) {
	b, err := r.ReadByte()
	if err != nil {
		return o, err
	}
	o.kind, o.size, o.parent = b>>4&7, int64(b&15), -1
	for shift := 4; b&0x80 != 0; shift += 7 {
		if b, err = r.ReadByte(); err != nil {
			return o, err
		}
		if shift > 53 {
			return o, errors.New("an object's size is too large")
		}
		o.size |= int64(b&0x7f) << shift
	}
	switch o.kind {
	case 1, 2, 3, 4:
		o.final = o.kind
	case 6:
		if b, err = r.ReadByte(); err != nil {
			return o, err
		}
		o.base = int64(b & 0x7f)
		for b&0x80 != 0 {
			if b, err = r.ReadByte(); err != nil {
				return o, err
			}
			if o.base > 1<<54 {
				return o, errors.New("a delta's base is out of range")
			}
			o.base = (o.base+1)<<7 | int64(b&0x7f)
		}
	case 7:
		name := make([]byte, p.hash)
		if _, err = io.ReadFull(r, name); err != nil {
			return o, err
		}
		o.ref = string(name)
	default:
		err = errors.New("an object of unknown type")
	}
	return o, err
}

// judge names a whole object and shows it to a filter. A name is known at the
// end only, so a record names the object by its number.
func (p *pack) judge(o object, r io.Reader, i int, open func(string) guard.Filter) error {
	label := fmt.Sprintf("%s %d of the pack", kinds[o.final], i+1)
	f := open("object " + label)
	h := p.digest(o.final, o.size)
	buf := make([]byte, bufSize)
	var n int64
	var stopped *guard.Decision
	step := func(b []byte, s guard.Step) {
		if stopped != nil {
			return
		}
		if _, d := f(b, s); d.Action.Stops() || d.Action == guard.Redact {
			stopped = &d
		}
	}
	for {
		k, err := r.Read(buf)
		n += int64(k)
		if n > o.size {
			return errors.New("an object larger than it says")
		}
		h.Write(buf[:k])
		if k > 0 {
			step(buf[:k], guard.More)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if n != o.size {
		return errors.New("an object smaller than it says")
	}
	step(nil, guard.End)
	name := string(h.Sum(nil))
	p.named[name] = i
	if stopped != nil {
		return &objectHit{kinds[o.final] + " " + hex.EncodeToString([]byte(name))[:12], *stopped}
	}
	return nil
}

func (p *pack) digest(kind byte, size int64) hash.Hash {
	h := sha1.New()
	if p.hash == 32 {
		h = sha256.New()
	}
	fmt.Fprintf(h, "%s %d\x00", kinds[kind], size)
	return h
}

// resolve judges the deltas, round by round: a base may be a delta itself and
// may come later.
func (p *pack) resolve(open func(string) guard.Filter) error {
	open2 := func(i int) error {
		b, err := p.content(i)
		if err != nil {
			return err
		}
		o := p.objects[i]
		o.size = int64(len(b))
		return p.judge(o, bytes.NewReader(b), i, open)
	}
	for {
		progress, left := false, 0
		for i := range p.objects {
			o := &p.objects[i]
			if o.final != 0 {
				continue
			}
			base, ok := p.base(*o)
			if !ok || p.objects[base].final == 0 {
				left++
				continue
			}
			o.parent, o.final, o.depth = base, p.objects[base].final, p.objects[base].depth+1
			if o.depth > maxChain {
				return errors.New("a chain of deltas that is too long")
			}
			if err := open2(i); err != nil {
				return err
			}
			progress = true
		}
		if left == 0 {
			return nil
		}
		if !progress {
			break
		}
	}
	// What is left hangs, directly or not, on objects that only the other side
	// has, or on itself.
	for _, o := range p.objects {
		if _, ok := p.base(o); o.final == 0 && o.kind == 7 && !ok {
			return errThin
		}
	}
	return errors.New("a delta without a base")
}

var errThin = errors.New("a delta whose base is not in the pack")

func (p *pack) base(o object) (int, bool) {
	if o.kind == 6 {
		i, ok := p.at[o.base]
		return i, ok
	}
	i, ok := p.named[o.ref]
	return i, ok
}

func (p *pack) inflate(o object) ([]byte, error) {
	if o.size > maxObject {
		return nil, errors.New("an object too large to be inspected as a delta")
	}
	z, err := zlib.NewReader(bufio.NewReader(io.NewSectionReader(p.src, p.start+o.data, 1<<62)))
	if err != nil {
		return nil, err
	}
	b := make([]byte, o.size)
	_, err = io.ReadFull(z, b)
	return b, err
}

// content returns object i whole, its deltas applied.
func (p *pack) content(i int) ([]byte, error) {
	var chain []int
	var b []byte
	for j := i; ; j = p.objects[j].parent {
		if c, ok := p.cache[j]; ok {
			b = c
			break
		}
		if p.objects[j].kind <= 4 {
			var err error
			if b, err = p.inflate(p.objects[j]); err != nil {
				return nil, err
			}
			p.keep(j, b)
			break
		}
		chain = append(chain, j)
	}
	for k := len(chain) - 1; k >= 0; k-- {
		delta, err := p.inflate(p.objects[chain[k]])
		if err != nil {
			return nil, err
		}
		if b, err = apply(b, delta); err != nil {
			return nil, err
		}
		if p.made += int64(len(b)); p.made > maxMade {
			return nil, errors.New("deltas that grow too large")
		}
		p.keep(chain[k], b)
	}
	return b, nil
}

func (p *pack) keep(i int, b []byte) {
	if len(b) > maxCache/4 {
		return
	}
	for k, v := range p.cache {
		if p.cached+len(b) <= maxCache {
			break
		}
		p.cached -= len(v)
		delete(p.cache, k)
	}
	p.cache[i] = b
	p.cached += len(b)
}

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

// counting counts what is read through it, byte for byte: zlib takes from an
// io.ByteReader no more than it needs.
type counting struct {
	r *bufio.Reader
	n int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *counting) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}
