//go:build ignore

/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What a monitor needs besides the search in system calls: the same search in what
 * programs hand to their TLS library, and news of processes and files.
 *
 * A uprobe sits in a file: whoever runs that file meets it. It can be preempted, so
 * scratch belongs to the task and counters are added to atomically. The table, the ring and
 * the members are the detector's own maps.
 */
#include "headers/kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define REFUSE 0
#define COUNT(counter, n) __sync_fetch_and_add(&(counter), (n))
#include "headers/match.h"
#include "headers/scope.h"
#include "headers/scan.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* After the kernel's own channels; its counters are the first ones of this program. */
#define CHANNEL_TLS 64
/* Instead of a system call's number. */
#define CALL_TLS 0x10000

/* include/uapi/asm-generic/mman-common.h */
#define PROT_EXEC 4
#define MAP_ANONYMOUS 0x20

struct pt_regs___go {
	unsigned long ax, bx, cx;
} CORE;

struct pt_regs___fifth {
	unsigned long r8;
} CORE;

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct scratch);
} scratches SEC(".maps");

/* Set before loading: guard's own executable, as the kernel numbers it. */
const volatile u64 guard_inode;
const volatile u32 guard_device;

struct fileid {
	u64 inode;
	u32 device;
	u32 tgid; /* 0, or whose */
};

enum news_kind {
	NEWS_EXEC,  /* a file is run that was not before */
	NEWS_MAP,   /* a file is mapped to be run that was not before */
	NEWS_HELLO, /* a process begins to speak TLS on a socket, for the first time */
	NEWS_GUARD, /* guard begins, and is no other guard's child */
	NEWS_GUARD_END,
};

struct news {
	u64 time;  /* CLOCK_MONOTONIC, ns */
	u64 inode; /* of the file; with NEWS_HELLO of the program */
	u32 device;
	u32 kind;
	u32 tgid;
	s32 fd;
};

const struct news *unused_news __attribute__((unused));
const enum news_kind *unused_news_kind __attribute__((unused));
const struct fileid *unused_fileid __attribute__((unused));

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} told SEC(".maps");

/* Files that user space was told of. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 14);
	__type(key, struct fileid);
	__type(value, u32);
} known SEC(".maps");

/* Processes that are guard, or descend from it: tgid -> tgid of the first guard. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, u32);
	__type(value, u32);
} kin SEC(".maps");

/* Processes whose plaintext was seen. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 13);
	__type(key, u32);
	__type(value, u32);
} plain SEC(".maps");

/* News that found no room. */
u64 news_lost;

static __always_inline void tell_once(struct fileid *id, u32 kind, u32 tgid, s32 fd)
{
	u32 one = 1;
	struct news *n;

	if (bpf_map_lookup_elem(&known, id))
		return;
	n = bpf_ringbuf_reserve(&told, sizeof(*n), 0);
	if (!n) {
		__sync_fetch_and_add(&news_lost, 1);
		return; /* next time */
	}
	bpf_map_update_elem(&known, id, &one, BPF_ANY);
	n->time = bpf_ktime_get_ns();
	n->inode = id->inode;
	n->device = id->device;
	n->kind = kind;
	n->tgid = tgid;
	n->fd = fd;
	bpf_ringbuf_submit(n, 0);
}

static __always_inline void tell_guard(u32 kind, u32 tgid)
{
	struct news *n = bpf_ringbuf_reserve(&told, sizeof(*n), 0);

	if (!n) {
		__sync_fetch_and_add(&news_lost, 1);
		return;
	}
	__builtin_memset(n, 0, sizeof(*n));
	n->time = bpf_ktime_get_ns();
	n->kind = kind;
	n->tgid = tgid;
	bpf_ringbuf_submit(n, 0);
}

