/* Sleeps argv[1] times for a millisecond, after a line on standard input; with argv[2] it reads a byte from there instead. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char line[2];
	if (read(0, line, sizeof line) < 1)
		return 1;
	for (int i = argc > 1 ? atoi(argv[1]) : 0; i > 0; i--)
		if (argc > 2 ? read(0, line, 1) < 1 : nanosleep(&(struct timespec){ 0, 1000000 }, NULL))
			return 1;
	return 0;
}
