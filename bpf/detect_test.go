//go:build linux && (amd64 || arm64)

package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"guard"
)

var channelOf = map[string]guard.Channel{
	"file": guard.ChannelFile, "null": guard.ChannelFile, "pipe": guard.ChannelPipe,
	"socket": guard.ChannelSocket, "dgram": guard.ChannelSocket, "terminal": guard.ChannelTerminal,
	"memfd": guard.ChannelFile, "seqpacket": guard.ChannelSocket, "tcp": guard.ChannelSocket, "tcp6": guard.ChannelSocket, "udp": guard.ChannelSocket,
}

// Every call, to everything that it can write to, with a value at every kind of
// boundary: found once each, with the right name, offset and place.
func TestEveryCallEveryBoundary(t *testing.T) {
	var secrets [][]byte
	var needles []Needle
	for i, n := range []int{15, 16, 20, 22, 40, 93, 128} {
		secrets = append(secrets, random(n))
		needles = append(needles, needle(uint32(i), secrets[i]))
	}
	w := newWatch(t, needles, Options{})
	for _, c := range []struct {
		op, to string
		parts  bool // takes more than one buffer
	}{
		{"write", "file", false}, {"write", "pipe", false}, {"write", "socket", false}, {"write", "terminal", false}, {"write", "null", false},
		{"pwrite64", "file", false}, {"sendto", "socket", false}, {"sendto", "dgram", false},
		{"writev", "file", true}, {"writev", "pipe", true}, {"writev", "socket", true}, {"writev", "terminal", true},
		{"pwritev", "file", true}, {"pwritev2", "file", true}, {"vmsplice", "pipe", true},
		{"sendmsg", "socket", true}, {"sendmsg", "dgram", true}, {"sendmmsg", "socket", true},
	} {
		t.Run(c.op+" to "+c.to, func(t *testing.T) {
			w.t = t
			type want struct {
				id     uint32
				offset int64
			}
			var wants []want
			j := job{Op: c.op, To: c.to}
			for i, s := range secrets {
				offsets := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 55, 57, 64, 1000}
				if c.to != "terminal" { // a terminal takes 4 KiB at a time
					offsets = append(offsets, 4096-len(s), 4096-len(s)/2, 4095, 4096, 4097, 8190, 20000)
				}
				for _, at := range offsets {
					b := slices.Concat(random(at), s, random(rand.IntN(20)))
					parts := [][]byte{b}
					if c.parts {
						// Cut in the middle of the value, and once more before it.
						cut := at + 1 + rand.IntN(len(s)-1)
						parts = [][]byte{b[:at/3], b[at/3 : cut], b[cut:]}
					}
					if c.op == "vmsplice" || c.op == "sendmsg" || c.op == "sendmmsg" {
						parts = slices.DeleteFunc(parts, func(p []byte) bool { return len(p) == 0 })
					}
					j.Calls = append(j.Calls, parts)
					wants = append(wants, want{uint32(i), int64(at)})
				}
			}
			before := time.Now()
			got := w.do(j)
			if len(got) != len(wants) {
				t.Errorf("%d events for %d values", len(got), len(wants))
			}
			for i := range min(len(got), len(wants)) {
				e := got[i]
				if e.Needle != wants[i].id || e.Offset != wants[i].offset || e.Length != len(secrets[e.Needle]) {
					t.Fatalf("value %d: got %+v, want %+v", i, e, wants[i])
				}
				if e.Syscall != c.op || e.Channel != channelOf[c.to] || e.PID != w.cmd.Process.Pid || e.Comm == "" || e.Generation != 1 || e.Inode == 0 {
					t.Fatalf("value %d: %+v", i, e)
				}
				if d := e.At.Sub(before); d < -time.Second || d > time.Minute {
					t.Fatalf("time is off by %v", d)
				}
			}
		})
	}
	s, err := w.d.Stats()
	if err != nil {
		t.Fatal(err)
	}
	for c, n := range s.Channels {
		if n.Seen != n.Scanned+n.Unreadable+n.Oversize {
			t.Errorf("%s: %+v does not add up", c, n)
		}
	}
	if s.Total.Dropped != 0 || s.Missed != 0 || s.Total.Unreadable != 0 || s.Total.TailsLost != 0 {
		t.Errorf("%+v", s)
	}
}

