#include "gpu-engine/device/sim/sim_live.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/base/invariant.h"
#include "common/compute/attention.h"
#include "common/model/model.h"
#include "gpu-engine/device/sim/sim_alarm.h"
#include "gpu-engine/exchange.h"

/* Times of a sweep in a group: little, so that a load on router and clients is what costs. */
static const double sweep_ns = 20e3, layer_ns = 500, row_ns = 10;
static const double copy_bytes_per_ns = 2, copy_start_ns = 20e3;

struct sim_live {
    struct sim_clock clock;
    struct sim_timing timing;
    const struct kv_geometry *geometry;
    struct exchange *exchange;
    uint32_t n_vocab, n_q_max;
    uint8_t *kv;       /* [n_kv_blocks][block_bytes] */
    struct team *team; /* of one: the caller */
    struct attn_scratch *attn;
    uint64_t *common;     /* [rows_max] residuals, batch A's rows and then B's */
    uint64_t *offloaded;  /* [n_slots * n_q_max] */
    float *q, *k, *v, *a; /* [rows_max] of one sequence */
    uint32_t *previous;   /* tokens of the last sweep */
    uint32_t n_previous;
    struct sim_alarm *alarm;
};

/* ---- The model ------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint64_t embed(uint32_t token, uint32_t pos)
{
    return mix((uint64_t)pos << 32 | token);
}

enum vector { VECTOR_Q, VECTOR_K, VECTOR_V };

/* Evenly in [-1, 1), a function of the residual, the layer and what it is for. */
static void project(uint64_t residual, uint32_t l, enum vector which, float *out, uint32_t n)
{
    uint64_t x = mix(residual ^ mix((uint64_t)l << 8 | which));

    for (uint32_t i = 0; i < n; i++) {
        x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        out[i] = (float)(int32_t)(x >> 32) * 0x1p-31f;
    }
}

static uint64_t fold(uint64_t residual, uint32_t l, const float *out, uint32_t n)
{
    return mix(residual ^ hash_bytes(HASH_SEED ^ l, out, n * sizeof *out));
}

static void draw(const struct sim_live *live, uint64_t residual, uint32_t pos,
                 const struct device_sampling *s, struct device_token *out)
{
    uint64_t x = s->temperature > 0 ? mix(residual ^ mix(s->seed ^ pos)) : mix(residual);

    out->token = (uint32_t)(x % live->n_vocab);
    out->logprob = -(float)(x >> 54) * 0x1p-8f; /* 0 to -4 */
}

/* ---- Common rows ----------------------------------------------------------------------------- */

static uint32_t resolve(const struct sim_live *live, uint32_t token)
{
    if ((token & DEVICE_TOKEN_PREVIOUS) == 0)
        return token;
    invariant((token & ~DEVICE_TOKEN_PREVIOUS) < live->n_previous);
    return live->previous[token & ~DEVICE_TOKEN_PREVIOUS];
}

void sim_live_embed(struct sim_live *live, const struct device_sweep *in)
{
    uint64_t *to = live->common;

    for (int b = 0; b < DEVICE_BATCHES; b++) {
        for (uint32_t i = 0; i < in->batch[b].n_seqs; i++) {
            const struct device_seq *seq = &in->batch[b].seqs[i];
            for (uint32_t r = 0; r < seq->n_rows; r++)
                *to++ = embed(resolve(live, seq->tokens[r]), seq->pos + r);
        }
    }
}

static void attend(struct sim_live *live, const struct device_seq *seq, uint64_t *residual,
                   uint32_t l)
{
    const struct kv_geometry *g = live->geometry;
    const struct kv_layer *layer = &g->layer[l];
    uint32_t q_width = kv_layer_q_width(layer), k_width = kv_layer_k_width(layer);
    uint32_t v_width = kv_layer_v_width(layer), a_width = kv_layer_out_width(layer);
    const struct attn_job job = {
        .q = live->q,
        .out = live->a,
        .n_q = seq->n_rows,
        .pos = seq->pos,
        .kv = {.base = live->kv,
               .table = seq->tables + (size_t)layer->group * seq->table_stride,
               .block_bytes = g->block_bytes,
               .block_tokens = g->block_tokens,
               .n_blocks = seq->table_stride,
               .type = g->type,
               .layer = layer},
        .ldq = q_width,
        .ldo = a_width};

    for (uint32_t r = 0; r < seq->n_rows; r++) {
        project(residual[r], l, VECTOR_Q, live->q + (size_t)r * q_width, q_width);
        project(residual[r], l, VECTOR_K, live->k + (size_t)r * k_width, k_width);
        project(residual[r], l, VECTOR_V, live->v + (size_t)r * v_width, v_width);
    }
    attn_append(&job.kv, seq->pos, seq->n_rows, live->k, k_width, live->v, v_width);
    attn_run(live->team, live->attn, &job, 1);
    for (uint32_t r = 0; r < seq->n_rows; r++)
        residual[r] = fold(residual[r], l, live->a + (size_t)r * a_width, a_width);
}

