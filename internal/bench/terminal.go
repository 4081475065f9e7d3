//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// terminal compares what programs write to a terminal, with nothing between
// them, under `script -qec`, which moves the bytes over a second terminal as guard
// does and looks at none of them, and under guard. A round takes all three in turns;
// the ratios are the median of those of the rounds.
func (b *bench) terminal(rounds int) {
	fmt.Printf("| on a terminal of 50 x 200, median of %d | bare | `script` | guard | guard to bare | guard to `script` | CPU seconds for 1 GB: `script` | guard |\n|---|---|---|---|---|---|---|---|\n", rounds)
	for _, o := range []struct{ name, command string }{
		{"`cat` of a colour log", "cat " + b.file("colour.log", 64<<20, colourLog)},
		{"8 MiB of `yes`", "yes | head -c 8M"},
		{"`find /`", "find / -xdev -path /proc -prune -o -print 2>/dev/null | head -c 32M"},
		{"a screen painted over and over", "cat " + b.file("frames", 16<<20, frames)},
		{"the same, one part of it at a time", "cat " + b.file("parts", 4<<20, parts)},
	} {
		var runs [3][]passed
		var idle [3]passed // what each costs with a program that says nothing
		for range rounds {
			for i, cmd := range []*exec.Cmd{
				b.command(false, "sh", "-c", o.command),
				b.command(false, "script", "-qec", o.command, "/dev/null"),
				b.command(false, b.guard, "run", "--", "sh", "-c", o.command),
			} {
				runs[i] = append(runs[i], b.passes(cmd))
			}
			for i, cmd := range []*exec.Cmd{1: b.command(false, "script", "-qec", "true", "/dev/null"), 2: b.command(false, b.guard, "run", "--", "true")} {
				if cmd != nil {
					p := b.passes(cmd)
					idle[i].user, idle[i].sys = idle[i].user+p.user/time.Duration(rounds), idle[i].sys+p.sys/time.Duration(rounds)
				}
			}
		}
		fmt.Printf("| %s | %.1f MB/s | %.1f | %.1f | %.2f | %.2f | %s | %s |\n", o.name,
			middle(runs[0], passed.rate), middle(runs[1], passed.rate), middle(runs[2], passed.rate),
			ratio(runs[2], runs[0]), ratio(runs[2], runs[1]), costs(runs[1], idle[1]), costs(runs[2], idle[2]))
	}
}

// file makes a file of this size in the session's folder.
func (b *bench) file(name string, size int, next func(w *bytes.Buffer, i int)) string {
	var w bytes.Buffer
	for i := 0; w.Len() < size; i++ {
		next(&w, i)
	}
	b.must(os.WriteFile(filepath.Join(b.work, name), w.Bytes(), 0o644))
	return name
}

func colourLog(w *bytes.Buffer, i int) {
	fmt.Fprintf(w, "\x1b[32m2026-01-02 03:04:%02d\x1b[0m \x1b[1mINFO\x1b[0m request served path=/api/v1/items/%d status=200 took=%dms\n", i%60, i, i*7%90)
}

// frames draws the whole screen each time: a table with colours, borders and
// numbers that change, as a monitor of processes does.
func frames(w *bytes.Buffer, i int) {
	w.WriteString("\x1b[?2026h\x1b[H")
	for r := range 49 {
		fmt.Fprintf(w, "\x1b[%d;1H\x1b[3%dm%-60s\x1b[m│\x1b[1m%7d\x1b[m %3d.%d%% │ %-70s\x1b[K",
			r+1, r%8, fmt.Sprintf("row %d, a name of something", r), 1000+r*37, (i*r)%100, i%10, fmt.Sprintf("/usr/lib/some/program --with=%d", r))
	}
	w.WriteString("\x1b[?2026l")
}

// parts draws what changed alone: numbers here and there, a line of text that
// moves, and a log that scrolls in a region below them.
func parts(w *bytes.Buffer, i int) {
	if i == 0 {
		w.WriteString("\x1b[2J\x1b[20;50r")
	}
	for k := range 8 {
		fmt.Fprintf(w, "\x1b[%d;%dH\x1b[1m%5d\x1b[m", 2+k*2, 20+k*10, (i*k)%99999)
	}
	fmt.Fprintf(w, "\x1b[19;1H\x1b[7m%*s\x1b[m\x1b[K", 30+i%40, "some words in a bar")
	fmt.Fprintf(w, "\x1b[50;1H\n\x1b[36mmessage %d\x1b[m of a log in a region of its own", i)
}

// passed is what came through to a terminal.
type passed struct {
	bytes     int64
	took      time.Duration // from the first byte to the last
	user, sys time.Duration // of the process that was started, without its children
}

func (p passed) rate() float64 { return float64(p.bytes) / 1e6 / p.took.Seconds() }

func (b *bench) passes(cmd *exec.Cmd) (p passed) {
	master := b.onTTY(cmd)
	defer master.Close()
	buf := make([]byte, 64<<10)
	var first, last time.Time
	for {
		n, err := master.Read(buf)
		if p.bytes += int64(n); n > 0 {
			if last = time.Now(); first.IsZero() {
				first = last
			}
		}
		if err != nil {
			if !errors.Is(err, unix.EIO) && err != io.EOF {
				b.must(err)
			}
			break
		}
	}
	p.took = last.Sub(first)
	for {
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			b.must(err)
			break
		}
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
	b.must(err)
	b.must(cmd.Wait())
	// After the name: state is field 3, utime and stime are 14 and 15, in 1/100 s (proc(5)).
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	ticks := func(s string) time.Duration {
		n, err := strconv.ParseInt(s, 10, 64)
		b.must(err)
		return time.Duration(n) * 10 * time.Millisecond
	}
	p.user, p.sys = ticks(f[11]), ticks(f[12])
	return p
}

func middle(runs []passed, of func(passed) float64) float64 {
	var x []float64
	for _, r := range runs {
		x = append(x, of(r))
	}
	slices.Sort(x)
	return x[len(x)/2]
}

// ratio is the median of how a's rate is to that of the same round of b.
func ratio(a, b []passed) float64 {
	var x []float64
	for i := range a {
		x = append(x, a[i].rate()/b[i].rate())
	}
	slices.Sort(x)
	return x[len(x)/2]
}

func costs(runs []passed, idle passed) string {
	for1 := func(d func(passed) time.Duration) float64 {
		return middle(runs, func(p passed) float64 { return max(0, d(p)-d(idle)).Seconds() / (float64(p.bytes) / 1e9) })
	}
	user, sys := for1(func(p passed) time.Duration { return p.user }), for1(func(p passed) time.Duration { return p.sys })
	return fmt.Sprintf("%.1f (%.1f in the kernel)", user+sys, sys)
}
