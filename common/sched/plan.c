#include "common/sched/plan.h"

#include <math.h>
#include <string.h>

#include "common/base/invariant.h"

/* ---- Groups ---------------------------------------------------------------------------------- */

static void append(struct plan *p, struct plan_list *list, uint32_t seq)
{
    p->scratch->next[seq] = SCHED_NONE;
    if (list->tail == SCHED_NONE)
        list->head = seq;
    else
        p->scratch->next[list->tail] = seq;
    list->tail = seq;
}

/* A prompt without a due time goes behind all that have one. */
static uint64_t due(const struct sched_seq *s)
{
    return s->first_due_ns != 0 ? s->first_due_ns : UINT64_MAX;
}

static bool may_precede(const struct sched_seq *s, const struct sched_seq *other)
{
    return s->rank != other->rank ? s->rank < other->rank : due(s) <= due(other);
}

/* By rank, then by due time; arrivals are nearly in that order, so that the tail is nearly always the
 * place. */
static void insert_by_due(struct plan *p, struct plan_list *list, uint32_t seq)
{
    uint32_t *at = &list->head, *next = p->scratch->next;

    if (list->tail == SCHED_NONE || may_precede(&p->seqs[list->tail], &p->seqs[seq])) {
        append(p, list, seq);
        return;
    }
    while (may_precede(&p->seqs[*at], &p->seqs[seq]))
        at = &next[*at];
    next[seq] = *at;
    *at = seq;
}

/* Does s go before the other?  Who has begun goes before who waits: it holds blocks. */
static bool starves_more(const struct sched_seq *s, const struct sched_seq *other)
{
    bool waits = s->place == SCHED_WAITING, other_waits = other->place == SCHED_WAITING;

    return waits == other_waits ? s->last_run_ns < other->last_run_ns : other_waits;
}

/* Kept per group: the one that starves most. */
static void note_starved(struct plan *p, enum plan_group group, uint32_t seq, uint32_t before,
                         uint32_t starved_before[PLAN_GROUPS])
{
    const struct sched_seq *s = &p->seqs[seq];
    uint32_t now = p->starved[group];

    if (p->limits->be_starved_ns == 0 ||
        s->last_run_ns + p->limits->be_starved_ns > p->state->now_ns ||
        (now != SCHED_NONE && !starves_more(s, &p->seqs[now])))
        return;
    p->starved[group] = seq;
    starved_before[group] = before;
}

/* The starved one becomes the very first of its group. */
static void put_first(struct plan *p, enum plan_group group, uint32_t before)
{
    uint32_t seq = p->starved[group], *next = p->scratch->next;
    struct plan_list *own = &p->list[group][p->seqs[seq].class_idx], *first = &p->list[group][0];

    if (before == SCHED_NONE)
        own->head = next[seq];
    else
        next[before] = next[seq];
    next[seq] = first->head;
    first->head = seq;
}

static enum plan_group group_of(const struct plan *p, const struct sched_seq *s)
{
    bool decode = sched_is_decode(s);

    switch ((enum sched_place)s->place) {
    case SCHED_WAITING:
    case SCHED_DEVICE:
        if (s->latency_sensitive)
            return decode ? PLAN_LS_DECODE : PLAN_LS_PREFILL;
        return decode ? PLAN_BE_DECODE : PLAN_BE_PREFILL;
    case SCHED_ARENA:
        return !s->in_slot && p->workers[s->worker].usable ? PLAN_RESIDENT : PLAN_GROUPS;
    case SCHED_LEAVING:
    case SCHED_RETURNING:
    case SCHED_ELSEWHERE:
        break;
    }
    return PLAN_GROUPS;
}

/* ---- The one pass ---------------------------------------------------------------------------- */

/* Blocks that it could give up now. */
static uint32_t yieldable(const struct sched_seq *s)
{
    return s->place == SCHED_DEVICE && !s->latency_sensitive && !s->in_copy ? s->n_freed : 0;
}

