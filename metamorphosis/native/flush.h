/*
 * fdatasync in threads that know nothing of Python, whose completions an eventfd tells: see store/flushthreads.py.
 *
 * All functions but those of the threads themselves are called by one thread. A flusher must not outlive a fork.
 */
#ifndef METAMORPHOSIS_FLUSH_H
#define METAMORPHOSIS_FLUSH_H

#ifdef __linux__

struct flusher;

/* A call of fdatasync. */
struct flush {
    struct flush *next;
    long long token; /* the caller's name for it */
    int fd;
    int error;       /* an errno, 0: the data are on the disk */
    double seconds;  /* that it took */
};

/* At most so many threads, started when there is work for them. NULL: errno says why. */
struct flusher *flusher_create(unsigned threads);

/* Readable when there is something to take. */
int flusher_descriptor(const struct flusher *flusher);

/* Begin, in the order of the calls. 0, or an errno: nothing was begun. */
int flusher_submit(struct flusher *flusher, int fd, long long token);

/* What has ended, in that order; the caller frees each. */
struct flush *flusher_take(struct flusher *flusher);

/* End the threads. One that hangs in the kernel is left alone; what has not begun never does. */
void flusher_end(struct flusher *flusher);

#endif
#endif
