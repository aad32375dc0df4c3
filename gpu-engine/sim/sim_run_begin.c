/* Best effort that is there when a run begins, as if it had come long before: so that a window of
 * minutes sees arenas and device as hours of running leave them.
 *
 * Drawn by the seed alone, the same for all policies: requests of the load's lengths, long outputs
 * as much more often as they stay longer, each somewhere in its output.  The device gets as many as
 * fit beside what latency-sensitive requests hold and a tenth; each arena a share of its slots and
 * blocks.  Policies that do not decode from arenas (ls-first, headroom, harvest) begin without
 * residents, which would fill the swap space of `harvest` with what it would never have put there;
 * the CPU-only engines of `headroom` get some instead. */
#include <math.h>
#include <string.h>

#include "common/base/invariant.h"
#include "gpu-engine/kv.h"
#include "gpu-engine/placement.h"
#include "gpu-engine/sim/sim_run_private.h"

enum { DRAW_KEEP = 1, DRAW_PROGRESS };

static const double spare_share = 0.1; /* of the device's blocks */

/* ---- Who ------------------------------------------------------------------------------------- */

/* The next one's lengths, until it is taken. */
static struct sim_pair peek(struct sim_run *r)
{
    const struct sim_load *load = &r->options.load;
    double most = sim_lengths_max_out(&load->be);

    if (r->has_next)
        return r->next;
    r->has_next = true;
    if (r->begun)
        return r->next = sim_lengths_draw(&load->be, load->seed, STREAM_BE, r->n_be++);
    do
        r->next = sim_lengths_draw(&load->be, load->seed, STREAM_BEGIN, ++r->n_drawn);
    while (sim_draw(load->seed, STREAM_BEGIN, r->n_drawn, DRAW_KEEP) * most > r->next.n_out);
    return r->next;
}

/* Output tokens that it has, one at least; one at least is to come.  0: it has no middle. */
static uint32_t progress(const struct sim_run *r, struct sim_pair p)
{
    double u = sim_draw(r->options.load.seed, STREAM_BEGIN, r->n_drawn, DRAW_PROGRESS);

    if (p.n_out < 2)
        return 0;
    return r->begun ? 1 : 1 + (uint32_t)(u * (p.n_out - 1));
}

static struct sequence *newest_waiting(struct engine *e)
{
    struct sequence *newest = NULL;

    for (uint32_t i = 0; i < e->sequences.n; i++) {
        struct sequence *s = &e->sequences.all[i];
        if (s->state == SEQUENCE_WAITING && (newest == NULL || s->order > newest->order))
            newest = s;
    }
    invariant(newest != NULL);
    return newest;
}

/* The request, taken in by the engine with that much of its output; NULL: it is refused, or has
 * no output to be in the middle of. */
static struct sequence *take_in(struct sim_run *r, struct sim_pair p)
{
    struct engine *e = &r->engine;
    uint32_t n_done = progress(r, p), idx = r->n_requests;

    r->has_next = false;
    if (n_done == 0 || !sim_run_submit(r, r->clock.now_ns, false, p))
        return NULL;
    engine_take_arrivals(e);
    struct sequence *s = newest_waiting(e);
    struct sim_request *q = &r->requests[idx];
    n_done = n_done < q->n_out ? n_done : q->n_out - 1;
    q->n_tokens = n_done;
    q->first_ns = q->last_ns = r->clock.now_ns > 0 ? r->clock.now_ns : 1;
    r->be_before_first--;
    memset(s->tokens + s->n_prompt, 0, n_done * sizeof *s->tokens);
    s->n_tokens = s->n_prompt + n_done;
    kv_share_prefix(e, s, 0); /* nobody's: begins its chain of hashes */
    s->n_kv = s->n_tokens - 1;
    s->first_token_ns = s->last_token_ns = q->first_ns;
    return s;
}

/* ---- Where ----------------------------------------------------------------------------------- */

