/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The hooks that say no. Who includes this says how they are attached (HOOK,
 * HOOK_SLEEPS, SLEEPABLE).
 *
 * Two tasks may be in here on one processor (an LSM program can be preempted),
 * so scratch belongs to the task and counters are added to atomically. A task
 * is in one of them at a time: what a page fault inside of one leads to is the
 * kernel's own sending, which is let through before scratch is touched.
 */
#ifndef GUARD_REFUSE_H
#define GUARD_REFUSE_H

#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define REFUSE 1
#define COUNT(counter, n) __sync_fetch_and_add(&(counter), (n))
#include "match.h"
#include "scope.h"
#include "scan.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Set before loading. */
const volatile u32 strict;    /* refuse also what could not be looked at */
const volatile u32 terminals; /* refuse on terminals too */
const volatile u32 lenient;   /* let pass what nobody can look at */

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct scratch);
} scratches SEC(".maps");

/*
 * A task that was interrupted while it looked for its scratch keeps all others on
 * its processor from finding theirs (6.1; later, from making theirs). Those
 * get one of these, by thread.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, u64);
	__type(value, struct scratch);
} spares SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scratch);
} blank SEC(".maps");

static __always_inline struct scratch *spare(void)
{
	u64 id = bpf_get_current_pid_tgid();
	u32 zero = 0;
	struct scratch *empty = bpf_map_lookup_elem(&blank, &zero);

	if (!empty)
		return 0;
	bpf_map_update_elem(&spares, &id, empty, BPF_ANY);
	return bpf_map_lookup_elem(&spares, &id);
}

/* Fills c; 0 if that cannot be: then the answer is no. */
static __always_inline int open_call(struct call *c, struct task_struct *task, u32 channel, u64 nr)
{
	u32 zero = 0;
	void *inner;

	inner = bpf_map_lookup_elem(&tables, &zero);
	if (!inner)
		return 0;
	c->table = bpf_map_lookup_elem(inner, &zero);
	c->count = bpf_map_lookup_elem(&stats, &channel);
	if (!c->table || !c->count)
		return 0;
	c->spare = 0;
	c->scratch = bpf_task_storage_get(&scratches, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!c->scratch) {
		c->scratch = spare();
		c->spare = 1;
	}
	if (!c->scratch)
		return 0;
	__builtin_memset(&c->scratch->now, 0, sizeof(c->scratch->now));
	c->scratch->now.nr = nr;
	c->scratch->now.channel = channel;
	c->scratch->now.fd = -1;
	return 1;
}

/* Says what user space should look at itself. */
static __noinline int tell(struct progress *now, struct counters *count, u32 kind)
{
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		COUNT(count->dropped, 1);
		return 0;
	}
	describe(e, now);
	e->kind = kind;
	bpf_ringbuf_submit(e, 0);
	return 0;
}

/* What is refused does not go out, and is no part of the stream. */
static __always_inline int verdict(struct call *c)
{
	if (c->scratch->now.found || (strict && c->scratch->now.gap)) {
		COUNT(c->count->refused, 1);
		return -EPERM;
	}
	if (rescans && c->scratch->now.gap)
		tell(&c->scratch->now, c->count, KIND_UNSEARCHED);
	return 0;
}

static __always_inline int close_call(struct call *c, int answer)
{
	u64 id = bpf_get_current_pid_tgid();

	if (c->spare)
		bpf_map_delete_elem(&spares, &id);
	return answer;
}

/* Bytes that nobody can look at: error, or 0 to let them pass. */
static __always_inline int unseen(u32 channel, int error)
{
	struct counters *count = bpf_map_lookup_elem(&stats, &channel);

	if (error && !lenient) {
		if (count)
			COUNT(count->away, 1);
		return error;
	}
	if (count)
		COUNT(count->unjudged, 1);
	return 0;
}

/* A call by another ABI's number: its arguments mean something else. */
static __always_inline int foreign_call(u32 channel)
{
	if (strict)
		return unseen(channel, -EPERM);
	return unseen(channel, 0);
}

static long step_kernel(u32 i, void *ctx)
{
	return one_step(ctx, IN_KERNEL);
}

static long step_message(u32 i, void *ctx)
{
	return one_step(ctx, MAY_FAULT | IOV_IN_KERNEL);
}

static long step_exec(u32 i, void *ctx)
{
	return one_step(ctx, MAY_FAULT);
}

