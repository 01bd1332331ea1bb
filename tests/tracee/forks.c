/* After a byte on standard input: one child each by fork, vfork and clone (without SIGCHLD), each of which asks for its
   parent and exits with 3; and one by clone with CLONE_UNTRACED. Prints the sum of the exit codes. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int child(void)
{
	syscall(SYS_getppid);
	_exit(3);
}

static int reap(long pid)
{
	int status = 0;

	waitpid(pid, &status, __WALL);
	return WEXITSTATUS(status);
}

int main(void)
{
	int sum = 0;
	long pid;
	char c;

	read(0, &c, 1);
	if ((pid = fork()) == 0)
		child();
	sum += reap(pid);
	if ((pid = vfork()) == 0)
		_exit(3);
	sum += reap(pid);
	if ((pid = syscall(SYS_clone, 0, 0, 0, 0, 0)) == 0)
		child();
	sum += reap(pid);
	if ((pid = syscall(SYS_clone, CLONE_UNTRACED | SIGCHLD, 0, 0, 0, 0)) == 0)
		child();
	sum += reap(pid);
	printf("%d\n", sum);
	return 0;
}
