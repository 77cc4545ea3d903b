/*
 * metabench - load generator for the MetaQ text protocol.
 *
 * One thread, one epoll set, N connections with W requests in flight on each.
 * Request bytes are built once and re-sent by writev(): the opaque of a request
 * is the number of its window slot, so a slot's bytes never change and the
 * generator spends almost nothing per request (put mode).
 *
 * Transactions (local and xa mode) go step by step, one on each connection: the
 * next step leaves when the replies of the one before are there, since the
 * original broker runs the commands of one connection in any order.
 *
 * See README.md beside this file for how to build and run it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include "measure.h"

enum mode { M_PUT, M_GET, M_VERSION, M_IDLE, M_LOCAL, M_XA };
static const char *const mode_names[] = { "put", "get", "version", "idle", "local", "xa" };
enum { OPAQUE_BASE = 1000000, RBUF = 1 << 20, MAXIOV = 512, HDRMAX = 1024, HEADREAD = 512 };

static struct {
    const char *host, *topic, *group, *label;
    int port, conns, window, body, partitions, maxsize, decode, json, verbose;
    int checksum, flag, spread, messages, topics;
    enum mode mode;
    double secs, warm, rate;
    uint64_t start, span;
    int pids[64], npids;
} o = { .host = "127.0.0.1", .topic = "bench", .group = "g", .label = "", .port = 8123,
        .conns = 1, .window = 1, .body = 1024, .partitions = 1, .maxsize = 1 << 20,
        .checksum = 1, .messages = 1, .topics = 0, .mode = M_PUT, .secs = 5, .warm = 1 };

static void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("metabench: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    exit(2);
}

static double server_cpu(void)
{
    double s = 0;
    for (int i = 0; i < o.npids; i++)
        s += pid_cpu(o.pids[i]);
    return s;
}

static double server_rss(void)
{
    double s = 0;
    for (int i = 0; i < o.npids; i++)
        s += pid_rss_kib(o.pids[i]);
    return s;
}

/* ---- connections ---- */
struct conn {
    int fd;
    int want_out;               /* EPOLLOUT armed */
    uint32_t *freeq, fhead, nfree;      /* ring of free slots */
    uint32_t *sendq, shead, nsend;      /* ring of slots waiting to be written */
    size_t sendoff;             /* bytes of sendq's head already written */
    uint64_t *sent;             /* per slot: when it was handed over */
    uint8_t *busy;              /* per slot: a reply is due */
    uint32_t *topic;            /* per slot, with -T: where its request goes */
    char *gbuf;                 /* get mode: 160 bytes a slot */
    uint16_t *glen;
    uint64_t *goff;             /* get mode: offset asked for, per slot */
    uint64_t next_off;
    int number, partition;
    char hdr[HDRMAX];           /* a reply header cut by the end of a read */
    unsigned hlen;
    /* the reply whose body is being read */
    uint64_t body_left, body_len;
    uint32_t cur_slot;
    int cur_code;               /* 200 for "value" */
    int cur_value;
    char err[120];
    unsigned errlen;
    /* walker over the messages in a value */
    unsigned char mh[20];
    unsigned mhn;
    uint64_t mleft, consumed;
    uint32_t mcrc, mwant;
    /* the transaction of this connection */
    char *step_bytes;           /* the requests of the step that is under way */
    size_t step_len, step_off;
    unsigned step, due;         /* replies that the step waits for */
    uint64_t begun;             /* when its first request was handed over */
    unsigned transactions;      /* begun so far: part of the key */
};

static struct conn *C;
static int ep;
static char *rbuf;
static char *putbuf;            /* the requests, back to back */
static size_t *putlen, *putat;  /* by request_number() */

static volatile sig_atomic_t stop;
static int measuring, draining;
static int open_transactions;
static uint64_t n_ok, n_err, n_badopaque, n_bytes, n_msgs, n_crcbad, n_wrap, n_value;
static char first_err[160];

static void on_sig(int s) { (void)s; stop = 1; }

/*
 * Which built request a slot sends. Without -Q every connection of a partition shares that partition's requests; with it
 * each slot has its own, so that the requests in flight on one connection go to different partitions. With -T the requests
 * go to one topic after the other, whichever connection sends them.
 */
