/* After a line on standard input: `paths` makes every call that takes a path, with paths /no/1, /no/2 and so on; `data`
   makes every call that moves user data, with known data. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define N(n) "/no/" #n
#define AT AT_FDCWD

static void paths(void)
{
	char buf[256];

	syscall(SYS_rename, N(1), N(2));
	syscall(SYS_renameat, AT, N(3), AT, N(4));
	syscall(SYS_renameat2, AT, N(5), AT, N(6), 0);
	syscall(SYS_link, N(7), N(8));
	syscall(SYS_linkat, AT, N(9), AT, N(10), 0);
	syscall(SYS_symlink, N(11), N(12));
	syscall(SYS_symlinkat, N(13), AT, N(14));
	syscall(SYS_mount, N(15), N(16), "none", 0, 0);
	syscall(SYS_umount2, N(17), 0);
	syscall(SYS_pivot_root, N(18), N(19));
	syscall(SYS_move_mount, AT, N(20), AT, N(21), 0);
	syscall(SYS_open_tree, AT, N(22), 0);
	syscall(SYS_mount_setattr, AT, N(23), 0, buf, 32);
	syscall(SYS_fspick, AT, N(24), 0);
	syscall(SYS_open, N(25), 0);
	syscall(SYS_openat, AT, N(26), 0);
	syscall(SYS_openat2, AT, N(27), memset(buf, 0, 24), 24);
	syscall(SYS_creat, N(28), 0);
	syscall(SYS_stat, N(29), buf);
	syscall(SYS_lstat, N(30), buf);
	syscall(SYS_newfstatat, AT, N(31), buf, 0);
	syscall(SYS_statx, AT, N(32), 0, 0, buf);
	syscall(SYS_access, N(33), 0);
	syscall(SYS_faccessat, AT, N(34), 0);
	syscall(SYS_faccessat2, AT, N(35), 0, 0);
	syscall(SYS_chmod, N(36), 0);
	syscall(SYS_fchmodat, AT, N(37), 0);
	syscall(452 /* fchmodat2 */, AT, N(38), 0, 0);
	syscall(SYS_chown, N(39), 0, 0);
	syscall(SYS_lchown, N(40), 0, 0);
	syscall(SYS_fchownat, AT, N(41), 0, 0, 0);
	syscall(SYS_mkdir, N(42), 0);
	syscall(SYS_mkdirat, AT, N(43), 0);
	syscall(SYS_rmdir, N(44));
	syscall(SYS_mknod, N(45), 0, 0);
	syscall(SYS_mknodat, AT, N(46), 0, 0);
	syscall(SYS_unlink, N(47));
	syscall(SYS_unlinkat, AT, N(48), 0);
	syscall(SYS_truncate, N(49), 0);
	syscall(SYS_chdir, N(50));
	syscall(SYS_chroot, N(51));
	syscall(SYS_readlink, N(52), buf, 1);
	syscall(SYS_readlinkat, AT, N(53), buf, 1);
	syscall(SYS_utime, N(54), 0);
	syscall(SYS_utimes, N(55), 0);
	syscall(SYS_futimesat, AT, N(56), 0);
	syscall(SYS_utimensat, AT, N(57), 0, 0);
	syscall(SYS_statfs, N(58), buf);
	syscall(SYS_setxattr, N(59), "user.a", buf, 1, 0);
	syscall(SYS_lsetxattr, N(60), "user.a", buf, 1, 0);
	syscall(SYS_getxattr, N(61), "user.a", buf, 1);
	syscall(SYS_lgetxattr, N(62), "user.a", buf, 1);
	syscall(SYS_listxattr, N(63), buf, 1);
	syscall(SYS_llistxattr, N(64), buf, 1);
	syscall(SYS_removexattr, N(65), "user.a");
	syscall(SYS_lremovexattr, N(66), "user.a");
	syscall(SYS_execve, N(67), 0, 0);
	syscall(SYS_execveat, AT, N(68), 0, 0, 0);
	syscall(SYS_acct, N(69));
	syscall(SYS_swapon, N(70), 0);
	syscall(SYS_swapoff, N(71));
	syscall(SYS_quotactl, 0, N(72), 0, buf);
	syscall(SYS_inotify_add_watch, -1, N(73), 0);
	syscall(SYS_name_to_handle_at, AT, N(74), buf, buf, 0);
	syscall(SYS_fanotify_mark, -1, 1, 1, AT, N(75));
	/* No path, an empty one, and one that is not there. */
	syscall(SYS_utimensat, 0, 0, 0, 0);
	syscall(SYS_newfstatat, 0, "", buf, AT_EMPTY_PATH);
	syscall(SYS_open, 16, 0);
}

static char big[10000];

static void data(void)
{
	char a[64], b[64];
	struct iovec out[3] = { { "abc", 3 }, { 0, 0 }, { "defgh", 5 } };
	struct iovec in[3] = { { a, 2 }, { b, 0 }, { b, 60 } };
	struct msghdr sent = { .msg_iov = out, .msg_iovlen = 3 }, got = { .msg_iov = in, .msg_iovlen = 3 };
	struct mmsghdr many[2] = { { .msg_hdr = sent }, { .msg_hdr = sent } };
	struct mmsghdr several[2] = { { .msg_hdr = got }, { .msg_hdr = got } };
	struct { long type; char text[16]; } message = { 1, "message" };
	int s[2], p[2], file = syscall(SYS_memfd_create, "f", 0);

	pipe(p);
	socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s);
	write(p[1], "one", 3);
	read(p[0], a, 64);
	writev(p[1], out, 3);
	readv(p[0], in, 3);
	pwrite(file, "0123456789", 10, 0);
	pread(file, a, 4, 2);
	pwritev(file, out, 3, 0);
	preadv(file, in, 3, 0);
	syscall(SYS_pwritev2, file, out, 3, 0, 0, 0);
	syscall(SYS_preadv2, file, in, 3, 0, 0, 0);
	send(s[0], "send", 4, 0);
	recv(s[1], a, 64, 0);
	sendmsg(s[0], &sent, 0);
	recvmsg(s[1], &got, 0);
	syscall(SYS_sendmmsg, s[0], many, 2, 0);
	syscall(SYS_recvmmsg, s[1], several, 2, 0, 0);
	send(s[0], "more than there is room for", 27, 0);
	recv(s[1], a, 4, MSG_TRUNC);
	syscall(SYS_getrandom, a, 0, 0);
	int queue = msgget(IPC_PRIVATE, 0600);
	msgsnd(queue, &message, 7, 0);
	msgrcv(queue, &message, 16, 0, 0);
	msgctl(queue, IPC_RMID, 0);
	struct iovec far = { "far away", 8 };
	process_vm_readv(getpid(), in, 3, &far, 1, 0);
	vmsplice(p[1], out, 3, 0);
	/* No user data: from file to file, in the kernel. */
	splice(p[0], 0, open("/dev/null", O_WRONLY), 0, 8, 0);
	/* Nothing at all: it failed, or moved nothing. */
	write(-1, "never", 5);
	write(p[1], "", 0);
	/* A page at a time. */
	memset(big, 'x', sizeof big);
	write(file, big, sizeof big);
}

int main(int argc, char **argv)
{
	char line[2];

	if (argc < 2 || read(0, line, sizeof line) < 1)
		return 1;
	argv[1][0] == 'p' ? paths() : data();
	return 0;
}
