/*
 * The least that any tool must do that watches calls by eBPF: who it is, what was called, with which arguments, and with
 * which result, in a ring: one for each cpu, for whose lock no other cpu waits. And two programs that do nothing.
 *
 * Loaded by benches/cost/floor.rs; the compiled object is committed beside this file: `make` here makes it again.
 */
#include "prelude.h"

struct entry { u64 ktime, pid_tgid; char comm[16]; u64 nr; u64 args[6]; };
struct result { u64 ktime, pid_tgid; char comm[16]; u64 nr; u64 result; };

#define RINGS 16
struct ring { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); };
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, RINGS); __type(key, u32);
	__array(values, struct ring); } rings SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 32768);
	__type(key, u32); __type(value, u32); } pids SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1);
	__type(key, u32); __type(value, u64); } lost SEC(".maps");

static __always_inline void lose(void)
{
	u32 zero = 0;
	u64 *count = bpf_map_lookup_elem(&lost, &zero);

	if (count)
		__sync_fetch_and_add(count, 1);
}

/* Room in the ring of this cpu. */
static __always_inline void *room(u64 size)
{
	u32 cpu = bpf_get_smp_processor_id() & (RINGS - 1);
	void *ring = bpf_map_lookup_elem(&rings, &cpu);

	return ring ? bpf_ringbuf_reserve(ring, size, 0) : NULL;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(floor_enter, struct pt_regs *regs, long id)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	u32 tgid = pid_tgid >> 32;

	if (!bpf_map_lookup_elem(&pids, &tgid))
		return 0;
	struct entry *e = room(sizeof(*e));
	if (!e) {
		lose();
		return 0;
	}
	e->ktime = bpf_ktime_get_ns();
	e->pid_tgid = pid_tgid;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	e->nr = id;
	e->args[0] = regs->di;
	e->args[1] = regs->si;
	e->args[2] = regs->dx;
	e->args[3] = regs->r10;
	e->args[4] = regs->r8;
	e->args[5] = regs->r9;
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(floor_exit, struct pt_regs *regs, long result)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	u32 tgid = pid_tgid >> 32;

	if (!bpf_map_lookup_elem(&pids, &tgid))
		return 0;
	struct result *e = room(sizeof(*e));
	if (!e) {
		lose();
		return 0;
	}
	e->ktime = bpf_ktime_get_ns();
	e->pid_tgid = pid_tgid;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	e->nr = regs->orig_ax;
	e->result = result;
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(floor_fork, struct task_struct *parent, struct task_struct *child)
{
	u32 from = parent->tgid, to = child->tgid, one = 1;

	if (from != to && bpf_map_lookup_elem(&pids, &from))
		bpf_map_update_elem(&pids, &to, &one, BPF_ANY);
	return 0;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(empty_enter, struct pt_regs *regs, long id)
{
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(empty_exit, struct pt_regs *regs, long result)
{
	return 0;
}
