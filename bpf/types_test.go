//go:build linux && (amd64 || arm64)

package bpf

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// What the loader makes of the program with the types that were cut out is what it makes of it with all of the kernel's.
func TestCutTypesAreTheSame(t *testing.T) {
	open(t, Options{PIDNamespace: 1}) // skips where it must
	if noLoop() {
		otherProgram(t)
	}
	types := btf.NewCache()
	kernel, err := types.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	var code [2][]byte
	for i := range code {
		spec, err := loadDetect()
		if err != nil {
			t.Fatal(err)
		}
		if err := (Options{PIDNamespace: 1}).configure(spec, &Detector{}); err != nil {
			t.Fatal(err)
		}
		if err := drop(spec, Options{}, types); err != nil {
			t.Fatal(err)
		}
		few := kernel
		if i == 1 {
			raw, err := cutTypes(spec.Types, kernel)
			if err != nil {
				t.Fatal(err)
			}
			if few, err = btf.LoadSpecFromReader(bytes.NewReader(raw)); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d bytes of types", len(raw))
		}
		coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Cache: types, Programs: ebpf.ProgramOptions{KernelTypes: few}})
		if err != nil {
			t.Fatal(err)
		}
		defer coll.Close()
		info, err := coll.Programs["sys_enter"].Info()
		if err != nil {
			t.Fatal(err)
		}
		ins, err := info.Instructions()
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range ins {
			if in.IsLoadFromMap() {
				in.Constant = 0 // a map's number, which is another one each time
			}
			code[i] = append(code[i], []byte(in.OpCode.String())...)
			code[i] = append(code[i], byte(in.Dst), byte(in.Src), byte(in.Offset), byte(in.Offset>>8), byte(in.Constant), byte(in.Constant>>8), byte(in.Constant>>16), byte(in.Constant>>24))
		}
	}
	if len(code[0]) < 1000 || !bytes.Equal(code[0], code[1]) {
		t.Error("the programs differ")
	}
}

// The file is made, used, and passed over where it is not what it must be.
func TestKeptTypes(t *testing.T) {
	open(t, Options{PIDNamespace: 1})
	if noLoop() {
		otherProgram(t)
	}
	path := filepath.Join(t.TempDir(), "types")
	prepare := func() []byte {
		t.Helper()
		p, err := Prepare(Options{Types: path})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := prepare()
	key, err := typesKey(_DetectBytes)
	if err != nil || keptTypes(path, key) == nil {
		t.Fatalf("the file is not used: %v", err)
	}
	if other, err := typesKey([]byte("x")); err != nil || keptTypes(path, other) != nil {
		t.Error("another program's file is used")
	}
	for name, spoil := range map[string]func(){
		"cut":     func() { os.WriteFile(path, good[:len(good)/2], 0o600) },
		"empty":   func() { os.WriteFile(path, nil, 0o600) },
		"noise":   func() { os.WriteFile(path, bytes.Repeat([]byte("x"), 10000), 0o600) },
		"a link":  func() { os.WriteFile(path+"2", good, 0o600); os.Remove(path); os.Symlink(path+"2", path) },
		"a pipe":  func() { os.Remove(path); unix.Mkfifo(path, 0o600) },
		"others'": func() { os.Chmod(path, 0o666) },
	} {
		spoil()
		if keptTypes(path, key) != nil {
			t.Errorf("%s: the file is used", name)
		}
		if name == "a pipe" {
			os.Remove(path)
		}
		if !bytes.Equal(prepare()[:len(key)], key[:]) {
			t.Errorf("%s: it is not made anew", name)
		}
		os.Remove(path)
		os.WriteFile(path, good, 0o600)
	}
	// Where it cannot be written, everything goes on.
	p, err := Prepare(Options{Types: filepath.Join(t.TempDir(), "not", "there")})
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
}

// otherProgram skips where this kernel has the program of bounded loops, which none since 5.17 has.
func otherProgram(t *testing.T) {
	t.Helper()
	var major, minor int
	fmt.Sscanf(probed().Kernel, "%d.%d", &major, &minor)
	if major > 5 || major == 5 && minor >= 17 {
		t.Fatalf("Linux %s has bpf_loop, and the probe does not find it", probed().Kernel)
	}
	t.Skip("the other program is for this kernel, which has no bpf_loop")
}
