/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Whose calls are looked at, which calls, and what a descriptor is.
 */
#ifndef GUARD_SCOPE_H
#define GUARD_SCOPE_H

/*
 * Without bpf_loop (before 5.17) loops are bounded ones, and without
 * bpf_get_current_task_btf (before 5.11) a task is an address that helpers
 * read from.
 */
#ifdef NO_LOOP
#define current_task() ((struct task_struct *)bpf_get_current_task())
#define FIELD(p, field) BPF_CORE_READ(p, field)
#else
#define current_task() bpf_get_current_task_btf()
#define FIELD(p, field) ((p)->field)
#endif

/* 0: no such scope. The pid namespace may be set after loading, the others not. */
volatile u32 scope_pidns;
const volatile u64 scope_cgroup;
const volatile u32 scope_tasks; /* those that are in members */
const volatile u32 scope_all;   /* but for this process (tgid): nobody watches himself */

/* How a system call names its bytes. */
enum shape {
	SHAPE_NONE,
	SHAPE_BUF,     /* fd, buf, len */
	SHAPE_IOV,     /* fd, iov, count */
	SHAPE_MSG,     /* fd, msghdr */
	SHAPE_MMSG,    /* fd, mmsghdr, count */
	SHAPE_EXEC,    /* path, argv, envp */
	SHAPE_EXECAT,  /* fd, path, argv, envp */
	SHAPE_XATTR,   /* path or fd, name, value, size */
	SHAPE_QUEUE,   /* queue, buf, len */
	SHAPE_TARGET,  /* string: of a symbolic link */
	SHAPE_NAME0,   /* the path of what is made is the first argument, ... */
	SHAPE_NAME1,
	SHAPE_NAME3,
	SHAPE_OPEN,    /* path, flags */
	SHAPE_OPENAT,  /* fd, path, flags */
	SHAPE_UNMAP,   /* address, len: of a mapping that ends or is synced */
	SHAPE_AWAY,    /* moves bytes from file to file that nobody can look at: taken away */
	SHAPE_RING,    /* may write bytes that its arguments do not name: then taken away */
};

/* Set when nobody watches any more: what is attached still lets go of the kernel
 * a little later. */
u32 over;

enum channel {
	CHANNEL_OTHER,
	CHANNEL_FILE,
	CHANNEL_PIPE,
	CHANNEL_SOCKET,
	CHANNEL_TERMINAL,
	CHANNEL_EXEC,  /* arguments and environment */
	CHANNEL_NAME,  /* of a file */
	CHANNEL_XATTR, /* extended attributes: name and value */
	CHANNEL_LINK,  /* target of a symbolic link */
	CHANNEL_QUEUE, /* message queues */
	CHANNEL_MAPPING,
	/* The file system below an overlay, which is told to write what was
	 * written to the overlay: the same bytes again. */
	CHANNEL_BACKING,
	CHANNELS,
};

/*
 * Processes that are in scope for good, by tgid: those that user space named or
 * that were once seen in the cgroup, and what they start. A process may leave a
 * cgroup; its past it keeps.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 16);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u32);
	__type(value, u32);
} members SEC(".maps");

/*
 * A session's processes are in its pid namespace or one below. A task never
 * changes the namespace that its own pid is in, so nothing leaves this scope.
 */
static __always_inline int in_pidns(struct task_struct *task)
{
	struct pid *pid = FIELD(task, thread_pid);
	struct nsproxy *proxy = FIELD(task, nsproxy);
	struct pid_namespace *ns;
	u32 level, wanted = scope_pidns;

	if (!pid || !wanted)
		return 0;
	/* Most of the machine, then most of a session, without reading memory
	 * by way of a helper. A task whose children only will be in the
	 * namespace (nsenter) is above it. */
	level = FIELD(pid, level);
	if (level == 0)
		return wanted == PROC_PID_INIT_INO;
	if (proxy) {
		ns = FIELD(proxy, pid_ns_for_children);
		if (ns && FIELD(ns, ns.inum) == wanted && level >= FIELD(ns, level))
			return 1;
	}
	/* Read anew by a helper, it is a number to the verifier, and can be added to. */
	pid = BPF_CORE_READ(task, thread_pid);
	for (u32 i = 0; i <= 32; i++) {
		if (i > level)
			break;
		struct upid *upid = (void *)pid + bpf_core_field_offset(struct pid, numbers) +
				    (level - i) * bpf_core_type_size(struct upid);

		ns = BPF_CORE_READ(upid, ns);
		if (BPF_CORE_READ(ns, ns.inum) == wanted)
			return 1;
	}
	return 0;
}

