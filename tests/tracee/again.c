/* After a byte on standard input makes a child, prints its number, and lets it end at the next byte. Then makes another child with
   that number (set_tid of clone3(2), for root), which ends at once, and prints "again"; at last waits for the end of its
   input. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
	struct clone_args args = { .exit_signal = SIGCHLD, .set_tid_size = 1 };
	int child, ends[2];
	char c;

	if (pipe(ends) || read(0, &c, 1) < 0)
		return 1;
	child = syscall(SYS_fork);
	if (child == 0) {
		close(ends[1]);
		_exit(read(ends[0], &c, 1) < 0);
	}
	close(ends[0]);
	printf("%d\n", child);
	fflush(stdout);
	if (read(0, &c, 1) < 0)
		return 1;
	close(ends[1]);
	waitpid(child, 0, 0);
	args.set_tid = (uintptr_t)&child;
	/* Somebody may have it for a moment. */
	long pid;
	while ((pid = syscall(SYS_clone3, &args, sizeof args)) < 0)
		if (errno != EEXIST)
			return 1;
	if (pid == 0)
		_exit(0);
	waitpid(pid, 0, 0);
	puts("again");
	fflush(stdout);
	return read(0, &c, 1) < 0;
}
