/* layout_directory.h - dir-e<E>: what every best-effort sequence is and where its KV lies.
 *
 *   0             struct directory_shared
 *   entries_off   entries [n_entries][entry_stride]: struct directory_entry,
 *                   then blocks u32[n_groups][blocks_max], then token log u32[ctx_max + 1]
 *
 * Everything: E | W, T.  Workers read an entry only on behalf of a job that names it, and the
 * engine changes nothing they look at while such a job is out, except to append. Notation and
 * rules: layout.h. */
#ifndef OMNI_COMMON_SHM_LAYOUT_DIRECTORY_H
#define OMNI_COMMON_SHM_LAYOUT_DIRECTORY_H

#include "common/kv/geometry.h"
#include "common/shm/layout.h"

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
enum {
    SEQUENCE_IGNORE_EOS = 1,
    SEQUENCE_HAS_LISTS = 2 /* logit biases, which are not here: only the router can go on with it */
};

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
    float repetition;     /* 60 0 or 1 = off; over prompt and output */
    float presence;       /* 64 0 = off; over the output, as the next */
    float frequency;      /* 68 0 = off */
    uint32_t min_tokens;  /* 72 before so many output tokens no stop token is drawn */
    uint32_t reserved[13];
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
static_assert(sizeof(struct directory_entry) == 320, "directory_entry");

#endif
