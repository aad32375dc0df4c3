/* scheduler_check.c - does a decision keep the rules of scheduler.h?
 *
 * Counts anew from the state and the decision's lists alone, with none of the policies' code. */
#include <stdlib.h>

#include "common/base/invariant.h"
#include "common/sched/scheduler.h"

struct check {
    const struct sched_state *state;
    const struct sched_limits *limits;
    const struct sched_decision *d;
    uint8_t *where; /* [n_seqs] enum listed */
    bool *reserves; /* [n_seqs] */
    uint64_t blocks_taken, blocks_given;
    const char *broken;
};

enum listed { NOWHERE, ROWS, OUT, IN, YIELD, ENTER, ELSEWHERE };

static void demand(struct check *c, bool holds, const char *rule)
{
    if (!holds && c->broken == NULL)
        c->broken = rule;
}

/* Into a list, which must be its only one. */
static const struct sched_seq *list(struct check *c, uint32_t seq, enum listed where)
{
    static const struct sched_seq nobody;

    demand(c, seq < c->state->n_seqs, "a list names a sequence that is not there");
    if (seq >= c->state->n_seqs)
        return &nobody;
    demand(c, c->where[seq] == NOWHERE, "a sequence is in two lists");
    c->where[seq] = (uint8_t)where;
    demand(c, where == ROWS || !c->state->seqs[seq].latency_sensitive,
           "a latency-sensitive sequence moves, yields or is offloaded");
    return &c->state->seqs[seq];
}

/* ---- Lists ----------------------------------------------------------------------------------- */

static void check_rows(struct check *c)
{
    const struct sched_decision *d = c->d;
    uint32_t n_rows = 0, n_chunk = 0;

    for (uint32_t i = 0; i < d->n_seqs; i++) {
        const struct sched_seq *s = list(c, d->rows[i].seq, ROWS);
        uint32_t n = d->rows[i].n_rows, holds = sched_from(s) + n;
        bool streamed = s->place == SCHED_ARENA;

        demand(c, n > 0 && n <= sched_todo(s), "rows that a sequence does not have");
        demand(c, !streamed || (d->stream && !s->in_slot && s->n_todo == 1),
               "a resident in common rows that may not be");
        demand(c, streamed || s->place == SCHED_WAITING || s->place == SCHED_DEVICE,
               "rows of a sequence that moves");
        if (!s->latency_sensitive && s->place == SCHED_WAITING)
            holds = s->n_todo + 1;
        c->blocks_taken += streamed ? 0 : sched_growth(c->limits, s, holds);
        n_rows += n;
        n_chunk += sched_is_decode(s) || streamed ? 0 : n;
    }
    demand(c, n_rows == d->n_rows && n_rows <= c->limits->rows_max, "rows out of bounds");
    demand(c, d->n_seqs <= c->limits->seqs_max, "sequences out of bounds");
    demand(c, d->n_seqs_a <= d->n_seqs && (d->n_seqs_a == d->n_seqs || c->limits->two_batch),
           "two batches on a device that has one");
    demand(c, n_chunk <= c->limits->chunk_max, "prefill rows out of bounds");
}

/* Beside the moves out, of whose promises `taken` and `slots` are; any list may hold them too. */
static void check_place(struct check *c, uint64_t *taken, uint32_t *slots)
{
    for (uint32_t i = 0; i < c->d->n_place; i++) {
        const struct sched_move *m = &c->d->place[i];

        demand(c, m->seq < c->state->n_seqs, "a reservation of what is not there");
        if (c->broken != NULL)
            return;
        const struct sched_seq *s = &c->state->seqs[m->seq];
        bool rows = c->where[m->seq] == ROWS;

        demand(c, !s->latency_sensitive && !s->reserved && !c->reserves[m->seq],
               "a reservation that nobody may have");
        c->reserves[m->seq] = true;
        demand(c, rows || (s->place == SCHED_DEVICE && c->where[m->seq] == NOWHERE),
               "a reservation of what is not on the device");
        demand(c, m->worker < c->limits->n_workers && c->state->workers[m->worker].usable,
               "a reservation at a worker that is not usable");
        if (c->broken != NULL)
            return;
        taken[m->worker] += sched_promise(c->limits, s);
        slots[m->worker]++;
        demand(c,
               taken[m->worker] <= c->state->workers[m->worker].n_free_blocks &&
                   slots[m->worker] <= c->state->workers[m->worker].n_free_slots,
               "an arena reserves more than it has");
    }
}

