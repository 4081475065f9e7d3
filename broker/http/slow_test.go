package http

import (
	"bytes"
	"io"
	"net"
	nethttp "net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"guard"
	"guard/broker"
)

// most is how much of the value may have arrived: what is released at a pause.
const most = 7

func wantLittle(t *testing.T, got string) {
	t.Helper()
	if strings.Contains(got, canary[:most+1]) {
		t.Errorf("more than %d characters of the value arrived: %q", most, got)
	}
}

// paced writes parts with silences that are longer than broker.Idle between.
func paced(w io.Writer, parts []string) {
	for _, p := range parts {
		if _, err := io.WriteString(w, p); err != nil {
			return
		}
		time.Sleep(broker.Idle + 30*time.Millisecond) // the silence is the attack
	}
}

func fives(s string) (out []string) {
	for ; len(s) > 5; s = s[5:] {
		out = append(out, s[:5])
	}
	return append(out, s)
}

func TestSlowSendersAreStopped(t *testing.T) {
	e := newEnv(t)
	var mu sync.Mutex
	var got bytes.Buffer
	e.upstream("web.test", 443, nethttp.HandlerFunc(func(_ nethttp.ResponseWriter, r *nethttp.Request) {
		b := make([]byte, 64)
		for {
			n, err := r.Body.Read(b)
			mu.Lock()
			got.Write(b[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}))
	for _, h2 := range []bool{false, true} {
		pr, pw := io.Pipe()
		go func() { paced(pw, fives("start "+canary+" end")); pw.Close() }()
		r, _ := nethttp.NewRequest("POST", "https://web.test/", pr)
		res, err := e.client("web.test", 443, h2).Do(r)
		pr.Close()
		if err == nil {
			b, _ := io.ReadAll(res.Body)
			res.Body.Close()
			wantDenied(t, res, string(b), 403, "leak", "test-leak")
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if !strings.Contains(got.String(), "start") {
		t.Error("the body did not stream")
	}
	wantLittle(t, got.String())
}

// A tail that is kept waits without a timer, and comes at the end.
func TestFilteredTellsOfASilenceOnce(t *testing.T) {
	pr, pw := io.Pipe()
	var mu sync.Mutex
	pauses := 0
	f := search(guard.Block, map[string]string{canary: ""}, nil)
	body := &filtered{src: pr, pauses: true, stop: func(guard.Decision) error { return broker.ErrStopped }, f: func(p []byte, s guard.Step) ([]byte, guard.Decision) {
		mu.Lock()
		defer mu.Unlock()
		if s == guard.Pause {
			pauses++
		}
		return f(p, s)
	}}
	go func() { paced(pw, []string{"a" + canary[:12], canary[12:15], "."}); pw.Close() }()
	b, err := io.ReadAll(body)
	if err != nil || string(b) != "a"+canary[:15]+"." {
		t.Errorf("%q, %v", b, err)
	}
	if pauses < 1 || pauses > 3 {
		t.Errorf("%d pauses for 3 writes", pauses)
	}
}

func TestDelayedTellsOfASilenceOnce(t *testing.T) {
	r, w := net.Pipe()
	told := make(chan guard.Step, 100)
	f := search(guard.Block, map[string]string{canary: ""}, nil)
	d := &delayed{dst: w, f: func(p []byte, s guard.Step) ([]byte, guard.Decision) {
		told <- s
		return f(p, s)
	}}
	done := make(chan string)
	go func() { b, _ := io.ReadAll(r); done <- string(b) }()
	paced(d, fives("x "+canary[:20]))
	d.Close()
	w.Close()
	if got := <-done; got != "x "+canary[:20] {
		t.Errorf("arrived %q", got)
	}
	if n := len(told); n > 2*5+1 {
		t.Errorf("the filter was called %d times", n)
	}
	r, w = net.Pipe()
	d = &delayed{dst: w, f: search(guard.Block, map[string]string{canary: ""}, nil)}
	go func() { b, _ := io.ReadAll(r); done <- string(b) }()
	paced(d, strings.Split("x "+canary, ""))
	d.Close()
	w.Close()
	wantLittle(t, <-done)
}

// wsPayloads gives the payloads of client frames, one after the other.
func wsPayloads(t *testing.T, b []byte) (data, control string) {
	t.Helper()
	for r := bytes.NewReader(b); ; {
		op, p, err := wsRead(r)
		if op&8 != 0 {
			control += string(p)
		} else {
			data += string(p)
		}
		if err != nil {
			return data, control
		}
	}
}

// A value that is cut over frames, messages or pings is one value.
func TestValueOverManyFrames(t *testing.T) {
	newFrames := func(action guard.Action, out io.Writer) *frames {
		f := func() guard.Filter { return search(action, map[string]string{canary: ""}, nil) }
		return &frames{weave: broker.Weave{Dst: out}, data: f(), control: f()}
	}
	for name, op := range map[string]func(i int) byte{
		"messages":      func(int) byte { return 0x81 },
		"continuations": func(i int) byte { return map[bool]byte{true: 0x02, false: 0x00}[i == 0] },
		"pings":         func(int) byte { return 0x89 },
	} {
		for _, size := range []int{1, 5, 12} {
			var out bytes.Buffer
			w := newFrames(guard.Block, &out)
			text := "start " + canary
			var err error
			for i := 0; i*size < len(text) && err == nil; i++ {
				for _, b := range wsFrame(op(i), []byte(text[i*size:min(len(text), (i+1)*size)])) {
					if _, err = w.Write([]byte{b}); err != nil {
						break
					}
				}
			}
			if err == nil {
				t.Errorf("%s of %d: not stopped", name, size)
			}
			data, control := wsPayloads(t, out.Bytes())
			wantLittle(t, data)
			if len(control) > len("start ")+12+most { // a ping is whole or not there
				t.Errorf("%s of %d: pings brought %q", name, size, control)
			}
		}
	}

	// Nothing is lost, and the order stays, when it is no secret after all.
	var out bytes.Buffer
	w := newFrames(guard.Block, &out)
	for _, f := range [][]byte{wsFrame(0x81, []byte("a "+canary[:12])), wsFrame(0x89, []byte("ping")), wsFrame(0x81, nil), wsFrame(0x81, []byte("!"))} {
		w.Write(f)
	}
	var seq []string
	for r := bytes.NewReader(out.Bytes()); ; {
		_, p, err := wsRead(r)
		if err != nil {
			break
		}
		seq = append(seq, string(p))
	}
	if strings.Join(seq, "|") != "a "+canary[:12]+"|ping||!" {
		t.Errorf("arrived %q", seq)
	}
	// The end lets go what is kept, also for a Close frame.
	for _, end := range []func(*frames){func(w *frames) { w.Close() }, func(w *frames) { w.Write(wsFrame(0x88, []byte{3, 232})) }} {
		out.Reset()
		w = newFrames(guard.Block, &out)
		w.Write(wsFrame(0x81, []byte(canary[:12])))
		end(w)
		if data, _ := wsPayloads(t, out.Bytes()); data != canary[:12] {
			t.Errorf("at the end: %q", data)
		}
	}
	// A mask over two frames.
	out.Reset()
	w = newFrames(guard.Redact, &out)
	w.Write(wsFrame(0x81, []byte("a"+canary[:4])))
	w.Write(wsFrame(0x81, []byte(canary[4:]+"b")))
	if data, _ := wsPayloads(t, out.Bytes()); data != "a"+canary[:4]+strings.Repeat("*", len(canary)-4)+"b" {
		t.Errorf("masked: %q", data)
	}
	// The mask keys are no way out either.
	out.Reset()
	w = newFrames(guard.Block, &out)
	for i := 0; i+4 <= len(canary); i += 4 {
		w.Write(append([]byte{0x82, 0x81}, canary[i]^0, canary[i+1], canary[i+2], canary[i+3], 'x'^canary[i]))
	}
	if b := out.Bytes(); bytes.Contains(b, []byte(canary[:4])) || bytes.Contains(b, []byte(canary[4:8])) {
		t.Error("a mask key went out as it was chosen")
	}
}
