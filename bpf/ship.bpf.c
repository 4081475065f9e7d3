//go:build ignore

/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Hands on what the tasks in scope write, for a search that the kernel cannot make. It copies
 * every byte of them to user space: for chosen cgroups and processes, not for machines.
 */
#include "headers/kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define REFUSE 0
#define COUNT(counter, n) ((counter) += (n))
#include "headers/match.h"
#include "headers/scope.h"
#include "headers/search.h"

#define SMALL 512

struct piece {
	struct event about;
	u32 len;
	u32 unused;
	u8 bytes[PAGE];
};

struct small_piece {
	struct event about;
	u32 len;
	u32 unused;
	u8 bytes[SMALL];
};

const struct piece *unused_piece __attribute__((unused));
const struct small_piece *unused_small_piece __attribute__((unused));

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 24);
} pieces SEC(".maps");

/* Set before loading: guard itself, which writes about what it reads. */
const volatile u32 guard_tgid;

#define SHIP(type)                                                                 \
	do {                                                                       \
		struct type *p = bpf_ringbuf_reserve(&pieces, sizeof(*p), 0);      \
		if (!p) {                                                          \
			COUNT(c->count->dropped, 1);                               \
			return 0;                                                  \
		}                                                                  \
		describe(&p->about, now);                                          \
		p->about.offset = now->done;                                       \
		p->len = len;                                                      \
		if (bpf_probe_read_kernel(p->bytes, len, c->scratch->data))        \
			p->len = 0;                                                \
		bpf_ringbuf_submit(p, 0);                                          \
	} while (0)

static __noinline int ship(struct call *c)
{
	struct progress *now = &c->scratch->now;
	u32 len = now->len;

	if (len == 0 || len > PAGE)
		return 0;
	if (len <= SMALL)
		SHIP(small_piece);
	else
		SHIP(piece);
	return 0;
}

#define LOOK(c, n) ship(c)
#include "headers/scan.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

SEC("tp_btf/sys_enter")
int BPF_PROG(ship_enter, void *regs, long nr)
{
	u32 zero = 0, channel = CHANNEL_OTHER, mode = 0, shape = shape_of(nr);
	struct task_struct *task;
	struct inode *inode = 0;
	struct progress *now;
	struct file *file;
	struct args a;
	struct call c = {};

	if (shape == SHAPE_NONE || shape > SHAPE_MMSG)
		return 0;
	task = bpf_get_current_task_btf();
	if (bpf_get_current_pid_tgid() >> 32 == guard_tgid || !in_scope(task) || foreign(task))
		return 0;
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
	c.scratch = bpf_map_lookup_elem(&scratches, &zero);
	if (!c.scratch)
		return 0;
	now = &c.scratch->now;
	__builtin_memset(now, 0, sizeof(*now));
	file = file_of(task, a.a0);
	if (file) {
		inode = BPF_CORE_READ(file, f_inode);
		mode = BPF_CORE_READ(inode, i_mode);
		channel = channel_of(inode, mode);
	}
	c.count = bpf_map_lookup_elem(&stats, &channel);
	if (!c.count)
		return 0;
	now->fd = a.a0;
	now->nr = nr;
	now->inode = (u64)inode;
	now->file = (u64)file;
	now->channel = channel;
	begin(&c, shape, &a);
	SCAN(&c, (struct tail *)0, STEPS, step);
	return 0;
}
