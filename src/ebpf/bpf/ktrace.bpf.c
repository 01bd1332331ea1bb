/*
 * The kernel's side of the eBPF backend: turns what a traced process does into events in the ring of its sink.
 *
 * Loaded by src/ebpf/load.rs; the layouts shared with it are in src/ebpf/event.rs and src/ebpf/kernel.rs. The compiled
 * object is committed beside this file: `make` here makes it again.
 */
#include <linux/bpf.h>
#include <linux/types.h>
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;
typedef __s64 s64;
typedef _Bool bool;
#define true 1
#define false 0
#define __x86_64__ 1
#define __TARGET_ARCH_x86 1
#include "types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Numbers of the facilities: src/facility.rs. */
#define FAC_SYSCALL (1 << 1)
#define FAC_SYSRET (1 << 2)
#define FAC_NAMEI (1 << 3)
#define FAC_GENIO (1 << 4)
#define FAC_PSIG (1 << 5)
#define FAC_CSW (1 << 6)
#define FAC_EMUL (1 << 7)
#define FAC_EXEC_ARG (1 << 10)
#define FAC_EXEC_ENV (1 << 11)
#define FAC_CALLS (FAC_SYSCALL | FAC_SYSRET | FAC_NAMEI | FAC_GENIO | FAC_EMUL)

enum { ABI_LINUX, ABI_LINUX32, ABI_LINUXX32 };
#define X32_BIT 0x40000000
#define TS_COMPAT 2
#define NUMBERS 548
#define FILTER_WORDS 9

enum kind {
	EV_SYSCALL = 1, EV_SYSRET, EV_NAMEI, EV_GENIO, EV_PSIG, EV_CSW, EV_FORK, EV_EXEC, EV_EXEC_ARG, EV_EXEC_ENV,
	EV_EXIT, EV_LOST, EV_ACCESS,
};

/* What every event begins with. */
struct head {
	u16 kind;
	u8 abi;
	u8 flag;
	u32 tgid;
	u32 tid;
	u32 word; /* number of a call, length of what follows, ... */
	u64 ktime; /* CLOCK_MONOTONIC, ns */
	char comm[16];
};
/* flag of EV_EXEC: nothing more is traced. */
#define FLAG_ENDED 1
/* flag of EV_EXEC and EV_ACCESS: its memory may not be shown from here on. */
#define FLAG_HIDDEN 2
/* flag of EV_CSW: in the midst of an exec. */
#define FLAG_IN_EXEC 1
/* flag of EV_EXEC_ARG and EV_EXEC_ENV: the next event goes on with this string. */
#define FLAG_MORE 1

struct ev_syscall { struct head h; u64 args[6]; };
struct ev_sysret { struct head h; s64 result; };
struct ev_psig { struct head h; u64 action; u64 mask; u8 info[48]; };
struct ev_csw { struct head h; u32 out; u32 user; };
struct ev_lost { struct head h; u64 records; u64 bytes; };
#define GENIO_HEAD 8
#define DATA_MAX 4096
struct scratch { struct head h; u8 data[GENIO_HEAD + 2 * DATA_MAX]; };

/* Bytes of the NetBSD record that an event becomes. */
#define REC(body) (56 + (body))

/* What is traced of a process. */
struct proc {
	u32 facs;
	u32 flags;
	u32 slot; /* of its sink */
	u32 filter; /* 0 for none */
	u32 owner; /* uid of whom its trace belongs to */
	u32 parent; /* of one that the daemon has not heard of */
};
#define PROC_INHERIT 1
#define PROC_ROOTS 2
/* The daemon says that its memory is not to be shown. */
#define PROC_HIDE 4
/* So the daemon was told last: its memory is not shown. */
#define PROC_HIDDEN 8
/* The daemon has not heard of its birth. */
#define PROC_UNTOLD 16

struct sink {
	u64 lost_records;
	u64 lost_bytes;
	u32 dead; /* errno */
	u32 stop; /* policy stop: the first loss ends it */
	u64 pad[5];
};

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
	u64 ktime; /* of the entry */
};
#define THREAD_SKIP 1
#define THREAD_NR 2

/* The signal that ends a process. */
struct fatal { u32 signo; u32 told; u8 info[48]; };

#define PIDS 4194304
struct bits { u64 words[PIDS / 64]; };

struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32); __type(value, struct bits); } traced SEC(".maps");
/* Threads that have an entry in `threads`. */
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32); __type(value, struct bits); } marked SEC(".maps");
/* Threads with a filter of seccomp(2) of whom an event of a call has been seen, and those that are in one. */
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32); __type(value, struct bits); } known SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32); __type(value, struct bits); } inside SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 32768);
	__type(key, u32); __type(value, struct proc); } procs SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 16384);
	__type(key, u32); __type(value, struct thread); } threads SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8192);
	__type(key, u32); __type(value, struct fatal); } fatals SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1024); __uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32); __type(value, struct sink); } sinks SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1024);
	__type(key, u32); __type(value, u64[3 * FILTER_WORDS]); } filters SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 3 * NUMBERS);
	__type(key, u32); __type(value, struct call); } calls SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1);
	__type(key, u32); __type(value, struct scratch); } scratches SEC(".maps");
struct ring { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); };
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 1024); __type(key, u32);
	__array(values, struct ring); } rings SEC(".maps");

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

/* Into which ring. */
struct to {
	struct sink *sink;
	void *ring;
	u32 tgid, tid, abi;
	u64 ktime;
};

static __always_inline bool open_sink(struct to *to, u32 slot)
{
	to->sink = bpf_map_lookup_elem(&sinks, &slot);
	if (!to->sink || to->sink->dead)
		return false;
	to->ring = bpf_map_lookup_elem(&rings, &slot);
	return to->ring != NULL;
}

/* A task's name, in two words: the helper for it copies byte by byte. What may stand behind its end is cut off by the reader. */
static __always_inline void name_of(struct task_struct *task, char *comm)
{
	const u64 *words = (const u64 *)&task->comm;

	((u64 *)comm)[0] = words[0];
	((u64 *)comm)[1] = words[1];
}

static __always_inline void fill(struct head *h, const struct to *to, u32 kind, u32 word)
{
	h->kind = kind;
	h->abi = to->abi;
	h->flag = 0;
	h->tgid = to->tgid;
	h->tid = to->tid;
	h->word = word;
	h->ktime = to->ktime;
	name_of(bpf_get_current_task_btf(), h->comm);
}

/* `bytes` 0: what was lost would have been no record. */
static __always_inline void lose(struct sink *sink, u64 bytes)
{
	if (sink->stop) {
		sink->dead = 11; /* EAGAIN */
		return;
	}
	if (!bytes)
		return;
	__sync_fetch_and_add(&sink->lost_bytes, bytes);
	__sync_fetch_and_add(&sink->lost_records, 1);
}

/* Says how many were lost before the next that fits; false where not even that does. */
static __always_inline bool may_append(struct to *to)
{
	if (to->sink->lost_records == 0)
		return true;
	struct ev_lost *e = bpf_ringbuf_reserve(to->ring, sizeof(*e), 0);
	if (!e)
		return false;
	fill(&e->h, to, EV_LOST, 0);
	e->records = __sync_lock_test_and_set(&to->sink->lost_records, 0);
	e->bytes = __sync_lock_test_and_set(&to->sink->lost_bytes, 0);
	bpf_ringbuf_submit(e, 0);
	return true;
}

#define RESERVE(to, type, bytes) ({ \
	struct type *e_ = NULL; \
	if (may_append(to)) \
		e_ = bpf_ringbuf_reserve((to)->ring, sizeof(struct type), 0); \
	if (!e_) \
		lose((to)->sink, bytes); \
	e_; })

/* Appends `len` bytes of the scratch buffer's data; `len` is masked for the verifier and is less than 8192 by then. */
static __always_inline bool output(struct to *to, struct scratch *s, u64 len, u64 bytes)
{
	if (len > GENIO_HEAD + DATA_MAX)
		return false;
	if (may_append(to) && bpf_ringbuf_output(to->ring, s, sizeof(struct head) + len, 0) == 0)
		return true;
	lose(to->sink, bytes);
	return false;
}

static __always_inline struct scratch *scratch(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&scratches, &zero);
}

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
	struct task_struct *task = (void *)bpf_get_current_task();

	if (p->flags & PROC_ROOTS)
		return true;
	/* As for a user who opens /proc/pid/environ. */
	return !(p->flags & PROC_HIDE) && dumpable(task) && (!p->owner || BPF_CORE_READ(task, cred, euid.val) == p->owner);
}

static __always_inline void set_hidden(struct proc *p, bool hidden)
{
	if (hidden)
		__sync_fetch_and_or(&p->flags, PROC_HIDDEN);
	else
		__sync_fetch_and_and(&p->flags, ~PROC_HIDDEN);
}

/* Tells of memory that may not be shown any more, or again. */
static __always_inline void tell_access(struct to *to, struct proc *p)
{
	bool hidden = !is_shown(p);

	/* Of a trace that belongs to uid 0 and is not root's the daemon finds out itself. */
	if (p->owner && hidden == !!(p->flags & PROC_HIDDEN))
		return;
	struct ev_sysret *e = RESERVE(to, ev_sysret, REC(20 + 40));
	if (!e)
		return;
	fill(&e->h, to, EV_ACCESS, 0);
	e->h.flag = hidden ? FLAG_HIDDEN : 0;
	e->result = 0;
	bpf_ringbuf_submit(e, 0);
	set_hidden(p, hidden);
}

