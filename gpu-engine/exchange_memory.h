/* exchange_memory.h - slots as a device reaches them that writes and reads them by itself.
 *
 * Payload, line and word of a job are the device's to write, in the order of common/shm/layout_jobs.h;
 * the hint is the exchange's (announce).  Addresses of this process, valid as long as the exchange. */
#ifndef OMNI_GPU_ENGINE_EXCHANGE_MEMORY_H
#define OMNI_GPU_ENGINE_EXCHANGE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* Of one worker. */
struct exchange_memory {
    void *base; /* whole pages, which hold all that follows */
    size_t bytes;
    uint8_t *slots, *in, *out;
    const uint32_t *done;
    uint32_t in_stride, out_stride, k_off, v_off;  /* bytes */
    uint32_t q_width, k_width, v_width, out_width; /* elements */
    uint32_t element;                              /* enum job_element */
    uint32_t epoch;                                /* of the engine, in the slots' words */
};

#endif
