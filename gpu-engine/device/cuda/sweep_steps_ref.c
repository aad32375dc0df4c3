#include <string.h>

#include "gpu-engine/device/cuda/sweep_steps.h"

void sweep_begin_ref(const struct sweep_begin *a)
{
    for (uint32_t i = 0; i < a->head->n_leave; i++)
        a->slots[a->leave[i]].state = PICK_SLOT_FREE;
    for (uint32_t i = 0; i < a->head->n_enter; i++) {
        const struct sweep_enter *e = &a->enter[i];

        a->slots[e->slot] = (struct pick_slot){.generation = e->generation,
                                               .age = a->head->sweep,
                                               .state = PICK_SLOT_POSTED,
                                               .n_q = (uint16_t)e->owner.n_q};
        a->owner[e->slot] = e->owner;
        a->generation[e->slot] = e->generation;
        a->slot_sampling[e->slot] = e->sampling;
    }
    *a->n_live = a->head->n_rows;
    *a->budget = (struct pick_budget){.p = a->head->p, .wait_ns = a->head->wait_ns};
}

static void output_copy(const struct sweep_outputs *a, uint32_t to, uint32_t row,
                        const struct sampling_row *how)
{
    a->row[to] = *how;
    memcpy(a->out + (size_t)to * a->width, a->in + (size_t)row * a->width,
           a->width * sizeof *a->out);
}

void sweep_outputs_ref(const struct sweep_outputs *a)
{
    uint32_t n = a->head->n_out[0] + a->head->n_out[1], both = n;

    for (uint32_t i = 0; i < a->head->n_out[a->batch]; i++)
        output_copy(a, a->batch == 0 ? i : a->head->n_out[0] + i, a->out_row[i], &a->out_how[i]);
    for (uint32_t i = 0; a->n_live != NULL && i < *a->n_live - *a->n_common; i++) {
        uint32_t slot = a->source[i] >> 8;

        if ((a->source[i] & 0xff) + 1 != a->owner[slot].n_q)
            continue;
        a->out_slot[n - both] = slot;
        output_copy(a, n++, *a->n_common + i, &a->slot_sampling[slot]);
    }
    for (uint32_t g = 0; g < a->groups && a->batch == 0; g++) {
        uint32_t first = g * a->group_rows;
        a->n_outputs[g] = n <= first ? 0 : n - first < a->group_rows ? n - first : a->group_rows;
    }
}
