/* Eight chains of threads, each of which makes the next one and ends; for ever. */
#include <pthread.h>
#include <unistd.h>

static pthread_attr_t attr;

static void *chain(void *arg)
{
	pthread_t next;

	while (pthread_create(&next, &attr, chain, NULL) != 0)
		;
	return arg;
}

int main(void)
{
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 64 << 10);
	for (int i = 0; i < 8; i++)
		chain(NULL);
	for (;;)
		pause();
}
