/*
 * zkbench - load generator for the ZooKeeper protocol.
 *
 * One thread, one epoll set, N sessions with W requests in flight on each. A session's answers come in the order of its
 * requests, so a ring of times is all that it remembers of them.
 *
 *   get, set   each session takes its own 64 nodes in turn
 *   create     every request makes another node
 *
 * What was made is deleted again after the measurement.
 *
 * See README.md beside this file for how to build and run it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "measure.h"

enum mode { M_GET, M_SET, M_CREATE };
enum { OP_CREATE = 1, OP_DELETE = 2, OP_GET = 4, OP_SET = 5, OP_CLOSE = -11 };
enum phase { PREPARE, LOAD, DRAIN, CLEAN };
enum { NODES = 64, FRAME_MAX = 1 << 20, WIDE = 256, SESSION_MS = 30000 };

static struct {
    int port, conns, window, body, pid, json;
    enum mode mode;
    double secs, warm;
} o = { .port = 2181, .conns = 1, .window = 1, .body = 100, .secs = 5, .warm = 1 };

static const char *MODES[] = { "get", "set", "create" };

static void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("zkbench: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    exit(2);
}

/* ---- requests ---- */
struct request {
    unsigned char *bytes;
    size_t len;
};

static void add(struct request *r, const void *p, size_t n)
{
    memcpy(r->bytes + r->len, p, n);
    r->len += n;
}

static void add_int(struct request *r, int32_t v)
{
    uint32_t wire = htonl((uint32_t)v);
    add(r, &wire, 4);
}

static void add_text(struct request *r, const char *s)
{
    add_int(r, (int32_t)strlen(s));
    add(r, s, strlen(s));
}

static void begin(struct request *r, int32_t xid, int32_t op)
{
    r->len = 0;
    add_int(r, 0);
    add_int(r, xid);
    add_int(r, op);
}

static void end(struct request *r)
{
    uint32_t wire = htonl((uint32_t)(r->len - 4));
    memcpy(r->bytes, &wire, 4);
}

static unsigned char *value;    /* what nodes hold */

static void make_create(struct request *r, int32_t xid, const char *path)
{
    begin(r, xid, OP_CREATE);
    add_text(r, path);
    add_int(r, o.body);
    add(r, value, (size_t)o.body);
    add_int(r, 1);
    add_int(r, 31);
    add_text(r, "world");
    add_text(r, "anyone");
    add_int(r, 0);
    end(r);
}

static void make_delete(struct request *r, int32_t xid, const char *path)
{
    begin(r, xid, OP_DELETE);
    add_text(r, path);
    add_int(r, -1);
    end(r);
}

static void make_get(struct request *r, int32_t xid, const char *path)
{
    begin(r, xid, OP_GET);
    add_text(r, path);
    add(r, "\0", 1);
    end(r);
}

static void make_set(struct request *r, int32_t xid, const char *path)
{
    begin(r, xid, OP_SET);
    add_text(r, path);
    add_int(r, o.body);
    add(r, value, (size_t)o.body);
    add_int(r, -1);
    end(r);
}

/* ---- connections ---- */
struct conn {
    int fd, number;
    int want_out;               /* EPOLLOUT armed */
    unsigned char *out, *in;
    size_t out_len, out_at, out_cap, in_len;
    uint64_t *sent;             /* ring: when each request in flight was handed over */
    uint32_t head, flying, window;
    int32_t next_xid, due_xid;
    uint64_t made, deleted, turn;       /* nodes */
};

static struct conn *C;
static int ep;
static struct request scratch;
static char root[32];
static volatile sig_atomic_t stop;
static int measuring;
static enum phase phase;
static uint64_t n_ok, n_err;
static int first_err;

static void on_sig(int s) { (void)s; stop = 1; }

static int32_t get_int(const unsigned char *p)
{
    return (int32_t)((uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]);
}

static void name_node(char *path, size_t n, const struct conn *c, uint64_t number)
{
    snprintf(path, n, "%s/%d-%" PRIu64, root, c->number, number);
}

static void arm(struct conn *c, int out)
{
    if (c->want_out == out)
        return;
    struct epoll_event ev = { .events = EPOLLIN | (out ? EPOLLOUT : 0u), .data.ptr = c };
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev);
    c->want_out = out;
}

