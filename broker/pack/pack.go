package pack

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
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
//
// It is read twice. The first time names the objects and learns from commits and
// trees where each of them lies, the second one judges them: so what is found has
// a name and a path.
type pack struct {
	src         io.ReaderAt
	start, size int64 // where in src it begins, and where src ends
	hash        int   // size of an object's name

	objects []object
	at      map[int64]int32    // by offset from the pack's start
	named   map[string]int32   // by name
	kids    map[int32][]int32  // ofs-deltas, by base
	waiting map[string][]int32 // ref-deltas, by the base's name
	tree    map[uint64]place   // by the beginning of a name: where it is first listed
	roots   map[uint64]int32   // the same of a tree: a commit that has it
	cache   map[int32][]byte
	cached  int
	made    int64
	in      *bufio.Reader
	z       io.ReadCloser
}

type object struct {
	kind   byte // 1 commit, 2 tree, 3 blob, 4 tag, 6 ofs-delta, 7 ref-delta
	final  byte // kind after deltas are applied; 0: not yet known
	depth  int32
	parent int32 // index of the base; -1: not known
	data   int64
	size   int64
	base   int64  // offset, of an ofs-delta
	ref    string // name, of a ref-delta
	name   string // "": not yet known
}

const (
	maxObjects = 4 << 20
	maxObject  = 256 << 20 // of one that is needed whole, to apply a delta
	maxCache   = 64 << 20
	maxSmall   = 1 << 20
	maxChain   = 4096      // git's own limit on delta chains is 4095
	maxMade    = 256 << 30 // of all that is unpacked
)

// objectHit says that an object holds a secret.
type objectHit struct {
	object string // "blob 0123456789ab (a/path, in commit 0123456789ab)"
	d      guard.Decision
}

func (h *objectHit) Error() string { return "a secret in an object" }

// Kinds of what is judged: objects, and what has a name or a path for its bytes.
const (
	CommitKind, TreeKind, BlobKind, TagKind = 1, 2, 3, 4
	PathKind                                = 0
)

const judgeSize = 64 << 10 // bytes that are judged at once

var kinds = [...]string{PathKind: "path", CommitKind: "commit", TreeKind: "tree", BlobKind: "blob", TagKind: "tag"}

// each runs every object through a filter of its own, and all paths through
// another. The error is an *objectHit, or says that the pack cannot be read.
func (p *pack) each(open func(kind byte, object string) guard.Filter) error {
	p.at, p.named, p.cache = map[int64]int32{}, map[string]int32{}, map[int32][]byte{}
	p.kids, p.waiting = map[int32][]int32{}, map[string][]int32{}
	p.tree, p.roots = map[uint64]place{}, map[uint64]int32{}
	p.in = bufio.NewReaderSize(nil, 64<<10)
	if err := p.scan(); err != nil {
		return err
	}
	if err := p.learn(); err != nil {
		return err
	}
	if err := p.judgePaths(open); err != nil {
		return err
	}
	for i := range p.objects {
		if p.objects[i].kind > TagKind {
			continue
		}
		if err := p.judgeStored(int32(i), open); err != nil {
			return err
		}
		err := p.descend(int32(i), func(j int32, b []byte) error {
			return p.judge(j, bytes.NewReader(b), int64(len(b)), open)
		})
		if err != nil {
			return err
		}
	}
	return p.complete()
}

// complete says whether every delta was applied. What is left hangs, directly or
// not, on objects that only the other side has, or on itself.
func (p *pack) complete() error {
	left := false
	for i := range p.objects {
		if o := &p.objects[i]; o.final == 0 {
			left = true
			if _, ok := p.named[o.ref]; o.kind == 7 && !ok {
				return errThin
			}
		}
	}
	if left {
		return errors.New("a delta without a base")
	}
	return nil
}

