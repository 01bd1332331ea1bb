/* Installs a handler for SIGUSR1 and for real-time signal 40, prints its address, and after a byte on standard input
   raises: an ignored signal, SIGCHLD, SIGUSR1 (with SIGHUP blocked), 40; then ends by SIGTERM. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile int handled;

static void handler(int signo)
{
	handled += signo;
}

static void raise_it(int signo)
{
	syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), signo);
}

int main(void)
{
	sigset_t set;
	char c;

	signal(SIGUSR1, handler);
	signal(40, handler);
	signal(SIGUSR2, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	printf("%p\n", (void *)handler);
	fflush(stdout);
	read(0, &c, 1);
	raise_it(SIGUSR2);
	raise_it(SIGCHLD);
	raise_it(SIGUSR1);
	raise_it(40);
	if (handled == SIGUSR1 + 40)
		raise_it(SIGTERM);
	return 0;
}
