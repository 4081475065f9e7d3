/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The search in one piece of bytes, and what is kept between two. Who includes this
 * says how to count (COUNT) and whether a find refuses the call (REFUSE).
 */
#ifndef GUARD_SEARCH_H
#define GUARD_SEARCH_H

#include "report.h"

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

struct table_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, 1 << 10); /* BPF_F_MMAPABLE: only what is not zero is written to it */
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

struct call {
	struct table *table;
	struct scratch *scratch;
	struct counters *count;
#ifndef NO_LOOP /* there the stack is short */
	u32 spare; /* scratch must be given back */
#endif
};

/*
 * Each step is a function that bpf_loop calls. Without it (NO_LOOP) a step is part
 * of a bounded loop, and the loops are in functions that the verifier looks at
 * once each, by themselves: global ones. Those are given no pointers before 5.12, and
 * find again what struct call has. A call whose pieces see two tables
 * is still searched for all that both of them have.
 */
#ifdef NO_LOOP
#define STEP static __always_inline long
#else
#define STEP static long
#endif

/* The rare part of the search in a function of its own is good for others, too: the verifier goes through what is in loops in
 * loops again and again. */
#ifdef APART
static __always_inline int call_again(struct call *c)
{
	u32 zero = 0, channel;
	void *inner;

	c->scratch = bpf_map_lookup_elem(&scratches, &zero);
	inner = bpf_map_lookup_elem(&tables, &zero);
	if (!c->scratch || !inner)
		return 0;
	channel = c->scratch->now.channel;
	c->table = bpf_map_lookup_elem(inner, &zero);
	c->count = bpf_map_lookup_elem(&stats, &channel);
	return c->table && c->count;
}
#endif

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

/* Set before loading: the bytes around a needle go with its event. */
const volatile u32 windows;

#define PIECE 4096

struct hit {
	struct event event;
	s64 window_at; /* of window[0] in this call's bytes */
	u32 window_from, window_upto; /* what of it holds something */
	u8 window[SEGMENT + PIECE];
};

static __always_inline void tell_needle(struct call *c, struct event *e, u32 end, struct entry *entry)
{
	struct progress *now = &c->scratch->now;

	describe(e, now);
	e->kind = REFUSE ? KIND_REFUSED : KIND_SEEN;
	e->offset = (s64)(now->done + end - SEGMENT) - entry->upto;
	e->generation = c->table->generation;
	e->needle = entry->id;
	e->length = entry->len;
}

static __noinline int report(struct call *c, u32 end, struct entry *entry)
{
	struct progress *now = &c->scratch->now;
	struct event *e;

	COUNT(c->count->hits, 1);
	now->found = 1;
	if (windows) {
		struct hit *h = bpf_ringbuf_reserve(&events, sizeof(*h), 0);

		if (!h) {
			COUNT(c->count->dropped, 1);
			return 0;
		}
		tell_needle(c, &h->event, end, entry);
		h->window_at = (s64)now->done - SEGMENT;
		h->window_from = SEGMENT - c->scratch->tail.len;
		h->window_upto = SEGMENT + now->len;
		bpf_probe_read_kernel(h->window, sizeof(h->window), c->scratch->tail.bytes);
		bpf_ringbuf_submit(h, 0);
		return 0;
	}
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		COUNT(c->count->dropped, 1);
		return 0;
	}
	tell_needle(c, e, end, entry);
	bpf_ringbuf_submit(e, 0);
	return 0;
}

/*
 * One slot of the table. The window ends at now->end; the tag does not say at
 * which of the eight places in its needle, so entry is (index << 3 | place),
 * place being how many bytes of the needle come after the window.
 */
STEP look_slot(u32 i, void *ctx)
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

#ifdef NO_LOOP
__noinline int look_slots(void)
{
	struct call c;

	if (!call_again(&c))
		return 0;
	for (u32 i = 0; i < PROBES; i++) {
		if (look_slot(i, &c))
			break;
	}
	return 0;
}
#endif

STEP look_window(u32 i, void *ctx)
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
#ifdef NO_LOOP
	look_slots();
#else
	bpf_loop(PROBES, look_slot, c, 0);
#endif
	return 0;
}

#ifdef APART
__noinline int look_windows(void)
{
	struct call c;

	if (!call_again(&c))
		return 0;
	if (!c.scratch->now.hits)
		return 0;
#ifdef NO_LOOP
#pragma unroll
	for (u32 i = 0; i < BATCH; i++)
		look_window(i, &c);
#else
	bpf_loop(BATCH, look_window, &c, 0);
#endif
	c.scratch->now.hits = 0;
	return 0;
}
#endif

/* Eight windows, with one branch for all of them: most batches hit nothing. */
STEP scan_batch(u32 i, void *ctx)
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
#ifndef APART
		bpf_loop(BATCH, look_window, c, 0);
#elif !defined(NO_LOOP) /* there it is look_piece's */
		look_windows();
#endif
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

#ifdef NO_LOOP
#define BATCHES ((WINDOW + STRIDE - 2 + PAGE - WINDOW) / (BATCH * STRIDE) + 1)

#define SOME 13 /* batches: loops in loops, since the verifier goes through each of them turn by turn */

/* The next batches of the piece, up to one that hits. 1: those were the last. */
__noinline int look_batches(void)
{
	struct progress *now;
	struct call c;
	u32 upto, next;

	if (!call_again(&c))
		return 1;
	now = &c.scratch->now;
	next = now->next;
	upto = ((WINDOW + STRIDE - 2 + now->len - WINDOW) / (BATCH * STRIDE) + 1) << (c.table->passes & 3);
	for (u32 i = 0; i < SOME; i++, next++) {
		if (next >= upto || scan_batch(next, &c))
			return 1;
		if (now->hits) {
			now->next = next + 1;
			return 0;
		}
	}
	now->next = next;
	return 0;
}

__noinline int shift_piece(void)
{
	struct progress *now;
	struct call c;

	if (!call_again(&c))
		return 0;
	now = &c.scratch->now;
	shift_tail(&c);
	now->base += now->ready;
	now->done += now->ready;
	now->ready = now->next = 0;
	return 0;
}

/*
 * The piece in scratch. What is called here is called from no deeper: the stacks of
 * all that wait for each other may have 512 bytes together.
 */
__noinline int look_piece(void)
{
	for (u32 i = 0; i < BATCHES << 3; i++) {
		if (look_batches())
			break;
		look_windows();
	}
	return shift_piece();
}
#endif

#if defined(APART) && !defined(NO_LOOP)
__noinline int look_apart(void)
{
	struct call c;

	if (!call_again(&c))
		return 0;
	bpf_loop(((WINDOW + STRIDE - 2 + c.scratch->now.len - WINDOW) / (BATCH * STRIDE) + 1) << (c.table->passes & 3), scan_batch, &c, 0);
	return shift_tail(&c);
}
#endif

#endif