static void check_out(struct check *c)
{
    uint64_t taken[LATENCY_WORKERS_MAX] = {0};
    uint32_t slots[LATENCY_WORKERS_MAX] = {0};

    for (uint32_t i = 0; i < c->d->n_out; i++) {
        const struct sched_move *m = &c->d->out[i];
        const struct sched_seq *s = list(c, m->seq, OUT);

        demand(c, sched_is_decode(s), "a move out not at a token boundary");
        demand(c, m->worker < c->limits->n_workers && c->state->workers[m->worker].usable,
               "a move to a worker that is not usable");
        demand(c, !s->reserved || m->worker == s->worker, "a move past the own reservation");
        if (c->broken != NULL)
            return;
        if (s->reserved)
            continue;
        taken[m->worker] += sched_promise(c->limits, s);
        slots[m->worker]++;
        demand(c,
               taken[m->worker] <= c->state->workers[m->worker].n_free_blocks &&
                   slots[m->worker] <= c->state->workers[m->worker].n_free_slots,
               "an arena promises more than it has");
    }
    check_place(c, taken, slots);
}

static void check_other_lists(struct check *c)
{
    const struct sched_decision *d = c->d;

    for (uint32_t i = 0; i < d->n_in; i++) {
        const struct sched_seq *s = list(c, d->in[i], IN);
        demand(c, s->place == SCHED_ARENA && !s->in_slot, "a move back not at a token boundary");
        c->blocks_taken += sched_growth(c->limits, s, s->n_kv + s->n_todo);
    }
    for (uint32_t i = 0; i < d->n_yield; i++) {
        const struct sched_seq *s = list(c, d->yield[i], YIELD);
        demand(c, s->place == SCHED_DEVICE && !s->in_copy,
               "a yield of what is not on the device, or being copied");
        c->blocks_given += s->n_freed;
    }
    for (uint32_t i = 0; i < d->n_enter; i++) {
        const struct sched_seq *s = list(c, d->enter[i], ENTER);
        demand(c, s->place == SCHED_ARENA && !s->in_slot && c->state->workers[s->worker].usable,
               "an entry of what may not enter");
    }
    for (uint32_t i = 0; i < d->n_elsewhere; i++)
        demand(c, list(c, d->elsewhere[i], ELSEWHERE)->place == SCHED_WAITING,
               "handed elsewhere though begun");
    demand(c,
           d->n_in + d->n_out + c->state->n_copies <= c->limits->copies_max ||
               d->n_in + d->n_out == 0,
           "copies out of bounds");
    demand(c,
           d->n_enter <= c->limits->returned_max && d->p_max <= c->limits->returned_max &&
               d->n_enter_b <= d->n_enter,
           "returned rows out of bounds");
    demand(c, d->n_elsewhere <= c->limits->elsewhere_max, "handed elsewhere out of bounds");
}

static void check_blocks(struct check *c)
{
    uint64_t there = c->state->n_free_blocks + c->blocks_given;

    demand(c, c->blocks_taken <= there, "more blocks than there are");
    demand(c, c->d->n_free_blocks + c->blocks_taken == there, "the count of free blocks is wrong");
}

/* ---- Fairness -------------------------------------------------------------------------------- */

/* Device blocks that best effort still holds, or was given in this very decision. */
static uint64_t best_effort_could_give(const struct check *c)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < c->state->n_seqs; i++) {
        const struct sched_seq *s = &c->state->seqs[i];
        uint32_t holds = s->place == SCHED_WAITING ? s->n_todo + 1 : s->n_kv + s->n_todo;

        if (s->latency_sensitive || c->where[i] == YIELD)
            continue;
        n += s->place == SCHED_DEVICE && !s->in_copy ? s->n_freed : 0;
        if (c->where[i] == IN || (c->where[i] == ROWS && s->place != SCHED_ARENA))
            n += sched_growth(c->limits, s, holds);
    }
    return n;
}

/* Where there is room for another sequence, a latency-sensitive decode without a row lacks blocks
 * that nobody could give; and if no prompt has rows, one of them does. */
static void check_nobody_waits_for_best_effort(struct check *c)
{
    uint64_t could = c->d->n_free_blocks + best_effort_could_give(c);
    bool prompt_in_rows = c->limits->chunk_max == 0;
    uint32_t n_prompts = 0;
    uint64_t largest_need = 0;

    if (c->d->n_rows == c->limits->rows_max || c->d->n_seqs == c->limits->seqs_max)
        return;
    for (uint32_t i = 0; i < c->state->n_seqs; i++) {
        const struct sched_seq *s = &c->state->seqs[i];
        uint32_t need = sched_growth(c->limits, s, sched_from(s) + 1);

        if (!s->latency_sensitive)
            continue;
        if (!sched_is_decode(s)) {
            prompt_in_rows = prompt_in_rows || c->where[i] == ROWS;
            n_prompts++;
            largest_need = need > largest_need ? need : largest_need;
            continue;
        }
        demand(c, c->where[i] == ROWS || need > could,
               "a latency-sensitive decode waits for best effort");
    }
    demand(c, prompt_in_rows || n_prompts == 0 || largest_need > could,
           "latency-sensitive prompts wait for best effort");
}

