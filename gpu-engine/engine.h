/* engine.h - the engine's state and the parts it is made of.
 *
 * DESIGN.  One replica of one model: the engine thread owns the sweep.  A step takes in what
 * happened (arrivals, a finished sweep, finished copies, workers that came or went), decides what
 * is where, builds the next sweep and submits it.  All that changes the books (blocks, slots,
 * states) happens between sweeps, so the books need no lock and a block named by a sweep never
 * changes hands under it.
 *
 *   control.h intake.h admission.h   control thread: the router's socket, the admission answer
 *   overflow.h                       latency-sensitive output beyond its predictions
 *   kv.h kv_pool.h                   blocks of a sequence: grow, share, drop
 *   decide.h                         what is held, told to the policy, which says who does what
 *   batch.h placement.h reservation.h  carry it out: rows of the next sweep; copies out and back,
 *                                    places in arenas
 *   foresight.h                      how long it will take, and how well that was known
 *   replay.h ledger.h                what a finished sweep means; what the directory is told
 *   ending.h                         answers, and memory back when nobody can touch it
 *   idle_check.h                     whether all that is right, when nothing is there
 *   report.h                         state for the router, statistics page
 *
 * It sleeps nowhere and opens nothing: host.h does, in the real group; a simulation drives the same
 * engine in virtual time. */
#ifndef OMNI_GPU_ENGINE_ENGINE_H
#define OMNI_GPU_ENGINE_ENGINE_H

#include "common/base/config.h"
#include "common/sched/accuracy.h"
#include "common/sched/latency.h"
#include "common/sched/scheduler.h"
#include "common/shm/stats.h"
#include "gpu-engine/admission.h"
#include "gpu-engine/device/device.h"
#include "gpu-engine/exchange.h"
#include "gpu-engine/kv_pool.h"
#include "gpu-engine/sequence.h"
#include "gpu-engine/sweep_log.h"

enum {
    ENGINE_COPIES_MAX = 8,
    ENGINE_WORKERS_MAX = 16,
    ENGINE_BEAT_MS = 50, /* heartbeat, look at peers, state message */
};

