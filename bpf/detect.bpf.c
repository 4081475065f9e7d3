//go:build ignore

/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Watches what a session's processes are about to write, and looks for known
 * values in it, all inside the kernel. See doc.go for what it sees and what it
 * does not.
 *
 * One program on sys_enter. It runs for every system call of the machine, so
 * the order is: is it a call that writes, is the task in scope, and only then
 * everything else. The kernel runs it with preemption off and never twice on
 * one CPU (what it skips for that is counted as recursion misses), which is why
 * per-CPU scratch and plain increments are right here. They would not be in an
 * LSM program.
 */
#include "headers/kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define REFUSE 0
#ifdef NO_LOOP
#define APART /* where there are loops, one more function on the way is more stack than 6.12 allows */
#endif
#define COUNT(counter, n) ((counter) += (n))
#include "headers/match.h"
#include "headers/scope.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

#include "headers/scan.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Makes bpf2go write these types down in Go. */
const struct table *unused_table __attribute__((unused));
const enum shape *unused_shape __attribute__((unused));
const enum channel *unused_channel __attribute__((unused));
const enum kind *unused_kind __attribute__((unused));
const struct event *unused_event __attribute__((unused));
const struct hit *unused_hit __attribute__((unused));
const struct counters *unused_counters __attribute__((unused));

struct mapping {
	u64 start, end;
	u64 inode;
};

static long look_mapping(struct task_struct *task, struct vm_area_struct *vma, void *ctx)
{
	struct mapping *m = ctx;
	struct file *file = BPF_CORE_READ(vma, vm_file);
	u64 flags = BPF_CORE_READ(vma, vm_flags);

	if (file && (flags & VM_SHARED) && (flags & VM_MAYWRITE)) {
		m->start = BPF_CORE_READ(vma, vm_start);
		m->end = BPF_CORE_READ(vma, vm_end);
		m->inode = (u64)BPF_CORE_READ(file, f_inode);
	}
	return 0;
}

/* 0: there is one at that address. */
static __always_inline long find_mapping(struct task_struct *task, u64 address, struct mapping *m)
{
#ifdef NO_LOOP
	/* The helper for it is as new as bpf_loop. Another thread may change the tree
	 * meanwhile: then what is read is not a mapping that holds the address. */
	struct mm_struct___tree *mm = (void *)BPF_CORE_READ(task, mm);
	struct rb_node *node = 0;

	if (mm && bpf_core_field_exists(mm->mm_rb))
		node = BPF_CORE_READ(mm, mm_rb.rb_node);
	for (u32 i = 0; i < 48; i++) {
		struct vm_area_struct *vma;

		if (!node)
			break;
		vma = (void *)node - bpf_core_field_offset(struct vm_area_struct___tree, vm_rb);
		if (BPF_CORE_READ(vma, vm_end) <= address) {
			node = BPF_CORE_READ(node, rb_right);
			continue;
		}
		if (BPF_CORE_READ(vma, vm_start) <= address)
			return look_mapping(task, vma, m);
		node = BPF_CORE_READ(node, rb_left);
	}
	return 1;
#else
	return bpf_find_vma(task, address, look_mapping, m, 0);
#endif
}

/* Attached by its name alone, where that may be: else the loader would have to know the kernel's types. */
#ifdef NO_LOOP
SEC("tp_btf/sys_enter")
#else
SEC("raw_tp/sys_enter")
#endif
int BPF_PROG(sys_enter, void *regs, long nr)
{
	struct progress *now;
	struct call c;
	struct args a;
	struct task_struct *task;
	struct inode *inode = 0;
	struct file *file = 0;
	struct tail *tail;
	u32 zero = 0, channel = CHANNEL_OTHER, mode = 0, shape;
	struct stream key = {};
	struct mapping m = {};
	int has_fd;
	void *inner;

	shape = shape_of(nr);
	if (shape == SHAPE_NONE)
		return 0;
	task = current_task();
	if (!in_scope(task))
		return 0;
	if (foreign(task))
		return 0;

#ifndef NO_LOOP
	regs = (void *)bpf_task_pt_regs(task); /* the same, and it may be looked into without a helper */
#endif
	if (bpf_core_field_exists(((struct pt_regs___x86 *)0)->di)) {
		struct pt_regs___x86 *r = regs;

		a.a0 = r->di;
		a.a1 = r->si;
		a.a2 = r->dx;
		a.a3 = r->r10;
	} else {
		struct pt_regs___arm64 *r = regs;

		a.a0 = r->regs[0];
		a.a1 = r->regs[1];
		a.a2 = r->regs[2];
		a.a3 = r->regs[3];
	}

	if ((shape == SHAPE_OPEN && !(a.a1 & O_CREAT)) || (shape == SHAPE_OPENAT && !(a.a2 & O_CREAT)))
		return 0;
	has_fd = shape <= SHAPE_MMSG;
	if (shape == SHAPE_UNMAP) {
		/* Most mappings are private ones; and a range may span several, of
		 * which the first decides. */
		if (find_mapping(task, a.a0, &m) || !m.inode)
			return 0;
		if (a.a1 > m.end - a.a0)
			a.a1 = m.end - a.a0;
		inode = (struct inode *)m.inode;
	}
	c.scratch = bpf_map_lookup_elem(&scratches, &zero);
	inner = bpf_map_lookup_elem(&tables, &zero);
	if (!c.scratch || !inner)
		return 0;
	c.table = bpf_map_lookup_elem(inner, &zero);
	if (!c.table)
		return 0;
	now = &c.scratch->now;
	__builtin_memset(now, 0, sizeof(*now));
	if (has_fd) {
		file = file_of(task, a.a0);
		if (file) {
			inode = BPF_CORE_READ(file, f_inode);
			mode = BPF_CORE_READ(inode, i_mode);
			channel = channel_of(inode, mode);
		}
	} else {
		channel = channel_of_shape(shape);
	}
	c.count = bpf_map_lookup_elem(&stats, &channel);
	if (!c.count)
		return 0;
	now->fd = has_fd ? (s32)a.a0 : -1;
	now->nr = nr;
	now->inode = (u64)inode;
	now->file = (u64)file;
	now->channel = channel;

	begin(&c, shape, &a);
	if (has_fd) {
		key = stream_of(inode, mode, a.a0);
		tail = bpf_map_lookup_elem(&tails, &key);
		SCAN(&c, tail, STEPS, step);
		keep(&c, &key, tail);
	} else {
		SCAN(&c, 0, STEPS, step);
	}
	return 0;
}
