/* How an event comes into the ring of its sink, and how one that has no room there is counted. */
#pragma once
#include "maps.h"

/* Into which ring. */
struct to {
	struct sink *sink;
	void *ring;
	u32 tgid, tid, abi;
	u64 ktime;
};

static __always_inline bool open_sink(struct to *to, u32 id)
{
	u32 slot = SLOT(id);

	to->sink = bpf_map_lookup_elem(&sinks, &slot);
	/* Another sink's, by now? */
	if (!to->sink || to->sink->id != id || to->sink->dead)
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

/* Appends `len` bytes of the scratch buffer's data. */
static __always_inline bool append(struct to *to, struct scratch *s, u64 len)
{
	if (len > GENIO_HEAD + DATA_MAX)
		return false;
	BOUND(len, 2 * DATA_MAX - 1);
	return may_append(to) && bpf_ringbuf_output(to->ring, s, sizeof(struct head) + len, 0) == 0;
}

/* The same; `bytes` are lost where there is no room. */
static __always_inline void output(struct to *to, struct scratch *s, u64 len, u64 bytes)
{
	if (!append(to, s, len))
		lose(to->sink, bytes);
}

static __always_inline struct scratch *scratch(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&scratches, &zero);
}

static __always_inline bool to_of(struct to *to, u32 slot, u32 abi, u32 tgid, u32 tid, u64 ktime)
{
	to->abi = abi;
	to->tgid = tgid;
	to->tid = tid;
	to->ktime = ktime;
	return open_sink(to, slot);
}

/*
 * The ring may have had no room for the birth of a process: then its first event that fits is that. Where not even that does,
 * the record of `bytes` that was to come is lost too.
 */
static __always_inline bool is_told(struct to *to, struct proc *p, u64 bytes)
{
	struct ev_birth *e = NULL;

	if (!(p->flags & PROC_UNTOLD))
		return true;
	if (may_append(to))
		e = bpf_ringbuf_reserve(to->ring, sizeof(*e), 0);
	if (!e) {
		lose(to->sink, bytes);
		return false;
	}
	/* Of its parent nothing may be left. */
	fill(&e->h, to, EV_BIRTH, p->facs);
	e->flags = p->flags;
	e->filter = p->filter;
	bpf_ringbuf_submit(e, 0);
	__sync_fetch_and_and(&p->flags, ~PROC_UNTOLD);
	return true;
}

static __always_inline bool begin(struct to *to, struct proc *p, u32 abi, u32 tgid, u32 tid, u64 ktime, u64 bytes)
{
	return to_of(to, p->slot, abi, tgid, tid, ktime) && is_told(to, p, bytes);
}
