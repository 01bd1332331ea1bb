/* After a byte on standard input: calls whose paths and buffers the process has never touched, so that they are in memory
   only once the kernel itself has looked at them. At last it executes a program named by such a path. */
#define _GNU_SOURCE
#include <string.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* These words in a file, mapped and not looked at. Each file is mapped alone: a fault brings in the pages around it. */
static char *absent(const char *words)
{
	int fd = memfd_create("absent", 0);
	unsigned long n = strlen(words) + 1;
	char *map;

	if (write(fd, words, n) != (long)n)
		_exit(1);
	map = mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	return map;
}

int main(void)
{
	int ends[2];
	char *into = mmap(0, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *one = absent("/absent/1"), *two = absent("/absent/2"), *three = absent("/absent/3");
	char *five = absent("/absent/5"), *six = absent("/absent/6"), *file = absent("from a file");
	char *nowhere = absent("/absent/8"), *program = absent("/bin/true");
	char *argv[] = { "true", 0 }, c;

	if (pipe(ends) || read(0, &c, 1) < 0)
		return 1;
	syscall(SYS_access, one, 0);
	syscall(SYS_rename, two, three);
	syscall(SYS_rename, "/present/4", five);
	syscall(SYS_rename, six, "/present/7");
	syscall(SYS_write, ends[1], "untouched", 9);
	syscall(SYS_read, ends[0], into, 9);
	syscall(SYS_write, ends[1], file, 11);
	/* Across the end of a page, and neither is there. */
	syscall(SYS_read, ends[0], into + 3 * 4096 - 5, 11);
	syscall(SYS_execve, nowhere, argv, argv + 1);
	syscall(SYS_execve, program, argv, argv + 1);
	return 1;
}
