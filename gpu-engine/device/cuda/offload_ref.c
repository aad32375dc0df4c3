/* offload_ref.c - plain C for the kernels through which rows leave the batch and come back. */
#include <string.h>

#include "gpu-engine/device/cuda/element.h"
#include "gpu-engine/device/cuda/gather.h"
#include "gpu-engine/device/cuda/pick_step.h"
#include "gpu-engine/device/cuda/rotary_write.h"

/* ---- Rotary embedding, pool and jobs ----------------------------------------------------------- */

static void pair_rotate(const struct rotary_write *a, uint16_t *head, uint32_t i, uint32_t j,
                        const float *turn)
{
    float x = element_to_float(a->kv.type, head[i]), y = element_to_float(a->kv.type, head[j]);

    head[i] = element_from_float(a->kv.type, x * turn[0] - y * turn[1]);
    head[j] = element_from_float(a->kv.type, x * turn[1] + y * turn[0]);
}

static void head_rotate(const struct rotary_write *a, uint16_t *head, uint32_t pos)
{
    uint32_t half = a->n_dims / 2;

    for (uint32_t i = 0; i < half; i++) {
        const float *turn = a->angles + ((size_t)pos * half + i) * 2;
        if (a->is_neox)
            pair_rotate(a, head, i, i + half, turn);
        else
            pair_rotate(a, head, 2 * i, 2 * i + 1, turn);
    }
}

/* Where head h of a row goes; heads: q, then k, then v. */
static void *common_place(const struct rotary_write *a, uint32_t row, uint32_t h)
{
    const struct cuda_kv *kv = &a->kv;
    uint32_t pos = a->row[row].pos, n_k = kv->n_kv_heads;

    if (h < a->n_heads)
        return a->q + ((size_t)row * a->n_heads + h) * kv->head_dim;
    h -= a->n_heads;
    uint32_t block =
        kv->tables[(size_t)a->row[row].table * kv->table_stride + pos / kv->block_tokens];
    return kv->pool +
           cuda_kv_row(kv, h < n_k ? kv->k_off : kv->v_off, block, h % n_k, pos % kv->block_tokens);
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
                                 .sweep = a->sweep};
    uint64_t word = cuda_job_word(a->generation[slot], a->jobs.epoch);
    uint8_t *line = cuda_job_slot(&a->jobs, slot);

    memcpy(line + sizeof word, &head, sizeof head);
    memcpy(line, &word, sizeof word);
}

static void unit_write(const struct rotary_write *a, uint32_t first)
{
    const struct rotary_row *unit = &a->row[first];
    uint32_t n_rotated = a->n_heads + a->kv.n_kv_heads, n = n_rotated + a->kv.n_kv_heads;
    size_t bytes = a->kv.head_dim * sizeof(uint16_t);

    for (uint32_t i = 0; i < unit->n_q * n; i++) {
        uint32_t j = i / n, h = i % n;
        void *to = unit->slot == CUDA_SLOT_NONE ? common_place(a, first + j, h)
                                                : job_place(a, unit->slot, j, h);

        memcpy(to, a->qkv + ((size_t)(first + j) * n + h) * a->kv.head_dim, bytes);
        if (h < n_rotated)
            head_rotate(a, to, unit->pos + j);
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

static void take(const struct pick_step *a, uint32_t s, uint32_t *n_rows)
{
    struct pick_slot *slot = &a->slots[s];

    a->log->n_ridden += slot->age == a->ask->sweep;
    for (uint32_t q = 0; q < slot->n_q; q++, (*n_rows)++) {
        a->row_slot[a->n_common + *n_rows] = a->residual_first + s * a->n_q_max + q;
        a->source[*n_rows] = s << 8 | q;
        a->row[a->n_common + *n_rows] =
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
    uint32_t done[PICK_STEP_SLOTS_MAX], n_rows = 0;

    for (uint32_t s = 0; s < a->n_slots; s++)
        done[s] = a->done[s / a->slots_per_worker][s % a->slots_per_worker];
    a->log->n_ridden = 0;
    uint32_t n = pick_rows(a->slots, a->n_slots, a->layer, done, 1, a->ask->age_max,
                           a->ask->batches, a->ask->p_max, a->log->picked);
    for (uint32_t i = 0; i < n; i++)
        take(a, a->log->picked[i], &n_rows);
    *a->n_live = a->n_common + n_rows;
    a->log->n_rows = n_rows;
    a->log->n_picked = n;
}

void gather_ref(const struct gather *a)
{
    for (uint32_t r = 0; a->n_common + r < *a->n_live; r++)
        memcpy(a->out + (size_t)(a->n_common + r) * a->width,
               cuda_job_out(&a->jobs, a->source[r] >> 8) +
                   (size_t)(a->source[r] & 0xff) * a->jobs.out_width * 2,
               a->width * sizeof *a->out);
}