/* clang-format off */
#define ENGINE_STATS(X)                                                                            \
    X(SWEEPS, "sweeps", COUNTER, "sweeps run")                                                     \
    X(ROWS, "rows", COUNTER, "common rows computed")                                               \
    X(TOKENS_DEVICE, "tokens_device", COUNTER, "output tokens whose attention ran on the device")  \
    X(TOKENS_WORKER, "tokens_worker", COUNTER, "output tokens whose attention ran on workers")     \
    X(JOBS_POSTED, "jobs_posted", COUNTER, "attention jobs sent to workers")                       \
    X(JOBS_RIDDEN, "jobs_ridden", COUNTER, "jobs that were back in the same sweep")                \
    X(JOBS_PARKED, "jobs_parked", COUNTER, "jobs that waited for a later sweep")                   \
    X(JOBS_FAILED, "jobs_failed", COUNTER, "tokens void because a job failed")                     \
    X(COPIES_OUT, "copies_out", COUNTER, "sequences copied to an arena")                           \
    X(COPIES_IN, "copies_in", COUNTER, "sequences copied back to the device")                      \
    X(COPIED_BLOCKS, "copied_blocks", COUNTER, "KV blocks moved by copies")                        \
    X(MIRRORED_BLOCKS, "mirrored_blocks", COUNTER, "of them copied while their sequence computed") \
    X(SHARED_BLOCKS, "shared_blocks", COUNTER, "KV blocks found by prefix instead of made")        \
    X(SWEEPS_TWO, "sweeps_two", COUNTER, "sweeps of two batches")                                  \
    X(WAITED_US, "waited_us", COUNTER, "device time spent on funded waits for workers")            \
    X(SWEEPS_IN_COPY, "sweeps_in_copy", COUNTER, "sweeps that ended while a copy was under way")   \
    X(YIELDS, "yields", COUNTER, "best-effort sequences whose KV was dropped")                     \
    X(RETREATS, "retreats", COUNTER, "yields that went on from the blocks in an arena")            \
    X(RECOMPUTED, "recomputed_tokens", COUNTER, "KV positions computed again after a drop")        \
    X(REFUSED, "refused", COUNTER, "requests refused at admission")                                \
    X(LS_OFFERED, "ls_offered", COUNTER, "latency-sensitive requests that were asked for")         \
    X(LS_REFUSED, "ls_refused", COUNTER, "of them refused")                                        \
    X(LS_ON_BUDGET, "ls_on_budget", COUNTER, "admitted though predicted late: misses are left")    \
    X(LS_MET, "ls_met", COUNTER, "ended within both objectives")                                   \
    X(LS_MISSED, "ls_missed", COUNTER, "ended late, failed or outgrown")                           \
    X(LS_MISSED_TTFT, "ls_missed_ttft", COUNTER, "first token late")                               \
    X(LS_MISSED_TPOT, "ls_missed_tpot", COUNTER, "tokens after it late")                           \
    X(LS_OUTGROWN, "ls_outgrown", COUNTER, "times KV was dropped: outputs outgrew the device")     \
    X(LS_MISSES_LEFT, "ls_misses_left", GAUGE, "misses that slo.ls_target_pct leaves")             \
    X(ADMIT_US, "last_admission_us", GAUGE, "time of the last latency-sensitive answer")           \
    X(FINISHED, "finished", COUNTER, "requests ended: stop or length")                             \
    X(CANCELLED, "cancelled", COUNTER, "requests ended: cancelled")                                \
    X(FAILED, "failed", COUNTER, "requests ended: error")                                          \
    X(WAITING, "waiting", GAUGE, "sequences that hold no KV")                                      \
    X(RUNNING, "running", GAUGE, "sequences on the device")                                        \
    X(RESIDENT, "resident", GAUGE, "sequences in an arena")                                        \
    X(DRAINING, "draining", GAUGE, "ended sequences whose memory a worker may still touch")        \
    X(KV_FREE, "kv_blocks_free", GAUGE, "free KV blocks of the device")                            \
    X(KV_TOTAL, "kv_blocks_total", GAUGE, "KV blocks of the device")                               \
    X(ARENA_FREE, "arena_blocks_free", GAUGE, "free KV blocks of all arenas")                      \
    X(ARENA_TOTAL, "arena_blocks_total", GAUGE, "KV blocks of all arenas")                         \
    X(ARENA_HUGE, "arena_huge_bytes", GAUGE, "arena bytes in huge pages")                          \
    X(SLOTS_FREE, "slots_free", GAUGE, "free job slots")                                           \
    X(NODES, "nodes", GAUGE, "NUMA nodes that this engine sees")                                   \
    X(CPUS, "cpus", GAUGE, "CPUs of the machine that it may use")                                  \
    X(CPUS_OWN, "cpus_own", GAUGE, "of them its own; 0: shared, nobody spins there")               \
    X(CPUS_CLAIMED, "cpus_claimed", GAUGE, "of those planned for it: another group has them")      \
    X(IDLE_CHECKS, "idle_checks", COUNTER, "times all books were checked: no request was there")   \
    X(IDLE_FAULTS, "idle_faults", COUNTER, "what these checks found wrong; the log says what")     \
    X(SWEEP_US, "last_sweep_us", GAUGE, "time of the last sweep")                                  \
    X(PREDICTED_US, "last_sweep_predicted_us", GAUGE, "predicted before it was submitted")         \
    X(ACCURACY_MEAN, "accuracy_mean_permille", GAUGE,                                              \
      "1 - |predicted - measured| / measured, mean of the last 1,024 sweeps")                      \
    X(ACCURACY_P90, "accuracy_p90_permille", GAUGE, "what 90 % of these sweeps reach or exceed")
/* clang-format on */

#define ENGINE_STAT_ENUM(NAME, ...) ENGINE_STAT_##NAME,
enum engine_stat { ENGINE_STATS(ENGINE_STAT_ENUM) ENGINE_N_STATS };

/* Books of one worker's arena and slots. */
struct engine_worker {
    struct kv_pool pool;
    uint32_t *free_slots; /* global slot numbers, a stack */
    uint32_t n_free_slots;
    uint32_t n_resident;
    uint64_t arena_bytes, huge_bytes; /* of its arena; how much is on huge pages */
};

/* Scratch of idle_check.h; verdict NULL: it does not run. */
struct engine_idle {
    uint32_t *verdict;                  /* [n_entries of the directory] */
    uint32_t *refs[ENGINE_WORKERS_MAX]; /* [n_blocks] of each arena */
    uint32_t n_blocks[ENGINE_WORKERS_MAX];
    uint32_t *slot_seen; /* [slots_per_worker]: how often in its worker's stack */
    uint64_t checked_at; /* arrivals so far, and 1, when it last ran; 0: never */
};

/* Kinds of sweeps that differ in what becomes of jobs, as bits. */
enum {
    ENGINE_SWEEP_COMMON = 1, /* with common rows */
    ENGINE_SWEEP_TWO = 2,    /* of two batches */
    ENGINE_SWEEP_WAITS = 4,  /* with funded waits */
    ENGINE_SWEEP_KINDS = 8
};

