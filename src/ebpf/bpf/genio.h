/* GENIO: the data of a call. */
#pragma once
#include "emit.h"
#include "call.h"

/* The data of a call, on its way. */
struct move {
	u64 addr, len; /* what is left of the present span */
	u64 left; /* what the call has moved and is not yet shown, of this message */
	u64 iov, count; /* vectors to come */
	u64 msg, messages; /* messages to come; of one message `left` stands already */
	struct run run;
	u32 many;
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
	u32 abi = m->run.abi, size = abi == ABI_LINUX ? 8 : 4;
	if (m->len == 0) {
		if (m->left && m->count) {
			u64 base, bytes;
			if (word(abi, m->iov, &base) || word(abi, m->iov + size, &bytes))
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
		if (word(abi, m->msg + 2 * size, &iov) || word(abi, m->msg + 3 * size, &count))
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
	u64 want = m->len < DATA_MAX - BODY_HEAD ? m->len : DATA_MAX - BODY_HEAD;
	u64 first = 4096 - (m->addr & 4095), got = want;
	u64 addr = m->addr;
	if (first >= want)
		first = want;
	/* The bounds are for the verifier. */
	if (first < 1 || first > DATA_MAX)
		return 1;
	if (bpf_probe_read_user(s->data + BODY_HEAD, first, (void *)addr))
		return 1;
	if (first < want) {
		u64 rest = want - first;
		if (rest < 1 || rest > DATA_MAX || first > DATA_MAX - rest)
			return 1;
		/* The buffer has room for both at their largest: the verifier does not know that together they are less. */
		if (bpf_probe_read_user(s->data + BODY_HEAD + (first & (DATA_MAX - 1)), rest & (DATA_MAX - 1), (void *)addr + first))
			got = first;
	}
	if (got > DATA_MAX || !to_again(&to, &m->run))
		return 1;
	*(s32 *)s->data = m->fd;
	output(&to, s, EV_GENIO, got, m->write, BODY_HEAD + got, REC(8 + got));
	if (got < want)
		return 1;
	m->addr += got;
	m->len -= got;
	return 0;
}

/* Where there is no bpf_loop(): by itself for the verifier, else it looks at each turn anew. */
__noinline int chunk(void)
{
	return one_chunk(0, NULL);
}

/* What is left of a call with more chunks than there are turns is lost. */
__noinline int rest(void)
{
	u32 zero = 0;
	struct move *m = bpf_map_lookup_elem(&moves, &zero);
	struct sink *sink = m ? sink_of(m->run.slot) : NULL;

	if (!m || !sink)
		return 0;
	u64 bytes = m->len + m->left, records = bytes / (DATA_MAX - BODY_HEAD) + m->messages;
	if (bytes % (DATA_MAX - BODY_HEAD))
		records++;
	lose_many(sink, records, bytes + records * REC(8));
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
	struct run run;
	u32 nr;
};
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1);
	__type(key, u32); __type(value, struct moved); } moveds SEC(".maps");

__noinline int data(struct moved *d)
{
	if (!d)
		return 0;
	struct task_struct *task = (void *)bpf_get_current_task();
	u32 abi = d->run.abi;
	struct call *call = call_of(abi, d->nr);
	u64 *args = d->of.args;

	if (call && call->flags & (CALL_SOCKETCALL | CALL_IPC))
		call = call_of(abi, inner(&d->of, call->flags & CALL_IPC));
	if (!call)
		return 0;
	u32 io = call->io, dir = call->dir;
	u64 ptr = arg(args, call->ptr), len = arg(args, call->len);
	u32 zero = 0;
	struct move *m = bpf_map_lookup_elem(&moves, &zero);
	if (!m)
		return 0;
	__builtin_memset(m, 0, sizeof(*m));
	m->run = d->run;
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
			m->addr += abi == ABI_LINUX32 ? 4 : 8;
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
	if (HAS_LOOP) {
		bpf_loop(1 << 22, one_chunk, NULL, 0);
	} else {
		int i = 0;
		for (; i < 64; i++)
			if (chunk())
				break;
		if (i == 64)
			rest();
	}
	d->run = m->run;
	return 0;
}
