package supervisor

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"guard"
	"guard/matcher"
)

const canary = "ghp_Zq8v1LkPw0sXyT3uRb6NcDf2HjMa9EoKi4Gt"

var canaryID = guard.SecretID{Context: "default", Name: "github-pat", Version: 1}

// events is what a Line under test did.
type events struct {
	mu    sync.Mutex
	leaks []guard.Leak
	did   []guard.Decision
	fail  error // of the audit log
}

func newLine(t *testing.T, act guard.Action) (*Line, *events) {
	t.Helper()
	m, err := matcher.New([]guard.Value{
		{ID: canaryID, Class: guard.Live, Secret: guard.NewSecret([]byte(canary))},
		{ID: canaryID, Class: guard.Placeholder, Secret: guard.NewSecret([]byte("ghp_placeholder0placeholder0placeholder0"))},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	e := &events{}
	return &Line{
		Matcher: m,
		Decide: func(l guard.Leak) guard.Decision {
			if l.Class >= guard.Placeholder {
				return guard.Decision{Action: guard.Pass, Rule: "placeholder"}
			}
			return guard.Decision{Action: act, Rule: "test"}
		},
		Record: func(l guard.Leak, d guard.Decision) (uint64, error) {
			e.mu.Lock()
			defer e.mu.Unlock()
			if e.fail != nil {
				return 0, e.fail
			}
			e.leaks = append(e.leaks, l)
			return uint64(len(e.leaks)), nil
		},
		Act: func(l guard.Leak, d guard.Decision) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.did = append(e.did, d)
		},
	}, e
}

// send puts pieces through f, pausing after each, and returns what came out.
func send(f guard.Filter, pause bool, pieces ...[]byte) ([]byte, guard.Decision) {
	var out []byte
	worst := guard.Decision{Action: guard.Pass}
	take := func(p []byte, s guard.Step) bool {
		b, d := f(p, s)
		out = append(out, b...)
		if d.Action < worst.Action {
			worst = d
		}
		return !d.Action.Stops()
	}
	for _, p := range pieces {
		if !take(p, guard.More) {
			return out, worst
		}
		if pause && !take(nil, guard.Pause) {
			return out, worst
		}
	}
	take(nil, guard.End)
	return out, worst
}

func TestRedactAtEverySplit(t *testing.T) {
	forms := map[string]string{"raw": canary, "base64": base64.StdEncoding.EncodeToString([]byte(canary)), "hex": fmt.Sprintf("%x", canary)}
	for name, form := range forms {
		text := []byte("before " + form + " after\n")
		for _, pause := range []bool{false, true} {
			for cut := range len(text) + 1 {
				l, e := newLine(t, guard.Redact)
				out, _ := send(l.Open(guard.Origin{Channel: guard.ChannelTerminal}), pause, text[:cut], text[cut:])
				if len(out) != len(text) || !bytes.HasPrefix(out, []byte("before ")) || !bytes.HasSuffix(out, []byte(" after\n")) {
					t.Fatalf("%s cut at %d: %q", name, cut, out)
				}
				// A pause may let fewer than holdBack bytes of a value go.
				shown := 0
				for i := 7; i < 7+len(form) && out[i] == form[i-7]; i++ {
					shown++
				}
				if limit := holdBack; shown >= limit || !pause && shown > 0 && name == "raw" {
					t.Fatalf("%s cut at %d, pause %v: %d bytes of the value were shown", name, cut, pause, shown)
				}
				if len(e.leaks) != 1 || len(e.did) != 1 {
					t.Fatalf("%s cut at %d: %d leaks recorded, %d acted on", name, cut, len(e.leaks), len(e.did))
				}
			}
		}
	}
}

// A writer that pauses after every few bytes must not get the value out in
// pieces.
func TestSlowWriterGetsNothingOut(t *testing.T) {
	for n := 1; n <= 12; n++ {
		for _, act := range []guard.Action{guard.Redact, guard.Block} {
			l, _ := newLine(t, act)
			var pieces [][]byte
			for rest := []byte("x" + canary + "y"); len(rest) > 0; rest = rest[min(n, len(rest)):] {
				pieces = append(pieces, rest[:min(n, len(rest))])
			}
			out, _ := send(l.Open(guard.Origin{Channel: guard.ChannelHTTP}), true, pieces...)
			for i := holdBack; i <= len(canary); i++ {
				if bytes.Contains(out, []byte(canary[:i])) {
					t.Fatalf("%d bytes at a time, %v: %d bytes of the value went out", n, act, i)
				}
			}
		}
	}
}

func TestBlockStopsTheStream(t *testing.T) {
	l, _ := newLine(t, guard.Block)
	f := l.Open(guard.Origin{Channel: guard.ChannelHTTP})
	out, d := f([]byte("head "+canary+" tail"), guard.More)
	if string(out) != "head " || d.Action != guard.Block || d.Secret != canaryID {
		t.Fatalf("%q %v", out, d)
	}
	for _, s := range []guard.Step{guard.More, guard.Pause, guard.End} {
		if out, d := f([]byte("more"), s); len(out) != 0 || d.Action != guard.Block {
			t.Fatalf("a stopped stream went on: %q %v", out, d.Action)
		}
	}
}

// Two values that overlap: where the stream stops, nothing of either is out.
func TestBlockCutsBeforeTheFirst(t *testing.T) {
	l, _ := newLine(t, guard.Block)
	other := canary[20:] + "Xy7Qp2Lm9Rt4"
	if err := l.Matcher.Add(guard.Value{ID: guard.SecretID{Name: "other", Version: 1}, Secret: guard.NewSecret([]byte(other))}); err != nil {
		t.Fatal(err)
	}
	text := []byte("head " + canary + "Xy7Qp2Lm9Rt4 tail")
	for cut := range len(text) + 1 {
		if out, d := send(l.Open(guard.Origin{}), false, text[:cut], text[cut:]); string(out) != "head " || d.Action != guard.Block {
			t.Fatalf("cut at %d: %q %v", cut, out, d.Action)
		}
	}
}

func TestNoRecordNoOutput(t *testing.T) {
	for _, act := range []guard.Action{guard.Redact, guard.Warn, guard.Pass} {
		l, e := newLine(t, act)
		e.fail = errors.New("no space left on device")
		killed := false
		l.kill = func() { killed = true }
		out, d := send(l.Open(guard.Origin{Channel: guard.ChannelTerminal}), false, []byte("a "+canary))
		if string(out) != "a " || d.Action != guard.Kill || !killed {
			t.Fatalf("%v without a record: %q %v killed=%v", act, out, d.Action, killed)
		}
	}
}

func TestNoDecisionKills(t *testing.T) {
	l, _ := newLine(t, guard.Pass)
	l.Decide = nil
	if out, d := send(l.Open(guard.Origin{}), false, []byte(canary)); len(out) != 0 || d.Action != guard.Kill {
		t.Fatalf("%q %v", out, d.Action)
	}
}

func TestPlaceholdersPassUnrecorded(t *testing.T) {
	l, e := newLine(t, guard.Kill)
	text := []byte("token ghp_placeholder0placeholder0placeholder0 ok")
	out, d := send(l.Open(guard.Origin{Channel: guard.ChannelTerminal}), false, text)
	if !bytes.Equal(out, text) || d.Action != guard.Pass || len(e.leaks) != 0 {
		t.Fatalf("%q %v %d", out, d.Action, len(e.leaks))
	}
}

// A value that becomes known while its first half is on the screen.
func TestValueAddedMidway(t *testing.T) {
	l, e := newLine(t, guard.Redact)
	late := "glpat-" + strings.Repeat("Ab3", 8)
	f := l.Open(guard.Origin{Channel: guard.ChannelTerminal})
	first, _ := f([]byte("x "+late[:20]), guard.More)
	first = bytes.Clone(first)
	if err := l.Matcher.Add(guard.Value{ID: guard.SecretID{Name: "late", Version: 1}, Secret: guard.NewSecret([]byte(late))}); err != nil {
		t.Fatal(err)
	}
	rest, _ := f([]byte(late[20:]+" y"), guard.More)
	tail, _ := f(nil, guard.End)
	out := string(first) + string(rest) + string(tail)
	if strings.Contains(out, late) || len(e.leaks) != 1 || !e.leaks[0].Partial {
		t.Fatalf("%q %+v", out, e.leaks)
	}
}

func TestWordsHoldNoValue(t *testing.T) {
	w := Words(guard.Leak{Origin: guard.Origin{Channel: guard.ChannelHTTP, Host: "h", Path: "/p"}, Secret: canaryID, Encoding: "raw"}, guard.Decision{Action: guard.Block, Rule: "r"})
	if !strings.Contains(w, "github-pat") || !strings.Contains(w, "blocked") || strings.Contains(w, canary) {
		t.Fatal(w)
	}
}
