/* Sleeps in the call that argv[1] names until a child of its own, woken by a byte on standard input, ends the sleep; then
   prints the call and how it ended. Nothing else may end it: not a tracer, not an ignored signal. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct timespec hour = { 3600, 0 };

int main(int argc, char **argv)
{
	const char *call = argc > 1 ? argv[1] : "";
	int pair[2], ep = epoll_create1(0), sem = semget(IPC_PRIVATE, 1, 0600), r = -1;
	struct epoll_event ev = { .events = EPOLLIN };
	struct sembuf down = { 0, -1, 0 }, up = { 0, 1, 0 };
	struct timeval tv = { 3600, 0 };
	struct pollfd pfd;
	sigset_t set;
	fd_set fds;
	char c;

	socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	epoll_ctl(ep, EPOLL_CTL_ADD, pair[0], &ev);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (fork() == 0) {
		read(0, &c, 1);
		kill(getppid(), SIGUSR2);
		semop(sem, &up, 1);
		write(pair[1], "x", 1);
		_exit(0);
	}
	if (!strcmp(call, "epoll_wait"))
		r = syscall(SYS_epoll_wait, ep, &ev, 1, 3600000);
	else if (!strcmp(call, "epoll_pwait2"))
		r = syscall(SYS_epoll_pwait2, ep, &ev, 1, &hour, NULL, 8);
	else if (!strcmp(call, "sigtimedwait"))
		r = sigtimedwait(&set, NULL, &hour) == SIGUSR2 ? 1 : -1;
	else if (!strcmp(call, "semtimedop"))
		r = semtimedop(sem, &down, 1, &hour) == 0 ? 1 : -1;
	else if (!strcmp(call, "semop"))
		r = semop(sem, &down, 1) == 0 ? 1 : -1;
	else if (!strcmp(call, "recv")) {
		/* With a timeout the kernel answers an interruption with EINTR, without one it restarts. */
		setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
		r = recv(pair[0], &c, 1, 0);
	} else if (!strcmp(call, "read"))
		r = read(pair[0], &c, 1);
	else if (!strcmp(call, "poll")) {
		pfd.fd = pair[0];
		pfd.events = POLLIN;
		r = poll(&pfd, 1, 3600000);
	} else if (!strcmp(call, "select")) {
		FD_ZERO(&fds);
		FD_SET(pair[0], &fds);
		r = select(pair[0] + 1, &fds, NULL, NULL, &tv);
	} else if (!strcmp(call, "wait"))
		r = wait(NULL) > 0 ? 1 : -1;
	printf("%s %d %s\n", call, r, r < 0 ? strerror(errno) : "ok");
	semctl(sem, 0, IPC_RMID);
	return r != 1;
}
