/* offload_ref.c - plain C for the kernels through which rows leave the batch and come back. */
#include <math.h>
#include <string.h>

#include "gpu-engine/device/cuda/element.h"
#include "gpu-engine/device/cuda/gather.h"
#include "gpu-engine/device/cuda/pick_step.h"
#include "gpu-engine/device/cuda/rotary_write.h"

/* ---- Rotary embedding, pool and jobs ----------------------------------------------------------- */

enum { HEAD_DIM_MAX = 256 };

/* A head's values: normed, rotated, in float. */
static void head_norm(const struct rotary_write *a, float *x, const float *weight)
{
    uint32_t d = a->kv.head_dim;
    double squares = 0;

    for (uint32_t e = 0; e < d; e++)
        squares += (double)x[e] * (double)x[e];
    double factor = 1.0 / sqrt(squares / d + (double)a->head_eps);
    for (uint32_t e = 0; e < d; e++)
        x[e] = (float)((double)x[e] * factor * (double)weight[e]);
}

static void head_rotate(const struct rotary_write *a, float *x, uint32_t pos)
{
    uint32_t half = a->n_dims / 2;

    for (uint32_t n = 0; n < half; n++) {
        const float *turn = a->angles + ((size_t)pos * half + n) * 2;
        uint32_t i = a->is_neox ? n : 2 * n, j = a->is_neox ? n + half : 2 * n + 1;
        float low = x[i], high = x[j];

        x[i] = low * turn[0] - high * turn[1];
        x[j] = low * turn[1] + high * turn[0];
    }
}

static void head_take(const struct rotary_write *a, uint32_t row, uint32_t h, uint32_t pos,
                      float *x)
{
    uint32_t n_k = a->kv.n_kv_heads, d = a->kv.head_dim, type = cuda_kv_row_type(&a->kv);
    const uint16_t *from = a->qkv + ((size_t)row * (a->n_heads + 2 * n_k) + h) * d;

    for (uint32_t e = 0; e < d; e++)
        x[e] = element_to_float(type, from[e]);
    if (h >= a->n_heads + n_k)
        return;
    if (a->q_norm != NULL)
        head_norm(a, x, h < a->n_heads ? a->q_norm : a->k_norm);
    head_rotate(a, x, pos);
}

static void head_store(uint32_t type, const float *x, uint32_t d, void *to)
{
    uint16_t *out = to;

    for (uint32_t e = 0; e < d; e++)
        out[e] = element_from_float(type, x[e]);
}

static void head_store_i8(const float *x, uint32_t d, uint8_t *to, uint8_t *scale_at)
{
    float top = 0;

    for (uint32_t e = 0; e < d; e++)
        top = isfinite(x[e]) ? fmaxf(top, fabsf(x[e])) : top;
    float scale = top / 127.0f;
    memcpy(scale_at, &scale, sizeof scale);
    for (uint32_t e = 0; e < d; e++) {
        float q = scale > 0 ? rintf(x[e] / scale) : 0;
        to[e] = (uint8_t)(int8_t)(isfinite(q) ? fmaxf(-127.0f, fminf(127.0f, q)) : 0);
    }
}

/* Head h of a common row: q, then k, then v. */
static void common_store(const struct rotary_write *a, uint32_t row, uint32_t h, const float *x)
{
    const struct cuda_kv *kv = &a->kv;
    uint32_t pos = a->row[row].pos, n_k = kv->n_kv_heads, at = pos % kv->block_tokens;

    if (h < a->n_heads) {
        head_store(cuda_kv_row_type(kv), x, kv->head_dim,
                   a->q + ((size_t)row * a->n_heads + h) * kv->head_dim);
        return;
    }
    h -= a->n_heads;
    uint32_t block =
        kv->tables[(size_t)a->row[row].table * kv->table_stride + pos / kv->block_tokens];
    uint8_t *to = kv->pool + cuda_kv_row(kv, h < n_k ? kv->k_off : kv->v_off, block, h % n_k, at);
    if (kv->type != KV_TYPE_I8)
        head_store(kv->type, x, kv->head_dim, to);
    else
        head_store_i8(x, kv->head_dim, to,
                      kv->pool + cuda_kv_scale(kv, h < n_k ? kv->k_scale_off : kv->v_scale_off,
                                               block, h % n_k, at));
}

static void *job_place(const struct rotary_write *a, uint32_t slot, uint32_t j, uint32_t h)
{
    const struct cuda_jobs *jobs = &a->jobs;
    uint32_t n_k = a->kv.n_kv_heads, d = a->kv.head_dim;
    uint8_t *to = cuda_job_in(jobs, slot);

    if (h < a->n_heads)
        return to + ((size_t)j * jobs->q_width + (size_t)h * d) * 2;
    h -= a->n_heads;
    if (h < n_k)
        return to + jobs->k_off + ((size_t)j * jobs->k_width + (size_t)h * d) * 2;
    return to + jobs->v_off + ((size_t)j * jobs->v_width + (size_t)(h - n_k) * d) * 2;
}

