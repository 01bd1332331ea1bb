/* PSIG: signals that are delivered, and those that kill. */
#pragma once
#include "access.h"

#define SIGKILL 9
/* Bit n-1 for signal n: CHLD CONT URG WINCH, and STOP TSTP TTIN TTOU. */
#define QUIET (1ULL << 16 | 1ULL << 17 | 1ULL << 22 | 1ULL << 27 | 1ULL << 18 | 1ULL << 19 | 1ULL << 20 | 1ULL << 21)
#define SIGNAL_GROUP_EXIT 4

SEC("tp_btf/signal_generate")
int BPF_PROG(signal_generate, int sig, struct kernel_siginfo *info, struct task_struct *task)
{
	u32 tgid = task->tgid;
	struct proc *p = proc_of(tgid);
	struct fatal f = {};

	if (!p || !(p->facs & FAC_PSIG))
		return 0;
	/* Only what has just been found to be the end of the process: its own siginfo is gone when it is delivered. */
	if (!(BPF_CORE_READ(task, signal, flags) & SIGNAL_GROUP_EXIT) ||
	    BPF_CORE_READ(task, signal, group_exit_code) != sig)
		return 0;
	f.signo = sig;
	if ((u64)info > 1) {
		bpf_probe_read_kernel(f.info, sizeof(f.info), info);
	} else {
		s32 *words = (s32 *)f.info;
		words[0] = sig;
		words[2] = info ? 0x80 : 0; /* SI_KERNEL, SI_USER */
		if (!info) {
			words[4] = bpf_get_current_pid_tgid() >> 32;
			words[5] = bpf_get_current_uid_gid();
		}
	}
	note_fatal(tgid, &f);
	return 0;
}

SEC("tp_btf/signal_deliver")
int BPF_PROG(signal_deliver, int sig, struct kernel_siginfo *info, struct k_sigaction *ka)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u32 tgid = task->tgid;
	struct proc *p = proc_of(tgid);
	struct fatal *f = NULL;
	struct run run = { .tgid = tgid, .tid = task->pid };
	struct to to;
	u64 handler = 0;

	if (!p || !(p->facs & FAC_PSIG) || sig < 1 || sig > 64)
		return 0;
	handler = (u64)BPF_CORE_READ(ka, sa.sa_handler);
	if (handler == 1 || (handler == 0 && QUIET >> (sig - 1) & 1))
		return 0;
	bool forged = sig == SIGKILL && (u64)info <= 1;
	if (forged) {
		/* Each thread of a process that ends is sent this; the reason is another. */
		sig = BPF_CORE_READ(task, signal, group_exit_code) & 0x7f;
		if (!sig)
			return 0;
	}
	if (handler == 0) {
		struct fatal own = { .signo = sig };
		note_fatal(tgid, &own);
		f = bpf_map_lookup_elem(&fatals, &tgid);
		if (f && __sync_lock_test_and_set(&f->told, 1))
			return 0;
	}
	run.slot = p->slot;
	if (!begin(&to, p, &run, task, REC(168)))
		return 0;
	struct ev_psig *e = RESERVE(&to, ev_psig, REC(168));
	if (!e)
		return 0;
	fill(&e->h, &to, EV_PSIG, sig);
	e->action = handler;
	e->mask = BPF_CORE_READ_BITFIELD_PROBED(task, restore_sigmask) ? BPF_CORE_READ(task, saved_sigmask.sig[0]) :
									BPF_CORE_READ(task, blocked.sig[0]);
	if (!forged)
		bpf_probe_read_kernel(e->info, sizeof(e->info), info);
	else if (f && f->signo == sig)
		bpf_probe_read_kernel(e->info, sizeof(e->info), f->info);
	else
		__builtin_memset(e->info, 0, sizeof(e->info));
	bpf_ringbuf_submit(e, 0);
	return 0;
}
