/* What the daemon tells the programs, by src/ebpf/kernel.rs, and what they remember themselves. */
#pragma once
#include "events.h"

/* What is traced of a process. */
struct proc {
	u32 facs;
	u32 flags;
	u32 slot; /* the number of its sink */
	u32 filter; /* 0 for none */
	u32 owner; /* uid of whom its trace belongs to */
	u32 share; /* where the entries of that owner are counted */
};
#define PROC_INHERIT 1
#define PROC_ROOTS 2
/* The daemon says that its memory is not to be shown. */
#define PROC_HIDE 4
/* So the daemon was told last: its memory is not shown. */
#define PROC_HIDDEN 8
/* The daemon has not heard of its birth. */
#define PROC_UNTOLD 16
/* Set by root; PROC_ROOTS where the sink is root's too. The programs do not ask. */
#define PROC_ROOT 32

struct sink {
	u64 lost_records;
	u64 lost_bytes;
	u32 dead; /* errno */
	u32 stop; /* policy stop: the first loss ends it */
	u32 mask; /* it has so many rings, less one */
	u32 turn; /* of its rings: odd while others are put into their place */
	u64 pad[2];
	/* Its number: SLOT() of it is its slot, and the rest says which of all that had the slot it is. */
	u32 id;
	u32 untold; /* a child was born that the daemon has not heard of */
	u32 untraced; /* children for which `procs` had no room */
	u32 rest;
};
#define SLOTS 1024
#define SLOT(id) ((id) & (SLOTS - 1))

/* What the table of calls says: src/ebpf/kernel.rs makes it. */
struct path { u8 kind; u8 arg; };
struct call {
	u8 nargs;
	u8 flags;
	u8 io, dir, fd, ptr, len; /* io 0: moves nothing; fd 255: has none */
	u8 trunc; /* argument with MSG_TRUNC, 255: none */
	struct path paths[4];
};
enum { CALL_REMEMBER = 1, CALL_FORK = 2, CALL_ACCESS = 4, CALL_SOCKETCALL = 8, CALL_IPC = 16 };
enum { IO_NONE, IO_BUF, IO_WHOLE, IO_MSGBUF, IO_IOV, IO_MSG, IO_MMSG };
enum { DIR_READ, DIR_WRITE, DIR_PIPE };
enum { PATH_NONE, PATH_STRING, PATH_SOCKADDR, PATH_MSG, PATH_MMSG, PATH_BPF, PATH_FSCONFIG, PATH_QUOTACTL };

/* What is remembered of a thread from the entry of a call to its end. */
struct thread {
	s32 nr;
	u32 abi;
	u32 flags;
	u32 deferred; /* the first path that could not be read at entry, plus one */
};
#define THREAD_SKIP 1
#define THREAD_NR 2

/* The signal that ends a process. */
struct fatal { u32 signo; u32 told; u8 info[48]; };

#define PIDS 4194304
struct bits { u64 words[PIDS / 64]; };

struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32); __type(value, struct bits); } traced SEC(".maps");
/* Threads that have an entry in `threads`, or should and found no room. */
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32); __type(value, struct bits); } marked SEC(".maps");
/* Processes that have an entry in `fatals`. */
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32); __type(value, struct bits); } fated SEC(".maps");
/* Threads with a filter of seccomp(2) of whom an event of a call has been seen, and those that are in one. */
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32); __type(value, struct bits); } known SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32); __type(value, struct bits); } inside SEC(".maps");
#define PROCS 32768
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, PROCS);
	__type(key, u32); __type(value, struct proc); } procs SEC(".maps");
/* How often `procs` or an entry of it was changed. Whoever does it counts, afterwards: then nobody's `near` is true any more. */
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32); __type(value, u64); } changes SEC(".maps");
/* The entry of `procs` that a call on this cpu has needed last: most need the same one again, and a look into a hash costs more. */
struct near { u64 changes; u32 tgid; struct proc proc; };
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1);
	__type(key, u32); __type(value, struct near); } nears SEC(".maps");
/* So many may be used. */
const volatile u32 procs_max = PROCS;
/* Since 5.17 there is bpf_loop(). */
const volatile u32 loops = 1;
#define HAS_LOOP (loops && bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_loop))
/* How many entries of `procs` there are, and after that how many of each owner. */
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1 + SLOTS); __uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32); __type(value, u64); } shares SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 16384);
	__type(key, u32); __type(value, struct thread); } threads SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8192);
	__type(key, u32); __type(value, struct fatal); } fatals SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, SLOTS); __uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32); __type(value, struct sink); } sinks SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1024);
	__type(key, u32); __type(value, u64[3 * FILTER_WORDS]); } filters SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 3 * NUMBERS);
	__type(key, u32); __type(value, struct call); } calls SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1);
	__type(key, u32); __type(value, struct scratch); } scratches SEC(".maps");