static size_t request_number(const struct conn *c, uint32_t slot)
{
    if (o.topics)
        return (size_t)c->topic[slot] * (size_t)o.window + slot;
    return (size_t)(o.spread ? c->number : c->partition) * (size_t)o.window + slot;
}

static int transactional(void) { return o.mode == M_LOCAL || o.mode == M_XA; }

static unsigned char *body;
static uint32_t body_crc;

static void build_body(void)
{
    body = malloc((size_t)o.body + 1);
    uint64_t x = 88172645463325252ull;
    for (int i = 0; i < o.body; i++) {
        x ^= x << 13; x ^= x >> 7; x ^= x << 17;
        body[i] = (unsigned char)(x >> 24);
    }
    body_crc = (uint32_t)crc32(0, body, (unsigned)o.body) & 0x7fffffff;
}

static void build_puts(void)
{
    int groups = o.topics ? o.topics : o.spread ? o.conns : o.partitions;
    size_t n = (size_t)groups * (size_t)o.window, cap = n * ((size_t)o.body + 256 + strlen(o.topic));
    char number[16] = "";
    putbuf = malloc(cap);
    putlen = calloc(n, sizeof *putlen);
    putat = calloc(n, sizeof *putat);
    size_t at = 0;
    for (int g = 0; g < groups; g++)
        for (int w = 0; w < o.window; w++) {
            size_t i = (size_t)g * (size_t)o.window + (size_t)w;
            int p = o.topics ? 0 : o.spread ? (int)(i % (size_t)o.partitions) : g;
            if (o.topics)
                sprintf(number, "%d", g);
            int h = sprintf(putbuf + at, "put %s%s %d %d %d %d %d\r\n", o.topic, number, p, o.body, o.flag,
                            o.checksum ? (int)body_crc : -1, OPAQUE_BASE + w);
            memcpy(putbuf + at + h, body, (size_t)o.body);
            putat[i] = at;
            putlen[i] = (size_t)h + (size_t)o.body;
            at += putlen[i];
        }
}

static void build_get(struct conn *c, uint32_t slot)
{
    uint64_t off = c->next_off;
    if (o.span && off >= o.start + o.span)
        off = o.start;
    c->goff[slot] = off;
    c->glen[slot] = (uint16_t)snprintf(c->gbuf + 160 * (size_t)slot, 160, "get %s %s %d %" PRIu64 " %d %d\r\n",
                                       o.topic, o.group, c->partition, off, o.maxsize, OPAQUE_BASE + (int)slot);
    c->next_off = off + (uint64_t)o.maxsize;    /* corrected on the reply when W is 1 */
}

static void arm(struct conn *c, int out)
{
    if (c->want_out == out)
        return;
    struct epoll_event ev = { .events = EPOLLIN | (out ? EPOLLOUT : 0u), .data.ptr = c };
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev);
    c->want_out = out;
}

static void slot_bytes(struct conn *c, uint32_t slot, char **p, size_t *n)
{
    if (o.mode == M_PUT) {
        size_t i = request_number(c, slot);
        *p = putbuf + putat[i];
        *n = putlen[i];
    } else {
        *p = c->gbuf + 160 * (size_t)slot;
        *n = c->glen[slot];
    }
}

/* ---- transactions ---- */
enum step { BEGIN, PUTS, END_OF_LOCAL, PREPARE = END_OF_LOCAL, END_OF_XA };
enum { KEYMAX = 120 };

static void flush_step(struct conn *c)
{
    while (c->step_off < c->step_len) {
        ssize_t r = write(c->fd, c->step_bytes + c->step_off, c->step_len - c->step_off);
        if (r < 0) {
            if (errno == EAGAIN || errno == EINTR) {
                arm(c, 1);
                return;
            }
            die("write: %s", strerror(errno));
        }
        c->step_off += (size_t)r;
    }
    arm(c, 0);
}

/* Append one command to the step. What is answered has the number of its reply as opaque. */
static void add_command(struct conn *c, const char *key, const char *session, const char *type)
{
    int answered = strcmp(type, "END") != 0;
    c->step_len += (size_t)sprintf(c->step_bytes + c->step_len, "transaction %s %s %s %d\r\n", key, session, type,
                                   OPAQUE_BASE + (answered ? (int)c->due : o.window));
    if (answered)
        c->busy[c->due++] = 1;
}

