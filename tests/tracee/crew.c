/* argv[1] threads that pass half as many bytes round through pipes, argv[2] times each. The main thread is one of them; it asks for its
   getrusage(2) before and after, and prints how often it was switched between these, by its own will and not. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static int threads, rounds;
static int (*pipes)[2];

static void *body(void *arg)
{
	long own = (long)arg;
	char c;

	for (int i = 0; i < rounds; i++)
		if (read(pipes[own][0], &c, 1) != 1 || write(pipes[(own + 1) % threads][1], "", 1) != 1)
			exit(1);
	return NULL;
}

int main(int argc, char **argv)
{
	struct rusage before, after;
	char c;

	threads = argc > 1 ? atoi(argv[1]) : 2;
	rounds = argc > 2 ? atoi(argv[2]) : 100;
	pipes = calloc(threads, sizeof(*pipes));
	pthread_t t[threads];
	for (int i = 0; i < threads; i++)
		if (pipe(pipes[i]))
			return 1;
	if (read(0, &c, 1) < 0)
		return 1;
	for (long i = 1; i < threads; i++)
		pthread_create(&t[i], NULL, body, (void *)i);
	getrusage(RUSAGE_THREAD, &before);
	for (int i = 0; i < threads / 2; i++)
		if (write(pipes[2 * i][1], "", 1) != 1)
			return 1;
	body(0);
	getrusage(RUSAGE_THREAD, &after);
	printf("%ld %ld\n", after.ru_nvcsw - before.ru_nvcsw, after.ru_nivcsw - before.ru_nivcsw);
	return 0;
}
