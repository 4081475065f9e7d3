/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * One call, from its arguments to its last byte. Who includes this says how to
 * count (COUNT) and whether a find refuses the call (REFUSE).
 */
#ifndef GUARD_SCAN_H
#define GUARD_SCAN_H

/* Where the bytes of a call are, and how they may be read. */
#define IN_USER 0
#define MAY_FAULT 1    /* a page that is not there may be waited for */
#define IOV_IN_KERNEL 2
#define IN_KERNEL 4

struct event {
	u64 time; /* CLOCK_MONOTONIC, ns */
	u64 cgroup;
	u64 inode;
	u64 exe_inode;
	s64 offset; /* of the needle's first byte in this write; < 0: began earlier */
	u64 generation;
	u32 needle;
	u32 length;
	u32 pid; /* thread */
	u32 tgid;
	s32 fd;
	u32 syscall;
	u32 device;
	u32 exe_device;
	u32 channel;
	u32 kind;     /* enum kind */
	u32 peer_pid; /* of a Unix socket's other end */
	u16 peer_family;
	u16 peer_port;
	u8 peer[16];
	u8 comm[16];
	u8 name[64]; /* last part of the path */
};

enum kind {
	KIND_SEEN,
	KIND_REFUSED,  /* the call failed because of the needle */
	KIND_MAPPED,   /* a file is mapped so that stores reach it */
	KIND_UNMAPPED, /* its last reference is gone */
	KIND_UNSEARCHED, /* some bytes of a call that passed could not be looked at */
};

/* Of an inode; or of a descriptor that is none: tgid<<32 | fd. */
struct stream {
	u64 where;
	u64 number;
};

struct counters {
	u64 calls;
	u64 seen;
	u64 scanned;
	u64 unreadable;
	u64 oversize;
	u64 unreadable_calls; /* an iovec or a message header could not be read */
	u64 oversize_calls;   /* too many parts: what was left is in no byte counter */
	u64 hits;
	u64 dropped;
	u64 tails_lost;
	u64 refused;  /* calls that failed: a needle, or strict */
	u64 away;     /* calls that failed since nobody can look at what they move */
	u64 unjudged; /* calls that passed without a look; not among calls */
};

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

struct table_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(u32));
	__uint(value_size, sizeof(struct table)); /* clang 14 forgets a __type in here */
};

/* The search table, swapped whole: a call sees the old one or the new one. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct table_map);
} tables SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct stream);
	__type(value, struct tail);
} tails SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, CHANNELS);
	__type(key, u32);
	__type(value, struct counters);
} stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} events SEC(".maps");

struct call {
	struct table *table;
	struct scratch *scratch;
	struct counters *count;
	u32 spare; /* scratch must be given back */
};

/* Hash of the len bytes up to end, 8 at a time, the last 8 overlapping. */
static __noinline u64 segment_sum(struct call *c, u32 end, u32 len)
{
	struct table *t = c->table;
	u32 pos = end - len;
	u64 h = t->key[2] + len;

	for (u32 i = 0; i < SEGMENT / 8; i++) {
		if (i * 8 + 8 > len)
			break;
		h = (h ^ *(u64 *)scratch_at(c->scratch, pos + i * 8)) * t->key[3];
		h ^= h >> 29;
	}
	h = (h ^ *(u64 *)scratch_at(c->scratch, end - 8)) * t->key[1];
	return h ^ h >> 32;
}

/* Who the socket's other end is: the address of this message, or of the connection. */
static __always_inline void name_peer(struct progress *now, struct event *e, struct socket *socket)
{
	struct sock *sk = BPF_CORE_READ(socket, sk);
	void *address = (void *)now->address;
	struct pid *pid;

	if (address) {
		bpf_probe_read_kernel(&e->peer_family, sizeof(e->peer_family), address);
		bpf_probe_read_kernel(&e->peer_port, sizeof(e->peer_port), address + 2);
		if (e->peer_family == AF_INET)
			bpf_probe_read_kernel(e->peer, 4, address + 4);
		else if (e->peer_family == AF_INET6)
			bpf_probe_read_kernel(e->peer, 16, address + 8);
		return;
	}
	e->peer_family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (e->peer_family == AF_INET) {
		e->peer_port = BPF_CORE_READ(sk, __sk_common.skc_dport);
		bpf_probe_read_kernel(e->peer, 4, (void *)sk + bpf_core_field_offset(struct sock, __sk_common.skc_daddr));
	} else if (e->peer_family == AF_INET6 && bpf_core_field_exists(((struct sock *)0)->__sk_common.skc_v6_daddr)) {
		e->peer_port = BPF_CORE_READ(sk, __sk_common.skc_dport);
		bpf_probe_read_kernel(e->peer, 16, (void *)sk + bpf_core_field_offset(struct sock, __sk_common.skc_v6_daddr));
	} else if (e->peer_family == AF_UNIX) {
		pid = BPF_CORE_READ(sk, sk_peer_pid);
		if (pid)
			e->peer_pid = BPF_CORE_READ(pid, numbers[0].nr);
	}
}

