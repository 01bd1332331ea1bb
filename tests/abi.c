/* Reads records as a C compiler lays out the structures of docs/format.md, and prints their fields. */

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct header {
	int32_t len;
	int16_t type;
	int16_t version;
	int32_t pid;
	char comm[17];
	union {
		struct {
			struct { int32_t sec; long usec; } tv;
			void *buf;
		} v0;
		struct {
			struct { int32_t sec; long nsec; } ts;
			int32_t lid;
		} v1;
		struct {
			struct { int64_t sec; long nsec; } ts;
			int32_t lid;
		} v2;
	} u;
};

struct syscall { int32_t code; int32_t argsize; };
struct sysret { int16_t code; int16_t eosys; int32_t error; int64_t retval; int64_t retval_1; };
struct genio { int32_t fd; int32_t rw; };
struct siginfo {
	int32_t signo, code, errno_;
	union {
		char pad[128 - 2 * sizeof(int32_t) - sizeof(void *)];
		struct { int32_t pid; uint32_t uid; union { int32_t i; void *p; } value; } rt;
		struct { int32_t pid; uint32_t uid; int32_t status; uint32_t utime, stime; } child;
		struct { void *addr; int32_t trap; } fault;
		struct { long band; int32_t fd; } poll;
	} reason;
};
struct psig { int32_t signo; void (*action)(int); struct { uint32_t bits[4]; } mask; int32_t code; };
struct csw { int32_t out, user; };
struct user { char id[20]; };
struct execfd { int32_t fd; uint32_t dtype; };

int main(void)
{
	struct header h;
	static char b[1 << 16];

	printf("sizes %zu %zu %zu %zu %zu %zu\n", sizeof(h), sizeof(struct syscall), sizeof(struct sysret),
	    sizeof(struct psig), sizeof(struct siginfo), sizeof(struct user));
	while (fread(&h, sizeof(h), 1, stdin) == 1) {
		if (h.len < 0 || (size_t)h.len > sizeof(b) || fread(b, 1, h.len, stdin) != (size_t)h.len)
			return 1;
		printf("%d %d %d %d %s ", h.len, h.type, h.version, h.pid, h.comm);
		if (h.version == 0)
			printf("%d %ld: ", h.u.v0.tv.sec, h.u.v0.tv.usec);
		else if (h.version == 1)
			printf("%d %ld %d: ", h.u.v1.ts.sec, h.u.v1.ts.nsec, h.u.v1.lid);
		else
			printf("%ld %ld %d: ", (long)h.u.v2.ts.sec, h.u.v2.ts.nsec, h.u.v2.lid);
		if (h.type == 1) {
			struct syscall *s = (void *)b;
			printf("%d", s->code);
			for (int i = 0; i < s->argsize / 8; i++)
				printf(" %#lx", (unsigned long)((uint64_t *)(s + 1))[i]);
		} else if (h.type == 2) {
			struct sysret *s = (void *)b;
			printf("%d %d %d %ld %ld", s->code, s->eosys, s->error, (long)s->retval, (long)s->retval_1);
		} else if (h.type == 4) {
			struct genio *g = (void *)b;
			printf("%d %d %.*s", g->fd, g->rw, (int)(h.len - sizeof(*g)), (char *)(g + 1));
		} else if (h.type == 5) {
			struct { struct psig p; struct siginfo i; } *s = (void *)b;
			printf("%d %p %#x %#x %d", s->p.signo, (void *)s->p.action, s->p.mask.bits[0], s->p.mask.bits[1],
			    s->p.code);
			if (h.len > (int)sizeof(s->p))
				printf(" %d %d %d %d %u %p %d %p %d %ld %d", s->i.signo, s->i.code, s->i.errno_,
				    s->i.reason.rt.pid, s->i.reason.rt.uid, s->i.reason.rt.value.p,
				    s->i.reason.child.status, s->i.reason.fault.addr, s->i.reason.fault.trap,
				    s->i.reason.poll.band, s->i.reason.poll.fd);
		} else if (h.type == 6) {
			struct csw *c = (void *)b;
			printf("%d %d", c->out, c->user);
		} else if (h.type == 8) {
			struct user *u = (void *)b;
			printf("%s %.*s", u->id, (int)(h.len - sizeof(*u)), (char *)(u + 1));
		} else if (h.type == 15) {
			struct execfd *f = (void *)b;
			printf("%d %u", f->fd, f->dtype);
		} else {
			printf("%.*s", h.len, b);
		}
		putchar('\n');
	}
	return 0;
}
