/* layout.h - every byte that two processes share, and the rule for each: what all segments have in
 * common, and the index of the rest.
 *
 * DESIGN.  Five kinds of segment, each a named file (segment.h).  All begin with struct
 * segment_header.  There are no pointers: offsets, indices and generations only, fixed widths,
 * explicit padding, one cache line per writer.  A field's comment reads
 *     writer | readers | order
 * where writer is E (engine), W (worker), C (whoever creates the segment, before READY; constant
 * afterwards), T (any tool), and order names the release that publishes it or the acquire that must
 * come first.  "relaxed" fields are counters and clocks that order nothing.
 *
 *   engine-e<E>       below               liveness, the bell it sleeps on       E; W reads, rings
 *   jobs-e<E>-w<W>    layout_jobs.h       slots, rings, done words, payload     E and W
 *   arena-e<E>-w<W>   layout_arena.h      KV blocks and their owner tags        E and W
 *   dir-e<E>          layout_directory.h  sequence directory                    E; W reads
 *   stats-<prog>-<i>  layout_stats.h      statistics page                       process; T reads
 *
 * layout_check.c asserts every offset that is written here.  Change anything: raise the kind's
 * layout version, so that old and new refuse each other. */
#ifndef OMNI_COMMON_SHM_LAYOUT_H
#define OMNI_COMMON_SHM_LAYOUT_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

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
static_assert(sizeof(struct segment_header) == 128, "segment_header");

/* ---- bell: one sleeper, any number of wakers (bell.h) --------------------------------------- */

struct bell_shared {
    _Atomic uint32_t sleeping; /*  0 sleeper | wakers | seq_cst fence after set / before look */
    uint32_t pad0[15];
    _Atomic uint32_t word; /* 64 wakers | sleeper | futex word; grows by one per wake */
    uint32_t pad1[15];
};
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
static_assert(sizeof(struct engine_shared) == 320, "engine_shared");

#endif
