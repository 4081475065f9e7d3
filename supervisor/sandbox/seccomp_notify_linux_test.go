//go:build amd64 || arm64

package sandbox

import (
	"encoding/binary"
	"runtime"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// What is handed over is still refused where the filter refuses it: the kernel does a send that was looked at.
func TestHandedOverSendsAreFiltered(t *testing.T) {
	arch := uint32(unix.AUDIT_ARCH_X86_64)
	if runtime.GOARCH == "arm64" {
		arch = unix.AUDIT_ARCH_AARCH64
	}
	notif, fastopen := uint32(unix.SECCOMP_RET_USER_NOTIF), unix.SECCOMP_RET_ERRNO|uint32(unix.EOPNOTSUPP)
	for _, restricted := range []bool{false, true} {
		f, err := seccompFilter(filterOptions{noZeroCopy: true, restricted: restricted, notify: true})
		if err != nil {
			t.Fatal(err)
		}
		var ins []bpf.Instruction
		for _, i := range f {
			ins = append(ins, bpf.RawInstruction{Op: i.Code, Jt: i.Jt, Jf: i.Jf, K: i.K}.Disassemble())
		}
		vm, err := bpf.NewVM(ins)
		if err != nil {
			t.Fatal(err)
		}
		for nr, at := range map[uint32]int{unix.SYS_SENDTO: 3, unix.SYS_SENDMSG: 2, unix.SYS_SENDMMSG: 3} {
			for _, flags := range []uint32{0, unix.MSG_FASTOPEN, unix.MSG_FASTOPEN | unix.MSG_NOSIGNAL} {
				data := make([]byte, 64) // the machine reads words as they are on a wire
				binary.BigEndian.PutUint32(data[offNr:], nr)
				binary.BigEndian.PutUint32(data[offArch:], arch)
				binary.BigEndian.PutUint32(data[offArgs+8*at:], flags)
				got, err := vm.Run(data)
				want := notif
				if restricted && flags != 0 {
					want = fastopen
				}
				if err != nil || uint32(got) != want {
					t.Errorf("restricted %v, call %d, flags %x: %x, %v; want %x", restricted, nr, flags, got, err, want)
				}
			}
		}
	}
}
