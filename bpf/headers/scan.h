/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * One call, from its arguments to its last byte.
 */
#ifndef GUARD_SCAN_H
#define GUARD_SCAN_H

#include "search.h"

/* Where the bytes of a call are, and how they may be read. */
#define IN_USER 0
#define MAY_FAULT 1    /* a page that is not there may be waited for */
#define IOV_IN_KERNEL 2
#define IN_KERNEL 4

#define SYSCALLS 512

/*
 * Parts (headers, iovecs, strings, pieces of a page) of one call. Where it runs
 * with preemption off a hostile sendmmsg of a million iovecs must end. One
 * iovec array of 1024 needs fewer than 4096.
 */
#define STEPS 8192
#define STEPS_PREEMPTIBLE (1 << 18)

/* Set before loading. */
const volatile u32 rescans; /* say what else must be searched */
const volatile u8 shapes[SYSCALLS];
const volatile u64 max_bytes; /* scanned of one call */

/* What is done about n new bytes. Who only hands them on says so. */
#ifndef LOOK
#ifdef NO_LOOP
#define LOOK(c, n) (now->ready = (n)) /* some_steps() does */
#elif defined(APART)
#define LOOK(c, n) look_apart()
#else
#define LOOK(c, n)                                                                                     \
	do {                                                                                           \
		bpf_loop(((WINDOW + STRIDE - 2 + n - WINDOW) / (BATCH * STRIDE) + 1) << (c->table->passes & 3), \
			 scan_batch, c, 0);                                                            \
		shift_tail(c);                                                                         \
	} while (0)
#endif
#endif

static __always_inline long read_bytes(void *to, u32 n, u64 from, const int how)
{
	if (how & IN_KERNEL)
		return bpf_probe_read_kernel(to, n, (void *)from);
#ifdef SLEEPABLE
	if (how & MAY_FAULT)
		return bpf_copy_from_user(to, n, (void *)from);
#endif
	return bpf_probe_read_user(to, n, (void *)from);
}

/* Length with its NUL; more than n if it goes on after n bytes; < 0: unreadable. */
static __always_inline long read_string(void *to, u32 n, u64 from, const int how)
{
	if (how & IN_KERNEL)
		return bpf_probe_read_kernel_str(to, n + 1, (void *)from);
#ifdef SLEEPABLE
	if (how & MAY_FAULT) {
		u8 touch;

		bpf_copy_from_user(&touch, 1, (void *)from);
	}
#endif
	return bpf_probe_read_user_str(to, n + 1, (void *)from);
}

/*
 * One step: the next message header, or the next iovec or string, or the next
 * piece of bytes, which never crosses a page, so that an absent page hides no
 * other.
 */
