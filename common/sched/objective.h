/* objective.h - what was promised to a latency-sensitive request, whether it was kept, and how many
 * may be missed.
 *
 * Two ways to say when tokens are due:
 *   gap    the first within TTFT of the arrival, the others within TPOT of the one before, which is
 *          judged by the mean gap after the first token
 *   token  token k (0, 1, ...) within TTFT + k x TPOT of the arrival: who is early may be slower
 *          later
 *
 * A statistical objective ("99 % of requests") is a budget: of the last OBJECTIVE_WINDOW requests
 * that were admitted and ended, the rest may miss.
 *
 * Plain data, pure functions, times in nanoseconds. */
#ifndef OMNI_COMMON_SCHED_OBJECTIVE_H
#define OMNI_COMMON_SCHED_OBJECTIVE_H

#include <stdbool.h>
#include <stdint.h>

enum objective_deadlines { OBJECTIVE_GAP, OBJECTIVE_TOKEN };

enum { OBJECTIVE_WINDOW = 1024 };

/* What a request was promised; 0 = nothing. */
struct objective {
    enum objective_deadlines deadlines;
    uint64_t arrival_ns, ttft_ns, tpot_ns;
};

/* What it got so far. */
struct objective_past {
    uint64_t first_ns, last_ns; /* first and last token; 0: none yet */
    uint32_t n_output;
    bool token_late; /* some token came after its deadline (OBJECTIVE_TOKEN) */
};

/* When token n_output is due; 0: never.  After a late token it is due half a TPOT after that one at
 * the earliest: a sequence far behind catches up at twice its pace, and does not ask for all of the
 * time that others need too. */
uint64_t objective_next_due(const struct objective *o, const struct objective_past *past);

/* Takes in a token at that time. */
void objective_take(const struct objective *o, struct objective_past *past, uint64_t at_ns);

struct objective_verdict {
    bool ttft_ok, tpot_ok; /* with OBJECTIVE_TOKEN: first token, all the others */
};

/* Of a request that has ended, or will have ended so. */
struct objective_verdict objective_judge(const struct objective *o,
                                         const struct objective_past *past);

/* The last outcomes, as bits. */
struct objective_window {
    uint32_t n, next, n_missed;
    uint32_t missed[OBJECTIVE_WINDOW / 32];
};

void objective_window_add(struct objective_window *w, bool missed);

/* Misses that target_pct leaves: of the window's outcomes and the n_open that are under way. */
uint32_t objective_window_left(const struct objective_window *w, uint32_t n_open,
                               uint32_t target_pct);

#endif