static void count_best_effort(struct plan *p, const struct sched_seq *s)
{
    struct plan_sums *sums = &p->sums;

    sums->n_be_waiting += s->place == SCHED_WAITING;
    sums->n_be_device += s->place == SCHED_DEVICE;
    sums->n_leaving += s->place == SCHED_LEAVING;
    sums->leaving_blocks += s->place == SCHED_LEAVING ? s->n_freed : 0;
    sums->n_returning += s->place == SCHED_RETURNING;
    sums->n_elsewhere += s->place == SCHED_ELSEWHERE;
    sums->yieldable_blocks += yieldable(s);
    sums->be_decode_tokens += sched_is_decode(s) ? s->n_kv : 0;
    sums->be_decode_rest += sched_is_decode(s) ? sched_likely(s) : 0;
    if (s->place != SCHED_ARENA)
        return;
    sums->n_under_way += s->in_slot;
    sums->resident_tokens[s->worker] += s->n_kv;
}

static void count_latency_sensitive(struct plan *p, const struct sched_seq *s)
{
    uint64_t due = s->next_due_ns;

    p->sums.ls_promise += sched_blocks(p->limits, (uint64_t)s->n_kv + s->n_todo + s->n_rest);
    if (!sched_is_decode(s) || (due == 0 && s->tpot_slo_ns == 0))
        return;
    if (due == 0)
        due = s->tpot_slo_ns + (s->last_token_ns != 0 ? s->last_token_ns : p->state->now_ns);
    p->ls_budget_ns = fmin(p->ls_budget_ns, (double)due - (double)p->state->now_ns);
}

static void sort_in(struct plan *p, uint32_t seq, uint32_t starved_before[PLAN_GROUPS])
{
    const struct sched_seq *s = &p->seqs[seq];
    enum plan_group group = group_of(p, s);

    p->sums.n_waiting += s->place == SCHED_WAITING;
    if (s->latency_sensitive)
        count_latency_sensitive(p, s);
    else
        count_best_effort(p, s);
    if (group == PLAN_GROUPS)
        return;
    struct plan_list *list = &p->list[group][s->class_idx];
    p->sums.n[group]++;
    if (!s->latency_sensitive)
        note_starved(p, group, seq, list->tail, starved_before);
    if (group == PLAN_BE_PREFILL) {
        p->sums.prompt_in += s->n_kv + s->n_todo;
        p->sums.prompt_out += sched_likely(s);
    }
    if (group == PLAN_LS_PREFILL)
        insert_by_due(p, list, seq);
    else
        append(p, list, seq);
}

/* ---- Open and close -------------------------------------------------------------------------- */

static void clear_decision(struct sched_decision *d)
{
    d->n_seqs = d->n_rows = d->n_seqs_a = 0;
    d->n_out = d->n_place = d->n_in = d->n_yield = d->n_enter = d->n_enter_b = d->n_elsewhere = 0;
    d->p_max = d->want = 0;
    d->p_total = UINT32_MAX;
    d->wait_ns = d->predicted_ns = 0;
    d->ride = d->stream = d->checkpoint = d->be_starved = d->be_stuck = false;
    memset(&d->load, 0, sizeof d->load);
    memset(&d->load_b, 0, sizeof d->load_b);
}

static void take_books(struct plan *p)
{
    const struct sched_limits *l = p->limits;

    memcpy(p->workers, p->state->workers, l->n_workers * sizeof *p->workers);
    p->n_free = p->state->n_free_blocks;
    p->rows_left = l->rows_max;
    p->seqs_left = l->seqs_max;
    p->chunk_left = l->chunk_max;
    p->copies_left = l->copies_max > p->state->n_copies ? l->copies_max - p->state->n_copies : 0;
    p->yield_class = p->out_class = SCHED_CLASSES_MAX - 1;
    p->yield_at = p->out_at = p->state->n_seqs;
    p->ls_budget_ns = INFINITY;
}

