/* A thread waits for a byte on standard input, and then for ever; the first one reads from the file that is its argument. */
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

static void *waits(void *arg)
{
	char c;

	while (read(0, &c, 1) >= 0)
		pause();
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t t;
	char c;
	int fd = argc > 1 ? open(argv[1], O_RDONLY) : -1;

	pthread_create(&t, NULL, waits, NULL);
	while (read(fd, &c, 1) > 0)
		;
	return 1;
}
