//go:build !linux

package vault

// locked keeps keys in ordinary memory where there is nothing better.
type locked struct{ keys [][]byte }

func newLocked() (*locked, error) { return &locked{}, nil }

func (l *locked) put(key []byte) ([]byte, error) {
	p := append([]byte(nil), key...)
	clear(key)
	l.keys = append(l.keys, p)
	return p, nil
}

func (l *locked) reset() {
	for _, k := range l.keys {
		clear(k)
	}
	l.keys = nil
}

func (l *locked) free() { l.reset() }
