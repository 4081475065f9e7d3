package sandbox

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// fdNotify names the descriptor, of those that go with "start", by which stage 2
// sends the listener of its filter.
const fdNotify = "notify"

// handover is the caller's end of that. It goes from stage 2 to the caller, past
// stage 1, since stage 2's next write waits for whoever has it.
type handover struct {
	fd    int
	done  chan error
	ended bool
}

func newHandover(take func(*os.File, int, int) error, uid, gid int) (_ *handover, peer int, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("socketpair: %w", err)
	}
	h := &handover{fd: p[0], done: make(chan error, 1)}
	go func() { // end waits for it
		h.done <- h.receive(take, uid, gid)
	}()
	return h, p[1], nil
}

func (h *handover) receive(take func(*os.File, int, int) error, uid, gid int) error {
	var b [1]byte
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(h.fd, b[:], oob, unix.MSG_CMSG_CLOEXEC)
	for errors.Is(err, unix.EINTR) {
		n, oobn, _, _, err = unix.Recvmsg(h.fd, b[:], oob, unix.MSG_CMSG_CLOEXEC)
	}
	if err != nil {
		return err
	}
	if n == 0 {
		return errors.New("the agent's process ended before it did")
	}
	cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(cmsgs) != 1 {
		return errors.New("no listener came")
	}
	fds, err := unix.ParseUnixRights(&cmsgs[0])
	if err != nil || len(fds) != 1 {
		closeAll(fds)
		return errors.New("no listener came")
	}
	return take(os.NewFile(uintptr(fds[0]), "listener"), uid, gid)
}

// end waits for the listener to be taken over; early, if the start failed.
func (h *handover) end(failed bool) error {
	if h == nil || h.ended {
		return nil
	}
	h.ended = true
	if failed {
		_ = unix.Shutdown(h.fd, unix.SHUT_RDWR)
	}
	err := <-h.done
	unix.Close(h.fd)
	if failed {
		return nil
	}
	return err
}
