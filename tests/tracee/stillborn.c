/* After a byte on standard input makes so many children as it is told to, each of which a second thread kills the moment its
   number is known: the kernel tells it before the child runs. Prints "born" and waits for another byte. Then makes a process
   with each of these numbers, where nobody else has it by now, prints it and waits for its end: it asks for its parent. Meanwhile
   a thread keeps the tracer busy, which so hears of a child and its maker at the same time. At last prints "done" and waits for
   the end of its input. */
#define _GNU_SOURCE
#include <linux/sched.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int victim, busy;

static void *kill_on(void *arg)
{
	for (;;) {
		int pid = victim;
		if (pid) {
			kill(pid, SIGKILL);
			victim = 0;
		} else if (busy) {
			syscall(SYS_getuid);
		}
	}
	return arg;
}

int main(int argc, char **argv)
{
	int count = atoi(argv[1]), *pids = calloc(count, sizeof *pids);
	pthread_t thread;
	char c;

	if (argc < 2 || read(0, &c, 1) < 0)
		return 1;
	pthread_create(&thread, 0, kill_on, 0);
	for (int i = 0; i < count; i++) {
		long pid = syscall(SYS_clone, CLONE_PARENT_SETTID | SIGCHLD, 0, &victim, 0, 0);
		if (pid == 0)
			_exit(0);
		pids[i] = pid;
		while (victim)
			;
		waitpid(pid, 0, __WALL);
	}
	puts("born");
	fflush(stdout);
	if (read(0, &c, 1) < 0)
		return 1;
	busy = 1;
	for (int i = 0; i < count; i++) {
		struct clone_args args = {
			.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&pids[i], .set_tid_size = 1
		};
		long pid = syscall(SYS_clone3, &args, sizeof args);
		if (pid == 0) {
			syscall(SYS_getppid);
			_exit(0);
		}
		if (pid > 0) {
			printf("%ld\n", pid);
			waitpid(pid, 0, __WALL);
		}
	}
	busy = 0;
	puts("done");
	fflush(stdout);
	return read(0, &c, 1) < 0;
}
