package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"guard/audit"
	"guard/audit/export"
)

// shipped is how far the log was sent to one target: a file in $GUARD_HOME/ship.
type shipped struct {
	Target string    `json:"target"`
	Seq    uint64    `json:"seq"`    // up to this record
	Proven uint64    `json:"proven"` // up to this one, with a checkpoint
	Root   string    `json:"root"`   // with that many records
	At     time.Time `json:"at"`
}

func (a *app) shipPath(target string) string {
	sum := sha256.Sum256([]byte(target))
	return filepath.Join(a.home(), "ship", hex.EncodeToString(sum[:8])+".json")
}

func (a *app) readShipped(target string) (s shipped, err error) {
	b, err := os.ReadFile(a.shipPath(target))
	if errors.Is(err, fs.ErrNotExist) {
		return shipped{Target: target}, nil
	} else if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil || s.Target != target {
		return s, fmt.Errorf("%s is not what guard wrote there: remove it, and the log is sent from its beginning", a.shipPath(target))
	}
	return s, nil
}

// allShipped lists where the log was sent to.
func (a *app) allShipped() (out []shipped) {
	names, _ := filepath.Glob(filepath.Join(a.home(), "ship", "*.json"))
	for _, n := range names {
		var s shipped
		if b, err := os.ReadFile(n); err == nil && json.Unmarshal(b, &s) == nil {
			out = append(out, s)
		}
	}
	return out
}

// shipFlags are of guard audit ship.
type shipFlags struct {
	once    bool
	headers []string
	ca      []string
	metrics string
}

// shipAudit sends the log to other systems until it is interrupted.
func (a *app) shipAudit(ctx context.Context, dir string, targets []string, o shipFlags) error {
	if len(targets) == 0 && o.metrics == "" {
		return usagef("ship wants a target (%s) or --metrics ADDR", export.Targets)
	}
	opts := export.Options{CA: o.ca, Headers: map[string]string{}}
	for _, h := range o.headers {
		k, v, ok := strings.Cut(h, "=")
		if !ok || k == "" {
			return usagef("--header: want NAME=VALUE, or NAME=@FILE for a value in a file")
		}
		if file, ok := strings.CutPrefix(v, "@"); ok {
			b, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			v = string(oneLine(b))
		}
		opts.Headers[k] = v
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	source := a.logSource(dir)
	var mu sync.Mutex
	var errs []error
	part := func(f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
				cancel(err)
			}
		})
	}
	for _, target := range targets {
		opts.Dir, opts.Keep = dir, strings.TrimSuffix(a.shipPath(target), ".json")+".cosigned"
		if err := os.MkdirAll(filepath.Dir(opts.Keep), 0o700); err != nil {
			return err
		}
		s, err := export.Dial(target, source, opts)
		if err != nil {
			return usageError{err}
		}
		defer s.Close()
		at, err := a.readShipped(target)
		if err != nil {
			return err
		}
		if at.Proven > 0 {
			if root, err := audit.RootAt(dir, at.Proven); err != nil || root != at.Root {
				return fmt.Errorf("the log is not the one of which %d records were sent to %s: it was put back or changed since (guard audit verify --against a checkpoint kept there says more): %w", at.Proven, target, tampered(err))
			}
		}
		part(func() error {
			return export.Ship(ctx, dir, at.Seq+1, s, o.once, func(seq uint64, checkpoint []byte) error {
				at.Seq, at.At = seq, time.Now().UTC()
				if checkpoint != nil {
					root, err := audit.RootAt(dir, seq)
					if err != nil {
						return err
					}
					at.Proven, at.Root = seq, root
				}
				b, err := json.Marshal(at)
				if err != nil {
					return err
				}
				if err := os.MkdirAll(filepath.Dir(a.shipPath(target)), 0o700); err != nil {
					return err
				}
				return writeFile(a.shipPath(target), b)
			}, func(err error) { a.say("%s: %v; it is tried again", kindOf(target), err) })
		})
	}
	if o.metrics != "" {
		l, err := net.Listen("tcp", o.metrics)
		if err != nil {
			return fmt.Errorf("--metrics: %w", err)
		}
		a.say("metrics for Prometheus are at http://%s/metrics", l.Addr())
		part(func() error { return serveMetrics(ctx, l, dir) })
	}
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	return errors.Join(errs...)
}

// tampered is err, or that the log was tampered with.
func tampered(err error) error {
	if err != nil {
		return err
	}
	return audit.ErrTampered
}

func kindOf(target string) string {
	k, _, _ := strings.Cut(target, "=")
	return k
}

// serveMetrics answers Prometheus, until ctx ends.
func serveMetrics(ctx context.Context, l net.Listener, dir string) error {
	var mu sync.Mutex
	var counts export.Counts
	last := uint64(0)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if err := audit.Read(dir, audit.Filter{From: last + 1}, func(r audit.Record) error {
			counts.Add(r)
			last = r.Seq
			return nil
		}); err != nil {
			http.Error(w, "the log cannot be read: guard audit verify says why", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_ = counts.Prometheus(w)
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// newestCheckpoint reads a checkpoint that was kept elsewhere.
func newestCheckpoint(file string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if _, ok := audit.CheckpointSize(b); !ok {
		return nil, fmt.Errorf("%s holds no checkpoint of a log: it is the file PATH.checkpoint beside what guard audit ship file=PATH wrote", file)
	}
	return b, nil
}

// verifyCopy checks what a central store has of a machine's log, with that
// machine's public key alone.
func (a *app) verifyCopy(file, key string, asJSON bool) error {
	if key == "" {
		return usagef("--copy is checked with the public key of the machine that sent it: --key (guard audit ship sends it as guard.log.key; it is in key.pub beside the log)")
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := export.ReadCopy(f, key)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", file, audit.ErrTampered, err)
	}
	if b, err := os.ReadFile(file + ".checkpoint"); err == nil {
		c.Checkpoints = append(c.Checkpoints, b)
	}
	if len(c.Checkpoints) == 0 {
		return fmt.Errorf("%s comes with no checkpoint: nothing says that it is whole", file)
	}
	rep, err := audit.VerifyLines(c.Lines, c.Checkpoints, key)
	if err != nil {
		return err
	}
	if asJSON {
		return a.printJSON(map[string]any{"ok": true, "report": rep})
	}
	fmt.Fprintf(a.stdout, "the copy is whole: %d records, which %d signed checkpoints cover\n", rep.Records, rep.Checked)
	if rep.Beyond > 0 {
		fmt.Fprintf(a.stdout, "%d more came without one\n", rep.Beyond)
	}
	return nil
}
