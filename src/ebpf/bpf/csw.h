/* CSW: switches of the cpu. */
#pragma once
#include "emit.h"

#define TASK_DEAD 0x80

static __always_inline struct proc *csw_of(struct task_struct *task)
{
	struct proc *p = proc_of(task->tgid);

	return p && p->facs & FAC_CSW ? p : NULL;
}

/* `state`: of who leaves the cpu, when it began to. */
static __always_inline void switched(struct run *run, struct task_struct *task, struct proc *p, u32 flags, u32 out, u32 user, u32 state)
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
	if (out && state & TASK_DEAD)
		e->h.flag |= FLAG_LAST;
	e->out = out;
	e->user = user;
	bpf_ringbuf_submit(e, 0);
}

static __always_inline void switch_of(bool preempt, struct task_struct *prev, struct task_struct *next, u32 state)
{
	struct proc *from = csw_of(prev), *to = csw_of(next);
	u32 from_flags = from ? from->flags : 0, to_flags = to ? to->flags : 0;
	struct run run = {};

	if (!from && !to)
		return;
	stamp(&run);
	if (from)
		switched(&run, prev, from, from_flags, 1, preempt || state == 0, state);
	if (to)
		switched(&run, next, to, to_flags, 0, 0, 0);
}

/* Since 5.18 the state comes with the switch. Since 6.12 who is about to sleep may be woken again before it is told of: then its own is 0. */
SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch, bool preempt, struct task_struct *prev, struct task_struct *next, u32 state)
{
	switch_of(preempt, prev, next, state);
	return 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch_3, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	switch_of(preempt, prev, next, prev->__state);
	return 0;
}
