//go:build linux && (amd64 || arm64)

package bpf

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkMonitorTLS is one SSL_write of 1 KiB, to memory, by Python.
func BenchmarkMonitorTLS(b *testing.B) {
	const script = `import ssl, sys, time
n = int(sys.argv[1])
c, s = ssl.create_default_context(), None
c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
import subprocess, tempfile, os
d = tempfile.mkdtemp()
subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x", "-keyout", d + "/k", "-out", d + "/c"], check=True, stderr=subprocess.DEVNULL)
p = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); p.load_cert_chain(d + "/c", d + "/k")
for f in ("k", "c"): os.remove(d + "/" + f)
os.rmdir(d)
a, z = ssl.MemoryBIO(), ssl.MemoryBIO()
client, server = c.wrap_bio(a, z), p.wrap_bio(z, a, server_side=True)
for i in range(9):
    for o in (client, server):
        try: o.do_handshake()
        except ssl.SSLWantReadError: pass
b = b"x" * 1024
best = 1e9
for k in range(5):
    t = time.perf_counter()
    for i in range(n): client.write(b)
    best = min(best, time.perf_counter() - t)
    z.read()
print(best / n * 1e9)
`
	for _, on := range []bool{false, true} {
		b.Run("watching="+strconv.FormatBool(on), func(b *testing.B) {
			if on {
				openMonitor(b, MonitorOptions{Options: Options{All: true, Needles: []Needle{needle(1, random(40))}}, TLS: true, own: "/bin/true"})
			}
			for b.Loop() {
				out, err := exec.Command("/usr/bin/python3", "-c", script, "20000").Output()
				if err != nil {
					b.Fatal(err)
				}
				ns, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(ns, "ns/write")
			}
		})
	}
}

// BenchmarkMonitorOpen is what it takes to look at every process and put the probes, and to take them away.
func BenchmarkMonitorOpen(b *testing.B) {
	canWatch(b)
	var open, stop time.Duration
	for b.Loop() {
		at := time.Now()
		m, err := OpenMonitor(MonitorOptions{Options: Options{All: true, Needles: []Needle{needle(1, random(40))}}, TLS: true})
		if err != nil {
			b.Fatal(err)
		}
		open += time.Since(at)
		at = time.Now()
		if err := m.Close(); err != nil {
			b.Fatal(err)
		}
		stop += time.Since(at)
	}
	b.ReportMetric(float64(open.Milliseconds())/float64(b.N), "open-ms")
	b.ReportMetric(float64(stop.Milliseconds())/float64(b.N), "close-ms")
}
