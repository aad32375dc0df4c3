#include "tests/unit/attention_fixture.h"

#include <math.h>

#include "common/base/half.h"

/* ---- A sequence ------------------------------------------------------------------------------ */

struct sequence *sequence_make(const struct variant *var, uint64_t seed)
{
    struct sequence *s = calloc(1, sizeof *s);
    struct kv_geometry_config config = {
        .type = var->type, .block_tokens = BLOCK_TOKENS, .n_groups = 1, .n_ranks = 1};
    const struct kv_layer *l;
    uint32_t n_blocks = var->n_tokens / BLOCK_TOKENS + 1;
    const char *field;

    assert_non_null(s);
    assert_int_equal(geometry_init(&s->geometry, &config, &var->layer, 1, &field), 0);
    l = &s->geometry.layer[0];
    s->n_tokens = var->n_tokens;
    s->q_width = kv_layer_q_width(l);
    s->out_width = kv_layer_out_width(l);
    s->table = malloc(n_blocks * sizeof *s->table);
    for (uint32_t i = 0; i < n_blocks; i++)
        s->table[i] = n_blocks - 1 - i;
    s->view = (struct kv_view){.base = malloc((size_t)n_blocks * s->geometry.block_bytes),
                               .table = s->table,
                               .block_bytes = s->geometry.block_bytes,
                               .block_tokens = BLOCK_TOKENS,
                               .n_blocks = n_blocks,
                               .type = var->type,
                               .layer = l};
    memset(s->view.base, 0xff, (size_t)n_blocks * s->geometry.block_bytes);
    s->q = random_floats(&seed, (size_t)s->n_tokens * s->q_width);
    s->k = random_floats(&seed, (size_t)s->n_tokens * kv_layer_k_width(l));
    s->v = random_floats(&seed, (size_t)s->n_tokens * kv_layer_v_width(l));
    for (size_t i = 0; i < (size_t)s->n_tokens * s->q_width; i++)
        s->q[i] *= 4.0f; /* so that the softmax is far from flat */
    return s;
}

void sequence_append(struct sequence *s, uint32_t pos, uint32_t n)
{
    uint32_t k = kv_layer_k_width(s->view.layer), v = kv_layer_v_width(s->view.layer);

    attn_append(&s->view, pos, n, s->k + (size_t)pos * k, k, s->v + (size_t)pos * v, v);
}

void sequence_free(struct sequence *s)
{
    free(s->view.base);
    free(s->table);
    free(s->q);
    free(s->k);
    free(s->v);
    free(s);
}

struct attn_job job_of(const struct sequence *s, uint32_t pos, uint32_t n_q, float *out)
{
    return (struct attn_job){.q = s->q + (size_t)pos * s->q_width,
                             .out = out,
                             .n_q = n_q,
                             .pos = pos,
                             .kv = s->view,
                             .ldq = s->q_width,
                             .ldo = s->out_width};
}

struct setup setup_make(enum isa isa, uint32_t n_threads)
{
    struct setup s;

    assert_int_equal(team_create(&s.team, n_threads, NULL, 0), 0);
    assert_int_equal(attn_scratch_create(&s.scratch, isa, n_threads, 256, 256), 0);
    return s;
}

void setup_free(struct setup *s)
{
    attn_scratch_destroy(s->scratch);
    team_destroy(s->team);
}

float *decode_all(const struct variant *var, enum isa isa, uint64_t seed)
{
    struct sequence *s = sequence_make(var, seed);
    struct setup setup = setup_make(isa, 1);
    float *out = malloc((size_t)s->n_tokens * s->out_width * sizeof *out);

    assert_non_null(out);
    for (uint32_t pos = 0; pos < s->n_tokens; pos++) {
        struct attn_job job = job_of(s, pos, 1, out + (size_t)pos * s->out_width);

        sequence_append(s, pos, 1);
        attn_run(setup.team, setup.scratch, &job, 1);
    }
    setup_free(&setup);
    sequence_free(s);
    return out;
}

float *prefill_all(const struct variant *var, enum isa isa, uint32_t n_threads, uint32_t chunk,
                   uint64_t seed)
{
    struct sequence *s = sequence_make(var, seed);
    struct setup setup = setup_make(isa, n_threads);
    float *out = malloc((size_t)s->n_tokens * s->out_width * sizeof *out);

    assert_non_null(out);
    sequence_append(s, 0, s->n_tokens);
    for (uint32_t pos = 0; pos < s->n_tokens; pos += chunk) {
        uint32_t left = s->n_tokens - pos;
        struct attn_job job =
            job_of(s, pos, left < chunk ? left : chunk, out + (size_t)pos * s->out_width);

        attn_run(setup.team, setup.scratch, &job, 1);
    }
    setup_free(&setup);
    sequence_free(s);
    return out;
}

/* ---- The reference --------------------------------------------------------------------------- */

double stored(const struct kv_view *kv, bool value, uint32_t head, uint32_t pos, uint32_t e)
{
    const struct kv_layer *l = kv->layer;
    const uint8_t *block = kv_view_block(kv, pos);
    uint32_t t = pos % kv->block_tokens;
    const uint8_t *at = block + (value ? kv_v_offset(l, kv->type, head, t, e)
                                       : kv_k_offset(l, kv->type, head, t, e));
    uint32_t scale_off = (value ? l->v_scale_off : l->k_scale_off);
    uint16_t h;
    float f;

    switch ((enum kv_type)kv->type) {
    case KV_TYPE_F16:
        memcpy(&h, at, 2);
        return (double)half_to_float(h);
    case KV_TYPE_BF16:
        memcpy(&h, at, 2);
        return (double)half_float_from_bits((uint32_t)h << 16);
    case KV_TYPE_F32:
        memcpy(&f, at, 4);
        return (double)f;
    case KV_TYPE_I8:
        memcpy(&f, block + kv_scale_offset(l, scale_off, head, t), 4);
        return (double)f * (double)(int8_t)*at;
    }
    return NAN;
}

