/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Whose calls are looked at, and what a descriptor is.
 */
#ifndef GUARD_SCOPE_H
#define GUARD_SCOPE_H

/* Set before loading; 0: no such scope. */
const volatile u32 scope_pidns;
const volatile u64 scope_cgroup;

enum channel {
	CHANNEL_OTHER,
	CHANNEL_FILE,
	CHANNEL_PIPE,
	CHANNEL_SOCKET,
	CHANNEL_TERMINAL,
	CHANNELS,
};

/*
 * A session's processes are in its pid namespace or one below. A task never
 * changes the namespace that its own pid is in, so nothing leaves this scope.
 */
static __always_inline int in_pidns(struct task_struct *task)
{
	struct pid *pid = task->thread_pid;
	struct nsproxy *proxy = task->nsproxy;
	struct pid_namespace *ns;
	u32 level;

	if (!pid)
		return 0;
	/* Most of the machine, then most of a session, without reading memory
	 * by way of a helper. A task whose children only will be in the
	 * namespace (nsenter) is above it. */
	level = pid->level;
	if (level == 0)
		return scope_pidns == PROC_PID_INIT_INO;
	if (proxy) {
		ns = proxy->pid_ns_for_children;
		if (ns && ns->ns.inum == scope_pidns && level >= ns->level)
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
		if (BPF_CORE_READ(ns, ns.inum) == scope_pidns)
			return 1;
	}
	return 0;
}

/* The v2 hierarchy; the cgroup itself or one below. */
static __always_inline int in_cgroup(void)
{
	for (int i = 0; i < 32; i++) {
		u64 id = bpf_get_current_ancestor_cgroup_id(i);

		if (!id)
			break;
		if (id == scope_cgroup)
			return 1;
	}
	return 0;
}

/* A call by another ABI's number means something else here. */
static __always_inline int foreign(struct task_struct *task)
{
	if (bpf_core_field_exists(task->thread_info.status))
		return task->thread_info.status & 2; /* TS_COMPAT */
	return task->thread_info.flags >> 22 & 1;    /* arm64: TIF_32BIT */
}

static __always_inline struct file *file_of(struct task_struct *task, u32 fd)
{
	struct files_struct *files = task->files;
	struct fdtable *table;
	struct file *file = 0;

	if (!files)
		return 0;
	table = files->fdt;
	if (!table || fd >= table->max_fds)
		return 0;
	bpf_probe_read_kernel(&file, sizeof(file), table->fd + fd);
	return file;
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

#endif