/*
 * write, pwrite64, writev, pwritev, pwritev2 to all but sockets. The hook has no
 * buffer among its arguments, so they are taken from the registers that the
 * system call came in with. It is asked once more for a file system that sits on
 * another (overlayfs): those bytes are looked at twice, which is better than to
 * trust the descriptor table, that another thread can change.
 */
HOOK(file_permission)
int BPF_PROG(file_permission, struct file *file, int mask, int ret)
{
	struct progress *now;
	struct call c;
	struct args a;
	struct task_struct *task;
	struct inode *inode;
	struct stream key;
	struct tail *tail;
	u32 channel, mode, shape;
	int answer;

	if (ret || !(mask & (MAY_WRITE | MAY_READ)))
		return ret;
	task = bpf_get_current_task_btf();
	if (!in_scope(task))
		return 0;
	/* sendfile and splice into a pipe ask about what they read only. */
	if (!(mask & MAY_WRITE)) {
		if (shape_of(call_number((void *)bpf_task_pt_regs(task))) != SHAPE_AWAY || foreign(task))
			return 0;
		return unseen(CHANNEL_PIPE, -EINVAL);
	}
	inode = BPF_CORE_READ(file, f_inode);
	mode = BPF_CORE_READ(inode, i_mode);
	channel = channel_of(inode, mode);
	/* The pty redacts there; a program that may not write to its terminal
	 * only falls over. */
	if (channel == CHANNEL_TERMINAL && !terminals)
		return 0;
	if (foreign(task))
		return foreign_call(channel);
	read_args(&a, (void *)bpf_task_pt_regs(task));
	shape = shape_of(a.nr);
	if (shape == SHAPE_AWAY || shape == SHAPE_RING)
		return unseen(channel, -EINVAL);
	/* What goes to a socket comes to socket_sendmsg. */
	if (channel == CHANNEL_SOCKET)
		return 0;
	/* fallocate and the like, which bring no bytes, come here too. */
	if (shape != SHAPE_BUF && shape != SHAPE_IOV)
		return unseen(channel, 0);
	if (file_of(task, a.a0) != file)
		channel = CHANNEL_BACKING;
	if (!open_call(&c, task, channel, a.nr))
		return -EPERM;
	now = &c.scratch->now;
	now->fd = a.a0;
	now->inode = (u64)inode;
	now->file = (u64)file;

	begin(&c, shape, &a);
	key = stream_of(inode, mode, a.a0);
	tail = bpf_map_lookup_elem(&tails, &key);
	SCAN(&c, tail, STEPS, step);
	answer = verdict(&c);
	if (!answer)
		keep(&c, &key, tail);
	return close_call(&c, answer);
}

/* Every family, every call. The kernel has copied the message's header and the
 * iovecs already, so those are read from there. */