static void flush_conn(struct conn *c)
{
    while (c->out_at < c->out_len) {
        ssize_t r = send(c->fd, c->out + c->out_at, c->out_len - c->out_at, 0);
        if (r < 0) {
            if (errno == EAGAIN || errno == EINTR) {
                arm(c, 1);
                return;
            }
            die("write: %s", strerror(errno));
        }
        c->out_at += (size_t)r;
    }
    c->out_at = c->out_len = 0;
    arm(c, 0);
}

static int may_issue(const struct conn *c)
{
    switch (phase) {
    case PREPARE: return o.mode != M_CREATE && c->made < NODES;
    case LOAD: return 1;
    case DRAIN: return 0;
    case CLEAN: return c->deleted < c->made;
    }
    return 0;
}

static void issue(struct conn *c, uint64_t t)
{
    char path[128];
    int32_t xid = c->next_xid++;
    if (phase == CLEAN) {
        name_node(path, sizeof path, c, c->deleted++);
        make_delete(&scratch, xid, path);
    } else if (phase == PREPARE || o.mode == M_CREATE) {
        name_node(path, sizeof path, c, c->made++);
        make_create(&scratch, xid, path);
    } else {
        name_node(path, sizeof path, c, c->turn++ % NODES);
        if (o.mode == M_GET)
            make_get(&scratch, xid, path);
        else
            make_set(&scratch, xid, path);
    }
    if (c->out_len + scratch.len > c->out_cap) {
        c->out_cap = (c->out_len + scratch.len) * 2;
        c->out = realloc(c->out, c->out_cap);
    }
    memcpy(c->out + c->out_len, scratch.bytes, scratch.len);
    c->out_len += scratch.len;
    c->sent[(c->head + c->flying++) % c->window] = t;
}

static void refill(struct conn *c)
{
    uint64_t t = now_ns();
    while (c->flying < c->window && may_issue(c))
        issue(c, t);
    flush_conn(c);
}

static void on_reply(struct conn *c, const unsigned char *frame, size_t n, uint64_t t)
{
    if (n < 16 || !c->flying || get_int(frame) != c->due_xid)
        die("an answer that nobody waits for");
    int32_t err = get_int(frame + 12);
    c->due_xid++;
    uint64_t latency = t - c->sent[c->head];
    c->head = (c->head + 1) % c->window;
    c->flying--;
    if (err) {
        if (!n_err++)
            first_err = err;
    } else if (measuring) {
        n_ok++;
        hist_add(latency);
    }
}

static void on_readable(struct conn *c)
{
    ssize_t r = recv(c->fd, c->in + c->in_len, FRAME_MAX - c->in_len, 0);
    if (r < 0) {
        if (errno == EAGAIN || errno == EINTR)
            return;
        die("read: %s", strerror(errno));
    }
    if (r == 0)
        die("the server closed a connection");
    c->in_len += (size_t)r;
    uint64_t t = now_ns();
    size_t at = 0;
    while (c->in_len - at >= 4) {
        size_t n = (size_t)get_int(c->in + at);
        if (n > FRAME_MAX - 4)
            die("a frame of %zu bytes", n);
        if (c->in_len - at < 4 + n)
            break;
        on_reply(c, c->in + at + 4, n, t);
        at += 4 + n;
    }
    memmove(c->in, c->in + at, c->in_len - at);
    c->in_len -= at;
    refill(c);
}

/* ---- before the measurement: blocking ---- */
static void read_all(int fd, unsigned char *p, size_t n)
{
    while (n) {
        ssize_t r = read(fd, p, n);
        if (r <= 0)
            die("the server does not answer: %s", r ? strerror(errno) : "it closed the connection");
        p += r;
        n -= (size_t)r;
    }
}

static size_t exchange(struct conn *c, unsigned char *answer)
{
    if (write(c->fd, scratch.bytes, scratch.len) != (ssize_t)scratch.len)
        die("write: %s", strerror(errno));
    unsigned char head[4];
    read_all(c->fd, head, 4);
    size_t n = (size_t)get_int(head);
    if (n > FRAME_MAX)
        die("a frame of %zu bytes", n);
    read_all(c->fd, answer, n);
    return n;
}

