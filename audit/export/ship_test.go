package export

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"guard"
	"guard/audit"
)

func newLog(t *testing.T, n int) (dir, pub string, l *audit.Log) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "audit")
	key := guard.NewSecret(bytes.Repeat([]byte{7}, 32))
	l, err := audit.Open(dir, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	var wg sync.WaitGroup // groups: one sync each takes long
	for i := range n {
		wg.Go(func() {
			if _, err := l.Append(audit.Record{Type: audit.TypeUse, Session: "s", Credential: fmt.Sprint("c", i), Decision: "pass"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if pub, err = audit.PublicKey(key); err != nil {
		t.Fatal(err)
	}
	return dir, pub, l
}

// collector is the part of an OTLP receiver that a test needs to see what came;
// a real one is tried by TestRealCollector.
type collector struct {
	mu          sync.Mutex
	fail        []int // statuses to answer first
	lines       map[uint64][]byte
	checkpoints [][]byte
	paths       map[string]int
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.fail) > 0 {
		w.WriteHeader(c.fail[0])
		c.fail = c.fail[1:]
		return
	}
	c.paths[r.URL.Path]++
	if r.Header.Get("Content-Encoding") != "gzip" || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("X-Token") != "t" {
		http.Error(w, "headers", 400)
		return
	}
	z, err := gzip.NewReader(r.Body)
	if err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	var data LogsData
	if err := json.NewDecoder(z).Decode(&data); err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	for _, rl := range data.ResourceLogs {
		for _, rec := range rl.ScopeLogs[0].LogRecords {
			if rec.EventName == "guard.checkpoint" {
				c.checkpoints = append(c.checkpoints, []byte(*rec.Body.String))
				continue
			}
			var seq uint64
			var line string
			for _, a := range rec.Attributes {
				switch a.Key {
				case "guard.seq":
					seq, _ = strconv.ParseUint(*a.Value.Int, 10, 64)
				case "guard.line":
					line = *a.Value.String
				}
			}
			c.lines[seq] = []byte(line)
		}
	}
	io.WriteString(w, "{}")
}

func (c *collector) inOrder() (out [][]byte) {
	for seq := uint64(1); c.lines[seq] != nil; seq++ {
		out = append(out, c.lines[seq])
	}
	return out
}

// What a collector got verifies there, also after it failed in between.
func TestShipToACollector(t *testing.T) {
	dir, pub, _ := newLog(t, 1200)
	c := &collector{lines: map[uint64][]byte{}, paths: map[string]int{}, fail: []int{503}}
	srv := httptest.NewServer(c)
	defer srv.Close()
	s, err := Dial("otlp="+srv.URL, source, Options{Headers: map[string]string{"X-Token": "t"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var at uint64
	failures := 0
	err = Ship(ctx, dir, 1, s, false, func(seq uint64, cp []byte) error {
		if at = seq; seq == 1200 {
			cancel()
		}
		return nil
	}, func(error) { failures++ })
	if err != nil || at != 1200 || failures != 1 {
		t.Fatalf("%v, at %d, %d failures", err, at, failures)
	}
	if c.paths["/v1/logs"] != 3 || c.paths["/v1/metrics"] != 3 {
		t.Errorf("%v", c.paths)
	}
	got, err := audit.VerifyLines(c.inOrder(), c.checkpoints, pub)
	if err != nil || got.Records != 1200 {
		t.Errorf("%+v, %v", got, err)
	}
	c.lines[5], c.lines[6] = c.lines[6], c.lines[5]
	if _, err := audit.VerifyLines(c.inOrder(), c.checkpoints, pub); !errors.Is(err, audit.ErrTampered) {
		t.Errorf("a changed store verifies: %v", err)
	}
}

func TestShipOnce(t *testing.T) {
	dir, _, _ := newLog(t, 3)
	c := &collector{fail: []int{500}}
	srv := httptest.NewServer(c)
	defer srv.Close()
	s, err := Dial("otlp="+srv.URL, source, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := Ship(t.Context(), dir, 1, s, true, nil, nil); err == nil || !strings.Contains(err.Error(), "500") {
		t.Error(err)
	}
}

func TestShipToAFile(t *testing.T) {
	dir, pub, l := newLog(t, 600)
	path := filepath.Join(t.TempDir(), "copy.jsonl")
	ship := func(from uint64) error {
		s, err := Dial("file="+path, source, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		return Ship(t.Context(), dir, from, s, true, func(uint64, []byte) error { return nil }, nil)
	}
	verify := func(want uint64) {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		cp, err := os.ReadFile(path + ".checkpoint")
		if err != nil {
			t.Fatal(err)
		}
		c, err := ReadCopy(bytes.NewReader(b), pub)
		if err != nil {
			t.Fatal(err)
		}
		got, err := audit.VerifyLines(c.Lines, [][]byte{cp}, pub)
		if err != nil || got.Records != want {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if err := ship(1); err != nil {
		t.Fatal(err)
	}
	verify(600)
	// Sent in part, and again.
	if err := os.Truncate(path, 70000); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(path)
	whole := uint64(bytes.Count(b, []byte("\n")))
	if err := ship(whole + 1); err != nil {
		t.Fatal(err)
	}
	verify(600)
	if err := ship(200); err != nil {
		t.Fatal(err)
	}
	verify(600)
	if _, err := l.Append(audit.Record{Type: "secret.set"}); err != nil {
		t.Fatal(err)
	}
	// A gap is said, and nothing is written.
	if err := ship(602); err != nil {
		t.Fatal(err)
	}
	os.Truncate(path, 70000)
	if err := ship(601); err == nil {
		t.Error("a copy with a gap was made")
	}
}

func TestShipToSyslog(t *testing.T) {
	dir, _, _ := newLog(t, 5)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	got := make(chan []string, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			got <- nil
			return
		}
		defer c.Close()
		var out []string
		br := bufio.NewReader(c)
		for {
			n, err := br.ReadString(' ')
			if err != nil {
				got <- out
				return
			}
			size, _ := strconv.Atoi(strings.TrimSpace(n))
			b := make([]byte, size)
			if _, err := io.ReadFull(br, b); err != nil {
				got <- nil
				return
			}
			out = append(out, string(b))
		}
	}()
	send := func(target string) {
		s, err := Dial(target, source, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := Ship(t.Context(), dir, 1, s, true, func(uint64, []byte) error { return nil }, nil); err != nil {
			t.Fatal(err)
		}
	}
	send("syslog=tcp://" + ln.Addr().String())
	if out := <-got; len(out) != 6 || !strings.Contains(out[5], "guard - checkpoint - guard-audit|5|") {
		t.Errorf("%q", out)
	}
	for kind, target := range map[string]string{"syslog": "syslog=unix://", "journald": "journald="} {
		path := filepath.Join(t.TempDir(), "s")
		c, err := net.ListenPacket("unixgram", path)
		if err != nil {
			t.Fatal(err)
		}
		send(target + path)
		buf := make([]byte, 64<<10)
		n, _, err := c.ReadFrom(buf)
		if want := map[string]string{"syslog": `seq="1"`, "journald": "\nGUARD_SEQ=1\n"}[kind]; err != nil || !bytes.Contains(buf[:n], []byte(want)) {
			t.Errorf("%s: %q, %v", kind, buf[:n], err)
		}
		c.Close()
	}
}

func TestDial(t *testing.T) {
	for _, bad := range []string{"", "x", "otlp", "otlp=ftp://x", "otlp=http://user:pw@x", "syslog=http://x", "syslog=tcp://", "file=", "syslog=:"} {
		if _, err := Dial(bad, source, Options{}); err == nil {
			t.Errorf("%q is a target", bad)
		}
	}
	if !slices.Contains(Formats(), "otlp") {
		t.Error("no otlp")
	}
}
