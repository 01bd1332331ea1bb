/* Sleeps argv[1] times for argv[2] ms by each of epoll_wait, epoll_pwait2, sigtimedwait, semtimedop and recv, and prints for each
   call how many ended with anything but their timeout, and how many before it. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
	int turns = argc > 1 ? atoi(argv[1]) : 1, ep = epoll_create1(0), sem = semget(IPC_PRIVATE, 1, 0600);
	int ms = argc > 2 ? atoi(argv[2]) : 1;
	struct timespec nap = { 0, ms * 1000000L };
	struct sembuf down = { 0, -1, 0 };
	struct epoll_event ev;
	struct timeval tv = { 0, ms * 1000L };
	sigset_t set;
	int pair[2];
	char c;

	socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (int call = 0; call < 5; call++) {
		int wrong = 0, early = 0;

		for (int i = 0; i < turns; i++) {
			double began = now();
			long r;

			errno = 0;
			switch (call) {
			case 0:
				r = syscall(SYS_epoll_wait, ep, &ev, 1, ms);
				break;
			case 1:
				r = syscall(SYS_epoll_pwait2, ep, &ev, 1, &nap, NULL, 8);
				break;
			case 2:
				r = sigtimedwait(&set, NULL, &nap);
				break;
			case 3:
				r = semtimedop(sem, &down, 1, &nap);
				break;
			default:
				r = recv(pair[0], &c, 1, 0);
			}
			wrong += call < 2 ? r != 0 : r != -1 || errno != EAGAIN;
			early += now() - began < ms * 0.001 - 0.0001;
		}
		printf("%d wrong, %d early\n", wrong, early);
	}
	semctl(sem, 0, IPC_RMID);
	return 0;
}
