package rotate

import (
	"context"
	"fmt"
	"os"
	"time"
)

// lockPoll is how long to wait before asking for a held lock again.
const lockPoll = 15 * time.Millisecond

// lock waits until no other guard, and no other goroutine of this one, rotates
// the credential. Lock files stay: removing one that another waits for would
// let two in.
func (j *Journal) lock(ctx context.Context, context, name string) (unlock func(), err error) {
	f, err := os.OpenFile(j.lockPath(context, name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s for rotation: %w", name, err)
	}
	t := time.NewTicker(lockPoll)
	defer t.Stop()
	for {
		ok, err := tryLock(f)
		if ok {
			return func() { f.Close() }, nil
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s for rotation: %w", name, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s for rotation: another guard is rotating it: %w", name, ctx.Err())
		case <-t.C:
		}
	}
}
