//go:build ignore

/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The same for kernels before 5.17, which have no bpf_loop.
 */
#define NO_LOOP
#include "detect.bpf.c"
