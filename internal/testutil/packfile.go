package testutil

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
)

// Packfile builds a git packfile by hand (gitformat-pack(5)), as an adversary would.
type Packfile struct {
	bytes.Buffer
	N uint32 // objects, as its head says
}

// Add adds an object: kind 1 to 4, or 6 and 7 for deltas, whose base is in pre. size is
// what the object's head says. It returns where the object begins, without the pack's head.
func (p *Packfile) Add(kind byte, pre, data []byte, size int) (at int) {
	at = p.Len()
	p.N++
	c := kind<<4 | byte(size&15)
	for size >>= 4; size > 0; size >>= 7 {
		p.WriteByte(c | 0x80)
		c = byte(size & 0x7f)
	}
	p.WriteByte(c)
	p.Write(pre)
	z := zlib.NewWriter(p)
	z.Write(data)
	z.Close()
	return at
}

// Put adds a whole object and returns its name.
func (p *Packfile) Put(kind byte, b []byte) []byte {
	p.Add(kind, nil, b, len(b))
	return ObjectName([...]string{"", "commit", "tree", "blob", "tag"}[kind], b)
}

// Blob adds a blob and returns its name.
func (p *Packfile) Blob(b string) []byte { return p.Put(3, []byte(b)) }

// Whole is the pack with its head and checksum.
func (p *Packfile) Whole() []byte {
	b := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32([]byte("PACK"), 2), p.N)
	b = append(b, p.Bytes()...)
	sum := sha1.Sum(b)
	return append(b, sum[:]...)
}

// ObjectName is git's name of an object of kind "blob", "tree", "commit" or "tag".
func ObjectName(kind string, b []byte) []byte {
	h := sha1.Sum(append(fmt.Appendf(nil, "%s %d\x00", kind, len(b)), b...))
	return h[:]
}

// Tree makes a tree's content of "mode name" and ids, in turns.
func Tree(entries ...any) []byte {
	var b []byte
	for i := 0; i < len(entries); i += 2 {
		b = append(append(append(b, entries[i].(string)...), 0), entries[i+1].([]byte)...)
	}
	return b
}
