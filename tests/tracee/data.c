/* After a byte on standard input: each call that moves user data, with data that is known, and calls that move none. Then
   prints each piece of data that must be seen: r or w, the descriptor, the bytes. A piece is at most 4088 bytes of one
   vector. The byte 'e' chooses calls with empty vectors, 'm' one that moves 64 MiB. */
#include "bare.h"

#define COUNT(vectors) (sizeof (vectors) / sizeof *(vectors))
#define NOWHERE ((void *)8)
#define AF_UNIX 1
#define AF_INET 2
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define MSG_PEEK 2
#define MSG_TRUNC 0x20
#define MSG_DONTWAIT 0x40
#define MSG_NOERROR 010000
#define O_EXCL_CREAT_RDWR 0302
#define EBADF (-9)
#define EFAULT (-14)
#define EINVAL (-22)
#define CHUNK 4088

static char buf[20000], big[20000], wide[80000];
static int file, root, nothing;

static void seen(const char *way, int fd, const void *bytes, unsigned long n)
{
	say(way);
	say_number(fd);
	say(" ");
	say_bytes(bytes, n);
	say("\n");
}

static void r(int fd, const char *s)
{
	seen("r ", fd, s, length(s));
}

static void w(int fd, const char *s)
{
	seen("w ", fd, s, length(s));
}

/* A call that does not return what it must makes all else meaningless. */
static long must(long want, long got, const char *what)
{
	if (got != want) {
		say("wrong: ");
		say(what);
		say(": ");
		say_number(got);
		say("\n");
	}
	return got;
}
#define IS(want, ...) must(want, call(__VA_ARGS__), #__VA_ARGS__)

/* Offsets are two halves in i386. */
#ifdef __i386__
#define OFFSET(n) n, 0
#define MMAP __NR_mmap2
#else
#define OFFSET(n) n
#define MMAP __NR_mmap
#endif

static char *map(unsigned long bytes)
{
	/* Readable and writable, private and anonymous, without a reservation. */
	return (char *)call(MMAP, 0, bytes, 3, 0x4022, -1, 0);
}

static void one_buffer(void)
{
	IS(10, __NR_write, file, "0123456789", 10);
	w(file, "0123456789");
	IS(6, __NR_pread64, file, buf, 100, OFFSET(4));
	r(file, "456789");
	IS(2, __NR_pwrite64, file, "ab", 2, OFFSET(0));
	w(file, "ab");
	IS(0, __NR_read, file, buf, 100);
	IS(EBADF, __NR_write, -1, "closed", 6);
	IS(0, __NR_lseek, file, 0, 0);
	IS(EFAULT, __NR_read, file, NOWHERE, 4);
	IS(3, __NR_read, file, buf, 3);
	r(file, "ab2");
	IS(0, __NR_lseek, file, 0, 0);
	IS(7, __NR_getrandom, buf, 7, 0);
	seen("r ", -1, buf, 7);
}

static void vectors(void)
{
	struct vec in[] = { { buf, 4 }, { buf + 100, 3 }, { buf + 200, 80 } };
	struct vec out[] = { { "one", 3 }, { "two", 3 }, { "three", 5 } };
	struct vec hole[] = { { "seen", 4 }, { NOWHERE, 100 }, { "unseen", 6 } };

	IS(10, __NR_readv, file, in, COUNT(in));
	r(file, "ab23"), r(file, "456"), r(file, "789");
	IS(11, __NR_writev, file, out, COUNT(out));
	w(file, "one"), w(file, "two"), w(file, "three");
	IS(5, __NR_preadv, file, in, COUNT(in), 16, 0);
	r(file, "thre"), r(file, "e");
	IS(6, __NR_pwritev, file, out, 2, 0, 0);
	w(file, "one"), w(file, "two");
	IS(21, __NR_preadv2, file, in, COUNT(in), 0, 0, 0);
	r(file, "onet"), r(file, "wo6"), r(file, "789onetwothree");
	IS(3, __NR_pwritev2, file, out, 1, 0, 0, 0);
	w(file, "one");
	/* The kernel does not look at what goes into /dev/null, and we cannot. */
	IS(110, __NR_writev, nothing, hole, COUNT(hole));
	w(nothing, "seen");
	IS(EINVAL, __NR_writev, file, out, 1025);
	IS(EINVAL, __NR_readv, file, in, -1);
	IS(EFAULT, __NR_writev, file, NOWHERE, 1);
	IS(0, __NR_writev, file, out, 0);
}

/* All of this has gone into /dev/null, chunk by chunk. */
static void whole(const char *bytes, unsigned long n)
{
	for (unsigned long at = 0; at < n; at += CHUNK)
		seen("w ", nothing, bytes + at, n - at < CHUNK ? n - at : CHUNK);
}