static void job_post(const struct rotary_write *a, uint32_t slot)
{
    const struct cuda_job_owner *o = &a->owner[slot];
    struct cuda_job_head head = {.seq_idx = o->seq_idx,
                                 .seq_gen = o->seq_gen,
                                 .layer = a->layer,
                                 .n_q = o->n_q,
                                 .pos = o->pos,
                                 .ctx_len = o->pos + o->n_q,
                                 .deadline_ns = *a->deadline_ns,
                                 .sweep = *a->sweep};
    uint64_t word = cuda_job_word(a->generation[slot], a->jobs.epoch);
    uint8_t *line = cuda_job_slot(&a->jobs, slot);

    memcpy(line + sizeof word, &head, sizeof head);
    memcpy(line, &word, sizeof word);
    if (a->posted != NULL)
        a->posted[slot] = a->generation[slot];
}

static void unit_write(const struct rotary_write *a, uint32_t first)
{
    const struct rotary_row *unit = &a->row[first];
    uint32_t n = a->n_heads + 2 * a->kv.n_kv_heads;

    for (uint32_t i = 0; i < unit->n_q * n; i++) {
        float x[HEAD_DIM_MAX];
        uint32_t j = i / n, h = i % n;

        head_take(a, first + j, h, unit->pos + j, x);
        if (unit->slot == CUDA_SLOT_NONE)
            common_store(a, first + j, h, x);
        else
            head_store(cuda_kv_row_type(&a->kv), x, a->kv.head_dim, job_place(a, unit->slot, j, h));
    }
    if (unit->slot != CUDA_SLOT_NONE && unit->n_q > 0)
        job_post(a, unit->slot);
}

void rotary_write_ref(const struct rotary_write *a)
{
    uint32_t n = a->rows.n;

    if (a->rows.n_live != NULL && *a->rows.n_live < n)
        n = *a->rows.n_live;
    for (uint32_t r = 0; r < n; r++)
        unit_write(a, r);
}

/* ---- Picking and gathering ---------------------------------------------------------------------- */

/* Number i of the picked. */
static void take(const struct pick_step *a, uint32_t i, uint32_t *n_rows)
{
    uint32_t s = a->picked[i], status;
    struct pick_slot *slot = &a->slots[s];
    const uint8_t *job =
        a->job_slots[s / a->slots_per_worker] + (size_t)(s % a->slots_per_worker) * CUDA_SLOT_BYTES;

    memcpy(&status, job + CUDA_SLOT_STATUS, sizeof status);
    if (status != 0)
        a->picked[i] |= PICK_LOG_FAILED;

    a->log->n_ridden += slot->age == a->ask->sweep;
    for (uint32_t q = 0; q < slot->n_q; q++, (*n_rows)++) {
        a->row_slot[a->ask->n_common + *n_rows] = a->residual_first + s * a->n_q_max + q;
        a->source[*n_rows] = s << 8 | q;
        a->row[a->ask->n_common + *n_rows] =
            (struct rotary_row){.pos = a->owner[s].pos, .slot = s, .n_q = q == 0 ? slot->n_q : 0};
    }
    slot->generation++;
    slot->layer++;
    slot->age = a->ask->sweep;
    slot->state = a->is_last ? PICK_SLOT_FREE : PICK_SLOT_POSTED;
    a->generation[s] = slot->generation;
}

void pick_step_ref(const struct pick_step *a)
{
    uint32_t done[PICK_STEP_SLOTS_MAX], n_rows = 0, p_max = a->ask->p_max;

    if (a->budget != NULL && a->budget->p < p_max)
        p_max = a->budget->p;
    for (uint32_t s = 0; s < a->n_slots; s++)
        done[s] = a->done[s / a->slots_per_worker][s % a->slots_per_worker];
    a->log->n_ridden = 0;
    uint32_t n = pick_rows(a->slots, a->n_slots, a->layer, done, 1, a->ask->age_max,
                           a->ask->batches, p_max, a->picked);
    for (uint32_t i = 0; i < n; i++)
        take(a, i, &n_rows);
    if (a->budget != NULL)
        a->budget->p -= n_rows;
    *a->n_live = a->ask->n_common + n_rows;
    a->log->n_rows = n_rows;
    a->log->n_picked = n;
}

void gather_ref(const struct gather *a)
{
    for (uint32_t r = 0; *a->n_common + r < *a->n_live; r++)
        memcpy(a->out + (size_t)(*a->n_common + r) * a->width,
               cuda_job_out(&a->jobs, a->source[r] >> 8) +
                   (size_t)(a->source[r] & 0xff) * a->jobs.out_width * 2,
               a->width * sizeof *a->out);
}
