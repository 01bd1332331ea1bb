/* The leader exits at once; another thread reads bytes from standard input, and at each calls getppid argv[1] times. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int calls;

static void *body(void *arg)
{
	char c;

	while (read(0, &c, 1) == 1)
		for (int i = 0; i < calls; i++)
			syscall(SYS_getppid);
	_exit(0);
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t t;

	calls = argc > 1 ? atoi(argv[1]) : 10;
	pthread_create(&t, NULL, body, NULL);
	pthread_exit(NULL);
}
