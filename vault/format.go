package vault

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"guard"
)

const (
	magic         = "GUARDVLT"
	formatVersion = 1 // also in the associated data of every box
	formatSealed  = 2 // the same, with contexts that are sealed: a guard that knows none must not rewrite it
	prefixSize    = len(magic) + 2 + 8
	maxFile       = 256 << 20
)

// header is what can be read without a key.
type header struct {
	ID    string `json:"id"`
	Slots []slot `json:"slots"`
}

// index is what MK opens.
type index struct {
	Root     []byte    `json:"root"` // the wrapped root key
	Contexts []context `json:"contexts,omitempty"`
}

// context is one context's entry in the index.
type context struct {
	Name string `json:"name"`
	Key  []byte `json:"key"` // CK, wrapped; of a sealed context, by its seal's key first
	// Slots are the ways to open a sealed context's seal; none: MK is enough.
	Slots []slot `json:"slots,omitempty"`
	Size  int    `json:"size"`
	Sum   []byte `json:"sum"` // SHA-256 of the segment as sealed
}

// segment is what a context's key opens. Values stay sealed in it.
type segment struct {
	Credentials []entry `json:"credentials,omitempty"` // by name
	// Gone has the last version number of names that were removed: a number is
	// never given twice, since the audit log speaks of it.
	Gone map[string]int `json:"gone,omitempty"`
}

// entry is one credential.
type entry struct {
	Meta     guard.Credential `json:"meta"`
	Versions []version        `json:"versions"` // by number
	Last     int              `json:"last"`     // the highest number ever given
	Issued   *Issued          `json:"issued,omitempty"`
	// Source is where the values are, if not here: then each version's box holds a storeNote.
	Source *Source `json:"source,omitempty"`
}

// version is one value of a credential.
type version struct {
	Number  int       `json:"number"`
	State   State     `json:"state"`
	Created time.Time `json:"created"`
	Key     []byte    `json:"key"` // DEK, wrapped
	Box     []byte    `json:"box"` // the value, sealed with DEK
}

// state is one generation of the file.
type state struct {
	id     string
	gen    uint64
	slots  []slot
	index  index
	sealed [][]byte            // segments, as index.Contexts has them
	opened map[string]*segment // those that were asked for, not to be changed
	stamp  os.FileInfo         // the file that it is

	head, box []byte // until openIndex: what the index is bound to, and the index
}

func (st *state) clone() *state {
	n := *st
	n.slots = slices.Clone(st.slots)
	n.index.Contexts = slices.Clone(st.index.Contexts)
	n.sealed = slices.Clone(st.sealed)
	n.opened = maps.Clone(st.opened)
	return &n
}

// encode makes the file.
func (st *state) encode(mk []byte) ([]byte, error) {
	h, err := json.Marshal(header{ID: st.id, Slots: st.slots})
	if err != nil {
		return nil, fmt.Errorf("encode vault header: %w", err)
	}
	for i := range st.index.Contexts {
		sum := sha256.Sum256(st.sealed[i])
		st.index.Contexts[i].Size, st.index.Contexts[i].Sum = len(st.sealed[i]), sum[:]
	}
	ix, err := json.Marshal(st.index)
	if err != nil {
		return nil, fmt.Errorf("encode vault index: %w", err)
	}
	b := append([]byte(nil), magic...)
	b = binary.BigEndian.AppendUint16(b, st.format())
	b = binary.BigEndian.AppendUint64(b, st.gen)
	b = appendSized(b, h)
	b = appendSized(b, seal(derive(mk, "index"), ix, indexAAD(st.id, b)))
	for _, s := range st.sealed {
		b = append(b, s...)
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("encode vault: more than %d MiB: %w", maxFile>>20, ErrTooLong)
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...), nil
}

func (st *state) format() uint16 {
	if slices.ContainsFunc(st.index.Contexts, func(c context) bool { return len(c.Slots) > 0 }) {
		return formatSealed
	}
	return formatVersion
}

func indexAAD(id string, head []byte) []byte {
	sum := sha256.Sum256(head)
	return append(aad(id, "", "", 0, "index"), sum[:]...)
}

func appendSized(b, p []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(p))), p...)
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

// generation reads a file's first prefixSize bytes.
func generation(b []byte) (uint64, error) {
	if len(b) < prefixSize || string(b[:len(magic)]) != magic {
		return 0, corrupt("it does not start as a vault does")
	}
	switch f := binary.BigEndian.Uint16(b[len(magic):]); {
	case f > formatSealed:
		return 0, fmt.Errorf("%w: format %d, and this one reads up to %d: update guard", ErrNewer, f, formatSealed)
	case f < formatVersion:
		return 0, fmt.Errorf("%w: format %d, and this one reads %d", ErrOlder, f, formatVersion)
	}
	return binary.BigEndian.Uint64(b[len(magic)+2:]), nil
}

// parse reads what needs no key. The state aliases raw.
func parse(raw []byte) (*state, error) {
	gen, err := generation(raw)
	if err != nil {
		return nil, err
	}
	if len(raw) < prefixSize+sha256.Size {
		return nil, corrupt("cut off")
	}
	body := raw[:len(raw)-sha256.Size]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], raw[len(body):]) {
		return nil, corrupt("the checksum is wrong: restore %s, the generation before", bakName)
	}
	rest := body[prefixSize:]
	h, rest, ok := cutSized(rest)
	if !ok {
		return nil, corrupt("header cut off")
	}
	head := body[:len(body)-len(rest)]
	box, rest, ok := cutSized(rest)
	if !ok {
		return nil, corrupt("index cut off")
	}
	var hd header
	if err := decode(h, &hd); err != nil || hd.ID == "" || len(hd.Slots) == 0 {
		return nil, corrupt("unreadable header")
	}
	return &state{
		id: hd.ID, gen: gen, slots: hd.Slots, head: head, box: box,
		sealed: [][]byte{rest}, opened: map[string]*segment{},
	}, nil
}

func cutSized(b []byte) (p, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := binary.BigEndian.Uint32(b)
	if uint64(n) > uint64(len(b)-4) {
		return nil, nil, false
	}
	return b[4 : 4+n], b[4+n:], true
}

// openIndex finishes a parsed state.
func (st *state) openIndex(mk []byte) error {
	p, err := open(derive(mk, "index"), st.box, indexAAD(st.id, st.head))
	if err != nil {
		return corrupt("the index does not open with the vault's key")
	}
	if err := decode(p, &st.index); err != nil {
		return corrupt("unreadable index")
	}
	rest := st.sealed[0]
	st.sealed, st.head, st.box = nil, nil, nil
	for _, c := range st.index.Contexts {
		if c.Size < 0 || c.Size > len(rest) {
			return corrupt("a segment is cut off")
		}
		s := rest[:c.Size:c.Size]
		rest = rest[c.Size:]
		if sum := sha256.Sum256(s); !bytes.Equal(sum[:], c.Sum) {
			return corrupt("a segment is not the one that the index names")
		}
		st.sealed = append(st.sealed, s)
	}
	if len(rest) != 0 {
		return corrupt("%d bytes too many", len(rest))
	}
	return nil
}

// decode reads exactly one JSON value with no field that this version does not
// know: rewriting the file would lose it.
func decode(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("trailing data")
	}
	return nil
}
