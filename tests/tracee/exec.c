/* After a byte on standard input, a thread that is not the leader executes /bin/echo, beside threads that sleep. With
   arguments: it executes the program named by the first; with `fork` or `vfork` behind it a child does that, and the
   parent waits for it and looks at /after. */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static char **args;

static void *sleeper(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static void *executer(void *arg)
{
	if (args[1])
		execl(args[1], args[1], (char *)NULL);
	execl("/bin/echo", "echo", "executed", (char *)NULL);
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t t;
	char c;

	args = argv;
	if (argc > 2) {
		read(0, &c, 1);
		if ((argv[2][0] == 'v' ? vfork() : fork()) == 0) {
			execl(argv[1], argv[1], (char *)NULL);
			_exit(1);
		}
		wait(NULL);
		return access("/after", F_OK) == 0;
	}
	for (int i = 0; i < 3; i++)
		pthread_create(&t, NULL, sleeper, NULL);
	read(0, &c, 1);
	pthread_create(&t, NULL, executer, NULL);
	for (;;)
		pause();
}
