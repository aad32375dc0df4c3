/* layout.h - every byte that two processes share, and the rule for each.
 *
 * DESIGN.  Five kinds of segment, each a named file (segment.h).  All begin with struct
 * segment_header.  There are no pointers: offsets, indices and generations only, fixed widths,
 * explicit padding, one cache line per writer.  A field's comment reads
 *     writer | readers | order
 * where writer is E (engine), W (worker), C (whoever creates the segment, before READY; constant
 * afterwards), T (any tool), and order names the release that publishes it or the acquire that must
 * come first.  "relaxed" fields are counters and clocks that order nothing.
 *
 *   engine-e<E>       engine's liveness and the bell it sleeps on           E; W reads, rings
 *   jobs-e<E>-w<W>    slot table, two rings, done words, payload            E and W
 *   arena-e<E>-w<W>   KV blocks and their owner tags                        E and W
 *   dir-e<E>          sequence directory                                    E; W reads
 *   stats-<prog>-<i>  statistics page                                       its process; T reads
 *
 * Change anything here: raise the kind's layout version, so that old and new refuse each other. */
#ifndef OMNI_COMMON_SHM_LAYOUT_H
#define OMNI_COMMON_SHM_LAYOUT_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "common/kv/geometry.h"

#define SHM_OFFSET(type, field, off)                                                               \
    static_assert(offsetof(struct type, field) == (off), #type "." #field " moved")

enum { SHM_LINE = 64, SHM_PAGE = 4096, SHM_HUGE_PAGE = 2 << 20 };

/* Lock-free 64-bit atomics are what makes memory shared by processes usable at all. */
static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "atomics take no lock");
static_assert(sizeof(_Atomic uint64_t) == 8 && sizeof(_Atomic uint32_t) == 4,
              "atomics add no byte");

/* ---- segment header: 128 bytes at offset 0 of every segment ------------------------------- */

#define SEGMENT_MAGIC UINT64_C(0x314d48534e4d4f00) /* "\0OMNSHM1" */

enum segment_kind {
    SEGMENT_ENGINE = 1,
    SEGMENT_JOBS = 2,
    SEGMENT_ARENA = 3,
    SEGMENT_DIRECTORY = 4,
    SEGMENT_STATS = 5
};

enum segment_state { SEGMENT_BUILDING = 0, SEGMENT_READY = 1 };

struct segment_header {
    uint64_t magic;          /*   0 C | all | before READY */
    uint32_t kind;           /*   8 C | all | enum segment_kind */
    uint32_t layout_version; /*  12 C | all | of that kind */
    uint64_t total_bytes;    /*  16 C | all | = size of the file */
    uint64_t geometry_hash;  /*  24 C | all | kv_geometry.hash, 0 where there is none */
    uint32_t creator_uid;    /*  32 C | all | */
    uint32_t creator_pid;    /*  36 C | all | */
    uint64_t created_ns;     /*  40 C | all | CLOCK_MONOTONIC */
    uint64_t reserved0[2];   /*  48 */
    _Atomic uint32_t state;  /*  64 C | all | release on READY; acquire before all else */
    uint32_t reserved1;      /*  68 */
    _Atomic uint64_t epoch;  /*  72 E | all | engine epoch that last opened it, relaxed */
    uint64_t reserved2[6];   /*  80 */
};
SHM_OFFSET(segment_header, kind, 8);
SHM_OFFSET(segment_header, total_bytes, 16);
SHM_OFFSET(segment_header, creator_uid, 32);
SHM_OFFSET(segment_header, state, 64);
SHM_OFFSET(segment_header, epoch, 72);
static_assert(sizeof(struct segment_header) == 128, "segment_header");

/* ---- bell: one sleeper, any number of wakers (bell.h) --------------------------------------- */

struct bell_shared {
    _Atomic uint32_t sleeping; /*  0 sleeper | wakers | seq_cst fence after set / before look */
    uint32_t pad0[15];
    _Atomic uint32_t word; /* 64 wakers | sleeper | futex word; grows by one per wake */
    uint32_t pad1[15];
};
SHM_OFFSET(bell_shared, word, 64);
static_assert(sizeof(struct bell_shared) == 128, "bell_shared");

/* ---- ring of 64-bit entries, followed by entries[capacity] (ring.h) -------------------------- */

struct ring_shared {
    uint32_t capacity; /*   0 C | both | power of two */
    uint32_t pad0[15];
    _Atomic uint32_t head; /*  64 producer | consumer | release after the entries */
    uint32_t pad1[15];
    _Atomic uint32_t tail; /* 128 consumer | producer | release after the entries were read */
    uint32_t pad2[15];
};
SHM_OFFSET(ring_shared, head, 64);
SHM_OFFSET(ring_shared, tail, 128);
static_assert(sizeof(struct ring_shared) == 192, "ring_shared");

/* ---- engine-e<E>: one page ------------------------------------------------------------------ */

enum { ENGINE_LAYOUT_VERSION = 1 };

