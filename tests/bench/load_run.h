/* load_run.h - a plan, sent through a door, timed and put in books.
 *
 * Open loop: an arrival is sent at its time, whatever has become of those before it, and everything
 * about it counts from that scheduled time: where server or load fall behind, it shows as latency
 * and never as less load.  How far behind its own times the load sent is recorded (late_ns), so that
 * a run can show that the load was not what made it slow.  The backlog is a closed loop.
 *
 * The window begins after the warm-up.  Arrivals in it are measured; tokens that arrive in it are
 * counted.  Arrivals and backlog go on until the last measured request has ended (or drain_s has
 * passed), so that the last ones have company too; then the rest is cancelled.
 *
 * Every request that was due is a record, and ends in exactly one state: offered = done + refused +
 * failed + cancelled + unfinished. */
#ifndef OMNI_TESTS_BENCH_LOAD_RUN_H
#define OMNI_TESTS_BENCH_LOAD_RUN_H

#include "tests/bench/load_door.h"
#include "tests/bench/load_plan.h"

enum load_outcome {
    OUTCOME_IN_FLIGHT, /* not ended; at the end of the run: unfinished */
    OUTCOME_DONE,      /* all tokens came */
    OUTCOME_REFUSED,   /* the server said that it is full */
    OUTCOME_FAILED,    /* any other error */
    OUTCOME_CANCELLED, /* by the load, when the run was over */
    OUTCOME_N,
};

struct load_record {
    const struct load_ask *ask;
    enum load_outcome outcome;
    bool is_backlog, is_measured;
    uint32_t n_tokens;
    uint64_t content;                                      /* names its prompt */
    uint64_t start_ns, sent_ns, first_ns, last_ns, end_ns; /* clock; start: as scheduled */
    uint64_t gap_max_ns;
    struct load_places places;
    uint32_t retry_after_ms;
};

/* What came in one second of the run. */
struct load_second {
    uint32_t ls_arrivals, ls_tokens, be_decode_tokens, be_prefill_tokens;
    uint32_t n_gaps;
    uint64_t gaps_ns; /* of LS, their sum */
};

struct load_settings {
    double warm_up_s, seconds, drain_s;
    uint32_t n_backlog;              /* in flight; of a backlog that is not empty */
    uint32_t seed, vocab;            /* of the prompts' token ids */
    double ttft_slo_ms, tpot_slo_ms; /* sent with every LS request; 0: none */
};

struct load {
    struct load_settings o;
    const struct load_plan *plan;
    struct load_door *door;
    uint64_t begin_ns, window_ns, end_ns; /* of all; of the window, first and last */
    uint32_t next_arrival, next_backlog;
    uint32_t n_backlog_active, n_measured_active, n_errors;
    uint64_t backlog_pause_ns; /* after a refusal: not before */
    struct load_record *records;
    uint32_t n_records, n_records_max;
    float *gaps_ms; /* of measured LS requests, each between two messages with tokens */
    uint32_t n_gaps, n_gaps_max;
    struct load_second *bins;
    uint32_t n_bins;
    uint64_t decode_tokens, prefill_tokens; /* of the backlog and other BE, in the window */
};

/* Sends and waits until all is over.  0, -EIO (the server is gone, or fails all the time; said on
 * stderr) or -ENOMEM.  load_fini after it, whatever it returned. */
int load_run(struct load *l);
void load_fini(struct load *l);

#endif
