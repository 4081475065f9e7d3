package postgres

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"guard/rotate/rotatetest"
)

// BenchmarkPgbench runs pgbench's read-only script against the server and
// through guard; tps is what counts.
func BenchmarkPgbench(b *testing.B) {
	srv := rotatetest.StartPostgres(b, "log_statement=none")
	w := newWorld(b, srv)
	must(b, srv.Exec(`GRANT CREATE ON SCHEMA public TO `+realUser))
	run := func(b *testing.B, port int, args ...string) []byte {
		cmd := exec.Command("/usr/bin/pgbench", append(args, "-h", "127.0.0.1", "-p", strconv.Itoa(port), "-U", realUser, "postgres")...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PGPASSWORD=value-one-of-the-role", "PGSSLMODE=disable"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		return out
	}
	run(b, w.port, "-i", "-q")
	tps := regexp.MustCompile(`tps = ([0-9.]+)`)
	for _, c := range []struct {
		name string
		port int
	}{{"direct", srv.Port}, {"guard", w.port}} {
		b.Run(c.name, func(b *testing.B) {
			out := run(b, c.port, "-S", "-n", "-c", "4", "-j", "2", "-M", "prepared", "-T", "4")
			f, err := strconv.ParseFloat(string(tps.FindSubmatch(out)[1]), 64)
			must(b, err)
			b.ReportMetric(f, "tps")
		})
	}
}
