/* Births, execs and deaths. */
#pragma once
#include "access.h"
#include "syscall.h"

static __always_inline void count(u32 share, s64 by)
{
	u32 zero = 0;
	u64 *all = bpf_map_lookup_elem(&shares, &zero), *own = bpf_map_lookup_elem(&shares, &share);

	if (all)
		__sync_fetch_and_add(all, by);
	if (own)
		__sync_fetch_and_add(own, by);
}

/* No owner has more entries than are free: whatever one does, there is room for others. */
static __always_inline bool has_share(u32 share)
{
	u32 zero = 0;
	u64 *all = bpf_map_lookup_elem(&shares, &zero), *own = bpf_map_lookup_elem(&shares, &share);

	return all && own && (s64)(*all + *own) < (s64)procs_max;
}

static __always_inline bool enter(u32 tgid, struct proc *new)
{
	if (!has_share(new->share) || bpf_map_update_elem(&procs, &tgid, new, BPF_NOEXIST))
		return false;
	procs_changed();
	count(new->share, 1);
	forget_fatal(tgid);
	set_bit(&traced, tgid);
	return true;
}

static __always_inline void end(u32 tgid, u32 share)
{
	clear_bit(&traced, tgid);
	if (bpf_map_delete_elem(&procs, &tgid) == 0)
		count(share, -1);
	procs_changed();
	forget_fatal(tgid);
}

/* Who it is: its number alone will be another's. */
static __always_inline u64 inode_of(struct task_struct *task)
{
	return bpf_core_field_exists(((struct pid *)0)->ino) ? BPF_CORE_READ(task, thread_pid, ino) : 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(process_fork, struct task_struct *parent, struct task_struct *child)
{
	u32 tgid = parent->tgid, new = child->tgid;
	struct run run = { .tgid = tgid, .tid = parent->pid };
	struct proc *p;
	struct to to;

	if (tgid == new)
		return 0;
	/* Of one whose end nobody saw: who gets its number is not traced by that. */
	p = proc_of(new);
	if (p)
		end(new, p->share);
	p = proc_of(tgid);
	if (!p || !(p->flags & PROC_INHERIT))
		return 0;
	u32 flags = p->flags;
	run.slot = p->slot;
	stamp(&run);
	if (!to_of(&to, &run, parent))
		return 0;
	struct proc copy = *p;
	struct ev_fork *e = NULL;
	/* Its own birth comes before that of its child. No record is lost: the daemon hears of the child later. */
	if (is_told(&to, p, flags, 0))
		e = RESERVE(&to, ev_fork, 0);
	/* Each way by itself: verifiers before 6.2 or so lose sight of what is reserved. */
	if (e) {
		copy.flags &= ~PROC_UNTOLD;
		if (enter(new, &copy)) {
			fill(&e->h, &to, EV_FORK, new);
			e->inode = inode_of(child);
			bpf_ringbuf_submit(e, 0);
		} else {
			bpf_ringbuf_discard(e, 0);
			__sync_fetch_and_add(&to.sink->untraced, 1);
		}
	} else {
		copy.flags |= PROC_UNTOLD;
		if (enter(new, &copy))
			to.sink->untold = 1;
		else
			__sync_fetch_and_add(&to.sink->untraced, 1);
	}
	return 0;
}

/* Not `scratches`: where an exec can be preempted (src/ebpf/load.rs), another process's call may use that meanwhile. */
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1);
	__type(key, u32); __type(value, struct scratch); } execs SEC(".maps");

/* The strings of an exec, on their way: not on the stack, as with `moves`. */
struct strings {
	u64 addr, end;
	u64 sofar;
	struct run run;
	u32 kind;
	u32 lost; /* a part of the present string */
	u32 over;
};
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1);
	__type(key, u32); __type(value, struct strings); } stringses SEC(".maps");

static long one_string(u32 i, void *unused)
{
	u32 zero = 0;
	struct strings *st = bpf_map_lookup_elem(&stringses, &zero);
	struct scratch *s = bpf_map_lookup_elem(&execs, &zero);
	struct to to;

	if (!st)
		return 1;
	st->over = 1;
	if (!s || st->addr >= st->end || !to_again(&to, &st->run))
		return 1;
	long n = bpf_probe_read_user_str(s->data, DATA_MAX, (void *)st->addr);
	if (n < 1 || n > DATA_MAX)
		return 1;
	u64 len = n - 1;
	bool more = false;
	if (n == DATA_MAX) {
		/* Cut, unless it ends just there. */
		u8 last = 0;
		bpf_probe_read_user(&last, 1, (void *)st->addr + DATA_MAX - 1);
		more = last != 0;
	}
	u32 flag = (more ? FLAG_MORE : 0) | (st->sofar ? FLAG_REST : 0);
	st->sofar += len;
	stamp(&st->run);
	/* A string of which a part is lost is lost, and counted at its end. */
	if (!st->lost && !append(&to, s, st->kind, len, flag, len))
		st->lost = 1;
	if (!more) {
		if (st->lost)
			lose(to.sink, REC(st->sofar));
		st->sofar = 0;
		st->lost = 0;
	}
	st->addr += more ? len : n;
	st->over = 0;
	return 0;
}

