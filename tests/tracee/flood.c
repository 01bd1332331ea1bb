/* Waits for its start, then makes so many calls of getppid(2) as it is told to; and so does each of so many children, at
   the same time. With a third argument it then prints a line, and ends after another byte. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void calls(long n)
{
	while (n-- > 0)
		syscall(SYS_getppid);
}

int main(int argc, char **argv)
{
	long n = argc > 1 ? atol(argv[1]) : 0, children = argc > 2 ? atol(argv[2]) : 0;
	char c;

	if (read(0, &c, 1) < 0)
		return 1;
	for (long i = 0; i < children; i++) {
		calls(n / children);
		if (fork() == 0) {
			calls(n);
			return 0;
		}
	}
	if (children == 0)
		calls(n);
	while (wait(NULL) > 0)
		;
	if (argc > 3)
		return write(1, "\n", 1) != 1 || read(0, &c, 1) < 0;
	return 0;
}
