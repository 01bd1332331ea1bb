/* On the argv[1]th cpu that it may use, or the last, writes argv[2] bytes in one call of pwrite64(2): the words 0, 1, 2 and so on. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int nth = argc > 1 ? atoi(argv[1]) : 0, last = 0, fd = open("/dev/null", O_WRONLY);
	size_t bytes = argc > 2 ? atol(argv[2]) : 4;
	unsigned *words = malloc(bytes);
	cpu_set_t set;
	char c;

	if (fd < 0 || !words || read(0, &c, 1) < 0)
		return 1;
	for (size_t i = 0; i < bytes / 4; i++)
		words[i] = i;
	sched_getaffinity(0, sizeof(set), &set);
	for (int cpu = 0; cpu < CPU_SETSIZE && nth >= 0; cpu++)
		if (CPU_ISSET(cpu, &set))
			last = cpu, nth--;
	CPU_ZERO(&set);
	CPU_SET(last, &set);
	if (sched_setaffinity(0, sizeof(set), &set) != 0)
		return 1;
	return syscall(SYS_pwrite64, fd, words, bytes, 0L) == (long)bytes ? 0 : 1;
}