void sim_live_attend(struct sim_live *live, const struct device_sweep *in, uint32_t batch,
                     uint32_t l)
{
    uint64_t *residual = live->common;

    for (uint32_t b = 0; b <= batch; b++) {
        for (uint32_t i = 0; i < in->batch[b].n_seqs; i++) {
            if (b == batch)
                attend(live, &in->batch[b].seqs[i], residual, l);
            residual += in->batch[b].seqs[i].n_rows;
        }
    }
}

/* ---- Offloaded rows -------------------------------------------------------------------------- */

static uint64_t *residuals_of(const struct sim_live *live, uint32_t slot)
{
    return live->offloaded + (size_t)slot * live->n_q_max;
}

void sim_live_enter(struct sim_live *live, const struct device_enter *e)
{
    for (uint32_t i = 0; i < e->n_q; i++)
        residuals_of(live, e->slot)[i] = embed(e->tokens[i], e->pos + i);
}

void sim_live_write_job(struct sim_live *live, uint32_t slot, uint32_t n_q, uint32_t l)
{
    const struct kv_layer *layer = &live->geometry->layer[l];
    const uint64_t *residual = residuals_of(live, slot);
    struct exchange_payload to;

    live->exchange->ops->payload(live->exchange, slot, &to);
    for (uint32_t i = 0; i < n_q; i++) {
        project(residual[i], l, VECTOR_Q, to.q + (size_t)i * to.q_stride, kv_layer_q_width(layer));
        project(residual[i], l, VECTOR_K, to.k + (size_t)i * to.k_stride, kv_layer_k_width(layer));
        project(residual[i], l, VECTOR_V, to.v + (size_t)i * to.v_stride, kv_layer_v_width(layer));
    }
}

void sim_live_read_job(struct sim_live *live, uint32_t slot, uint32_t n_q, uint32_t l)
{
    uint32_t width = kv_layer_out_width(&live->geometry->layer[l]);
    uint64_t *residual = residuals_of(live, slot);
    struct exchange_payload from;

    live->exchange->ops->payload(live->exchange, slot, &from);
    for (uint32_t i = 0; i < n_q; i++)
        residual[i] = fold(residual[i], l, from.out + (size_t)i * from.out_stride, width);
}

/* ---- Tokens and copies ----------------------------------------------------------------------- */

void sim_live_draw_common(const struct sim_live *live, uint32_t row, uint32_t pos,
                          const struct device_sampling *sampling, struct device_token *out)
{
    draw(live, live->common[row], pos, sampling, out);
}

void sim_live_draw_offloaded(const struct sim_live *live, uint32_t slot, uint32_t n_q, uint32_t pos,
                             const struct device_sampling *sampling, struct device_token *out)
{
    draw(live, residuals_of(live, slot)[n_q - 1], pos, sampling, out);
}

void sim_live_remember(struct sim_live *live, const struct device_done *done)
{
    live->n_previous = done->n_out;
    for (uint32_t i = 0; i < done->n_out; i++)
        live->previous[i] = done->out[i].token;
}

void sim_live_copy(struct sim_live *live, const struct device_copy *copy)
{
    size_t n = live->geometry->block_bytes;

    for (uint32_t i = 0; i < copy->n_blocks; i++) {
        uint8_t *block = live->kv + copy->blocks[i] * n;
        if (copy->direction == DEVICE_COPY_OUT)
            memcpy(copy->staging[i], block, n);
        else
            memcpy(block, copy->staging[i], n);
    }
}

/* ---- Life ------------------------------------------------------------------------------------ */