static __always_inline bool is_wanted(struct proc *p, u32 abi, s32 nr)
{
	u32 key = p->filter;
	u64 *words;

	if (!key)
		return true;
	words = bpf_map_lookup_elem(&filters, &key);
	if (!words || (u32)nr >= NUMBERS || abi > 2)
		return false;
	u32 at = abi * FILTER_WORDS + (u32)nr / 64;
	if (at >= 3 * FILTER_WORDS)
		return false;
	return words[at] >> (nr % 64) & 1;
}

static __always_inline struct call *call_of(u32 abi, s32 nr)
{
	u32 key = abi * NUMBERS + (u32)nr;

	return (u32)nr < NUMBERS ? bpf_map_lookup_elem(&calls, &key) : NULL;
}

static __always_inline void arguments(struct pt_regs *regs, u32 abi, u64 *args)
{
	if (abi == ABI_LINUX32) {
		args[0] = (u32)regs->bx;
		args[1] = (u32)regs->cx;
		args[2] = (u32)regs->dx;
		args[3] = (u32)regs->si;
		args[4] = (u32)regs->di;
		args[5] = (u32)regs->bp;
	} else {
		args[0] = regs->di;
		args[1] = regs->si;
		args[2] = regs->dx;
		args[3] = regs->r10;
		args[4] = regs->r8;
		args[5] = regs->r9;
	}
}

static __always_inline void called(struct task_struct *task, long id, u32 *abi, s32 *nr)
{
	*nr = id;
	if (task->thread_info.status & TS_COMPAT) {
		*abi = ABI_LINUX32;
	} else if ((id & X32_BIT) && id >> 31 == 0) {
		*abi = ABI_LINUXX32;
		*nr = id & ~X32_BIT;
	} else {
		*abi = ABI_LINUX;
	}
}

static __always_inline u64 arg(const u64 *args, u32 i)
{
	/* An index that the compiler cannot turn into an address of the stack that varies. */
	switch (i) {
	case 0: return args[0];
	case 1: return args[1];
	case 2: return args[2];
	case 3: return args[3];
	case 4: return args[4];
	case 5: return args[5];
	}
	return 0;
}

/* A word (pointer, length) of a process that calls through this ABI; -1 where it cannot be read. */
static __always_inline int word(u32 abi, u64 addr, u64 *out)
{
	u32 half = 0;

	*out = 0;
	if (abi == ABI_LINUX)
		return bpf_probe_read_user(out, 8, (void *)addr);
	if (bpf_probe_read_user(&half, 4, (void *)addr))
		return -1;
	*out = half;
	return 0;
}

struct arguments { u64 args[6]; };

/*
 * A function that is not static is looked at by the verifier once, by itself, and not again wherever it is called: with
 * that the programs load in a hundredth of the time.
 */

/* The call behind socketcall(2) and ipc(2), and its arguments: the number of the call that does the same. */
__noinline int inner(struct arguments *of, u32 ipc)
{
	u32 words[6] = {};

	if (!of)
		return -1;
	u64 *args = of->args;
	u64 which = args[0];

	if (ipc) {
		if ((which & 0xffff) == 11) {
			u64 in[4] = { args[1], args[4], args[2], args[3] };
			args[0] = in[0], args[1] = in[1], args[2] = in[2], args[3] = in[3];
			return 400;
		}
		if ((which & 0xffff) != 12)
			return -1;
		if (which >> 16 == 0) {
			u64 id = args[1], size = args[2], third = args[3];
			if (bpf_probe_read_user(words, 8, (void *)args[4]))
				return -1;
			args[0] = id, args[1] = words[0], args[2] = size, args[3] = words[1], args[4] = third;
		} else {
			u64 in[5] = { args[1], args[4], args[2], args[5], args[3] };
			args[0] = in[0], args[1] = in[1], args[2] = in[2], args[3] = in[3], args[4] = in[4];
		}
		return 401;
	}
	s32 nr;
	u32 count = 3;
	switch (which) {
	case 2: nr = 361; break; /* bind */
	case 3: nr = 362; break; /* connect */
	case 9: nr = 369, count = 4; break; /* send */
	case 10: nr = 371, count = 4; break; /* recv */
	case 11: nr = 369, count = 6; break; /* sendto */
	case 12: nr = 371, count = 6; break; /* recvfrom */
	case 16: nr = 370; break; /* sendmsg */
	case 17: nr = 372; break; /* recvmsg */
	case 19: nr = 337, count = 5; break; /* recvmmsg */
	case 20: nr = 345, count = 4; break; /* sendmmsg */
	default: return -1;
	}
	u64 from = args[1];
	if (count == 3 ? bpf_probe_read_user(words, 12, (void *)from) :
	    count == 4 ? bpf_probe_read_user(words, 16, (void *)from) :
	    count == 5 ? bpf_probe_read_user(words, 20, (void *)from) :
			 bpf_probe_read_user(words, 24, (void *)from))
		return -1;
	for (int i = 0; i < 6; i++)
		args[i] = words[i];
	return nr;
}

