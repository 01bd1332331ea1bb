/*
 * The kernel's side of the eBPF backend: turns what a traced process does into events in the ring of its sink.
 *
 * Loaded by src/ebpf/load.rs; the layouts shared with it are in src/ebpf/event.rs and src/ebpf/kernel.rs. The compiled
 * object is committed beside this file: `make` here makes it again.
 */
#include <linux/bpf.h>
#include <linux/types.h>
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;
typedef __s64 s64;
typedef _Bool bool;
#define true 1
#define false 0
#define __x86_64__ 1
#define __TARGET_ARCH_x86 1
#include "types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#include "syscall.h"
#include "process.h"
#include "psig.h"
#include "csw.h"
