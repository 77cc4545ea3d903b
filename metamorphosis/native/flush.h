/*
 * fdatasync in threads that do not use Python; an eventfd signals completions: see store/flushthreads.py.
 *
 * One thread calls all of these functions. A flusher must not be used after a fork.
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
    int error;      /* an errno; 0: the data are on the disk */
    double seconds; /* duration */
};

/* A flusher with at most `threads` threads, started on demand. NULL: errno has the reason. */
struct flusher *flusher_create(unsigned threads);

/* A descriptor that is readable when a flush has ended. */
int flusher_descriptor(const struct flusher *flusher);

/* Begin a flush; flushes begin in the order of the calls. 0, or an errno: nothing was begun. */
int flusher_submit(struct flusher *flusher, int fd, long long token);

/* The flushes that have ended, in that order; the caller frees each. */
struct flush *flusher_take(struct flusher *flusher);

/* Tell of taken flushes again; the caller has kept all from the first of these on. */
void flusher_put_back(struct flusher *flusher, struct flush *first);

/* End the threads. A thread that hangs in the kernel is left alone; waiting flushes never begin. */
void flusher_end(struct flusher *flusher);

#endif
#endif
