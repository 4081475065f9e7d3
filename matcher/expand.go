package matcher

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"hash/maphash"

	"guard"
)

// needle is one literal that is looked for.
type needle struct {
	b   []byte
	enc encoding
}

// entry is one value with everything that is looked for on its behalf. It does
// not change after expand, so that sets may share it.
type entry struct {
	id      guard.SecretID
	class   guard.Class
	needles []needle
}

func (e *entry) wipe() {
	for _, n := range e.needles {
		clear(n.b)
	}
}

// same says whether e and o look for the same bytes.
func (e *entry) same(o *entry) bool {
	if len(e.needles) != len(o.needles) {
		return false
	}
	for i, n := range e.needles {
		if !bytes.Equal(n.b, o.needles[i].b) {
			return false
		}
	}
	return true
}

// expand makes the entry of v. The error holds nothing of the value.
func expand(v guard.Value) (*entry, error) {
	core := trim(v.Secret.Reveal())
	if err := refuse(core); err != nil {
		return nil, fmt.Errorf("%s: %w", v.ID, err)
	}
	x := &expander{seed: maphash.MakeSeed(), seen: map[uint64][]int{}}
	defer x.wipe()
	x.value(core)
	return &entry{id: v.ID, class: v.Class, needles: x.needles}, nil
}

// expander collects needles and overwrites what it needed on the way.
type expander struct {
	needles []needle
	seen    map[uint64][]int // keyed hash of a needle -> indices
	seed    maphash.Seed
	a, b    []byte   // work space
	temps   [][]byte // copies of parts, to be overwritten
}

func (x *expander) wipe() {
	clear(x.a[:cap(x.a)])
	clear(x.b[:cap(x.b)])
	for _, t := range x.temps {
		clear(t[:cap(t)])
	}
}

// temp returns an empty slice of capacity n that is overwritten in the end. No
// caller may let it grow.
func (x *expander) temp(n int) []byte {
	t := make([]byte, 0, n)
	x.temps = append(x.temps, t)
	return t
}

// add takes a copy of form, in pieces if it is long, unless it is there already.
func (x *expander) add(enc encoding, form []byte) {
	if len(form) < minNeedle {
		return
	}
	pieces := (len(form) + maxNeedle - 1) / maxNeedle
	for i := range pieces {
		p := form[i*len(form)/pieces : (i+1)*len(form)/pieces]
		h := maphash.Bytes(x.seed, p)
		dup := false
		for _, j := range x.seen[h] {
			dup = dup || bytes.Equal(x.needles[j].b, p)
		}
		if !dup {
			x.seen[h] = append(x.seen[h], len(x.needles))
			x.needles = append(x.needles, needle{bytes.Clone(p), enc})
		}
	}
}

// room makes the work space large enough for any encoding of n bytes: 6 bytes
// each in \u00XX, 12 in JSON within JSON.
func (x *expander) room(n int) {
	if cap(x.a) >= 12*n+16 {
		return
	}
	clear(x.a[:cap(x.a)])
	clear(x.b[:cap(x.b)])
	x.a, x.b = make([]byte, 0, 12*n+16), make([]byte, 0, 12*n+16)
}

