/* NAMI: the paths of a call. */
#pragma once
#include "emit.h"
#include "call.h"

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
	output(to, s, EV_NAMEI, n - 1, 0, n - 1, REC(n - 1));
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
	u64 rest = len - 2;
	BOUND(rest, 127);
	if (bpf_probe_read_user(s->data + 256, rest, (void *)addr + 2))
		return -1;
	long n = bpf_probe_read_kernel_str(s->data, rest + 1, s->data + 256);
	if (n < 2 || n > 109)
		return 0;
	output(to, s, EV_NAMEI, n - 1, 0, n - 1, REC(n - 1));
	return 0;
}

static __always_inline int message_name(struct to *to, u64 addr)
{
	u64 at, len;
	u32 abi = to->run->abi, size = abi == ABI_LINUX ? 8 : 4;

	if (word(abi, addr, &at) || word(abi, addr + size, &len))
		return -1;
	return socket_name(to, at, len);
}

/* The paths of a call, on their way. In a map and not on the stack, which is small. */
struct named {
	u64 args[6];
	struct run run;
	u32 nr;
	u32 next; /* path to be looked at */
	u32 message;
	s32 failed;
};
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1);
	__type(key, u32); __type(value, struct named); } nameds SEC(".maps");

/* One path of a call; 1 where that was the last. */
static long one_name(u32 i, void *unused)
{
	u32 zero = 0;
	struct named *n = bpf_map_lookup_elem(&nameds, &zero);
	struct to to;
	int got = 0;

	if (!n)
		return 1;
	u32 abi = n->run.abi;
	struct call *call = call_of(abi, n->nr);
	u32 at = n->next;
	if (!call || at > 3 || !to_again(&to, &n->run))
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
		got = message_name(&to, value + (u64)n->message * 8 * (abi == ABI_LINUX ? 8 : 4));
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

/* Where there is no bpf_loop(): by itself for the verifier. */
__noinline int path(void)
{
	return one_name(0, NULL);
}

/* The paths of the call in `nameds` from its `next` on; where one could not be read, which, counted from 1, else 0. */
__noinline u32 names(void)
{
	u32 zero = 0;
	struct named *n = bpf_map_lookup_elem(&nameds, &zero);

	if (!n)
		return 0;
	if (HAS_LOOP) {
		bpf_loop(2048, one_name, NULL, 0);
	} else {
		int i = 0;
		for (; i < 16; i++)
			if (path())
				break;
		/* There may be some among the messages that are left. */
		struct sink *sink = i == 16 ? sink_of(n->run.slot) : NULL;
		if (sink)
			lose(sink, REC(0));
	}
	return n->failed ? n->next + 1 : 0;
}

/* The same for a call with these arguments, from path `next` on. */
static __always_inline u32 named(struct run *run, u32 nr, struct call *call, const u64 *args, u32 next)
{
	u32 zero = 0;
	struct named *n = bpf_map_lookup_elem(&nameds, &zero);

	if (!n)
		return 0;
	__builtin_memcpy(n->args, args, sizeof(n->args));
	n->run = *run;
	n->nr = nr;
	n->next = next;
	n->message = 0;
	n->failed = 0;
	if (call->flags & (CALL_SOCKETCALL | CALL_IPC))
		n->nr = inner((struct arguments *)n->args, call->flags & CALL_IPC);
	next = names();
	*run = n->run;
	return next;
}
