package exec

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"guard"
	"guard/broker"
)

// plainName says whether name is that of a file below a folder, as it is on disk.
func plainName(name string) bool {
	return fs.ValidPath(name) && name != "." && !strings.ContainsAny(name, "\\\x00")
}

// outputs sends those files of dir that the agent asked for and the rule lets
// out, each through the leak line.
func (k *call) outputs(dir string) error {
	if len(k.rule.Outputs) == 0 || len(k.q.Outputs) == 0 {
		return nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return errors.New("the working folder could not be opened")
	}
	defer root.Close()
	w := tar.NewWriter(k.out.as(frameOutput))
	var total int64
	n := 0
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !plainName(name) || !allowed(k.rule.Outputs, name) || !allowed(k.q.Outputs, name) {
			return err
		}
		f, err := root.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		fi, err := f.Stat()
		if err != nil || !fi.Mode().IsRegular() {
			return err
		}
		if total += fi.Size(); n >= maxFiles || total > maxInputs {
			return fmt.Errorf("the outputs are more than %d files or %d MiB", maxFiles, maxInputs>>20)
		}
		n++
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: fi.Size(), Mode: 0o600}); err != nil {
			return err
		}
		return judge(w, io.LimitReader(f, fi.Size()), k.s.Open(guard.Origin{Channel: guard.ChannelExec, Source: "broker", PID: k.pid, Exe: k.rule.Path, Path: name}))
	})
	if errors.Is(err, broker.ErrStopped) {
		return errors.New("an output holds a secret, and was not handed over")
	}
	if err != nil {
		return errors.New("the outputs could not be handed over whole")
	}
	return w.Close()
}

// judge copies r to w through f.
func judge(w io.Writer, r io.Reader, f guard.Filter) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		step := guard.More
		if errors.Is(err, io.EOF) {
			step = guard.End
		} else if err != nil {
			return err
		}
		out, d := f(buf[:n], step)
		if _, werr := w.Write(out); werr != nil {
			return werr
		}
		if d.Action.Stops() {
			return broker.ErrStopped
		}
		if step == guard.End {
			return nil
		}
	}
}
