/* SYSCALL and SYSRET: a call begins, and ends. */
#pragma once
#include "access.h"
#include "namei.h"
#include "genio.h"

/* A call begins; gives which of its paths could not be read, counted from 1, or 0. */
static __always_inline u32 begun(struct proc *p, struct to *to, s32 nr, const u64 *args)
{
	struct call *call = call_of(to->abi, nr);
	u32 nargs = call ? call->nargs : 6;

	if (p->facs & (FAC_SYSCALL | FAC_EMUL)) {
		struct ev_syscall *e = RESERVE(to, ev_syscall, p->facs & FAC_SYSCALL ? REC(8 + 8 * nargs) : 0);
		if (e) {
			fill(&e->h, to, EV_SYSCALL, nr);
			e->h.flag = nargs;
			__builtin_memcpy(e->args, args, sizeof(e->args));
			bpf_ringbuf_submit(e, 0);
		}
	}
	if (!(p->facs & FAC_NAMEI) || !call)
		return 0;
	if (!call->paths[0].kind && !(call->flags & (CALL_SOCKETCALL | CALL_IPC)))
		return 0;
	return is_shown(p) ? named(to, p->slot, nr, call, args, 0) : 0;
}

/* The beginning of a call that has just ended, with the arguments in `moveds`. By itself for the verifier, to whom all in one
   is too much, so with nothing but numbers. */
__noinline int begun_late(u32 abi, u32 nr, u64 ktime)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u32 zero = 0;
	struct moved *d = bpf_map_lookup_elem(&moveds, &zero);
	struct proc *p = proc_of(task->tgid);
	struct to to;

	if (!d || !p || !to_of(&to, p->slot, abi, task->tgid, task->pid, ktime))
		return 0;
	begun(p, &to, nr, d->of.args);
	return 0;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(sys_enter, struct pt_regs *regs, long id)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u32 tgid = task->tgid, tid = task->pid;
	struct proc *p = proc_of(tgid);
	struct to to;
	bool forgot = false;
	u32 abi;
	s32 nr;

	if (!p || !(p->facs & FAC_CALLS))
		return 0;
	if (is_filtered(task)) {
		put_bit(&known, tid, true);
		put_bit(&inside, tid, true);
	}
	called(task, id, &abi, &nr);
	struct call *call = call_of(abi, nr);
	if (call && call->flags & CALL_REMEMBER) {
		struct thread th = { .nr = nr, .abi = abi, .flags = THREAD_NR };
		forgot = !remember(tid, &th);
		if (forgot)
			set_bit(&marked, tid);
	}
	u64 bytes = p->facs & FAC_SYSCALL ? REC(8 + 8 * (call ? call->nargs : 6)) : 0;
	if (!is_wanted(p, abi, nr) || !begin(&to, p, abi, tgid, tid, bpf_ktime_get_ns(), bytes))
		return 0;
	/* Its end will not know which call that was. */
	if (forgot && p->facs & FAC_SYSRET)
		lose(to.sink, REC(24));
	u64 args[6];
	arguments(regs, abi, args);
	u32 deferred = begun(p, &to, nr, args);
	if (deferred) {
		struct thread th = { .nr = nr, .abi = abi, .flags = THREAD_NR, .deferred = deferred, .ktime = to.ktime };
		if (!remember(tid, &th))
			lose(to.sink, REC(0));
	}
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(sys_exit, struct pt_regs *regs, long result)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u32 tgid = task->tgid, tid = task->pid;
	struct proc *p = proc_of(tgid);
	u32 abi, deferred = 0;
	bool skipped = false;
	struct to to;
	u64 began = 0;
	s32 nr;

	if (!p || !(p->facs & FAC_CALLS))
		return 0;
	called(task, regs->orig_ax, &abi, &nr);
	if (has_bit(&marked, tid)) {
		struct thread *th = bpf_map_lookup_elem(&threads, &tid);
		if (th) {
			u32 flags = th->flags;
			if (flags & THREAD_NR) {
				nr = th->nr;
				abi = th->abi;
			}
			deferred = th->deferred;
			began = th->ktime;
			forget(tid);
			skipped = flags & THREAD_SKIP;
		} else {
			/* It was counted at its beginning. */
			clear_bit(&marked, tid);
			skipped = true;
		}
	}
	struct call *call = call_of(abi, nr);
	bool refused = false;
	/* A new thread or process comes back from a call that it has not made. */
	bool born = call && call->flags & CALL_FORK && result == 0;
	if (is_filtered(task)) {
		/* One of whom nothing is known yet may have begun its call before we came. */
		refused = !born && has_bit(&known, tid) && !has_bit(&inside, tid);
		put_bit(&known, tid, true);
		put_bit(&inside, tid, false);
	}
	if (born || skipped)
		return 0;
	bool access = call && call->flags & CALL_ACCESS && !(p->flags & PROC_ROOTS);
	bool wanted = is_wanted(p, abi, nr);
	u64 bytes = wanted && p->facs & FAC_SYSRET ? REC(24) : 0;
	if (!(wanted || access) || !begin(&to, p, abi, tgid, tid, bpf_ktime_get_ns(), bytes))
		return 0;
	if (access)
		tell_access(&to, p);
	if (!wanted)
		return 0;
	bool shown = is_shown(p);
	deferred = shown && call ? deferred : 0;
	bool moves = p->facs & FAC_GENIO && call && result >= 0 && shown &&
		     (call->io || call->flags & (CALL_SOCKETCALL | CALL_IPC));
	u32 zero = 0;
	struct moved *d = refused || deferred || moves ? bpf_map_lookup_elem(&moveds, &zero) : NULL;
	if (d) {
		arguments(regs, abi, d->of.args);
		if (refused)
			begun_late(abi, nr, to.ktime);
		if (deferred) {
			u64 now = to.ktime;
			to.ktime = began;
			/* Where it still cannot be read, the others may. */
			if (named(&to, p->slot, nr, call, d->of.args, deferred - 1))
				named(&to, p->slot, nr, call, d->of.args, deferred);
			to.ktime = now;
		}
		if (moves) {
			d->result = result;
			d->ktime = to.ktime;
			d->slot = p->slot;
			d->abi = abi;
			d->tgid = tgid;
			d->tid = tid;
			d->nr = nr;
			data(d);
		}
	}
	if (p->facs & (FAC_SYSRET | FAC_EMUL)) {
		struct ev_sysret *e = RESERVE(&to, ev_sysret, bytes);
		if (e) {
			fill(&e->h, &to, EV_SYSRET, nr);
			e->result = result;
			bpf_ringbuf_submit(e, 0);
		}
	}
	return 0;
}