/* One path; -1 where its memory could not be read. */
static __always_inline int name(struct to *to, u64 addr)
{
	struct scratch *s = scratch();

	if (!s || !addr)
		return 0;
	/* One more than PATH_MAX: what has no end within it is none. */
	long n = bpf_probe_read_user_str(s->data, DATA_MAX + 1, (void *)addr);
	if (n < 0)
		return -1;
	if (n < 1 || n > DATA_MAX)
		return 0;
	fill(&s->h, to, EV_NAMEI, n - 1);
	output(to, s, n - 1, REC(n - 1));
	return 0;
}

/* The path of a struct sockaddr_un (unix(7)). */
static __always_inline int socket_name(struct to *to, u64 addr, u64 len)
{
	struct scratch *s = scratch();
	u16 family = 0;

	len &= 0xffffffff;
	if (!s || !addr || len < 3 || len > 110)
		return 0;
	if (bpf_probe_read_user(&family, 2, (void *)addr))
		return -1;
	if (family != 1)
		return 0;
	/* All of it must be there, and it may have no NUL. */
	u32 rest = len - 2;
	if (rest < 1 || rest > 108)
		return 0;
	if (bpf_probe_read_user(s->data + 256, rest, (void *)addr + 2))
		return -1;
	long n = bpf_probe_read_kernel_str(s->data, rest + 1, s->data + 256);
	if (n < 2 || n > 109)
		return 0;
	fill(&s->h, to, EV_NAMEI, n - 1);
	output(to, s, n - 1, REC(n - 1));
	return 0;
}

static __always_inline int message_name(struct to *to, u64 addr)
{
	u64 at, len;
	u32 size = to->abi == ABI_LINUX ? 8 : 4;

	if (word(to->abi, addr, &at) || word(to->abi, addr + size, &len))
		return -1;
	return socket_name(to, at, len);
}

struct named {
	u64 args[6];
	u64 ktime;
	u32 slot, abi, tgid, tid;
	u32 nr;
	u32 next; /* path to be looked at */
	u32 message;
	s32 failed;
};

static __always_inline bool to_of(struct to *to, u32 slot, u32 abi, u32 tgid, u32 tid, u64 ktime)
{
	to->abi = abi;
	to->tgid = tgid;
	to->tid = tid;
	to->ktime = ktime;
	return open_sink(to, slot);
}

/*
 * The same for a process, whose birth the ring may have had no room for: then its first event that fits is that. Where not
 * even that does, the record of `bytes` that was to come is lost too.
 */
static __always_inline bool begin(struct to *to, struct proc *p, u32 abi, u32 tgid, u32 tid, u64 ktime, u64 bytes)
{
	struct ev_sysret *e = NULL;

	if (!to_of(to, p->slot, abi, tgid, tid, ktime))
		return false;
	if (!(p->flags & PROC_UNTOLD))
		return true;
	if (may_append(to))
		e = bpf_ringbuf_reserve(to->ring, sizeof(*e), 0);
	if (!e) {
		lose(to->sink, bytes);
		return false;
	}
	fill(&e->h, to, EV_FORK, tgid);
	e->h.tgid = p->parent;
	e->h.tid = p->parent;
	e->result = 0;
	bpf_ringbuf_submit(e, 0);
	__sync_fetch_and_and(&p->flags, ~PROC_UNTOLD);
	return true;
}

