//go:build ignore

/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Refuses a session's write that holds a known value, before a byte of it is
 * out: the same search as in detect.bpf.c, from a hook that may say no. The hook
 * has no buffer among its arguments, so they are taken from the registers that
 * the system call came in with.
 *
 * Two tasks may be in here on one processor (an LSM program can be preempted),
 * so scratch belongs to the task and counters are added to atomically. The hook
 * comes once more for a file system that sits on another (overlayfs): those
 * bytes are looked at twice, which is better than to trust the descriptor table,
 * that another thread can change.
 */
#include "headers/kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "headers/match.h"
#include "headers/scope.h"

#define REFUSE 1
#define COUNT(counter, n) __sync_fetch_and_add(&(counter), (n))
#include "headers/scan.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Set before loading: refuse also what could not be looked at. */
const volatile u32 strict;

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct scratch);
} scratches SEC(".maps");

SEC("lsm/file_permission")
int BPF_PROG(file_permission, struct file *file, int mask, int ret)
{
	struct progress *now;
	struct call c;
	struct task_struct *task;
	struct inode *inode;
	struct stream key;
	struct tail *tail;
	u32 zero = 0, channel, mode, shape;
	u64 a0, a1, a2, nr;
	void *regs, *inner;

	if (ret || !(mask & MAY_WRITE))
		return ret;
	task = bpf_get_current_task_btf();
	if (!(scope_pidns && in_pidns(task)) && !(scope_cgroup && in_cgroup()))
		return 0;
	if (foreign(task))
		return 0;
	regs = (void *)bpf_task_pt_regs(task);
	if (bpf_core_field_exists(((struct pt_regs___x86 *)0)->di)) {
		struct pt_regs___x86 *r = regs;

		nr = BPF_CORE_READ(r, orig_ax);
		a0 = BPF_CORE_READ(r, di);
		a1 = BPF_CORE_READ(r, si);
		a2 = BPF_CORE_READ(r, dx);
	} else {
		struct pt_regs___arm64 *r = regs;

		nr = BPF_CORE_READ(r, syscallno);
		a0 = BPF_CORE_READ(r, regs[0]);
		a1 = BPF_CORE_READ(r, regs[1]);
		a2 = BPF_CORE_READ(r, regs[2]);
	}
	if (nr >= SYSCALLS)
		return 0;
	barrier_var(nr);
	shape = shapes[nr & (SYSCALLS - 1)];
	if (shape != SHAPE_BUF && shape != SHAPE_IOV)
		return 0;

	inode = file->f_inode;
	mode = BPF_CORE_READ(inode, i_mode);
	channel = channel_of(inode, mode);
	/* The pty redacts there; a program that may not write to its terminal
	 * only falls over. */
	if (channel == CHANNEL_TERMINAL)
		return 0;
	c.scratch = bpf_task_storage_get(&scratches, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	inner = bpf_map_lookup_elem(&tables, &zero);
	if (!c.scratch || !inner)
		return -EPERM;
	c.table = bpf_map_lookup_elem(inner, &zero);
	c.count = bpf_map_lookup_elem(&stats, &channel);
	if (!c.table || !c.count)
		return -EPERM;
	now = &c.scratch->now;
	__builtin_memset(now, 0, sizeof(*now));
	now->fd = a0;
	now->nr = nr;
	now->file = (u64)file;
	now->channel = channel;

	begin(&c, shape, a1, a2);
	key = stream_of(inode, mode, a0);
	tail = bpf_map_lookup_elem(&tails, &key);
	scan(&c, tail);
	/* What is refused does not go out, and is no part of the stream. */
	if (now->found || (strict && now->gap))
		return -EPERM;
	keep(&c, &key, tail);
	return 0;
}
