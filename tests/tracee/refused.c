/* Makes a seccomp(2) filter of its own that refuses access(2) with EPERM and getppid(2) with ENOSYS. After a byte on
   standard input: both, in this thread and in a new one, between calls that are let through. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NR offsetof(struct seccomp_data, nr)

static void *calls(void *unused)
{
	/* In memory: nobody else will look at them. */
	volatile char one[] = "/refused", two[] = "/refused/too";

	syscall(SYS_getuid);
	syscall(SYS_access, one, 0);
	syscall(SYS_getppid);
	syscall(SYS_getuid);
	syscall(SYS_access, two, 0);
	return unused;
}

int main(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, NR),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_access, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 2, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 38),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(*filter), filter };
	pthread_t thread;
	char c;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		return 1;
	if (read(0, &c, 1) < 0)
		return 1;
	calls(0);
	pthread_create(&thread, 0, calls, 0);
	pthread_join(thread, 0);
	return 0;
}
