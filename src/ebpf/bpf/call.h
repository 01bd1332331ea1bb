/* Which system call is made, and with which arguments. */
#pragma once
#include "maps.h"

static __always_inline bool is_wanted(struct proc *p, u32 abi, s32 nr)
{
	u32 key = p->filter;
	u64 *words;

	if (!key)
		return true;
	words = bpf_map_lookup_elem(&filters, &key);
	if (!words || (u32)nr >= NUMBERS || abi > 2)
		return false;
	u32 at = abi * FILTER_WORDS + (u32)nr / 64;
	PIN(at);
	if (at >= 3 * FILTER_WORDS)
		return false;
	return words[at] >> (nr % 64) & 1;
}

static __always_inline struct call *call_of(u32 abi, s32 nr)
{
	u32 key = abi * NUMBERS + (u32)nr;

	return (u32)nr < NUMBERS ? bpf_map_lookup_elem(&calls, &key) : NULL;
}

static __always_inline void arguments(struct pt_regs *regs, u32 abi, u64 *args)
{
	if (abi == ABI_LINUX32) {
		args[0] = (u32)regs->bx;
		args[1] = (u32)regs->cx;
		args[2] = (u32)regs->dx;
		args[3] = (u32)regs->si;
		args[4] = (u32)regs->di;
		args[5] = (u32)regs->bp;
	} else {
		args[0] = regs->di;
		args[1] = regs->si;
		args[2] = regs->dx;
		args[3] = regs->r10;
		args[4] = regs->r8;
		args[5] = regs->r9;
	}
}

static __always_inline void called(struct task_struct *task, long id, u32 *abi, s32 *nr)
{
	*nr = id;
	if (task->thread_info.status & TS_COMPAT) {
		*abi = ABI_LINUX32;
	} else if ((id & X32_BIT) && id >> 31 == 0) {
		*abi = ABI_LINUXX32;
		*nr = id & ~X32_BIT;
	} else {
		*abi = ABI_LINUX;
	}
}

static __always_inline u64 arg(const u64 *args, u32 i)
{
	/* An index that the compiler cannot turn into an address of the stack that varies. */
	switch (i) {
	case 0: return args[0];
	case 1: return args[1];
	case 2: return args[2];
	case 3: return args[3];
	case 4: return args[4];
	case 5: return args[5];
	}
	return 0;
}

/* A word (pointer, length) of a process that calls through this ABI; -1 where it cannot be read. */
static __always_inline int word(u32 abi, u64 addr, u64 *out)
{
	u32 half = 0;

	*out = 0;
	if (abi == ABI_LINUX)
		return bpf_probe_read_user(out, 8, (void *)addr);
	if (bpf_probe_read_user(&half, 4, (void *)addr))
		return -1;
	*out = half;
	return 0;
}

struct arguments { u64 args[6]; };

/*
 * A function that is not static is looked at by the verifier once, by itself, and not again wherever it is called: with
 * that the programs load in a hundredth of the time.
 */

/* The call behind socketcall(2) and ipc(2), and its arguments: the number of the call that does the same. */
__noinline int inner(struct arguments *of, u32 ipc)
{
	u32 words[6] = {};

	if (!of)
		return -1;
	u64 *args = of->args;
	u64 which = args[0];

	if (ipc) {
		if ((which & 0xffff) == 11) {
			u64 in[4] = { args[1], args[4], args[2], args[3] };
			args[0] = in[0], args[1] = in[1], args[2] = in[2], args[3] = in[3];
			return 400;
		}
		if ((which & 0xffff) != 12)
			return -1;
		if (which >> 16 == 0) {
			u64 id = args[1], size = args[2], third = args[3];
			if (bpf_probe_read_user(words, 8, (void *)args[4]))
				return -1;
			args[0] = id, args[1] = words[0], args[2] = size, args[3] = words[1], args[4] = third;
		} else {
			u64 in[5] = { args[1], args[4], args[2], args[5], args[3] };
			args[0] = in[0], args[1] = in[1], args[2] = in[2], args[3] = in[3], args[4] = in[4];
		}
		return 401;
	}
	s32 nr;
	u32 count = 3;
	switch (which) {
	case 2: nr = 361; break; /* bind */
	case 3: nr = 362; break; /* connect */
	case 9: nr = 369, count = 4; break; /* send */
	case 10: nr = 371, count = 4; break; /* recv */
	case 11: nr = 369, count = 6; break; /* sendto */
	case 12: nr = 371, count = 6; break; /* recvfrom */
	case 16: nr = 370; break; /* sendmsg */
	case 17: nr = 372; break; /* recvmsg */
	case 19: nr = 337, count = 5; break; /* recvmmsg */
	case 20: nr = 345, count = 4; break; /* sendmmsg */
	default: return -1;
	}
	u64 from = args[1];
	if (count == 3 ? bpf_probe_read_user(words, 12, (void *)from) :
	    count == 4 ? bpf_probe_read_user(words, 16, (void *)from) :
	    count == 5 ? bpf_probe_read_user(words, 20, (void *)from) :
			 bpf_probe_read_user(words, 24, (void *)from))
		return -1;
	for (int i = 0; i < 6; i++)
		args[i] = words[i];
	return nr;
}

/* True where a filter may refuse calls: those have no entry here, as the kernel asks the filter before it tells of one. */
static __always_inline bool is_filtered(struct task_struct *task)
{
	return bpf_core_field_exists(task->seccomp) && task->seccomp.mode;
}
