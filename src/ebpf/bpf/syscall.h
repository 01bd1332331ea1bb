/* SYSCALL and SYSRET: a call begins, and ends. */
#pragma once
#include "access.h"
#include "namei.h"
#include "genio.h"

/* A call begins; `n` has its arguments. */
static __always_inline void begun(struct proc *p, struct to *to, s32 nr, struct named *n)
{
	struct call *call = call_of(to->abi, nr);
	u32 nargs = call ? call->nargs : 6;

	if (p->facs & (FAC_SYSCALL | FAC_EMUL)) {
		struct ev_syscall *e = RESERVE(to, ev_syscall, p->facs & FAC_SYSCALL ? REC(8 + 8 * nargs) : 0);
		if (e) {
			fill(&e->h, to, EV_SYSCALL, nr);
			e->h.flag = nargs;
			__builtin_memcpy(e->args, n->args, sizeof(e->args));
			bpf_ringbuf_submit(e, 0);
		}
	}
	if (!(p->facs & FAC_NAMEI) || !call)
		return;
	if (!call->paths[0].kind && !(call->flags & (CALL_SOCKETCALL | CALL_IPC)))
		return;
	if (!is_shown(p))
		return;
	n->slot = p->slot;
	n->abi = to->abi;
	n->tgid = to->tgid;
	n->tid = to->tid;
	n->nr = nr;
	n->ktime = to->ktime;
	if (call->flags & (CALL_SOCKETCALL | CALL_IPC))
		n->nr = inner((struct arguments *)n->args, call->flags & CALL_IPC);
	names(n);
}

struct late { u64 args[6]; };
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1);
	__type(key, u32); __type(value, struct late); } lates SEC(".maps");

/* The beginning of a call that has just ended, with the arguments of `lates`. By itself for the verifier, to whom all in one
   is too much, so with nothing but numbers. */
__noinline int begun_late(u32 abi, u32 nr, u64 ktime)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u32 zero = 0;
	struct late *late = bpf_map_lookup_elem(&lates, &zero);
	struct proc *p = proc_of(task->tgid);
	struct named n = {};
	struct to to;

	if (!late || !p || !to_of(&to, p->slot, abi, task->tgid, task->pid, ktime))
		return 0;
	__builtin_memcpy(n.args, late->args, sizeof(n.args));
	begun(p, &to, nr, &n);
	return 0;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(sys_enter, struct pt_regs *regs, long id)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u32 tgid = task->tgid, tid = task->pid;
	struct proc *p = proc_of(tgid);
	struct to to;
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
		remember(tid, &th);
	}
	u64 bytes = p->facs & FAC_SYSCALL ? REC(8 + 8 * (call ? call->nargs : 6)) : 0;
	if (!is_wanted(p, abi, nr) || !begin(&to, p, abi, tgid, tid, bpf_ktime_get_ns(), bytes))
		return 0;
	struct named n = {};
	arguments(regs, abi, n.args);
	begun(p, &to, nr, &n);
	if (n.failed) {
		struct thread th = { .nr = nr, .abi = abi, .flags = THREAD_NR, .deferred = n.next + 1, .ktime = to.ktime };
		remember(tid, &th);
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
			if (flags & THREAD_SKIP)
				return 0;
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
	if (born)
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
	if (refused) {
		u32 zero = 0;
		struct late *late = bpf_map_lookup_elem(&lates, &zero);
		if (late) {
			arguments(regs, abi, late->args);
			begun_late(abi, nr, to.ktime);
		}
	}
	if (deferred && shown) {
		struct named n = { .slot = p->slot, .abi = abi, .tgid = tgid, .tid = tid, .nr = nr, .ktime = began, .next = deferred - 1 };
		arguments(regs, abi, n.args);
		if (call && call->flags & (CALL_SOCKETCALL | CALL_IPC))
			n.nr = inner((struct arguments *)n.args, call->flags & CALL_IPC);
		names(&n);
		if (n.failed) {
			/* The others may be there. */
			n.next++;
			n.failed = 0;
			names(&n);
		}
	}
	if (p->facs & FAC_GENIO && call && result >= 0 && shown &&
	    (call->io || call->flags & (CALL_SOCKETCALL | CALL_IPC))) {
		struct moved d = { .result = result, .ktime = to.ktime, .slot = p->slot, .abi = abi, .tgid = tgid, .tid = tid, .nr = nr };
		arguments(regs, abi, d.of.args);
		data(&d);
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
