package broker

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"guard"
)

// prefixFilter stops at word, and keeps a prefix of it back, from 8 bytes on
// also at a pause, whatever of it went out before.
func prefixFilter(word string, told func(guard.Step)) guard.Filter {
	seen, rel := "", 0
	return func(p []byte, s guard.Step) ([]byte, guard.Decision) {
		told(s)
		seen += string(p)
		if i := strings.Index(seen, word); i >= 0 {
			return []byte(seen[rel:max(i, rel)]), guard.Decision{Action: guard.Block}
		}
		keep := min(len(word)-1, len(seen))
		for !strings.HasSuffix(seen, word[:keep]) {
			keep--
		}
		if s == guard.End || s == guard.Pause && keep < 8 {
			keep = 0
		}
		from := rel
		rel = max(rel, len(seen)-keep)
		return []byte(seen[from:rel]), guard.Decision{Action: guard.Pass}
	}
}

func TestSendToSlowClients(t *testing.T) {
	const word = "canary-7f3a9c51d2e84b60"
	for _, tt := range []struct {
		text, want string
		err        error
	}{
		{"x " + word, "x " + word[:7], ErrStopped},
		{"x " + word[:20], "x " + word[:20], nil},
		{"x " + word[:12] + "!", "x " + word[:12] + "!", nil},
	} {
		client, src := net.Pipe()
		var out strings.Builder
		calls := 0
		done := make(chan error, 1)
		go func() {
			err := Send(&out, src, prefixFilter(word, func(guard.Step) { calls++ }))
			src.Close()
			done <- err
		}()
		for i := range len(tt.text) {
			if _, err := io.WriteString(client, tt.text[i:i+1]); err != nil {
				break
			}
			if i%5 == 4 {
				time.Sleep(2 * Idle) // the silence is the attack
			}
		}
		client.Close()
		if err := <-done; !errors.Is(err, tt.err) {
			t.Errorf("%s: %v", tt.text, err)
		}
		if !strings.HasPrefix(tt.want, out.String()) || tt.err == nil && out.String() != tt.want {
			t.Errorf("%s: %q arrived", tt.text, out.String())
		}
		if calls > 2*len(tt.text)+1 {
			t.Errorf("%s: the filter was called %d times", tt.text, calls)
		}
	}
}