void plan_open(struct plan *p, const struct sched_state *state, struct sched_decision *d)
{
    uint32_t starved_before[PLAN_GROUPS] = {0};

    invariant(state->n_seqs <= d->scratch->n_seqs_max &&
              state->limits->n_workers <= LATENCY_WORKERS_MAX);
    memset(&p->sums, 0, sizeof p->sums);
    memset(p->n_picked, 0, sizeof p->n_picked);
    memset(p->list, 0xff, sizeof p->list); /* all SCHED_NONE */
    memset(p->starved, 0xff, sizeof p->starved);
    p->state = state;
    p->limits = state->limits;
    p->seqs = state->seqs;
    p->d = d;
    p->scratch = d->scratch;
    memset(p->scratch->mark, PLAN_IDLE, state->n_seqs);
    memset(p->scratch->reserves, 0, state->n_seqs * sizeof *p->scratch->reserves);
    clear_decision(d);
    take_books(p);
    price_init(&p->price, state->latency);
    for (uint32_t i = 0; i < state->n_seqs; i++)
        sort_in(p, i, starved_before);
    for (enum plan_group g = PLAN_BE_PREFILL; g < PLAN_GROUPS; g++) {
        if (p->starved[g] != SCHED_NONE)
            put_first(p, g, starved_before[g]);
    }
    /* The reserve for returned rows: from here on every budget counts them. */
    if (p->sums.n_under_way + p->sums.n[PLAN_RESIDENT] > 0)
        price_set_returned(&p->price, &d->load, state->returned_rows);
}

static void emit(struct plan *p, enum plan_group group)
{
    struct sched_decision *d = p->d;

    memcpy(d->rows + d->n_seqs, p->scratch->picked[group], p->n_picked[group] * sizeof *d->rows);
    d->n_seqs += p->n_picked[group];
}

static void price_batch(struct plan *p, uint32_t from, uint32_t to, struct latency_load *load)
{
    struct latency_load returned = {.returned_rows = p->d->load.returned_rows,
                                    .returned_layers = p->d->load.returned_layers};

    *load = returned;
    for (uint32_t i = from; i < to; i++) {
        const struct sched_rows *r = &p->d->rows[i];
        const struct sched_seq *s = &p->seqs[r->seq];
        price_add(&p->price, load, sched_from(s), r->n_rows, r->n_rows == sched_todo(s));
    }
}

static void close_two(struct plan *p)
{
    struct sched_decision *d = p->d;

    emit(p, PLAN_LS_DECODE);
    emit(p, PLAN_BE_DECODE);
    emit(p, PLAN_RESIDENT);
    d->n_seqs_a = d->n_seqs;
    emit(p, PLAN_LS_PREFILL);
    emit(p, PLAN_BE_PREFILL);
    price_batch(p, d->n_seqs_a, d->n_seqs, &d->load_b);
    price_batch(p, 0, d->n_seqs_a, &d->load);
    price_set_returned(&p->price, &d->load_b, 0); /* they join batch A */
}

void plan_close(struct plan *p, bool two)
{
    struct sched_decision *d = p->d;

    if (two) {
        close_two(p);
    } else {
        for (enum plan_group g = 0; g < PLAN_GROUPS; g++)
            emit(p, g);
        d->n_seqs_a = d->n_seqs;
    }
    d->n_rows = p->limits->rows_max - p->rows_left;
    d->load.n_entering = d->n_enter;
    d->n_free_blocks = p->n_free;
    d->predicted_ns = (uint64_t)price_two_ns(&p->price, &d->load, &d->load_b);
}

uint32_t plan_next(const struct plan *p, enum plan_group group, uint32_t seq)
{
    uint32_t next = seq == SCHED_NONE ? p->list[group][0].head : p->scratch->next[seq];
    uint32_t class_idx = 0;

    if (next != SCHED_NONE)
        return next;
    /* The starved one may stand before the first class: its own class is not where it stands. */
    if (seq != SCHED_NONE && seq != p->starved[group])
        class_idx = p->seqs[seq].class_idx;
    while (next == SCHED_NONE && ++class_idx < SCHED_CLASSES_MAX)
        next = p->list[group][class_idx].head;
    return next;
}

