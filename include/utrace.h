/* SPDX-License-Identifier: BSD-2-Clause
 *
 * utrace(2) of NetBSD for programs on Linux: a USER record of the calling process, where it is traced through ktracefs.
 * This header is all there is: copy it. See docs/man/utrace.3.md. */
#ifndef KTRACEFS_UTRACE_H
#define KTRACEFS_UTRACE_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define UTRACE_LABEL_MAX 19
#define UTRACE_DATA_MAX 2048

/* Returns 0, also where nothing is traced or no ktracefs is mounted at $KTRACE_MOUNT or /ktrace; else -1 and errno: ENOSPC for
 * more than UTRACE_DATA_MAX bytes, EINVAL for a label with a blank, a tab or a newline, or what the mount says. A label of
 * more than UTRACE_LABEL_MAX bytes becomes empty. Each thread has an open file of its own, and so has a child. */
static inline int utrace(const char *label, const void *addr, size_t len)
{
	static __thread int fd = -1;
	static __thread pid_t owner;
	char record[UTRACE_LABEL_MAX + 1 + UTRACE_DATA_MAX + 1];
	size_t n = strlen(label);

	if (len > UTRACE_DATA_MAX) {
		errno = ENOSPC;
		return -1;
	}
	if (strpbrk(label, " \t\n")) {
		errno = EINVAL;
		return -1;
	}
	if (n > UTRACE_LABEL_MAX)
		n = 0;
	memcpy(record, label, n);
	record[n++] = ' ';
	memcpy(record + n, addr, len);
	n += len;
	/* Taken off again, so that data may end in one. */
	record[n++] = '\n';
	if (fd < 0 || owner != getpid()) {
		const char *mount = getenv("KTRACE_MOUNT");
		char path[4096];
		if (fd >= 0)
			close(fd);
		snprintf(path, sizeof path, "%s/self/user", mount && *mount ? mount : "/ktrace");
		fd = open(path, O_WRONLY | O_CLOEXEC);
		owner = getpid();
		if (fd < 0)
			return errno == ENOENT || errno == ENOTDIR || errno == ENOTCONN ? 0 : -1;
	}
	if (write(fd, record, n) < 0) {
		int error = errno;
		/* The mount may be another one by now. */
		close(fd);
		fd = -1;
		errno = error;
		return -1;
	}
	return 0;
}

#endif