static void chunks(void)
{
	struct vec halves[] = { { big, 5000 }, { big + 5000, 5000 } }, each[1024];
	/* Two pages with nothing behind them. */
	char *edge = map(3 * 4096);

	for (unsigned long i = 0; i < sizeof big; i++)
		big[i] = i % 251;
	IS(10000, __NR_write, nothing, big, 10000);
	seen("w ", nothing, big, CHUNK), seen("w ", nothing, big + CHUNK, CHUNK);
	seen("w ", nothing, big + 2 * CHUNK, 10000 - 2 * CHUNK);
	IS(10000, __NR_writev, nothing, halves, 2);
	seen("w ", nothing, big, CHUNK), seen("w ", nothing, big + CHUNK, 5000 - CHUNK);
	seen("w ", nothing, big + 5000, CHUNK), seen("w ", nothing, big + 5000 + CHUNK, 5000 - CHUNK);
	IS(CHUNK, __NR_write, nothing, big, CHUNK);
	seen("w ", nothing, big, CHUNK);
	IS(CHUNK + 1, __NR_write, nothing, big, CHUNK + 1);
	seen("w ", nothing, big, CHUNK), seen("w ", nothing, big + CHUNK, 1);
	for (unsigned long i = 0; i < COUNT(each); i++) {
		each[i] = (struct vec){ big + i, 1 };
		seen("w ", nothing, big + i, 1);
	}
	IS(1024, __NR_writev, nothing, each, COUNT(each));
	/* More than is fetched at once, in vectors and in one of them. */
	struct vec more[] = { { big, 20000 }, { big, 20000 }, { big, 20000 }, { big, 20000 }, { big, 3 }, { wide, 80000 }, { big, 5 } };
	for (unsigned long i = 0; i < sizeof wide; i++)
		wide[i] = i % 241;
	for (unsigned long i = 0; i < COUNT(more); i++)
		whole(more[i].base, more[i].len);
	IS(160008, __NR_writev, nothing, more, COUNT(more));
	IS(0, __NR_munmap, edge + 2 * 4096, 4096);
	memcpy(edge, big, 2 * 4096);
	IS(20000, __NR_write, nothing, edge + 4096 - 1000, 20000);
	seen("w ", nothing, edge + 4096 - 1000, CHUNK), seen("w ", nothing, edge + 4096 - 1000 + CHUNK, 5096 - CHUNK);
}

static void sockets(void)
{
	int stream[2], datagram[2];

	IS(0, __NR_socketpair, AF_UNIX, SOCK_STREAM, 0, stream);
	IS(0, __NR_socketpair, AF_UNIX, SOCK_DGRAM, 0, datagram);
	IS(6, __NR_sendto, stream[0], "stream", 6, 0, 0, 0);
	w(stream[0], "stream");
	IS(3, __NR_recvfrom, stream[1], buf, 3, MSG_PEEK, 0, 0);
	r(stream[1], "str");
	IS(6, __NR_recvfrom, stream[1], buf, 100, 0, 0, 0);
	r(stream[1], "stream");
	IS(8, __NR_sendto, datagram[0], "datagram", 8, 0, 0, 0);
	w(datagram[0], "datagram");
	/* The result is more than was moved. */
	IS(8, __NR_recvfrom, datagram[1], buf, 4, MSG_TRUNC, 0, 0);
	r(datagram[1], "data");
	IS(0, __NR_sendto, datagram[0], "", 0, 0, 0, 0);
	IS(0, __NR_recvfrom, datagram[1], buf, 4, 0, 0, 0);
	IS(-11, __NR_recvfrom, datagram[1], buf, 4, MSG_DONTWAIT, 0, 0);
}

static void tcp(void)
{
	unsigned char address[16] = { AF_INET, 0, 0, 0, 127, 0, 0, 1 };
	int size = sizeof address, listener = call(__NR_socket, AF_INET, SOCK_STREAM, 0);
	int out = call(__NR_socket, AF_INET, SOCK_STREAM, 0), in;

	IS(0, __NR_bind, listener, address, sizeof address);
	IS(0, __NR_listen, listener, 1);
	IS(0, __NR_getsockname, listener, address, &size);
	IS(0, __NR_connect, out, address, sizeof address);
	in = call(__NR_accept4, listener, 0, 0, 0);
	IS(8, __NR_sendto, out, "tcp data", 8, 0, 0, 0);
	w(out, "tcp data");
	/* Thrown away, not moved: the buffer is as it was. */
	IS(4, __NR_recvfrom, in, buf, 4, MSG_TRUNC, 0, 0);
	IS(4, __NR_recvfrom, in, buf, 4, 0, 0, 0);
	r(in, "data");
}