/* ---- Rows ------------------------------------------------------------------------------------ */

bool plan_give(struct plan *p, enum plan_group group, uint32_t seq, uint32_t n)
{
    const struct sched_seq *s = &p->seqs[seq];
    uint32_t from = sched_from(s), holds = from + n;

    invariant(plan_is_idle(p, seq) && n > 0 && n <= sched_todo(s));
    if (n > p->rows_left || p->seqs_left == 0)
        return false;
    /* A best-effort prompt takes the blocks of all of it, and of its first output token, at once:
     * a prefill that has begun never gets stuck. */
    if (group == PLAN_BE_PREFILL && s->place == SCHED_WAITING)
        holds = s->n_todo + 1;
    uint32_t growth = group == PLAN_RESIDENT ? 0 : sched_growth(p->limits, s, holds);
    if (growth > p->n_free)
        return false;
    p->n_free -= growth;
    p->rows_left -= n;
    p->seqs_left--;
    p->sums.yieldable_blocks -= yieldable(s);
    price_add(&p->price, &p->d->load, from, n, n == sched_todo(s));
    p->scratch->mark[seq] = PLAN_IN_ROWS;
    p->scratch->picked[group][p->n_picked[group]++] = (struct sched_rows){seq, n};
    /* Where it will decode is known: its prompt is copied there while it is computed. */
    if (group == PLAN_BE_PREFILL && plan_decodes_at_workers(p))
        plan_reserve(p, seq);
    return true;
}

/* ---- Blocks ---------------------------------------------------------------------------------- */

/* From *at downwards, class after class from the last: the newest that is idle, on the device and
 * best effort. */
static uint32_t newest(const struct plan *p, uint32_t *class_idx, uint32_t *at, bool decodes_only)
{
    for (; *class_idx > 0; (*class_idx)--, *at = p->state->n_seqs) {
        const struct plan_list *decodes = &p->list[PLAN_BE_DECODE][*class_idx];
        const struct plan_list *prompts = &p->list[PLAN_BE_PREFILL][*class_idx];

        if (decodes->head == SCHED_NONE && prompts->head == SCHED_NONE &&
            p->starved[PLAN_BE_DECODE] == SCHED_NONE && p->starved[PLAN_BE_PREFILL] == SCHED_NONE)
            continue;
        while (*at > 0) {
            const struct sched_seq *s = &p->seqs[--*at];
            if (s->place == SCHED_DEVICE && s->class_idx == *class_idx && !s->latency_sensitive &&
                plan_is_idle(p, *at) && (!decodes_only || sched_is_decode(s)))
                return *at;
        }
    }
    return SCHED_NONE;
}

bool plan_yield(struct plan *p)
{
    uint32_t seq;

    do
        seq = newest(p, &p->yield_class, &p->yield_at, false);
    while (seq != SCHED_NONE && (p->seqs[seq].n_blocks == 0 || p->seqs[seq].in_copy));
    if (seq == SCHED_NONE)
        return false;
    p->n_free += p->seqs[seq].n_freed;
    p->sums.yieldable_blocks -= yieldable(&p->seqs[seq]);
    p->scratch->mark[seq] = PLAN_YIELDS;
    p->d->yield[p->d->n_yield++] = seq;
    return true;
}

bool plan_make_room(struct plan *p, uint32_t seq, uint32_t n_tokens)
{
    uint32_t growth = sched_growth(p->limits, &p->seqs[seq], n_tokens);

    if (growth > p->n_free + p->sums.yieldable_blocks)
        return false;
    while (growth > p->n_free && plan_yield(p))
        continue;
    return growth <= p->n_free;
}

/* ---- Moves ----------------------------------------------------------------------------------- */

