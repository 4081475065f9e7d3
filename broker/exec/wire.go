package exec

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"guard/broker"
	"io"
	"sync"
)

// The types of frames, as the package doc has them.
const (
	frameRequest = 'r'
	frameInput   = 'i'
	frameInputs  = 'I'
	frameStdin   = '0'
	frameEOF     = 'E'
	frameSignal  = 's'
	frameStdout  = '1'
	frameStderr  = '2'
	frameOutput  = 'f'
	frameExit    = 'x'
	frameRefusal = 'd'
)

const (
	maxFrame   = 64 << 10
	maxInputs  = 256 << 20 // bytes of all inputs together, and of all outputs
	maxFiles   = 4096      // inputs, and outputs
	maxArgs    = 1024
	maxOutputs = 64 // patterns that a client may ask for
)

// Request is what an agent asks for.
type Request struct {
	With    []string `json:"with"`    // names of credentials
	Argv    []string `json:"argv"`    // the program, by absolute path or by name, and its arguments
	Outputs []string `json:"outputs"` // patterns of files that are wanted back
}

// Exit is how the command ended.
type Exit struct {
	Code   int    `json:"code"` // 128 + N if signal N ended it
	Reason string `json:"reason,omitempty"`
}

// Refusal says why nothing was run, or why the command was ended.
type Refusal struct {
	Error string `json:"error"`
	broker.Refusal
}

// RefusedError is Run's error if guard refused.
type RefusedError struct{ Refusal Refusal }

func (e *RefusedError) Error() string {
	return fmt.Sprintf("refused by %s: %s", e.Refusal.Rule, e.Refusal.Reason)
}

var errFrame = errors.New("not a frame of guard exec")

// readFrame reads one frame into buf, which has room for maxFrame bytes.
func readFrame(r io.Reader, buf []byte) (kind byte, p []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, nil, errFrame
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return 0, nil, errFrame
	}
	return head[0], buf[:n], nil
}

// frameWriter writes whole frames, from any goroutine.
type frameWriter struct {
	mu sync.Mutex
	w  io.Writer
	b  []byte
}

func (f *frameWriter) frame(kind byte, p []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		n := min(len(p), maxFrame)
		f.b = append(f.b[:0], kind, 0, 0, 0, 0)
		binary.BigEndian.PutUint32(f.b[1:], uint32(n))
		f.b = append(f.b, p[:n]...)
		if _, err := f.w.Write(f.b); err != nil {
			return err
		}
		if p = p[n:]; len(p) == 0 {
			return nil
		}
	}
}

func (f *frameWriter) json(kind byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > maxFrame {
		return fmt.Errorf("%w: %d bytes are more than a frame holds", errFrame, len(b))
	}
	return f.frame(kind, b)
}

// as is a writer of frames of one kind.
func (f *frameWriter) as(kind byte) io.Writer { return frameAs{f, kind} }

type frameAs struct {
	f    *frameWriter
	kind byte
}

func (a frameAs) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := a.f.frame(a.kind, p); err != nil {
		return 0, err
	}
	return len(p), nil
}
