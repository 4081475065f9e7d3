//go:build ignore

/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * block.bpf.c for kernels that have BPF LSM but not in lsm=: the same hooks by
 * way of fmod_ret. The kernel skips such a program while another task on the
 * same processor is inside of it, so a write may get past; it counts how often.
 * None may wait for a page.
 */
#define HOOK(name) SEC("fmod_ret/security_" #name)
#define HOOK_SLEEPS(name) SEC("fmod_ret/security_" #name)
#include "headers/refuse.h"
