/* After a byte on standard input makes so many calls of getppid(2) as it is told to, then a child whose number it prints, and
   ends. The child waits for another byte and makes so many calls as the second argument says. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static void calls(long n)
{
	while (n-- > 0)
		syscall(SYS_getppid);
}

int main(int argc, char **argv)
{
	char c;

	if (argc < 3 || read(0, &c, 1) < 0)
		return 1;
	calls(atol(argv[1]));
	int child = fork();
	if (child) {
		printf("%d\n", child);
		return 0;
	}
	if (read(0, &c, 1) < 0)
		return 1;
	calls(atol(argv[2]));
	return 0;
}