static void messages(void)
{
	int s[2];
	struct vec out[] = { { "one", 3 }, { "messages", 8 }, { NOWHERE, 5 } };
	struct vec in[] = { { buf, 2 }, { buf + 10, 4 }, { buf + 20, 90 } };
	struct hdr send = { .iov = out, .iovlen = 2 }, receive = { .iov = in, .iovlen = 3 };
	struct mhdr sends[] = {
		{ .hdr = { .iov = out, .iovlen = 1 } },
		{ .hdr = { .iov = out, .iovlen = 2 } },
		{ .hdr = { .iov = out + 1, .iovlen = 1 } },
		{ .hdr = { .iov = out + 2, .iovlen = 1 } },
	};
	struct mhdr receives[] = {
		{ .hdr = { .iov = in, .iovlen = 2 } },
		{ .hdr = { .iov = in, .iovlen = 2 } },
		{ .hdr = { .iov = in + 2, .iovlen = 1 } },
		{ .hdr = { .iov = in + 2, .iovlen = 1 } },
	};

	IS(0, __NR_socketpair, AF_UNIX, SOCK_DGRAM, 0, s);
	IS(11, __NR_sendmsg, s[0], &send, 0);
	w(s[0], "one"), w(s[0], "messages");
	IS(11, __NR_recvmsg, s[1], &receive, 0);
	r(s[1], "on"), r(s[1], "emes"), r(s[1], "sages");
	IS(11, __NR_sendmsg, s[0], &send, 0);
	w(s[0], "one"), w(s[0], "messages");
	receive.iovlen = 2;
	IS(11, __NR_recvmsg, s[1], &receive, MSG_TRUNC);
	r(s[1], "on"), r(s[1], "emes");
	/* The fourth fails, so three are sent. */
	IS(3, __NR_sendmmsg, s[0], sends, COUNT(sends), 0);
	w(s[0], "one"), w(s[0], "one"), w(s[0], "messages"), w(s[0], "messages");
	IS(3, __NR_recvmmsg, s[1], receives, COUNT(receives), MSG_TRUNC | MSG_DONTWAIT, 0);
	r(s[1], "on"), r(s[1], "e"), r(s[1], "on"), r(s[1], "emes"), r(s[1], "messages");
	IS(EFAULT, __NR_sendmmsg, s[0], sends + 3, 1, 0);
	IS(EFAULT, __NR_recvmsg, s[1], NOWHERE, 0);
}

static void other_memory(void)
{
	int pipe[2];
	struct vec in[] = { { buf, 3 }, { buf + 10, 90 } }, out[] = { { "gift", 4 }, { "ed", 2 } };
	struct vec there[] = { { "remote", 6 } }, here[] = { { "local", 5 } }, into[] = { { buf + 50, 4 } };
	int pid = call(__NR_getpid);

	IS(0, __NR_pipe2, pipe, 0);
	IS(6, __NR_vmsplice, pipe[1], out, COUNT(out), 0);
	w(pipe[1], "gift"), w(pipe[1], "ed");
	IS(6, __NR_vmsplice, pipe[0], in, COUNT(in), 0);
	r(pipe[0], "gif"), r(pipe[0], "ted");
	IS(6, __NR_process_vm_readv, pid, in, COUNT(in), there, 1, 0);
	r(-1, "rem"), r(-1, "ote");
	IS(4, __NR_process_vm_writev, pid, here, 1, into, 1, 0);
	w(-1, "loca");
}

/* A message with its type before it. */
struct msg { long type; char text[20]; };

static void queues(void)
{
	char name[20];
	long attr[8] = { 0, 4, 16 };
	struct msg out = { 7, "queued" }, in;
	int queue = call(__NR_msgget, 0, 0600), mq;
	char *digits = end, *stop;

	say("data-");
	say_number(call(__NR_getpid));
	stop = end, end = digits;
	memcpy(name, digits, stop - digits);
	name[stop - digits] = 0;
	mq = call(__NR_mq_open, name, O_EXCL_CREAT_RDWR, 0600, attr);
	IS(0, __NR_mq_unlink, name);
	IS(0, __NR_mq_timedsend, mq, "posix", 5, 1, 0);
	w(mq, "posix");
	IS(5, __NR_mq_timedreceive, mq, buf, 16, 0, 0);
	r(mq, "posix");
	IS(-90, __NR_mq_timedsend, mq, "longer than 16 bytes", 20, 1, 0);
	IS(0, __NR_msgsnd, queue, &out, 6, 0);
	w(-1, "queued");
	IS(4, __NR_msgrcv, queue, &in, 4, 0, MSG_NOERROR);
	r(-1, "queu");
#ifdef __i386__
	struct { void *msg; long type; } old = { &in, 0 };

	IS(0, __NR_ipc, 11, queue, 6, 0, &out);
	w(-1, "queued");
	IS(6, __NR_ipc, 12, queue, 20, 0, &old);
	r(-1, "queued");
	IS(0, __NR_ipc, 11, queue, 3, 0, &out);
	w(-1, "que");
	IS(3, __NR_ipc, 1 << 16 | 12, queue, 20, 0, &in, 0);
	r(-1, "que");
#endif
	IS(0, __NR_msgctl, queue, 0, 0);
}