static __always_inline long one_step(struct call *c, const int how)
{
	struct progress *now = &c->scratch->now;
	u64 room;
	long got;
	u32 n;

	if (!now->left && !now->string) {
		if (now->niovs) {
			struct user_iovec v;

			if (read_bytes(&v, sizeof(v), now->iovs, how & IOV_IN_KERNEL ? IN_KERNEL : how)) {
				COUNT(c->count->unreadable_calls, 1);
				now->niovs = 0;
				forget(c);
				return 0;
			}
			now->iovs += sizeof(v);
			now->niovs--;
			if (now->skip) {
				u64 skip = now->skip < v.len ? now->skip : v.len;

				v.base += skip;
				v.len -= skip;
				now->skip -= skip;
			}
			now->base = v.base;
			now->left = v.len <= 0x7fffffff ? v.len : 0x7fffffff;
			COUNT(c->count->seen, now->left);
			return 0;
		}
		if (now->nmsgs) {
			struct user_msghdr m;

			if (read_bytes(&m, sizeof(m), now->msgs, how)) {
				COUNT(c->count->unreadable_calls, 1);
				now->nmsgs = 0;
				forget(c);
				return 1;
			}
			now->msgs += sizeof(struct user_mmsghdr);
			now->nmsgs--;
			now->iovs = m.iov;
			now->niovs = m.iovlen <= 1024 ? m.iovlen : 1024;
			return 0;
		}
		if (now->strings) {
			u64 at = 0;

			if (read_bytes(&at, sizeof(at), now->strings, how)) {
				COUNT(c->count->unreadable_calls, 1);
				forget(c);
				at = 0;
			}
			now->strings += sizeof(at);
			now->base = at;
			now->string = !!at;
			if (!at) {
				now->strings = now->more;
				now->more = 0;
			}
			return 0;
		}
		return 1;
	}

	room = now->done < max_bytes ? max_bytes - now->done : 0;
	if (!room) {
		COUNT(c->count->oversize, now->left);
		forget(c);
		now->done += now->left;
		now->left = 0;
		if (now->string) {
			COUNT(c->count->oversize_calls, 1);
			now->string = 0;
			now->strings = 0;
		}
		return 0;
	}
	n = PAGE - (now->base & (PAGE - 1));
	if (!now->string && n > now->left)
		n = now->left;
	if (n > room)
		n = room;
	barrier_var(n); /* else the compiler, who knows the bound, drops what the verifier needs */
	if (n == 0 || n > PAGE)
		return 1;
	if (now->string) {
		got = read_string(c->scratch->data, n, now->base, how);
		if (got <= 0) {
			COUNT(c->count->unreadable_calls, 1);
			now->string = 0;
			forget(c);
			return 0;
		}
		if (got <= n) {
			now->string = 0;
			n = got;
		}
		COUNT(c->count->seen, n);
	} else {
		got = read_bytes(c->scratch->data, n, now->base, how) ? -1 : 1;
		now->left -= n;
	}
	now->len = n;
	if (got < 0) {
		COUNT(c->count->unreadable, n);
		forget(c);
	} else {
		COUNT(c->count->scanned, n);
		LOOK(c, n);
	}
#ifdef NO_LOOP
	if (now->ready)
		return 0;
#endif
	now->base += n;
	now->done += n;
	return 0;
}

#ifdef NO_LOOP
__noinline int step(void)
{
	struct call c;

	if (!call_again(&c))
		return 1;
	if (one_step(&c, IN_USER))
		return 1;
	return c.scratch->now.ready ? 2 : 0;
}

__noinline int some_steps(void)
{
	for (u32 i = 0; i < 128; i++) {
		int did = step();

		if (did == 1)
			return 1;
		if (did == 2)
			look_piece();
	}
	return 0;
}

#define EACH_STEP(c, steps, step)                           \
	do {                                                \
		for (u32 _i = 0; _i < (steps) / 128; _i++) { \
			if (some_steps())                   \
				break;                      \
		}                                           \
	} while (0)
#else
static long step(u32 i, void *ctx)
{
	return one_step(ctx, IN_USER);
}

#define EACH_STEP(c, steps, step) bpf_loop(steps, step, c, 0)
#endif

struct args {
	u64 a0, a1, a2, a3, nr;
};

/* Of the system call that this task is in. */
static __always_inline void read_args(struct args *a, void *regs)
{
	if (bpf_core_field_exists(((struct pt_regs___x86 *)0)->di)) {
		struct pt_regs___x86 *r = regs;

		a->nr = BPF_CORE_READ(r, orig_ax);
		a->a0 = BPF_CORE_READ(r, di);
		a->a1 = BPF_CORE_READ(r, si);
		a->a2 = BPF_CORE_READ(r, dx);
		a->a3 = BPF_CORE_READ(r, r10);
	} else {
		struct pt_regs___arm64 *r = regs;

		a->nr = BPF_CORE_READ(r, syscallno);
		a->a0 = BPF_CORE_READ(r, regs[0]);
		a->a1 = BPF_CORE_READ(r, regs[1]);
		a->a2 = BPF_CORE_READ(r, regs[2]);
		a->a3 = BPF_CORE_READ(r, regs[3]);
	}
}

static __always_inline u64 call_number(void *regs)
{
	if (bpf_core_field_exists(((struct pt_regs___x86 *)0)->di))
		return BPF_CORE_READ((struct pt_regs___x86 *)regs, orig_ax);
	return BPF_CORE_READ((struct pt_regs___arm64 *)regs, syscallno);
}

