/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What user space is told.
 */
#ifndef GUARD_REPORT_H
#define GUARD_REPORT_H

struct event {
	u64 time; /* of the call's first find: CLOCK_MONOTONIC, ns */
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
	u32 uid;      /* ~0: it has another user's rights, too */
	u32 unused;
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

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} events SEC(".maps");

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

/*
 * Whose process it is, if it can do nothing that any other process of that user
 * could not: a set-user-ID program reads what its caller must not see.
 */
static __always_inline u32 plain_uid(struct task_struct *task)
{
	const struct cred *cred = BPF_CORE_READ(task, cred);
	u32 uid = BPF_CORE_READ(cred, uid.val);
	u32 gid = BPF_CORE_READ(cred, gid.val);
	u64 caps = 0, flags = 0;
	struct mm_struct *mm = BPF_CORE_READ(task, mm);

	if (uid != BPF_CORE_READ(cred, euid.val) || uid != BPF_CORE_READ(cred, suid.val) || uid != BPF_CORE_READ(cred, fsuid.val) ||
	    gid != BPF_CORE_READ(cred, egid.val) || gid != BPF_CORE_READ(cred, sgid.val))
		return ~0;
	/* Who asked not to be looked into (an agent of keys, guard itself). */
	if (bpf_core_field_exists(((struct mm_struct___word *)0)->flags))
		bpf_probe_read_kernel(&flags, sizeof(flags), (void *)mm + bpf_core_field_offset(struct mm_struct___word, flags));
	else
		bpf_probe_read_kernel(&flags, sizeof(flags), (void *)mm + bpf_core_field_offset(struct mm_struct___bitmap, flags));
	if (!mm || (flags & MMF_DUMPABLE_MASK) != SUID_DUMP_USER)
		return ~0;
	bpf_probe_read_kernel(&caps, sizeof(caps), (void *)cred + bpf_core_field_offset(struct cred, cap_permitted));
	/* In a user namespace below they are worth nothing to others. */
	if (uid && caps && !BPF_CORE_READ(cred, user_ns, level))
		return ~0;
	return uid;
}

/* Everything about the call but its bytes. */
static __always_inline void describe(struct event *e, struct progress *now)
{
	struct task_struct *task = current_task();
	struct inode *inode = (struct inode *)now->inode; /* BPF_CORE_READ would relocate now->inode too */
	struct file *file = (struct file *)now->file;
	struct socket *sock = (struct socket *)now->sock;
	const unsigned char *name;
	struct file *exe;
	u64 ids = bpf_get_current_pid_tgid();

	__builtin_memset(e, 0, sizeof(*e));
	if (!now->began)
		now->began = bpf_ktime_get_ns();
	e->time = now->began;
	e->cgroup = bpf_get_current_cgroup_id();
	e->pid = ids;
	e->tgid = ids >> 32;
	e->fd = now->fd;
	e->syscall = now->nr;
	e->channel = now->channel;
	e->uid = plain_uid(task);
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

#endif
