/* check.c - see check.h. */
#include "tests/gpu/checks/check.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "gpu-engine/device/cuda/element.h"

int check_fail(struct check_run *r, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(r->why, sizeof r->why, format, args);
    va_end(args);
    return -1;
}

int check_execute(struct check_run *r, const struct check *check)
{
    r->why[0] = '\0';
    r->worst = 0;
    r->random = UINT64_C(0x9E3779B97F4A7C15);
    r->n_owned = 0;
    int rc = check->run(r);
    for (int i = r->n_owned; i-- > 0;)
        r->release(r->owned_kind[i], r->owned[i]);
    return rc;
}

/* ---- Memory and data ------------------------------------------------------------------------- */

void *check_alloc(struct check_run *r, enum check_memory kind, size_t bytes)
{
    void *memory = r->n_owned < CHECK_OWNED_MAX ? r->alloc(kind, bytes > 0 ? bytes : 1) : NULL;

    if (memory == NULL) {
        check_fail(r, "no memory: %zu bytes", bytes);
        return NULL;
    }
    memset(memory, 0, bytes);
    r->owned_kind[r->n_owned] = kind;
    r->owned[r->n_owned++] = memory;
    return memory;
}

void *check_copy(struct check_run *r, const void *of, size_t bytes)
{
    void *copy = check_alloc(r, CHECK_PINNED, bytes);

    if (copy != NULL)
        memcpy(copy, of, bytes);
    return copy;
}

uint32_t check_below(struct check_run *r, uint32_t n)
{
    r->random = r->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((r->random >> 33) % n);
}

float check_uniform(struct check_run *r, float from, float to)
{
    return from + (to - from) * (float)check_below(r, 1u << 24) * 0x1p-24f;
}

void check_fill(struct check_run *r, uint32_t type, uint16_t *out, size_t n, float span)
{
    for (size_t i = 0; i < n; i++)
        out[i] = element_from_float(type, check_uniform(r, -span, span));
}

void check_fill_floats(struct check_run *r, float *out, size_t n, float span)
{
    for (size_t i = 0; i < n; i++)
        out[i] = check_uniform(r, -span, span);
}

/* Offsets of the second of two equal layers of a block. */
static void kv_layout(struct cuda_kv *kv)
{
    uint64_t half = (uint64_t)kv->n_kv_heads * kv->block_tokens * kv->head_dim *
                    cuda_kv_element_bytes(kv->type);
    uint64_t scales =
        kv->type == KV_TYPE_I8 ? (uint64_t)kv->n_kv_heads * kv->block_tokens * sizeof(float) : 0;

    kv->k_off = 2 * (half + scales);
    kv->v_off = kv->k_off + half;
    kv->k_scale_off = kv->v_off + half;
    kv->v_scale_off = kv->k_scale_off + scales;
    kv->block_bytes = 2 * kv->k_off;
}

int check_kv(struct check_run *r, struct cuda_kv *kv, uint32_t n_seqs, uint32_t tokens_max)
{
    uint32_t per_seq = (tokens_max + kv->block_tokens - 1) / kv->block_tokens;
    uint32_t n_blocks = n_seqs * per_seq + 3, *tables, *order;

    kv_layout(kv);
    kv->table_stride = per_seq + 1;
    CHECK_ALLOC(r, kv->pool, CHECK_POOL, n_blocks * kv->block_bytes);
    CHECK_ALLOC(r, tables, CHECK_POOL, (size_t)n_seqs * kv->table_stride);
    CHECK_ALLOC(r, order, CHECK_PINNED, n_blocks);
    memset(kv->pool, 0xff, n_blocks * kv->block_bytes);
    for (uint32_t i = 0; i < n_blocks; i++) {
        uint32_t j = check_below(r, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    for (uint32_t s = 0; s < n_seqs; s++)
        memcpy(tables + (size_t)s * kv->table_stride, order + (size_t)s * per_seq,
               per_seq * sizeof *tables);
    kv->tables = tables;
    return 0;
}

/* A head's token: values within 1. */
static void row_fill(struct check_run *r, const struct cuda_kv *kv, uint64_t at, uint64_t scale_at)
{
    if (kv->type != KV_TYPE_I8) {
        check_fill(r, kv->type, (uint16_t *)(void *)(kv->pool + at), kv->head_dim, 1.0f);
        return;
    }
    float scale = check_uniform(r, 0.1f, 1.0f) / 127.0f;
    memcpy(kv->pool + scale_at, &scale, sizeof scale);
    for (uint32_t e = 0; e < kv->head_dim; e++)
        kv->pool[at + e] = (uint8_t)(check_below(r, 255) - 127);
}

void check_kv_fill(struct check_run *r, const struct cuda_kv *kv, uint32_t seq, uint32_t n)
{
    for (uint32_t t = 0; t < n; t++) {
        uint32_t block = kv->tables[(size_t)seq * kv->table_stride + t / kv->block_tokens];
        for (uint32_t h = 0; h < kv->n_kv_heads; h++) {
            row_fill(r, kv, cuda_kv_row(kv, kv->k_off, block, h, t % kv->block_tokens),
                     cuda_kv_scale(kv, kv->k_scale_off, block, h, t % kv->block_tokens));
            row_fill(r, kv, cuda_kv_row(kv, kv->v_off, block, h, t % kv->block_tokens),
                     cuda_kv_scale(kv, kv->v_scale_off, block, h, t % kv->block_tokens));
        }
    }
}

/* ---- Comparing ------------------------------------------------------------------------------- */

int check_wait(struct check_run *r, const char *what, int rc)
{
    if (rc != 0)
        return check_fail(r, "%s: launch error %d", what, rc);
    rc = r->sync();
    return rc == 0 ? 0 : check_fail(r, "%s: error %d while running", what, rc);
}

static int compare(struct check_run *r, const char *what, size_t i, double got, double want,
                   double tolerance, double floor)
{
    double error = fabs(got - want) / (tolerance * fmax(fabs(want), floor));

    if (got == want) /* also where the tolerance is 0 */
        return 0;
    if (!(error <= 1.0))
        return check_fail(r, "%s[%zu]: %.9g, expected %.9g: %.1f tolerances off", what, i, got,
                          want, error);
    r->worst = fmax(r->worst, error);
    return 0;
}

int check_elements(struct check_run *r, const char *what, uint32_t type, const uint16_t *got,
                   const uint16_t *want, size_t n, double tolerance, double floor)
{
    for (size_t i = 0; i < n; i++)
        CHECK_DO(compare(r, what, i, (double)element_to_float(type, got[i]),
                         (double)element_to_float(type, want[i]), tolerance, floor));
    return 0;
}

int check_floats(struct check_run *r, const char *what, const float *got, const float *want,
                 size_t n, double tolerance, double floor)
{
    for (size_t i = 0; i < n; i++)
        CHECK_DO(compare(r, what, i, (double)got[i], (double)want[i], tolerance, floor));
    return 0;
}

int check_bytes(struct check_run *r, const char *what, const void *got, const void *want, size_t n)
{
    const uint8_t *a = got, *b = want;

    for (size_t i = 0; i < n; i++) {
        if (a[i] != b[i])
            return check_fail(r, "%s: byte %zu is %02x, expected %02x", what, i, a[i], b[i]);
    }
    return 0;
}
