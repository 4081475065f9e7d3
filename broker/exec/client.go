package exec

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Call is what a client wants run, and with what.
type Call struct {
	Request
	Inputs         []string // patterns of files below Dir to send
	Dir            string   // where inputs are, and where outputs go
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Signals        <-chan os.Signal // handed on; nil: none
}

// Run asks the server at the other end of c, which it closes, to run a command,
// and returns the command's exit status. The error is a *RefusedError if guard
// refused.
func Run(c net.Conn, q Call) (code int, err error) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer c.Close()
	w := &frameWriter{w: c}
	done := make(chan struct{})
	defer close(done)
	sent := make(chan error, 1)
	// Reading of standard input cannot be ended: this goroutine ends with the process
	// if nothing more comes.
	go func() {
		err := w.json(frameRequest, q.Request)
		if err == nil {
			err = send(w, q)
		}
		sent <- err
		if err != nil {
			c.Close()
			return
		}
		buf := make([]byte, 32<<10)
		for q.Stdin != nil {
			n, err := q.Stdin.Read(buf)
			if n > 0 && w.frame(frameStdin, buf[:n]) != nil {
				return
			}
			if err != nil {
				break
			}
		}
		_ = w.frame(frameEOF, nil) // the connection may be over
	}()
	if q.Signals != nil {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				case s := <-q.Signals:
					if n, ok := s.(syscall.Signal); ok {
						_ = w.frame(frameSignal, []byte{byte(n)}) // the connection may be over
					}
				}
			}
		})
	}
	code, err = receive(c, q)
	if errors.Is(err, errGone) {
		select {
		case serr := <-sent:
			if serr != nil {
				return 0, serr // that is why
			}
		default:
		}
	}
	return code, err
}

var errGone = errors.New("the connection to guard ended before the command did")

// send packs the inputs.
func send(w *frameWriter, q Call) error {
	if len(q.Inputs) > 0 {
		root, err := os.OpenRoot(q.Dir)
		if err != nil {
			return err
		}
		defer root.Close()
		t := tar.NewWriter(w.as(frameInput))
		found := map[string]bool{}
		err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			i := slices.IndexFunc(q.Inputs, func(p string) bool { return glob(p, name) })
			if i < 0 {
				return nil
			}
			found[q.Inputs[i]] = true
			f, err := root.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			fi, err := f.Stat()
			if err != nil {
				return err
			}
			if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: fi.Size(), Mode: 0o600}); err != nil {
				return err
			}
			_, err = io.CopyN(t, f, fi.Size())
			return err
		})
		if err != nil {
			return fmt.Errorf("send the inputs: %w", err)
		}
		for _, p := range q.Inputs {
			if !found[p] && !strings.Contains(p, "*") {
				return fmt.Errorf("input %s: there is no such file below %s", p, q.Dir)
			}
		}
		if err := t.Close(); err != nil {
			return fmt.Errorf("send the inputs: %w", err)
		}
	}
	return w.frame(frameInputs, nil)
}

// receive takes what the command writes, until it ends.
func receive(c io.Reader, q Call) (int, error) {
	var files sync.WaitGroup
	pr, pw := io.Pipe()
	var ferr error
	files.Go(func() {
		ferr = unpackOutputs(pr, q)
		pr.CloseWithError(ferr)
	})
	defer files.Wait()
	defer pw.Close()
	buf := make([]byte, maxFrame)
	for {
		kind, p, err := readFrame(c, buf)
		if err != nil {
			return 0, errGone
		}
		switch kind {
		case frameStdout:
			_, err = q.Stdout.Write(p)
		case frameStderr:
			_, err = q.Stderr.Write(p)
		case frameOutput:
			_, err = pw.Write(p)
		case frameExit:
			var x Exit
			if err := json.Unmarshal(p, &x); err != nil {
				return 0, errFrame
			}
			pw.Close()
			files.Wait()
			if ferr != nil {
				return x.Code, ferr
			}
			if x.Reason != "" {
				return x.Code, errors.New(x.Reason)
			}
			return x.Code, nil
		case frameRefusal:
			var r Refusal
			if err := json.Unmarshal(p, &r); err != nil {
				return 0, errFrame
			}
			return 0, &RefusedError{r}
		default:
			return 0, errFrame
		}
		if err != nil {
			return 0, err
		}
	}
}

// unpackOutputs replaces files below the client's folder.
func unpackOutputs(r io.Reader, q Call) error {
	root, err := os.OpenRoot(q.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			_, err := io.Copy(io.Discard, r) // what fills up an archive's last block
			return err
		}
		if err != nil || h.Typeflag != tar.TypeReg || !plainName(h.Name) {
			return errors.New("the outputs are not whole")
		}
		if i := strings.LastIndexByte(h.Name, '/'); i > 0 {
			if err := root.MkdirAll(h.Name[:i], 0o755); err != nil {
				return err
			}
		}
		if err := root.Remove(h.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		f, err := root.OpenFile(h.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, t)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
}