/* Where there is no bpf_loop(): by itself for the verifier. */
__noinline int string(void)
{
	return one_string(0, NULL);
}

static __always_inline void each_string(struct strings *st, struct sink *sink, u32 kind, u64 addr, u64 end)
{
	st->kind = kind;
	st->addr = addr;
	st->end = end;
	st->sofar = 0;
	st->lost = 0;
	if (HAS_LOOP) {
		bpf_loop(1 << 20, one_string, NULL, 0);
	} else {
		for (int i = 0; i < 256; i++)
			if (string())
				return;
	}
	/* Those for which there were not turns enough. */
	if (!st->over && st->addr < st->end)
		lose(sink, REC(st->sofar + st->end - st->addr));
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(process_exec, struct task_struct *task, s32 old, struct linux_binprm *bprm)
{
	u32 tgid = task->tgid, tid = task->pid, former = old;
	struct proc *p = proc_of(tgid);
	struct to to;

	if (!p)
		return 0;
	struct run run = { .slot = p->slot, .tgid = tgid, .tid = tid };
	run.abi = task->thread_info.status & TS_COMPAT ? ABI_LINUX32 : ABI_LINUX;
	bool opened = begin(&to, p, &run, task, 0);
	u32 zero = 0;
	struct scratch *s = bpf_map_lookup_elem(&execs, &zero);
	if (has_bit(&marked, former)) {
		struct thread *th = bpf_map_lookup_elem(&threads, &former);
		if (th) {
			struct thread copy = *th;
			/* Its memory is another one by now. */
			if (copy.deferred && opened && s && is_shown(p)) {
				u32 abi = run.abi;
				long n = bpf_probe_read_kernel_str(s->data, DATA_MAX, BPF_CORE_READ(bprm, filename));
				run.abi = copy.abi;
				run.tid = former;
				if (n >= 1 && n <= DATA_MAX)
					output(&to, s, EV_NAMEI, n - 1, 0, n - 1, REC(n - 1));
				run.abi = abi;
				run.tid = tid;
			}
			copy.deferred = 0;
			if (former != tid)
				forget(former);
			remember(tid, &copy);
		}
	}
	if (former != tid) {
		bool filtered = is_filtered((void *)bpf_get_current_task_btf());
		put_bit(&known, tid, filtered);
		put_bit(&inside, tid, filtered);
		put_bit(&known, former, false);
		put_bit(&inside, former, false);
	}
	u32 secure = BPF_CORE_READ_BITFIELD_PROBED(bprm, secureexec);
	bool ended = secure && !(p->flags & PROC_ROOTS);
	bool shown = is_shown(p);
	if (opened) {
		/* Where it can be preempted, switches have come between. */
		stamp(&run);
		struct ev_sysret *e = RESERVE(&to, ev_sysret, p->facs & FAC_EMUL && !ended ? REC(5) : 0);
		if (e) {
			fill(&e->h, &to, EV_EXEC, secure);
			e->h.flag = (ended ? FLAG_ENDED : 0) | (shown ? 0 : FLAG_HIDDEN);
			e->result = 0;
			bpf_ringbuf_submit(e, 0);
			set_hidden(tgid, !shown);
		}
	}
	if (ended) {
		end(tgid, p->share);
		return 0;
	}
	if (!opened || !shown)
		return 0;
	struct mm_struct *mm = task->mm;
	struct strings *st = bpf_map_lookup_elem(&stringses, &zero);
	if (!st)
		return 0;
	st->run = run;
	if (p->facs & FAC_EXEC_ARG)
		each_string(st, to.sink, EV_EXEC_ARG, BPF_CORE_READ(mm, arg_start), BPF_CORE_READ(mm, arg_end));
	if (p->facs & FAC_EXEC_ENV)
		each_string(st, to.sink, EV_EXEC_ENV, BPF_CORE_READ(mm, env_start), BPF_CORE_READ(mm, env_end));
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit, struct task_struct *task)
{
	u32 tgid = task->tgid, tid = task->pid;
	struct proc *p = proc_of(tgid);
	struct run run = { .tgid = tgid, .tid = tid };
	struct to to;

	if (has_bit(&marked, tid))
		forget(tid);
	if (!p || BPF_CORE_READ(task, signal, live.counter) != 0)
		return 0;
	run.slot = p->slot;
	stamp(&run);
	if (to_of(&to, &run, task)) {
		/* No record, so none is lost: the daemon looks by itself now and then. */
		struct head *e = may_append(&to) ? reserve(&to, sizeof(*e)) : NULL;
		if (e) {
			fill(e, &to, EV_EXIT, 0);
			bpf_ringbuf_submit(e, 0);
		}
	}
	end(tgid, p->share);
	return 0;
}
