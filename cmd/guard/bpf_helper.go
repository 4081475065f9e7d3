package main

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"guard"
	"guard/bpf"
)

// An ordinary user's session gets its search in the kernel from a small process
// with the capabilities for it: this program again, as a copy that make
// install-system gives them. It hands out nothing: the loaded programs stay its
// own, it watches one pid namespace that the calling user made, refuses what is written in there
// if it is asked to, and ends with the connection on its standard input.
const argHelper = "__bpf"

// helperAsk is what a session says to the helper.
type helperAsk struct {
	PID     int   // open: a process in the namespace
	Lengths []int // of the needles
	IDs     []uint32
	Bytes   []byte // of all of them, one after the other
	Op      string // "open", "set", "stop"; "can" asks whether it could refuse
	Refuse  bool   // open: what holds a needle fails
	Strict  bool   // open: and what cannot be searched
}

// helperSays is what the helper answers, and tells of finds.
type helperSays struct {
	Op         string // "open", "set", "stop": answers; "event"; "end": no more events
	Event      bpf.Event
	Generation uint64
	Stats      bpf.Stats
	Err        string
	Lacks      bool // Err is one of what the kernel does not offer
}

func (a helperAsk) needles() ([]bpf.Needle, error) {
	if len(a.Lengths) > bpf.MaxNeedles || len(a.IDs) != len(a.Lengths) {
		return nil, fmt.Errorf("%d needles: the limit is %d", len(a.Lengths), bpf.MaxNeedles)
	}
	var ns []bpf.Needle
	b := a.Bytes
	for i, n := range a.Lengths {
		if n < bpf.MinNeedle || n > len(b) {
			return nil, errors.New("the needles' lengths are not theirs")
		}
		ns = append(ns, bpf.Needle{ID: a.IDs[i], Bytes: guard.NewSecret(b[:n:n])})
		b = b[n:]
	}
	return ns, nil
}

// bpfHelper serves one session.
func bpfHelper(in io.Reader, out io.Writer) int {
	dec, enc := gob.NewDecoder(in), gob.NewEncoder(out)
	var mu sync.Mutex // of enc
	say := func(s helperSays, err error) bool {
		if err != nil {
			s.Err, s.Lacks = err.Error(), errors.Is(err, bpf.ErrNotSupported)
		}
		mu.Lock()
		defer mu.Unlock()
		return enc.Encode(s) == nil
	}
	var a helperAsk
	err := dec.Decode(&a)
	if err == nil && a.Op == "can" {
		say(helperSays{Op: "can"}, canRefuse())
		return 0
	}
	if err != nil || a.Op != "open" {
		fmt.Fprintln(os.Stderr, "this is a part of guard run, not a command")
		return exitUsage
	}
	ns, held, err := ownNamespace(a.PID)
	if err != nil {
		say(helperSays{Op: "open"}, err)
		return 1
	}
	defer held.Close() // so that its number is no other's
	needles, err := a.needles()
	var d *bpf.Detector
	if err == nil {
		d, err = bpf.OpenDetector(bpf.Options{PIDNamespace: ns, Needles: needles, Refuse: a.Refuse, Strict: a.Refuse && a.Strict})
	}
	clear(a.Bytes)
	if !say(helperSays{Op: "open"}, err) || err != nil {
		return 1
	}
	defer d.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			e, err := d.Read()
			if errors.Is(err, os.ErrClosed) {
				err = nil
				say(helperSays{Op: "end"}, nil)
				return
			}
			if !say(helperSays{Op: "event", Event: e}, err) || err != nil {
				return
			}
		}
	})
	defer wg.Wait()
	defer d.Stop()
	for {
		var a helperAsk
		if dec.Decode(&a) != nil {
			return 0 // the session is over
		}
		switch a.Op {
		case "set":
			var gen uint64
			needles, err := a.needles()
			if err == nil {
				gen, err = d.SetNeedles(needles)
			}
			clear(a.Bytes)
			say(helperSays{Op: "set", Generation: gen}, err)
		case "stop":
			err := d.Stop()
			st, serr := d.Stats()
			say(helperSays{Op: "stop", Stats: st}, errors.Join(err, serr))
		}
	}
}

// canRefuse says why the kernel would not refuse writes for this process.
func canRefuse() error {
	p, err := bpf.Prepare(bpf.Options{Refuse: true})
	if err != nil {
		return err
	}
	return p.Close()
}

// helperPath is the installed helper, beside the program that runs. It is used if
// nobody but root can change it: values are handed to it.
func helperPath() (string, error) {
	if p := os.Getenv("GUARD_BPF_HELPER"); p != "" {
		return p, nil
	}
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	if exe, err = filepath.EvalSymlinks(exe); err != nil {
		return "", err
	}
	p := filepath.Join(filepath.Dir(exe), "..", "libexec", "guard", "guard-bpf")
	return filepath.Clean(p), rootsAlone(p)
}