static void add_put(struct conn *c, const char *key, int partition)
{
    c->step_len += (size_t)sprintf(c->step_bytes + c->step_len, "put %s %d %d %d %d %s %d\r\n", o.topic, partition, o.body,
                                   o.flag, o.checksum ? (int)body_crc : -1, key, OPAQUE_BASE + (int)c->due);
    memcpy(c->step_bytes + c->step_len, body, (size_t)o.body);
    c->step_len += (size_t)o.body;
    c->busy[c->due++] = 1;
}

/* Send the requests of the step that the connection has come to. The process id keeps the keys of two runs apart. */
static void send_step(struct conn *c, uint64_t t)
{
    char key[KEYMAX], session[KEYMAX / 2];
    sprintf(session, "bench-%d-%d", (int)getpid(), c->number);
    if (c->step == BEGIN) {
        c->begun = t;
        c->transactions++;
        open_transactions++;
    }
    if (o.mode == M_LOCAL)
        sprintf(key, "TX:%s:%u", session, c->transactions);
    else
        sprintf(key, "XID:1:%08x%08x%08x:01:bench", (unsigned)getpid(), (unsigned)c->number, c->transactions);
    c->step_len = c->step_off = 0;
    c->due = 0;
    if (c->step == BEGIN)
        add_command(c, key, session, "BEGIN");
    else if (c->step == PUTS) {
        for (int i = 0; i < o.messages; i++)
            add_put(c, key, o.spread ? (c->number * o.messages + i) % o.partitions : c->partition);
    } else if (o.mode == M_LOCAL)
        add_command(c, key, session, "COMMIT_ONE_PHASE");
    else if (c->step == PREPARE) {
        add_command(c, key, session, "END");
        add_command(c, key, session, "PREPARE");
    } else
        add_command(c, key, session, "COMMIT_TWO_PHASE");
    flush_step(c);
}

/* A reply of a transaction is whole. An error reply ends the run: what follows it would measure something else. */
static void answered(struct conn *c, uint64_t t)
{
    if (c->cur_code != 200)
        die("step %u of a transaction: %d %.*s", c->step, c->cur_code, (int)c->errlen, c->err);
    if (c->cur_slot >= (uint32_t)o.window || !c->busy[c->cur_slot])
        die("a reply that nothing waits for");
    c->busy[c->cur_slot] = 0;
    if (--c->due)
        return;
    if (c->step++ == (o.mode == M_LOCAL ? END_OF_LOCAL : END_OF_XA)) {
        if (measuring) {
            n_ok++;
            n_msgs += (uint64_t)o.messages;
            n_bytes += (uint64_t)o.messages * (uint64_t)o.body;
            hist_add(t - c->begun);
        }
        c->step = BEGIN;
        open_transactions--;
        if (draining)
            return;
    }
    send_step(c, t);
}

static void flush_conn(struct conn *c)
{
    if (transactional()) {
        flush_step(c);
        return;
    }
    struct iovec iov[MAXIOV];
    while (c->nsend) {
        int k = 0;
        size_t total = 0;
        for (uint32_t i = 0; i < c->nsend; i++) {
            uint32_t slot = c->sendq[(c->shead + i) % (uint32_t)o.window];
            char *p;
            size_t n;
            slot_bytes(c, slot, &p, &n);
            if (i == 0) {
                p += c->sendoff;
                n -= c->sendoff;
            }
            if (k && (char *)iov[k - 1].iov_base + iov[k - 1].iov_len == p)
                iov[k - 1].iov_len += n;
            else if (k == MAXIOV)
                break;
            else {
                iov[k].iov_base = p;
                iov[k++].iov_len = n;
            }
            total += n;
        }
        ssize_t r = writev(c->fd, iov, k);
        if (r < 0) {
            if (errno == EAGAIN || errno == EINTR) {
                arm(c, 1);
                return;
            }
            die("write: %s", strerror(errno));
        }
        size_t left = (size_t)r;
        while (left) {
            char *p;
            size_t n;
            slot_bytes(c, c->sendq[c->shead], &p, &n);
            n -= c->sendoff;
            if (left < n) {
                c->sendoff += left;
                break;
            }
            left -= n;
            c->sendoff = 0;
            c->shead = (c->shead + 1) % (uint32_t)o.window;
            c->nsend--;
        }
        if ((size_t)r < total) {
            arm(c, 1);
            return;
        }
    }
    arm(c, 0);
}

