#include "common/model/model_random.h"

#include "common/model/gguf_write.h"
#include "common/model/vocab_random.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Standard deviations of the matrices, over 1/sqrt(k): an input of unit rms gives outputs of this
 * size.  Queries and keys are large, so that attention looks somewhere and does not average; the
 * spread of the logits is near that of a trained model. */
#define GAIN_QK     2.0f
#define GAIN_V      1.5f
#define GAIN_OTHER  1.0f
#define GAIN_GATE   2.0f
#define GAIN_ROUTER 2.0f
#define GAIN_LOGITS 3.0f
#define GAIN_BIAS   0.5f

struct random_model {
    const struct model_random_options *o;
    struct gguf_writer *w;
    uint32_t n_matrices; /* so far: chooses the type of the next in a mixed model */
    float *row;          /* scratch, as long as the longest row */
    int rc;
};

static uint64_t next_u64(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* Mean 0, variance 1: the sum of four uniform numbers, which needs no libm and so gives the same
 * bits everywhere. */
static float next_normal(uint64_t *state)
{
    float sum = 0;

    for (int i = 0; i < 4; i++)
        sum += (float)(next_u64(state) >> 40) * 0x1p-24f;
    return (sum - 2.0f) * 1.7320508f;
}

/* A tensor's numbers depend on seed and name alone, not on its type or on the other tensors. */
static uint64_t tensor_state(const struct random_model *r, const char *name)
{
    uint64_t h = UINT64_C(14695981039346656037) ^ r->o->seed;

    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * UINT64_C(1099511628211);
    return h;
}

static enum weight_type matrix_type(struct random_model *r)
{
    static const enum weight_type cycle[] = {WEIGHT_Q8_0, WEIGHT_Q4_1, WEIGHT_F16, WEIGHT_F32};

    return r->o->mixed ? cycle[r->n_matrices++ % 4] : r->o->type;
}

static void fill_row(struct random_model *r, uint64_t *state, uint64_t n, float scale)
{
    for (uint64_t i = 0; i < n; i++)
        r->row[i] = next_normal(state) * scale;
}

/* Adds n_slices matrices of n_rows x n_cols; the first n_quiet rows are damped to almost nothing.
 */
static void add_matrix(struct random_model *r, const char *name, enum weight_type type,
                       uint64_t n_slices, uint64_t n_rows, uint64_t n_cols, float gain,
                       uint64_t n_quiet)
{
    const uint64_t dims[] = {n_cols, n_rows, n_slices};
    uint64_t bytes, state = tensor_state(r, name);
    char *out;

    if (r->rc)
        return;
    if (n_cols % weight_block_values(type)) {
        r->rc = -EINVAL;
        return;
    }
    if (r->o->hollow) {
        gguf_writer_hole(r->w, name, weight_type_number(type), dims, n_slices > 1 ? 3 : 2);
        return;
    }
    out = gguf_writer_tensor(r->w, name, weight_type_number(type), dims, n_slices > 1 ? 3 : 2,
                             &bytes);
    if (!out)
        return; /* remembered by the writer */
    for (uint64_t i = 0; i < n_rows * n_slices; i++) {
        fill_row(r, &state, n_cols, (i < n_quiet ? 0.01f : gain) / sqrtf((float)n_cols));
        weight_quantize_row(type, r->row, n_cols, out + i * weight_row_bytes(type, n_cols));
    }
}

/* n numbers around `mean`. */
static void add_vector(struct random_model *r, const char *name, uint64_t n, float mean,
                       float spread)
{
    uint64_t bytes, state = tensor_state(r, name);
    float *out = r->rc ? NULL : gguf_writer_tensor(r->w, name, GGUF_TENSOR_F32, &n, 1, &bytes);

    for (uint64_t i = 0; out && i < n; i++)
        out[i] = mean + spread * next_normal(&state);
}

static void add_norm(struct random_model *r, const char *name, uint64_t n)
{
    add_vector(r, name, n, 1.0f, 0.1f);
}

static const char *layer_name(char out[64], uint32_t layer, const char *part)
{
    (void)snprintf(out, 64, "blk.%u.%s.weight", layer, part);
    return out;
}

static void add_layer_matrix(struct random_model *r, uint32_t layer, const char *part,
                             uint64_t n_slices, uint64_t n_rows, uint64_t n_cols, float gain)
{
    char name[64];

    add_matrix(r, layer_name(name, layer, part), matrix_type(r), n_slices, n_rows, n_cols, gain, 0);
}

static void add_layer_bias(struct random_model *r, uint32_t layer, const char *part, uint64_t n)
{
    char name[64];

    (void)snprintf(name, sizeof(name), "blk.%u.%s.bias", layer, part);
    add_vector(r, name, n, 0, GAIN_BIAS);
}

static void add_qkv(struct random_model *r, uint32_t layer, uint64_t q, uint64_t k, uint64_t v)
{
    const uint64_t n_embd = r->o->n_embd;

    if (r->o->fused) {
        add_layer_matrix(r, layer, "attn_qkv", 1, q + k + v, n_embd, GAIN_QK);
        return;
    }
    add_layer_matrix(r, layer, "attn_q", 1, q, n_embd, GAIN_QK);
    add_layer_matrix(r, layer, "attn_k", 1, k, n_embd, GAIN_QK);
    add_layer_matrix(r, layer, "attn_v", 1, v, n_embd, GAIN_V);
}

static void add_attention(struct random_model *r, uint32_t layer)
{
    const struct model_random_options *o = r->o;
    const uint64_t q = (uint64_t)o->n_heads * o->k_width;
    const uint64_t k = (uint64_t)o->kv_heads[layer] * o->k_width;
    const uint64_t v = (uint64_t)o->kv_heads[layer] * o->v_width;
    char name[64];

    add_norm(r, layer_name(name, layer, "attn_norm"), o->n_embd);
    add_qkv(r, layer, q, k, v);
    if (o->bias) {
        add_layer_bias(r, layer, "attn_q", q);
        add_layer_bias(r, layer, "attn_k", k);
        add_layer_bias(r, layer, "attn_v", v);
    }
    if (o->head_norm) {
        add_norm(r, layer_name(name, layer, "attn_q_norm"), o->k_width);
        add_norm(r, layer_name(name, layer, "attn_k_norm"), o->k_width);
    }
    add_layer_matrix(r, layer, "attn_output", 1, o->n_embd, (uint64_t)o->n_heads * o->v_width,
                     GAIN_OTHER);
}

static void add_mlp(struct random_model *r, uint32_t layer)
{
    const struct model_random_options *o = r->o;
    const bool routed = o->experts[layer];
    const uint64_t n = routed ? o->n_experts : 1;
    char name[64];

    add_norm(r, layer_name(name, layer, "ffn_norm"), o->n_embd);
    if (routed)
        add_matrix(r, layer_name(name, layer, "ffn_gate_inp"), WEIGHT_F32, 1, n, o->n_embd,
                   GAIN_ROUTER, 0);
    if (o->fused && !routed) {
        add_layer_matrix(r, layer, "ffn_up", 1, 2 * (uint64_t)o->n_ff, o->n_embd, GAIN_GATE);
    } else {
        add_layer_matrix(r, layer, routed ? "ffn_gate_exps" : "ffn_gate", n, o->n_ff, o->n_embd,
                         GAIN_GATE);
        add_layer_matrix(r, layer, routed ? "ffn_up_exps" : "ffn_up", n, o->n_ff, o->n_embd,
                         GAIN_OTHER);
    }
    add_layer_matrix(r, layer, routed ? "ffn_down_exps" : "ffn_down", n, o->n_embd, o->n_ff,
                     GAIN_OTHER);
}

/* Control tokens have small output rows: a greedy run never ends by itself, so that tests get the
 * number of tokens they ask for. */
static void add_ends(struct random_model *r)
{
    const struct model_random_options *o = r->o;
    const uint64_t quiet = VOCAB_RANDOM_CONTROL;

    add_matrix(r, "token_embd.weight", o->embd_type, 1, o->n_vocab, o->n_embd, GAIN_LOGITS,
               o->tied ? quiet : 0);
    add_norm(r, "output_norm.weight", o->n_embd);
    if (!o->tied)
        add_matrix(r, "output.weight", o->embd_type, 1, o->n_vocab, o->n_embd, GAIN_LOGITS, quiet);
}

/* A key under the architecture's name. */
static const char *key_of(const struct random_model *r, char out[96], const char *suffix)
{
    (void)snprintf(out, 96, "%s.%s", r->o->arch, suffix);
    return out;
}

static void put_u32(struct random_model *r, const char *suffix, uint32_t value)
{
    char key[96];

    gguf_writer_u32(r->w, key_of(r, key, suffix), value);
}

static void put_f32(struct random_model *r, const char *suffix, float value)
{
    char key[96];

    gguf_writer_f32(r->w, key_of(r, key, suffix), value);
}

static void put_layer_u32s(struct random_model *r, const char *suffix, const uint32_t *values)
{
    char key[96];

    gguf_writer_u32s(r->w, key_of(r, key, suffix), values, r->o->n_layers);
}

static void add_hyper_parameters(struct random_model *r)
{
    const struct model_random_options *o = r->o;

    gguf_writer_string(r->w, "general.architecture", o->arch);
    gguf_writer_string(r->w, "general.name", "tiny-random");
    put_u32(r, "block_count", o->n_layers);
    put_u32(r, "context_length", o->n_ctx);
    put_u32(r, "embedding_length", o->n_embd);
    put_u32(r, "feed_forward_length", o->n_ff);
    put_u32(r, "vocab_size", o->n_vocab);
    put_f32(r, "attention.layer_norm_rms_epsilon", 1e-5f);
    put_f32(r, "rope.freq_base", o->theta);
    put_u32(r, "rope.dimension_count", o->rope_dims);
    put_u32(r, "attention.head_count", o->n_heads);
    put_u32(r, "attention.key_length", o->k_width);
    put_u32(r, "attention.value_length", o->v_width);
    put_layer_u32s(r, "attention.head_count_kv", o->kv_heads);
    put_layer_u32s(r, "attention.sliding_window", o->windows);
    gguf_writer_u32(r->w, "omni.attention.n_sinks", o->n_sinks);
    if (o->n_experts) {
        put_u32(r, "expert_count", o->n_experts);
        put_u32(r, "expert_used_count", o->n_used);
    }
}

/* ---- Rotary embedding that was stretched ----------------------------------------------------- */

/* Llama 3's: slow pairs by the whole factor, fast ones not at all, a ramp between. */
static double llama3_factor(const struct model_random_options *o, uint32_t i)
{
    const double pi = 3.14159265358979323846;
    const double length = 2 * pi * pow((double)o->theta, 2.0 * i / o->rope_dims);
    const double turns = o->n_ctx_orig / length;
    const double ramp = (turns - 1) / (4 - 1);

    if (turns >= 4 || turns <= 1)
        return turns >= 4 ? 1 : (double)o->factor;
    return 1 / ((1 - ramp) / (double)o->factor + ramp);
}

static void add_table(struct random_model *r, const char *name, float first, float step)
{
    const uint64_t n = r->o->rope_dims / 2;
    uint64_t bytes;
    float *out = r->rc ? NULL : gguf_writer_tensor(r->w, name, GGUF_TENSOR_F32, &n, 1, &bytes);

    for (uint32_t i = 0; out && i < n; i++)
        out[i] = r->o->rope_llama3 ? (float)llama3_factor(r->o, i) : first + step * (float)i;
}

static void add_rope_scaling(struct random_model *r)
{
    const struct model_random_options *o = r->o;
    const double stretch = (double)o->n_ctx / o->n_ctx_orig;
    char key[96];

    if (o->n_ctx_orig != o->n_ctx)
        put_u32(r, "rope.scaling.original_context_length", o->n_ctx_orig);
    if (o->scaling != ROPE_PLAIN) {
        gguf_writer_string(r->w, key_of(r, key, "rope.scaling.type"),
                           o->scaling == ROPE_YARN ? "yarn" : "linear");
        put_f32(r, "rope.scaling.factor", o->factor);
    }
    if (o->rope_llama3)
        add_table(r, "rope_freqs.weight", 0, 0);
    if (o->rope_long) {
        put_f32(r, "rope.scaling.attn_factor",
                (float)sqrt(1 + log(stretch) / log((double)o->n_ctx_orig)));
        add_table(r, "rope_factors_short.weight", 1.0f, 0.0625f);
        add_table(r, "rope_factors_long.weight", 1.0f, 1.5f);
    }
}

static int check_layer(const struct model_random_options *o, uint32_t i)
{
    if (o->kv_heads[i] == 0 || o->n_heads % o->kv_heads[i])
        return -EINVAL;
    if (o->experts[i] && (o->n_experts < 2 || o->n_used == 0 || o->n_used > o->n_experts))
        return -EINVAL;
    return 0;
}

static int check(const struct model_random_options *o)
{
    int rc = 0;

    if (o->n_layers == 0 || o->n_layers > MODEL_RANDOM_LAYERS_MAX || o->n_embd == 0 ||
        o->n_heads == 0 || o->n_ff == 0 || o->n_ctx == 0 || o->n_vocab < vocab_random_size())
        return -EINVAL;
    /* Tiny models only: this also keeps products within range. */
    if (o->n_embd > 8192 || o->n_heads > 256 || o->n_ff > 32768 || o->k_width > 512 ||
        o->v_width > 512 || o->k_width % 2 || o->rope_dims % 2 || o->n_experts > 256 ||
        o->n_vocab > 1000000)
        return -EINVAL;
    for (uint32_t i = 0; !rc && i < o->n_layers; i++)
        rc = check_layer(o, i);
    return rc;
}

static int build(struct random_model *r)
{
    add_hyper_parameters(r);
    add_rope_scaling(r);
    r->rc = vocab_random_add(r->w, "smollm", r->o->chat_template, r->o->n_vocab);
    add_ends(r);
    for (uint32_t i = 0; i < r->o->n_layers; i++) {
        add_attention(r, i);
        add_mlp(r, i);
    }
    return r->rc;
}

int model_random_write(const char *path, const struct model_random_options *options)
{
    struct model_random_options o = *options;
    struct random_model r = {.o = &o};
    const uint32_t width = o.n_heads ? o.n_embd / o.n_heads : 0;
    int rc;

    o.k_width = o.k_width ? o.k_width : width;
    o.v_width = o.v_width ? o.v_width : width;
    o.arch = o.arch ? o.arch : "llama";
    o.theta = o.theta > 0 ? o.theta : 10000.0f;
    o.rope_dims = o.rope_dims ? o.rope_dims : o.k_width;
    o.n_ctx_orig = o.n_ctx_orig ? o.n_ctx_orig : o.n_ctx;
    rc = check(&o);
    if (rc || o.k_width == 0)
        return -EINVAL;
    r.w = gguf_writer_create();
    r.row = malloc((size_t)(o.n_embd + o.n_ff + o.n_heads * o.v_width) * sizeof(*r.row));
    rc = r.w && r.row ? build(&r) : -ENOMEM;
    if (!rc)
        rc = gguf_writer_save(r.w, path);
    free(r.row);
    gguf_writer_destroy(r.w);
    return rc;
}

struct model_random_options model_random_defaults(void)
{
    static const uint32_t kv_heads[] = {2, 1, 4};
    struct model_random_options o = {.seed = 1,
                                     .n_layers = 6,
                                     .n_embd = 64,
                                     .n_heads = 4,
                                     .n_ff = 128,
                                     .n_ctx = 2048,
                                     .n_vocab = 320,
                                     .n_experts = 4,
                                     .n_used = 2,
                                     .n_sinks = 4,
                                     .mixed = true,
                                     .type = WEIGHT_Q8_0,
                                     .embd_type = WEIGHT_Q8_0};

    for (uint32_t i = 0; i < MODEL_RANDOM_LAYERS_MAX; i++) {
        o.kv_heads[i] = kv_heads[i % 3];
        o.windows[i] = i % 2 ? 64 : 0;
        o.experts[i] = i % 3 == 2;
    }
    return o;
}
