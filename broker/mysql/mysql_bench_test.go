package mysql

import (
	"database/sql"
	"fmt"
	"syscall"
	"testing"
	"time"
)

// cpu is the time that this process spent, all threads, both modes.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkQuery asks for one row, and for many, directly and through guard; us-cpu is
// what it costs this process, with the client in it.
func BenchmarkQuery(b *testing.B) {
	srv, on := real(b, "")
	w := newWorld(b, on)
	for _, c := range []struct {
		name string
		dsn  string
	}{
		{"direct", fmt.Sprintf("%s:%s@tcp(127.0.0.1:%d)/app", realUser, password, srv.Port)},
		{"guard", fmt.Sprintf("agent@tcp(127.0.0.1:%d)/app", w.port)},
	} {
		db, err := sql.Open("mysql", c.dsn)
		must(b, err)
		defer db.Close()
		db.SetMaxOpenConns(1)
		for name, q := range map[string]string{"row": "SELECT name FROM t WHERE id = 1", "10000 rows": "SELECT CONCAT('row ', seq) FROM seq_1_to_10000"} {
			b.Run(name+"/"+c.name, func(b *testing.B) {
				before := cpu()
				for b.Loop() {
					rows, err := db.Query(q)
					must(b, err)
					var s string
					for rows.Next() {
						must(b, rows.Scan(&s))
					}
					must(b, rows.Err())
				}
				b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "us-cpu")
			})
		}
	}
}
