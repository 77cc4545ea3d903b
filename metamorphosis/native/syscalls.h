/*
 * The calls of a turn that can fail, in one place: the tests build with METAQ_DOUBLE, where each of them fails, or does
 * less than it was asked for, when the test says so (tests/native/double.c).
 */
#ifndef METAMORPHOSIS_SYSCALLS_H
#define METAMORPHOSIS_SYSCALLS_H

#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef METAQ_DOUBLE
ssize_t double_recv(int descriptor, void *to, size_t size, int flags);
ssize_t double_send(int descriptor, const void *data, size_t size, int flags);
ssize_t double_sendfile(int to, int from, off_t *position, size_t size);
ssize_t double_pwrite(int descriptor, const void *data, size_t size, off_t position);
int double_epoll_wait(int set, struct epoll_event *events, int most, int timeout);
void *double_realloc(void *memory, size_t size);
#define sys_recv double_recv
#define sys_send double_send
#define sys_sendfile double_sendfile
#define sys_pwrite double_pwrite
#define sys_epoll_wait double_epoll_wait
#define sys_realloc double_realloc
#else
#define sys_recv recv
#define sys_send send
#define sys_sendfile sendfile
#define sys_pwrite pwrite
#define sys_epoll_wait epoll_wait
#define sys_realloc realloc
#endif

#endif
