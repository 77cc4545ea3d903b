/*
 * A disk that is slow for some files, for the process that this library is preloaded into: a flush of a file whose
 * path contains SLOW_FILES takes SLOW_MS milliseconds longer. A flush of such a file in the main thread, which is the
 * reactor's, is told on the standard error: the broker must not wait there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const char *files;
static long milliseconds;

__attribute__((constructor)) static void read_settings(void)
{
    const char *text = getenv("SLOW_MS");

    files = getenv("SLOW_FILES");
    milliseconds = text == NULL ? 0 : atol(text);
}

static void delay(int fd)
{
    struct timespec left = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    char link[64], path[4096];
    ssize_t length;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0 || files == NULL)
        return;
    path[length] = 0;
    if (strstr(path, files) == NULL)
        return;
    if (syscall(SYS_gettid) == getpid())
        dprintf(STDERR_FILENO, "slow flush in the main thread: %s\n", path);
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

int fdatasync(int fd)
{
    delay(fd);
    return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    delay(fd);
    return (int)syscall(SYS_fsync, fd);
}
