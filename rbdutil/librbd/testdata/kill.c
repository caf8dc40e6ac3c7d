// Kills its process instead of sending the Nth message, where N is KILL_AT_MESSAGE.
// librados sends everything with sendmsg(2), and Go nothing, so that these are the
// messages to Ceph.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>

static atomic_long sent;

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	static ssize_t (*next)(int, const struct msghdr *, int);
	if (!next)
		next = dlsym(RTLD_NEXT, "sendmsg");
	const char *limit = getenv("KILL_AT_MESSAGE");
	if (limit && atomic_fetch_add(&sent, 1) + 1 == atol(limit))
		raise(SIGKILL);
	return next(fd, message, flags);
}