/* One path of a call; 1 where that was the last. */
static long one_name(u32 i, struct named *n)
{
	struct to to;
	struct call *call = call_of(n->abi, n->nr);
	u32 at = n->next;
	int got = 0;

	if (!call || at > 3 || !to_of(&to, n->slot, n->abi, n->tgid, n->tid, n->ktime))
		return 1;
	u8 kind = call->paths[at].kind, where = call->paths[at].arg;
	u64 value = arg(n->args, where);
	if (kind == PATH_NONE)
		return 1;
	if (kind == PATH_SOCKADDR) {
		got = socket_name(&to, value, arg(n->args, where + 1));
	} else if (kind == PATH_MSG) {
		got = message_name(&to, value);
	} else if (kind == PATH_MMSG) {
		u64 count = arg(n->args, where + 1);
		if (n->message >= count || n->message >= 1024)
			return 1;
		got = message_name(&to, value + (u64)n->message * 8 * (n->abi == ABI_LINUX ? 8 : 4));
		n->message++;
		/* One that cannot be read is not the end of the others. */
		return 0;
	} else {
		if (kind == PATH_BPF) {
			if ((u32)n->args[0] != 6 && (u32)n->args[0] != 7)
				return 1;
			if (bpf_probe_read_user(&value, 8, (void *)n->args[1]))
				got = -1;
		} else if (kind == PATH_FSCONFIG) {
			if ((u32)n->args[1] != 3 && (u32)n->args[1] != 4)
				return 1;
			value = n->args[3];
		} else if (kind == PATH_QUOTACTL) {
			if ((u32)n->args[0] >> 8 != 0x800002)
				return 1;
			value = n->args[3];
		}
		if (got == 0)
			got = name(&to, value);
	}
	if (got) {
		n->failed = 1;
		return 1;
	}
	n->next++;
	return 0;
}

/* The paths of a call from `next` on; where one could not be read, `failed` is set and `next` says which. */
__noinline int names(struct named *n)
{
	if (!n)
		return 0;
	/* bpf_loop() takes what is on its own stack only. */
	struct named own = *n;
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_loop)) {
		bpf_loop(2048, one_name, &own, 0);
	} else {
		for (int i = 0; i < 16; i++)
			if (one_name(i, &own))
				break;
	}
	*n = own;
	return 0;
}

static __always_inline void remember(u32 tid, struct thread *th)
{
	if (bpf_map_update_elem(&threads, &tid, th, BPF_ANY) == 0)
		set_bit(&marked, tid);
}

static __always_inline void forget(u32 tid)
{
	clear_bit(&marked, tid);
	bpf_map_delete_elem(&threads, &tid);
}

/* True where a filter may refuse calls: those have no entry here, as the kernel asks the filter before it tells of one. */
static __always_inline bool is_filtered(struct task_struct *task)
{
	return bpf_core_field_exists(task->seccomp) && task->seccomp.mode;
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

/* The data of a call, on its way. */
struct move {
	u64 addr, len; /* what is left of the present span */
	u64 left; /* what the call has moved and is not yet shown, of this message */
	u64 iov, count; /* vectors to come */
	u64 msg, messages; /* messages to come; of one message `left` stands already */
	u64 ktime;
	u32 many;
	u32 slot, abi, tgid, tid;
	s32 fd;
	u32 write;
	u32 shown;
};

/* Not on the stack: the verifier follows what is there, and would go round for every number of vectors. */
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1);
	__type(key, u32); __type(value, struct move); } moves SEC(".maps");

static long one_chunk(u32 i, void *unused)
{
	u32 zero = 0;
	struct move *m = bpf_map_lookup_elem(&moves, &zero);
	struct scratch *s = scratch();
	struct to to;

	if (!s || !m)
		return 1;
	u32 size = m->abi == ABI_LINUX ? 8 : 4;
	if (m->len == 0) {
		if (m->left && m->count) {
			u64 base, bytes;
			if (word(m->abi, m->iov, &base) || word(m->abi, m->iov + size, &bytes))
				return 1;
			m->addr = base;
			m->len = bytes;
			if (m->len > m->left)
				m->len = m->left;
			m->left -= m->len;
			m->iov += 2 * size;
			m->count--;
			return 0;
		}
		if (!m->messages)
			return 1;
		u64 len = 0;
		m->messages--;
		u64 iov, count;
		if (word(m->abi, m->msg + 2 * size, &iov) || word(m->abi, m->msg + 3 * size, &count))
			return 1;
		m->iov = iov;
		m->count = count < 1024 ? count : 1024;
		if (m->many) {
			if (bpf_probe_read_user(&len, 4, (void *)m->msg + 7 * size))
				return 1;
			m->left = len;
			m->msg += 8 * size;
		}
		return 0;
	}
	u64 want = m->len < DATA_MAX - GENIO_HEAD ? m->len : DATA_MAX - GENIO_HEAD;
	u64 first = 4096 - (m->addr & 4095), got = want;
	u64 addr = m->addr;
	if (first >= want)
		first = want;
	/* The bounds are for the verifier. */
	if (first < 1 || first > DATA_MAX)
		return 1;
	if (bpf_probe_read_user(s->data + GENIO_HEAD, first, (void *)addr))
		return 1;
	if (first < want) {
		u64 rest = want - first;
		if (rest < 1 || rest > DATA_MAX || first > DATA_MAX - rest)
			return 1;
		/* The buffer has room for both at their largest: the verifier does not know that together they are less. */
		if (bpf_probe_read_user(s->data + GENIO_HEAD + (first & (DATA_MAX - 1)), rest & (DATA_MAX - 1), (void *)addr + first))
			got = first;
	}
	if (got > DATA_MAX || !to_of(&to, m->slot, m->abi, m->tgid, m->tid, m->ktime))
		return 1;
	fill(&s->h, &to, EV_GENIO, got);
	s->h.flag = m->write;
	*(s32 *)s->data = m->fd;
	if (!output(&to, s, GENIO_HEAD + got, REC(8 + got)) || got < want)
		return 1;
	m->addr += got;
	m->len -= got;
	return 0;
}