/* The v2 hierarchy; the cgroup itself or one below. */
static __always_inline int in_cgroup(void)
{
#ifdef NO_LOOP
	/* The helper has been there for tracepoints since 5.15 only. */
	struct cgroup *group = BPF_CORE_READ(current_task(), cgroups, dfl_cgrp);

	for (int i = 0; i < 32; i++) {
		struct cgroup_subsys_state *up;

		if (!group)
			break;
		if (BPF_CORE_READ(group, kn, id) == scope_cgroup)
			return 1;
		up = BPF_CORE_READ(group, self.parent);
		group = up ? (void *)up - bpf_core_field_offset(struct cgroup, self) : 0;
	}
	return 0;
#else
	for (int i = 0; i < 32; i++) {
		u64 id = bpf_get_current_ancestor_cgroup_id(i);

		if (!id)
			break;
		if (id == scope_cgroup)
			return 1;
	}
	return 0;
#endif
}

static __always_inline int is_member(u32 tgid)
{
	return bpf_map_lookup_elem(&members, &tgid) != 0;
}

static __always_inline int in_scope(struct task_struct *task)
{
	u32 tgid, one = 1;

	if (over)
		return 0;
	if (in_pidns(task))
		return 1;
	if (!scope_cgroup && !scope_tasks && !scope_all)
		return 0;
	tgid = bpf_get_current_pid_tgid() >> 32;
	if (scope_all && tgid != scope_all)
		return 1;
	if ((scope_cgroup || scope_tasks) && is_member(tgid))
		return 1;
	if (scope_cgroup && in_cgroup()) {
		bpf_map_update_elem(&members, &tgid, &one, BPF_ANY);
		return 1;
	}
	return 0;
}

/* A call by another ABI's number means something else here. */
static __always_inline int foreign(struct task_struct *task)
{
	if (bpf_core_field_exists(task->thread_info.status))
		return FIELD(task, thread_info.status) & 2; /* TS_COMPAT */
	return FIELD(task, thread_info.flags) >> 22 & 1;    /* arm64: TIF_32BIT */
}

static __always_inline struct file *file_of(struct task_struct *task, u32 fd)
{
	struct files_struct *files = FIELD(task, files);
	struct fdtable *table;
	struct file *file = 0;

	if (!files)
		return 0;
	table = FIELD(files, fdt);
	if (!table || fd >= FIELD(table, max_fds))
		return 0;
	bpf_probe_read_kernel(&file, sizeof(file), FIELD(table, fd) + fd);
	return file;
}

/* What does not end up in a file, pipe, socket or terminal says so by its call. */
static __always_inline u32 channel_of_shape(u32 shape)
{
	switch (shape) {
	case SHAPE_EXEC:
	case SHAPE_EXECAT:
		return CHANNEL_EXEC;
	case SHAPE_XATTR:
		return CHANNEL_XATTR;
	case SHAPE_QUEUE:
		return CHANNEL_QUEUE;
	case SHAPE_TARGET:
		return CHANNEL_LINK;
	case SHAPE_NAME0:
	case SHAPE_NAME1:
	case SHAPE_NAME3:
	case SHAPE_OPEN:
	case SHAPE_OPENAT:
		return CHANNEL_NAME;
	case SHAPE_UNMAP:
		return CHANNEL_MAPPING;
	}
	return CHANNEL_OTHER;
}

static __always_inline u32 channel_of(struct inode *inode, u32 mode)
{
	u32 major;

	switch (mode & S_IFMT) {
	case S_IFREG:
		return CHANNEL_FILE;
	case S_IFIFO:
		return CHANNEL_PIPE;
	case S_IFSOCK:
		return CHANNEL_SOCKET;
	case S_IFCHR:
		major = BPF_CORE_READ(inode, i_rdev) >> MINOR_BITS;
		/* ttys, /dev/tty and console, Unix98 ptys */
		if (major == 4 || major == 5 || (major >= 128 && major <= 143))
			return CHANNEL_TERMINAL;
		return CHANNEL_FILE;
	}
	return CHANNEL_OTHER;
}

/* A child of a member is one before its first instruction. Not for kernels
 * that are asked about namespaces only: user space leaves these two out then. */
SEC("tp_btf/task_newtask")
int BPF_PROG(task_newtask, struct task_struct *child, u64 flags)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32, born = child->tgid, one = 1;

	if (!(flags & CLONE_THREAD) && (is_member(tgid) || (scope_cgroup && in_cgroup())))
		bpf_map_update_elem(&members, &born, &one, BPF_ANY);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(sched_process_exit, struct task_struct *task)
{
	u32 tgid = task->tgid;

	if (BPF_CORE_READ(task, signal, live.counter) == 0)
		bpf_map_delete_elem(&members, &tgid);
	return 0;
}

#endif
