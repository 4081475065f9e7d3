package export

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Copy is what a central store has of one machine's log.
type Copy struct {
	Lines       [][]byte // from record 1, without gaps
	Checkpoints [][]byte
}

// ReadCopy reads what Ship sent to a file, or what a collector wrote of it as
// OTLP/JSON, a request a line. Of a store of several machines it takes the
// log whose verifier key is key. A batch that came twice must be the same both times.
func ReadCopy(r io.Reader, key string) (c Copy, err error) {
	lines := map[uint64][]byte{}
	add := func(seq uint64, line []byte) error {
		if old := lines[seq]; old != nil && !bytes.Equal(old, line) {
			return fmt.Errorf("record %d is there twice, and not the same", seq)
		}
		lines[seq] = bytes.Clone(line)
		return nil
	}
	br := bufio.NewReaderSize(r, 1<<20)
	for n := 1; ; n++ {
		b, err := br.ReadBytes('\n')
		if b = bytes.TrimRight(b, "\n"); len(b) > 0 {
			var x struct {
				Seq uint64 `json:"seq"`
				LogsData
			}
			if err := json.Unmarshal(b, &x); err != nil {
				return c, fmt.Errorf("line %d is neither a record nor OTLP logs", n)
			}
			if x.ResourceLogs == nil {
				if err := add(x.Seq, b); err != nil {
					return c, err
				}
			}
			for _, rl := range x.ResourceLogs {
				if err := c.take(rl, key, add); err != nil {
					return c, err
				}
			}
		}
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return c, err
		}
	}
	for seq := uint64(1); lines[seq] != nil; seq++ {
		c.Lines = append(c.Lines, lines[seq])
	}
	if len(c.Lines) != len(lines) {
		return c, fmt.Errorf("record %d is missing, and there are later ones", len(c.Lines)+1)
	}
	return c, nil
}

func (c *Copy) take(rl resourceLogs, key string, add func(uint64, []byte) error) error {
	for _, a := range rl.Resource.Attributes {
		if a.Key == "guard.log.key" && a.Value.String != nil && *a.Value.String != key {
			return nil // another machine's
		}
	}
	for _, sl := range rl.ScopeLogs {
		for _, rec := range sl.LogRecords {
			if rec.EventName == "guard.checkpoint" {
				if rec.Body.String != nil {
					c.Checkpoints = append(c.Checkpoints, []byte(*rec.Body.String))
				}
				continue
			}
			var seq uint64
			var line []byte
			for _, a := range rec.Attributes {
				switch {
				case a.Key == "guard.seq" && a.Value.Int != nil:
					seq, _ = strconv.ParseUint(*a.Value.Int, 10, 64)
				case a.Key == "guard.line" && a.Value.String != nil:
					line = []byte(*a.Value.String)
				}
			}
			if line == nil {
				continue // not guard's
			}
			if err := add(seq, line); err != nil {
				return err
			}
		}
	}
	return nil
}
