/* A 32-bit program without a C library: 20 times epoll_wait and rt_sigtimedwait, 100 ms each. Its status is how many ended
   with anything but their timeout. */
static long call(long number, long a, long b, long c, long d)
{
	long value;
	__asm__ volatile("int $0x80" : "=a"(value) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
	return value;
}

void _start(void)
{
	struct { unsigned events; unsigned long long data; } __attribute__((packed)) event;
	long nap[2] = { 0, 100000000 }, ep = call(329, 0, 0, 0, 0), wrong = 0;
	unsigned long long none = 1ULL << 11;

	/* Blocks SIGUSR2, and waits for it. */
	call(175, 0, (long)&none, 0, 8);
	for (int i = 0; i < 20; i++) {
		wrong += call(256, ep, (long)&event, 1, 100) != 0;
		wrong += call(177, (long)&none, 0, (long)nap, 8) != -11;
	}
	call(1, wrong, 0, 0, 0);
	for (;;)
		;
}
