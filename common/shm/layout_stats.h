/* layout_stats.h - stats-<program>-<index>: a process's counters and their names.
 *
 *   0            struct stats_shared
 *   values_off   _Atomic u64[n]         own process, relaxed | T
 *   names_off    struct stats_name[n]   C | T
 *
 * Notation and rules: layout.h. */
#ifndef OMNI_COMMON_SHM_LAYOUT_STATS_H
#define OMNI_COMMON_SHM_LAYOUT_STATS_H

#include "common/shm/layout.h"

enum { STATS_LAYOUT_VERSION = 1 };

struct stats_shared {
    struct segment_header header; /*   0 */
    uint32_t n;                   /* 128 C */
    uint32_t values_off;          /* 132 C */
    uint32_t names_off;           /* 136 C */
    uint32_t pid;                 /* 140 C */
    uint64_t start_ticks;         /* 144 C */
    char program[32];             /* 152 C */
    uint64_t reserved;
};
static_assert(sizeof(struct stats_shared) == 192, "stats_shared");

struct stats_name {
    char name[48];
    uint32_t kind; /* enum stats_kind */
    uint32_t pad;
    char doc[72];
};
static_assert(sizeof(struct stats_name) == 128, "stats_name");

#endif