static __always_inline struct file *file_of(struct task_struct *task, s32 fd)
{
	struct file **fds = BPF_CORE_READ(task, files, fdt, fd), *file = NULL;

	if (fd >= 0 && (u32)fd < BPF_CORE_READ(task, files, fdt, max_fds))
		bpf_probe_read_kernel(&file, sizeof(file), fds + fd);
	return file;
}

/* TCP throws away what MSG_TRUNC asks for. */
static __always_inline bool is_tcp(struct file *file)
{
	struct socket *socket = BPF_CORE_READ(file, private_data);
	struct sock *sk = BPF_CORE_READ(socket, sk);
	u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	return (family == 2 || family == 10) && BPF_CORE_READ(sk, sk_type) == 1;
}

/* A call that has moved data. */
struct moved {
	struct arguments of;
	s64 result;
	u64 ktime;
	u32 slot, abi, tgid, tid;
	u32 nr;
	u32 pad;
};

__noinline int data(struct moved *d)
{
	if (!d)
		return 0;
	struct task_struct *task = (void *)bpf_get_current_task();
	struct call *call = call_of(d->abi, d->nr);
	u64 *args = d->of.args;

	if (call && call->flags & (CALL_SOCKETCALL | CALL_IPC))
		call = call_of(d->abi, inner(&d->of, call->flags & CALL_IPC));
	if (!call)
		return 0;
	u32 io = call->io, dir = call->dir;
	u64 ptr = arg(args, call->ptr), len = arg(args, call->len);
	u32 zero = 0;
	struct move *m = bpf_map_lookup_elem(&moves, &zero);
	if (!m)
		return 0;
	__builtin_memset(m, 0, sizeof(*m));
	m->ktime = d->ktime;
	m->slot = d->slot;
	m->abi = d->abi;
	m->tgid = d->tgid;
	m->tid = d->tid;
	m->fd = call->fd == 255 ? -1 : arg(args, call->fd);
	m->write = dir == DIR_WRITE;
	if (dir == DIR_PIPE) {
		/* Not in the macro, which would look for `m` in the kernel too. */
		struct file *file = file_of(task, m->fd);
		m->write = BPF_CORE_READ(file, f_mode) >> 1 & 1;
	}
	m->left = d->result;
	if (io == IO_WHOLE || (io == IO_MSGBUF && m->write))
		m->left = len;
	if (!m->left)
		return 0;
	if (call->trunc != 255 && arg(args, call->trunc) & 0x20 && is_tcp(file_of(task, m->fd)))
		return 0;
	if (io == IO_BUF || io == IO_WHOLE || io == IO_MSGBUF) {
		m->addr = ptr;
		if (io == IO_MSGBUF)
			m->addr += d->abi == ABI_LINUX32 ? 4 : 8;
		m->len = len < m->left ? len : m->left;
		m->left = 0;
	} else if (io == IO_IOV) {
		m->iov = ptr;
		m->count = len < 1024 ? len : 1024;
	} else if (io == IO_MSG) {
		m->msg = ptr;
		m->messages = 1;
	} else {
		m->msg = ptr;
		m->messages = m->left < 1024 ? m->left : 1024;
		m->many = 1;
		m->left = 0;
	}
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_loop)) {
		bpf_loop(1 << 22, one_chunk, NULL, 0);
	} else {
		for (int i = 0; i < 64; i++)
			if (one_chunk(i, NULL))
				break;
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

SEC("tp_btf/sched_process_fork")
int BPF_PROG(process_fork, struct task_struct *parent, struct task_struct *child)
{
	u32 tgid = parent->tgid, new = child->tgid;
	struct proc *p;
	struct to to;

	if (tgid == new)
		return 0;
	p = proc_of(tgid);
	if (!p || !(p->flags & PROC_INHERIT))
		return 0;
	if (!to_of(&to, p->slot, 0, tgid, parent->pid, bpf_ktime_get_ns()))
		return 0;
	struct proc copy = *p;
	struct ev_sysret *e = RESERVE(&to, ev_sysret, p->facs & FAC_EMUL ? REC(5) : 0);
	copy.parent = tgid;
	copy.flags &= ~PROC_UNTOLD;
	if (!e)
		copy.flags |= PROC_UNTOLD;
	bool known = bpf_map_update_elem(&procs, &new, &copy, BPF_ANY) == 0;
	if (known)
		set_bit(&traced, new);
	if (e) {
		fill(&e->h, &to, EV_FORK, new);
		e->result = known ? 0 : -1;
		bpf_ringbuf_submit(e, 0);
	}
	return 0;
}

static __always_inline void end(u32 tgid)
{
	clear_bit(&traced, tgid);
	bpf_map_delete_elem(&procs, &tgid);
	bpf_map_delete_elem(&fatals, &tgid);
}

struct strings {
	u64 addr, end;
	u64 ktime;
	u64 sofar;
	u32 kind;
	u32 slot, abi, tgid, tid;
};

static long one_string(u32 i, struct strings *st)
{
	struct scratch *s = scratch();
	struct to to;

	if (!s || st->addr >= st->end || !to_of(&to, st->slot, st->abi, st->tgid, st->tid, st->ktime))
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
	fill(&s->h, &to, st->kind, len);
	s->h.flag = more ? FLAG_MORE : 0;
	st->sofar += len;
	if (!output(&to, s, len, REC(st->sofar)))
		return 1;
	if (!more)
		st->sofar = 0;
	st->addr += more ? len : n;
	return 0;
}

static __always_inline void each_string(struct strings *st)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_loop)) {
		bpf_loop(1 << 20, one_string, st, 0);
	} else {
		for (int i = 0; i < 256; i++)
			if (one_string(i, st))
				break;
	}
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(process_exec, struct task_struct *task, s32 old, struct linux_binprm *bprm)
{
	u32 tgid = task->tgid, tid = task->pid, former = old;
	struct proc *p = proc_of(tgid);
	struct to to;

	if (!p)
		return 0;
	u32 abi = task->thread_info.status & TS_COMPAT ? ABI_LINUX32 : ABI_LINUX;
	u64 now = bpf_ktime_get_ns();
	bool opened = begin(&to, p, abi, tgid, tid, now, 0);
	struct scratch *s = scratch();
	if (has_bit(&marked, former)) {
		struct thread *th = bpf_map_lookup_elem(&threads, &former);
		if (th) {
			struct thread copy = *th;
			/* Its memory is another one by now. */
			if (copy.deferred && opened && s && is_shown(p)) {
				struct to then = to;
				then.ktime = copy.ktime;
				then.abi = copy.abi;
				then.tid = former;
				long n = bpf_probe_read_kernel_str(s->data, DATA_MAX, BPF_CORE_READ(bprm, filename));
				if (n >= 1 && n <= DATA_MAX) {
					fill(&s->h, &then, EV_NAMEI, n - 1);
					output(&then, s, n - 1, REC(n - 1));
				}
			}
			copy.deferred = 0;
			if (former != tid)
				forget(former);
			remember(tid, &copy);
		}
	}
	if (former != tid && is_filtered((void *)bpf_get_current_task_btf())) {
		put_bit(&known, tid, true);
		put_bit(&inside, tid, true);
	}
	u32 secure = BPF_CORE_READ_BITFIELD_PROBED(bprm, secureexec);
	bool ended = secure && !(p->flags & PROC_ROOTS);
	bool shown = is_shown(p);
	if (opened) {
		struct ev_sysret *e = RESERVE(&to, ev_sysret, REC(5));
		if (e) {
			fill(&e->h, &to, EV_EXEC, secure);
			e->h.flag = (ended ? FLAG_ENDED : 0) | (shown ? 0 : FLAG_HIDDEN);
			e->result = 0;
			bpf_ringbuf_submit(e, 0);
			set_hidden(p, !shown);
		}
	}
	if (ended) {
		end(tgid);
		return 0;
	}
	if (!opened || !shown)
		return 0;
	struct mm_struct *mm = task->mm;
	struct strings st = { .ktime = now, .slot = p->slot, .abi = abi, .tgid = tgid, .tid = tid };
	if (p->facs & FAC_EXEC_ARG) {
		st.kind = EV_EXEC_ARG;
		st.addr = BPF_CORE_READ(mm, arg_start);
		st.end = BPF_CORE_READ(mm, arg_end);
		each_string(&st);
	}
	if (p->facs & FAC_EXEC_ENV) {
		st.kind = EV_EXEC_ENV;
		st.addr = BPF_CORE_READ(mm, env_start);
		st.end = BPF_CORE_READ(mm, env_end);
		st.sofar = 0;
		each_string(&st);
	}
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit, struct task_struct *task)
{
	u32 tgid = task->tgid, tid = task->pid;
	struct proc *p = proc_of(tgid);
	struct to to;

	if (has_bit(&marked, tid))
		forget(tid);
	if (!p || BPF_CORE_READ(task, signal, live.counter) != 0)
		return 0;
	if (to_of(&to, p->slot, 0, tgid, tid, bpf_ktime_get_ns())) {
		/* No record, so none is lost: the daemon looks by itself now and then. */
		struct head *e = may_append(&to) ? bpf_ringbuf_reserve(to.ring, sizeof(*e), 0) : NULL;
		if (e) {
			fill(e, &to, EV_EXIT, 0);
			bpf_ringbuf_submit(e, 0);
		}
	}
	end(tgid);
	return 0;
}