static void set_timing(struct sim_timing *t, uint32_t n_layers, uint32_t rows_max)
{
    struct latency_kind *k = &t->gpu.kind[0];

    latency_init(&t->gpu, n_layers);
    t->gpu.n_kinds = 1;
    k->dense = (struct latency_stairs){
        .n = 2, .rows = {1, rows_max + 1}, .ns = {layer_ns, layer_ns + row_ns * rows_max}};
    k->pre_share = 0.25;
    k->da_b = k->pa_b = layer_ns;
    t->gpu.head = k->dense;
    t->gpu.fixed_ns = sweep_ns;
    t->copy_bytes_per_ns = copy_bytes_per_ns;
    t->copy_fixed_ns = copy_start_ns;
    t->two_batch = true;
}

/* Elements of the widest layer. */
static uint32_t widest(const struct kv_geometry *g, uint32_t (*width)(const struct kv_layer *))
{
    uint32_t most = 1; /* a layer is not empty */

    for (uint32_t l = 0; l < g->n_layers; l++)
        most = width(&g->layer[l]) > most ? width(&g->layer[l]) : most;
    return most;
}

static uint32_t dk_of(const struct kv_layer *l)
{
    return l->dk;
}

static uint32_t dv_of(const struct kv_layer *l)
{
    return l->dv;
}

static int open_attention(struct sim_live *live)
{
    const struct kv_geometry *g = live->geometry;
    enum isa isa;
    int rc = isa_detect(&isa);

    if (rc == 0)
        rc = team_create(&live->team, 1, NULL, 0);
    if (rc == 0)
        rc = attn_scratch_create(&live->attn, isa, 1, widest(g, dk_of), widest(g, dv_of));
    return rc;
}

static int alloc_all(struct sim_live *live, const struct device_config *c)
{
    const struct kv_geometry *g = live->geometry;
    uint32_t n_slots = c->exchange != NULL ? exchange_n_slots(c->exchange) : 0;

    live->kv = calloc(c->n_kv_blocks, g->block_bytes);
    live->common = calloc(c->rows_max, sizeof *live->common);
    live->offloaded = calloc((size_t)n_slots * live->n_q_max + 1, sizeof *live->offloaded);
    live->q = calloc(c->rows_max, widest(g, kv_layer_q_width) * sizeof *live->q);
    live->k = calloc(c->rows_max, widest(g, kv_layer_k_width) * sizeof *live->k);
    live->v = calloc(c->rows_max, widest(g, kv_layer_v_width) * sizeof *live->v);
    live->a = calloc(c->rows_max, widest(g, kv_layer_out_width) * sizeof *live->a);
    live->previous = calloc(c->seqs_max + n_slots + 1, sizeof *live->previous);
    return live->kv == NULL || live->common == NULL || live->offloaded == NULL || live->q == NULL ||
                   live->k == NULL || live->v == NULL || live->a == NULL || live->previous == NULL
               ? -ENOMEM
               : 0;
}

int sim_live_create(struct sim_live **out, const struct device_config *config)
{
    struct sim_live *live = calloc(1, sizeof *live);

    if (live == NULL)
        return -ENOMEM;
    live->geometry = config->geometry;
    live->exchange = config->exchange;
    live->n_vocab = config->model->n_vocab;
    live->n_q_max = config->exchange != NULL ? config->exchange->n_q_max : 1;
    set_timing(&live->timing, config->geometry->n_layers, config->rows_max);
    int rc = alloc_all(live, config);
    if (rc == 0)
        rc = open_attention(live);
    if (rc == 0)
        rc = sim_alarm_create(&live->alarm, config->notify, config->notify_arg);
    if (rc != 0)
        sim_live_destroy(live);
    else
        *out = live;
    return rc;
}

void sim_live_destroy(struct sim_live *live)
{
    if (live == NULL)
        return;
    sim_alarm_destroy(live->alarm);
    attn_scratch_destroy(live->attn);
    team_destroy(live->team);
    free(live->kv);
    free(live->common);
    free(live->offloaded);
    free(live->q);
    free(live->k);
    free(live->v);
    free(live->a);
    free(live->previous);
    free(live);
}

const struct sim_timing *sim_live_timing(const struct sim_live *live)
{
    return &live->timing;
}

struct sim_clock *sim_live_clock(struct sim_live *live)
{
    return &live->clock;
}

void sim_live_wake_at(struct sim_live *live, uint64_t ns)
{
    sim_alarm_set(live->alarm, ns);
}
