/* Waits for its start, then makes so many calls of getppid(2) as it is told to. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	long n = argc > 1 ? atol(argv[1]) : 0;
	char c;

	if (read(0, &c, 1) < 0)
		return 1;
	while (n-- > 0)
		syscall(SYS_getppid);
	return 0;
}