bool plan_worker_for(const struct plan *p, uint32_t seq, uint32_t *worker)
{
    const struct sched_seq *s = &p->seqs[seq];
    uint32_t promise = sched_promise(p->limits, s), best = SCHED_NONE;

    *worker = s->worker;
    if (s->reserved)
        return p->workers[s->worker].usable;
    for (uint32_t w = 0; w < p->limits->n_workers; w++) {
        const struct sched_worker *k = &p->workers[w];
        if (!k->usable || k->n_free_blocks < promise || k->n_free_slots == 0)
            continue;
        if (best == SCHED_NONE || w == s->worker ||
            (best != s->worker && k->n_free_blocks > p->workers[best].n_free_blocks))
            best = w;
    }
    *worker = best;
    return best != SCHED_NONE;
}

static void take_promise(struct plan *p, const struct sched_seq *s, uint32_t worker)
{
    if (s->reserved)
        return;
    p->workers[worker].n_free_blocks -= sched_promise(p->limits, s);
    p->workers[worker].n_free_slots--;
}

bool plan_reserve(struct plan *p, uint32_t seq)
{
    const struct sched_seq *s = &p->seqs[seq];
    uint32_t worker;

    invariant(!s->latency_sensitive && p->scratch->mark[seq] != PLAN_MOVES &&
              (s->place == SCHED_DEVICE || p->scratch->mark[seq] == PLAN_IN_ROWS));
    if (s->reserved || p->scratch->reserves[seq] || p->scratch->mark[seq] == PLAN_YIELDS ||
        !plan_worker_for(p, seq, &worker))
        return false;
    take_promise(p, s, worker);
    p->scratch->reserves[seq] = true;
    p->d->place[p->d->n_place++] = (struct sched_move){seq, worker};
    return true;
}

bool plan_move_out(struct plan *p, uint32_t seq)
{
    const struct sched_seq *s = &p->seqs[seq];
    uint32_t worker;

    invariant(sched_is_decode(s) && !s->latency_sensitive && plan_is_idle(p, seq));
    if (p->copies_left == 0 || !plan_worker_for(p, seq, &worker))
        return false;
    p->copies_left--;
    take_promise(p, s, worker);
    p->sums.n_leaving++;
    p->sums.leaving_blocks += s->n_freed;
    p->sums.yieldable_blocks -= yieldable(s);
    p->scratch->mark[seq] = PLAN_MOVES;
    p->d->out[p->d->n_out++] = (struct sched_move){seq, worker};
    return true;
}

bool plan_move_in(struct plan *p, uint32_t seq)
{
    const struct sched_seq *s = &p->seqs[seq];
    uint32_t growth = sched_growth(p->limits, s, s->n_kv + s->n_todo);

    invariant(s->place == SCHED_ARENA && !s->in_slot && plan_is_idle(p, seq));
    if (p->copies_left == 0 || growth > p->n_free || plan_decodes_at_workers(p))
        return false;
    p->copies_left--;
    p->n_free -= growth;
    p->sums.n_returning++;
    p->scratch->mark[seq] = PLAN_MOVES;
    p->d->in[p->d->n_in++] = seq;
    return true;
}

uint32_t plan_newest_decode(struct plan *p)
{
    return newest(p, &p->out_class, &p->out_at, true);
}

bool plan_enter(struct plan *p, uint32_t seq)
{
    if (p->d->n_enter == p->limits->returned_max || !plan_is_idle(p, seq))
        return false;
    p->scratch->mark[seq] = PLAN_ENTERS;
    p->d->enter[p->d->n_enter++] = seq;
    return true;
}

void plan_forget_enters(struct plan *p)
{
    for (uint32_t i = 0; i < p->d->n_enter; i++)
        p->scratch->mark[p->d->enter[i]] = PLAN_IDLE;
    p->d->n_enter = p->d->n_enter_b = 0;
}

bool plan_hand_over(struct plan *p, uint32_t seq)
{
    invariant(p->seqs[seq].place == SCHED_WAITING && !p->seqs[seq].latency_sensitive);
    if (p->d->n_elsewhere == p->limits->elsewhere_max || !plan_is_idle(p, seq))
        return false;
    p->scratch->mark[seq] = PLAN_ELSEWHERE;
    p->d->elsewhere[p->d->n_elsewhere++] = seq;
    return true;
}
