/* directory.h - segment dir-e<E>: what every best-effort sequence is and where its KV lies.
 *
 * DESIGN.  Written by the engine alone; workers map it read-only and find a job's blocks here, so a
 * job names its sequence and not its blocks.  It holds all that a new engine needs to go on with a
 * sequence whose KV survived in an arena.  The rule that makes that safe is one order of writes:
 * KV, token id, then `committed` with release.  committed = c means: KV of positions 0..c-1 is
 * complete in all layers, and ids 0..c are in the log. Readers come with (index, generation) and
 * are refused when the entry has moved on.  The free list of entries and of blocks is private to
 * the engine and rebuilt by directory_scan. Placement is per layer group.  Engine: one thread. */
#ifndef OMNI_COMMON_SHM_DIRECTORY_H
#define OMNI_COMMON_SHM_DIRECTORY_H

#include "common/shm/layout_directory.h"
#include "common/shm/segment.h"

struct directory_config {
    uint32_t n_entries;
    uint32_t ctx_max; /* tokens of prompt and output together */
};

struct directory {
    struct segment segment;
    struct directory_shared *shared;
    /* checked copies */
    uint32_t n_entries, n_groups, blocks_max, ctx_max, block_tokens;
    uint32_t entry_stride, blocks_off, log_off;
    uint64_t entries_off;
    uint64_t geometry_hash, model_hash;
    uint32_t *free_list; /* engine, private: [n_entries] */
    uint32_t n_free;
    uint64_t n_transitions; /* engine: state changes made */
    bool created;           /* engine: new, not taken over */
    struct error replaced;  /* engine: why the one that was there did not fit; "" = none was */
};
#define DIRECTORY_NONE ((struct directory){.segment = {.fd = -1}})

struct sequence_ref { /* names an entry for ever: never valid again after release */
    uint32_t idx, gen;
};

struct sequence_info { /* what is fixed when the sequence is admitted */
    uint8_t request_id[16];
    const uint32_t *prompt; /* copied into the log */
    uint32_t prompt_len;    /* 1..ctx_max */
    uint64_t admitted_ns;
    struct sequence_params params;
};

/* Engine: takes over or creates.  After a take-over the entries are as the last engine left them;
 * call directory_scan and keep, or directory_clear. */
int directory_open(struct directory *d, const char *dir, uint32_t engine_idx,
                   const struct directory_config *c, const struct kv_geometry *g,
                   struct error *err);

/* Worker or tool: read-only. */
int directory_attach(struct directory *d, const char *dir, uint32_t engine_idx, struct error *err);

void directory_detach(struct directory *d);

/* ---- engine ---- */

/* All entries FREE, generations kept. */
void directory_clear(struct directory *d);

/* A FREE entry becomes DEVICE in all groups, under its next generation, prompt in the log,
 * committed 0.  0, -ENOSPC (no entry), -EINVAL (prompt too long or empty). */
int directory_acquire(struct directory *d, const struct sequence_info *info,
                      struct sequence_ref *ref);

/* All groups FREE.  The caller has made sure that no job names the sequence. */
void directory_release(struct directory *d, struct sequence_ref ref);

/* Moves a group along the arrows of enum directory_state; anything else is a programmer's error. */
void directory_set_state(struct directory *d, struct sequence_ref ref, uint32_t group,
                         enum directory_state state);
enum directory_state directory_state(const struct directory *d, struct sequence_ref ref,
                                     uint32_t group);

/* Names the group's blocks in that worker's arena (state DEVICE or FILLING; n <= blocks_max). */
void directory_set_blocks(struct directory *d, struct sequence_ref ref, uint32_t group,
                          uint32_t worker, const uint32_t *blocks, uint32_t n);

/* One more block (state RESIDENT too: the sequence grows). */
void directory_append_block(struct directory *d, struct sequence_ref ref, uint32_t group,
                            uint32_t block);

void directory_set_slot(struct directory *d, struct sequence_ref ref, uint32_t slot);

/* Token id at position pos (<= ctx_max), before committed passes it. */
void directory_log_token(struct directory *d, struct sequence_ref ref, uint32_t pos, uint32_t id);

/* committed = c; c grows, except to 0 (KV dropped, to be recomputed; state DEVICE). */
void directory_commit(struct directory *d, struct sequence_ref ref, uint32_t c);

/* ---- readers (engine, worker, tool) ---- */

struct directory_table { /* borrowed; valid while the job that led here is out */
    const uint32_t *blocks;
    uint32_t n_blocks;
    uint32_t worker;
};

/* The group's blocks for a job on positions 0..ctx_len-1.  0; -ESTALE: another generation, or not
 * RESIDENT; -EPROTO: fewer blocks than ctx_len needs, or idx out of bounds. */
int directory_table(const struct directory *d, struct sequence_ref ref, uint32_t group,
                    uint32_t ctx_len, struct directory_table *out);

/* Acquire load; then ids 0..c may be read from directory_log.  ref must be in use. */
uint32_t directory_committed(const struct directory *d, struct sequence_ref ref);
const uint32_t *directory_log(const struct directory *d, struct sequence_ref ref);
const struct directory_entry *directory_entry(const struct directory *d, uint32_t idx);

/* ---- recovery ---- */

enum directory_fault {
    DIRECTORY_OK,          /* resident in all groups: goes on at token committed */
    DIRECTORY_UNFINISHED,  /* some group is not RESIDENT: to be recomputed */
    DIRECTORY_DAMAGED,     /* a field is out of bounds: to be recomputed if its log is whole */
    DIRECTORY_DOUBLE_OWNER /* a block is also another sequence's, and is no shared prefix of both */
};

struct directory_usage { /* caller's memory */
    uint32_t n_workers;
    const uint32_t *n_blocks; /* [n_workers] blocks of each arena */
    uint32_t *const *refs;    /* [n_workers][n_blocks] filled: how many sequences hold the block */
    uint32_t *verdict; /* [n_entries] filled: enum directory_fault (FREE entries: UNFINISHED) */
};

/* Called for every entry in use, after all verdicts are final. */
typedef void directory_visit(void *arg, struct sequence_ref ref, enum directory_fault fault);

/* Finds the sequences that can go on, and rebuilds who uses which block: refs 0 = free.  Blocks may
 * be shared by sequences as a full, identical prefix; any other double owner condemns all that hold
 * the block, those that share it rightly too: nothing says which of them it was stolen from.
 * Returns the number of sequences that are DIRECTORY_OK. */
uint32_t directory_scan(const struct directory *d, struct directory_usage *usage,
                        directory_visit *visit, void *arg);

/* After a scan, engine: entries that are not DIRECTORY_OK become FREE; rebuilds the free list. */
void directory_keep(struct directory *d, const struct directory_usage *usage);

#endif
