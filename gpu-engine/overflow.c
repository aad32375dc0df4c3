#include "gpu-engine/overflow.h"

#include "gpu-engine/kv.h"

/* What latency-sensitive sequences hold and need, in blocks of all groups. */
struct need {
    uint32_t n_holding, n_decodes, n_held_back;
    uint64_t there;  /* free, or best effort's */
    uint64_t growth; /* of all decodes by a token; without any, of one prompt by a block */
    struct sequence *newest, *oldest_held;
};

static uint64_t growth_to(const struct engine *e, const struct sequence *s, uint32_t n_tokens)
{
    uint32_t n = geometry_blocks_for(&e->geometry, n_tokens);

    return n > s->n_blocks ? (uint64_t)(n - s->n_blocks) * e->geometry.n_groups : 0;
}

static void count_holder(const struct engine *e, struct sequence *s, struct need *n)
{
    n->n_holding++;
    if (n->newest == NULL || s->order > n->newest->order)
        n->newest = s;
    if (sequence_n_todo(s) == 1 && sequence_n_output(s) > 0) {
        n->n_decodes++;
        n->growth += growth_to(e, s, s->n_tokens);
    }
}

static void look(struct engine *e, struct need *n)
{
    *n = (struct need){.there = e->pool.n_free};
    for (uint32_t i = 0; i < e->sequences.n; i++) {
        struct sequence *s = &e->sequences.all[i];

        if (s->state == SEQUENCE_COMPUTING && engine_is_best_effort(s))
            n->there += kv_n_freed(e, s);
        else if (s->state == SEQUENCE_COMPUTING)
            count_holder(e, s, n);
        else if (s->state == SEQUENCE_WAITING && s->held_back) {
            n->n_held_back++;
            if (n->oldest_held == NULL || s->order < n->oldest_held->order)
                n->oldest_held = s;
        }
    }
    if (n->n_decodes == 0 && n->n_holding > 0)
        n->growth = e->geometry.n_groups;
}

static void drop(struct engine *e, struct sequence *s)
{
    engine_count(e, ENGINE_STAT_LS_OUTGROWN, 1);
    engine_count(e, ENGINE_STAT_RECOMPUTED, s->n_kv);
    s->n_recomputed += s->n_kv;
    s->outgrown = s->held_back = true;
    kv_release(e, s);
    s->n_kv = 0;
    sequence_set_state(&e->sequences, s, SEQUENCE_WAITING);
}

/* Room for all that it has and a block for each that runs: else it would soon be dropped again. */
static bool may_return(const struct engine *e, const struct need *n)
{
    uint64_t own = growth_to(e, n->oldest_held, n->oldest_held->n_tokens + 1);

    return n->n_holding == 0 ||
           own + n->growth + (uint64_t)n->n_holding * e->geometry.n_groups <= n->there;
}

void overflow_step(struct engine *e)
{
    struct need n;

    for (look(e, &n); n.growth > n.there && n.n_holding > 1; look(e, &n))
        drop(e, n.newest);
    if (n.oldest_held != NULL && may_return(e, &n))
        n.oldest_held->held_back = false;
}
