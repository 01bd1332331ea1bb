/* After a line on standard input: one record from the first thread, one from another, one from a child; or, with a number, one from
 * each of so many children, the first thing that it does. */
#include "utrace.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

static void *thread(void *unused)
{
	if (utrace("thread", "with a newline\n", 15) != 0)
		perror("utrace");
	return unused;
}

int main(int argc, char **argv)
{
	char line[2], much[UTRACE_DATA_MAX + 1] = { 0 };
	pthread_t other;

	if (read(0, line, sizeof line) < 1)
		return 1;
	if (argc > 1) {
		for (int i = atoi(argv[1]); i > 0; i--) {
			if (fork() == 0)
				_exit(utrace("born", "", 0) != 0);
			wait(NULL);
		}
		return 0;
	}
	if (utrace("first", "data", 4) != 0)
		perror("utrace");
	pthread_create(&other, NULL, thread, NULL);
	pthread_join(other, NULL);
	if (utrace("much", much, sizeof much) != -1 || errno != ENOSPC)
		return 2;
	if (utrace("two words", "", 0) != -1 || errno != EINVAL)
		return 3;
	if (utrace("nineteen-bytes-long", much, UTRACE_DATA_MAX) != 0)
		return 4;
	if (fork() == 0) {
		utrace("child", "", 0);
		_exit(0);
	}
	wait(NULL);
	return 0;
}