#ifdef __i386__
/* As older C libraries call them. */
static void socketcalls(void)
{
	int s[2];
	struct vec vec = { "in one", 6 }, into = { buf, 90 };
	struct hdr out = { .iov = &vec, .iovlen = 1 }, in = { .iov = &into, .iovlen = 1 };
	struct mhdr outs = { .hdr = out }, ins = { .hdr = in };

	IS(0, __NR_socketpair, AF_UNIX, SOCK_DGRAM, 0, s);
#define SOCKET(want, which, ...) IS(want, __NR_socketcall, which, ((long[]){ __VA_ARGS__ }))
	SOCKET(4, 9, s[0], (long)"send", 4, 0);
	w(s[0], "send");
	SOCKET(4, 10, s[1], (long)buf, 90, 0);
	r(s[1], "send");
	SOCKET(6, 11, s[0], (long)"sendto", 6, 0, 0, 0);
	w(s[0], "sendto");
	SOCKET(6, 12, s[1], (long)buf, 4, MSG_TRUNC, 0, 0);
	r(s[1], "send");
	SOCKET(6, 16, s[0], (long)&out, 0);
	w(s[0], "in one");
	SOCKET(6, 17, s[1], (long)&in, 0);
	r(s[1], "in one");
	SOCKET(1, 20, s[0], (long)&outs, 1, 0);
	w(s[0], "in one");
	SOCKET(1, 19, s[1], (long)&ins, 1, 0, 0);
	r(s[1], "in one");
	SOCKET(0, 13, s[1], 2);
}
#endif

static void directories(void)
{
	long n = call(__NR_getdents64, root, buf, 2000);

	seen("r ", root, buf, n);
	IS(0, __NR_lseek, root, 0, 0);
	n = call(__NR_getdents, root, buf, 1000);
	seen("r ", root, buf, n);
	IS(0, __NR_lseek, root, 0, 0);
	IS(EINVAL, __NR_getdents64, root, buf, 1);
}

/* Data of two descriptors, and of none. */
static void moves_no_data(void)
{
	int pipe[2], more[2], copy = call(__NR_memfd_create, "copy", 0);

	IS(0, __NR_pipe2, pipe, 0);
	IS(0, __NR_pipe2, more, 0);
	IS(0, __NR_lseek, file, 0, 0);
	IS(5, __NR_sendfile, pipe[1], file, 0, 5);
	IS(5, __NR_tee, pipe[0], more[1], 100, 0);
	IS(5, __NR_splice, pipe[0], 0, nothing, 0, 100, 0);
	IS(4, __NR_copy_file_range, file, 0, copy, 0, 4, 0);
	call(__NR_readlink, "/proc/self/exe", buf, 100);
	call(__NR_getcwd, buf, 100);
}

static void empty_vectors(void)
{
	struct vec in[] = { { buf, 0 }, { buf, 2 }, { buf, 0 }, { buf + 10, 9 }, { buf, 0 } };
	struct vec out[] = { { "", 0 }, { "x", 1 }, { NOWHERE, 0 }, { "yz", 2 } };
	struct mhdr empty[] = { { .hdr = { .iov = out, .iovlen = 1 } }, { .hdr = { .iov = out, .iovlen = 2 } } };
	int s[2];

	IS(3, __NR_writev, file, out, COUNT(out));
	w(file, "x"), w(file, "yz");
	IS(3, __NR_preadv, file, in, COUNT(in), 0, 0);
	r(file, "xy"), r(file, "z");
	IS(0, __NR_writev, file, out, 1);
	IS(0, __NR_read, file, buf, 0);
	IS(0, __NR_socketpair, AF_UNIX, SOCK_DGRAM, 0, s);
	IS(2, __NR_sendmmsg, s[0], empty, 2, 0);
	w(s[0], "x");
}

static void begin(char which)
{
	file = call(__NR_memfd_create, "file", 0);
	nothing = call(__NR_open, "/dev/null", O_RDWR);
	root = call(__NR_open, "/", O_RDONLY);
	if (which == 'e') {
		empty_vectors();
		return;
	}
	if (which == 'm') {
		IS(64 << 20, __NR_write, nothing, map(64 << 20), 64 << 20);
		return;
	}
	one_buffer();
	vectors();
	chunks();
	sockets();
	tcp();
	messages();
	other_memory();
	queues();
	directories();
	moves_no_data();
#ifdef __i386__
	socketcalls();
#endif
}
