#include "gpu-engine/device/pick.h"

static PICK_BOTH_SIDES int is_returned(const struct pick_slot *slot, uint32_t slot_idx,
                                       uint32_t n_slots, const uint32_t *done, uint32_t n_ranks)
{
    for (uint32_t r = 0; r < n_ranks; r++) {
        if (done[r * n_slots + slot_idx] != slot->generation)
            return 0;
    }
    return 1;
}

/* Slots are visited in ascending order, so an equal age keeps the lower slot first. */
static PICK_BOTH_SIDES uint32_t insert_by_age(const struct pick_slot *slots, uint32_t slot_idx,
                                              uint32_t *out, uint32_t n, uint32_t n_max)
{
    uint32_t at = n;

    while (at > 0 && slots[out[at - 1]].age > slots[slot_idx].age)
        at--;
    if (at == n_max)
        return n;
    for (uint32_t i = n < n_max ? n : n_max - 1; i > at; i--)
        out[i] = out[i - 1];
    out[at] = slot_idx;
    return n < n_max ? n + 1 : n;
}

PICK_BOTH_SIDES uint32_t pick_rows(const struct pick_slot *slots, uint32_t n_slots, uint32_t layer,
                                   const uint32_t *done, uint32_t n_ranks, uint64_t age_max,
                                   uint32_t batches, uint32_t p_max, uint32_t *out)
{
    uint32_t n = 0, n_rows = 0, n_taken = 0;

    for (uint32_t s = 0; s < n_slots; s++) {
        if (slots[s].state == PICK_SLOT_POSTED && slots[s].layer == layer &&
            slots[s].age <= age_max && (batches >> slots[s].batch & 1) != 0 &&
            is_returned(&slots[s], s, n_slots, done, n_ranks))
            n = insert_by_age(slots, s, out, n, p_max);
    }
    /* The first that does not fit ends the pick: to skip it for a younger one could starve it. */
    while (n_taken < n && n_rows + slots[out[n_taken]].n_q <= p_max)
        n_rows += slots[out[n_taken++]].n_q;
    return n_taken;
}