/* The query's element as a kernel takes it: int16 of the head's largest beside int8, bf16 or f16 for
 * products of such. */
static double query64(const struct sequence *s, enum isa isa, const float *q, uint32_t e)
{
    const struct kv_layer *l = s->view.layer;
    float factor = l->softcap != 0 ? l->scale : l->scale * 1.44269504088896341f;
    float top = 0, scaled = q[e] * factor;

    if (s->view.type == KV_TYPE_I8) {
        for (uint32_t i = 0; i < l->dk; i++)
            top = fabsf(q[i]) > top ? fabsf(q[i]) : top;
        return (double)rintf(q[e] / top * 32767.0f) * (double)top / 32767.0;
    }
    if (!has_own_bits(isa, s->view.type))
        return (double)q[e];
    if (s->view.type == KV_TYPE_F16)
        return (double)half_to_float(float_to_half(scaled)) / (double)factor;
    scaled = half_float_from_bits((uint32_t)float_to_bf16(scaled) << 16);
    return (double)scaled / (double)factor;
}

static double score64(const struct sequence *s, const double *q, uint32_t h, uint32_t t)
{
    const struct kv_layer *l = s->view.layer;
    uint32_t group = (uint32_t)l->n_heads / l->n_kv_heads;
    double sum = 0;

    for (uint32_t e = 0; e < l->dk; e++)
        sum += q[e] * stored(&s->view, false, h / group, t, e);
    sum *= (double)l->scale;
    return l->softcap != 0 ? (double)l->softcap * tanh(sum / (double)l->softcap) : sum;
}

void attention64(const struct sequence *s, enum isa isa, uint32_t pos, uint32_t h, double *out)
{
    const struct kv_layer *l = s->view.layer;
    const float *query = s->q + (size_t)pos * s->q_width + (size_t)h * l->dk;
    uint32_t group = (uint32_t)l->n_heads / l->n_kv_heads;
    double sum = 0, q[256];

    for (uint32_t e = 0; e < l->dk; e++)
        q[e] = query64(s, isa, query, e);
    memset(out, 0, l->dv * sizeof *out);
    for (uint32_t t = 0; t <= pos; t++) {
        double w;

        if (l->window != 0 && t + l->window <= pos && t >= l->n_sinks)
            continue;
        w = exp(score64(s, q, h, t)); /* scores stay far below overflow here */
        sum += w;
        for (uint32_t e = 0; e < l->dv; e++)
            out[e] += w * stored(&s->view, true, h / group, t, e);
    }
    for (uint32_t e = 0; e < l->dv; e++)
        out[e] /= sum;
}

/* |v| <= 1 (about), so an output's error is that of its weights.
 *   float: the relative error of exp(score) is the score's absolute error, some dozens of roundings
 *     (2^-24) at magnitude 16 at most, that of exp2 (2^-22), and again as much for the sum.
 *     Observed below 1e-6; 5e-6 leaves room for other random numbers.
 *   i8: weights are whole 32,767ths of a tile's largest; 64 half steps at most a tile, and the
 *     tiles' largest weights together are at most the sum: 64 * 0.5 / 32,767.  Observed: 2e-5.
 *   bf16 by dot products or tiles: weights are rounded to 8 bits, 2^-9 each, and their sum with
 *     them.
 *   f16 in f16: a product is added to at most 7 others before they are rounded no more, each time by
 *     up to 2^-12 of a sum that is about 2 here: over the 64 to 256 elements of a score roundings
 *     that know nothing of each other come to 16 * 2^-12 * 2 * 0.6 = 5e-3, and the same for values.  Observed below 2e-3. */
double tolerance(const struct variant *var, enum isa isa)
{
    if (var->type == KV_TYPE_I8)
        return 5e-6 + 32.0 / 32767;
    if (has_own_bits(isa, var->type))
        return var->type == KV_TYPE_F16 ? 5e-3 : 5e-6 + 0x1p-8;
    return 5e-6;
}

void check_against_float64(const struct variant *var, enum isa isa, uint32_t n_threads)
{
    struct sequence *s = sequence_make(var, 11);
    float *out = prefill_all(var, isa, n_threads, 5000, 11);

    sequence_append(s, 0, s->n_tokens);
    for (uint32_t pos = 0; pos < s->n_tokens; pos = pos * 2 + 1) {
        for (uint32_t h = 0; h < var->layer.n_heads; h++) {
            const float *got = out + (size_t)pos * s->out_width + (size_t)h * var->layer.dv;
            double want[256];

            attention64(s, isa, pos, h, want);
            for (uint32_t e = 0; e < var->layer.dv; e++)
                if (!(fabs((double)got[e] - want[e]) <= tolerance(var, isa)))
                    fail_msg("%s (%s) pos %u head %u element %u: %.9g, expected %.9g", var->name,
                             isa_name(isa), pos, h, e, (double)got[e], want[e]);
        }
    }
    free(out);
    sequence_free(s);
}