#define SIGKILL 9
/* Bit n-1 for signal n: CHLD CONT URG WINCH, and STOP TSTP TTIN TTOU. */
#define QUIET (1ULL << 16 | 1ULL << 17 | 1ULL << 22 | 1ULL << 27 | 1ULL << 18 | 1ULL << 19 | 1ULL << 20 | 1ULL << 21)
#define SIGNAL_GROUP_EXIT 4

SEC("tp_btf/signal_generate")
int BPF_PROG(signal_generate, int sig, struct kernel_siginfo *info, struct task_struct *task)
{
	u32 tgid = task->tgid;
	struct proc *p = proc_of(tgid);
	struct fatal f = {};

	if (!p || !(p->facs & FAC_PSIG))
		return 0;
	/* Only what has just been found to be the end of the process: its own siginfo is gone when it is delivered. */
	if (!(BPF_CORE_READ(task, signal, flags) & SIGNAL_GROUP_EXIT) ||
	    BPF_CORE_READ(task, signal, group_exit_code) != sig)
		return 0;
	f.signo = sig;
	if ((u64)info > 1) {
		bpf_probe_read_kernel(f.info, sizeof(f.info), info);
	} else {
		s32 *words = (s32 *)f.info;
		words[0] = sig;
		words[2] = info ? 0x80 : 0; /* SI_KERNEL, SI_USER */
		if (!info) {
			words[4] = bpf_get_current_pid_tgid() >> 32;
			words[5] = bpf_get_current_uid_gid();
		}
	}
	bpf_map_update_elem(&fatals, &tgid, &f, BPF_NOEXIST);
	return 0;
}