/* Everything about the call but its bytes. */
static __always_inline void describe(struct event *e, struct progress *now)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct inode *inode = (struct inode *)now->inode; /* BPF_CORE_READ would relocate now->inode too */
	struct file *file = (struct file *)now->file;
	struct socket *sock = (struct socket *)now->sock;
	const unsigned char *name;
	struct file *exe;
	u64 ids = bpf_get_current_pid_tgid();

	__builtin_memset(e, 0, sizeof(*e));
	e->time = bpf_ktime_get_ns();
	e->cgroup = bpf_get_current_cgroup_id();
	e->pid = ids;
	e->tgid = ids >> 32;
	e->fd = now->fd;
	e->syscall = now->nr;
	e->channel = now->channel;
	if (inode) {
		e->inode = BPF_CORE_READ(inode, i_ino);
		e->device = BPF_CORE_READ(inode, i_sb, s_dev);
	}
	if (file) {
		name = BPF_CORE_READ(file, f_path.dentry, d_name.name);
		bpf_probe_read_kernel_str(e->name, sizeof(e->name), name);
	}
	exe = BPF_CORE_READ(task, mm, exe_file);
	if (exe) {
		e->exe_inode = BPF_CORE_READ(exe, f_inode, i_ino);
		e->exe_device = BPF_CORE_READ(exe, f_inode, i_sb, s_dev);
	}
	if (!sock && file && now->channel == CHANNEL_SOCKET)
		sock = BPF_CORE_READ(file, private_data);
	if (sock)
		name_peer(now, e, sock);
	bpf_get_current_comm(e->comm, sizeof(e->comm));
}

static __noinline int report(struct call *c, u32 end, struct entry *entry)
{
	struct progress *now = &c->scratch->now;
	struct event *e;

	COUNT(c->count->hits, 1);
	now->found = 1;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		COUNT(c->count->dropped, 1);
		return 0;
	}
	describe(e, now);
	e->kind = REFUSE ? KIND_REFUSED : KIND_SEEN;
	e->offset = (s64)(now->done + end - SEGMENT) - entry->upto;
	e->generation = c->table->generation;
	e->needle = entry->id;
	e->length = entry->len;
	bpf_ringbuf_submit(e, 0);
	return 0;
}

/*
 * One slot of the table. The window ends at now->end; the tag does not say at
 * which of the eight places in its needle, so entry is (index << 3 | place),
 * place being how many bytes of the needle come after the window.
 */
static long look_slot(u32 i, void *ctx)
{
	struct call *c = ctx;
	struct progress *now = &c->scratch->now;
	struct table *t = c->table;
	struct slot *s = &t->slots[(now->slot + i) & (SLOTS - 1)];
	u32 entry = s->entry, len, end;
	struct entry *e;

	if (!entry)
		return 1;
	if (s->tag != now->tag)
		return 0;
	e = &t->entries[(entry >> 3) & (ENTRIES - 1)];
	end = now->end + (entry & 7);
	len = e->segment;
	/* Not all of it is here yet; or it began before what is known of the
	 * stream; or an earlier write reported it. */
	if (end > SEGMENT + now->len || end <= SEGMENT || len < WINDOW || len > SEGMENT)
		return 0;
	if (end - len < SEGMENT - c->scratch->tail.len)
		return 0;
	/* One of its eight windows lies in each pass: the first one counts. */
	if (now->pass && len >= FAST)
		return 0;
	if (segment_sum(c, end, len) == e->sum)
		report(c, end, e);
	return 0;
}

static long look_window(u32 i, void *ctx)
{
	struct call *c = ctx;
	struct progress *now = &c->scratch->now;
	u64 w;

	if (!(now->hits >> (i & 7) & 1))
		return 0;
	w = *(u64 *)scratch_at(c->scratch, now->pos + i * STRIDE);
	now->tag = window_tag(c->table, w);
	now->slot = now->tag >> (c->table->slot_shift & 31);
	now->end = now->pos + i * STRIDE + WINDOW;
	bpf_loop(PROBES, look_slot, c, 0);
	return 0;
}

/* Eight windows, with one branch for all of them: most batches hit nothing. */
static long scan_batch(u32 i, void *ctx)
{
	struct call *c = ctx;
	struct table *t = c->table;
	u32 passes = t->passes & 3;
	u32 pass = i & ((1 << passes) - 1);
	u32 pos = POS_FIRST + (i >> passes) * BATCH * STRIDE + pass * (STRIDE >> passes);
	u32 shift = t->bitmap_shift & 63;
	u32 hits = 0;
	u8 *p;

	p = scratch_at(c->scratch, pos);
	if (pos > POS_MAX - BATCH * STRIDE)
		return 1;
#pragma unroll
	for (int k = 0; k < BATCH; k++) {
		u64 b = window_hash(t, *(u64 *)(p + k * STRIDE)) >> shift;
		u64 word = t->bitmap[(b >> 12) & (BITMAP_WORDS - 1)];

		hits |= (word >> (b & 63) & word >> (b >> 6 & 63) & 1) << k;
	}
	if (hits) {
		struct progress *now = &c->scratch->now;

		now->hits = hits;
		now->pos = pos;
		now->pass = pass;
		bpf_loop(BATCH, look_window, c, 0);
	}
	return 0;
}

/* Bytes went by unseen: what comes next does not follow what is known. */
static __always_inline void forget(struct call *c)
{
	c->scratch->now.gap = 1;
	c->scratch->tail.len = 0;
}

/* The last bytes of tail and piece become the tail. */
static __noinline int shift_tail(struct call *c)
{
	struct scratch *s = c->scratch;
	u32 len = s->now.len;
	u64 have;

	if (len > PAGE)
		return 0;
#pragma unroll
	for (int i = 0; i < SEGMENT / 8; i++)
		*(u64 *)&s->tail.bytes[i * 8] = *(u64 *)scratch_at(s, len + i * 8);
	have = s->tail.len + len;
	s->tail.len = have < SEGMENT ? have : SEGMENT;
	return 0;
}

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
		bpf_loop(((WINDOW + STRIDE - 2 + n - WINDOW) / (BATCH * STRIDE) + 1) << (c->table->passes & 3), scan_batch, c, 0);
		shift_tail(c);
	}
	now->base += n;
	now->done += n;
	return 0;
}

static long step(u32 i, void *ctx)
{
	return one_step(ctx, IN_USER);
}

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
		bpf_loop(steps, step, c, 0);                              \
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
