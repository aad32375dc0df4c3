/* pick.h - which returned rows a layer takes: one function for every device.
 *
 * Oldest first among the finished jobs of this layer: the age is the sweep in which the job was
 * posted, ties go to the lower slot.  So nothing starves: a row that is passed over only gets
 * older against the others.  p_max counts rows (n_q of a slot), and a slot is taken whole.
 *
 * Plain C without state or calls, so that a GPU compiles the same text. */
#ifndef OMNI_GPU_ENGINE_DEVICE_PICK_H
#define OMNI_GPU_ENGINE_DEVICE_PICK_H

#include <stdint.h>

enum { PICK_SLOT_FREE = 0, PICK_SLOT_POSTED = 1 };

enum { PICK_ANY_BATCH = 3 }; /* bit b: rows of batch b */

/* What the device knows of an offloaded row; its own memory. */
struct pick_slot {
    uint32_t generation; /* of the job that is out */
    uint32_t layer;      /* of that job */
    uint64_t age;        /* sweep in which it was posted */
    uint16_t state;      /* PICK_SLOT_* */
    uint16_t n_q;
    uint32_t batch; /* of a two-batch sweep: 0 or 1 */
};

/* The kernel includes pick.c, whose functions then run on both sides. */
#ifdef __CUDACC__
#define PICK_BOTH_SIDES __host__ __device__
#else
#define PICK_BOTH_SIDES
#endif

/* Writes the picked slots, oldest first, to out[] (room for p_max) and returns their number.
 * done[s]: generation of the last finished job of slot s, on every rank for n_ranks > 1:
 * done[r * n_slots + s]; a row is returned when it is done on all of them.  Jobs younger than
 * age_max are passed over: without riding, those of the sweep itself; so are rows of batches that are
 * not among `batches` (bits). */
PICK_BOTH_SIDES uint32_t pick_rows(const struct pick_slot *slots, uint32_t n_slots, uint32_t layer,
                                   const uint32_t *done, uint32_t n_ranks, uint64_t age_max,
                                   uint32_t batches, uint32_t p_max, uint32_t *out);

#endif
