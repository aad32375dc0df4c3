#include "cpu-attnd/payload.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/half.h"

/* ---- Elements ------------------------------------------------------------------------------------ */

static void widen(enum job_element element, float *to, const uint16_t *from, size_t n)
{
    if (element == JOB_ELEMENT_BF16) {
        for (size_t i = 0; i < n; i++)
            to[i] = half_float_from_bits((uint32_t)from[i] << 16);
        return;
    }
    for (size_t i = 0; i < n; i++)
        to[i] = half_to_float(from[i]);
}

static void narrow(enum job_element element, uint16_t *to, const float *from, size_t n)
{
    if (element == JOB_ELEMENT_BF16) {
        for (size_t i = 0; i < n; i++)
            to[i] = float_to_bf16(from[i]);
        return;
    }
    for (size_t i = 0; i < n; i++)
        to[i] = float_to_half(from[i]);
}

/* ---- Memory -------------------------------------------------------------------------------------- */

int payload_init(struct payload *p, const struct job_table_layout *l, uint32_t n_jobs)
{
    size_t rows = l->n_q_max;

    *p = (struct payload){.memory = NULL};
    if (l->element == JOB_ELEMENT_F32)
        return 0;
    p->k_at = rows * l->q_width;
    p->v_at = p->k_at + rows * l->k_width;
    p->out_at = p->v_at + rows * l->v_width;
    p->stride = p->out_at + rows * l->out_width;
    p->memory = calloc(n_jobs * p->stride, sizeof *p->memory);
    return p->memory != NULL ? 0 : -ENOMEM;
}

void payload_fini(struct payload *p)
{
    free(p->memory);
    p->memory = NULL;
}

/* ---- A job --------------------------------------------------------------------------------------- */

void payload_place(const struct payload *p, const struct job_table *t, uint32_t slot, uint32_t i,
                   struct attn_job *attn)
{
    float *rows = p->memory + i * p->stride;

    attn->q = p->memory == NULL ? job_table_q(t, slot) : rows;
    attn->out = p->memory == NULL ? job_table_out(t, slot) : rows + p->out_at;
}

void payload_take(const struct payload *p, const struct job_table *t, uint32_t slot,
                  const struct attn_job *attn)
{
    const struct job_table_layout *l = &t->layout;
    const float *k = job_table_k(t, slot), *v = job_table_v(t, slot);

    if (p->memory != NULL) {
        float *rows = (float *)(uintptr_t)attn->q; /* ours: see payload_place */
        enum job_element element = (enum job_element)l->element;

        widen(element, rows, job_table_q(t, slot), (size_t)attn->n_q * l->q_width);
        widen(element, rows + p->k_at, job_table_k(t, slot), (size_t)attn->n_q * l->k_width);
        widen(element, rows + p->v_at, job_table_v(t, slot), (size_t)attn->n_q * l->v_width);
        k = rows + p->k_at;
        v = rows + p->v_at;
    }
    attn_append(&attn->kv, attn->pos, attn->n_q, k, l->k_width, v, l->v_width);
}

void payload_give(const struct payload *p, const struct job_table *t, uint32_t slot,
                  const struct attn_job *attn)
{
    if (p->memory != NULL)
        narrow((enum job_element)t->layout.element, job_table_out(t, slot), attn->out,
               (size_t)attn->n_q * t->layout.out_width);
}
