/* The load: many cheap calls, timed by itself.
 *
 *   load MODE N [THREADS [PROCESSES]]   N times the calls of MODE in each thread of each process
 *   load MODE SECONDSs [THREADS [PROCESSES]]
 *                                       the same for so many seconds
 *   load run N COMMAND...               the command, N times, one after the other
 *   load idle PROCESSES [THREADS]       nothing, in so many processes, until standard input ends
 *   load paced N NANOSECONDS [PROCESSES]
 *                                       getppid(2) so often in each, each so long after the one before, never asleep
 *   load ticks N MICROSECONDS           one getppid(2) after each pause
 *   load feed N BYTES                   at once: N writes of so many bytes on standard output
 *   load peak COMMAND...                at once: prints the most KiB of memory that the command had, its output thrown away
 *
 * It begins when one byte has come on standard input, and prints the calls made, or the commands run, and the nanoseconds they
 * took; nothing where a command has failed. Before it prints, when the time is taken, it and a child of it each make one
 * mknod(2) that fails and handle a signal: a tracer that sees neither has traced nothing. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long n, threads = 1, pace;
/* Where the load is for a time: its end, and the turns made by all its processes. */
static long long end;
static long *made;
static const char *mode;

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int is(const char *name)
{
	return strcmp(mode, name) == 0;
}

/* Calls that one turn of a mode makes. */
static long calls(void)
{
	return is("getppid") || is("paced") || is("big") || is("small") ? 1 : 2;
}

static void *turns(void *unused)
{
	static char data[1 << 20];
	int zero = open("/dev/zero", O_RDONLY), null = open("/dev/null", O_WRONLY);
	struct iovec small[1024];
	for (int i = 0; i < 1024; i++)
		small[i] = (struct iovec){ data + 8 * i, 8 };
	size_t size = is("rw4k") ? 4096 : 1;
	long long due = now();
	long i;
	for (i = 0; i < n; i++) {
		/* No system call: the kernel's clock is in memory. */
		if (end && i % 64 == 0 && now() >= end)
			break;
		if (is("getppid")) {
			syscall(SYS_getppid);
		} else if (is("paced")) {
			for (due += pace; now() < due;)
				;
			syscall(SYS_getppid);
		} else if (is("open")) {
			close(open("/etc/hostname", O_RDONLY));
		} else if (is("big")) {
			if (write(null, data, sizeof data) < 0)
				exit(1);
		} else if (is("small")) {
			if (writev(null, small, 1024) < 0)
				exit(1);
		} else if (read(zero, data, size) < 0 || write(null, data, size) < 0) {
			exit(1);
		}
	}
	__atomic_fetch_add(made, i, __ATOMIC_RELAXED);
	return unused;
}

static void process(void)
{
	pthread_t thread[1024];
	for (long i = 1; i < threads; i++)
		pthread_create(&thread[i], NULL, turns, NULL);
	turns(NULL);
	for (long i = 1; i < threads; i++)
		pthread_join(thread[i], NULL);
}

static void *sleeps(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static void started(void)
{
	char byte;
	if (read(0, &byte, 1) < 0)
		exit(1);
}

static int idle(long processes)
{
	pthread_t thread;
	for (long i = 0; i < processes; i++)
		if (fork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			sleeps(NULL);
		}
	for (long i = 1; i < threads; i++)
		pthread_create(&thread, NULL, sleeps, NULL);
	printf("ready\n");
	fflush(stdout);
	char byte;
	while (read(0, &byte, 1) > 0)
		;
	signal(SIGTERM, SIG_IGN);
	_exit(0);
}

/* Runs a command to its end: 0 where all was well. */
static int run(char **words)
{
	pid_t child = fork();
	if (child == 0) {
		dup2(open("/dev/null", O_WRONLY), 1);
		execvp(words[0], words);
		_exit(127);
	}
	int status = 1;
	waitpid(child, &status, 0);
	return status;
}

static int peak(char **words)
{
	struct rusage usage;
	if (run(words) || getrusage(RUSAGE_CHILDREN, &usage))
		return 1;
	printf("%ld\n", usage.ru_maxrss);
	return 0;
}

static int feed(long size)
{
	char *data = calloc(1, size);
	for (long i = 0; i < n; i++)
		for (long at = 0, some; at < size; at += some) {
			some = write(1, data + at, size - at);
			if (some < 0)
				return 1;
		}
	return 0;
}

static void caught(int unused)
{
}

static void shows(void)
{
	syscall(SYS_mknod, "", 0, 0);
	raise(SIGUSR1);
}

/* Once in a child, once here. */
static void show(void)
{
	signal(SIGUSR1, caught);
	pid_t child = fork();
	if (child == 0) {
		shows();
		_exit(0);
	}
	waitpid(child, NULL, 0);
	shows();
}

int main(int argc, char **argv)
{
	mode = argv[1];
	n = argc > 2 ? atol(argv[2]) : 0;
	threads = argc > 3 ? atol(argv[3]) : 1;
	long processes = argc > 4 ? atol(argv[4]) : 1;
	if (is("idle"))
		return idle(n);
	if (is("peak"))
		return peak(argv + 2);
	if (is("feed"))
		return feed(threads);
	made = mmap(NULL, sizeof *made, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (made == MAP_FAILED)
		return 1;
	started();
	long long begun = now();
	if (is("run")) {
		for (long i = 0; i < n; i++)
			if (run(argv + 3))
				return 1;
		long long elapsed = now() - begun;
		show();
		printf("%ld %lld\n", n, elapsed);
		return 0;
	}
	if (is("ticks")) {
		for (long i = 0; i < n; i++) {
			usleep(threads);
			syscall(SYS_getppid);
		}
		return 0;
	}
	if (is("paced")) {
		pace = threads;
		threads = 1;
	}
	if (argv[2][strlen(argv[2]) - 1] == 's') {
		end = begun + n * 1000000000LL;
		n = LONG_MAX;
	}
	if (processes == 1) {
		process();
	} else {
		for (long i = 0; i < processes; i++)
			if (fork() == 0) {
				process();
				_exit(0);
			}
		while (wait(NULL) > 0)
			;
	}
	long turns = end ? *made : n * threads * processes;
	long long elapsed = now() - begun;
	show();
	printf("%ld %lld\n", turns * calls(), elapsed);
	return 0;
}
