/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What the search reads. table.go builds it and explains it; the hash
 * functions exist twice and must agree.
 */
#ifndef GUARD_MATCH_H
#define GUARD_MATCH_H

#define WINDOW 8    /* bytes of one window */
#define STRIDE 8    /* bytes between two windows that are looked at */
#define SEGMENT 128 /* bytes of a needle that are confirmed, at most */
#define PAGE 4096

#define BITMAP_WORDS (1 << 16) /* 4 Mibit */
#ifdef NO_LOOP
/* Such kernels take no values of more than 4 MiB. */
#define ENTRIES (1 << 14)
#else
#define ENTRIES (1 << 15)
#endif
#define SLOTS (ENTRIES << 4)
#define PROBES 128 /* slots looked at for one window */

#define BATCH 8 /* windows in one step of the loop */
#define FAST (WINDOW + STRIDE - 1) /* bytes of the shortest needle of the full stride */

#define POS_MASK 8191

struct slot {
	u32 tag;
	u32 entry; /* 0: free */
};

struct entry {
	u64 sum; /* keyed hash of the segment */
	u32 id;
	u32 len;     /* of the needle */
	u32 upto;    /* bytes of the needle up to the segment's end */
	u32 segment; /* bytes of the segment */
};

struct table {
	u64 key[4];
	u32 bitmap_shift; /* 64 - 12 - log2(words in use) */
	u32 slot_shift;   /* 32 - log2(slots in use) */
	/*
	 * 0; with needles shorter than FAST, the buffer is gone over 1 << passes
	 * times, each time STRIDE >> passes bytes further in: a smaller stride.
	 */
	u32 passes;
	u32 room; /* ENTRIES - 1: for who writes it */
	u64 generation;
	u64 bitmap[BITMAP_WORDS]; /* a Bloom filter, both bits of a window in one word */
	struct slot slots[SLOTS];
	struct entry entries[ENTRIES];
};

/*
 * What a stream's last bytes were. Followed in memory by the bytes that come
 * next, so that a value split over two writes lies in one piece.
 */
struct tail {
	u64 len;
	u8 bytes[SEGMENT];
};

/*
 * One call, from its first message to its last byte. It is in a map and not on
 * the stack since the verifier keeps track of what is on the stack: it would
 * look at every step of every loop anew.
 */
struct progress {
	u64 msgs;    /* user address of the next mmsghdr */
	u64 iovs;    /* address of the next iovec */
	u64 skip;    /* bytes of it that have gone out already */
	u64 strings; /* user address of the next pointer to a string */
	u64 more;    /* the same, of the array after that one */
	u64 base;    /* address of the next byte */
	u64 left;    /* bytes at base */
	u64 done;    /* bytes of this call before base */
	/* What it goes to, or 0: kernel addresses. */
	u64 inode;
	u64 file;
	u64 sock;    /* struct socket */
	u64 address; /* sockaddr, in the kernel */
	u64 began;   /* when the first find of this call was: all of them have it */
	u32 nmsgs;
	u32 niovs;
	u32 string; /* base is a string, however long */
	u32 len; /* bytes of the piece in scratch */
	u32 pos; /* of the batch whose windows hit */
	u32 pass; /* of the batch */
	u32 hits;
	u32 tag;
	u32 end; /* of the window that is looked up */
	u32 slot;
	s32 fd;
	u32 nr;
	u32 channel;
	u32 found;
	u32 gap; /* some bytes could not be looked at */
	u32 ready; /* NO_LOOP: bytes of a piece that has yet to be looked at, */
	u32 next;  /* and from which batch on */
};

struct scratch {
	struct progress now;
	struct tail tail;
	/*
	 * One page. The last batch reads beyond it; what it finds there is
	 * refused by look_slot(). The rest is never touched: it lets the
	 * verifier see that a masked position is within bounds.
	 */
	u8 data[POS_MASK + 1 - SEGMENT + BATCH * STRIDE + WINDOW];
};

/* A position in scratch is counted from tail.bytes; new data starts at SEGMENT. */
#define POS_MAX (SEGMENT + PAGE + BATCH * STRIDE)
/* A window that ends in new data, or whose needle does, starts here or later:
 * windows are taken from a segment's last 15 bytes. */
#define POS_FIRST (SEGMENT - (WINDOW + STRIDE - 2))

static __always_inline u64 window_hash(const struct table *t, u64 window)
{
	return (window ^ t->key[0]) * t->key[1];
}

static __always_inline u32 window_tag(const struct table *t, u64 window)
{
	u64 h = (window ^ t->key[2]) * t->key[3];

	h ^= h >> 29;
	return (h * t->key[1]) >> 32;
}

static __always_inline u8 *scratch_at(struct scratch *s, u32 pos)
{
	/* The mask is for the verifier alone: callers keep pos within bounds. */
	return (u8 *)s + __builtin_offsetof(struct scratch, tail.bytes) + (pos & POS_MASK);
}

#endif