HOOK_SLEEPS(socket_sendmsg)
int BPF_PROG(socket_sendmsg, struct socket *sock, struct msghdr *msg, int size, int ret)
{
	struct iov_iter *it = &msg->msg_iter;
	struct progress *now;
	struct call c;
	struct args a;
	struct task_struct *task;
	struct inode *inode;
	struct file *file;
	struct stream key;
	struct tail *tail;
	u64 offset, count, iov;
	u8 type;
	int answer;

	if (ret)
		return ret;
	task = bpf_get_current_task_btf();
	if (!in_scope(task))
		return 0;
	read_args(&a, (void *)bpf_task_pt_regs(task));
	if (BPF_CORE_READ(msg, msg_flags) & MSG_ZEROCOPY)
		return unseen(CHANNEL_SOCKET, -EINVAL);
	type = BPF_CORE_READ(it, iter_type);
	offset = BPF_CORE_READ(it, iov_offset);
	count = BPF_CORE_READ(it, count);
	if (bpf_core_enum_value_exists(enum iter_type, ITER_UBUF) && type == bpf_core_enum_value(enum iter_type, ITER_UBUF)) {
		iov = 0;
	} else if (type == bpf_core_enum_value(enum iter_type, ITER_IOVEC)) {
		if (bpf_core_field_exists(((struct iov_iter *)0)->__iov))
			iov = (u64)BPF_CORE_READ(it, __iov);
		else
			iov = (u64)BPF_CORE_READ((struct iov_iter___before_6_4 *)it, iov);
	} else {
		/* The kernel's own pages: what splice and its like bring; or what
		 * a network file system sends of a write that was judged. */
		u32 shape = shape_of(a.nr);

		if (!foreign(task) && (shape == SHAPE_AWAY || shape == SHAPE_RING))
			return unseen(CHANNEL_SOCKET, -EINVAL);
		return unseen(CHANNEL_SOCKET, 0);
	}
	if (!open_call(&c, task, CHANNEL_SOCKET, a.nr))
		return -EPERM;
	now = &c.scratch->now;
	now->fd = a.a0;
	file = BPF_CORE_READ(sock, file);
	inode = BPF_CORE_READ(file, f_inode);
	now->inode = (u64)inode;
	now->sock = (u64)sock;
	now->address = (u64)BPF_CORE_READ(msg, msg_name);

	COUNT(c.count->calls, 1);
	if (iov) {
		now->iovs = iov;
		now->skip = offset;
		now->niovs = BPF_CORE_READ(it, nr_segs);
		if (now->niovs > 1024)
			now->niovs = 1024;
	} else {
		begin_buf(&c, (u64)BPF_CORE_READ(it, ubuf) + offset, count);
	}
	key = stream_of(inode, S_IFSOCK, 0);
	if (!inode)
		key.where = (u64)sock;
	tail = bpf_map_lookup_elem(&tails, &key);
	SCAN(&c, tail, STEPS_PREEMPTIBLE, step_message);
	answer = verdict(&c);
	if (!answer)
		keep(&c, &key, tail);
	return close_call(&c, answer);
}

/* Arguments and environment, in the memory of who calls execve: the new
 * program's is not there yet. */
HOOK_SLEEPS(bprm_creds_for_exec)
int BPF_PROG(bprm_creds_for_exec, struct linux_binprm *bprm, int ret)
{
	struct task_struct *task;
	struct call c;
	struct args a;
	u32 shape;

	if (ret)
		return ret;
	task = bpf_get_current_task_btf();
	if (!in_scope(task))
		return 0;
	if (foreign(task))
		return foreign_call(CHANNEL_EXEC);
	read_args(&a, (void *)bpf_task_pt_regs(task));
	shape = shape_of(a.nr);
	if (shape != SHAPE_EXEC && shape != SHAPE_EXECAT)
		return foreign_call(CHANNEL_EXEC);
	if (!open_call(&c, task, CHANNEL_EXEC, a.nr))
		return -EPERM;
	c.scratch->now.inode = (u64)BPF_CORE_READ(bprm, file, f_inode);
	c.scratch->now.file = (u64)BPF_CORE_READ(bprm, file);
	begin(&c, shape, &a);
	SCAN(&c, 0, STEPS_PREEMPTIBLE, step_exec);
	return close_call(&c, verdict(&c));
}

/* Things that the kernel has copied already: a string, or (len) bytes; then more. */
static __noinline int judge_copy(u32 channel, u64 inode, u64 base, u64 len, struct user_iovec *more)
{
	struct call c;
	struct args a;
	int answer;

	read_args(&a, (void *)bpf_task_pt_regs(bpf_get_current_task_btf()));
	if (!open_call(&c, bpf_get_current_task_btf(), channel, a.nr))
		return -EPERM;
	c.scratch->now.inode = inode;
	COUNT(c.count->calls, 1);
	if (len) {
		begin_buf(&c, base, len);
	} else {
		c.scratch->now.base = base;
		c.scratch->now.string = 1;
	}
	SCAN(&c, 0, STEPS, step_kernel);
	answer = verdict(&c);
	if (!answer && more) {
		begin_buf(&c, more->base, more->len);
		SCAN(&c, 0, STEPS, step_kernel);
		answer = verdict(&c);
	}
	return close_call(&c, answer);
}

static __always_inline int judge_name(struct inode *dir, struct dentry *dentry)
{
	if (!in_scope(bpf_get_current_task_btf()))
		return 0;
	return judge_copy(CHANNEL_NAME, (u64)dir, (u64)BPF_CORE_READ(dentry, d_name.name), BPF_CORE_READ(dentry, d_name.len), 0);
}

HOOK(inode_create)
int BPF_PROG(inode_create, struct inode *dir, struct dentry *dentry, u16 mode, int ret)
{
	return ret ?: judge_name(dir, dentry);
}

