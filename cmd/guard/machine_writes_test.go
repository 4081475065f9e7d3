//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// machineInit is this binary's name as the first program of a virtual machine.
const machineInit = "/init"

// writesProgram is an agent: for every line "try VALUE" of its input it tries to get the value out
// by every way there is, and says for each how the call ended and whether the value is there
// now: "WAY: ERROR held=BOOL". "is VALUE" is one write to a new file. It shows values on its
// standard output only for "show VALUE". "exit N" ends it.
func writesProgram() {
	if len(os.Args) > 1 && os.Args[1] == "-echo" {
		echoProgram()
		return
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		verb, value, _ := strings.Cut(lines.Text(), " ")
		switch verb {
		case "try":
			for _, w := range outWays([]byte(value)) {
				fmt.Println(w)
			}
		case "is":
			fmt.Println(toFile(filepath.Join(os.TempDir(), "is"), "is", []byte(value), func(fd int) error {
				_, err := unix.Write(fd, []byte(value))
				return err
			}))
		case "show":
			fmt.Println("shown", value)
		case "exit":
			var n int
			fmt.Sscan(value, &n)
			os.Exit(n)
		}
		fmt.Println("end of", verb)
	}
}

// echoProgram writes a line that is typed, and that the terminal does not show, to the terminal.
func echoProgram() {
	t, err := unix.IoctlGetTermios(0, unix.TCGETS)
	if err == nil {
		t.Lflag &^= unix.ECHO
		err = unix.IoctlSetTermios(0, unix.TCSETS, t)
	}
	fmt.Println("ready", err)
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err == nil {
		_, err = os.Stdout.WriteString("seen " + line)
	}
	fmt.Println(told("after", err, false))
}

func told(way string, err error, held bool) string {
	name := "none"
	var no unix.Errno
	switch {
	case errors.As(err, &no):
		name = unix.ErrnoName(no)
	case err != nil:
		name = err.Error()
	}
	return fmt.Sprintf("%s: %s held=%v", way, name, held)
}

// toFile has put write to a new file, and looks what is in it.
func toFile(path, way string, value []byte, put func(fd int) error) string {
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_TRUNC|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return told(way, fmt.Errorf("open: %v", err), false)
	}
	defer os.Remove(path)
	defer unix.Close(fd)
	err = put(fd)
	b, rerr := os.ReadFile(path)
	if rerr != nil {
		err = rerr
	}
	return told(way, err, bytes.Contains(b, value))
}

func outWays(v []byte) (said []string) {
	add := func(way string, err error, held bool) { said = append(said, told(way, err, held)) }
	file := func(way string, form []byte, put func(fd int, form []byte) error) {
		for _, dir := range []string{".", os.TempDir()} {
			at := "here"
			if dir != "." {
				at = "there"
			}
			said = append(said, toFile(filepath.Join(dir, "out"), way+" "+at, form, func(fd int) error { return put(fd, form) }))
		}
	}
	write := func(fd int, form []byte) error { _, err := unix.Write(fd, form); return err }
	file("write", v, write)
	file("pwrite", v, func(fd int, form []byte) error { _, err := unix.Pwrite(fd, form, 3); return err })
	file("writev", v, func(fd int, form []byte) error {
		_, err := unix.Writev(fd, [][]byte{form[:5], form[5:11], form[11:]})
		return err
	})
	file("large", v, func(fd int, form []byte) error {
		return write(fd, append(bytes.Repeat([]byte("clean bytes\n"), 20_000), form...))
	})
	file("second half", v, func(fd int, form []byte) error {
		if err := write(fd, form[:len(form)/2]); err != nil {
			return fmt.Errorf("first half: %v", err)
		}
		return write(fd, form[len(form)/2:])
	})
	file("base64", []byte(base64.StdEncoding.EncodeToString(append([]byte("x:"), v...))), write)
	file("hex", []byte(hex.EncodeToString(v)), write)

	// It stays open: whoever reads of it later finds the path.
	if fd, err := unix.Open("kept", unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600); err == nil {
		err = write(fd, v)
		b := make([]byte, 4096)
		n, _ := unix.Pread(fd, b, 0)
		add("kept open", err, bytes.Contains(b[:max(n, 0)], v))
	}
	if fd, err := unix.MemfdCreate("out", 0); err == nil {
		err = write(fd, v)
		b := make([]byte, 4096)
		n, _ := unix.Pread(fd, b, 0)
		add("memfd", err, bytes.Contains(b[:max(n, 0)], v))
		unix.Close(fd)
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_NONBLOCK); err == nil {
		err := write(p[1], v)
		add("pipe", err, received(p[0], v))
		unix.Close(p[0])
		unix.Close(p[1])
	}
	if s, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0); err == nil {
		add("socket write", write(s[0], v), received(s[1], v))
		add("socket sendmsg", unix.Sendmsg(s[0], v, nil, nil, 0), received(s[1], v))
		add("socket send", unix.Sendto(s[0], v, 0, nil), received(s[1], v))
		unix.Close(s[0])
		unix.Close(s[1])
	}
	said = append(said, tcpWay(v))
	add("argument", exec.Command("true", string(v)).Run(), false)
	env := exec.Command("true")
	env.Env = []string{"X=" + string(v)}
	add("environment", env.Run(), false)
	exists := func(name string) bool {
		_, err := os.Lstat(name)
		return err == nil
	}
	name := url.PathEscape(string(v)) + ".txt"
	fd, err := unix.Open(name, unix.O_CREAT|unix.O_WRONLY, 0o600)
	if err == nil {
		unix.Close(fd)
	}
	add("name", err, exists(name))
	add("folder", unix.Mkdir(name+".d", 0o700), exists(name+".d"))
	if f, err := os.Create("keep"); err == nil {
		f.Close()
	}
	add("rename", unix.Rename("keep", name+".r"), exists(name+".r"))
	add("link target", unix.Symlink(string(v), "link"), exists("link"))
	if f, err := os.Create("keep"); err == nil {
		f.Close()
	}
	err = unix.Setxattr("keep", "user.x", v, 0)
	got := make([]byte, 4096)
	n, _ := unix.Getxattr("keep", "user.x", got)
	add("xattr", err, n > 0 && bytes.Contains(got[:n], v))
	for _, f := range []string{name, name + ".d", name + ".r", "link"} {
		os.Remove(f)
	}
	return said
}

// received says that v can be read from what the other end was written to.
func received(fd int, v []byte) bool {
	b := make([]byte, 1<<16)
	n, _ := unix.Read(fd, b)
	return n > 0 && bytes.Contains(b[:n], v)
}

func tcpWay(v []byte) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return told("tcp", fmt.Errorf("listen: %v", err), false)
	}
	defer l.Close()
	got := make(chan []byte, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- nil
			return
		}
		defer c.Close()
		b := make([]byte, 1<<12)
		n, _ := c.Read(b)
		got <- b[:n]
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return told("tcp", fmt.Errorf("dial: %v", err), false)
	}
	_, err = c.Write(v)
	c.Close()
	return told("tcp", err, bytes.Contains(<-got, v))
}
