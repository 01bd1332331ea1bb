/* How an event comes into a ring of its sink, and how one that has no room there is counted. */
#pragma once
#include "maps.h"

/*
 * A run of a program: whom it tells of, and when.
 *
 * The reader merges the rings of a sink by ktime, and knows that what was told before an event began has an earlier one. So the
 * time is taken before there is room for an event, and anew where an event goes into another ring than the one before.
 */
struct run {
	u64 ktime;
	u32 slot; /* the number of the sink */
	u32 abi, tgid, tid;
	u32 turn; /* of the rings, when it began */
	u32 away; /* AWAY: the last event is in another ring than that of this cpu. OTHERS: it may be in one of another turn */
};
#define AWAY 1
#define OTHERS 2

/* Into which ring. */
struct to {
	struct sink *sink;
	void *ring;
	struct run *run;
	struct task_struct *task; /* the running one, asked for once: that is a call of the kernel's */
};

static __always_inline void stamp(struct run *run)
{
	run->ktime = bpf_ktime_get_ns();
}

/* The sink with this number, if the slot is not another's by now. */
static __always_inline struct sink *sink_of(u32 id)
{
	u32 slot = SLOT(id);
	struct sink *sink = bpf_map_lookup_elem(&sinks, &slot);

	return sink && sink->id == id && !sink->dead ? sink : NULL;
}

static __always_inline bool to_of(struct to *to, struct run *run, struct task_struct *task)
{
	u32 key;

	to->run = run;
	to->task = task;
	to->sink = sink_of(run->slot);
	if (!to->sink)
		return false;
	/* Cpus that write into different rings do not wait for each other. */
	run->turn = *(volatile u32 *)&to->sink->turn;
	key = SLOT(run->slot) * RINGS + (bpf_get_smp_processor_id() & to->sink->mask);
	to->ring = bpf_map_lookup_elem(&rings, &key);
	return to->ring != NULL;
}

/* The same, later in a run: then it may be another ring. */
static __always_inline bool to_again(struct to *to, struct run *run)
{
	u32 turn = run->turn;

	if (!to_of(to, run, bpf_get_current_task_btf()))
		return false;
	run->turn = turn;
	if (turn & 1 || turn != *(volatile u32 *)&to->sink->turn)
		run->away |= OTHERS;
	return true;
}

/* The ring of a slot that has the most room. It looks and takes no lock: where all are full, each event comes here. */
__noinline u32 roomiest(u32 slot)
{
	struct sink *sink = bpf_map_lookup_elem(&sinks, &slot);
	u32 best = slot * RINGS;
	u64 most = 0;

	if (!sink)
		return best;
	for (u32 i = 0; i < RINGS; i++) {
		if (i > sink->mask)
			break;
		u32 key = slot * RINGS + i;
		void *ring = bpf_map_lookup_elem(&rings, &key);
		if (!ring)
			continue;
		u64 size = bpf_ringbuf_query(ring, BPF_RB_RING_SIZE), used = bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA);
		if (used < size && size - used > most) {
			most = size - used;
			best = key;
		}
	}
	return best;
}

/* Another ring than that of this cpu, which has no room: one thread may fill them all. */
static __always_inline void *another(struct to *to)
{
	if (!to->sink->mask)
		return NULL;
	u32 key = roomiest(SLOT(to->run->slot));
	return bpf_map_lookup_elem(&rings, &key);
}

static __always_inline void come_home(struct run *run)
{
	if (run->away)
		stamp(run);
	run->away &= OTHERS;
}

static __always_inline void go_away(struct run *run)
{
	stamp(run);
	run->away |= AWAY;
}

