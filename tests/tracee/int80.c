/* A 64-bit program that calls once through int 0x80: getppid, number 64 of i386, between two of x86-64's. */
#include <sys/syscall.h>
#include <unistd.h>

int main(void)
{
	char c;
	long value;

	syscall(SYS_read, 0, &c, 1);
	syscall(SYS_getppid);
	__asm__ volatile("int $0x80" : "=a"(value) : "a"(64L) : "memory", "r8", "r9", "r10", "r11");
	syscall(SYS_getppid);
	return 0;
}
