/* job_table.h - segment jobs-e<E>-w<W>: the slots through which attention jobs go and come back.
 *
 * DESIGN.  The slot table is the truth; the two rings carry hints.  A slot's word holds its state,
 * generation and engine epoch; whoever may write the slot follows from the state (layout.h).  A
 * lost, stale or doubled hint costs a look; a ring that is full sets an overflow counter that makes
 * the other side scan.  The generation grows by one per job and is never reset while the segment
 * lives.
 *
 * Fencing.  A slot whose job has not returned is never reused: POSTED ends with DONE by the worker,
 * or with FREE by the engine while it holds the worker's role lock itself, which proves that no
 * worker exists and none can attach (job_engine_reclaim_begin).  That lock, not a time-out,
 * decides.
 *
 * Epochs.  A new engine raises requested_epoch, waits until the worker acknowledged it (it does so
 * when none of its threads touches a job of an older one) or is gone, and then sets all slots FREE.
 *
 * This header: the segment and its addresses.  job_engine.h and job_worker.h: the two sides; each
 * side is one thread at a time.  The payload's rows have the table's widths as stride. */
#ifndef OMNI_COMMON_SHM_JOB_TABLE_H
#define OMNI_COMMON_SHM_JOB_TABLE_H

#include "common/kv/geometry.h"
#include "common/shm/engine_page.h"
#include "common/shm/layout_jobs.h"
#include "common/shm/ring.h"

enum { JOB_SLOTS_MAX = 4096, JOB_QUERIES_MAX = 64 };

struct job_table_config {
    uint32_t n_slots;         /* <= JOB_SLOTS_MAX */
    uint32_t n_q_max;         /* <= JOB_QUERIES_MAX */
    enum job_element element; /* F32 on the cpu device */
};

struct job_table {
    struct segment segment;
    struct job_table_shared *shared;
    struct job_table_layout layout; /* checked copy; the shared one is not read again */
    struct job_slot *slots;         /* [n_slots] */
    _Atomic uint32_t *done;         /* [n_slots] */
    struct ring posted_ring;        /* this side's view */
    struct ring done_ring;
    struct bell_shared *done_bell; /* worker: the engine's bell; may change with the engine page */
    uint32_t epoch;                /* engine: its own; worker: the one it acknowledged */
    uint32_t overflows_seen;       /* of the other side's overflow counter */
    uint32_t roused_seen;          /* worker's: of the engine's count */
    uint32_t scan_next;            /* slot where a running scan goes on; n_slots = none runs */
    bool first_scan;               /* worker: the running scan is that of the attach */
    bool created;                  /* engine: the segment is new, not taken over */
    struct error replaced; /* engine: why the one that was there did not fit; "" = none was */
    uint64_t *started;     /* worker, private: [n_slots] 1 << 32 | generation last handed out */
};
#define JOB_TABLE_NONE ((struct job_table){.segment = {.fd = -1}})

/* Computes the layout for a model.  -EINVAL: a value is out of bounds; -EOVERFLOW: too large. */
int job_table_layout(struct job_table_layout *l, const struct job_table_config *c,
                     const struct kv_geometry *g);

/* Engine: takes over a fitting segment that is there, else creates one.  Taken over, its slots are
 * as the last engine left them: see job_engine_raise_epoch. */
int job_table_open(struct job_table *t, const char *dir, uint32_t engine_idx, uint32_t worker_idx,
                   const struct job_table_config *c, const struct kv_geometry *g, int numa_node,
                   struct error *err);

/* Worker: attaches, takes the worker role, announces its pid, acknowledges the epoch, moves the
 * ring to its head and starts the scan that finds what is POSTED or DONE.  done_bell: of the
 * attached engine page.  Errors as segment_attach; -EBUSY: another worker serves this table, or the
 * engine reclaims just now, which takes it well below a millisecond: try again.  Never waits. */
int job_table_attach(struct job_table *t, const char *dir, uint32_t engine_idx, uint32_t worker_idx,
                     struct bell_shared *done_bell, struct error *err);

/* Tool: read-only look, no role, no counters touched. */
int job_table_inspect(struct job_table *t, const char *dir, uint32_t engine_idx,
                      uint32_t worker_idx, struct error *err);

void job_table_detach(struct job_table *t);

/* The word's parts. */
static inline uint64_t job_word(enum job_state state, uint32_t generation, uint32_t epoch)
{
    return (uint64_t)generation << 32 | (uint64_t)(epoch & 0xffffff) << 8 | (uint64_t)state;
}
static inline enum job_state job_word_state(uint64_t word)
{
    return (enum job_state)(word & 0xff);
}
static inline uint32_t job_word_epoch(uint64_t word)
{
    return (uint32_t)(word >> 8) & 0xffffff;
}
static inline uint32_t job_word_generation(uint64_t word)
{
    return (uint32_t)(word >> 32);
}

/* A hint in a ring. */
static inline uint64_t job_hint(uint32_t slot, uint32_t generation)
{
    return (uint64_t)generation << 32 | slot;
}

/* Payload of a slot, in elements of layout.element; slot < n_slots.  q, k, v: written by the engine
 * while FREE.  out: written by the worker while POSTED, read by the engine once DONE and until the
 * next post. */
static inline void *job_table_q(const struct job_table *t, uint32_t slot)
{
    return t->segment.base + t->layout.in_off + (uint64_t)slot * t->layout.in_stride;
}
static inline void *job_table_k(const struct job_table *t, uint32_t slot)
{
    return (uint8_t *)job_table_q(t, slot) + t->layout.k_off;
}
static inline void *job_table_v(const struct job_table *t, uint32_t slot)
{
    return (uint8_t *)job_table_q(t, slot) + t->layout.v_off;
}
static inline void *job_table_out(const struct job_table *t, uint32_t slot)
{
    return t->segment.base + t->layout.out_off + (uint64_t)slot * t->layout.out_stride;
}

#endif