static __noinline int plaintext(u64 conn, u64 base, u64 len)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u32 zero = 0, one = 1, tgid = bpf_get_current_pid_tgid() >> 32;
	struct stream key = {};
	struct tail *tail;
	struct call c = {};
	void *inner;

	if (!in_scope(task))
		return 0;
	if (!bpf_map_lookup_elem(&plain, &tgid))
		bpf_map_update_elem(&plain, &tgid, &one, BPF_ANY);
	inner = bpf_map_lookup_elem(&tables, &zero);
	c.count = bpf_map_lookup_elem(&stats, &zero);
	if (!inner || !c.count)
		return 0;
	c.table = bpf_map_lookup_elem(inner, &zero);
	if (!c.table)
		return 0;
	COUNT(c.count->calls, 1);
	c.scratch = bpf_task_storage_get(&scratches, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!c.scratch) {
		COUNT(c.count->unreadable_calls, 1);
		return 0;
	}
	__builtin_memset(&c.scratch->now, 0, sizeof(c.scratch->now));
	c.scratch->now.nr = CALL_TLS;
	c.scratch->now.channel = CHANNEL_TLS;
	c.scratch->now.fd = -1;
	begin_buf(&c, base, len);
	key.where = tgid;
	key.number = conn;
	tail = bpf_map_lookup_elem(&tails, &key);
	SCAN(&c, tail, STEPS_PREEMPTIBLE, step);
	keep(&c, &key, tail);
	return 0;
}

struct asked {
	u64 conn, base, len;
};

static __always_inline void read_asked(struct asked *a, void *ctx)
{
	if (bpf_core_field_exists(((struct pt_regs___x86 *)0)->di)) {
		struct pt_regs___x86 *r = ctx;

		a->conn = BPF_CORE_READ(r, di);
		a->base = BPF_CORE_READ(r, si);
		a->len = BPF_CORE_READ(r, dx);
	} else {
		struct pt_regs___arm64 *r = ctx;

		a->conn = BPF_CORE_READ(r, regs[0]);
		a->base = BPF_CORE_READ(r, regs[1]);
		a->len = BPF_CORE_READ(r, regs[2]);
	}
}

static __always_inline u64 returned(void *ctx)
{
	if (bpf_core_field_exists(((struct pt_regs___go *)0)->ax))
		return BPF_CORE_READ((struct pt_regs___go *)ctx, ax);
	return BPF_CORE_READ((struct pt_regs___arm64 *)ctx, regs[0]);
}

/* gnutls_record_send: connection, bytes, length. It may be resumed without its bytes, so they are
 * looked at when they come. */
SEC("uprobe/send")
int tls_send(void *ctx)
{
	struct asked a;

	read_asked(&a, ctx);
	return plaintext(a.conn, a.base, a.len);
}

/* OpenSSL is asked again with the same bytes until it takes them: what it took is what counts. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 14);
	__type(key, u64); /* thread */
	__type(value, struct asked);
} asking SEC(".maps");

/* SSL_write, SSL_write_ex: connection, bytes, length. */
SEC("uprobe/write")
int tls_write(void *ctx)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct asked a;

	if (!in_scope(bpf_get_current_task_btf()))
		return 0;
	read_asked(&a, ctx);
	bpf_map_update_elem(&asking, &thread, &a, BPF_ANY);
	return 0;
}

static __always_inline int wrote(struct asked *a)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct asked *was = bpf_map_lookup_elem(&asking, &thread);

	if (!was)
		return 0;
	*a = *was;
	bpf_map_delete_elem(&asking, &thread);
	return 1;
}

SEC("uretprobe/write")
int tls_wrote(void *ctx)
{
	s32 took = returned(ctx);
	struct asked a;

	if (!wrote(&a) || took <= 0)
		return 0;
	return plaintext(a.conn, a.base, took);
}

/* It says 1 and, elsewhere, how many: all of them, or as many as fit into records. */
SEC("uretprobe/write_ex")
int tls_wrote_ex(void *ctx)
{
	u32 ok = returned(ctx);
	struct asked a;

	if (!wrote(&a) || ok != 1)
		return 0;
	return plaintext(a.conn, a.base, a.len);
}

/* crypto/tls.(*Conn).Write by Go's own calling convention (since 1.17; arm64: 1.18). */
SEC("uprobe/go")
int tls_go(void *ctx)
{
	if (bpf_core_field_exists(((struct pt_regs___go *)0)->bx)) {
		struct pt_regs___go *r = ctx;

		return plaintext(BPF_CORE_READ(r, ax), BPF_CORE_READ(r, bx), BPF_CORE_READ(r, cx));
	} else {
		struct pt_regs___arm64 *r = ctx;

		return plaintext(BPF_CORE_READ(r, regs[0]), BPF_CORE_READ(r, regs[1]), BPF_CORE_READ(r, regs[2]));
	}
}