struct engine_shared {
    struct segment_header header; /*   0 */
    _Atomic uint32_t pid;         /* 128 E | all | release after start_ticks; 0 = none */
    _Atomic uint32_t epoch;       /* 132 E | all | of the running engine, release */
    _Atomic uint64_t start_ticks; /* 136 E | all | /proc/<pid>/stat field 22, against pid reuse */
    _Atomic uint64_t alive_ns;    /* 144 E | all | heartbeat, relaxed */
    _Atomic uint64_t progress;    /* 152 E | all | sweeps begun, relaxed */
    uint64_t pad0[4];
    struct bell_shared done_bell; /* 192 the engine sleeps here; every worker rings it */
};
SHM_OFFSET(engine_shared, pid, 128);
SHM_OFFSET(engine_shared, start_ticks, 136);
SHM_OFFSET(engine_shared, done_bell, 192);
static_assert(sizeof(struct engine_shared) == 320, "engine_shared");

/* ---- jobs-e<E>-w<W> ---------------------------------------------------------------------------
 *   0                 struct job_table_shared (one page)
 *   posted_ring_off   ring engine -> worker, hints (slot, generation)
 *   done_ring_off     ring worker -> engine, announcements (slot, generation)
 *   done_off          done words u32[n_slots]                      page-aligned: CUDA may register
 *   slots_off         struct job_slot[n_slots]                     page-aligned
 *   in_off            input payload  [n_slots][in_stride]: q | k | v   page-aligned, E writes
 *   out_off           output payload [n_slots][out_stride]             page-aligned, W writes */

enum { JOBS_LAYOUT_VERSION = 1 };

enum job_element { JOB_ELEMENT_F32 = 1, JOB_ELEMENT_BF16 = 2, JOB_ELEMENT_F16 = 3 };

struct job_table_layout { /* C | both | constant; recomputed and compared by whoever attaches */
    uint32_t n_slots;
    uint32_t n_q_max;
    uint32_t element;  /* enum job_element: type of the payload */
    uint32_t n_layers; /* layer of a job is below it */
    uint32_t q_width;  /* elements per row, the largest of all layers; row j starts at j * width */
    uint32_t k_width;
    uint32_t v_width;
    uint32_t out_width;
    uint32_t posted_ring_off;
    uint32_t done_ring_off;
    uint32_t done_off;
    uint32_t slots_off;
    uint64_t in_off;
    uint64_t out_off;
    uint32_t in_stride; /* bytes per slot, a multiple of SHM_LINE */
    uint32_t out_stride;
    uint32_t k_off; /* bytes from the slot's input to k, and to v; q is at 0 */
    uint32_t v_off;
    uint64_t total_bytes;
    uint32_t reserved[10];
};
static_assert(sizeof(struct job_table_layout) == 128, "job_table_layout");

struct job_table_shared {
    struct segment_header header;   /*   0 */
    struct job_table_layout layout; /* 128 */

