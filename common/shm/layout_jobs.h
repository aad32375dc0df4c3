/* layout_jobs.h - jobs-e<E>-w<W>: slots, hints and payload between one engine and one worker.
 *
 *   0                 struct job_table_shared
 *   posted_ring_off   ring engine -> worker, hints (slot, generation)
 *   done_ring_off     ring worker -> engine, announcements (slot, generation)
 *   done_off          done words u32[n_slots]
 *   slots_off         struct job_slot[n_slots]
 *   in_off            input payload  [n_slots][in_stride]: q | k | v   E writes
 *   out_off           output payload [n_slots][out_stride]             W writes
 *
 * The last four begin pages, so that CUDA may register them.
 * Notation and rules: layout.h.  Who does what when: job_table.h. */
#ifndef OMNI_COMMON_SHM_LAYOUT_JOBS_H
#define OMNI_COMMON_SHM_LAYOUT_JOBS_H

#include "common/shm/layout.h"

enum { JOBS_LAYOUT_VERSION = 2 };

enum job_element { JOB_ELEMENT_F32 = 1, JOB_ELEMENT_BF16 = 2, JOB_ELEMENT_F16 = 3 };

/* C | both | constant; recomputed and compared by whoever attaches.  Widths are elements per row,
 * the largest of all layers; row j of a slot's payload starts at j * width. */
struct job_table_layout {
    uint32_t n_slots;         /*  0 */
    uint32_t n_q_max;         /*  4 */
    uint32_t element;         /*  8 enum job_element: type of the payload */
    uint32_t n_layers;        /* 12 layer of a job is below it */
    uint32_t q_width;         /* 16 */
    uint32_t k_width;         /* 20 */
    uint32_t v_width;         /* 24 */
    uint32_t out_width;       /* 28 */
    uint32_t posted_ring_off; /* 32 */
    uint32_t done_ring_off;   /* 36 */
    uint32_t done_off;        /* 40 */
    uint32_t slots_off;       /* 44 */
    uint64_t in_off;          /* 48 */
    uint64_t out_off;         /* 56 */
    uint32_t in_stride;       /* 64 bytes per slot, a multiple of SHM_LINE */
    uint32_t out_stride;      /* 68 */
    uint32_t k_off;           /* 72 bytes from the slot's input to k, and to v; q is at 0 */
    uint32_t v_off;           /* 76 */
    uint64_t total_bytes;     /* 80 */
    uint32_t reserved[10];    /* 88 */
};
static_assert(sizeof(struct job_table_layout) == 128, "job_table_layout");

struct job_table_shared {
    struct segment_header header;   /*   0 */
    struct job_table_layout layout; /* 128 */

    /* engine's line */
    _Atomic uint32_t requested_epoch; /* 256 E | W | release; slots of other epochs are dead */
    _Atomic uint32_t post_overflows;  /* 260 E | W | release; grew = a hint was lost, scan */
    _Atomic uint64_t posted;          /* 264 E | T | jobs ever posted, relaxed */
    _Atomic uint32_t roused;          /* 272 E | W | relaxed; grew = jobs come soon, be awake */
    uint32_t pad_roused;
    uint64_t pad0[5];

    /* worker's lines */
    _Atomic uint32_t worker_pid;    /* 320 W | E | release after start_ticks; 0 = never */
    _Atomic uint32_t acked_epoch;   /* 324 W | E | release: nothing of an older epoch is touched */
    _Atomic uint64_t start_ticks;   /* 328 W | E | as in engine_shared */
    _Atomic uint64_t alive_ns;      /* 336 W | E | heartbeat, relaxed */
    _Atomic uint64_t progress;      /* 344 W | E | grows while jobs advance, relaxed */
    _Atomic uint32_t done_overflow; /* 352 W | E | release; grew = an announcement was lost */
    uint32_t pad1;
    uint64_t pad2[3];
    _Atomic uint64_t jobs_done;     /* 384 W | E, T | relaxed, as all counters below */
    _Atomic uint64_t jobs_rerun;    /* 392 W | T | found POSTED at attach */
    _Atomic uint64_t hints_stale;   /* 400 W | T | hints that named nothing to do */
    _Atomic uint64_t jobs_refused;  /* 408 W | T | fields out of bounds */
    _Atomic uint64_t busy_ns;       /* 416 W | E, T | time spent in jobs */
    _Atomic uint64_t kv_bytes_read; /* 424 W | E, T | by finished jobs */
    _Atomic uint64_t bytes_per_s;   /* 432 W | E | measured read bandwidth, moving average */
    _Atomic uint64_t attaches;      /* 440 W | T | workers that ever attached */

    struct bell_shared posted_bell; /* 448 the worker sleeps here, the engine rings */
};
static_assert(sizeof(struct job_table_shared) == 576, "job_table_shared");

/* A job's word: state in bits 0-7, engine epoch (24 bits) in 8-31, generation in 32-63.
 *
 * FREE    the engine owns slot, input and output.                    -> POSTED (engine)
 * POSTED  the worker owns them: input is frozen, output may change.  -> DONE (worker)
 *                                                                    -> FREE (engine, no worker)
 * DONE    output is complete and frozen; the engine's again.         -> FREE (engine) */
enum job_state { JOB_FREE = 0, JOB_POSTED = 1, JOB_DONE = 2 };

struct job_slot {
    /* line 0: the engine writes it while FREE; the worker changes only the word, POSTED -> DONE */
    _Atomic uint64_t word; /*  0 E, W | both | release on each change, acquire on each look */
    uint32_t seq_idx;      /*  8 E | W | before word, as all fields of this line */
    uint32_t seq_gen;      /* 12 */
    uint32_t layer;        /* 16 */
    uint32_t n_q;          /* 20 queries, and new k, v rows; causal among themselves */
    uint32_t pos;          /* 24 position of the first query */
    uint32_t ctx_len;      /* 28 tokens of context after the job's own were written: pos + n_q */
    uint64_t deadline_ns;  /* 32 predicted arrival at this layer's output projection */
    uint64_t posted_ns;    /* 40 */
    uint64_t sweep;        /* 48 in which it was posted: its age */
    uint64_t pad0;
    /* line 1: the worker writes it while POSTED */
    uint64_t start_ns; /* 64 W | E | before DONE, as all fields of this line */
    uint64_t end_ns;   /* 72 */
    int32_t status;    /* 80 0, or a negative errno: the output is not valid */
    uint32_t pad1;
    uint64_t pad2[5];
};
static_assert(sizeof(struct job_slot) == 128, "job_slot");

#endif