/* The first record of a connection: a handshake that begins with the client's hello. */
static __always_inline int is_hello(u64 base, u64 len)
{
	u8 b[6] = {};

	if (len < sizeof(b) || bpf_probe_read_user(b, sizeof(b), (void *)base))
		return 0;
	return b[0] == 0x16 && b[1] == 3 && b[2] <= 4 && b[5] == 1;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(tell_enter, void *regs, long nr)
{
	u64 a0, a1, a2, a3, a4, base = 0, len = 0;
	u32 shape = shape_of(nr), tgid;
	struct task_struct *task;
	struct fileid id = {};
	struct inode *inode;
	struct file *file;
	int mapping;

	if (shape == SHAPE_NONE || over)
		return 0;
	task = bpf_get_current_task_btf();
	if (foreign(task))
		return 0;
	if (bpf_core_field_exists(((struct pt_regs___x86 *)0)->di)) {
		struct pt_regs___x86 *r = regs;

		a0 = r->di;
		a1 = r->si;
		a2 = r->dx;
		a3 = r->r10;
		a4 = ((struct pt_regs___fifth *)regs)->r8;
	} else {
		struct pt_regs___arm64 *r = regs;

		a0 = r->regs[0];
		a1 = r->regs[1];
		a2 = r->regs[2];
		a3 = r->regs[3];
		a4 = r->regs[4];
	}
	mapping = shape == SHAPE_UNMAP;
	switch (shape) {
	case SHAPE_UNMAP: /* mmap */
		if (!(a2 & PROT_EXEC) || (a3 & MAP_ANONYMOUS))
			return 0;
		break;
	case SHAPE_BUF:
		base = a1;
		len = a2;
		break;
	case SHAPE_MSG: {
		struct user_msghdr m;

		if (bpf_probe_read_user(&m, sizeof(m), (void *)a1) || !m.iovlen)
			return 0;
		a1 = m.iov;
	}
	/* fallthrough */
	case SHAPE_IOV: {
		struct user_iovec v;

		if (bpf_probe_read_user(&v, sizeof(v), (void *)a1))
			return 0;
		base = v.base;
		len = v.len;
		break;
	}
	}
	if (!mapping && !is_hello(base, len))
		return 0;
	file = file_of(task, mapping ? a4 : a0);
	if (!file)
		return 0;
	inode = BPF_CORE_READ(file, f_inode);
	tgid = bpf_get_current_pid_tgid() >> 32;
	if (mapping) {
		id.inode = BPF_CORE_READ(inode, i_ino);
		id.device = BPF_CORE_READ(inode, i_sb, s_dev);
		tell_once(&id, NEWS_MAP, tgid, a4);
		return 0;
	}
	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) != S_IFSOCK || !in_scope(task))
		return 0;
	file = BPF_CORE_READ(task, mm, exe_file);
	if (!file)
		return 0;
	id.inode = BPF_CORE_READ(file, f_inode, i_ino);
	id.device = BPF_CORE_READ(file, f_inode, i_sb, s_dev);
	id.tgid = tgid;
	tell_once(&id, NEWS_HELLO, tgid, a0);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(tell_exec, struct task_struct *task, int old, struct linux_binprm *bprm)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct inode *inode = BPF_CORE_READ(bprm, file, f_inode);
	struct fileid id = {};

	if (over)
		return 0;
	id.inode = BPF_CORE_READ(inode, i_ino);
	id.device = BPF_CORE_READ(inode, i_sb, s_dev);
	/* Who descends from a guard stays what he is. */
	if (guard_inode && id.inode == guard_inode && id.device == guard_device && !bpf_map_lookup_elem(&kin, &tgid)) {
		bpf_map_update_elem(&kin, &tgid, &tgid, BPF_ANY);
		tell_guard(NEWS_GUARD, tgid);
	}
	tell_once(&id, NEWS_EXEC, tgid, -1);
	return 0;
}

SEC("tp_btf/task_newtask")
int BPF_PROG(kin_newtask, struct task_struct *child, u64 flags)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32, born = child->tgid, *first;

	if (over || (flags & CLONE_THREAD))
		return 0;
	first = bpf_map_lookup_elem(&kin, &tgid);
	if (first)
		bpf_map_update_elem(&kin, &born, first, BPF_ANY);
	else
		bpf_map_delete_elem(&kin, &born); /* the number was another's */
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(kin_exit, struct task_struct *task)
{
	u32 tgid = task->tgid, *first;

	if (over || BPF_CORE_READ(task, signal, live.counter))
		return 0;
	first = bpf_map_lookup_elem(&kin, &tgid);
	if (first && *first == tgid)
		tell_guard(NEWS_GUARD_END, tgid);
	return 0;
}