/* Scratch of the sweep that is built, and who is in it while it is in flight. */
struct engine_batch {
    struct device_seq *seqs; /* batch B's behind batch A's */
    uint32_t *members;       /* [seqs_max] sequence of each device_seq */
    uint32_t n_seqs, n_rows;
    struct latency_load load, load_b; /* what the latency model knows of its two batches */
    struct latency_prediction predicted;
    double predicted_wait_ns;          /* beside it */
    uint32_t kind;                     /* ENGINE_SWEEP_* */
    struct device_offloaded offloaded; /* rows that are under way in slots */
    struct device_enter *enters;
    uint32_t n_enter;
    struct device_pick *picks;
    uint64_t wait_total_ns;
    uint64_t *arrivals, *arrivals_b;
    struct device_pace *pace; /* [n_workers] */
};

/* The policy, what it is told and what it answers. */
struct engine_decide {
    const struct sched_policy *policy;
    struct sched_limits limits;
    struct sched_seq *seqs; /* [n_sequences] */
    struct sched_worker workers[ENGINE_WORKERS_MAX];
    struct sched_decision decision;
    uint32_t *order;                  /* [n_sequences] scratch: sequences by arrival */
    uint32_t n_live;                  /* of them */
    bool waits, checkpoints, adjusts; /* the device can */
};

/* A CPU-only engine beside this one, to which a policy may hand best effort that holds no KV; it
 * answers the client from then on.  room NULL: there is none. */
struct engine_elsewhere {
    uint32_t (*room)(void *arg); /* requests that it would take now */
    void (*take)(void *arg, const struct request_id *id);
    void *arg;
};

/* Where the engine's messages go. */
struct engine_sink {
    void (*send)(void *arg, const struct message *m);
    bool (*connected)(void *arg); /* is somebody there to read state messages? */
    void *arg;
};

struct engine {
    const struct omni_config *config;
    uint32_t index;

    /* Opened by host.c, or by a simulation; borrowed. */
    struct kv_geometry geometry;
    uint32_t n_vocab;
    const struct device_ops *ops;
    struct device *device;
    struct exchange *exchange;
    struct directory *directory; /* NULL: best effort is entered nowhere (simulation) */
    struct engine_sink sink;
    struct engine_elsewhere elsewhere;
    uint32_t context_max, rows_max, returned_max, seqs_max, table_max, device_blocks;

    struct sequence_table sequences;
    struct admission admission;
    struct kv_pool pool; /* the device's */
    struct siphash_key prefix_key;
    struct engine_worker workers[ENGINE_WORKERS_MAX];
    uint32_t *slot_owner; /* [n_slots] sequence, or SEQUENCE_NONE */
    uint32_t *leaves;     /* [n_slots] slots given up since the last sweep */
    uint32_t n_leaves;
    uint32_t *copy_blocks; /* [n_groups * table_max] scratch of one copy */
    void **copy_staging;
    uint32_t n_copies;  /* under way */
    uint32_t mirror_at; /* sequence at which the next look for full blocks begins */

    struct engine_decide decide;
    struct engine_batch batch;
    bool in_flight;
    uint64_t sweep; /* number of the last one submitted */
    struct latency_model latency;
    struct accuracy accuracy;
    struct accuracy kept; /* predicted / measured, at most 1, of sweeps with common rows */
    /* By kind of sweep.  Shares of jobs: of those posted, back before the output projection; of those
     * that were out when the sweep began, back by then.  And ns that was waited. */
    struct latency_window ride[ENGINE_SWEEP_KINDS], late[ENGINE_SWEEP_KINDS],
        waited[ENGINE_SWEEP_KINDS];
    double returned_rows; /* per layer, moving average over sweeps with common rows */
    struct sweep_log sweep_log;
    struct engine_idle idle;

    struct engine_token_item *items; /* [n_sequences] of one engine_tokens message */
    uint32_t *item_ids;
    float *item_logprobs;
    uint32_t *item_top_ids; /* [n_sequences][DEVICE_TOP_MAX] */
    float *item_top_logprobs;
    uint64_t next_beat_ns, n_beats;
    struct stats_page stats;
    uint64_t state_hash;       /* of the last engine_state sent */
    _Atomic bool state_wanted; /* a router was met that knows nothing yet */
};

/* Makes the books for what is opened (config, geometry, device, exchange, sizes, sink, stats).
 * 0 or -ENOMEM; a failed init is safe to fini. */
int engine_init(struct engine *e);
void engine_fini(struct engine *e);

/* One round without sleeping: takes in what happened, submits the next sweep, beats. */
void engine_step(struct engine *e);

/* A part of it: what was accepted since begins to wait. */
void engine_take_arrivals(struct engine *e);

/* Sends to the router, or to whoever stands in for it. */
static inline void engine_send(struct engine *e, const struct message *m)
{
    e->sink.send(e->sink.arg, m);
}

static inline bool engine_is_best_effort(const struct sequence *s)
{
    return !s->latency_sensitive;
}

static inline void engine_count(struct engine *e, enum engine_stat stat, uint64_t n)
{
    stats_add(&e->stats, (uint32_t)stat, n);
}

#endif
