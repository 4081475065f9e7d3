//go:build linux && (amd64 || arm64)

package bpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"guard"
	"math"
	"net/netip"
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func (d *Detector) decode(raw []byte) (Event, error) {
	var e detectEvent
	n, err := binary.Decode(raw, binary.LittleEndian, &e)
	windowed := len(raw) == int(unsafe.Sizeof(detectHit{}))
	if err != nil || n != len(raw) && !windowed {
		return Event{}, fmt.Errorf("bpf: an event of %d bytes does not fit the program that was built in", len(raw))
	}
	text := func(b []byte) string {
		b, _, _ = bytes.Cut(b, []byte{0})
		return string(b)
	}
	ev := Event{
		Needle: e.Needle, Generation: e.Generation, Offset: e.Offset, Length: int(e.Length),
		PID: int(e.Tgid), TID: int(e.Pid), Comm: text(e.Comm[:]), FD: int(e.Fd),
		Syscall: d.names[e.Syscall], Channel: channelName(e.Channel),
		Device: uint64(e.Device), Inode: e.Inode, Cgroup: e.Cgroup, Call: e.Time, At: wall(e.Time),
		ExeDevice: uint64(e.ExeDevice), ExeInode: e.ExeInode, Name: text(e.Name[:]), PeerPID: int(e.PeerPid),
	}
	if ev.User = int(e.Uid); e.Uid == math.MaxUint32 {
		ev.User = -1
	}
	if windowed {
		rest := raw[n:]
		at, window := int64(binary.LittleEndian.Uint64(rest)), rest[16:]
		from, upto := int64(binary.LittleEndian.Uint32(rest[8:])), int64(binary.LittleEndian.Uint32(rest[12:]))
		// What came before this call may be another process's: of that only the needle itself.
		from = max(from, min(segment, ev.Offset-at))
		if upto = min(upto, int64(len(window))); from <= upto {
			ev.Window, ev.WindowAt = bytes.Clone(window[from:upto]), at+from
		}
	}
	switch detectKind(e.Kind) {
	case detectKindKIND_REFUSED:
		ev.Refused = true
	case detectKindKIND_MAPPED:
		ev.Kind = Mapped
	case detectKindKIND_UNMAPPED:
		ev.Kind = Unmapped
	case detectKindKIND_UNSEARCHED:
		ev.Kind = Unsearched
	}
	port := e.PeerPort>>8 | e.PeerPort<<8 // as it is on the wire
	switch e.PeerFamily {
	case unix.AF_INET:
		ev.Peer = netip.AddrPortFrom(netip.AddrFrom4([4]byte(e.Peer[:4])), port)
	case unix.AF_INET6:
		ev.Peer = netip.AddrPortFrom(netip.AddrFrom16(e.Peer), port)
	}
	// The kernel gave numbers; the names are asked for now, and believed only
	// where they lead to the same file.
	proc := "/proc/" + strconv.Itoa(ev.PID)
	ev.Exe = path(proc+"/exe", ev.ExeDevice, ev.ExeInode)
	if ev.FD >= 0 && (ev.Channel == guard.ChannelFile || ev.Channel == ChannelBacking) {
		ev.Path = path(proc+"/fd/"+strconv.Itoa(ev.FD), ev.Device, ev.Inode)
	}
	return ev, nil
}

// path is where link leads, if that is the file of these numbers.
func path(link string, device, inode uint64) string {
	var st unix.Stat_t
	if inode == 0 || unix.Stat(link, &st) != nil || st.Ino != inode ||
		uint64(unix.Major(st.Dev))<<20|uint64(unix.Minor(st.Dev)) != device {
		return ""
	}
	name, err := os.Readlink(link)
	if err != nil {
		return ""
	}
	return name
}

// wall turns the kernel's monotonic clock into a time of day. Who was interrupted between
// the two clocks reads them again.
func wall(mono uint64) time.Time {
	var at time.Time
	for range 8 {
		var before, after unix.Timespec
		err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &before)
		now := time.Now()
		if err != nil || unix.ClockGettime(unix.CLOCK_MONOTONIC, &after) != nil {
			return now
		}
		at = now.Add(time.Duration(int64(mono) - before.Nano()))
		if after.Nano()-before.Nano() < int64(50*time.Microsecond) {
			break
		}
	}
	return at
}
