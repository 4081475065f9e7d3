//go:build linux && (amd64 || arm64)

package notify

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"guard/internal/testutil"
)

func TestRefuses(t *testing.T) {
	dir := t.TempDir()
	value := "correct-horse-battery"
	out, err, stats := run(t, forbid([]byte(value)), nil, "sh", "-c", `
		cd "$1"
		echo clean >clean && echo ok
		echo `+value+` >whole || echo refused
		printf correct-horse >>parts; printf -- -battery >>parts || echo refused
		cat clean | { cat >piped; } && echo ok
		printf 'x%s' `+value+` | cat >leaked
		exit 0`, "sh", dir)
	if err != nil {
		t.Error(err)
	}
	if strings.Count(out, "ok\n") != 2 || strings.Count(out, "refused\n") != 2 {
		t.Errorf("%s", out)
	}
	for name, want := range map[string]string{"clean": "clean\n", "whole": "", "parts": "correct-horse", "piped": "clean\n", "leaked": ""} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if f, p := stats["file"], stats["pipe"]; f.Refused != 2 || p.Refused != 1 || f.NoAccess+p.NoAccess != 0 {
		t.Errorf("%+v", stats)
	}
}

func TestEveryChannelEveryEdge(t *testing.T) {
	value := []byte(testutil.Random(40))
	out, err, stats := do(t, forbid(value), value, "channels")
	if err != nil || !strings.Contains(out, " 0 wrong") {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s%+v", out, stats)
	for ch, c := range stats {
		if c.NoAccess+c.Blind+c.Unreadable > 0 {
			t.Errorf("%s: %+v", ch, c)
		}
	}
}

func TestFlippedBuffer(t *testing.T) {
	value := []byte(testutil.Random(400))
	out, err, _ := do(t, forbid(value), value, "flip", "3000")
	if err != nil || !strings.Contains(out, "escaped 0") || strings.Contains(out, "refused 0,") {
		t.Errorf("%v: %s", err, out)
	}
	t.Log(out)
}

func TestSemantics(t *testing.T) {
	out, err, _ := do(t, forbid(), nil, "semantics", t.TempDir())
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