/* A 6.1 verifier forgets a comparison when what was compared is spilled: a mask
 * that the compiler may not drop. */
static __always_inline u32 shape_of(u64 nr)
{
	if (nr >= SYSCALLS)
		return SHAPE_NONE;
	barrier_var(nr);
	return shapes[nr & (SYSCALLS - 1)];
}

static __always_inline void begin_buf(struct call *c, u64 base, u64 len)
{
	c->scratch->now.base = base;
	c->scratch->now.left = len <= 0x7fffffff ? len : 0x7fffffff;
	COUNT(c->count->seen, c->scratch->now.left);
}

/* What the arguments of a call say about its bytes. */
static __always_inline void begin(struct call *c, u32 shape, struct args *a)
{
	struct progress *now = &c->scratch->now;

	COUNT(c->count->calls, 1);
	switch (shape) {
	case SHAPE_BUF:
	case SHAPE_QUEUE:
		begin_buf(c, a->a1, a->a2);
		break;
	case SHAPE_XATTR:
		begin_buf(c, a->a2, a->a3);
		break;
	case SHAPE_UNMAP:
		begin_buf(c, a->a0, a->a1);
		break;
	case SHAPE_IOV:
		now->iovs = a->a1;
		now->niovs = a->a2 <= 1024 ? a->a2 : 1024;
		break;
	case SHAPE_MSG:
		now->msgs = a->a1;
		now->nmsgs = 1;
		break;
	case SHAPE_MMSG:
		now->msgs = a->a1;
		now->nmsgs = (u32)a->a2 <= 1024 ? (u32)a->a2 : 1024;
		break;
	case SHAPE_EXEC:
		now->strings = a->a1;
		now->more = a->a2;
		break;
	case SHAPE_EXECAT:
		now->strings = a->a2;
		now->more = a->a3;
		break;
	case SHAPE_TARGET:
	case SHAPE_NAME0:
	case SHAPE_OPEN:
		now->base = a->a0;
		now->string = 1;
		break;
	case SHAPE_NAME1:
	case SHAPE_OPENAT:
		now->base = a->a1;
		now->string = 1;
		break;
	case SHAPE_NAME3:
		now->base = a->a3;
		now->string = 1;
		break;
	}
	/* No arguments at all, but an environment. */
	if (!now->strings && now->more) {
		now->strings = now->more;
		now->more = 0;
	}
}

/*
 * Bytes that follow each other at the other end are one stream, whichever
 * process, descriptor or opening they come from: so it goes by inode. The
 * address alone will not do, since a closed one's is used again. A file system
 * may use a number again, but not with its generation; what is no file has
 * numbers only.
 */
static __always_inline struct stream stream_of(struct inode *inode, u32 mode, s32 fd)
{
	struct stream s = {};

	if (inode) {
		s.where = (u64)inode;
		s.number = (mode & S_IFMT) == S_IFREG ? BPF_CORE_READ(inode, i_generation) : BPF_CORE_READ(inode, i_ino);
	} else {
		s.where = bpf_get_current_pid_tgid() >> 32 << 32 | (u32)fd;
	}
	return s;
}

/* Looks at all bytes of the call. tail is what is known of its stream, or 0. */
#define SCAN(c, known, steps, step)                                       \
	do {                                                              \
		struct tail *_tail = known;                               \
		if (_tail)                                                \
			(c)->scratch->tail = *_tail;                      \
		else                                                      \
			(c)->scratch->tail.len = 0;                       \
		EACH_STEP(c, steps, step);                                \
		end_scan(c);                                              \
	} while (0)

static __always_inline void end_scan(struct call *c)
{
	struct progress *now = &c->scratch->now;

	if (now->left || now->niovs || now->nmsgs || now->strings || now->string) {
		COUNT(c->count->oversize_calls, 1);
		COUNT(c->count->oversize, now->left);
		forget(c);
	}
}

static __always_inline void keep(struct call *c, struct stream *key, struct tail *tail)
{
	if (tail)
		*tail = c->scratch->tail;
	else if (bpf_map_update_elem(&tails, key, &c->scratch->tail, BPF_ANY))
		COUNT(c->count->tails_lost, 1);
}

#endif
