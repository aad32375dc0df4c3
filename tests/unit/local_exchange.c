#include "local_exchange.h"

#include <stdlib.h>
#include <string.h>

#include "cmocka_all.h"
#include "common/base/invariant.h"
#include "common/compute/attention.h"

enum { N_Q_MAX = 64 };

struct local_exchange {
    struct exchange base; /* first */
    struct kv_geometry geometry;
    struct team *team;
    struct attn_scratch *attn;
    uint8_t *arena;
    uint32_t n_blocks, n_used, table_max;
    uint32_t *tables; /* [LOCAL_SEQUENCES][n_groups][table_max] */
    float *q, *k, *v, *out;
    uint32_t q_width, k_width, v_width, out_width;
    uint32_t *generation; /* [n_slots] of the last job, done at once */
    uint64_t n_jobs[N_Q_MAX + 1];
};

static struct local_exchange *local_of(struct exchange *x)
{
    return (struct local_exchange *)x;
}

static float *row_of(float *rows, const struct exchange *x, uint32_t slot, uint32_t width)
{
    return rows + (size_t)slot * x->n_q_max * width;
}

static void local_payload(struct exchange *base, uint32_t slot, struct exchange_payload *out)
{
    struct local_exchange *x = local_of(base);

    *out = (struct exchange_payload){.q = row_of(x->q, base, slot, x->q_width),
                                     .k = row_of(x->k, base, slot, x->k_width),
                                     .v = row_of(x->v, base, slot, x->v_width),
                                     .out = row_of(x->out, base, slot, x->out_width),
                                     .q_stride = x->q_width,
                                     .k_stride = x->k_width,
                                     .v_stride = x->v_width,
                                     .out_stride = x->out_width};
}

static int local_post(struct exchange *base, const struct exchange_job *job, uint32_t *generation)
{
    struct local_exchange *x = local_of(base);
    const struct kv_layer *layer = &x->geometry.layer[job->layer];
    struct exchange_payload p;

    local_payload(base, job->slot, &p);
    struct attn_job attn = {
        .q = p.q,
        .out = row_of(x->out, base, job->slot, x->out_width),
        .n_q = job->n_q,
        .pos = job->pos,
        .kv = {.base = x->arena,
               .table = local_exchange_table(x, job->seq_idx, layer->group),
               .block_bytes = x->geometry.block_bytes,
               .block_tokens = x->geometry.block_tokens,
               .n_blocks = x->table_max,
               .type = x->geometry.type,
               .layer = layer},
        .ldq = p.q_stride,
        .ldo = p.out_stride,
    };
    attn_append(&attn.kv, job->pos, job->n_q, p.k, p.k_stride, p.v, p.v_stride);
    attn_run(x->team, x->attn, &attn, 1);
    x->n_jobs[job->n_q]++;
    *generation = ++x->generation[job->slot];
    return 0;
}

static void local_flush(struct exchange *base)
{
    (void)base;
}

static void local_poll_done(struct exchange *base, uint32_t *done)
{
    memcpy(done, local_of(base)->generation, exchange_n_slots(base) * sizeof *done);
}

static int local_take(struct exchange *base, uint32_t slot, uint32_t generation)
{
    invariant(local_of(base)->generation[slot] == generation);
    return 0;
}

static void *local_staging(struct exchange *base, uint32_t worker, uint32_t block)
{
    struct local_exchange *x = local_of(base);

    invariant(worker == 0 && block < x->n_used);
    return x->arena + (size_t)block * x->geometry.block_bytes;
}

static enum exchange_peer local_peer(struct exchange *base, uint32_t worker)
{
    (void)base;
    (void)worker;
    return EXCHANGE_PEER_ALIVE;
}

static int local_slot_release(struct exchange *base, uint32_t slot)
{
    (void)base;
    (void)slot;
    return 1;
}

