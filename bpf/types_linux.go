//go:build linux && (amd64 || arm64)

package bpf

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// What the programs look into is a few dozen of the kernel's types, out of more than a hundred thousand. To read those all takes
// longer than anything else that a session waits for but the verifier. So the few are kept in a file, with only the
// members that are looked at: a BTF file behind the SHA-256 of what kernel and program they are for.

// typesKey is of this kernel, by its build (/sys/kernel/notes has the build ID) and of this program.
func typesKey(program []byte) ([sha256.Size]byte, error) {
	notes, err := os.ReadFile("/sys/kernel/notes")
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return [sha256.Size]byte{}, err
	}
	h := sha256.New()
	for _, part := range [][]byte{notes, uts.Release[:], uts.Version[:], uts.Machine[:], program} {
		fmt.Fprintf(h, "%d\n", len(part))
		h.Write(part)
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// keptTypes are nil where the file is not there, is another kernel's or program's, or is anybody's but this user's to write.
func keptTypes(path string, key [sha256.Size]byte) *btf.Spec {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 || st.Size > 1<<20 {
		return nil
	}
	b := make([]byte, st.Size)
	if n, err := f.Read(b); err != nil || n != len(b) {
		return nil
	}
	raw, ok := bytes.CutPrefix(b, key[:])
	if !ok {
		return nil
	}
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(raw))
	if err != nil {
		return nil
	}
	return spec
}

// keepTypes writes the file whole or not at all. That it cannot be written costs time and nothing else.
func keepTypes(path string, key [sha256.Size]byte, raw []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(key[:], raw...))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// cutTypes are those of the kernel that local, a program's own types, has a struct of the same name for, with those members
// that it has there.
func cutTypes(local, kernel *btf.Spec) ([]byte, error) {
	wanted := map[string]map[string]btf.Type{}
	for t, err := range local.All() {
		if err != nil {
			return nil, err
		}
		s, ok := t.(*btf.Struct)
		if !ok || s.Name == "" {
			continue
		}
		name, _, _ := strings.Cut(s.Name, "___") // a flavor
		if wanted[name] == nil {
			wanted[name] = map[string]btf.Type{}
		}
		for _, m := range s.Members {
			wanted[name][m.Name] = m.Type
		}
	}
	var cut []btf.Type
	for name, members := range wanted {
		all, err := kernel.AnyTypesByName(name)
		if err != nil {
			continue // the kernel has none: one of the program's own
		}
		for _, t := range all {
			if s, ok := t.(*btf.Struct); ok {
				cut = append(cut, &btf.Struct{Name: s.Name, Size: s.Size, Members: cutMembers(s.Members, members)})
			}
		}
	}
	b, err := btf.NewBuilder(cut, nil)
	if err != nil {
		return nil, err
	}
	return b.Marshal(nil, nil)
}

func cutMembers(have []btf.Member, wanted map[string]btf.Type) (kept []btf.Member) {
	for _, m := range have {
		if m.Name == "" { // what is in a nameless one counts as the outer one's
			m.Type = cutComposite(m.Type, wanted)
		} else if w, ok := wanted[m.Name]; ok {
			m.Type = cutType(m.Type, w)
		} else {
			continue
		}
		kept = append(kept, m)
	}
	return kept
}

func cutComposite(t btf.Type, wanted map[string]btf.Type) btf.Type {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		return &btf.Struct{Name: t.Name, Size: t.Size, Members: cutMembers(t.Members, wanted)}
	case *btf.Union:
		return &btf.Union{Name: t.Name, Size: t.Size, Members: cutMembers(t.Members, wanted)}
	}
	return t
}

// cutType is a member's type; local is what the program takes it for. Nobody looks through a pointer in one step.
func cutType(t, local btf.Type) btf.Type {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Pointer:
		return &btf.Pointer{Target: (*btf.Void)(nil)}
	case *btf.Array:
		elem := local
		if a, ok := btf.UnderlyingType(local).(*btf.Array); ok {
			elem = a.Type
		}
		return &btf.Array{Index: t.Index, Type: cutType(t.Type, elem), Nelems: t.Nelems}
	case *btf.Struct, *btf.Union:
		members := map[string]btf.Type{}
		if s, ok := btf.UnderlyingType(local).(*btf.Struct); ok {
			for _, m := range s.Members {
				members[m.Name] = m.Type
			}
		}
		return cutComposite(t, members)
	default:
		return t
	}
}