/* Most rings of a sink: those of the sink in slot n are from n * RINGS on. */
#define RINGS 16
struct ring { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); };
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, SLOTS * RINGS); __type(key, u32);
	__array(values, struct ring); } rings SEC(".maps");

/*
 * What the compiler knows of `x` it forgets. Else it leaves out a test that it finds needless, or tests what `x` was made of, and the
 * verifiers of kernels before 6.8 or so conclude nothing for `x` from that.
 */
#define PIN(x) asm volatile("" : "+r"(x))
/* Shows the verifier that `x`, which has no other bits than those of `mask`, has none. */
#define BOUND(x, mask) ({ PIN(x); (x) &= (mask); })

static __always_inline bool has_bit(void *map, u32 n)
{
	u32 zero = 0;
	struct bits *bits = bpf_map_lookup_elem(map, &zero);

	return bits && bits->words[(n & (PIDS - 1)) / 64] >> (n % 64) & 1;
}

static __always_inline void set_bit(void *map, u32 n)
{
	u32 zero = 0;
	struct bits *bits = bpf_map_lookup_elem(map, &zero);

	if (bits)
		__sync_fetch_and_or(&bits->words[(n & (PIDS - 1)) / 64], 1ULL << (n % 64));
}

static __always_inline void clear_bit(void *map, u32 n)
{
	u32 zero = 0;
	struct bits *bits = bpf_map_lookup_elem(map, &zero);

	if (bits)
		__sync_fetch_and_and(&bits->words[(n & (PIDS - 1)) / 64], ~(1ULL << (n % 64)));
}

static __always_inline struct proc *proc_of(u32 tgid)
{
	return has_bit(&traced, tgid) ? bpf_map_lookup_elem(&procs, &tgid) : NULL;
}

static __always_inline void procs_changed(void)
{
	u32 zero = 0;
	u64 *all = bpf_map_lookup_elem(&changes, &zero);

	if (all)
		__sync_fetch_and_add(all, 1);
}

/*
 * What proc_of() says, to be read only: a copy of it that may be as old as this run. For programs that keep the cpu: those of calls
 * (src/ebpf/load.rs).
 */
static __always_inline struct proc *proc_near(u32 tgid)
{
	u32 zero = 0;

	if (!has_bit(&traced, tgid))
		return NULL;
	u64 *all = bpf_map_lookup_elem(&changes, &zero);
	struct near *near = bpf_map_lookup_elem(&nears, &zero);
	if (!all || !near)
		return NULL;
	/* Before it is looked for: what is changed meanwhile is looked for again. */
	u64 now = *(volatile u64 *)all;
	if (near->tgid != tgid || near->changes != now) {
		struct proc *p = bpf_map_lookup_elem(&procs, &tgid);
		if (!p)
			return NULL;
		near->proc = *p;
		near->tgid = tgid;
		near->changes = now;
	}
	return &near->proc;
}

/* Sets and clears flags of an entry. */
static __always_inline void change_flags(u32 tgid, u32 set, u32 clear)
{
	struct proc *p = bpf_map_lookup_elem(&procs, &tgid);

	if (!p)
		return;
	if (set)
		__sync_fetch_and_or(&p->flags, set);
	if (clear)
		__sync_fetch_and_and(&p->flags, ~clear);
	procs_changed();
}

/* False where there is no room. */
static __always_inline bool remember(u32 tid, struct thread *th)
{
	if (bpf_map_update_elem(&threads, &tid, th, BPF_ANY))
		return false;
	set_bit(&marked, tid);
	return true;
}

static __always_inline void forget(u32 tid)
{
	clear_bit(&marked, tid);
	bpf_map_delete_elem(&threads, &tid);
}

/* Numbers follow each other, so a bit costs a newborn less than a look into the hash. */
static __always_inline void forget_fatal(u32 tgid)
{
	if (!has_bit(&fated, tgid))
		return;
	clear_bit(&fated, tgid);
	bpf_map_delete_elem(&fatals, &tgid);
}

static __always_inline void note_fatal(u32 tgid, struct fatal *f)
{
	bpf_map_update_elem(&fatals, &tgid, f, BPF_NOEXIST);
	/* Last: a bit without an entry does no harm, an entry without a bit would stay. */
	set_bit(&fated, tgid);
}

static __always_inline void put_bit(void *map, u32 n, bool on)
{
	if (has_bit(map, n) == on)
		return;
	if (on)
		set_bit(map, n);
	else
		clear_bit(map, n);
}