static inline void issue(struct conn *c, uint64_t t)
{
    uint32_t slot = c->freeq[c->fhead];
    c->fhead = (c->fhead + 1) % (uint32_t)o.window;
    c->nfree--;
    c->sent[slot] = t;
    c->busy[slot] = 1;
    if (o.topics) {
        static uint32_t turn;
        c->topic[slot] = turn++ % (uint32_t)o.topics;
    }
    if (o.mode == M_GET)
        build_get(c, slot);
    c->sendq[(c->shead + c->nsend) % (uint32_t)o.window] = slot;
    c->nsend++;
}

static void refill(struct conn *c)
{
    if (o.rate > 0)
        return;                 /* the pacer issues */
    uint64_t t = now_ns();
    if (transactional()) {
        send_step(c, t);
        return;
    }
    while (c->nfree)
        issue(c, t);
    if (c->nsend)
        flush_conn(c);
}

static void walk(struct conn *c, const unsigned char *p, uint64_t n)
{
    while (n) {
        if (c->mhn < 20) {
            unsigned k = 20 - c->mhn;
            if (k > n)
                k = (unsigned)n;
            memcpy(c->mh + c->mhn, p, k);
            c->mhn += k;
            p += k;
            n -= k;
            if (c->mhn < 20)
                return;
            c->mleft = (uint32_t)c->mh[0] << 24 | (uint32_t)c->mh[1] << 16 | (uint32_t)c->mh[2] << 8 | c->mh[3];
            c->mwant = (uint32_t)c->mh[4] << 24 | (uint32_t)c->mh[5] << 16 | (uint32_t)c->mh[6] << 8 | c->mh[7];
            c->mcrc = 0;
            c->consumed += 20;
        }
        uint64_t k = c->mleft < n ? c->mleft : n;
        if (o.decode > 1)
            c->mcrc = (uint32_t)crc32(c->mcrc, p, (unsigned)k);
        p += k;
        n -= k;
        c->mleft -= k;
        if (c->mleft == 0) {
            uint32_t len = (uint32_t)c->mh[0] << 24 | (uint32_t)c->mh[1] << 16 | (uint32_t)c->mh[2] << 8 | c->mh[3];
            c->consumed += len;
            c->mhn = 0;
            if (measuring)
                n_msgs++;
            if (o.decode > 1 && (c->mcrc & 0x7fffffff) != c->mwant)
                n_crcbad++;
        }
    }
}

static void complete(struct conn *c, uint64_t t)
{
    if (transactional()) {
        answered(c, t);
        return;
    }
    uint32_t slot = c->cur_slot;
    if (slot >= (uint32_t)o.window || !c->busy[slot]) {
        n_badopaque++;
        return;
    }
    c->busy[slot] = 0;
    c->freeq[(c->fhead + c->nfree) % (uint32_t)o.window] = slot;
    c->nfree++;
    int end_of_data = o.mode == M_GET && (!c->cur_value || c->body_len == 0);
    if (o.mode == M_GET && o.window == 1) {
        if (end_of_data) {
            c->next_off = o.start;
        } else if (o.decode) {
            uint64_t whole = c->consumed - (c->mhn == 20 ? 20 : 0);
            c->next_off = c->goff[slot] + (whole ? whole : c->body_len);
            if (c->mhn < 20 && c->mhn > 0 && !whole)
                n_err++;
        } else
            c->next_off = c->goff[slot] + c->body_len;
    }
    if (end_of_data && (c->cur_code == 404 || c->cur_code == 301 || c->cur_code == 200)) {
        c->next_off = o.start;
        if (++n_wrap > 20000 && !n_value)
            die("get finds no data from offset %" PRIu64 " on", o.start);
        return;
    }
    n_value += c->cur_value;
    if (c->cur_code != 200) {
        if (!n_err++)
            snprintf(first_err, sizeof first_err, "%d %.*s", c->cur_code, (int)c->errlen, c->err);
        return;
    }
    if (measuring) {
        n_ok++;
        n_bytes += o.mode == M_PUT ? (uint64_t)o.body : c->body_len;
        hist_add(t - c->sent[slot]);
    }
}