HOOK(inode_mkdir)
int BPF_PROG(inode_mkdir, struct inode *dir, struct dentry *dentry, u16 mode, int ret)
{
	return ret ?: judge_name(dir, dentry);
}

HOOK(inode_mknod)
int BPF_PROG(inode_mknod, struct inode *dir, struct dentry *dentry, u16 mode, u32 dev, int ret)
{
	return ret ?: judge_name(dir, dentry);
}

HOOK(inode_link)
int BPF_PROG(inode_link, struct dentry *old, struct inode *dir, struct dentry *dentry, int ret)
{
	return ret ?: judge_name(dir, dentry);
}

HOOK(inode_rename)
int BPF_PROG(inode_rename, struct inode *from, struct dentry *old, struct inode *dir, struct dentry *dentry, int ret)
{
	return ret ?: judge_name(dir, dentry);
}

HOOK(inode_symlink)
int BPF_PROG(inode_symlink, struct inode *dir, struct dentry *dentry, const char *target, int ret)
{
	ret = ret ?: judge_name(dir, dentry);
	if (ret || !in_scope(bpf_get_current_task_btf()))
		return ret;
	return judge_copy(CHANNEL_LINK, (u64)dir, (u64)target, 0, 0);
}

HOOK(inode_setxattr)
int BPF_PROG(inode_setxattr, void *idmap, struct dentry *dentry, const char *name, const void *value, u64 size, int flags, int ret)
{
	struct user_iovec bytes = {0, size};

	if (ret || !in_scope(bpf_get_current_task_btf()))
		return ret;
	bpf_get_func_arg(ctx, 3, &bytes.base); /* verifiers refuse a const void *value */
	return judge_copy(CHANNEL_XATTR, (u64)BPF_CORE_READ(dentry, d_inode), (u64)name, 0, &bytes);
}

/* What follows moves bytes by ways that nobody can look at. */

/* A ring is a nameless file of this name. The hook uring_allowed has been there since 6.15 only. */
HOOK(inode_init_security_anon)
int BPF_PROG(inode_init_security_anon, struct inode *inode, const struct qstr *name, const struct inode *context, int ret)
{
	const unsigned char *at;
	char word[10] = {};

	if (ret || !in_scope(bpf_get_current_task_btf()))
		return ret;
	at = BPF_CORE_READ(name, name);
	bpf_probe_read_kernel(word, sizeof(word), at);
	if (*(u64 *)word == *(u64 *)"[io_urin" && word[8] == 'g')
		return unseen(CHANNEL_OTHER, -ENOSYS);
	return 0;
}

static __always_inline int judge_ioctl(struct file *file, u32 cmd)
{
	switch (cmd) {
	case TIOCSTI:
	case TIOCLINUX:
	case FICLONE:
	case FICLONERANGE:
		break;
	default:
		return 0;
	}
	if (!in_scope(bpf_get_current_task_btf()))
		return 0;
	if (cmd == TIOCSTI || cmd == TIOCLINUX)
		return unseen(CHANNEL_TERMINAL, -EPERM);
	return unseen(CHANNEL_FILE, -EOPNOTSUPP);
}

HOOK(file_ioctl)
int BPF_PROG(file_ioctl, struct file *file, unsigned int cmd, unsigned long arg, int ret)
{
	return ret ?: judge_ioctl(file, cmd);
}

HOOK(file_ioctl_compat)
int BPF_PROG(file_ioctl_compat, struct file *file, unsigned int cmd, unsigned long arg, int ret)
{
	return ret ?: judge_ioctl(file, cmd);
}

/* MSG_ZEROCOPY sends what the buffer holds later. */
HOOK(socket_setsockopt)
int BPF_PROG(socket_setsockopt, struct socket *sock, int level, int name, int ret)
{
	if (ret || level != SOL_SOCKET || name != SO_ZEROCOPY || !in_scope(bpf_get_current_task_btf()))
		return ret;
	return unseen(CHANNEL_SOCKET, -EINVAL);
}

/* Their rings send what is stored in shared memory. */
HOOK(socket_create)
int BPF_PROG(socket_create, int family, int type, int protocol, int kern, int ret)
{
	if (ret || kern || (family != AF_PACKET && family != AF_XDP) || !in_scope(bpf_get_current_task_btf()))
		return ret;
	return unseen(CHANNEL_SOCKET, -EAFNOSUPPORT);
}

#endif