// scan reads the pack once from start to end, and names what is stored whole.
func (p *pack) scan() error {
	r := &counting{r: bufio.NewReaderSize(io.NewSectionReader(p.src, p.start, p.size-p.start), 64<<10)}
	var head [12]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	if string(head[:4]) != "PACK" || binary.BigEndian.Uint32(head[4:]) != 2 && binary.BigEndian.Uint32(head[4:]) != 3 {
		return errors.New("not a pack")
	}
	n := binary.BigEndian.Uint32(head[8:])
	if n > maxObjects {
		return errTooMany
	}
	var z io.ReadCloser
	for i := range int32(n) {
		at := r.n
		o, err := p.header(r)
		if err != nil {
			return err
		}
		o.data = r.n
		if z == nil {
			z, err = zlib.NewReader(r)
		} else {
			err = z.(zlib.Resetter).Reset(r, nil)
		}
		if err != nil {
			return err
		}
		if err := p.made1(o.size); err != nil {
			return err
		}
		switch o.kind {
		case 6:
			base, ok := p.at[at-o.base]
			if !ok {
				return errors.New("a delta's base is out of range")
			}
			p.kids[base] = append(p.kids[base], i)
		case 7:
			p.waiting[o.ref] = append(p.waiting[o.ref], i)
		}
		if err := p.first(i, &o, z); err != nil {
			return err
		}
		p.at[at] = i
		p.objects = append(p.objects, o)
	}
	return p.trailer(r.n)
}

// first reads object i to the end of its stream, where a checksum is, and names it
// if it is whole. A small one stays at hand: most packs are inflated once only.
func (p *pack) first(i int32, o *object, z io.Reader) error {
	var to io.Writer = io.Discard
	var h hash.Hash
	var b []byte
	if o.kind <= TagKind {
		h = p.digest(o.final, o.size)
		to = h
		if o.size <= maxSmall && p.cached+int(o.size) <= maxCache {
			b = make([]byte, o.size)
			if _, err := io.ReadFull(z, b); err != nil {
				return errObjectSize
			}
			h.Write(b)
		}
	}
	left := o.size - int64(len(b))
	if n, err := io.Copy(to, io.LimitReader(z, left+1)); err != nil || n != left {
		return errObjectSize
	}
	if h == nil {
		return nil
	}
	o.name = string(h.Sum(nil))
	p.named[o.name] = i
	if b != nil {
		p.keep(i, b)
	}
	return nil
}

// trailer holds what is behind the objects to the checksum that belongs there:
// nothing else of the client's choice may be.
func (p *pack) trailer(end int64) error {
	if p.size-p.start-end != int64(p.hash) {
		return errors.New("bytes after the pack")
	}
	h := sha1.New()
	if p.hash == 32 {
		h = sha256.New()
	}
	want := make([]byte, p.hash)
	if _, err := io.Copy(h, io.NewSectionReader(p.src, p.start, end)); err != nil {
		return err
	}
	if _, err := io.ReadFull(io.NewSectionReader(p.src, p.start+end, int64(p.hash)), want); err != nil {
		return err
	}
	if !bytes.Equal(h.Sum(nil), want) {
		return errors.New("a pack with a wrong checksum")
	}
	return nil
}

// made1 counts what is unpacked.
func (p *pack) made1(n int64) error {
	if p.made += n; n < 0 || p.made > maxMade {
		return errors.New("objects that grow too large")
	}
	return nil
}

