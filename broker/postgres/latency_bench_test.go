package postgres

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"guard/rotate/rotatetest"
)

// BenchmarkQueryLatency asks SELECT 1 on one connection, directly, through guard and
// through guard with db:read, in turns.
func BenchmarkQueryLatency(b *testing.B) {
	srv := rotatetest.StartPostgres(b, "log_statement=none")
	w := newWorld(b, srv)
	w.h.Open, w.h.Decide = searching(b), w.decide
	ctx := context.Background()
	dial := func(port int) *pgconn.PgConn {
		c, err := pgconn.Connect(ctx, fmt.Sprintf("host=127.0.0.1 port=%d user=%s password=value-one-of-the-role dbname=postgres sslmode=disable", port, realUser))
		must(b, err)
		b.Cleanup(func() { c.Close(ctx) })
		return c
	}
	conns := map[string]*pgconn.PgConn{"direct": dial(srv.Port), "guard": dial(w.port)}
	w.change(func() { w.allow = []string{"db:read"} })
	conns["read"] = dial(w.port)
	took := map[string][]time.Duration{}
	for range 5000 {
		for name, c := range conns {
			begin := time.Now()
			_, err := c.Exec(ctx, "SELECT 1").ReadAll()
			took[name] = append(took[name], time.Since(begin))
			must(b, err)
		}
	}
	for name, t := range took {
		slices.Sort(t)
		b.ReportMetric(float64(t[len(t)/2].Microseconds()), name+"-p50-us")
		b.ReportMetric(float64(t[len(t)*99/100].Microseconds()), name+"-p99-us")
	}
}