static __always_inline void *reserve(struct to *to, const u64 size)
{
	come_home(to->run);
	void *e = bpf_ringbuf_reserve(to->ring, size, 0), *ring;

	if (e)
		return e;
	ring = another(to);
	if (!ring)
		return NULL;
	go_away(to->run);
	return bpf_ringbuf_reserve(ring, size, 0);
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
	const struct run *run = to->run;

	h->kind = kind;
	h->abi = run->abi;
	h->flag = 0;
	h->tgid = run->tgid;
	h->tid = run->tid;
	h->word = word;
	h->ktime = run->ktime;
	name_of(to->task, h->comm);
}

static __always_inline void lose_many(struct sink *sink, u64 records, u64 bytes)
{
	if (sink->stop) {
		sink->dead = 11; /* EAGAIN */
		return;
	}
	if (!records)
		return;
	__sync_fetch_and_add(&sink->lost_bytes, bytes);
	__sync_fetch_and_add(&sink->lost_records, records);
}

/* `bytes` 0: what was lost would have been no record. */
static __always_inline void lose(struct sink *sink, u64 bytes)
{
	lose_many(sink, bytes != 0, bytes);
}

/* Says how many were lost before the next that fits; false where not even that does. */
static __always_inline bool may_append(struct to *to)
{
	if (to->sink->lost_records == 0)
		return true;
	/* After what came before the loss. */
	stamp(to->run);
	struct ev_lost *e = reserve(to, sizeof(*e));
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
		e_ = reserve(to, sizeof(struct type)); \
	if (!e_) \
		lose((to)->sink, bytes); \
	e_; })

/* Appends an event with `len` bytes of the scratch buffer's data. */
static __always_inline bool append(struct to *to, struct scratch *s, u32 kind, u32 word, u32 flag, u64 len)
{
	if (len > BODY_HEAD + DATA_MAX)
		return false;
	BOUND(len, 2 * DATA_MAX - 1);
	if (!may_append(to))
		return false;
	come_home(to->run);
	fill(&s->h, to, kind, word);
	s->h.flag = flag;
	if (bpf_ringbuf_output(to->ring, s, sizeof(struct head) + len, 0) == 0)
		return true;
	void *ring = another(to);
	if (!ring)
		return false;
	go_away(to->run);
	s->h.ktime = to->run->ktime;
	return bpf_ringbuf_output(ring, s, sizeof(struct head) + len, 0) == 0;
}

/* The same; `bytes` are lost where there is no room. */
static __always_inline void output(struct to *to, struct scratch *s, u32 kind, u32 word, u32 flag, u64 len, u64 bytes)
{
	if (!append(to, s, kind, word, flag, len))
		lose(to->sink, bytes);
}

static __always_inline struct scratch *scratch(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&scratches, &zero);
}

/*
 * The rings may have had no room for the birth of a process: then its first event that fits is that. Where not even that does,
 * the record of `bytes` that was to come is lost too. `flags` are those of before the run's time was taken: of one whose birth
 * was told by then, it is told at an earlier time.
 */
static __always_inline bool is_told(struct to *to, struct proc *p, u32 flags, u64 bytes)
{
	struct ev_birth *e = NULL;

	if (!(flags & PROC_UNTOLD))
		return true;
	if (may_append(to))
		e = reserve(to, sizeof(*e));
	if (!e) {
		lose(to->sink, bytes);
		return false;
	}
	/* Of its parent nothing may be left. */
	fill(&e->h, to, EV_BIRTH, p->facs);
	e->flags = p->flags;
	e->filter = p->filter;
	bpf_ringbuf_submit(e, 0);
	change_flags(to->run->tgid, 0, PROC_UNTOLD);
	return true;
}

static __always_inline bool begin_with(struct to *to, struct proc *p, struct run *run, struct task_struct *task, u32 flags, u64 bytes)
{
	return to_of(to, run, task) && is_told(to, p, flags, bytes);
}

static __always_inline bool begin(struct to *to, struct proc *p, struct run *run, struct task_struct *task, u64 bytes)
{
	u32 flags = p->flags;

	stamp(run);
	return begin_with(to, p, run, task, flags, bytes);
}
