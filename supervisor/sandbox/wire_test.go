//go:build linux

package sandbox

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Names of files, arguments and variables are bytes, not UTF-8.
func TestBytesThatAreNotUTF8(t *testing.T) {
	w := newWorld(t)
	w.dir = filepath.Join(w.dir, "caf\xe9 \xff\x01\n")
	if err := os.Mkdir(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	env := filepath.Join(w.dir, "\xfe.env")
	hidden, keep := filepath.Join(w.dir, "hid\xe9"), filepath.Join(w.dir, "keep\xe9")
	for _, p := range []string{env, hidden, keep} {
		if err := os.WriteFile(p, []byte(canary), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w.c.Dir, w.c.Writable = w.dir, []string{w.dir, w.bin}
	w.c.Files = []File{{Path: env, Content: []byte("shown\xff")}}
	w.c.Hidden, w.c.ReadOnly = []string{hidden}, []string{keep}
	w.c.Env = append(w.c.Env, "ODD=\xf0\x28\x8c\x28")
	out, e := w.run(t, "sh", "-c", `printf %s "$ODD|$1|"; cat *.env; cat hid*; echo x >made; { echo x >"$2"; } 2>/dev/null; cat "$2"`, "sh", "\xc3\x28", "keep\xe9")
	if want := "\xf0\x28\x8c\x28|\xc3\x28|shown\xff" + canary; out != want || e.Code != 0 {
		t.Errorf("%q, want %q; %+v", out, want, e)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "made")); err != nil {
		t.Error(err)
	}
	s := w.start(t, "true")
	for _, n := range s.Notes {
		if strings.Contains(n, "not shared") {
			t.Error(n)
		}
	}
}

// Several paths show the same large content, and one of them is changed later.
func TestLargeCopies(t *testing.T) {
	w := newWorld(t)
	bundle := bytes.Repeat([]byte("0123456789abcdef"), 220<<10/16)
	var paths []string
	for _, name := range []string{"a", "b", "c", "d"} {
		paths = append(paths, filepath.Join(w.home, name))
		w.c.Files = append(w.c.Files, File{Path: paths[len(paths)-1], Content: bundle})
	}
	w.c.Files[3].Content = append(bytes.Clone(bundle), "more"...)
	w.c.Files[1].Mode = 0o400
	inR, in, _ := os.Pipe()
	out, outW, _ := os.Pipe()
	w.c.Stdin, w.c.Stdout, w.c.Stderr = inR, outW, outW
	s := w.start(t, "sh", "-c", "cmp ~/a ~/b; cmp ~/a ~/c; wc -c <~/c; tail -c 4 ~/d; stat -c %a ~/a ~/b; read x; cat ~/a; wc -c <~/c")
	inR.Close()
	outW.Close()
	if err := s.Mask(File{Path: paths[0], Content: []byte("other ")}); err != nil {
		t.Error(err)
	}
	in.WriteString("go\n")
	in.Close()
	b, _ := io.ReadAll(out)
	out.Close()
	if got := strings.Join(strings.Fields(string(b)), " "); !strings.HasSuffix(got, "225280 more444 400 other 225280") {
		t.Errorf("%s", got)
	}
	if !bytes.Equal(w.c.Files[2].Content, bundle) {
		t.Error("the caller's configuration was changed")
	}
	last(t, s)
}

func TestWire(t *testing.T) {
	a, peer, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(peer.Fd()))
	peer.Close()
	if err != nil {
		t.Fatal(err)
	}
	b, err := wireOf(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, size := range []int{0, maxInline - 1000, maxInline, maxInline + 1, 1 << 20} {
		for _, n := range []int{0, 1, maxFDs} {
			fds := make([]int, n)
			for i := range fds {
				fds[i] = int(null.Fd())
			}
			sent := make(chan error, 1)
			go func() { sent <- a.send(message{Op: "x", Text: strings.Repeat("\xff", size)}, fds...) }()
			m, got, err := b.recv()
			if err != nil || len(m.Text) != size || len(got) != n {
				t.Errorf("%d bytes, %d descriptors: got %d, %d, %v", size, n, len(m.Text), len(got), err)
			}
			closeAll(got)
			if err := <-sent; err != nil {
				t.Error(err)
			}
		}
	}
	if err := a.send(message{Text: strings.Repeat("x", maxMessage+1)}); err == nil {
		t.Error("sent what is too long")
	}
	// A memfd that is shorter than it says, and one that is missing.
	short, err := memfd("short", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	head := []byte{0xff, 0, 0, 0x80}
	for _, oob := range [][]byte{unix.UnixRights(short), nil} {
		if _, _, err := a.c.WriteMsgUnix(head, oob, nil); err != nil {
			t.Fatal(err)
		}
		if _, _, err := b.recv(); err == nil || errors.Is(err, os.ErrClosed) {
			t.Errorf("accepted: %v", err)
		}
	}
	unix.Close(short)
	b.close()
}