static unsigned long num(const char **p, const char *e)
{
    unsigned long v = 0;
    while (*p < e && **p == ' ')
        (*p)++;
    if (*p == e || !isdigit((unsigned char)**p))
        die("bad reply header");
    while (*p < e && isdigit((unsigned char)**p))
        v = v * 10 + (unsigned long)(*(*p)++ - '0');
    return v;
}

static void header(struct conn *c, const char *h, const char *e, uint64_t t)
{
    if (e - h > 7 && !memcmp(h, "result ", 7)) {
        h += 7;
        c->cur_code = (int)num(&h, e);
        c->cur_value = 0;
    } else if (e - h > 6 && !memcmp(h, "value ", 6)) {
        h += 6;
        c->cur_code = 200;
        c->cur_value = 1;
    } else
        die("unexpected reply: %.*s", (int)(e - h), h);
    c->body_len = c->body_left = num(&h, e);
    c->cur_slot = (uint32_t)(num(&h, e) - OPAQUE_BASE);
    c->errlen = 0;
    c->mhn = 0;
    c->mleft = 0;
    c->consumed = 0;
    if (!c->body_left)
        complete(c, t);
}

static void feed(struct conn *c, const char *p, size_t n, uint64_t t)
{
    const char *e = p + n;
    while (p < e) {
        if (c->body_left) {
            uint64_t k = (uint64_t)(e - p) < c->body_left ? (uint64_t)(e - p) : c->body_left;
            if (c->cur_value) {
                if (o.decode && o.window == 1)
                    walk(c, (const unsigned char *)p, k);
            } else if (c->cur_code != 200 && c->errlen < sizeof c->err) {
                unsigned m = (unsigned)sizeof c->err - c->errlen;
                if (m > k)
                    m = (unsigned)k;
                memcpy(c->err + c->errlen, p, m);
                c->errlen += m;
            }
            p += k;
            c->body_left -= k;
            if (!c->body_left)
                complete(c, t);
            continue;
        }
        const char *nl = memchr(p, '\n', (size_t)(e - p));
        size_t k = (size_t)((nl ? nl + 1 : e) - p);
        if (nl && !c->hlen)
            header(c, p, nl - (nl > p && nl[-1] == '\r'), t);
        else {
            if (c->hlen + k > HDRMAX)
                die("reply header too long");
            memcpy(c->hdr + c->hlen, p, k);
            c->hlen += (unsigned)k;
            if (nl) {
                unsigned hl = c->hlen - 1;
                c->hlen = 0;
                header(c, c->hdr, c->hdr + hl - (hl && c->hdr[hl - 1] == '\r'), t);
            }
        }
        p += k;
    }
}

static void on_readable(struct conn *c)
{
    /*
     * A value that nobody looks at is dropped inside the kernel: copying it out would make this program the bottleneck of a
     * get test. Reading little where a header is due leaves most of the value to be dropped.
     */
    int skip = o.mode == M_GET && !o.decode && c->cur_value && c->body_left;
    size_t want = skip ? c->body_left : o.mode == M_GET && !o.decode ? HEADREAD : RBUF;
    ssize_t r = recv(c->fd, rbuf, want < RBUF ? want : RBUF, skip ? MSG_TRUNC : 0);
    if (r < 0) {
        if (errno == EAGAIN || errno == EINTR)
            return;
        die("read: %s", strerror(errno));
    }
    if (r == 0)
        die("the server closed a connection");
    feed(c, rbuf, (size_t)r, now_ns());
    if (c->nfree && !transactional())
        refill(c);
}

