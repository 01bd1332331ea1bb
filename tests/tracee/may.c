/* `idle`: says that it is there, and waits; `quiet`: the same, not dumpable; `hides`: after a byte on standard input looks
   at /hidden while it is not dumpable, and at /shown again; `seize PID`: whether the kernel lets us. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc > 2)
		return ptrace(PTRACE_SEIZE, atoi(argv[2]), 0, 0) != 0;
	if (argc > 1 && argv[1][0] == 'h') {
		char c;

		read(0, &c, 1);
		prctl(PR_SET_DUMPABLE, 0);
		access("/hidden", F_OK);
		prctl(PR_SET_DUMPABLE, 1);
		access("/shown", F_OK);
		return 0;
	}
	if (argc > 1 && argv[1][0] == 'q')
		prctl(PR_SET_DUMPABLE, 0);
	printf("ready\n");
	fflush(stdout);
	for (;;)
		pause();
}
