/* profile.h - what the modules of a model cost on a device: taken once, kept in a file.
 *
 * A profile is the latency model before any correction, and a key: for which model, device,
 * instruction set, number of threads and KV layout it was measured.  engine_init obtains one before
 * it is ready; `omni profile` takes, shows and checks one.
 *
 * DESIGN of the measuring.  Layers that cost the same are one kind, measured once.  Dense time over
 * rows is a staircase: it is bisected between 1 row and a sweep's most, always at the largest
 * remaining difference, until neighbours differ by no more than time(16) - time(1), or by little of
 * their own time, or the time for it is spent; between its steps the model interpolates.
 * Attention: some decodes and chunks over short and long contexts, fitted.  SmolLM2-135M on one
 * core takes about three seconds.
 *
 * Caller's thread; the device has had no sweep yet, and its KV pool is overwritten. */
#ifndef OMNI_GPU_ENGINE_PROFILE_H
#define OMNI_GPU_ENGINE_PROFILE_H

#include "common/base/error.h"
#include "common/model/model.h"
#include "common/sched/latency.h"
#include "gpu-engine/device/device.h"

enum { PROFILE_VERSION = 1, PROFILE_PATH_MAX = 512 };

struct profile_key {
    uint64_t model_hash;
    char device[16], variant[16];
    uint32_t n_threads;
    uint32_t kv_type, block_tokens;
    uint32_t rows_max; /* measured up to; a profile of more rows serves as well */
};

struct profile {
    struct profile_key key;
    struct latency_model latency;
};

/* What is measured, and how far. */
struct profile_subject {
    const struct device_ops *ops;
    struct device *device;
    const struct model *model;
    const struct kv_geometry *geometry;
    uint32_t rows_max, seqs_max, context_max;
};

/* Empties *m and sets its layers and kinds.  0, or -ENOTSUP: too many different layers. */
int profile_set_kinds(struct latency_model *m, const struct model *model, struct error *err);

void profile_key_of(struct profile_key *key, const struct profile_subject *s);

/* Measures.  0, or -errno with *err. */
int profile_take(struct profile *p, const struct profile_subject *s, struct error *err);

/* engine.profile: the file of engine.profile_dir if it fits, else measured afresh (with a warning
 * that says what did not fit) and written there; a file that cannot be written is a warning too. */
int profile_obtain(struct profile *p, const struct profile_subject *s, const char *dir, bool fresh,
                   struct error *err);

/* One measured module, and what the model says of it. */
int profile_measure(const struct profile_subject *s, const struct device_shape *shape, double *ns,
                    struct error *err);

#endif
