/* policy_omni_place.c - where best effort decodes: what workers can do, what is scarce, who moves.
 *
 * The reasons are in the essay of policy_omni.c. */
#include <math.h>

#include "common/sched/policy_omni.h"

/* Worth by which one place must beat the other before anything moves: what is predicted of workers
 * is that uncertain, and a move costs its copy. */
#define PLACE_MARGIN 0.1
/* What happens later is not counted when it is asked whether a prompt pays.  Best effort is for
 * tokens per hour: a resident that moves a layer a sweep takes so long for what repays its prompt. */
#define HORIZON_NS 3600e9

/* ---- Workers --------------------------------------------------------------------------------- */

/* A worker without residents is expected to get such as best effort has on average. */
static double mean_tokens(const struct plan *p, uint32_t w)
{
    uint32_t n = p->state->workers[w].n_resident;
    uint32_t n_decodes = p->sums.n[PLAN_BE_DECODE];

    if (n > 0)
        return (double)p->sums.resident_tokens[w] / n;
    return n_decodes > 0 ? (double)p->sums.be_decode_tokens / n_decodes : 1;
}

void omni_look_at_workers(struct omni *o)
{
    struct plan *p = &o->p;
    double jobs_per_ns = 0, latency = 0;
    uint32_t n_usable = 0;

    o->n_layers = p->price.m != NULL ? p->price.m->n_layers : 1;
    for (uint32_t w = 0; w < p->limits->n_workers; w++) {
        if (!p->workers[w].usable)
            continue;
        n_usable++;
        o->n_residents += p->state->workers[w].n_resident;
        if (p->price.m == NULL)
            continue;
        double bytes = mean_tokens(p, w) * (double)p->limits->kv_token_bytes / o->n_layers;
        double job = latency_job_ns(p->price.m, w, bytes);
        jobs_per_ns += job > 0 ? 1 / job : 0;
        latency += latency_job_ns(p->price.m, w, 0);
    }
    o->can_offload = n_usable > 0 && p->limits->params.offload != SCHED_OFFLOAD_NEVER;
    o->rate = jobs_per_ns / o->n_layers;
    o->job_ns = jobs_per_ns > 0 ? n_usable / jobs_per_ns : 0;
    o->fixed_ns = n_usable > 0 ? latency / n_usable : 0;
}

/* Offloaded rows that ride through a layer with a window of that size. */
static double riders(const struct omni *o, double window_ns)
{
    const struct plan *p = &o->p;
    double n = 0;

    if (omni_is_without(o, SCHED_WITHOUT_RIDING) || !(o->job_ns > 0) || window_ns <= o->fixed_ns)
        return 0;
    for (uint32_t w = 0; w < p->limits->n_workers; w++) {
        if (p->workers[w].usable)
            n += fmin(floor((window_ns - o->fixed_ns) / o->job_ns),
                      p->state->workers[w].n_resident / 2.0);
    }
    return n;
}

double omni_worker_tokens(const struct omni *o, double sweep_ns, double window_ns)
{
    return fmin(o->rate * sweep_ns, riders(o, window_ns) + o->n_residents / o->n_layers);
}

/* Share of the arenas that is in use, of blocks or of slots, whichever is more. */
static double arenas_fill(const struct plan *p)
{
    double blocks = 0, used = 0, slots = 0, used_slots = 0;

    for (uint32_t w = 0; w < p->limits->n_workers; w++) {
        const struct sched_worker *k = &p->workers[w];
        if (!k->usable)
            continue;
        blocks += k->n_blocks;
        used += k->n_blocks - k->n_free_blocks;
        used_slots += k->n_resident;
        slots += k->n_resident + k->n_free_slots;
    }
    return fmax(blocks > 0 ? used / blocks : 1, slots > 0 ? used_slots / slots : 1);
}

/* A prompt's row in a large chunk. */
double omni_row_ns(const struct omni *o)
{
    struct latency_load load = {0};

    price_add(&o->p.price, &load, 0, o->p.limits->chunk_max, false);
    return price_ns(&o->p.price, &load) / o->p.limits->chunk_max;
}

double omni_dense_row_ns(const struct omni *o)
{
    const struct latency_stairs *s = plan_stairs(&o->p);
    struct latency_load load = {0};

    if (s == NULL || s->n == 0)
        return 0;
    uint32_t n = s->rows[s->n - 1];
    price_add(&o->p.price, &load, 0, n, false);
    return (price_ns(&o->p.price, &load) - price_attention_ns(&o->p.price, &load)) / n;
}

/* ---- What is scarce -------------------------------------------------------------------------- */

static double second_read_ns(const struct omni *o)
{
    struct latency_load one_row = {.n_rows = 1};

    return price_ns(&o->p.price, &one_row);
}

