/* Waits for its start, then calls what is written here, and nothing else: raw calls, so that no C library adds one. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void)
{
	char c, buf[16] = "twelve bytes";
	int p[2];

	syscall(SYS_read, 0, &c, 1);
	syscall(SYS_openat, AT_FDCWD, "/no/such/file", O_RDONLY);
	long fd = syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR);
	syscall(SYS_write, fd, buf, 12);
	syscall(SYS_read, fd, buf, 16);
	syscall(SYS_close, fd);
	syscall(SYS_close, fd);
	syscall(SYS_pipe2, p, 0);
	syscall(SYS_write, p[1], buf, 12);
	syscall(SYS_read, p[0], buf, 16);
	syscall(SYS_getppid);
	syscall(SYS_exit_group, 7);
}
