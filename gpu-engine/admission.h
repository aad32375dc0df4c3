/* admission.h - may this request come in?  Answered at once by the control thread.
 *
 * DESIGN.  After every sweep's decision the engine thread publishes what it holds of the first class:
 * sequences as they will be when the sweep has ended, when that will be, the latency model as it is
 * corrected, what best effort adds to sweeps, lengths of outputs, outcomes (admission_view.c).  Three
 * buffers change hands by one exchange (triple.h), so the token path takes no lock and never waits.
 * The control thread adds what it has admitted since, and runs the schedule ahead
 * (common/sched/admission.h):
 *   latency-sensitive  every admitted one and this one meet TTFT and TPOT, and there is KV on the
 *                      device for prompt and predicted output of all, whatever best effort holds (it
 *                      yields).  Without a profile: KV alone.
 *   best effort        the prompt fits on the device, the whole request there or in one arena
 *
 * slo.admission = no: of the first class, too, only what can never fit is refused.
 * A refusal says whether it can ever succeed, and when to try again. */
#ifndef OMNI_GPU_ENGINE_ADMISSION_H
#define OMNI_GPU_ENGINE_ADMISSION_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/config.h"
#include "common/base/triple.h"
#include "common/sched/admission.h"
#include "common/sched/lengths.h"
#include "proto/messages.h"

struct engine;
struct sequence;

struct admission_limits {
    uint32_t context_max;
    uint32_t block_tokens, n_groups;
    uint32_t device_blocks;
    uint32_t arena_blocks; /* of the largest arena; 0 = no offloading */
    bool must_offload;     /* best effort decodes in arenas only */
};

/* What the engine thread says of itself between two sweeps. */
struct admission_snapshot {
    uint64_t n_arrived;  /* arrivals up to this one are among seqs, or have ended */
    uint64_t free_at_ns; /* end of the sweep in flight, as predicted; 0: none is */
    bool priced;         /* latency is valid */
    struct latency_model latency;
    double be_ns, be_busy_ns, sweep_most_ns, be_least_ns;
    struct lengths lengths;
    struct objective_window window;
    uint32_t n_on_budget; /* of seqs, admitted though predicted late */
    struct fair_share fair;
    uint32_t n_seqs;
    struct sched_seq *seqs; /* [2 * max_seqs]: room for those admitted since */
    struct objective_past *past;
};

/* Admitted, and in no snapshot yet. */
struct admission_pending {
    uint64_t order;
    struct sched_seq seq;
    bool on_budget;
};

struct admission {
    struct admission_limits limits;
    struct admission_snapshot snapshots[TRIPLE_BUFFERS];
    struct triple turn;

    struct config_tenants tenants;

    /* control thread */
    struct admission_scratch scratch;
    struct admission_pending *pending; /* [max_seqs] */
    uint32_t n_pending;
    uint64_t asked_ns[FAIR_TENANTS_MAX]; /* when the tenant last asked; 0 = never */

    /* engine thread */
    uint64_t n_arrived;
    double be_ns, be_forced_ns, sweep_most_ns; /* falling maxima ... */
    double be_busy_ns;                         /* ... of sweeps that leave prompts waiting ... */
    double be_least_ns;                        /* ... and a rising minimum */
    struct lengths lengths;
    struct objective_window window;
    struct fair_share fair;
    uint32_t *order; /* [max_seqs] scratch: latency-sensitive sequences by arrival */
};

struct admission_answer {
    bool accepted;
    bool on_budget;       /* though it is predicted to be late */
    uint32_t n_predicted; /* output of a latency-sensitive request */
    uint32_t tenant;
    enum error_code code; /* if not accepted, as the rest */
    char message[160];
    uint32_t retry_after_ms; /* 0 = it can never succeed */
};

/* For the books of e: config, limits, sequences.  0 or -ENOMEM; fini is safe after both. */
int admission_init(struct admission *a, const struct engine *e, const struct admission_limits *l);
void admission_fini(struct admission *a);

/* Control thread. */
void admission_decide(struct engine *e, const struct message_submit *m,
                      struct admission_answer *answer);
/* It was accepted and handed over as s: counts from now on. */
void admission_promise(struct engine *e, const struct sequence *s);
/* Blocks that the first class may still come to need. */
uint64_t admission_promised(struct engine *e);

/* Engine thread: after a sweep was decided and submitted, or was not needed. */
void admission_publish(struct engine *e);

/* Engine thread: a latency-sensitive sequence has ended. */
void admission_take_outcome(struct engine *e, const struct sequence *s, enum finish_reason reason);

/* Engine thread: the order in which prompts are to be computed, where tenants share; then what they
 * got. */
void admission_rank(struct engine *e, struct sched_seq *seqs, uint32_t n_seqs);
void admission_charge(struct engine *e);

/* What a sequence was promised: its own objectives, or its class's. */
struct objective admission_objective(const struct engine *e, const struct sequence *s);

/* What it got. */
struct objective_past admission_past(const struct sequence *s);

#endif
