package export

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"guard/audit"
)

// A collector as people run it takes logs, spans and metrics, and what it wrote
// verifies. GUARD_TEST_COLLECTOR is the program of internal/testutil/otelcol, which
// `make test-collector` builds.
func TestRealCollector(t *testing.T) {
	program := os.Getenv("GUARD_TEST_COLLECTOR")
	if program == "" {
		t.Skip("GUARD_TEST_COLLECTOR is not set: make test-collector builds one")
	}
	dir, pub, l := newLog(t, 700)
	for _, r := range []audit.Record{
		{Type: audit.TypeSessionStart, Session: "s"}, {Type: audit.TypeResult, Of: 1, Session: "s", Credential: "c", Result: "success", DurationMS: 5, Wiped: true},
		{Type: audit.TypeLeak, Session: "s", Credential: "c", Class: "live", Decision: "block", Result: "contained"}, {Type: audit.TypeSessionEnd, Session: "s"},
	} {
		if _, err := l.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	out := t.TempDir()
	config := filepath.Join(out, "config.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
receivers:
  otlp:
    protocols:
      http:
        endpoint: %s
exporters:
  file/logs: {path: %[2]s/logs}
  file/traces: {path: %[2]s/traces}
  file/metrics: {path: %[2]s/metrics}
service:
  telemetry:
    metrics: {level: none}
  pipelines:
    logs: {receivers: [otlp], exporters: [file/logs]}
    traces: {receivers: [otlp], exporters: [file/traces]}
    metrics: {receivers: [otlp], exporters: [file/metrics]}
`, addr, out), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program, "--config", "file:"+config)
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	stop := func() {
		c.Process.Signal(os.Interrupt)
		c.Wait()
	}
	defer stop()
	s, err := Dial("otlp=http://"+addr, source, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // only if it never starts
	defer cancel()
	var at uint64
	if err := Ship(ctx, dir, 1, s, false, func(seq uint64, _ []byte) error {
		if at = seq; seq == 704 {
			cancel()
		}
		return nil
	}, func(error) {}); err != nil || at != 704 {
		t.Fatalf("at %d, %v\n%s", at, err, &said)
	}
	stop() // which writes what it holds

	f, err := os.Open(filepath.Join(out, "logs"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := ReadCopy(f, pub)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := audit.VerifyLines(got.Lines, got.Checkpoints, pub); err != nil || v.Records != 704 {
		t.Errorf("%+v, %v", v, err)
	}
	for name, want := range map[string]string{"traces": `"name":"session"`, "metrics": "guard_leaks_total"} {
		if b, err := os.ReadFile(filepath.Join(out, name)); err != nil || !bytes.Contains(b, []byte(want)) {
			t.Errorf("%s: %v, no %s", name, err, want)
		}
	}
}
