package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"
)

// BenchmarkQueryLatency asks SELECT 1 on one connection, directly and through guard, in turns.
func BenchmarkQueryLatency(b *testing.B) {
	srv, on := real(b, "")
	w := newWorld(b, on)
	ctx := context.Background()
	conns := map[string]*sql.Conn{}
	for name, dsn := range map[string]string{
		"direct": fmt.Sprintf("%s:%s@tcp(127.0.0.1:%d)/app", realUser, password, srv.Port),
		"guard":  fmt.Sprintf("agent@tcp(127.0.0.1:%d)/app", w.port),
	} {
		db, err := sql.Open("mysql", dsn)
		must(b, err)
		defer db.Close()
		c, err := db.Conn(ctx)
		must(b, err)
		defer c.Close()
		conns[name] = c
	}
	took := map[string][]time.Duration{}
	for range 5000 {
		for name, c := range conns {
			var n int
			begin := time.Now()
			err := c.QueryRowContext(ctx, "SELECT 1").Scan(&n)
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

// BenchmarkIdle is what a connection holds of memory that was used once, in KiB, with the
// client's side, which go-sql-driver has in the same process: its own is measured
// directly and taken off.
func BenchmarkIdle(b *testing.B) {
	srv, on := real(b, "")
	w := newWorld(b, on)
	ctx := context.Background()
	held := func() float64 {
		for range 4 { // stacks shrink by half at a time
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapInuse + m.StackInuse)
	}
	const n = 100
	each := func(dsn string) float64 {
		db, err := sql.Open("mysql", dsn)
		must(b, err)
		defer db.Close()
		var before float64
		for i := range n + 1 {
			c, err := db.Conn(ctx)
			must(b, err)
			defer c.Close()
			must(b, c.PingContext(ctx))
			if i == 0 {
				before = held()
			}
		}
		return (held() - before) / n / 1024
	}
	direct := each(fmt.Sprintf("%s:%s@tcp(127.0.0.1:%d)/app", realUser, password, srv.Port))
	b.ReportMetric(each(fmt.Sprintf("agent@tcp(127.0.0.1:%d)/app", w.port))-direct, "KiB")
	b.ReportMetric(direct, "KiB-client")
}