enum kind { DECODE, BEGUN, WAITS, RESIDENT, KINDS, NO_KIND = KINDS };

/* Of best effort that may have rows or enter. */
static enum kind kind_of(const struct check *c, const struct sched_seq *s)
{
    if (s->latency_sensitive)
        return NO_KIND;
    switch ((enum sched_place)s->place) {
    case SCHED_WAITING:
        return WAITS;
    case SCHED_DEVICE:
        return sched_is_decode(s) ? DECODE : BEGUN;
    case SCHED_ARENA:
        return !s->in_slot && c->state->workers[s->worker].usable ? RESIDENT : NO_KIND;
    case SCHED_LEAVING:
    case SCHED_RETURNING:
    case SCHED_ELSEWHERE:
        break;
    }
    return NO_KIND;
}

/* Who has been passed over longest, if too long. */
static uint32_t most_starved(const struct check *c, enum kind kind)
{
    uint32_t found = SCHED_NONE;

    if (c->limits->be_starved_ns == 0)
        return found;
    for (uint32_t i = 0; i < c->state->n_seqs; i++) {
        const struct sched_seq *s = &c->state->seqs[i];
        if (kind_of(c, s) == kind &&
            s->last_run_ns + c->limits->be_starved_ns <= c->state->now_ns &&
            (found == SCHED_NONE || s->last_run_ns < c->state->seqs[found].last_run_ns))
            found = i;
    }
    return found;
}

/* Passed over again: others of its kind run, and blocks are there. */
static void check_starved(struct check *c, enum kind kind)
{
    uint32_t seq = most_starved(c, kind);
    bool other_runs = false;

    if (seq == SCHED_NONE || c->where[seq] != NOWHERE)
        return;
    const struct sched_seq *s = &c->state->seqs[seq];
    uint32_t need = s->place == SCHED_WAITING ? s->n_todo + 1 : s->n_kv + 1;
    bool blocks = kind == RESIDENT || sched_growth(c->limits, s, need) <= c->d->n_free_blocks;
    for (uint32_t i = 0; i < c->state->n_seqs; i++)
        other_runs = other_runs || ((c->where[i] == ROWS || c->where[i] == ENTER) &&
                                    kind_of(c, &c->state->seqs[i]) == kind);
    demand(c, !blocks || !other_runs, "a starved sequence is passed over again");
}

/* Half a prompt holds the blocks of a whole one: it goes on before another begins. */
static void check_begun_go_on(struct check *c)
{
    bool begins = false, begun_waits = false;

    for (uint32_t i = 0; i < c->state->n_seqs; i++) {
        enum kind kind = kind_of(c, &c->state->seqs[i]);
        begins = begins || (kind == WAITS && c->where[i] == ROWS);
        begun_waits = begun_waits || (kind == BEGUN && c->where[i] == NOWHERE);
    }
    demand(c, !begins || !begun_waits, "a prompt begins before one that has begun goes on");
}

static void check_fairness(struct check *c)
{
    check_begun_go_on(c);
    check_nobody_waits_for_best_effort(c);
    check_starved(c, DECODE);
    check_starved(c, BEGUN);
    check_starved(c, RESIDENT);
    if (most_starved(c, BEGUN) == SCHED_NONE) /* it would go before those that wait */
        check_starved(c, WAITS);
}

const char *sched_check(const struct sched_state *state, const struct sched_decision *decision)
{
    struct check c = {.state = state, .limits = state->limits, .d = decision};

    c.where = calloc((size_t)state->n_seqs + 1, sizeof *c.where);
    c.reserves = calloc((size_t)state->n_seqs + 1, sizeof *c.reserves);
    if (c.where == NULL || c.reserves == NULL) {
        free(c.where);
        free(c.reserves);
        return "no memory to check";
    }
    check_rows(&c);
    check_out(&c);
    check_other_lists(&c);
    check_blocks(&c);
    if (c.broken == NULL)
        check_fairness(&c);
    free(c.where);
    free(c.reserves);
    return c.broken;
}
