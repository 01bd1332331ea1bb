/* For root. Makes a child, and becomes the user argv[1] as that does; with "adopts" in argv[2] those below it whose parents die become
   its children. After a byte on standard input it prints the child's number, and the child makes one of its own. The kernel is
   to write that one's number into a page that does not come (userfaultfd): so the maker waits in clone(2), and its child, which
   is there, has not begun. It will ask for its parent, print whether it was answered, and end. With "hides" in argv[3] it and its maker are not dumpable.
   The first process waits for the end of its input. 77 is its status where the kernel has no userfaultfd. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int become(const char *user)
{
	int id = atoi(user);

	return setresgid(id, id, id) || setresuid(id, id, id) || prctl(PR_SET_DUMPABLE, 1);
}

static void maker(const char *user, int hides, int begin, int ready)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register area = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char c = 0;

	area.range.start = (unsigned long)page;
	area.range.len = 4096;
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &area) || become(user))
		_exit(77);
	if (write(ready, &c, 1) != 1 || read(begin, &c, 1) != 1)
		_exit(1);
	if (hides)
		prctl(PR_SET_DUMPABLE, 0);
	if (syscall(SYS_clone, CLONE_PARENT_SETTID | SIGCHLD, 0, page, 0, 0) == 0)
		dprintf(1, syscall(SYS_getppid) < 0 ? "refused\n" : "answered\n");
	_exit(0);
}

int main(int argc, char **argv)
{
	int begin[2], ready[2];
	char c = 0;

	if (argc < 4 || pipe(begin) || pipe(ready))
		return 1;
	int child = fork();
	if (child == 0)
		maker(argv[1], !strcmp(argv[3], "hides"), begin[0], ready[1]);
	close(ready[1]);
	if (read(ready[0], &c, 1) != 1 || become(argv[1]))
		return 77;
	if (!strcmp(argv[2], "adopts") && prctl(PR_SET_CHILD_SUBREAPER, 1))
		return 1;
	if (read(0, &c, 1) < 0 || write(begin[1], &c, 1) != 1)
		return 1;
	printf("%d\n", child);
	fflush(stdout);
	return read(0, &c, 1) < 0;
}
