//go:build linux && (amd64 || arm64)

package bpf

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// optional are hooks that only newer kernels have: on older ones the calls that they
// are about come to another one.
func optional(program string) bool { return program == "file_ioctl_compat" }

// membership are the programs for scopes of processes.
func membership(program string) bool {
	return program == "task_newtask" || program == "sched_process_exit"
}

// object is what is loaded for a search by way of via.
func object(via string, bounded bool) func() (*ebpf.CollectionSpec, error) {
	switch {
	case via == LSM:
		return loadBlock
	case via == FmodRet:
		return loadFallback
	case bounded:
		return loadBounded
	}
	return loadDetect
}

func noLoop() bool {
	return errors.Is(features.HaveProgramHelper(ebpf.RawTracepoint, asm.FnLoop), ebpf.ErrNotSupported)
}

func (o Options) room() int {
	if o.bounded {
		return MaxNeedles / 2
	}
	return MaxNeedles
}

// Room is how many needles a detector takes on this kernel: MaxNeedles, or, without bpf_loop, half of that.
func Room() int { return Options{bounded: noLoop()}.room() }

// load has the kernel take the programs. Nothing is searched yet.
func load(o Options, via string) (*Detector, error) {
	d := &Detector{generation: 1, via: via, old: o.bounded, room: o.room()}
	if d.old {
		defer unlimited()()
	}
	spec, err := object(via, d.old)()
	if err != nil {
		return nil, err
	}
	if err := o.configure(spec, d); err != nil {
		return nil, err
	}
	d.inner = spec.Maps["tables"].InnerMap
	// What takes longest goes on side by side: the kernel's types are read, maps are made, a table is
	// put in its place (which takes the kernel some milliseconds; to fill it does not), and then programs are checked.
	types := btf.NewCache()
	var few *btf.Spec
	var wg sync.WaitGroup
	defer wg.Wait()
	read := make(chan error, 1)
	wg.Go(func() {
		var err error
		if few, err = o.types(spec, types, d.old); err == nil && few == nil {
			_, err = types.Kernel()
		}
		read <- err
	})
	made, err := makeMaps(spec)
	defer closeMaps(made)
	if err != nil {
		return nil, err
	}
	placed := make(chan error, 1)
	if d.table, err = ebpf.NewMap(d.inner); err != nil {
		return nil, fmt.Errorf("make a search table: %w", err)
	}
	defer func() {
		if d.coll == nil {
			wg.Wait()
			d.table.Close()
		}
	}()
	tables := made["tables"]
	wg.Go(func() { placed <- tables.Put(uint32(0), d.table) })
	if err := <-read; err != nil {
		return nil, err
	}
	if err := drop(spec, o, types); err != nil {
		return nil, err
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Cache: types, MapReplacements: made, Programs: ebpf.ProgramOptions{KernelTypes: few}})
	if err != nil {
		return nil, err
	}
	d.tables, d.stats = coll.Maps["tables"], coll.Maps["stats"]
	if d.ring, err = ringbuf.NewReader(coll.Maps["events"]); err != nil {
		coll.Close()
		return nil, err
	}
	d.coll = coll
	if err := <-placed; err != nil {
		return nil, errors.Join(fmt.Errorf("put a search table in its place: %w", err), d.Close())
	}
	return d, nil
}

// types are the few that the programs look into, kept or cut out of the kernel's; nil where all are needed.
func (o Options) types(spec *ebpf.CollectionSpec, all *btf.Cache, old bool) (*btf.Spec, error) {
	if o.Types == "" || o.Refuse || old || o.Cgroup != 0 || len(o.Processes) > 0 {
		return nil, nil
	}
	key, err := typesKey(_DetectBytes)
	if err != nil {
		return nil, nil
	}
	if kept := keptTypes(o.Types, key); kept != nil {
		return kept, nil
	}
	kernel, err := all.Kernel()
	if err != nil {
		return nil, err
	}
	raw, err := cutTypes(spec.Types, kernel)
	if err != nil {
		return nil, fmt.Errorf("cut out the kernel's types: %w", err)
	}
	// Without the file the next one takes as long as this one.
	_ = keepTypes(o.Types, key, raw)
	return btf.LoadSpecFromReader(bytes.NewReader(raw))
}

// makeMaps makes those maps that are no sections of variables, which the loader fills.
func makeMaps(spec *ebpf.CollectionSpec) (map[string]*ebpf.Map, error) {
	made := map[string]*ebpf.Map{}
	for name, m := range spec.Maps {
		if strings.HasPrefix(name, ".") {
			continue
		}
		one, err := ebpf.NewMap(m)
		if err != nil {
			return made, fmt.Errorf("map %s: %w", name, err)
		}
		made[name] = one
	}
	return made, nil
}

// closeMaps lets go of what a collection has clones of.
func closeMaps(made map[string]*ebpf.Map) {
	for _, m := range made {
		m.Close()
	}
}

