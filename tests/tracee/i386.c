/* A 32-bit program without a C library: read(0), open of a path, getppid, exit 0. */
static long call(long number, long a, long b, long c)
{
	long value;
	__asm__ volatile("int $0x80" : "=a"(value) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
	return value;
}

void _start(void)
{
	char c;

	call(3, 0, (long)&c, 1);
	call(5, (long)"/no/such/32-bit/file", 0, 0);
	call(64, 0, 0, 0);
	call(1, 0, 0, 0);
	for (;;)
		;
}
