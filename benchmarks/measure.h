/*
 * What the load generators share: a clock, a histogram of latencies, and what processes and the machine spend.
 */
#ifndef MEASURE_H
#define MEASURE_H

#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- latency histogram: 64 linear steps in every power of two (<1.6 % error) ---- */
#define SUB 6
#define NBUCKET (48 << SUB)
static uint64_t hist[NBUCKET], hist_n, hist_max;
static double hist_sum;

static inline unsigned bucket(uint64_t v)
{
    if (v < (1u << SUB))
        return (unsigned)v;
    unsigned e = 63 - (unsigned)__builtin_clzll(v);
    unsigned b = ((e - SUB + 1) << SUB) + (unsigned)((v >> (e - SUB)) & ((1u << SUB) - 1));
    return b < NBUCKET ? b : NBUCKET - 1;
}

static double bucket_value(unsigned b)
{
    if (b < (1u << SUB))
        return b;
    unsigned e = (b >> SUB) + SUB - 1;
    double base = ldexp(1, (int)e), step = ldexp(1, (int)e - SUB);
    return base + step * ((b & ((1u << SUB) - 1)) + 0.5);
}

static void hist_add(uint64_t v)
{
    hist[bucket(v)]++;
    hist_n++;
    hist_sum += (double)v;
    if (v > hist_max)
        hist_max = v;
}

static double hist_pct(double p)
{
    uint64_t want = (uint64_t)ceil(p / 100 * (double)hist_n), seen = 0;
    for (unsigned b = 0; b < NBUCKET; b++) {
        seen += hist[b];
        if (seen >= want && want)
            return bucket_value(b) < (double)hist_max ? bucket_value(b) : (double)hist_max;
    }
    return 0;
}

/* ---- CPU and memory of the server under test ---- */
static double pid_cpu(int pid)
{
    char path[64], buf[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, buf, sizeof buf - 1);
    close(fd);
    if (n <= 0)
        return 0;
    buf[n] = 0;
    char *p = strrchr(buf, ')');
    unsigned long ut = 0, st = 0;
    if (!p || sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &ut, &st) != 2)
        return 0;
    return (double)(ut + st) / (double)sysconf(_SC_CLK_TCK);
}

static double pid_rss_kib(int pid)
{
    char path[64];
    long pages = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return 0;
    if (fscanf(f, "%*d %ld", &pages) != 1)
        pages = 0;
    fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / 1024;
}

static double self_cpu(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_utime.tv_sec + (double)u.ru_stime.tv_sec +
           ((double)u.ru_utime.tv_usec + (double)u.ru_stime.tv_usec) / 1e6;
}

/* All CPUs together, in seconds: time the hypervisor gave to somebody else, and time spent in processes. */
static void machine(double *steal, double *busy)
{
    unsigned long long us = 0, ni = 0, sy = 0, st = 0;
    FILE *f = fopen("/proc/stat", "r");
    *steal = *busy = 0;
    if (!f)
        return;
    if (fscanf(f, "cpu %llu %llu %llu %*u %*u %*u %*u %llu", &us, &ni, &sy, &st) == 4) {
        *steal = (double)st / (double)sysconf(_SC_CLK_TCK);
        *busy = (double)(us + ni + sy) / (double)sysconf(_SC_CLK_TCK);
    }
    fclose(f);
}

#endif
