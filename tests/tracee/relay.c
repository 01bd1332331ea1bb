/* argv[1] threads make argv[2] calls of close(2) by turns, of descriptors 100000, 100001 and so on: each call begins when
   the one before has returned. With argv[3] a thread goes to another cpu before each; else each has its own. Where others keep
   the cpus busy each turn can take many milliseconds: no call begins after ten seconds, and how many did is printed. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long threads, calls, turn;
static int roams, cpus[CPU_SETSIZE], ncpus;

static time_t end;

static time_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec;
}

static void go_to(long n)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpus[n % ncpus], &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static void *body(void *arg)
{
	long own = (long)arg;

	go_to(own);
	for (long n = own; n < __atomic_load_n(&calls, __ATOMIC_ACQUIRE); n += threads) {
		if (roams)
			go_to(n);
		while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) != n) {
			if (n >= __atomic_load_n(&calls, __ATOMIC_ACQUIRE))
				return NULL;
			sched_yield();
		}
		if (now() >= end) {
			__atomic_store_n(&calls, n, __ATOMIC_RELEASE);
			return NULL;
		}
		syscall(SYS_close, 100000 + n);
		__atomic_store_n(&turn, n + 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	cpu_set_t set;
	char c;

	threads = argc > 1 ? atol(argv[1]) : 1;
	calls = argc > 2 ? atol(argv[2]) : 1000;
	roams = argc > 3;
	sched_getaffinity(0, sizeof(set), &set);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &set))
			cpus[ncpus++] = cpu;
	pthread_t t[threads];
	if (read(0, &c, 1) < 0)
		return 1;
	end = now() + 10;
	for (long i = 0; i < threads; i++)
		pthread_create(&t[i], NULL, body, (void *)i);
	for (long i = 0; i < threads; i++)
		pthread_join(t[i], NULL);
	printf("%ld\n", calls);
	return 0;
}
