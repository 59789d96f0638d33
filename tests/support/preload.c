/* What a machine may do to a process, for LD_PRELOAD: a name whose lookup never returns, a name that is this
 * machine, and no thread while the file named by NO_THREADS exists. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
        dlsym(RTLD_NEXT, "getaddrinfo");
    while (name && strcmp(name, "hangs.test") == 0)
        pause();
    if (name && strcmp(name, "here.test") == 0)
        name = "127.0.0.1";
    return real(name, service, hints, found);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) =
        dlsym(RTLD_NEXT, "pthread_create");
    const char *file = getenv("NO_THREADS");
    if (file && access(file, F_OK) == 0)
        return EAGAIN;
    return real(thread, attributes, run, argument);
}
