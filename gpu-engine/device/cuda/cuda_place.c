#include "gpu-engine/device/cuda/cuda_place.h"

#include <stdbool.h>
#include <string.h>

/* What a walk over a block does at each place. */
struct place {
    const struct kv_geometry *g;
    uint8_t *arena, *pool;
    bool out; /* from the pool into the arena */
};

/* ---- Pieces: 32 tokens of a head ----------------------------------------------------------------- */

/* Rows of n words, one behind the other, as columns; and back. */
#define TRANSPOSE(name, word)                                                                      \
    static void name##_out(word *arena, const word *pool, uint32_t n)                              \
    {                                                                                              \
        for (uint32_t w = 0; w < n; w++) {                                                         \
            for (uint32_t t = 0; t < KV_PANEL_TOKENS; t++)                                         \
                arena[w * KV_PANEL_TOKENS + t] = pool[t * n + w];                                  \
        }                                                                                          \
    }                                                                                              \
    static void name##_in(const word *arena, word *pool, uint32_t n)                               \
    {                                                                                              \
        for (uint32_t t = 0; t < KV_PANEL_TOKENS; t++) {                                           \
            for (uint32_t w = 0; w < n; w++)                                                       \
                pool[t * n + w] = arena[w * KV_PANEL_TOKENS + t];                                  \
        }                                                                                          \
    }
TRANSPOSE(columns16, uint16_t)
TRANSPOSE(columns32, uint32_t)

/* Two rows of d elements, element by element beside each other; and back. */
#define INTERLEAVE(name, element)                                                                  \
    static void name##_out(element *arena, const element *pool, uint32_t d)                        \
    {                                                                                              \
        for (uint32_t e = 0; e < d; e++) {                                                         \
            arena[2 * e] = pool[e];                                                                \
            arena[2 * e + 1] = pool[d + e];                                                        \
        }                                                                                          \
    }                                                                                              \
    static void name##_in(const element *arena, element *pool, uint32_t d)                         \
    {                                                                                              \
        for (uint32_t e = 0; e < d; e++) {                                                         \
            pool[e] = arena[2 * e];                                                                \
            pool[d + e] = arena[2 * e + 1];                                                        \
        }                                                                                          \
    }
INTERLEAVE(pairs8, uint8_t)
INTERLEAVE(pairs16, uint16_t)

static void bytes_move(const struct place *p, uint8_t *arena, uint8_t *pool, size_t n)
{
    memcpy(p->out ? arena : pool, p->out ? pool : arena, n);
}

/* Elements that lie side by side are one word: of 4 bytes for bf16, else of 2. */
static void k_move(const struct place *p, void *arena, void *pool, uint32_t d)
{
    if (p->g->type == KV_TYPE_BF16) {
        if (p->out)
            columns32_out(arena, pool, d / 2);
        else
            columns32_in(arena, pool, d / 2);
        return;
    }
    uint32_t n = p->g->type == KV_TYPE_I8 ? d / 2 : d;
    if (p->out)
        columns16_out(arena, pool, n);
    else
        columns16_in(arena, pool, n);
}

/* The two tokens of a pair. */
static void v_pair_move(const struct place *p, uint8_t *arena, uint8_t *pool, uint32_t d)
{
    if (p->g->type == KV_TYPE_I8) {
        if (p->out)
            pairs8_out(arena, pool, d);
        else
            pairs8_in(arena, pool, d);
        return;
    }
    if (p->out)
        pairs16_out((uint16_t *)(void *)arena, (const uint16_t *)(const void *)pool, d);
    else
        pairs16_in((const uint16_t *)(const void *)arena, (uint16_t *)(void *)pool, d);
}

static void v_move(const struct place *p, uint8_t *arena, uint8_t *pool, uint32_t d)
{
    size_t row = (size_t)d * cuda_kv_element_bytes(p->g->type);

    if (kv_pair(p->g->type) == 1) {
        bytes_move(p, arena, pool, KV_PANEL_TOKENS * row);
        return;
    }
    for (uint32_t t = 0; t < KV_PANEL_TOKENS; t += 2)
        v_pair_move(p, arena + t * row, pool + t * row, d);
}

/* ---- A block ------------------------------------------------------------------------------------- */

static void panel_move(const struct place *p, const struct kv_layer *l, const struct cuda_kv *kv,
                       uint32_t h, uint32_t t)
{
    uint32_t type = p->g->type;

    k_move(p, p->arena + kv_k_offset(l, type, h, t, 0),
           p->pool + cuda_kv_row(kv, kv->k_off, 0, h, t), l->dk);
    v_move(p, p->arena + kv_v_offset(l, type, h, t, 0),
           p->pool + cuda_kv_row(kv, kv->v_off, 0, h, t), l->dv);
    if (type != KV_TYPE_I8)
        return;
    bytes_move(p, p->arena + kv_scale_offset(l, l->k_scale_off, h, t),
               p->pool + cuda_kv_scale(kv, kv->k_scale_off, 0, h, t),
               KV_PANEL_TOKENS * sizeof(float));
    bytes_move(p, p->arena + kv_scale_offset(l, l->v_scale_off, h, t),
               p->pool + cuda_kv_scale(kv, kv->v_scale_off, 0, h, t),
               KV_PANEL_TOKENS * sizeof(float));
}

static void block_move(const struct place *p, const struct cuda_kv *layers)
{
    for (uint32_t l = 0; l < p->g->n_layers; l++) {
        const struct kv_layer *layer = &p->g->layer[l];

        for (uint32_t h = 0; h < layer->n_kv_heads; h++) {
            for (uint32_t t = 0; t < p->g->block_tokens; t += KV_PANEL_TOKENS)
                panel_move(p, layer, &layers[l], h, t);
        }
    }
}

void cuda_place_out(const struct kv_geometry *g, const struct cuda_kv *layers, uint8_t *arena,
                    const uint8_t *pool)
{
    const struct place p = {
        .g = g, .arena = arena, .pool = (uint8_t *)(uintptr_t)pool, .out = true};

    block_move(&p, layers);
}

void cuda_place_in(const struct kv_geometry *g, const struct cuda_kv *layers, uint8_t *pool,
                   const uint8_t *arena)
{
    const struct place p = {.g = g, .arena = (uint8_t *)(uintptr_t)arena, .pool = pool};

    block_move(&p, layers);
}
