/* After a byte on standard input argv[1] threads call getppid without end. Meanwhile the first thread calls getuid argv[2]
   times, and then is in one call for good: it writes to standard output, and each page that is read there lets it run on
   and wait again. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static char pages[1 << 24];

static void *calls(void *arg)
{
	for (;;)
		syscall(SYS_getppid);
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t t;
	char c;

	if (argc < 3 || read(0, &c, 1) < 1)
		return 1;
	for (int i = atoi(argv[1]); i > 0; i--)
		if (pthread_create(&t, NULL, calls, NULL))
			return 1;
	for (int i = atoi(argv[2]); i > 0; i--)
		syscall(SYS_getuid);
	return write(1, pages, sizeof pages) < 0;
}
