//go:build cgo && hyperscan

package formats

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/flier/gohs/hyperscan"
)

func engineVersion() string {
	v, _, _ := strings.Cut(hyperscan.Version(), " ")
	return "hyperscan " + v
}

// hsEngine scans with a block database of the anchors. Start of match is not
// asked for, which the rules' expressions would be too large for: an anchor has one
// length.
type hsEngine struct {
	db      hyperscan.BlockDatabase
	anchors []anchor
	mu      sync.Mutex
	idle    []*hsScan // as many as scans ever ran at once
}

// newEngine compiles the database, or takes it from dir.
func newEngine(anchors []anchor, dir string) (engine, error) {
	exprs := make([]string, len(anchors))
	key := sha256.New()
	fmt.Fprintf(key, "1\n%s\n%s\n", hyperscan.Version(), platform())
	for i := range anchors {
		exprs[i] = expression(anchors[i].sets)
		fmt.Fprintln(key, exprs[i])
	}
	name := ""
	if dir != "" {
		name = filepath.Join(dir, fmt.Sprintf("formats-%x.hsdb", key.Sum(nil)[:16]))
		if db := loadDatabase(name); db != nil {
			return &hsEngine{db: db, anchors: anchors}, nil
		}
	}
	patterns := make(hyperscan.Patterns, len(anchors))
	for i := range anchors {
		patterns[i] = &hyperscan.Pattern{Expression: exprs[i], Flags: hyperscan.DotAll, Id: i}
	}
	db, err := patterns.Build(hyperscan.BlockMode)
	if err != nil {
		return nil, fmt.Errorf("hyperscan does not compile the rules: %w", err)
	}
	block, ok := db.(hyperscan.BlockDatabase)
	if !ok {
		return nil, errors.New("hyperscan made no block database")
	}
	if name != "" {
		storeDatabase(name, block) // without a cache it is compiled again, that is all
	}
	return &hsEngine{db: block, anchors: anchors}, nil
}

// platform is what a database is compiled for.
func platform() string {
	return fmt.Sprint(hyperscan.PopulatePlatform())
}

// expression writes sets for Hyperscan.
func expression(sets []byteSet) string {
	var b strings.Builder
	for i := range sets {
		switch sets[i].size() {
		case 1:
			sets[i].each(func(c byte) { fmt.Fprintf(&b, `\x%02x`, c) })
		case 256:
			b.WriteByte('.')
		default:
			b.WriteByte('[')
			for c := 0; c < 256; c++ {
				if !sets[i].has(byte(c)) {
					continue
				}
				e := c
				for e < 255 && sets[i].has(byte(e+1)) {
					e++
				}
				fmt.Fprintf(&b, `\x%02x-\x%02x`, c, e)
				c = e
			}
			b.WriteByte(']')
		}
	}
	return b.String()
}

// A file of the cache is the SHA-256 of the rest, and a serialised database.
// Nothing in it is secret; but what is loaded is run, so it must be whole.
func loadDatabase(name string) hyperscan.BlockDatabase {
	b, err := os.ReadFile(name)
	if err != nil || len(b) < sha256.Size {
		return nil
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm()&0o022 != 0 || !mine(info) {
		return nil
	}
	if sum := sha256.Sum256(b[sha256.Size:]); string(sum[:]) != string(b[:sha256.Size]) {
		return nil
	}
	db, err := hyperscan.UnmarshalBlockDatabase(b[sha256.Size:])
	if err != nil {
		return nil
	}
	return db
}

func storeDatabase(name string, db hyperscan.BlockDatabase) {
	raw, err := db.Marshal()
	if err != nil || os.MkdirAll(filepath.Dir(name), 0o700) != nil {
		return
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".formats-*") // 0600
	if err != nil {
		return
	}
	sum := sha256.Sum256(raw)
	_, err = f.Write(append(sum[:], raw...))
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
}

// hsScan is what one running scan needs.
type hsScan struct {
	scratch *hyperscan.Scratch
	anchors []anchor
	out     []place
	handler hyperscan.MatchHandler
}

func (s *hsScan) handle(id uint, _, to uint64, _ uint, _ any) error {
	s.out = append(s.out, place{int(to) - len(s.anchors[id].sets), int(id)})
	return nil
}

func (h *hsEngine) scan(b []byte, out []place) ([]place, error) {
	if len(b) == 0 {
		return out, nil
	}
	s, err := h.take()
	if err != nil {
		return out, err
	}
	s.out = out
	err = h.db.Scan(b, s.scratch, s.handler, nil)
	out, s.out = s.out, nil
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
	s := &hsScan{scratch: scratch, anchors: h.anchors}
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
