/* SYSCALL and SYSRET: a call begins, and ends. */
#pragma once
#include "access.h"
#include "namei.h"
#include "genio.h"

/* Appends the entry of a call, with room for so many arguments. */
static __always_inline bool entry(struct to *to, s32 nr, u32 nargs, const u64 *args, const u32 room)
{
	struct ev_syscall *e = reserve(to, sizeof(struct head) + 8 * room);

	if (!e)
		return false;
	fill(&e->h, to, EV_SYSCALL, nr);
	e->h.flag = nargs;
	__builtin_memcpy(e->args, args, 8 * room);
	bpf_ringbuf_submit(e, 0);
	return true;
}

/* A call begins; gives which of its paths could not be read, counted from 1, or 0. */
static __always_inline u32 begun(struct proc *p, struct to *to, s32 nr, struct call *call, const u64 *args)
{
	struct run *run = to->run;
	u32 nargs = call ? call->nargs : 6;

	if (p->facs & (FAC_SYSCALL | FAC_EMUL)) {
		bool fits = may_append(to);
		/* Most calls have few arguments, and the less is written, the less has to be read. */
		if (nargs == 0)
			fits = fits && entry(to, nr, 0, args, 0);
		else if (nargs <= 3)
			fits = fits && entry(to, nr, nargs, args, 3);
		else
			fits = fits && entry(to, nr, nargs, args, 6);
		if (!fits)
			lose(to->sink, p->facs & FAC_SYSCALL ? REC(8 + 8 * nargs) : 0);
	}
	if (!(p->facs & FAC_NAMEI) || !call)
		return 0;
	if (!call->paths[0].kind && !(call->flags & (CALL_SOCKETCALL | CALL_IPC)))
		return 0;
	return is_shown(p) ? named(run, nr, call, args, 0) : 0;
}

/* The beginning of a call that has just ended, with the arguments in `moveds`. By itself for the verifier, to whom all in one
   is too much. */
__noinline int begun_late(u32 nr)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u32 zero = 0;
	struct moved *d = bpf_map_lookup_elem(&moveds, &zero);
	struct proc *p = proc_of(task->tgid);
	struct to to;

	if (!d || !p || !to_again(&to, &d->run))
		return 0;
	begun(p, &to, nr, call_of(d->run.abi, nr), d->of.args);
	return 0;
}

static __always_inline int entered(struct pt_regs *regs, long id)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u32 tgid = task->tgid, tid = task->pid;
	struct proc *p = proc_near(tgid);
	struct run run = { .tgid = tgid, .tid = tid };
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
	run.slot = p->slot;
	run.abi = abi;
	if (!is_wanted(p, abi, nr) || !begin(&to, p, &run, task, bytes))
		return 0;
	/* Its end will not know which call that was. */
	if (forgot && p->facs & FAC_SYSRET)
		lose(to.sink, REC(24));
	u64 args[6];
	arguments(regs, abi, args);
	u32 deferred = begun(p, &to, nr, call, args);
	if (deferred) {
		struct thread th = { .nr = nr, .abi = abi, .flags = THREAD_NR, .deferred = deferred };
		if (!remember(tid, &th))
			lose(to.sink, REC(0));
	}
	return 0;
}

static __always_inline int left(struct pt_regs *regs, long result)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u32 tgid = task->tgid, tid = task->pid;
	struct proc *p = proc_near(tgid);
	u32 abi, deferred = 0;
	struct run run = { .tgid = tgid, .tid = tid };
	bool skipped = false;
	struct to to;
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
	run.slot = p->slot;
	run.abi = abi;
	if (!(wanted || access) || !begin(&to, p, &run, task, bytes))
		return 0;
	if (access)
		tell_access(&to, p);
	if (!wanted)
		return 0;
	bool moves = p->facs & FAC_GENIO && call && result >= 0 &&
		     (call->io || call->flags & (CALL_SOCKETCALL | CALL_IPC));
	deferred = call ? deferred : 0;
	/* Most calls have nothing to show, and who may see it costs a few reads. */
	if ((moves || deferred) && !is_shown(p)) {
		moves = false;
		deferred = 0;
	}
	u32 zero = 0;
	struct moved *d = refused || deferred || moves ? bpf_map_lookup_elem(&moveds, &zero) : NULL;
	if (d) {
		arguments(regs, abi, d->of.args);
		if (refused) {
			d->run = run;
			begun_late(nr);
			run = d->run;
		}
		/* Where it still cannot be read, the others may. */
		if (deferred && named(&run, nr, call, d->of.args, deferred - 1))
			named(&run, nr, call, d->of.args, deferred);
		if (moves) {
			d->result = result;
			d->run = run;
			d->nr = nr;
			data(d);
			run = d->run;
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

SEC("tp_btf/sys_enter")
int BPF_PROG(sys_enter, struct pt_regs *regs, long id)
{
	return entered(regs, id);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(sys_exit, struct pt_regs *regs, long result)
{
	return left(regs, result);
}

/*
 * The same behind perf events: src/ebpf/load.rs says where. There nothing takes the cpu away from a program. What the tracepoints of
 * raw_syscalls give is in their files `format` in tracefs.
 */
struct perf_call { u64 common; s64 id; };
struct perf_return { u64 common; s64 id; s64 result; };

SEC("tracepoint")
int sys_enter_perf(struct perf_call *call)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return has_bit(&traced, task->tgid) ? entered((struct pt_regs *)bpf_task_pt_regs(task), call->id) : 0;
}

SEC("tracepoint")
int sys_exit_perf(struct perf_return *call)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return has_bit(&traced, task->tgid) ? left((struct pt_regs *)bpf_task_pt_regs(task), call->result) : 0;
}
