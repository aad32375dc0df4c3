/* sim_live.h - the simulated device in a real group: with data, in the machine's own time.
 *
 * DESIGN.  Where no simulation drives it (device_config.sim is NULL) the device keeps what a model
 * would: a KV pool with real blocks, and for each row a residual.  The residual is one 64-bit number,
 * and the "model" is a hash: a layer makes q, k, v from the residual, attention over the KV is the
 * real one (common/compute, as on the cpu device and on the workers), and its output is folded into
 * the residual of the next layer.  So a token is a function of the tokens before it, of its position
 * and of the seed, bit for bit, through the very blocks, tables, copies, jobs and slots that a model
 * would use: whatever goes wrong there changes tokens, and dense products cost nothing.
 *
 * A sweep is walked when it is submitted, as in virtual time, and ends when its small fixed times are
 * over.  A walk takes no longer than its attention, so few rows ride: most advance one layer per
 * sweep.
 *
 * Engine thread, but for a thread that sleeps until something ends and then notifies. */
#ifndef OMNI_GPU_ENGINE_DEVICE_SIM_SIM_LIVE_H
#define OMNI_GPU_ENGINE_DEVICE_SIM_SIM_LIVE_H

#include "gpu-engine/device/device.h"
#include "gpu-engine/device/sim/sim_timing.h"

struct sim_live;

/* For config->model.  0, -EINVAL, -ENOMEM, or the error of a thread. */
int sim_live_create(struct sim_live **out, const struct device_config *config);
void sim_live_destroy(struct sim_live *live); /* NULL is allowed */

const struct sim_timing *sim_live_timing(const struct sim_live *live);
struct sim_clock *sim_live_clock(struct sim_live *live);

/* Notifies at that time, instead of any time told before; UINT64_MAX: never. */
void sim_live_wake_at(struct sim_live *live, uint64_t ns);

/* Residuals of all common rows, and of a row that enters. */
void sim_live_embed(struct sim_live *live, const struct device_sweep *in);
void sim_live_enter(struct sim_live *live, const struct device_enter *e);

/* Attention of a batch's common rows at layer l: appends their k and v. */
void sim_live_attend(struct sim_live *live, const struct device_sweep *in, uint32_t batch,
                     uint32_t l);

/* q, k, v of an offloaded row into its job; the output of its job into its residual. */
void sim_live_write_job(struct sim_live *live, uint32_t slot, uint32_t n_q, uint32_t l);
void sim_live_read_job(struct sim_live *live, uint32_t slot, uint32_t n_q, uint32_t l);

/* The token after a row: row of all common ones, or slot's last of n_q.  pos: the new token's. */
void sim_live_draw_common(const struct sim_live *live, uint32_t row, uint32_t pos,
                          const struct device_sampling *sampling, struct device_token *out);
void sim_live_draw_offloaded(const struct sim_live *live, uint32_t slot, uint32_t n_q, uint32_t pos,
                             const struct device_sampling *sampling, struct device_token *out);

/* The tokens of a sweep, which the next one may name (DEVICE_TOKEN_PREVIOUS). */
void sim_live_remember(struct sim_live *live, const struct device_done *done);

void sim_live_copy(struct sim_live *live, const struct device_copy *copy);

#endif