// A value split over two calls at every place, over three, and a byte at a time.
func TestSplitOverCalls(t *testing.T) {
	secret := random(93)
	w := newWatch(t, []Needle{needle(7, secret)}, Options{})
	for _, to := range []string{"file", "pipe", "socket", "terminal"} {
		before, after := random(37), random(5)
		for cut := 1; cut < len(secret); cut++ {
			for _, third := range []int{0, (len(secret) - cut) / 2} {
				calls := [][][]byte{{slices.Concat(before, secret[:cut])}, {secret[cut : cut+third]}, {slices.Concat(secret[cut+third:], after)}}
				if third == 0 {
					calls = slices.Delete(calls, 1, 2)
				}
				got := w.do(job{Op: "write", To: to, Calls: calls, Same: true})
				if len(got) != 1 || got[0].Needle != 7 || got[0].Offset != -int64(cut+third) {
					t.Fatalf("%s, cut at %d, %d: %+v", to, cut, third, got)
				}
			}
		}
		var calls [][][]byte
		for _, c := range slices.Concat(before, secret, after) {
			calls = append(calls, [][]byte{{c}})
		}
		if got := w.do(job{Op: "write", To: to, Calls: calls, Same: true}); len(got) != 1 {
			t.Fatalf("%s, a byte at a time: %d events", to, len(got))
		}
	}
	// Two openings of one file are one stream: printf AB >> f; printf CD >> f.
	file := t.TempDir() + "/log"
	if got := w.do(job{Op: "write", To: file, Calls: [][][]byte{{secret[:50]}, {secret[50:]}}}); len(got) != 1 {
		t.Fatalf("two halves appended to one file: %+v", got)
	}
	// Streams do not mix: half of it to one, half to another.
	if got := w.do(job{Op: "write", To: "file", Calls: [][][]byte{{secret[:50]}, {secret[50:]}}}); len(got) != 0 {
		t.Fatalf("two halves in two files: %+v", got)
	}
}

// A random mixture, against a plain search of the same bytes.
func TestAgainstPlainSearch(t *testing.T) {
	var needles []Needle
	var all [][]byte
	for i := range 200 {
		b := random(15 + rand.IntN(150))
		if i%3 == 0 && i > 0 { // many that end alike
			b = append(random(4+rand.IntN(20)), all[i-1][len(all[i-1])-15:]...)
		}
		all = append(all, b)
		needles = append(needles, needle(uint32(i), b))
	}
	w := newWatch(t, needles, Options{})
	for round := range 30 {
		var stream []byte
		for len(stream) < 20000 {
			switch rand.IntN(4) {
			case 0:
				stream = append(stream, random(rand.IntN(3000))...)
			case 1: // almost a value
				b := bytes.Clone(all[rand.IntN(len(all))])
				end := segmentEnd(b)
				b[end-1-rand.IntN(min(end, segment))] ^= 1
				stream = append(stream, b...)
			default:
				stream = append(stream, all[rand.IntN(len(all))]...)
			}
		}
		type hit struct {
			id  uint32
			end int
		}
		var want []hit
		for id, b := range all {
			for at := 0; ; at++ {
				i := bytes.Index(stream[at:], b)
				if i < 0 {
					break
				}
				at += i
				want = append(want, hit{uint32(id), at + len(b)})
			}
		}
		j := job{Op: "writev", To: "file", Same: true}
		var starts []int
		for at := 0; at < len(stream); {
			starts = append(starts, at)
			var parts [][]byte
			for range 1 + rand.IntN(5) {
				n := min(rand.IntN(6000), len(stream)-at)
				if rand.IntN(3) == 0 {
					n = min(n, 9)
				}
				parts = append(parts, stream[at:at+n])
				at += n
			}
			j.Calls = append(j.Calls, parts)
		}
		var got []hit
		var unplaced int
		for _, e := range w.do(j) {
			// The event does not say which call; one of them fits.
			fits := slices.IndexFunc(starts, func(s int) bool {
				return slices.Contains(want, hit{e.Needle, s + int(e.Offset) + e.Length})
			})
			if fits < 0 {
				unplaced++
			}
			got = append(got, hit{e.Needle, 0})
		}
		count := func(hs []hit) map[uint32]int {
			m := map[uint32]int{}
			for _, h := range hs {
				m[h.id]++
			}
			return m
		}
		g, wn := count(got), count(want)
		if unplaced > 0 || fmt.Sprint(g) != fmt.Sprint(wn) {
			t.Fatalf("round %d: %d of %d found, %d in a wrong place", round, len(got), len(want), unplaced)
		}
	}
}

