/* CSW: switches of the cpu. */
#pragma once
#include "emit.h"

#define TASK_DEAD 0x80

static __always_inline void switched(struct task_struct *task, u32 out, u32 user, u64 now)
{
	u32 tgid = task->tgid;
	struct proc *p = proc_of(tgid);
	struct to to;

	if (!p || !(p->facs & FAC_CSW) || !begin(&to, p, 0, tgid, task->pid, now, REC(8)))
		return;
	struct ev_csw *e = RESERVE(&to, ev_csw, REC(8));
	if (!e)
		return;
	fill(&e->h, &to, EV_CSW, 0);
	e->h.flag = 0;
	if (bpf_core_field_exists(task->in_execve) && BPF_CORE_READ_BITFIELD_PROBED(task, in_execve))
		e->h.flag = FLAG_IN_EXEC;
	if (out && task->__state & TASK_DEAD)
		e->h.flag |= FLAG_LAST;
	name_of(task, e->h.comm);
	e->out = out;
	e->user = user;
	bpf_ringbuf_submit(e, 0);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	u64 now = bpf_ktime_get_ns();

	switched(prev, 1, preempt || prev->__state == 0, now);
	switched(next, 0, 0, now);
	return 0;
}
