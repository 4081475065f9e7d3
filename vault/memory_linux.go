package vault

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// locked keeps keys in pages that are never swapped, left out of core dumps,
// and empty in a forked child.
type locked struct {
	pages [][]byte
	used  int // bytes of the last page
}

func newLocked() (*locked, error) {
	l := &locked{}
	return l, l.grow()
}

func (l *locked) grow() error {
	p, err := unix.Mmap(-1, 0, unix.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("map memory for keys: %w", err)
	}
	if err := unix.Mlock(p); err != nil {
		unix.Munmap(p)
		return fmt.Errorf("lock memory for keys (raise the limit: ulimit -l): %w", err)
	}
	if err := unix.Madvise(p, unix.MADV_DONTDUMP); err != nil {
		unix.Munmap(p)
		return fmt.Errorf("keep keys out of core dumps: %w", err)
	}
	// Linux 4.14 and later; a child of Go's is one exec away from losing them
	// in any case.
	unix.Madvise(p, unix.MADV_WIPEONFORK)
	l.pages, l.used = append(l.pages, p), 0
	return nil
}

// put moves a key in: key is wiped, and the copy is the caller's until reset
// or free.
func (l *locked) put(key []byte) ([]byte, error) {
	defer clear(key)
	if len(l.pages) == 0 || l.used+len(key) > len(l.pages[len(l.pages)-1]) {
		if err := l.grow(); err != nil {
			return nil, err
		}
	}
	p := l.pages[len(l.pages)-1][l.used : l.used+len(key) : l.used+len(key)]
	l.used += len(key)
	copy(p, key)
	return p, nil
}

// reset wipes every key and keeps one page.
func (l *locked) reset() {
	for i, p := range l.pages {
		clear(p)
		if i > 0 {
			unix.Munmap(p)
		}
	}
	l.pages, l.used = l.pages[:min(1, len(l.pages))], 0
}

// free wipes every key and gives the memory back.
func (l *locked) free() {
	l.reset()
	for _, p := range l.pages {
		unix.Munmap(p)
	}
	l.pages = nil
}