func TestCleanWritesGiveNoHit(t *testing.T) {
	var needles []Needle
	for i := range 1000 {
		needles = append(needles, needle(uint32(i), random(20+i%100)))
	}
	pem := slices.Concat([]byte("-----BEGIN CERTIFICATE-----\n"), random(1600), []byte("\n-----END CERTIFICATE-----\n"))
	needles = append(needles, needle(1000, pem))
	w := newWatch(t, needles, Options{})
	if got := w.do(job{Op: "clean", N: 100_000, Calls: [][][]byte{{buildLog(t)}}}); len(got) != 0 {
		t.Fatalf("%d false hits: %+v", len(got), got[0])
	}
	s, err := w.d.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if n := s.Channels[guard.ChannelFile]; n.Calls < 100_000 || n.Scanned < 5_000_000 || n.Hits != 1 {
		t.Fatalf("%+v", n)
	}
	// The long one is found, and one with a changed byte is not.
	if got := w.do(job{Op: "write", To: "pipe", Calls: [][][]byte{{pem}}}); len(got) != 1 || got[0].Needle != 1000 || got[0].Offset != 0 {
		t.Fatalf("the certificate: %+v", got)
	}
	end := segmentEnd(pem)
	for _, at := range []int{end - 1, end - 60, end - segment} {
		b := bytes.Clone(pem)
		b[at] ^= 1
		if got := w.do(job{Op: "write", To: "pipe", Calls: [][][]byte{{b}}}); len(got) != 0 {
			t.Fatalf("byte %d changed: %+v", at, got)
		}
	}
}

// The whole of every map, before and after writes, holds no 8 bytes in a row of
// any needle.
func TestNoPlaintextInAnyMap(t *testing.T) {
	var needles []Needle
	var all [][]byte
	for i := range 50 {
		all = append(all, random(15+i))
		needles = append(needles, needle(uint32(i), all[i]))
	}
	w := newWatch(t, needles, Options{})
	w.order(job{Op: "clean", N: 100, Calls: [][][]byte{{[]byte("-----END CERTIFICATE-----\n")}}})
	inner := ebpf.MapID(0)
	if err := w.d.tables.Lookup(uint32(0), &inner); err != nil {
		t.Fatal(err)
	}
	table, err := ebpf.NewMapFromID(inner)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	var dump []byte
	for _, m := range []*ebpf.Map{table, w.d.coll.Maps["scratches"], w.d.stats, w.d.coll.Maps["tails"]} {
		var key []byte
		it := m.Iterate()
		switch m.Type() {
		case ebpf.PerCPUArray:
			var values [][]byte
			for it.Next(&key, &values) {
				dump = append(dump, bytes.Join(values, nil)...)
			}
		default:
			var value []byte
			for it.Next(&key, &value) {
				dump = append(append(dump, key...), value...)
			}
		}
		if err := it.Err(); err != nil {
			t.Fatal(err)
		}
	}
	if len(dump) < int(w.d.inner.ValueSize) || bytes.Count(dump, []byte{0}) == len(dump) {
		t.Fatalf("a dump of %d bytes: this test looked in the wrong place", len(dump))
	}
	if !bytes.Contains(dump, []byte("END CERT")) {
		t.Fatal("the tail of a clean write is not in the dump: this test looked in the wrong place")
	}
	windows := map[[8]byte]bool{}
	for _, b := range all {
		for i := 0; i+8 <= len(b); i++ {
			windows[[8]byte(b[i:])] = true
		}
	}
	for i := 0; i+8 <= len(dump); i++ {
		if windows[[8]byte(dump[i:])] {
			t.Fatalf("a window of a needle at byte %d of the maps", i)
		}
	}
}