// header reads an object's type, size and base.
func (p *pack) header(r byteReader) (o object, err error) {
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
	case CommitKind, TreeKind, BlobKind, TagKind:
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

func (p *pack) digest(kind byte, size int64) hash.Hash {
	h := sha1.New()
	if p.hash == 32 {
		h = sha256.New()
	}
	fmt.Fprintf(h, "%s %d\x00", kinds[kind], size)
	return h
}

// judgeStored judges object i, which is stored whole, as it is inflated.
func (p *pack) judgeStored(i int32, open func(byte, string) guard.Filter) error {
	o := p.objects[i]
	if b, ok := p.cache[i]; ok {
		return p.judge(i, bytes.NewReader(b), o.size, open)
	}
	z, err := p.open(o)
	if err != nil {
		return err
	}
	return p.judge(i, z, o.size, open)
}

// judge shows object i to a filter.
func (p *pack) judge(i int32, r io.Reader, size int64, open func(byte, string) guard.Filter) error {
	o := p.objects[i]
	label := p.label(i)
	f := open(o.final, label)
	buf := make([]byte, min(judgeSize, size))
	step := func(b []byte, s guard.Step) error {
		if _, d := f(b, s); d.Action.Stops() || d.Action == guard.Redact {
			return &objectHit{label, d}
		}
		return nil
	}
	for size > 0 {
		k, err := io.ReadFull(r, buf[:min(int64(len(buf)), size)])
		if err != nil {
			return err
		}
		size -= int64(k)
		if err := step(buf[:k], guard.More); err != nil {
			return err
		}
	}
	return step(nil, guard.End)
}

// descend applies the deltas whose chain begins at i, and hands each result to
// visit. A chain's end comes before its next branch, so that what a delta needs is
// still at hand.
func (p *pack) descend(i int32, visit func(j int32, b []byte) error) error {
	stack := p.children(nil, i)
	for len(stack) > 0 {
		j := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		b, err := p.content(j)
		if err != nil {
			return err
		}
		if o := &p.objects[j]; o.name == "" {
			h := p.digest(o.final, int64(len(b)))
			h.Write(b)
			o.name = string(h.Sum(nil))
			p.named[o.name] = j
		}
		if err := visit(j, b); err != nil {
			return err
		}
		if p.objects[j].depth > maxChain {
			return errors.New("a chain of deltas that is too long")
		}
		stack = p.children(stack, j)
	}
	return nil
}

// children appends the deltas whose base is i.
func (p *pack) children(to []int32, i int32) []int32 {
	base := &p.objects[i]
	for _, ids := range [2][]int32{p.kids[i], p.waiting[base.name]} {
		for _, j := range ids {
			o := &p.objects[j]
			if o.parent == -1 { // of two equal bases the first
				o.parent, o.final, o.depth = i, base.final, base.depth+1
			}
			if o.parent == i {
				to = append(to, j)
			}
		}
	}
	return to
}

var (
	errThin       = errors.New("a delta whose base is not in the pack")
	errObjectSize = errors.New("an object of another size than it says")
	errTooMany    = errors.New("too many objects to be inspected at once")
)

// open inflates what is stored of o. One at a time is open.
func (p *pack) open(o object) (io.Reader, error) {
	p.in.Reset(io.NewSectionReader(p.src, p.start+o.data, p.size-p.start-o.data))
	if p.z == nil {
		z, err := zlib.NewReader(p.in)
		p.z = z
		return z, err
	}
	return p.z, p.z.(zlib.Resetter).Reset(p.in, nil)
}

func (p *pack) inflate(o object) ([]byte, error) {
	if o.size > maxObject {
		return nil, errors.New("an object too large to be inspected as a delta")
	}
	z, err := p.open(o)
	if err != nil {
		return nil, err
	}
	b := make([]byte, o.size)
	_, err = io.ReadFull(z, b)
	return b, err
}

// content returns object i whole, its deltas applied.
func (p *pack) content(i int32) ([]byte, error) {
	var chain []int32
	var b []byte
	for j := i; ; j = p.objects[j].parent {
		if c, ok := p.cache[j]; ok {
			b = c
			break
		}
		if p.objects[j].kind <= TagKind {
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
		if err := p.made1(int64(len(b))); err != nil {
			return nil, err
		}
		p.keep(chain[k], b)
	}
	return b, nil
}

func (p *pack) keep(i int32, b []byte) {
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

// byteReader is what zlib takes no more from than it needs.
type byteReader interface {
	io.Reader
	io.ByteReader
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
