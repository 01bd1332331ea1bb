/* What the programs write into a ring; src/ebpf/event.rs reads it. */
#pragma once

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
	EV_EXIT, EV_LOST, EV_ACCESS, EV_BIRTH,
};

/* What every event begins with. */
struct head {
	u16 kind;
	u8 abi;
	u8 flag;
	u32 tgid;
	u32 tid;
	u32 word; /* number of a call, length of what follows, ... */
	u64 ktime; /* CLOCK_MONOTONIC, ns: by this the rings of a sink are merged (emit.h) */
	char comm[16];
};
/* flag of EV_EXEC: nothing more is traced. */
#define FLAG_ENDED 1
/* flag of EV_EXEC and EV_ACCESS: its memory may not be shown from here on. */
#define FLAG_HIDDEN 2
/* flag of EV_CSW: in the midst of an exec. */
#define FLAG_IN_EXEC 1
/* And: the thread does not come back. */
#define FLAG_LAST 2
/* flag of EV_EXEC_ARG and EV_EXEC_ENV: the next event goes on with this string. */
#define FLAG_MORE 1
/* And: it goes on with the string of the one before. */
#define FLAG_REST 2

/* With 0, 3 or 6 arguments; its flag says how many the call has. */
struct ev_syscall { struct head h; u64 args[6]; };
struct ev_sysret { struct head h; s64 result; };
/* The word of its head is the child; 0 where the kernel gives pidfds no numbers of their own. */
struct ev_fork { struct head h; u64 inode; };
struct ev_psig { struct head h; u64 action; u64 mask; u8 info[48]; };
struct ev_csw { struct head h; u32 out; u32 user; };
struct ev_lost { struct head h; u64 records; u64 bytes; };
/* Of a child whose EV_FORK had no room; the word of its head are its facilities, the rest is that of struct proc. */
struct ev_birth { struct head h; u32 flags; u32 filter; };
/* Before the data of EV_GENIO: the descriptor. */
#define BODY_HEAD 8
#define DATA_MAX 4096
struct scratch { struct head h; u8 data[BODY_HEAD + 2 * DATA_MAX]; };

/* Bytes of the NetBSD record that an event becomes. */
#define REC(body) (56 + (body))