static void open_all(void)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)o.port) };
    if (inet_pton(AF_INET, o.host, &a.sin_addr) != 1)
        die("bad address %s", o.host);
    if ((ntohl(a.sin_addr.s_addr) >> 24) != 127)
        die("only loopback addresses are allowed");
    C = calloc((size_t)o.conns, sizeof *C);
    for (int i = 0; i < o.conns; i++) {
        struct conn *c = &C[i];
        int one = 1;
        c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (c->fd < 0)
            die("socket: %s (raise ulimit -n?)", strerror(errno));
        for (int tries = 0; connect(c->fd, (struct sockaddr *)&a, sizeof a) < 0; tries++) {
            if (tries > 100)
                die("connect: %s", strerror(errno));
            usleep(20000);
        }
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        c->number = i;
        c->partition = i % o.partitions;
        c->next_off = o.start;
        size_t w = (size_t)o.window;
        c->freeq = calloc(w, sizeof *c->freeq);
        c->sendq = calloc(w, sizeof *c->sendq);
        c->sent = calloc(w, sizeof *c->sent);
        c->busy = calloc(w, 1);
        c->topic = calloc(w, sizeof *c->topic);
        for (uint32_t k = 0; k < (uint32_t)w; k++)
            c->freeq[k] = k;
        c->nfree = (uint32_t)w;
        if (transactional())
            c->step_bytes = malloc(2 * HDRMAX + w * ((size_t)o.body + HDRMAX));
        if (o.mode == M_GET || o.mode == M_VERSION) {
            c->gbuf = calloc(w, 160);
            c->glen = calloc(w, sizeof *c->glen);
            c->goff = calloc(w, sizeof *c->goff);
            if (o.mode == M_VERSION)
                for (uint32_t k = 0; k < (uint32_t)w; k++)
                    c->glen[k] = (uint16_t)sprintf(c->gbuf + 160 * (size_t)k, "version %d\r\n", OPAQUE_BASE + (int)k);
            /* spread the readers over the span so that they do not march in step */
            if (o.span)
                c->next_off = o.start + (o.decode ? 0 : o.span / (uint64_t)o.conns * (uint64_t)i);
        }
        struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
        epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev);
    }
}