// all adds every encoding of v. Of a value that is cut into pieces in any case
// only the usual dialect of each: it has hundreds of needles as it is.
func (x *expander) all(v []byte) {
	x.basic(v)
	x.room(len(v))
	keeps, styles, cases := []string{"-._~", "-._~ ", "-._* ", "-._~!*'()", "-._~$&+=:@"}, 8, []string{hexUpper, hexLower}
	long := len(v) > maxNeedle
	if long {
		keeps, styles = keeps[:1], 2
	}
	for before := range 3 {
		x.a = appendBase64(x.a[:0], v, before, base64.StdEncoding)
		for _, digits := range cases {
			if !long {
				x.b = appendPercent(x.b[:0], x.a, "", digits)
				x.add(encBase64, x.b)
			}
		}
		x.b = appendEscaped(x.b[:0], x.a, '/', `\/`)
		x.add(encBase64, x.b)
	}
	for i, digits := range cases {
		for _, keep := range keeps {
			x.a = appendPercent(x.a[:0], v, keep, digits)
			x.add(encPercent, x.a)
			if !long {
				x.b = appendPercent(x.b[:0], x.a, keep, digits)
				x.add(encPercent, x.b)
			}
		}
		if !long || i == 0 {
			x.a = appendPercentAll(x.a[:0], v, digits)
			x.add(encPercent, x.a)
		}
		for style := range styles {
			x.a = appendJSON(x.a[:0], v, jsonStyle{style&1 != 0, style&2 != 0, style&4 != 0, digits})
			x.add(encJSON, x.a)
			x.b = appendJSON(x.b[:0], x.a, jsonStyle{digits: digits})
			x.add(encJSON, x.b)
		}
		if !long || i == 1 {
			x.a = appendUnicodeAll(x.a[:0], v, digits)
			x.add(encJSON, x.a)
		}
	}
	for _, digits := range cases {
		if long {
			break
		}
		for _, f := range [...][2]string{{"", " "}, {"", ":"}, {"", ","}, {"", "-"}, {"0x", ","}, {"0x", ", "}} {
			x.a = appendHexList(x.a[:0], v, digits, f[0], f[1])
			x.add(encHex, x.a)
		}
	}
	if bytes.IndexByte(v, ' ') >= 0 {
		x.a = appendEscaped(x.a[:0], v, ' ', "+") // a form, of which a view decodes the rest
		x.add(encPercent, x.a)
	}
	// What a view makes of a value that itself holds what looks like an escape.
	if x.a = appendUnescaped(x.a[:0], v); len(x.a) != len(v) && refuse(x.a) == nil {
		x.add(encRaw, x.a)
	}
	x.a = appendUTF16(x.a[:0], v)
	x.add(encUTF16, x.a)
	if len(x.a)%2 == 0 { // not all of it is Latin-1, where both orders are the same but for a byte
		x.a = appendUTF16BE(x.a[:0], v)
		x.add(encUTF16, x.a)
	}
	x.a = appendReversed(x.a[:0], v)
	x.add(encReversed, x.a)
	x.doubled(v)
	if long {
		return
	}
	x.a = appendSpaced(x.a[:0], v, " ")
	x.add(encSpaced, x.a)
	for skip := range 4 {
		x.a = appendBase85(x.a[:0], v, skip, digits85)
		x.add(encASCII85, x.a)
		x.a = appendBase85(x.a[:0], v, skip, gits85)
		x.add(encBase85, x.a)
	}
	if len(v) <= shortest32 {
		for before := range 5 {
			for _, digits := range []string{digits32, lowers32} {
				x.a = appendBase32(x.a[:0], v, before, digits)
				x.add(encBase32, x.a)
			}
		}
	}
}

// shortest32 is up to how many bytes a value is too short in base32 to be decoded
// where it stands alone.
const shortest32 = 9

// doubled adds v as languages write it that double what ends a string, or begins
// a variable: SQL, YAML and PowerShell, POSIX shells, CSV, make, and batch files.
func (x *expander) doubled(v []byte) {
	for _, d := range [...]struct {
		from byte
		to   string
	}{{'\'', "''"}, {'\'', `'\''`}, {'\'', `'"'"'`}, {'"', `""`}, {'$', "$$"}, {'%', "%%"}} {
		if bytes.IndexByte(v, d.from) >= 0 {
			x.a = appendEscaped(x.a[:0], v, d.from, d.to)
			x.add(encDoubled, x.a)
		}
	}
}

// basic adds the encodings in which a part of a larger value is looked for.
func (x *expander) basic(v []byte) {
	x.room(len(v))
	x.add(encRaw, v)
	for before := range 3 {
		x.a = appendBase64(x.a[:0], v, before, base64.StdEncoding)
		x.add(encBase64, x.a)
		x.a = appendBase64(x.a[:0], v, before, base64.URLEncoding)
		x.add(encBase64URL, x.a)
	}
	for _, digits := range []string{hexLower, hexUpper} {
		x.a = appendHex(x.a[:0], v, digits)
		x.add(encHex, x.a)
	}
}