SEC("tp_btf/signal_deliver")
int BPF_PROG(signal_deliver, int sig, struct kernel_siginfo *info, struct k_sigaction *ka)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u32 tgid = task->tgid;
	struct proc *p = proc_of(tgid);
	struct fatal *f = NULL;
	struct to to;
	u64 handler = 0;

	if (!p || !(p->facs & FAC_PSIG) || sig < 1 || sig > 64)
		return 0;
	handler = (u64)BPF_CORE_READ(ka, sa.sa_handler);
	if (handler == 1 || (handler == 0 && QUIET >> (sig - 1) & 1))
		return 0;
	bool forged = sig == SIGKILL && (u64)info <= 1;
	if (forged) {
		/* Each thread of a process that ends is sent this; the reason is another. */
		sig = BPF_CORE_READ(task, signal, group_exit_code) & 0x7f;
		if (!sig)
			return 0;
	}
	if (handler == 0) {
		struct fatal own = { .signo = sig };
		bpf_map_update_elem(&fatals, &tgid, &own, BPF_NOEXIST);
		f = bpf_map_lookup_elem(&fatals, &tgid);
		if (f && __sync_lock_test_and_set(&f->told, 1))
			return 0;
	}
	if (!begin(&to, p, 0, tgid, task->pid, bpf_ktime_get_ns(), REC(168)))
		return 0;
	struct ev_psig *e = RESERVE(&to, ev_psig, REC(168));
	if (!e)
		return 0;
	fill(&e->h, &to, EV_PSIG, sig);
	e->action = handler;
	e->mask = BPF_CORE_READ_BITFIELD_PROBED(task, restore_sigmask) ? BPF_CORE_READ(task, saved_sigmask.sig[0]) :
									BPF_CORE_READ(task, blocked.sig[0]);
	if (!forged)
		bpf_probe_read_kernel(e->info, sizeof(e->info), info);
	else if (f && f->signo == sig)
		bpf_probe_read_kernel(e->info, sizeof(e->info), f->info);
	else
		__builtin_memset(e->info, 0, sizeof(e->info));
	bpf_ringbuf_submit(e, 0);
	return 0;
}

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
