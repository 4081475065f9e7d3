//go:build cgo && hyperscan

package matcher

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"unsafe"

	"github.com/flier/gohs/hyperscan"
)

// newEngine is the other engine.
func newEngine(needles [][]byte) (engine, error) { return newHyperscan(needles) }

func engineVersion() string {
	v, _, _ := strings.Cut(hyperscan.Version(), " ")
	return "hyperscan " + v
}

// hsEngine scans with a block database. Block mode, because a stream in
// Hyperscan's own streaming mode belongs to one database: values could not be
// added to a stream that is open.
//
// Of a long needle it looks for hsLiteral bytes in the middle, which compiles
// several times faster and takes a fraction of the memory; the rest is compared
// here.
type hsEngine struct {
	db      hyperscan.BlockDatabase
	needles [][]byte
	mu      sync.Mutex
	idle    []*hsScan // as many as scans ever ran at once
}

const hsLiteral = 32

// literal is which part of a needle of n bytes Hyperscan looks for.
func literal(n int) (from, to int) {
	from = max(0, n-hsLiteral) / 2
	return from, min(n, from+hsLiteral)
}

func newHyperscan(needles [][]byte) (*hsEngine, error) {
	// The patterns hold the values: they are written to one buffer that can be
	// overwritten. \xHH for each byte, since a NUL would end a pattern.
	size := 0
	for _, b := range needles {
		size += 4 * min(len(b), hsLiteral)
	}
	buf := make([]byte, 0, size)
	defer func() { clear(buf) }()
	patterns := make(hyperscan.Patterns, len(needles))
	for i, b := range needles {
		from := len(buf)
		l, r := literal(len(b))
		for _, c := range b[l:r] {
			buf = append(buf, '\\', 'x', hexLower[c>>4], hexLower[c&15])
		}
		patterns[i] = &hyperscan.Pattern{Expression: unsafe.String(&buf[from], len(buf)-from), Flags: hyperscan.DotAll, Id: i}
	}
	db, err := patterns.Build(hyperscan.BlockMode)
	if err != nil {
		return nil, errors.New("hyperscan does not compile the needles") // its message could quote one
	}
	block, ok := db.(hyperscan.BlockDatabase)
	if !ok {
		return nil, errors.New("hyperscan made no block database")
	}
	return &hsEngine{db: block, needles: needles}, nil
}

// hsScan is what one running scan needs. It is reused, handler included, which
// would otherwise be made anew for every chunk.
type hsScan struct {
	scratch *hyperscan.Scratch
	needles [][]byte
	b       []byte
	out     []match
	handler hyperscan.MatchHandler
}

func (s *hsScan) handle(id uint, _, to uint64, _ uint, _ any) error {
	d := s.needles[id]
	_, r := literal(len(d))
	end := int(to) + len(d) - r
	if from := end - len(d); from >= 0 && end <= len(s.b) && bytes.Equal(s.b[from:end], d) {
		s.out = append(s.out, match{int(id), end})
	}
	return nil
}

func (h *hsEngine) scan(b []byte, out []match) ([]match, error) {
	if len(b) == 0 {
		return out, nil
	}
	s, err := h.take()
	if err != nil {
		return out, err
	}
	s.b, s.out = b, out
	err = h.db.Scan(b, s.scratch, s.handler, nil)
	out = s.out
	s.b, s.out = nil, nil
	h.put(s)
	return out, err
}

// take returns an idle scan or a new one. Not a sync.Pool: that drops its
// entries at every collection, and the scratch space is not Go's memory.
func (h *hsEngine) take() (*hsScan, error) {
	h.mu.Lock()
	if n := len(h.idle); n > 0 {
		s := h.idle[n-1]
		h.idle = h.idle[:n-1]
		h.mu.Unlock()
		return s, nil
	}
	h.mu.Unlock()
	scratch, err := hyperscan.NewScratch(h.db)
	if err != nil {
		return nil, err
	}
	s := &hsScan{scratch: scratch, needles: h.needles}
	s.handler = s.handle
	return s, nil
}

func (h *hsEngine) put(s *hsScan) {
	h.mu.Lock()
	h.idle = append(h.idle, s)
	h.mu.Unlock()
}

func (h *hsEngine) close() {
	for _, s := range h.idle {
		s.scratch.Free() // fails on a scratch space that is in use only
	}
	h.idle = nil
	h.db.Close() // fails on no database only
}