/* Attention of all best-effort decodes on the device, as if each had the mean context. */
static double decode_attention_ns(const struct omni *o)
{
    const struct plan *p = &o->p;
    uint32_t n = p->sums.n[PLAN_BE_DECODE];
    struct latency_load load = {0};

    if (n == 0)
        return 0;
    uint32_t mean = (uint32_t)(p->sums.be_decode_tokens / n);
    price_add(&p->price, &load, mean, 1, true);
    double one = price_attention_ns(&p->price, &load);
    price_add(&p->price, &load, mean, 1, true);
    return n * (price_attention_ns(&p->price, &load) - one);
}

/* What one more resident adds to the tokens of a sweep, at the worker where it adds most. */
static double one_more_resident(const struct omni *o, double sweep_ns, double window_ns)
{
    const struct plan *p = &o->p;
    double most, room = floor((window_ns - o->fixed_ns) / o->job_ns), rides = 0;
    bool ride =
        !omni_is_without(o, SCHED_WITHOUT_RIDING) && o->job_ns > 0 && window_ns > o->fixed_ns;

    if (!(o->rate > 0))
        return 0;
    for (uint32_t w = 0; ride && w < p->limits->n_workers; w++) {
        double n = p->state->workers[w].n_resident;
        if (p->workers[w].usable)
            rides = fmax(rides, fmin(room, (n + 1) / 2) - fmin(room, n / 2));
    }
    most = o->rate * sweep_ns - riders(o, window_ns) - o->n_residents / o->n_layers;
    return fmin(fmax(0, most), rides + 1 / o->n_layers);
}

/* What a prompt's computed token is worth of the output that it makes possible: all of it while
 * there is room on the device, or arenas are less than half full; nothing when they are full, or
 * hold more than workers can use. */
static double prompt_worth(const struct omni *o)
{
    const struct plan *p = &o->p;
    bool device_has_room = p->n_free >= o->reserve + 2 * o->staging;

    if (!o->can_offload || device_has_room)
        return 1;
    return o->surplus ? 0 : fmin(1, 2 * (1 - arenas_fill(p)));
}

/* Does a prompt for a worker pay?  It makes so many tokens per ns there, up to the end of its output
 * or the horizon; computing it takes the time in which others make so many. */
static bool pays(const struct omni *o, double more_per_ns, double others_per_ns)
{
    const struct plan *p = &o->p;
    const struct plan_sums *sums = &p->sums;
    double n = fmax(1, sums->n[PLAN_BE_PREFILL]);
    double in = (double)sums->prompt_in / n, out = (double)sums->prompt_out / n;

    return fmin(out, more_per_ns * HORIZON_NS) > in * omni_row_ns(o) * others_per_ns;
}

/* A decode on the device makes a token in every sweep, and costs its attention's time, in which the
 * sweep would make so many others.  At a worker it makes what one more resident adds.  So workers
 * come first where a decode is worth less on the device than there: with long contexts, or many
 * decodes that lengthen the sweep.  What the objective has no time for is worth nothing there.
 * Where one more resident adds next to nothing, more of them are there than workers can use. */
static void compare_places(struct omni *o)
{
    const struct plan *p = &o->p;
    double n = p->sums.n[PLAN_BE_DECODE], attention_ns = decode_attention_ns(o);
    double ls_ns = price_ns(&p->price, &p->d->load);
    double sweep_ns = fmax(ls_ns, second_read_ns(o)) + attention_ns;
    double window_ns = price_attention_ns(&p->price, &p->d->load) / o->n_layers;

    if (!(sweep_ns > 0))
        return;
    window_ns += n > 0 ? attention_ns * (n - 1) / n / o->n_layers : 0;
    double tokens = n + omni_worker_tokens(o, sweep_ns, window_ns);
    double more = one_more_resident(o, sweep_ns, window_ns);
    o->surplus = o->n_residents > 0 && o->rate > 0 && !pays(o, more / sweep_ns, tokens / sweep_ns);
    if (n < 1)
        return;
    o->at_workers = more + attention_ns / n * tokens / sweep_ns;
    if (second_read_ns(o) + attention_ns > o->budget_ns) /* whatever prompts take */
        o->at_workers = INFINITY;
}

void omni_judge(struct omni *o)
{
    if (o->can_offload && !omni_is_without(o, SCHED_WITHOUT_PLACEMENT))
        compare_places(o);
    if (plan_decodes_at_workers(&o->p))
        o->at_workers = INFINITY;
    o->prompt_worth = prompt_worth(o);
    if (o->surplus)
        o->staging = 0;
}

/* Room for the rows that workers can return in a sweep that takes its whole budget; beyond what
 * they returned of late, or best effort filled up for good what they once left unused. */
void omni_reserve_for_returned(struct omni *o)
{
    struct plan *p = &o->p;
    double window_ns = price_attention_ns(&p->price, &p->d->load) / o->n_layers;
    double sweep_ns = isinf(o->budget_ns) ? 0 : o->budget_ns;
    double rows = fmin(omni_worker_tokens(o, sweep_ns, window_ns), p->limits->returned_max);

    if (p->sums.n_under_way + p->sums.n[PLAN_RESIDENT] == 0)
        return;
    o->returned = p->state->returned_rows;
    price_set_returned(&p->price, &p->d->load, fmax(rows, o->returned));
}

