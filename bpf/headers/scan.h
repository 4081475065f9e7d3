/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * One call, from its arguments to its last byte. Who includes this says how to
 * count (COUNT) and whether a find refuses the call (REFUSE).
 */
#ifndef GUARD_SCAN_H
#define GUARD_SCAN_H

/* How a system call names its bytes. */
enum shape {
	SHAPE_NONE,
	SHAPE_BUF,  /* fd, buf, len */
	SHAPE_IOV,  /* fd, iov, count */
	SHAPE_MSG,  /* fd, msghdr */
	SHAPE_MMSG, /* fd, mmsghdr, count */
};

struct event {
	u64 time; /* CLOCK_MONOTONIC, ns */
	u64 cgroup;
	u64 inode;
	s64 offset; /* of the needle's first byte in this write; < 0: began earlier */
	u64 generation;
	u32 needle;
	u32 length;
	u32 pid; /* thread */
	u32 tgid;
	s32 fd;
	u32 syscall;
	u32 device;
	u32 channel;
	u32 refused; /* the call failed because of it */
	u32 unused;
	u8 comm[16];
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
};

#define SYSCALLS 512

/*
 * Parts (headers, iovecs, pieces of a page) of one call. All of this runs with
 * preemption off, so a hostile sendmmsg of a million iovecs must end. One
 * iovec array of 1024 needs fewer than 4096.
 */
#define STEPS 8192

/* Set before loading. */
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

static __noinline int report(struct call *c, u32 end, struct entry *entry)
{
	struct progress *now = &c->scratch->now;
	struct file *file = (struct file *)now->file; /* BPF_CORE_READ would relocate now->file too */
	struct inode *inode;
	struct event *e;
	u64 ids;

	COUNT(c->count->hits, 1);
	now->found = 1;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		COUNT(c->count->dropped, 1);
		return 0;
	}
	ids = bpf_get_current_pid_tgid();
	e->time = bpf_ktime_get_ns();
	e->cgroup = bpf_get_current_cgroup_id();
	e->offset = (s64)(now->done + end - SEGMENT) - entry->upto;
	e->generation = c->table->generation;
	e->needle = entry->id;
	e->length = entry->len;
	e->pid = ids;
	e->tgid = ids >> 32;
	e->fd = now->fd;
	e->syscall = now->nr;
	e->channel = now->channel;
	e->refused = REFUSE;
	e->unused = 0;
	e->inode = 0;
	e->device = 0;
	if (file) {
		inode = BPF_CORE_READ(file, f_inode);
		e->inode = BPF_CORE_READ(inode, i_ino);
		e->device = BPF_CORE_READ(inode, i_sb, s_dev);
	}
	bpf_get_current_comm(e->comm, sizeof(e->comm));
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
	u32 pos = POS_FIRST + i * BATCH * STRIDE;
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

/*
 * One step: the next message header, or the next iovec, or the next piece of
 * bytes, which never crosses a page, so that an absent page hides no other.
 */
static long step(u32 i, void *ctx)
{
	struct call *c = ctx;
	struct progress *now = &c->scratch->now;
	u64 room;
	u32 n;

	if (!now->left) {
		if (now->niovs) {
			struct user_iovec v;

			if (bpf_probe_read_user(&v, sizeof(v), (void *)now->iovs)) {
				COUNT(c->count->unreadable_calls, 1);
				now->niovs = 0;
				forget(c);
				return 0;
			}
			now->iovs += sizeof(v);
			now->niovs--;
			now->base = v.base;
			now->left = v.len <= 0x7fffffff ? v.len : 0x7fffffff;
			COUNT(c->count->seen, now->left);
			return 0;
		}
		if (now->nmsgs) {
			struct user_msghdr m;

			if (bpf_probe_read_user(&m, sizeof(m), (void *)now->msgs)) {
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
		return 1;
	}

	room = now->done < max_bytes ? max_bytes - now->done : 0;
	if (!room) {
		COUNT(c->count->oversize, now->left);
		now->done += now->left;
		now->left = 0;
		forget(c);
		return 0;
	}
	n = PAGE - (now->base & (PAGE - 1));
	if (n > now->left)
		n = now->left;
	if (n > room)
		n = room;
	barrier_var(n); /* else the compiler, who knows the bound, drops what the verifier needs */
	if (n == 0 || n > PAGE)
		return 1;
	now->len = n;
	if (bpf_probe_read_user(c->scratch->data, n, (void *)now->base)) {
		COUNT(c->count->unreadable, n);
		forget(c);
	} else {
		COUNT(c->count->scanned, n);
		bpf_loop((WINDOW + STRIDE - 2 + n - WINDOW) / (BATCH * STRIDE) + 1, scan_batch, c, 0);
		shift_tail(c);
	}
	now->base += n;
	now->left -= n;
	now->done += n;
	return 0;
}

/* What the arguments of a call say about its bytes. */
static __always_inline void begin(struct call *c, u32 shape, u64 a1, u64 a2)
{
	struct progress *now = &c->scratch->now;

	COUNT(c->count->calls, 1);
	switch (shape) {
	case SHAPE_BUF:
		now->base = a1;
		now->left = a2 <= 0x7fffffff ? a2 : 0x7fffffff;
		COUNT(c->count->seen, now->left);
		break;
	case SHAPE_IOV:
		now->iovs = a1;
		now->niovs = a2 <= 1024 ? a2 : 1024;
		break;
	case SHAPE_MSG:
		now->msgs = a1;
		now->nmsgs = 1;
		break;
	case SHAPE_MMSG:
		now->msgs = a1;
		now->nmsgs = (u32)a2 <= 1024 ? (u32)a2 : 1024;
		break;
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
static __always_inline void scan(struct call *c, struct tail *tail)
{
	struct progress *now = &c->scratch->now;

	if (tail)
		c->scratch->tail = *tail;
	else
		c->scratch->tail.len = 0;
	bpf_loop(STEPS, step, c, 0);
	if (now->left || now->niovs || now->nmsgs) {
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