static void serve(const struct timespec *timeout)
{
    struct epoll_event ev[256];
    int n = epoll_pwait2(ep, ev, 256, timeout, NULL);
    for (int i = 0; i < n; i++) {
        struct conn *c = ev[i].data.ptr;
        if (ev[i].events & EPOLLOUT)
            flush_conn(c);
        if (ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            on_readable(c);
    }
}

/* End what is open: the original keeps the open transactions of a closed connection for ever. */
static void drain(void)
{
    const struct timespec to = { 0, 100000000 };
    uint64_t limit = now_ns() + 10000000000u;
    for (draining = 1; open_transactions && !stop; serve(&to))
        if (now_ns() > limit)
            die("%d transactions got no reply for 10 s", open_transactions);
}

static void usage(void)
{
    fputs("usage: metabench [options]\n"
          "  -a ADDR     loopback address (127.0.0.1)      -p PORT   (8123)\n"
          "  -m MODE     put | get | version | idle | local | xa\n"
          "  -c N        connections (1)                   -w W      requests in flight on each (1)\n"
          "  -b BYTES    put: body size (1024)             -s BYTES  get: max size asked for (1048576)\n"
          "  -t TOPIC    (bench)   -g GROUP (g)            -P N      partitions 0..N-1, one per connection (1)\n"
          "  -d SECS     measured time (5)                 -u SECS   warm-up before it (1)\n"
          "  -o OFFSET   get: first offset (0)             -S BYTES  get: wrap after so many bytes\n"
          "  -x          get, W=1: walk the messages, -xx: and check each CRC\n"
          "  -Q          put: spread the requests of each connection over the partitions\n"
          "  -T N        put: one request after the other to TOPIC0, TOPIC1, ... of N topics, partition 0\n"
          "  -k N        local, xa: messages in a transaction (1); -b, -P and -Q as for put, -w and -r do not apply;\n"
          "              requests and latencies are those of whole transactions\n"
          "  -n          put: send checksum -1             -f FLAG   put: flag (0)\n"
          "  -r RATE     open loop: RATE requests/s in all; latency counts from the planned time\n"
          "  -i PID[,PID...]  server processes: report their CPU and resident memory\n"
          "  -l LABEL    -j  one JSON line    -v  a line every second\n", stderr);
    exit(2);
}

int main(int argc, char **argv)
{
    int ch;
    while ((ch = getopt(argc, argv, "a:p:m:c:w:b:s:t:g:P:T:d:u:o:S:k:xQnf:r:i:l:jv")) != -1)
        switch (ch) {
        case 'a': o.host = optarg; break;
        case 'p': o.port = atoi(optarg); break;
        case 'm':
            for (o.mode = M_PUT; o.mode <= M_XA && strcmp(optarg, mode_names[o.mode]); o.mode++)
                ;
            if (o.mode > M_XA)
                usage();
            break;
        case 'c': o.conns = atoi(optarg); break;
        case 'w': o.window = atoi(optarg); break;
        case 'b': o.body = atoi(optarg); break;
        case 's': o.maxsize = atoi(optarg); break;
        case 't': o.topic = optarg; break;
        case 'g': o.group = optarg; break;
        case 'P': o.partitions = atoi(optarg); break;
        case 'T': o.topics = atoi(optarg); break;
        case 'd': o.secs = atof(optarg); break;
        case 'u': o.warm = atof(optarg); break;
        case 'o': o.start = strtoull(optarg, 0, 10); break;
        case 'S': o.span = strtoull(optarg, 0, 10); break;
        case 'k': o.messages = atoi(optarg); break;
        case 'x': o.decode++; break;
        case 'Q': o.spread = 1; break;
        case 'n': o.checksum = 0; break;
        case 'f': o.flag = atoi(optarg); break;
        case 'r': o.rate = atof(optarg); break;
        case 'i':
            for (char *s = strtok(optarg, ","); s && o.npids < 64; s = strtok(NULL, ","))
                o.pids[o.npids++] = atoi(s);
            break;
        case 'l': o.label = optarg; break;
        case 'j': o.json = 1; break;
        case 'v': o.verbose = 1; break;
        default: usage();
        }
    if (optind != argc || o.conns < 1 || o.window < 1 || o.partitions < 1 || o.secs > 600 ||
        o.body < 0 || o.maxsize < 1 || strlen(o.topic) > 60 || strlen(o.group) > 40 ||
        o.messages < 1 || o.topics < 0 || (o.topics && (o.mode != M_PUT || o.spread || o.partitions > 1)) ||
        (transactional() && (o.rate > 0 || o.window > 1)))
        usage();
    if (transactional())
        o.window = o.messages;
    signal(SIGINT, on_sig);
    signal(SIGTERM, on_sig);
    signal(SIGPIPE, SIG_IGN);
    ep = epoll_create1(EPOLL_CLOEXEC);
    rbuf = malloc(RBUF);
    build_body();
    if (o.mode == M_PUT)
        build_puts();
    double rss0 = server_rss();
    open_all();

    if (o.mode == M_IDLE) {
        usleep((useconds_t)(o.warm * 1e6));
        double c0 = server_cpu();
        uint64_t end = now_ns() + (uint64_t)(o.secs * 1e9);
        while (!stop && now_ns() < end)
            usleep(50000);
        double rss1 = server_rss();
        if (o.json)
            printf("{\"label\":\"%s\",\"mode\":\"idle\",\"conns\":%d,\"server_rss_kib\":%.0f,\"per_conn_bytes\":%.1f"
                   ",\"idle_cpu_pct\":%.3f}\n",
                   o.label, o.conns, rss1, (rss1 - rss0) * 1024 / o.conns, (server_cpu() - c0) / o.secs * 100);
        else
            printf("%s idle conns=%d server_rss_kib %.0f -> %.0f  per_conn_bytes %.0f  idle_cpu %.2f%%\n", o.label,
               o.conns, rss0, rss1, (rss1 - rss0) * 1024 / o.conns, (server_cpu() - c0) / o.secs * 100);
        return 0;
    }

    uint64_t t0 = now_ns(), t_meas = t0 + (uint64_t)(o.warm * 1e9), t_end = t_meas + (uint64_t)(o.secs * 1e9);
    uint64_t t_tick = t_meas, tick_ok = 0, m0 = 0, m1 = 0;
    double cpu0 = 0, own0 = 0, st0 = 0, busy0 = 0, cpu1 = 0, own1 = 0, st1 = 0, busy1 = 0, issued = 0;
    int rr = 0;
    if (o.rate <= 0)
        for (int i = 0; i < o.conns; i++)
            refill(&C[i]);
    while (!stop) {
        uint64_t t = now_ns();
        if (!measuring && t >= t_meas) {
            measuring = 1;
            m0 = t;
            cpu0 = server_cpu();
            own0 = self_cpu();
            machine(&st0, &busy0);
        }
        if (t >= t_end)
            break;
        if (o.verbose && measuring && t >= t_tick) {
            if (t_tick > t_meas)
                fprintf(stderr, "  %.0f req/s\n", (double)(n_ok - tick_ok));
            tick_ok = n_ok;
            t_tick += 1000000000u;
        }
        struct timespec to = { 0, 100000000 };
        if (o.rate > 0) {
            double due = (double)(t - t0) / 1e9 * o.rate;
            int blocked = 0;
            while (issued < due && !blocked) {
                int k = 0;
                while (k < o.conns && !C[rr].nfree) {
                    rr = (rr + 1) % o.conns;
                    k++;
                }
                if (k == o.conns)
                    blocked = 1;
                else {
                    issue(&C[rr], t0 + (uint64_t)(issued / o.rate * 1e9));
                    flush_conn(&C[rr]);
                    rr = (rr + 1) % o.conns;
                    issued++;
                }
            }
            double wait = issued / o.rate * 1e9 - (double)(now_ns() - t0);
            to.tv_nsec = blocked ? 10000000 : wait < 0 ? 0 : wait > 1e8 ? 100000000 : (long)wait;
        }
        serve(&to);
    }
    m1 = now_ns();
    cpu1 = server_cpu();
    own1 = self_cpu();
    machine(&st1, &busy1);
    measuring = 0;
    drain();
    double el = (double)(m1 - m0) / 1e9, ok = n_ok ? (double)n_ok : 1;
    double rps = (double)n_ok / el, scpu = cpu1 - cpu0;
    double other = (busy1 - busy0) - scpu - (own1 - own0);
    if (!o.npids || other < 0)
        other = 0;
    const char *mode = mode_names[o.mode];
    int size = o.mode == M_GET ? o.maxsize : o.body;
    if (o.json)
        printf("{\"label\":\"%s\",\"mode\":\"%s\",\"conns\":%d,\"window\":%d,\"size\":%d,\"secs\":%.3f,\"ok\":%" PRIu64
               ",\"errors\":%" PRIu64 ",\"bad_opaque\":%" PRIu64 ",\"crc_bad\":%" PRIu64 ",\"rps\":%.1f,\"mbps\":%.3f"
               ",\"msgs_per_s\":%.1f,\"lat_us\":{\"mean\":%.1f,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}"
               ",\"server_cpu_pct\":%.1f,\"server_us_per_req\":%.3f,\"server_rss_kib\":%.0f,\"own_cpu_pct\":%.1f"
               ",\"other_cpu_pct\":%.1f,\"steal_pct\":%.2f}\n",
               o.label, mode, o.conns, o.window, size, el, n_ok, n_err, n_badopaque, n_crcbad, rps,
               (double)n_bytes / el / 1e6, (double)n_msgs / el, hist_sum / ok / 1e3, hist_pct(50) / 1e3,
               hist_pct(90) / 1e3, hist_pct(99) / 1e3, hist_pct(99.9) / 1e3, (double)hist_max / 1e3,
               scpu / el * 100, scpu / ok * 1e6, server_rss(), (own1 - own0) / el * 100, other / el * 100, (st1 - st0) / el * 100);
    else
        printf("%-14s %s N=%-4d W=%-3d size=%-8d %9.0f req/s %8.1f MB/s  p50 %8.1f  p99 %9.1f  max %9.1f us"
               "  server %5.1f%% cpu %7.2f us/req  own %5.1f%%  other %.1f%%  steal %.1f%%\n",
               o.label, mode, o.conns, o.window, size, rps, (double)n_bytes / el / 1e6, hist_pct(50) / 1e3,
               hist_pct(99) / 1e3, (double)hist_max / 1e3, scpu / el * 100, scpu / ok * 1e6,
               (own1 - own0) / el * 100, other / el * 100, (st1 - st0) / el * 100);
    if (!o.json && o.decode)
        printf("%-14s %.0f messages/s\n", o.label, (double)n_msgs / el);
    if (n_err || n_badopaque || n_crcbad)
        fprintf(stderr, "metabench: errors=%" PRIu64 " (first: %s) bad_opaque=%" PRIu64 " crc_bad=%" PRIu64 "\n",
                n_err, first_err, n_badopaque, n_crcbad);
    return n_err || n_badopaque || n_crcbad || !n_ok ? 1 : 0;
}