/* ---- Placement ------------------------------------------------------------------------------- */

void omni_set_reserves(struct omni *o)
{
    const struct plan *p = &o->p;

    o->reserve = plan_share(p, p->limits->params.auto_free_pct);
    o->staging = 0;
    if (!o->can_offload || omni_is_without(o, SCHED_WITHOUT_STAGING))
        return;
    for (uint32_t seq = plan_next(p, PLAN_BE_PREFILL, SCHED_NONE); seq != SCHED_NONE;
         seq = plan_next(p, PLAN_BE_PREFILL, seq)) {
        if (p->seqs[seq].place != SCHED_WAITING)
            continue;
        o->staging = sched_growth(p->limits, &p->seqs[seq], p->seqs[seq].n_todo + 1);
        return;
    }
}

static bool device_is_short(const struct omni *o)
{
    const struct plan *p = &o->p;

    return p->n_free + p->sums.leaving_blocks < o->reserve + o->staging ||
           (p->state->be_stuck && p->sums.n_leaving == 0);
}

/* Is a prompt that begins now meant for a worker?  Then its blocks are copied there as they fill. */
static bool workers_come_first(const struct omni *o)
{
    return o->can_offload && !o->surplus &&
           (o->at_workers > 1 + PLACE_MARGIN || device_is_short(o));
}

/* Most of what those with a reservation have is there already. */
static void send_reserved(struct omni *o)
{
    struct plan *p = &o->p;

    for (uint32_t seq = plan_next(p, PLAN_BE_DECODE, SCHED_NONE);
         seq != SCHED_NONE && p->copies_left > 0; seq = plan_next(p, PLAN_BE_DECODE, seq)) {
        if (p->seqs[seq].reserved && plan_is_idle(p, seq))
            plan_move_out(p, seq);
    }
}

void omni_reserve_for_prompts(struct omni *o)
{
    struct plan *p = &o->p;

    if (!workers_come_first(o))
        return;
    for (uint32_t i = 0; i < p->n_picked[PLAN_BE_PREFILL]; i++)
        plan_reserve(p, p->scratch->picked[PLAN_BE_PREFILL][i].seq);
}

void omni_place(struct omni *o)
{
    struct plan *p = &o->p;
    bool eager = o->at_workers > 1 + PLACE_MARGIN;

    if (workers_come_first(o))
        send_reserved(o);
    while (o->can_offload && p->copies_left > 0 && (eager || device_is_short(o))) {
        uint32_t newest = plan_newest_decode(p);
        if (newest == SCHED_NONE)
            break;
        plan_move_out(p, newest);
        eager = false; /* one a sweep: its cost is looked at anew */
    }
    plan_unstick(p);
}

/* Those that workers cannot use come back, the oldest first, and before any prompt begins: theirs is
 * computed. */
static void bring_surplus_back(struct omni *o)
{
    struct plan *p = &o->p;
    uint32_t keep = o->reserve + o->reserve / 4;

    for (uint32_t seq = plan_next(p, PLAN_RESIDENT, SCHED_NONE); seq != SCHED_NONE;
         seq = plan_next(p, PLAN_RESIDENT, seq)) {
        const struct sched_seq *s = &p->seqs[seq];
        uint64_t need = sched_growth(p->limits, s, s->n_kv + s->n_todo);

        if (s->last_move_ns != 0 && s->last_move_ns + p->limits->be_settle_ns > p->state->now_ns)
            continue;
        if (need + keep > p->n_free || !plan_move_in(p, seq))
            return;
    }
}

void omni_bring_back(struct omni *o)
{
    struct plan *p = &o->p;

    if (omni_is_without(o, SCHED_WITHOUT_COPY_BACK) || o->at_workers > 1 - PLACE_MARGIN ||
        p->state->be_stuck || p->sums.n_leaving + p->d->n_out > 0)
        return;
    if (o->surplus)
        bring_surplus_back(o);
    else if (p->sums.n_waiting == 0 && !p->state->be_starved &&
             price_ns(&p->price, &p->d->load) <= o->budget_ns)
        plan_copy_back(p, 2 * o->reserve);
}

/* Blocks that a prompt which begins must leave.  Where no worker could take one that grows beyond
 * the device's room, what decodes will likely still need counts too: half of it, for as some grow
 * others end.  Else the newest would be dropped and computed again, over and over. */
uint32_t omni_blocks_to_leave(const struct omni *o)
{
    const struct plan *p = &o->p;
    uint32_t oldest = plan_next(p, PLAN_BE_DECODE, SCHED_NONE), worker;

    if (o->surplus && o->at_workers < 1 - PLACE_MARGIN &&
        !omni_is_without(o, SCHED_WITHOUT_COPY_BACK))
        return UINT32_MAX / 2; /* nobody begins */
    if (oldest == SCHED_NONE || (o->can_offload && plan_worker_for(p, oldest, &worker)))
        return o->reserve;
    return o->reserve + sched_blocks(p->limits, p->sums.be_decode_rest / 2);
}