/* Blocks that latency-sensitive requests will hold, and what is kept beside them. */
static uint32_t device_spare(const struct sim_run *r)
{
    const struct sim_options *o = &r->options;
    double in = sim_lengths_mean_in(&o->load.ls), out = sim_lengths_mean_out(&o->load.ls);
    double positions = o->load.ls_rate * out * o->tpot_slo_s * (in + out / 2);
    double blocks = positions / r->engine.geometry.block_tokens;

    double headroom = strcmp(o->policy, "headroom") == 0
                          ? r->engine.decide.limits.params.headroom_pct / 100.0
                          : 0;

    return (uint32_t)(blocks + fmax(spare_share, headroom) * r->engine.device_blocks);
}

static bool sequences_left(const struct sim_run *r)
{
    return r->engine.sequences.n_free > r->engine.sequences.n / SIM_RESERVE_SHARE;
}

static void fill_device(struct sim_run *r)
{
    struct engine *e = &r->engine;
    uint32_t spare = device_spare(r);

    while (sequences_left(r)) {
        struct sim_pair p = peek(r);
        uint32_t need = geometry_blocks_for(&e->geometry, p.n_in + p.n_out) * e->geometry.n_groups;

        if (e->pool.n_free < spare + need)
            return;
        struct sequence *s = take_in(r, p);
        if (s == NULL)
            continue;
        int rc = kv_grow(e, s, s->n_tokens);
        invariant(rc == 0);
        sequence_set_state(&e->sequences, s, SEQUENCE_COMPUTING);
    }
}

/* Could the worker take another one of those lengths, `pct` of it being in use then at most? */
static bool arena_has_room(const struct engine *e, uint32_t w, struct sim_pair p, double pct)
{
    const struct engine_worker *k = &e->workers[w];
    uint32_t need = geometry_blocks_for(&e->geometry, p.n_in + p.n_out) * e->geometry.n_groups;
    double keep = 1 - pct / 100;

    return k->pool.n_free >= need + keep * k->pool.n_blocks &&
           k->n_free_slots >= 1 + keep * e->exchange->slots_per_worker;
}

static void fill_arenas(struct sim_run *r, double pct)
{
    struct engine *e = &r->engine;

    for (uint32_t w = 0; w < e->exchange->n_workers; w++) {
        while (sequences_left(r)) {
            struct sim_pair p = peek(r);

            if (!arena_has_room(e, w, p, pct))
                break;
            struct sequence *s = take_in(r, p);
            if (s != NULL)
                placement_adopt(e, s, w);
        }
    }
}

static void fill_cpu_engines(struct sim_run *r, double pct)
{
    uint32_t n = (uint32_t)(pct / 100 * r->options.slots) * sim_cpu_engine_n_hosts(r->cpu_engine);

    for (uint32_t i = 0; i < n && sim_cpu_engine_room(r->cpu_engine) > 0; i++) {
        struct sim_pair p = peek(r);
        uint32_t n_done = progress(r, p), idx = r->n_requests;

        r->has_next = false;
        if (n_done == 0)
            continue;
        sim_run_note_request(r, r->clock.now_ns, false, p);
        struct sim_request *q = &r->requests[idx];
        q->accepted = true;
        q->n_tokens = n_done;
        q->first_ns = q->last_ns = r->clock.now_ns > 0 ? r->clock.now_ns : 1;
        const struct sim_cpu_request computed = {idx, p, n_done, true};
        sim_cpu_engine_take(r->cpu_engine, r->clock.now_ns, &computed);
    }
}

static bool decodes_in_arenas(const struct sim_run *r)
{
    const char *policy = r->options.policy;

    return strcmp(policy, "ls-first") != 0 && strcmp(policy, "harvest") != 0 &&
           strcmp(policy, "headroom") != 0;
}

void sim_run_begin(struct sim_run *r)
{
    const struct sim_options *o = &r->options;

    if (o->prefilled && (o->load.be_backlog > 0 || o->load.be_rate > 0)) {
        fill_device(r);
        if (r->cpu_engine != NULL)
            fill_cpu_engines(r, o->prefilled_pct);
        else if (decodes_in_arenas(r))
            fill_arenas(r, o->prefilled_pct);
    }
    r->begun = true;
    r->has_next = false;
}

void sim_run_feed(struct sim_run *r)
{
    if (decodes_in_arenas(r)) {
        fill_arenas(r, 100);
        return;
    }
    fill_device(r);
    if (r->cpu_engine != NULL)
        fill_cpu_engines(r, 100);
}
