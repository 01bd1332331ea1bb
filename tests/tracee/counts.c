/* After a byte on standard input: counts SIGRTMIN until SIGTERM, the last of all signals, and prints the count. */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static volatile sig_atomic_t count, over;

static void counted(int sig)
{
	if (sig == SIGTERM)
		over = 1;
	else
		count++;
}

int main(void)
{
	struct sigaction act = { .sa_handler = counted };
	sigset_t all, none;
	char c;

	read(0, &c, 1);
	sigfillset(&act.sa_mask);
	sigfillset(&all);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &all, NULL);
	sigaction(SIGTERM, &act, NULL);
	sigaction(SIGRTMIN, &act, NULL);
	while (!over)
		sigsuspend(&none);
	/* Those with a smaller number come first. */
	while (sigpending(&none) == 0 && sigismember(&none, SIGRTMIN)) {
		sigemptyset(&none);
		sigsuspend(&none);
	}
	printf("%d\n", (int)count);
	return 0;
}
