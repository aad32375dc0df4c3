#include "common/sched/objective.h"

/* ---- Deadlines ------------------------------------------------------------------------------- */

static uint64_t token_due(const struct objective *o, uint32_t k)
{
    return o->arrival_ns + o->ttft_ns + k * o->tpot_ns;
}

uint64_t objective_next_due(const struct objective *o, const struct objective_past *past)
{
    if (past->n_output == 0)
        return o->ttft_ns != 0 ? o->arrival_ns + o->ttft_ns : 0;
    if (o->tpot_ns == 0)
        return 0;
    if (o->deadlines == OBJECTIVE_GAP)
        return past->last_ns + o->tpot_ns;
    uint64_t due = token_due(o, past->n_output), soonest = past->last_ns + o->tpot_ns / 2;

    return due > soonest ? due : soonest;
}

void objective_take(const struct objective *o, struct objective_past *past, uint64_t at_ns)
{
    if (past->n_output == 0)
        past->first_ns = at_ns;
    else if (o->deadlines == OBJECTIVE_TOKEN && o->tpot_ns != 0)
        past->token_late = past->token_late || at_ns > token_due(o, past->n_output);
    past->last_ns = at_ns;
    past->n_output++;
}

struct objective_verdict objective_judge(const struct objective *o,
                                         const struct objective_past *past)
{
    struct objective_verdict v = {.ttft_ok = past->n_output > 0, .tpot_ok = !past->token_late};

    if (past->n_output > 0 && o->ttft_ns != 0)
        v.ttft_ok = past->first_ns <= o->arrival_ns + o->ttft_ns;
    if (o->deadlines == OBJECTIVE_GAP && o->tpot_ns != 0 && past->n_output >= 2)
        v.tpot_ok = past->last_ns - past->first_ns <= (past->n_output - 1) * o->tpot_ns;
    return v;
}

/* ---- The budget of misses -------------------------------------------------------------------- */

void objective_window_add(struct objective_window *w, bool missed)
{
    uint32_t *word = &w->missed[w->next / 32], bit = UINT32_C(1) << w->next % 32;

    if (w->n == OBJECTIVE_WINDOW)
        w->n_missed -= (*word & bit) != 0;
    else
        w->n++;
    *word = missed ? *word | bit : *word & ~bit;
    w->n_missed += missed;
    w->next = (w->next + 1) % OBJECTIVE_WINDOW;
}

uint32_t objective_window_left(const struct objective_window *w, uint32_t n_open,
                               uint32_t target_pct)
{
    uint64_t of = (uint64_t)w->n + n_open;
    uint64_t may = (of < OBJECTIVE_WINDOW ? of : OBJECTIVE_WINDOW) * (100 - target_pct) / 100;

    return may > w->n_missed ? (uint32_t)(may - w->n_missed) : 0;
}
