/* After a byte on standard input executes itself so many times as it is told to, each time in the midst of the forks of another
   thread, which dies of it: by turns the first thread forks and the second executes, and the other way round. Each child prints
   its number, asks for its parent and ends. At the end prints "done" and waits for the end of its input. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile int forks;
static char *next[4];

static void *fork_on(void *arg)
{
	char line[16];

	for (;;) {
		if (syscall(SYS_fork) == 0) {
			int len = sprintf(line, "%d\n", (int)syscall(SYS_getpid));
			if (write(1, line, len) != len)
				_exit(1);
			syscall(SYS_getppid);
			_exit(0);
		}
		forks++;
	}
	return arg;
}

static void *exec_on(void *arg)
{
	while (forks < 3)
		;
	execv("/proc/self/exe", next);
	_exit(1);
}

int main(int argc, char **argv)
{
	char left[16], c;
	pthread_t thread;
	int turn = atoi(argv[1]);

	/* The turns after the first have a third word. */
	if (argc < 3 && read(0, &c, 1) < 0)
		return 1;
	if (turn == 0) {
		puts("done");
		fflush(stdout);
		return read(0, &c, 1) < 0;
	}
	/* Nobody has to wait for the children. */
	signal(SIGCHLD, SIG_IGN);
	sprintf(left, "%d", turn - 1);
	next[0] = argv[0], next[1] = left, next[2] = "";
	pthread_create(&thread, 0, turn % 2 ? fork_on : exec_on, 0);
	(turn % 2 ? exec_on : fork_on)(0);
}
