// Kills or stops its process instead of sending the Nth message: N is KILL_AT_MESSAGE or
// STOP_AT_MESSAGE. A process that is stopped sends the message after SIGCONT. The file
// COUNT_MESSAGES gets one byte for each message. librados sends all messages with sendmsg(2), and
// Go none, so these are the messages to Ceph.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static atomic_long sent;

static int is(const char *variable, long n)
{
	const char *value = getenv(variable);
	return value && atol(value) == n;
}

static void count(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, ".", 1) != 1)
		abort();
	close(fd);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	static ssize_t (*next)(int, const struct msghdr *, int);
	if (!next)
		next = dlsym(RTLD_NEXT, "sendmsg");
	long n = atomic_fetch_add(&sent, 1) + 1;
	if (is("KILL_AT_MESSAGE", n))
		raise(SIGKILL);
	if (is("STOP_AT_MESSAGE", n))
		raise(SIGSTOP);
	if (getenv("COUNT_MESSAGES"))
		count(getenv("COUNT_MESSAGES"));
	return next(fd, message, flags);
}
