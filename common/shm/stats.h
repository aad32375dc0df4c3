/* stats.h - a process's counters, in a page that a tool reads without asking the process.
 *
 * A program describes its statistics as one list and indexes them by its own enum, made from the
 * same list:
 *     #define ROUTER_STATS(X) X(SESSIONS, "sessions", GAUGE, "open client sessions") ...
 * Names and one-line docs are stored in the page, so the tool needs no list.  Values are u64,
 * relaxed: each is exact, several of them are not a snapshot.  Any thread of the process may write.
 */
#ifndef OMNI_COMMON_SHM_STATS_H
#define OMNI_COMMON_SHM_STATS_H

#include "common/shm/layout_stats.h"
#include "common/shm/segment.h"

enum { STATS_MAX = 1024 };
enum stats_kind { STATS_COUNTER = 1, STATS_GAUGE = 2 };

struct stats_row {
    const char *name; /* < 48 characters */
    enum stats_kind kind;
    const char *doc; /* < 72 characters */
};

struct stats_page {
    struct segment segment;
    struct stats_shared *shared;
    _Atomic uint64_t *values;
    uint32_t n;
};
#define STATS_NONE ((struct stats_page){.segment = {.fd = -1}})

/* Creates stats-<program>-<index>, replacing the page of a predecessor. */
int stats_create(struct stats_page *p, const char *dir, const char *program, uint32_t index,
                 const struct stats_row *rows, uint32_t n, struct error *err);

/* Tool: read-only. */
int stats_attach(struct stats_page *p, const char *dir, const char *program, uint32_t index,
                 struct error *err);

void stats_detach(struct stats_page *p);

static inline void stats_add(struct stats_page *p, uint32_t i, uint64_t n)
{
    atomic_fetch_add_explicit(&p->values[i], n, memory_order_relaxed);
}
static inline void stats_set(struct stats_page *p, uint32_t i, uint64_t value)
{
    atomic_store_explicit(&p->values[i], value, memory_order_relaxed);
}
static inline uint64_t stats_get(const struct stats_page *p, uint32_t i)
{
    return atomic_load_explicit(&p->values[i], memory_order_relaxed);
}

typedef void stats_visit(void *arg, const struct stats_name *name, uint64_t value);
void stats_foreach(const struct stats_page *p, stats_visit *visit, void *arg);

#endif
