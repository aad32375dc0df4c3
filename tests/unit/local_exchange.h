/* local_exchange.h - an exchange without processes, for tests of a device: a job is computed on the
 * calling thread when it is posted, over an arena in private memory.
 *
 * Late results come from wrapping it (gpu-engine/exchange_delay.h).  One worker.  A sequence is its
 * index; the test fills its block tables, and may let two of them name the same blocks. */
#ifndef OMNI_TESTS_UNIT_LOCAL_EXCHANGE_H
#define OMNI_TESTS_UNIT_LOCAL_EXCHANGE_H

#include "common/kv/geometry.h"
#include "gpu-engine/exchange.h"

enum { LOCAL_SEQUENCES = 16 };

struct local_exchange;

/* Aborts the test program when there is no memory. */
struct local_exchange *local_exchange_create(const struct kv_geometry *g, uint32_t n_slots,
                                             uint32_t n_q_max, uint32_t n_blocks,
                                             uint32_t table_max);

struct exchange *local_exchange_base(struct local_exchange *x);

/* [table_max] arena blocks of a sequence's layer group, to be filled in. */
uint32_t *local_exchange_table(struct local_exchange *x, uint32_t seq_idx, uint32_t group);

/* An arena block that nobody has had before. */
uint32_t local_exchange_new_block(struct local_exchange *x);

/* Jobs computed so far that had n_q queries. */
uint64_t local_exchange_n_jobs(const struct local_exchange *x, uint32_t n_q);

#endif