static void open_session(struct conn *c)
{
    static const unsigned char nothing[20];
    scratch.len = 0;
    add_int(&scratch, 45);
    add_int(&scratch, 0);
    add(&scratch, nothing, 8);          /* last zxid */
    add_int(&scratch, SESSION_MS);
    add(&scratch, nothing, 8);          /* session id */
    add_int(&scratch, 16);
    add(&scratch, nothing, 17);         /* password, read-only flag */
    exchange(c, c->in);
    if (get_int(c->in + 4) <= 0)
        die("the server refused a session");
}

static void make_node(struct conn *c, const char *path)
{
    make_create(&scratch, c->next_xid++, path);
    if (exchange(c, c->in) < 16 || get_int(c->in + 12))
        die("the server did not create %s: %d", path, get_int(c->in + 12));
    c->due_xid = c->next_xid;
}

static void open_all(void)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)o.port) };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    C = calloc((size_t)o.conns, sizeof *C);
    for (int i = 0; i < o.conns; i++) {
        struct conn *c = &C[i];
        int one = 1;
        c->number = i;
        c->sent = calloc(WIDE > o.window ? WIDE : (size_t)o.window, sizeof *c->sent);
        c->in = malloc(FRAME_MAX);
        c->out = malloc(c->out_cap = 4096);
        c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(c->fd, (struct sockaddr *)&a, sizeof a) < 0)
            die("connect: %s", strerror(errno));
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        open_session(c);
        if (i == 0)
            make_node(c, root);
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
        epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev);
    }
}

