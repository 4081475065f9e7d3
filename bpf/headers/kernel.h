/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The few kernel types that guard's programs look into, each with only the
 * fields that are read. preserve_access_index makes the loader put in the
 * running kernel's offsets (CO-RE), so order and size mean nothing here, and no
 * dump of one kernel's types needs to be kept in the tree.
 *
 * A name that ends in three underscores and more is a "flavor": the loader
 * strips it, so that two machines' pt_regs can be described side by side.
 */
#ifndef GUARD_KERNEL_H
#define GUARD_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;
typedef __s64 s64;

/* include/uapi/linux/bpf.h */
enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
};

#define BPF_ANY 0
#define BPF_F_NO_PREALLOC 1
#define BPF_LOCAL_STORAGE_GET_F_CREATE 1

#define EPERM 1
#define EINVAL 22
#define ENOSYS 38
#define EOPNOTSUPP 95
#define EAFNOSUPPORT 97

/* include/linux/fs.h */
#define MAY_WRITE 2
#define MAY_READ 4
#define FMODE_WRITE 2

/* include/uapi/asm-generic/fcntl.h */
#define O_CREAT 0100

/* include/uapi/linux/stat.h, include/linux/kdev_t.h */
#define S_IFMT 00170000
#define S_IFSOCK 0140000
#define S_IFREG 0100000
#define S_IFCHR 0020000
#define S_IFIFO 0010000
#define MINOR_BITS 20

/* include/linux/socket.h */
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define AF_PACKET 17
#define AF_XDP 44
#define SOL_SOCKET 1
#define SO_ZEROCOPY 60
#define MSG_ZEROCOPY 0x4000000

/* include/uapi/asm-generic/ioctls.h, include/uapi/linux/fs.h */
#define TIOCSTI 0x5412
#define TIOCLINUX 0x541C
#define FICLONE 0x40049409
#define FICLONERANGE 0x4020940D

/* include/uapi/asm-generic/mman-common.h, include/linux/mm.h */
#define MAP_TYPE 0xf
#define MAP_SHARED 1
#define MAP_SHARED_VALIDATE 3
#define VM_SHARED 8
#define VM_MAYWRITE 0x20

#define CLONE_THREAD 0x10000

/* include/linux/proc_ns.h */
#define PROC_PID_INIT_INO 0xEFFFFFFCU

#define CORE __attribute__((preserve_access_index))

struct super_block {
	u32 s_dev;
} CORE;

struct inode {
	u16 i_mode;
	u32 i_rdev;
	unsigned long i_ino;
	u32 i_generation;
	struct super_block *i_sb;
} CORE;

struct qstr {
	u32 len;
	const unsigned char *name;
} CORE;

struct dentry {
	struct qstr d_name;
	struct inode *d_inode;
} CORE;

struct path {
	struct dentry *dentry;
} CORE;

struct file {
	struct inode *f_inode;
	struct path f_path;
	u32 f_mode;
	void *private_data;
} CORE;

struct iovec {
	void *iov_base;
	unsigned long iov_len;
} CORE;

/* include/linux/uio.h: the values differ between kernels */
enum iter_type {
	ITER_IOVEC,
	ITER_UBUF,
};

struct iov_iter {
	u8 iter_type;
	unsigned long iov_offset;
	unsigned long count;
	void *ubuf;                /* since 6.0 */
	const struct iovec *__iov; /* since 6.4 */
	unsigned long nr_segs;
} CORE;

struct iov_iter___before_6_4 {
	const struct iovec *iov;
} CORE;

struct msghdr {
	void *msg_name; /* a copy in the kernel */
	int msg_namelen;
	struct iov_iter msg_iter;
	unsigned int msg_flags;
} CORE;

struct in6_addr {
	u8 bytes[16];
} __attribute__((packed));

struct sock_common {
	u32 skc_daddr;
	u16 skc_dport;
	u16 skc_family;
	struct in6_addr skc_v6_daddr;
} CORE;

struct sock {
	struct sock_common __sk_common;
	struct pid *sk_peer_pid;
} CORE;

struct socket {
	struct file *file;
	struct sock *sk;
} CORE;

struct mm_struct {
	struct file *exe_file;
} CORE;

/* The lowest bits of its flags say whether others of the same user may look into it. */
struct mm_struct___word {
	unsigned long flags;
} CORE;

typedef struct {
	unsigned long __mm_flags[1];
} mm_flags_t;

struct mm_struct___bitmap { /* since 6.18 */
	mm_flags_t flags;
} CORE;

#define MMF_DUMPABLE_MASK 3
#define SUID_DUMP_USER 1

struct linux_binprm {
	struct file *file;
} CORE;

struct vm_area_struct {
	unsigned long vm_start, vm_end, vm_flags;
	struct file *vm_file;
} CORE;

/* Until 6.1 a process's mappings are in a tree. */
struct rb_node {
	struct rb_node *rb_right, *rb_left;
} CORE;

struct rb_root {
	struct rb_node *rb_node;
} CORE;

struct mm_struct___tree {
	struct rb_root mm_rb;
} CORE;

struct vm_area_struct___tree {
	struct rb_node vm_rb;
} CORE;

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
} CORE;

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
} CORE;

struct files_struct {
	struct fdtable *fdt;
} CORE;

struct ns_common {
	unsigned int inum;
} CORE;

struct pid_namespace {
	struct ns_common ns;
	unsigned int level;
} CORE;

struct nsproxy {
	struct pid_namespace *pid_ns_for_children;
} CORE;

struct upid {
	int nr;
	struct pid_namespace *ns;
} CORE;

struct pid {
	unsigned int level;
	struct upid numbers[1];
} CORE;

struct thread_info {
	unsigned long flags;
	u32 status; /* x86 */
} CORE;

typedef struct {
	u32 val;
} kuid_t, kgid_t;

typedef struct {
	u64 val;
} kernel_cap_t;

struct user_namespace {
	int level;
} CORE;

struct cred {
	kuid_t uid, suid, euid, fsuid;
	kgid_t gid, sgid, egid;
	kernel_cap_t cap_permitted;
	struct user_namespace *user_ns;
} CORE;

struct kernfs_node {
	u64 id;
} CORE;

struct cgroup_subsys_state {
	struct cgroup_subsys_state *parent;
} CORE;

struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
} CORE;

struct css_set {
	struct cgroup *dfl_cgrp;
} CORE;

struct task_struct {
	struct thread_info thread_info;
	int pid, tgid;
	struct mm_struct *mm;
	struct signal_struct *signal;
	struct files_struct *files;
	struct pid *thread_pid;
	struct nsproxy *nsproxy;
	const struct cred *cred;
	struct css_set *cgroups;
} CORE;

struct pt_regs___x86 {
	unsigned long di, si, dx, r10, orig_ax;
} CORE;

struct pt_regs___arm64 {
	u64 regs[31];
	s32 syscallno;
} CORE;

/* User space's own layout, 64-bit: read with bpf_probe_read_user, no CO-RE. */
struct user_iovec {
	u64 base;
	u64 len;
};

struct user_msghdr {
	u64 name;
	u64 namelen;
	u64 iov;
	u64 iovlen;
	u64 control;
	u64 controllen;
	u64 flags;
};

struct user_mmsghdr {
	struct user_msghdr hdr;
	u64 len;
};

#endif
