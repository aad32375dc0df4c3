#include "gpu-engine/device/rouse.h"

#include "gpu-engine/exchange.h"

void device_rouse(struct exchange *x, const struct device_sweep *in, const struct pick_slot *slots,
                  uint32_t n_slots, uint32_t n_out)
{
    uint64_t workers = 0;

    if (in->n_enter == 0 && n_out == 0)
        return;
    for (uint32_t i = 0; i < in->n_enter; i++)
        workers |= UINT64_C(1) << in->enter[i].slot / x->slots_per_worker;
    for (uint32_t i = 0; i < n_slots; i++) {
        if (slots[i].state == PICK_SLOT_POSTED)
            workers |= UINT64_C(1) << i / x->slots_per_worker;
    }
    for (uint32_t w = 0; w < x->n_workers; w++) {
        if ((workers >> w & 1) != 0)
            exchange_rouse(x, w);
    }
}
