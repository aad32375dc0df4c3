/* rotary_write.h - what follows a QKV product: the heads' norm, where the model has one, and rotary
 * embedding; then each row goes its way.
 *
 * Common rows: q to a dense buffer, k and v into the paged pool, rounded to its type (8 bits: by the scale
 * of the token and head, largest magnitude / 127; what is not finite is stored as 0).  Rows of offloaded requests: q, k, v
 * into their slot, and the job is posted (job_slots.h); such a row then leaves the batch.
 *
 * Must move, per row of q_width + 2 k_width elements: as many read and written, 2 bytes each; those of
 * jobs over the host link.  Must do: 6 flops per rotated pair. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_ROTARY_WRITE_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_ROTARY_WRITE_H
#include "gpu-engine/device/cuda/job_slots.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A row, or the first of a job's n_q rows; the job's others have n_q = 0. */
struct rotary_row {
    uint32_t pos;
    uint32_t table; /* common rows: which table of kv.tables */
    uint32_t slot;  /* offloaded rows: job slot; else CUDA_SLOT_NONE */
    uint32_t n_q;
};

struct rotary_write {
    uint16_t *q;                  /* [rows][n_heads * head_dim]; rows of jobs are not written */
    const uint16_t *qkv;          /* [rows][(n_heads + 2 n_kv_heads) * head_dim]: q, k, v */
    const float *q_norm, *k_norm; /* [head_dim] weights of the heads' norm, or both NULL */
    const float *angles;          /* [positions][n_dims / 2][2]: cosine, sine */
    const struct rotary_row *row; /* [rows] */
    struct cuda_rows rows;
    struct cuda_kv kv; /* pool written at the rows' positions */
    struct cuda_jobs jobs;
    const struct cuda_job_owner *owner; /* [slots] */
    const uint32_t *generation;         /* [slots] of the job that is posted */
    const uint64_t *deadline_ns;        /* of the layer, by the workers' clock */
    const uint64_t *clock_ns;           /* what turns the GPU's clock into theirs, modulo 2^64 */
    const uint64_t *sweep;
    uint32_t *posted;   /* [slots] pinned: generation of the last job, after its word; or NULL */
    uint64_t *stamp_ns; /* when the first row's block was through, the GPU's clock; or NULL */
    uint32_t layer;
    uint32_t n_heads;
    uint32_t n_dims;  /* rotated elements of a head: 0, or a multiple of 16 */
    uint32_t is_neox; /* pairs (i, i + n_dims / 2); else (2i, 2i + 1) */
    float head_eps;   /* of the heads' norm */
};

int rotary_write(const struct rotary_write *a, cuda_stream stream);
/* The same, but that posted_ns of jobs is 0, and that nothing is stamped. */
void rotary_write_ref(const struct rotary_write *a);

#ifdef __cplusplus
}
#endif
#endif