static void wait_for_events(void)
{
    struct epoll_event ev[256];
    int n = epoll_wait(ep, ev, 256, 100);
    for (int i = 0; i < n; i++) {
        struct conn *c = ev[i].data.ptr;
        if (ev[i].events & EPOLLOUT)
            flush_conn(c);
        if (ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            on_readable(c);
    }
}

static int busy(void)
{
    for (int i = 0; i < o.conns; i++)
        if (C[i].flying || may_issue(&C[i]))
            return 1;
    return 0;
}

/* A phase that ends by itself. */
static void finish(enum phase p, int window)
{
    uint64_t limit = now_ns() + 60000000000u;
    phase = p;
    for (int i = 0; i < o.conns; i++) {
        if (!C[i].flying) {
            C[i].head = 0;
            C[i].window = (uint32_t)window;
        }
        refill(&C[i]);
    }
    while (busy() && !stop) {
        if (now_ns() > limit)
            die("the server needs more than a minute before or after the measurement");
        wait_for_events();
    }
}

/* Everything that was made goes again, and the sessions are closed: the next measurement meets the same server. */
static void clean(void)
{
    finish(DRAIN, o.window);
    finish(CLEAN, WIDE);
    for (int i = 0; i < o.conns; i++) {
        struct conn *c = &C[i];
        fcntl(c->fd, F_SETFL, 0);
        if (i == 0) {
            make_delete(&scratch, c->next_xid++, root);
            exchange(c, c->in);
        }
        begin(&scratch, c->next_xid++, OP_CLOSE);
        end(&scratch);
        exchange(c, c->in);
        close(c->fd);
    }
}

static void usage(void)
{
    fputs("usage: zkbench [options]\n"
          "  -p PORT  of the loopback interface (2181)     -m MODE  get | set | create\n"
          "  -c N     sessions (1)                         -w W     requests in flight on each (1)\n"
          "  -b BYTES in a node (100)                      -i PID   server process: report its CPU and memory\n"
          "  -d SECS  measured time (5)                    -u SECS  warm-up before it (1)\n"
          "  -j       one JSON line\n", stderr);
    exit(2);
}

static enum mode mode_named(const char *name)
{
    for (int i = 0; i < 3; i++)
        if (!strcmp(name, MODES[i]))
            return (enum mode)i;
    usage();
    return M_GET;
}

static void parse_options(int argc, char **argv)
{
    int ch;
    while ((ch = getopt(argc, argv, "p:m:c:w:b:i:d:u:j")) != -1)
        switch (ch) {
        case 'p': o.port = atoi(optarg); break;
        case 'm': o.mode = mode_named(optarg); break;
        case 'c': o.conns = atoi(optarg); break;
        case 'w': o.window = atoi(optarg); break;
        case 'b': o.body = atoi(optarg); break;
        case 'i': o.pid = atoi(optarg); break;
        case 'd': o.secs = atof(optarg); break;
        case 'u': o.warm = atof(optarg); break;
        case 'j': o.json = 1; break;
        default: usage();
        }
    if (optind != argc || o.conns < 1 || o.window < 1 || o.body < 0 || o.body > 1000000 || o.secs > 600)
        usage();
}

struct spent {
    uint64_t at;
    double server, own, steal, busy;
};

static struct spent look(void)
{
    struct spent s = { .at = now_ns(), .server = o.pid ? pid_cpu(o.pid) : 0, .own = self_cpu() };
    machine(&s.steal, &s.busy);
    return s;
}

static void report(struct spent a, struct spent b)
{
    double secs = (double)(b.at - a.at) / 1e9, ok = n_ok ? (double)n_ok : 1;
    double server = b.server - a.server, own = b.own - a.own;
    double other = o.pid ? b.busy - a.busy - server - own : 0;
    if (other < 0)
        other = 0;
    if (o.json)
        printf("{\"mode\":\"%s\",\"conns\":%d,\"window\":%d,\"size\":%d,\"secs\":%.3f,\"ok\":%" PRIu64 ",\"errors\":%" PRIu64
               ",\"rps\":%.1f,\"lat_us\":{\"mean\":%.1f,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}"
               ",\"server_cpu_pct\":%.1f,\"server_us_per_req\":%.3f,\"server_rss_kib\":%.0f,\"own_cpu_pct\":%.1f"
               ",\"other_cpu_pct\":%.1f,\"steal_pct\":%.2f}\n",
               MODES[o.mode], o.conns, o.window, o.body, secs, n_ok, n_err, (double)n_ok / secs, hist_sum / ok / 1e3,
               hist_pct(50) / 1e3, hist_pct(90) / 1e3, hist_pct(99) / 1e3, hist_pct(99.9) / 1e3, (double)hist_max / 1e3,
               server / secs * 100, server / ok * 1e6, o.pid ? pid_rss_kib(o.pid) : 0, own / secs * 100,
               other / secs * 100, (b.steal - a.steal) / secs * 100);
    else
        printf("%-6s N=%-3d W=%-3d %9.0f/s  p50 %8.1f  p99 %9.1f  max %9.1f us  server %5.1f%% %7.2f us/req  own %5.1f%%\n",
               MODES[o.mode], o.conns, o.window, (double)n_ok / secs, hist_pct(50) / 1e3, hist_pct(99) / 1e3,
               (double)hist_max / 1e3, server / secs * 100, server / ok * 1e6, own / secs * 100);
}

int main(int argc, char **argv)
{
    parse_options(argc, argv);
    signal(SIGINT, on_sig);
    signal(SIGTERM, on_sig);
    signal(SIGPIPE, SIG_IGN);
    ep = epoll_create1(EPOLL_CLOEXEC);
    value = malloc((size_t)o.body + 1);
    memset(value, 'x', (size_t)o.body);
    scratch.bytes = malloc((size_t)o.body + 1024);
    snprintf(root, sizeof root, "/zkbench-%d", (int)getpid());
    open_all();
    finish(PREPARE, WIDE);

    uint64_t from = now_ns() + (uint64_t)(o.warm * 1e9), until = from + (uint64_t)(o.secs * 1e9);
    struct spent before = look(), after;
    phase = LOAD;
    for (int i = 0; i < o.conns; i++) {
        C[i].head = 0;
        C[i].window = (uint32_t)o.window;
        refill(&C[i]);
    }
    for (;;) {
        uint64_t t = now_ns();
        if (!measuring && t >= from) {
            measuring = 1;
            before = look();
        }
        if (stop || t >= until)
            break;
        wait_for_events();
    }
    after = look();
    measuring = 0;
    clean();
    report(before, after);
    if (n_err)
        fprintf(stderr, "zkbench: %" PRIu64 " errors, the first is %d\n", n_err, first_err);
    return n_err || !n_ok ? 1 : 0;
}