func TestSwapWhileRunning(t *testing.T) {
	a, b := random(30), random(40)
	w := newWatch(t, []Needle{needle(1, a)}, Options{RingBytes: 8 << 20})
	both := job{Op: "write", To: "pipe", Calls: [][][]byte{{a}, {b}}}
	check := func(generation uint64, ids ...uint32) {
		t.Helper()
		var got []uint32
		for _, e := range w.do(both) {
			got = append(got, e.Needle)
			if e.Generation != generation {
				t.Fatalf("generation %d, want %d", e.Generation, generation)
			}
		}
		if !slices.Equal(got, ids) {
			t.Fatalf("generation %d: found %v, want %v", generation, got, ids)
		}
	}
	set := func(needles ...Needle) uint64 {
		t.Helper()
		g, err := w.d.SetNeedles(w.with(needles))
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	check(1, 1)
	check(set(needle(2, b)), 2)
	check(set(needle(1, a), needle(2, b)), 1, 2)
	check(set())
	// A refused table leaves the old one.
	g := set(needle(9, a))
	if _, err := w.d.SetNeedles([]Needle{needle(1, a[:7])}); !errors.Is(err, ErrTooShort) {
		t.Fatalf("7 bytes: %v", err)
	}
	check(g, 9)
	set(needle(1, a))
	// Every write while tables change is searched with one that holds a.
	done := make(chan error)
	go func() {
		var err error
		for i := 0; i < 40 && err == nil; i++ {
			_, err = w.d.SetNeedles(w.with([]Needle{needle(1, a), needle(uint32(i+2), b)}))
		}
		done <- err
	}()
	j := job{Op: "write", To: "pipe"}
	for range 20000 {
		j.Calls = append(j.Calls, [][]byte{a})
	}
	j.Same = true
	n := 0
	for _, e := range w.do(j) {
		if e.Needle == 1 {
			n++
		} else {
			t.Errorf("%+v", e)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if s, err := w.d.Stats(); err != nil || s.Total.Dropped > 0 || n != len(j.Calls) {
		t.Fatalf("%d of %d found while swapping, %+v, %v", n, len(j.Calls), s, err)
	}
}

func TestCountersAreExact(t *testing.T) {
	secret := random(30)
	w := newWatch(t, []Needle{needle(1, secret)}, Options{MaxBytes: 10_000})
	delta := func(j job, want int) Counters {
		t.Helper()
		a, err := w.d.Stats()
		if err != nil {
			t.Fatal(err)
		}
		w.order(j)
		b, err := w.d.Stats()
		if err != nil {
			t.Fatal(err)
		}
		for range want {
			if e, err := w.d.Read(); err != nil || e.Needle != 1 {
				t.Fatal(e, err)
			}
		}
		x, y := a.Channels[guard.ChannelSocket], b.Channels[guard.ChannelSocket]
		return y.minus(x)
	}
	for _, c := range []struct {
		name string
		job  job
		want Counters
	}{
		{"nothing", job{Op: "write", Calls: [][][]byte{{nil}}}, Counters{Calls: 1}},
		{"two calls", job{Op: "write", Calls: [][][]byte{{random(5)}, {random(5000)}}}, Counters{Calls: 2, Seen: 5005, Scanned: 5005}},
		{"a hit", job{Op: "sendto", Calls: [][][]byte{{secret}}}, Counters{Calls: 1, Seen: 30, Scanned: 30, Hits: 1}},
		{"too big", job{Op: "write", Calls: [][][]byte{{random(10_001)}}}, Counters{Calls: 1, Seen: 10_001, Scanned: 10_000, Oversize: 1}},
		{"too big in parts", job{Op: "writev", Calls: [][][]byte{{random(9_000), random(2_000), secret}}},
			Counters{Calls: 1, Seen: 11_030, Scanned: 10_000, Oversize: 1_030}},
		{"a page that is not there", job{Op: "hole", Calls: [][][]byte{{random(10)}}}, Counters{Calls: 1, Seen: 12288, Scanned: 10_000 - 4096, Unreadable: 4096, Oversize: 2288}},
		{"iovecs that are not there", job{Op: "badiov", Calls: [][][]byte{{nil}}}, Counters{Calls: 1, UnreadableCalls: 1}},
	} {
		c.job.To = "socket"
		if got := delta(c.job, int(c.want.Hits)); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

// An absent page hides no other.
func TestUnreadablePageHidesNoOther(t *testing.T) {
	secret := random(30)
	w := newWatch(t, []Needle{needle(1, secret)}, Options{})
	if got := w.do(job{Op: "hole", To: "pipe", Calls: [][][]byte{{secret}}}); len(got) != 1 || got[0].Offset != 3*4096-30 {
		t.Fatalf("%+v", got)
	}
	// A write that cannot succeed is an attempt all the same.
	if got := w.do(job{Op: "closed", To: "null", Calls: [][][]byte{{secret}}}); len(got) != 1 || got[0].FD != 1<<20 || got[0].Channel != ChannelOther {
		t.Fatalf("%+v", got)
	}
}
