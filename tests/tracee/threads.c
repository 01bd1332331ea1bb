/* argv[1] threads, each of which calls getppid argv[2] times and then closes descriptor 1000 plus its number; half of
   them start before the byte on standard input, half after it. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int calls;
static int started;

static void *body(void *arg)
{
	while (!__atomic_load_n(&started, __ATOMIC_ACQUIRE))
		;
	for (int i = 0; i < calls; i++)
		syscall(SYS_getppid);
	syscall(SYS_close, 1000 + (int)(long)arg);
	return NULL;
}

int main(int argc, char **argv)
{
	int threads = argc > 1 ? atoi(argv[1]) : 4;
	pthread_t t[threads];
	char c;

	calls = argc > 2 ? atoi(argv[2]) : 100;
	for (long i = 0; i < threads / 2; i++)
		pthread_create(&t[i], NULL, body, (void *)i);
	read(0, &c, 1);
	__atomic_store_n(&started, 1, __ATOMIC_RELEASE);
	for (long i = threads / 2; i < threads; i++)
		pthread_create(&t[i], NULL, body, (void *)i);
	for (int i = 0; i < threads; i++)
		pthread_join(t[i], NULL);
	return 0;
}
