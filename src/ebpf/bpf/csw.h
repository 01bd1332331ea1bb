/* CSW: switches of the cpu. */
#pragma once
#include "emit.h"

#define TASK_DEAD 0x80

static __always_inline struct proc *csw_of(struct task_struct *task)
{
	struct proc *p = proc_of(task->tgid);

	return p && p->facs & FAC_CSW ? p : NULL;
}

static __always_inline void switched(struct run *run, struct task_struct *task, struct proc *p, u32 flags, u32 out, u32 user)
{
	struct to to;

	run->slot = p->slot;
	run->tgid = task->tgid;
	run->tid = task->pid;
	if (!begin_with(&to, p, run, task, flags, REC(8)))
		return;
	struct ev_csw *e = RESERVE(&to, ev_csw, REC(8));
	if (!e)
		return;
	fill(&e->h, &to, EV_CSW, 0);
	if (bpf_core_field_exists(task->in_execve) && BPF_CORE_READ_BITFIELD_PROBED(task, in_execve))
		e->h.flag = FLAG_IN_EXEC;
	if (out && task->__state & TASK_DEAD)
		e->h.flag |= FLAG_LAST;
	e->out = out;
	e->user = user;
	bpf_ringbuf_submit(e, 0);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	struct proc *from = csw_of(prev), *to = csw_of(next);
	u32 from_flags = from ? from->flags : 0, to_flags = to ? to->flags : 0;
	struct run run = {};

	if (!from && !to)
		return 0;
	stamp(&run);
	if (from)
		switched(&run, prev, from, from_flags, 1, preempt || prev->__state == 0);
	if (to)
		switched(&run, next, to, to_flags, 0, 0);
	return 0;
}
