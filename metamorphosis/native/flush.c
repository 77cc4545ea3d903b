#define _GNU_SOURCE /* pthread_setname_np */
#include "flush.h"

#ifdef __linux__

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define STACK_BYTES (256 * 1024) /* more than enough for what libc does here */

struct worker {
    struct flusher *flusher;
    pthread_t thread;
    bool busy; /* in fdatasync */
};

/* Flushes in the order of arrival. */
struct row {
    struct flush *first, **last;
};

/* The lock guards all fields but `event` and `limit`. */
struct flusher {
    pthread_mutex_t lock;
    pthread_cond_t news; /* a flush waits, or the flusher ends */
    struct row waiting, done;
    unsigned limit, started, idle, queued; /* `idle` threads wait for news, `queued` flushes wait for a thread */
    unsigned holders;                      /* running threads and the owner; the last one frees the flusher */
    bool ending;
    int event;
    struct worker workers[];
};

static void clear(struct row *row) {
    row->first = NULL;
    row->last = &row->first;
}

static void append(struct row *row, struct flush *flush) {
    flush->next = NULL;
    *row->last = flush;
    row->last = &flush->next;
}

static struct flush *pop(struct row *row) {
    struct flush *flush = row->first;
    row->first = flush->next;
    if (row->first == NULL)
        row->last = &row->first;
    return flush;
}

static void free_all(struct flush *flush) {
    while (flush != NULL) {
        struct flush *next = flush->next;
        free(flush);
        flush = next;
    }
}

/* Give up the flusher, whose lock is held; the last holder frees it. */
static void release(struct flusher *flusher) {
    bool last = --flusher->holders == 0;
    pthread_mutex_unlock(&flusher->lock);
    if (!last)
        return;
    free_all(flusher->waiting.first);
    free_all(flusher->done.first);
    close(flusher->event);
    pthread_cond_destroy(&flusher->news);
    pthread_mutex_destroy(&flusher->lock);
    free(flusher);
}

/* Functions of the threads */

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void carry_out(struct flush *flush) {
    double began = now();
    int result;
    do
        result = fdatasync(flush->fd);
    while (result != 0 && errno == EINTR);
    flush->error = result == 0 ? 0 : errno;
    flush->seconds = now() - began;
}

static void tell(struct flusher *flusher) {
    uint64_t one = 1;
    while (write(flusher->event, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

/* Wait for the next flush. NULL: the flusher ends. The lock is held. */
static struct flush *await_flush(struct flusher *flusher) {
    while (flusher->waiting.first == NULL && !flusher->ending) {
        flusher->idle++;
        pthread_cond_wait(&flusher->news, &flusher->lock);
        flusher->idle--;
    }
    if (flusher->ending)
        return NULL;
    flusher->queued--;
    return pop(&flusher->waiting);
}

static void *run(void *argument) {
    struct worker *worker = argument;
    struct flusher *flusher = worker->flusher;
    struct flush *flush;
    pthread_mutex_lock(&flusher->lock);
    while ((flush = await_flush(flusher)) != NULL) {
        worker->busy = true;
        pthread_mutex_unlock(&flusher->lock);
        carry_out(flush);
        pthread_mutex_lock(&flusher->lock);
        worker->busy = false;
        bool first = flusher->done.first == NULL; /* otherwise the event is set already */
        append(&flusher->done, flush);
        if (first) {
            pthread_mutex_unlock(&flusher->lock);
            tell(flusher);
            pthread_mutex_lock(&flusher->lock);
        }
    }
    release(flusher);
    return NULL;
}

/* Functions of the owner */

struct flusher *flusher_create(unsigned threads) {
    struct flusher *flusher = calloc(1, sizeof *flusher + threads * sizeof *flusher->workers);
    if (flusher == NULL)
        return NULL;
    flusher->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (flusher->event < 0) {
        free(flusher);
        return NULL;
    }
    pthread_mutex_init(&flusher->lock, NULL);
    pthread_cond_init(&flusher->news, NULL);
    clear(&flusher->waiting);
    clear(&flusher->done);
    flusher->limit = threads;
    flusher->holders = 1;
    return flusher;
}

int flusher_descriptor(const struct flusher *flusher) { return flusher->event; }

/* Start a thread that blocks all signals, which are for the interpreter. The lock is held. Returns an errno. */
static int start(struct flusher *flusher) {
    struct worker *worker = &flusher->workers[flusher->started];
    pthread_attr_t attributes;
    sigset_t all, before;
    worker->flusher = flusher;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&worker->thread, &attributes, run, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (error != 0)
        return error;
    pthread_setname_np(worker->thread, "flush");
    flusher->started++;
    flusher->holders++;
    return 0;
}

int flusher_submit(struct flusher *flusher, int fd, long long token) {
    struct flush *flush = malloc(sizeof *flush);
    if (flush == NULL)
        return ENOMEM;
    *flush = (struct flush){.token = token, .fd = fd};
    pthread_mutex_lock(&flusher->lock);
    int error = 0;
    if (flusher->queued >= flusher->idle && flusher->started < flusher->limit)
        error = start(flusher);
    if (error != 0 && flusher->started == 0) {
        pthread_mutex_unlock(&flusher->lock);
        free(flush);
        return error;
    }
    flusher->queued++;
    append(&flusher->waiting, flush);
    pthread_cond_signal(&flusher->news);
    pthread_mutex_unlock(&flusher->lock);
    return 0;
}

struct flush *flusher_take(struct flusher *flusher) {
    uint64_t count;
    while (read(flusher->event, &count, sizeof count) < 0 && errno == EINTR)
        ;
    pthread_mutex_lock(&flusher->lock);
    struct flush *taken = flusher->done.first;
    clear(&flusher->done);
    pthread_mutex_unlock(&flusher->lock);
    return taken;
}

void flusher_put_back(struct flusher *flusher, struct flush *first) {
    struct flush *last = first;
    while (last->next != NULL)
        last = last->next;
    pthread_mutex_lock(&flusher->lock);
    last->next = flusher->done.first;
    if (last->next == NULL)
        flusher->done.last = &last->next;
    flusher->done.first = first;
    pthread_mutex_unlock(&flusher->lock);
    tell(flusher);
}

void flusher_end(struct flusher *flusher) {
    pthread_mutex_lock(&flusher->lock);
    flusher->ending = true;
    pthread_cond_broadcast(&flusher->news);
    for (unsigned index = 0; index < flusher->started; index++) {
        struct worker *worker = &flusher->workers[index];
        if (worker->busy) {
            pthread_detach(worker->thread);
            continue;
        }
        pthread_mutex_unlock(&flusher->lock);
        pthread_join(worker->thread, NULL);
        pthread_mutex_lock(&flusher->lock);
    }
    release(flusher);
}

#endif
