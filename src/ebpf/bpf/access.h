/* Whether the memory of a process may be shown. */
#pragma once
#include "emit.h"

static __always_inline u64 dumpable(struct task_struct *task)
{
	struct mm_struct *mm = BPF_CORE_READ(task, mm);
	u64 flags = 0;

	if (bpf_core_field_exists(((struct mm_struct___bitmap *)0)->flags))
		bpf_probe_read_kernel(&flags, sizeof(flags),
				      (void *)mm + bpf_core_field_offset(((struct mm_struct___bitmap *)0)->flags));
	else
		bpf_probe_read_kernel(&flags, sizeof(flags),
				      (void *)mm + bpf_core_field_offset(((struct mm_struct___word *)0)->flags));
	return (flags & 3) == 1;
}

/* Whether the memory of the running process may be shown to whom its trace belongs to. */
static __always_inline bool is_shown(struct proc *p)
{
	if (p->flags & PROC_ROOTS)
		return true;
	struct task_struct *task = (void *)bpf_get_current_task();
	/* As for a user who opens /proc/pid/environ. */
	return !(p->flags & PROC_HIDE) && dumpable(task) && (!p->owner || BPF_CORE_READ(task, cred, euid.val) == p->owner);
}

static __always_inline void set_hidden(u32 tgid, bool hidden)
{
	if (hidden)
		change_flags(tgid, PROC_HIDDEN, 0);
	else
		change_flags(tgid, 0, PROC_HIDDEN);
}

/* Tells of memory that may not be shown any more, or again. */
static __always_inline void tell_access(struct to *to, struct proc *p)
{
	bool hidden = !is_shown(p);

	/* Of a trace that belongs to uid 0 and is not root's the daemon finds out itself. */
	if (p->owner && hidden == !!(p->flags & PROC_HIDDEN))
		return;
	/* After what another thread has told. */
	stamp(to->run);
	struct ev_sysret *e = RESERVE(to, ev_sysret, p->owner ? REC(20 + 40) : 0);
	if (!e)
		return;
	fill(&e->h, to, EV_ACCESS, 0);
	e->h.flag = hidden ? FLAG_HIDDEN : 0;
	e->result = 0;
	bpf_ringbuf_submit(e, 0);
	set_hidden(to->run->tgid, hidden);
}
