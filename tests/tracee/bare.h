/* System calls without a C library, so that one source makes a 64-bit and a 32-bit program, and a text for standard
   output, written at the end. */
#include <asm/unistd.h>
#include <linux/fcntl.h>

/* n arguments and nothing else are what a call is made with. */
#ifdef __i386__
long call6(long n, long a, long b, long c, long d, long e, long f);
__asm__("call6: push %ebp; push %ebx; push %esi; push %edi\n"
	"mov 20(%esp), %eax; mov 24(%esp), %ebx; mov 28(%esp), %ecx; mov 32(%esp), %edx\n"
	"mov 36(%esp), %esi; mov 40(%esp), %edi; mov 44(%esp), %ebp; int $0x80\n"
	"pop %edi; pop %esi; pop %ebx; pop %ebp; ret");
#else
static long call6(long n, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;

	__asm__ volatile("syscall" : "+a"(n) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return n;
}
#endif
#define CALL(n, a, b, c, d, e, f, ...) call6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define call(...) CALL(__VA_ARGS__, 0, 0, 0, 0, 0, 0)

struct vec { const void *base; unsigned long len; };
struct hdr {
	void *name;
	unsigned namelen;
	struct vec *iov;
	unsigned long iovlen;
	void *control;
	unsigned long controllen;
	unsigned flags;
};
struct mhdr { struct hdr hdr; unsigned len; };

void *memset(void *to, int c, unsigned long n)
{
	volatile char *p = to;

	while (n--)
		*p++ = c;
	return to;
}

void *memcpy(void *to, const void *from, unsigned long n)
{
	volatile char *p = to;

	for (const char *q = from; n--;)
		*p++ = *q++;
	return to;
}

static unsigned long length(const char *s)
{
	unsigned long n = 0;

	while (s[n])
		n++;
	return n;
}

static char text[400000], *end = text;

static void say(const char *s)
{
	while (*s)
		*end++ = *s++;
}

static void say_number(long n)
{
	char digits[24], *p = digits + 23;

	*p = 0;
	if (n < 0)
		say("-"), n = -n;
	do
		*--p = '0' + n % 10;
	while (n /= 10);
	say(p);
}

static void say_bytes(const void *bytes, unsigned long n)
{
	for (const unsigned char *p = bytes; n--; p++)
		*end++ = "0123456789abcdef"[*p >> 4], *end++ = "0123456789abcdef"[*p & 15];
}

static void finish(void)
{
	for (char *p = text; p < end;)
		p += call(__NR_write, 1, p, end - p);
	call(__NR_exit, 0);
}

/* What the byte on standard input chooses. */
static void begin(char which);
#ifdef __i386__
void _start(void)
#else
__attribute__((force_align_arg_pointer)) void _start(void)
#endif
{
	char c;

	call(__NR_read, 0, &c, 1);
	begin(c);
	finish();
}