static void local_destroy(struct exchange *base)
{
    struct local_exchange *x = local_of(base);

    team_destroy(x->team);
    attn_scratch_destroy(x->attn);
    free(x->arena);
    free(x->tables);
    free(x->q);
    free(x->k);
    free(x->v);
    free(x->out);
    free(x->generation);
    free(x);
}

static int local_copy(struct exchange *x, uint32_t worker, const uint32_t *blocks, uint32_t n,
                      uint64_t *ticket)
{
    (void)x;
    (void)worker;
    (void)blocks;
    (void)n;
    *ticket = 0;
    return 1;
}

static const struct exchange_ops local_ops = {.name = "local",
                                              .payload = local_payload,
                                              .post = local_post,
                                              .flush = local_flush,
                                              .poll_done = local_poll_done,
                                              .take = local_take,
                                              .copy_out = local_copy,
                                              .copy_in = local_copy,
                                              .staging = local_staging,
                                              .peer = local_peer,
                                              .slot_release = local_slot_release,
                                              .destroy = local_destroy};

static void *zeroed(size_t n, size_t size)
{
    void *p = calloc(n, size);

    invariant(p != NULL);
    return p;
}

static uint32_t wider(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* Widest heads and rows over all layers. */
static void set_widths(struct local_exchange *x, uint32_t *dk, uint32_t *dv)
{
    for (uint32_t l = 0; l < x->geometry.n_layers; l++) {
        const struct kv_layer *layer = &x->geometry.layer[l];
        *dk = wider(*dk, layer->dk);
        *dv = wider(*dv, layer->dv);
        x->q_width = wider(x->q_width, kv_layer_q_width(layer));
        x->k_width = wider(x->k_width, kv_layer_k_width(layer));
        x->v_width = wider(x->v_width, kv_layer_v_width(layer));
        x->out_width = wider(x->out_width, kv_layer_out_width(layer));
    }
}

struct local_exchange *local_exchange_create(const struct kv_geometry *g, uint32_t n_slots,
                                             uint32_t n_q_max, uint32_t n_blocks,
                                             uint32_t table_max)
{
    struct local_exchange *x = zeroed(1, sizeof *x);
    size_t rows = (size_t)n_slots * n_q_max;
    uint32_t dk = 0, dv = 0;
    enum isa isa;

    x->base = (struct exchange){
        .ops = &local_ops, .n_workers = 1, .slots_per_worker = n_slots, .n_q_max = n_q_max};
    x->geometry = *g;
    x->n_blocks = n_blocks;
    x->table_max = table_max;
    set_widths(x, &dk, &dv);
    x->arena = zeroed(n_blocks, g->block_bytes);
    x->tables = zeroed((size_t)LOCAL_SEQUENCES * g->n_groups * table_max, sizeof *x->tables);
    x->q = zeroed(rows * x->q_width, sizeof(float));
    x->k = zeroed(rows * x->k_width, sizeof(float));
    x->v = zeroed(rows * x->v_width, sizeof(float));
    x->out = zeroed(rows * x->out_width, sizeof(float));
    x->generation = zeroed(n_slots, sizeof *x->generation);
    invariant(isa_detect(&isa) == 0 && n_q_max <= N_Q_MAX);
    invariant(team_create(&x->team, 1, NULL, 0) == 0);
    invariant(attn_scratch_create(&x->attn, isa, 1, dk, dv) == 0);
    return x;
}

struct exchange *local_exchange_base(struct local_exchange *x)
{
    return &x->base;
}

uint32_t *local_exchange_table(struct local_exchange *x, uint32_t seq_idx, uint32_t group)
{
    invariant(seq_idx < LOCAL_SEQUENCES && group < x->geometry.n_groups);
    return x->tables + ((size_t)seq_idx * x->geometry.n_groups + group) * x->table_max;
}

uint32_t local_exchange_new_block(struct local_exchange *x)
{
    invariant(x->n_used < x->n_blocks);
    return x->n_used++;
}

uint64_t local_exchange_n_jobs(const struct local_exchange *x, uint32_t n_q)
{
    return x->n_jobs[n_q];
}
