//go:build ignore

/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Refuses what holds a known value, before a byte of it is out: the same search
 * as in detect.bpf.c, from hooks that may say no. headers/refuse.h has them.
 */
#define HOOK(name) SEC("lsm/" #name)
#define HOOK_SLEEPS(name) SEC("lsm.s/" #name)
#define SLEEPABLE 1
#include "headers/refuse.h"

/*
 * A file that is mapped so that stores reach it changes without a call. User
 * space is told of the mapping, and once more when the last reference to the
 * opened file is gone: by then all of it is written. These two hooks cannot be
 * had by way of fmod_ret, since the second one returns nothing.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 14);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, u32); /* tgid */
} mapped SEC(".maps");

static __always_inline void tell_file(struct file *file, u32 kind)
{
	struct progress now = {};
	struct counters *count;
	u32 channel = CHANNEL_MAPPING;

	count = bpf_map_lookup_elem(&stats, &channel);
	if (!count)
		return;
	now.inode = (u64)BPF_CORE_READ(file, f_inode);
	now.file = (u64)file;
	now.channel = channel;
	now.fd = -1;
	tell(&now, count, kind);
}

SEC("lsm/mmap_file")
int BPF_PROG(mmap_file, struct file *file, unsigned long reqprot, unsigned long prot, unsigned long flags, int ret)
{
	u64 key = (u64)file;
	u32 type = flags & MAP_TYPE, tgid;

	if (ret || !key || (type != MAP_SHARED && type != MAP_SHARED_VALIDATE))
		return ret;
	if (!(BPF_CORE_READ(file, f_mode) & FMODE_WRITE) || (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFREG)
		return 0;
	if (!in_scope(bpf_get_current_task_btf()))
		return 0;
	if (bpf_map_lookup_elem(&mapped, &key))
		return 0;
	tgid = bpf_get_current_pid_tgid() >> 32;
	if (bpf_map_update_elem(&mapped, &key, &tgid, BPF_ANY))
		return strict ? -EPERM : 0;
	tell_file(file, KIND_MAPPED);
	return 0;
}

SEC("lsm/file_free_security")
int BPF_PROG(file_free_security, struct file *file)
{
	u64 key = (u64)file;

	if (over || !bpf_map_lookup_elem(&mapped, &key))
		return 0;
	bpf_map_delete_elem(&mapped, &key);
	tell_file(file, KIND_UNMAPPED);
	return 0;
}