    /* engine's line */
    _Atomic uint32_t requested_epoch; /* 256 E | W | release; slots of other epochs are dead */
    _Atomic uint32_t post_overflows;  /* 260 E | W | release; grew = a hint was lost, scan */
    _Atomic uint64_t posted;          /* 264 E | T | jobs ever posted, relaxed */
    uint64_t pad0[6];

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
SHM_OFFSET(job_table_shared, layout, 128);
SHM_OFFSET(job_table_shared, requested_epoch, 256);
SHM_OFFSET(job_table_shared, worker_pid, 320);
SHM_OFFSET(job_table_shared, alive_ns, 336);
SHM_OFFSET(job_table_shared, jobs_done, 384);
SHM_OFFSET(job_table_shared, posted_bell, 448);
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
SHM_OFFSET(job_slot, seq_idx, 8);
SHM_OFFSET(job_slot, deadline_ns, 32);
SHM_OFFSET(job_slot, start_ns, 64);
SHM_OFFSET(job_slot, status, 80);
static_assert(sizeof(struct job_slot) == 128, "job_slot");

/* ---- arena-e<E>-w<W> ---------------------------------------------------------------------------
 *   0            struct arena_shared
 *   owners_off   owner tag u64[n_blocks]: seq_gen << 32 | seq_idx, 0 = none (generations start at
 * 1) blocks_off   blocks [n_blocks][geometry.block_bytes]; 4 KiB-aligned, 2 MiB if it is large */

enum { ARENA_LAYOUT_VERSION = 1 };

struct arena_shared {
    struct segment_header header; /*   0 */
    uint64_t n_blocks;            /* 128 C | both */
    uint64_t owners_off;          /* 136 C | both */
    uint64_t blocks_off;          /* 144 C | both */
    uint64_t reserved[5];
    struct kv_geometry geometry; /* 192 C | both; checked by whoever attaches */
};
SHM_OFFSET(arena_shared, n_blocks, 128);
SHM_OFFSET(arena_shared, geometry, 192);

/* ---- dir-e<E> -----------------------------------------------------------------------------------
 *   0             struct directory_shared
 *   entries_off   entries [n_entries][entry_stride]: struct directory_entry,
 *                   then blocks u32[n_groups][blocks_max], then token log u32[ctx_max + 1]
 * Everything: E | W, T.  Workers read an entry only on behalf of a job that names it, and the
 * engine changes nothing they look at while such a job is out, except to append. */

enum { DIRECTORY_LAYOUT_VERSION = 1 };

struct directory_shared {
    struct segment_header header; /*   0 */
    uint32_t n_entries;           /* 128 C */
    uint32_t n_groups;            /* 132 C */
    uint32_t blocks_max;          /* 136 C per group */
    uint32_t ctx_max;             /* 140 C */
    uint32_t block_tokens;        /* 144 C */
    uint32_t entry_stride;        /* 148 C */
    uint32_t blocks_off;          /* 152 C from the entry's start */
    uint32_t log_off;             /* 156 C */
    uint64_t entries_off;         /* 160 C */
    uint64_t model_hash;          /* 168 C */
    uint64_t reserved[2];
};
SHM_OFFSET(directory_shared, n_entries, 128);
SHM_OFFSET(directory_shared, entries_off, 160);
static_assert(sizeof(struct directory_shared) == 192, "directory_shared");

/* Where the KV of one layer group of a sequence is.
 *
 * FREE      the entry is nobody's.                                       -> DEVICE (acquire)
 * DEVICE    in device memory, or nowhere yet (not prefilled, parked).    -> FILLING, FREE
 * FILLING   being copied to the named arena blocks.                      -> RESIDENT, DEVICE, FREE
 * RESIDENT  in the arena, complete below committed; jobs may name it.    -> LEAVING, FREE
 * LEAVING   being copied back; still complete in the arena.              -> DEVICE, RESIDENT, FREE
 */
enum directory_state {
    DIRECTORY_FREE = 0,
    DIRECTORY_DEVICE,
    DIRECTORY_FILLING,
    DIRECTORY_RESIDENT,
    DIRECTORY_LEAVING
};

/* Stop tokens are the model's end-of-text ids, unless: */
enum { SEQUENCE_IGNORE_EOS = 1 };

struct sequence_params {  /* how the sequence's next token is chosen; all a new engine needs */
    uint64_t seed;        /*  0 the router gives one to a request that has none */
    uint64_t ttft_slo_ns; /*  8 0 = the class's */
    uint64_t tpot_slo_ns; /* 16 */
    uint64_t adapter;     /* 24 adapter id, 0 = none */
    float temperature;    /* 32 0 = greedy */
    float top_p;          /* 36 1 = off */
    float min_p;          /* 40 0 = off */
    uint32_t top_k;       /* 44 0 = off */
    uint32_t max_tokens;  /* 48 */
    uint32_t class_idx;   /* 52 index into the configured, ordered list of classes */
    uint32_t flags;       /* 56 */
    uint32_t reserved[17];
};
static_assert(sizeof(struct sequence_params) == 128, "sequence_params");

struct directory_entry {
    _Atomic uint32_t generation;           /*   0 grows at acquire; release after the fields */
    _Atomic uint32_t committed;            /*   4 release, last: KV of 0..c-1, ids 0..c are there */
    uint32_t prompt_len;                   /*   8 before generation */
    uint32_t slot;                         /*  12 job slot it holds while resident */
    _Atomic uint32_t state[KV_GROUPS_MAX]; /*  16 enum directory_state; release */
    uint32_t pad0[4];
    _Atomic uint32_t n_blocks[KV_GROUPS_MAX]; /*  64 release after the block ids */
    _Atomic uint32_t worker[KV_GROUPS_MAX];   /*  96 whose arena; before n_blocks */
    uint8_t request_id[16];                   /* 128 before generation, as all below */
    uint64_t model_hash;                      /* 144 */
    uint64_t geometry_hash;                   /* 152 */
    uint64_t admitted_ns;                     /* 160 */
    uint64_t reserved[3];
    struct sequence_params params; /* 192 */
};
SHM_OFFSET(directory_entry, state, 16);
SHM_OFFSET(directory_entry, n_blocks, 64);
SHM_OFFSET(directory_entry, worker, 96);
SHM_OFFSET(directory_entry, request_id, 128);
SHM_OFFSET(directory_entry, params, 192);
static_assert(sizeof(struct directory_entry) == 320, "directory_entry");

/* ---- stats-<program>-<index> ------------------------------------------------------------------
 *   0            struct stats_shared
 *   values_off   _Atomic u64[n]       own process, relaxed | T
 *   names_off    struct stats_name[n] C | T */

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
SHM_OFFSET(stats_shared, n, 128);
SHM_OFFSET(stats_shared, program, 152);
static_assert(sizeof(struct stats_shared) == 192, "stats_shared");

struct stats_name {
    char name[48];
    uint32_t kind; /* enum stats_kind */
    uint32_t pad;
    char doc[72];
};
static_assert(sizeof(struct stats_name) == 128, "stats_name");

#endif
