/* After a byte on standard input, a thread that is not the leader executes /bin/echo, beside threads that sleep. */
#include <pthread.h>
#include <unistd.h>

static void *sleeper(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static void *executer(void *arg)
{
	execl("/bin/echo", "echo", "executed", (char *)NULL);
	return arg;
}

int main(void)
{
	pthread_t t;
	char c;

	for (int i = 0; i < 3; i++)
		pthread_create(&t, NULL, sleeper, NULL);
	read(0, &c, 1);
	pthread_create(&t, NULL, executer, NULL);
	for (;;)
		pause();
}