// watch begins to search for what first holds. On an error d is closed.
func (d *Detector) watch(o Options, first *detectTable, needles int) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	if err := write(d.table, first, needles); err != nil {
		return err
	}
	err = d.table.Close() // the other table has it
	d.table = nil
	if err != nil {
		return err
	}
	for _, pid := range o.Processes {
		if err := d.coll.Maps["members"].Put(uint32(pid), uint32(1)); err != nil {
			return fmt.Errorf("watch process %d: %w", pid, err)
		}
	}
	return d.attach()
}

func (o Options) configure(spec *ebpf.CollectionSpec, d *Detector) error {
	maxBytes := uint64(o.MaxBytes)
	if maxBytes == 0 {
		maxBytes = 1 << 20
	}
	shapes, names := calls(o.Refuse)
	d.names = names
	vars := map[string]any{"shapes": shapes, "scope_pidns": uint32(o.PIDNamespace), "scope_cgroup": o.Cgroup, "max_bytes": maxBytes}
	if len(o.Processes) > 0 {
		vars["scope_tasks"] = uint32(1)
	}
	if o.All {
		vars["scope_all"] = uint32(os.Getpid())
	}
	if o.Rescans {
		vars["rescans"] = uint32(1)
	}
	if o.Refuse && o.Strict {
		vars["strict"] = uint32(1)
	}
	if o.Refuse && o.Lenient {
		vars["lenient"] = uint32(1)
	}
	if o.Refuse && o.Terminals {
		vars["terminals"] = uint32(1)
	}
	for name, v := range vars {
		if err := spec.Variables[name].Set(v); err != nil {
			return err
		}
	}
	if o.Windows {
		if err := spec.Variables["windows"].Set(uint32(1)); err != nil {
			return err
		}
	}
	if o.RingBytes != 0 {
		spec.Maps["events"].MaxEntries = uint32(o.RingBytes)
	}
	if o.Streams != 0 {
		spec.Maps["tails"].MaxEntries = uint32(o.Streams)
	}
	return nil
}

// drop takes out the programs that this kernel has no hook for or that nobody
// asked for.
func drop(spec *ebpf.CollectionSpec, o Options, types *btf.Cache) error {
	for name, p := range spec.Programs {
		unwanted := membership(name) && o.Cgroup == 0 && len(o.Processes) == 0 ||
			(name == "mmap_file" || name == "file_free_security") && !o.Rescans
		if !unwanted && optional(name) {
			hook := p.AttachTo
			if p.Type == ebpf.LSM {
				hook = "bpf_lsm_" + hook
			}
			kernel, err := types.Kernel()
			if err != nil {
				return err
			}
			var f *btf.Func
			unwanted = kernel.TypeByName(hook, &f) != nil
		}
		if unwanted {
			delete(spec.Programs, name)
		}
	}
	return nil
}

func order(program string) int {
	if membership(program) {
		return 0
	}
	return 1
}

// attach puts the programs in place, those that follow processes first.
func (d *Detector) attach() error {
	names := slices.Sorted(maps.Keys(d.coll.Programs))
	slices.SortStableFunc(names, func(a, b string) int {
		return cmp.Compare(order(a), order(b))
	})
	for _, name := range names {
		p := d.coll.Programs[name]
		var l link.Link
		var err error
		switch p.Type() {
		case ebpf.LSM:
			l, err = link.AttachLSM(link.LSMOptions{Program: p})
		case ebpf.RawTracepoint:
			l, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: name, Program: p})
		default:
			l, err = link.AttachTracing(link.TracingOptions{Program: p})
		}
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
		d.progs = append(d.progs, p)
		d.links = append(d.links, l)
	}
	return nil
}

// detach ends all watching at once, and has the kernel take the programs away.
// For a hook of LSM that takes it some 100 ms each, one after the other, for which who closes
// the last reference waits. Newer kernels (6.12; not 6.1) let go of what is pinned in a
// file system that is unmounted without anybody waiting: so the links move into
// one that has no place.
func (d *Detector) detach() error {
	if len(d.links) == 0 {
		return nil
	}
	err := d.coll.Variables["over"].Set(uint32(1))
	if fs, e := detachedFS(); e == nil {
		for i, l := range d.links {
			// Without room or rights the link is closed the slow way.
			_ = l.Pin(fmt.Sprintf("/proc/self/fd/%d/%d", fs, i))
		}
		defer unix.Close(fs)
	}
	err = errors.Join(err, closeLinks(d.links))
	d.links = nil
	return err
}

// closeLinks closes them side by side: most of what that takes is waiting, each for itself.
func closeLinks(links []link.Link) error {
	errs := make([]error, len(links))
	var wg sync.WaitGroup
	for i, l := range links {
		wg.Go(func() { errs[i] = l.Close() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// detachedFS is the root of a new file system for BPF objects that is mounted nowhere.
func detachedFS() (int, error) {
	ctx, err := unix.Fsopen("bpf", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(ctx)
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, err
	}
	return unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, 0)
}
