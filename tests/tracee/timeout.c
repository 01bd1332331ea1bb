/* epoll_wait for argv[1] milliseconds, after a byte on standard input; prints the result and whether the argument
   register is what it was. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	long timeout = argc > 1 ? atol(argv[1]) : 1000, ep = epoll_create1(0), result = SYS_epoll_wait;
	struct epoll_event ev;
	char c;

	read(0, &c, 1);
	/* After every other call: this register is no caller's to keep. */
	register long r10 __asm__("r10") = timeout;
	__asm__ volatile("syscall"
			 : "+a"(result), "+r"(r10)
			 : "D"(ep), "S"(&ev), "d"(1L)
			 : "rcx", "r11", "memory");
	printf("%ld %s\n", result, r10 == timeout ? "kept" : "changed");
	return 0;
}
