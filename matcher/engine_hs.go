//go:build cgo && hyperscan

package matcher

import (
	"errors"
	"strings"
	"sync"
	"unsafe"

	"github.com/flier/gohs/hyperscan"
)

func newEngine(needles [][]byte) (engine, error) { return newHyperscan(needles) }

func engineVersion() string {
	v, _, _ := strings.Cut(hyperscan.Version(), " ")
	return "hyperscan " + v
}

// hsEngine scans with a block database. Block mode, because a stream in
// Hyperscan's own streaming mode belongs to one database: values could not be
// added to a stream that is open.
type hsEngine struct {
	db      hyperscan.BlockDatabase
	mu      sync.Mutex
	scratch []*hyperscan.Scratch // idle ones; as many as scans ever ran at once
}

func newHyperscan(needles [][]byte) (*hsEngine, error) {
	// The patterns hold the values: they are written to one buffer that can be
	// overwritten. \xHH for each byte, since a NUL would end a pattern.
	size := 0
	for _, b := range needles {
		size += 4 * len(b)
	}
	buf := make([]byte, 0, size)
	defer func() { clear(buf) }()
	patterns := make(hyperscan.Patterns, len(needles))
	for i, b := range needles {
		from := len(buf)
		for _, c := range b {
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
	return &hsEngine{db: block}, nil
}

func (h *hsEngine) scan(b []byte, out []match) ([]match, error) {
	if len(b) == 0 {
		return out, nil
	}
	s, err := h.take()
	if err != nil {
		return out, err
	}
	defer h.put(s)
	err = h.db.Scan(b, s, func(id uint, _, to uint64, _ uint, _ any) error {
		out = append(out, match{int(id), int(to)})
		return nil
	}, nil)
	return out, err
}

// take returns an idle scratch space or a new one. Not a sync.Pool: that drops
// its entries at every collection, and this memory is not Go's.
func (h *hsEngine) take() (*hyperscan.Scratch, error) {
	h.mu.Lock()
	if n := len(h.scratch); n > 0 {
		s := h.scratch[n-1]
		h.scratch = h.scratch[:n-1]
		h.mu.Unlock()
		return s, nil
	}
	h.mu.Unlock()
	return hyperscan.NewScratch(h.db)
}

func (h *hsEngine) put(s *hyperscan.Scratch) {
	h.mu.Lock()
	h.scratch = append(h.scratch, s)
	h.mu.Unlock()
}

func (h *hsEngine) close() {
	for _, s := range h.scratch {
		s.Free() // fails on a scratch space that is in use only
	}
	h.scratch = nil
	h.db.Close() // fails on no database only
}
