package export

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"guard/audit"
)

// Batch is records on their way to another system, in order.
type Batch struct {
	Records []audit.Record
	Lines   [][]byte // as they are in the log, and hashed
	// Checkpoint is the signed checkpoint that covers the log up to the last of
	// Records; nil where there is more to send before that. Whoever keeps all lines and
	// checkpoints can verify the log there: audit.VerifyLines.
	Checkpoint []byte
}

// Sender takes batches to one place. Send returns when the other side has the
// batch, as far as its protocol tells; a batch may be sent again after an error.
type Sender interface {
	Send(ctx context.Context, b Batch) error
	Close() error
}

// Options of Dial.
type Options struct {
	Headers map[string]string // of HTTP requests, such as a collector's token
	CA      []string          // files of further roots for TLS
	Dir     string            // the log's folder: a witness wants proofs
	Keep    string            // file for the newest checkpoint that a witness signed
}

// Targets are the forms of a target, for help.
const Targets = "otlp=URL, syslog=unix:///dev/log|udp://HOST:514|tcp://HOST:601|tls://HOST:6514, journald, file=PATH, witness=URL,VKEY"

// Dial prepares the way to target: see Targets. What is not there yet is an
// error of Send, which may be tried again.
func Dial(target string, s Source, o Options) (Sender, error) {
	kind, where, _ := strings.Cut(target, "=")
	switch kind {
	case "otlp":
		u, err := url.Parse(where)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
			return nil, fmt.Errorf("target %q: want otlp=http(s)://HOST[:PORT][/PREFIX]", kind)
		}
		return newOTLP(strings.TrimSuffix(where, "/"), s, o)
	case "syslog":
		u, err := url.Parse(where)
		if err != nil {
			return nil, errors.New("target syslog: want " + Targets)
		}
		return newSyslog(u, s, o)
	case "journald":
		if where == "" {
			where = journalSocket
		}
		return &journald{path: where, source: s}, nil
	case "witness":
		return newWitness(where, o)
	case "file":
		if where == "" {
			return nil, errors.New("target file: want file=PATH")
		}
		return &copyFile{path: where}, nil
	}
	return nil, fmt.Errorf("target %q: want one of %s", kind, Targets)
}

const (
	batchRecords = 512
	pollEvery    = 200 * time.Millisecond
	firstRetry   = 500 * time.Millisecond
	maxRetry     = time.Minute
)

// Ship sends the log in dir to s from record from on: what is there, and unless
// once is set what comes, until ctx ends. sent is told after each batch how far it is,
// and with which checkpoint; an error of it ends Ship. What cannot be sent is tried
// again after a while, and failed told why; with once it is an error.
func Ship(ctx context.Context, dir string, from uint64, s Sender, once bool, sent func(seq uint64, checkpoint []byte) error, failed func(error)) error {
	wait := firstRetry
	for {
		b, err := next(dir, from)
		if err != nil {
			return err
		}
		if len(b.Records) > 0 {
			if err := s.Send(ctx, b); err != nil {
				if once {
					return err
				}
				if ctx.Err() != nil {
					return nil
				}
				failed(err)
				if !sleep(ctx, wait) {
					return nil
				}
				wait = min(2*wait, maxRetry)
				continue
			}
			wait = firstRetry
			from = b.Records[len(b.Records)-1].Seq + 1
			if err := sent(from-1, b.Checkpoint); err != nil {
				return err
			}
			continue
		}
		if once {
			return nil
		}
		if !sleep(ctx, pollEvery) {
			return nil
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

var errEnough = errors.New("enough")

// next reads the batch that begins with record from.
func next(dir string, from uint64) (b Batch, err error) {
	// The checkpoint first: the log only grows.
	msg, err := audit.Checkpoint(dir)
	if err != nil {
		return b, err
	}
	size, ok := audit.CheckpointSize(msg)
	if !ok || size < from {
		return b, nil
	}
	err = audit.Lines(dir, from, func(seq uint64, line []byte) error {
		if seq > size || len(b.Records) == batchRecords {
			return errEnough
		}
		var r audit.Record
		if err := json.Unmarshal(line, &r); err != nil || r.Seq != seq {
			return fmt.Errorf("record %d is no record: %w", seq, audit.ErrTampered)
		}
		b.Records, b.Lines = append(b.Records, r), append(b.Lines, bytes.Clone(line))
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return Batch{}, err
	}
	if n := len(b.Records); n > 0 && b.Records[n-1].Seq == size {
		b.Checkpoint = msg
	}
	return b, nil
}
