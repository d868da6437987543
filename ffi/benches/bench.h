/* What the benchmarks in C share. */
#ifndef EDGELOG_BENCH_H
#define EDGELOG_BENCH_H

#include <edgelog.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void check(edgelog_result result) {
    if (result == EDGELOG_OK) return;
    fprintf(stderr, "%s: %s\n", edgelog_result_name(result), edgelog_last_error());
    exit(1);
}

static double now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

#endif
