/* After a byte on standard input: paths and buffers that are not all there. A path that ends at the end of its page, one
   that runs into a page that is not there, an address that is none, and a write whose buffer's second page is not there. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void)
{
	long page = 4096;
	char *two = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int file = memfd_create("file", 0);
	char c;

	munmap(two + page, page);
	read(0, &c, 1);
	memcpy(two + page - 5, "/end", 5);
	syscall(SYS_access, two + page - 5, F_OK);
	memset(two, 'x', page);
	syscall(SYS_access, two + page - 8, F_OK);
	syscall(SYS_access, 8L, F_OK);
	syscall(SYS_access, NULL, F_OK);
	printf("%ld\n", (long)syscall(SYS_write, file, two + page - 100, 200));
	return 0;
}
