/*
 * The system calls of a turn that fail when a test says so; see metamorphosis/native/syscalls.h. The test tells by
 * `double_plan` which one: the `nth` call from now on of `name`. It fails with `error`, or does half of what it was
 * asked for where that is 0.
 */
#define _GNU_SOURCE 1

#include "../../metamorphosis/native/syscalls.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static struct {
    char name[16];
    int left, error;
} plan;

void double_plan(const char *name, int nth, int error);
int double_left(void);

void double_plan(const char *name, int nth, int error) {
    strncpy(plan.name, name, sizeof plan.name - 1);
    plan.left = nth;
    plan.error = error;
}

/* How many calls were left when the scene was over; 0: the planned one came. */
int double_left(void) { return plan.left; }

static bool is_due(const char *name) { return plan.left > 0 && strcmp(plan.name, name) == 0 && --plan.left == 0; }

/* Fail, or cut the size in half. */
static bool fails(const char *name, size_t *size) {
    if (!is_due(name))
        return false;
    *size = *size / 2 + *size % 2;
    errno = plan.error;
    return plan.error != 0;
}

ssize_t double_recv(int descriptor, void *to, size_t size, int flags) {
    if (is_due("recv")) {
        errno = plan.error;
        if (plan.error != 0)
            return -1;
        size = 7;
    }
    return recv(descriptor, to, size, flags);
}

ssize_t double_send(int descriptor, const void *data, size_t size, int flags) {
    return fails("send", &size) ? -1 : send(descriptor, data, size, flags);
}

ssize_t double_sendfile(int to, int from, off_t *position, size_t size) {
    return fails("sendfile", &size) ? -1 : sendfile(to, from, position, size);
}

ssize_t double_pwrite(int descriptor, const void *data, size_t size, off_t position) {
    return fails("pwrite", &size) ? -1 : pwrite(descriptor, data, size, position);
}

int double_epoll_wait(int set, struct epoll_event *events, int most, int timeout) {
    if (is_due("epoll_wait")) {
        errno = plan.error;
        if (plan.error != 0)
            return -1;
        most = 1;
    }
    return epoll_wait(set, events, most, timeout);
}

void *double_realloc(void *memory, size_t size) {
    size_t ignored = 0;
    return fails("realloc", &ignored) ? NULL : realloc(memory, size);
}
