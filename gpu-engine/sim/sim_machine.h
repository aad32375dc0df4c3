/* sim_machine.h - named machines, and the time that a model takes on them.
 *
 * Times come from first principles: a dense product takes the longer of reading its weights and of
 * its arithmetic, rounded up to whole tiles; attention takes its KV bytes, or its pairs; ranks add
 * two all-reduces a layer of alpha + beta * bytes.  Peaks are the makers', the shares of them that
 * are reached are those seen in published profiles (vidur: A100 0.78 of the arithmetic and of the
 * bandwidth, H100 0.69; LLMServingSim: RTX 4090 0.74 of the bandwidth).  A profile that was
 * measured takes the place of all that (sim_machine_use_profile). */
#ifndef OMNI_GPU_ENGINE_SIM_SIM_MACHINE_H
#define OMNI_GPU_ENGINE_SIM_SIM_MACHINE_H

#include "common/base/error.h"
#include "gpu-engine/device/sim/sim_timing.h"
#include "gpu-engine/sim/sim_model.h"

struct sim_gpu {
    const char *name;
    double memory_bytes;
    double bytes_per_ns, flops_per_ns; /* peaks; 16-bit products */
    double bytes_share, flops_share;   /* reached by large products */
    double attention_bytes_share, attention_flops_share;
    double layer_ns;  /* of a layer, whatever its rows: kernels' starts and ends */
    double host_link; /* bytes per ns, each direction */
};

struct sim_machine {
    const char *name, *doc;
    const struct sim_gpu *gpu;
    uint32_t n_gpus;                                 /* ranks of one replica */
    double collective_ns, collective_bytes_per_ns;   /* all-reduce: alpha, and a rank's link */
    uint32_t n_sockets;                              /* of the host: a worker each */
    double socket_bytes_per_ns, socket_flops_per_ns; /* reached by all its cores */
    double host_bytes;                               /* DRAM for arenas, over all sockets */
    uint32_t n_hosts;                                /* further hosts: a worker each */
    double remote_bytes_per_ns, remote_bytes;
    double net_bytes_per_ns, hop_ns;
};

/* NULL: unknown; *known lists the names. */
const struct sim_machine *sim_machine_find(const char *name, const char **known);

/* KV bytes of the device: 92 % of its memory less weights and work space; 0: the model does not
 * fit. */
double sim_machine_kv_bytes(const struct sim_machine *machine, const struct sim_model *model);

/* First principles, for sweeps of at most rows_max rows.  Noise and seed are left 0. */
void sim_machine_timing(const struct sim_machine *machine, const struct sim_model *model,
                        enum kv_type type, uint32_t rows_max, struct sim_timing *t);

/* Device times from a profile file (of `omni profile`, or converted); its layers must be the
 * model's.  Where it was taken with another KV type, what attention reads is scaled by the bytes.
 * 0, or -errno with *err. */
int sim_machine_use_profile(struct sim_timing *t, const struct sim_model *model, enum kv_type type,
                            const char *path, struct error *err);

#endif
