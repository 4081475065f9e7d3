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
#include "headers/match.h"
#include "headers/scope.h"

#define REFUSE 0
#define COUNT(counter, n) ((counter) += (n))
#include "headers/scan.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Makes bpf2go write these types down in Go. */
const struct table *unused_table __attribute__((unused));
const enum shape *unused_shape __attribute__((unused));
const enum channel *unused_channel __attribute__((unused));
const struct event *unused_event __attribute__((unused));
const struct counters *unused_counters __attribute__((unused));

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

SEC("tp_btf/sys_enter")
int BPF_PROG(sys_enter, void *regs, long nr)
{
	struct progress *now;
	struct call c;
	struct task_struct *task;
	struct inode *inode = 0;
	struct file *file;
	struct tail *tail;
	u32 zero = 0, channel = CHANNEL_OTHER, mode = 0, shape;
	struct stream key = {};
	u64 a0, a1, a2, index;
	void *inner;

	if ((u64)nr >= SYSCALLS)
		return 0;
	/* A 6.1 verifier forgets the comparison when nr is spilled: a mask that
	 * the compiler may not drop. */
	index = nr;
	barrier_var(index);
	shape = shapes[index & (SYSCALLS - 1)];
	if (shape == SHAPE_NONE)
		return 0;
	task = bpf_get_current_task_btf();
	if (!(scope_pidns && in_pidns(task)) && !(scope_cgroup && in_cgroup()))
		return 0;
	if (foreign(task))
		return 0;

	if (bpf_core_field_exists(((struct pt_regs___x86 *)0)->di)) {
		struct pt_regs___x86 *r = regs;

		a0 = r->di;
		a1 = r->si;
		a2 = r->dx;
	} else {
		struct pt_regs___arm64 *r = regs;

		a0 = r->regs[0];
		a1 = r->regs[1];
		a2 = r->regs[2];
	}

	c.scratch = bpf_map_lookup_elem(&scratches, &zero);
	inner = bpf_map_lookup_elem(&tables, &zero);
	if (!c.scratch || !inner)
		return 0;
	c.table = bpf_map_lookup_elem(inner, &zero);
	if (!c.table)
		return 0;
	file = file_of(task, a0);
	if (file) {
		inode = BPF_CORE_READ(file, f_inode);
		mode = BPF_CORE_READ(inode, i_mode);
		channel = channel_of(inode, mode);
	}
	c.count = bpf_map_lookup_elem(&stats, &channel);
	if (!c.count)
		return 0;
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
	keep(&c, &key, tail);
	return 0;
}
