//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"guard/audit"
	"guard/internal/testutil"
)

// BenchmarkMonitorLeakToRecord is from the write, by a process that guard did not start, to the
// record on guard's standard output, which comes after it is durable in the log.
func BenchmarkMonitorLeakToRecord(b *testing.B) {
	if why := monitorLacks(); why != "" {
		b.Skip(why)
	}
	dir := b.TempDir()
	// Another file than this program, whose children would be guard's kin.
	program := filepath.Join(dir, "guard")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(program, self, 0o700); err != nil {
		b.Fatal(err)
	}
	env := append(os.Environ(), "GUARD_HOME="+filepath.Join(dir, "gh"), "GUARD_KEYFILE="+filepath.Join(dir, "key"))
	run := func(in string, args ...string) {
		b.Helper()
		cmd := exec.Command(program, args...)
		cmd.Env, cmd.Stdin = env, strings.NewReader(in)
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("guard %v: %v\n%s", args, err, out)
		}
	}
	run("", "init")
	// As many values as there are leaks below stormMost for, so that none is only counted.
	const values = 32
	var vs []string
	for i := range values {
		vs = append(vs, testutil.Random(40))
		run(vs[i], "secret", "set", fmt.Sprintf("tok%d", i), "--kind", "generic", "--stdin", "--host", "a.example.com")
	}
	cmd := exec.Command(program, "monitor", "--json", "--no-rotate")
	cmd.Env = env
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	errs, err := cmd.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_, _ = io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	}()
	if line, err := bufio.NewReader(errs).ReadString('\n'); err != nil || !strings.Contains(line, "ready") {
		b.Fatalf("%q, %v", line, err)
	}
	writer := exec.Command("sh", "-c", `while read -r v; do echo "$v" >/dev/shm/guard-bench; done; rm -f /dev/shm/guard-bench`)
	to, err := writer.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := writer.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		to.Close()
		_ = writer.Wait()
	}()
	records := bufio.NewReader(out)
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		if i == values*stormMost {
			b.Fatal("more leaks than are recorded one by one: use -benchtime 2000x")
		}
		if _, err := io.WriteString(to, vs[i%values]+"\n"); err != nil {
			b.Fatal(err)
		}
		for {
			line, err := records.ReadBytes('\n')
			if err != nil {
				b.Fatal(err)
			}
			var r audit.Record
			if err := json.Unmarshal(line, &r); err != nil {
				b.Fatal(err)
			}
			if r.Type == audit.TypeLeak && r.Channel == "file" {
				took = append(took, time.Since(r.Time))
				break
			}
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
}
