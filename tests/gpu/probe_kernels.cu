/* probe_kernels.cu - the CUDA device's kernels: that they compute what their references do, and how near
 * they come to the ceilings that parts `ceilings` and `gemm` measured in this run.
 *
 * The checks are those that run on the CPU (checks/), over managed and pinned memory.  Timings are on
 * random data, K, V and weights far beyond any L2, each launch back to back with the next. */
#include "gpu-engine/device/cuda/decode_attention.h"
#include "gpu-engine/device/cuda/gemv.h"
#include "gpu-engine/device/cuda/pick_step.h"
#include "gpu-engine/device/cuda/prefill_attention.h"
#include "gpu-engine/device/cuda/sampling.h"
#include "tests/gpu/checks/check.h"
#include "tests/gpu/probe_data.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- Against the references ---------------------------------------------------------------------- */

static void *check_memory_alloc(enum check_memory kind, size_t bytes)
{
    void *memory = NULL;
    const cudaError_t rc = kind == CHECK_PINNED
                               ? cudaHostAlloc(&memory, bytes, cudaHostAllocPortable)
                               : cudaMallocManaged(&memory, bytes);
    return rc == cudaSuccess ? memory : NULL;
}

static void check_memory_release(enum check_memory kind, void *memory)
{
    (void)(kind == CHECK_PINNED ? cudaFreeHost(memory) : cudaFree(memory));
}

static int check_sync(void)
{
    return cudaDeviceSynchronize();
}

static int measure_checks(struct probe *p)
{
    struct check_run run = {};
    size_t n_right = 0;
    run.alloc = check_memory_alloc;
    run.release = check_memory_release;
    run.sync = check_sync;
    run.stream = p->stream;
    for (size_t i = 0; i < N_CHECKS; i++) {
        char key[REPORT_KEY_MAX];
        snprintf(key, sizeof key, "check_%s_worst", CHECKS[i].name);
        if (check_execute(&run, &CHECKS[i]) != 0) {
            report_error(p->report, key, "%s", run.why);
            continue;
        }
        report_number(p->report, key, run.worst);
        n_right++;
    }
    report_text(p->report, "kernel_checks", "%zu/%zu", n_right, N_CHECKS);
    return 0;
}

/* ---- Attention -------------------------------------------------------------------------------------------- */

enum { HEAD_DIM = 128, BLOCK_TOKENS = 64 };

/* A pool for n_seqs sequences of n_tokens; blocks in an order without pattern (n_blocks is a power of two,
 * so an odd factor permutes). */
static int pool_alloc(struct probe *p, struct cuda_kv *kv, uint32_t n_seqs, uint32_t n_tokens)
{
    const uint32_t per_seq = n_tokens / BLOCK_TOKENS, n_blocks = n_seqs * per_seq;
    const uint64_t n_rows = (uint64_t)kv->n_kv_heads * BLOCK_TOKENS;
    const uint64_t half = n_rows * HEAD_DIM * cuda_kv_element_bytes(kv->type);
    uint32_t *tables = (uint32_t *)malloc(n_blocks * sizeof *tables);
    if (tables == NULL)
        return probe_fail(p, "no memory for tables");
    for (uint32_t i = 0; i < n_blocks; i++)
        tables[i] = i * 2654435761u & (n_blocks - 1);
    const int rc = probe_words(p, tables, n_blocks, &kv->tables);
    free(tables);
    PROBE_DO(rc);
    kv->table_stride = per_seq;
    kv->block_tokens = BLOCK_TOKENS;
    kv->head_dim = HEAD_DIM;
    kv->row_type = KV_TYPE_BF16;
    kv->v_off = half;
    kv->k_scale_off = 2 * half;
    kv->v_scale_off = kv->k_scale_off + n_rows * 4;
    kv->block_bytes = 2 * half + (kv->type == KV_TYPE_I8 ? 2 * n_rows * 4 : 0);
    return probe_elements(p, (void **)&kv->pool, n_blocks * kv->block_bytes / 2, 11);
}

static cudaError_t decode_work(void *arg, unsigned, cudaStream_t stream)
{
    return (cudaError_t)decode_attention((const struct decode_attention *)arg, stream);
}

/* The best of three cuts, as a share of bandwidth: K and V once, with 8 bits their scales as well. */
static int decode_share(struct probe *p, uint32_t n_seqs, uint32_t n_tokens, uint32_t group,
                        uint32_t type, const char *key)
{
    struct decode_attention a = {};
    uint32_t lengths[64];
    double best_us = 0.0, gbps;
    a.n_seqs = n_seqs;
    a.ctx_max = n_tokens;
    a.kv.n_kv_heads = 8;
    a.kv.type = type;
    a.n_heads = 8 * group;
    a.scale = 1.0f / sqrtf(HEAD_DIM);
    a.split_tokens = 256;
    for (uint32_t i = 0; i < n_seqs; i++)
        lengths[i] = n_tokens;
    PROBE_DO(probe_bandwidth(p, &gbps));
    PROBE_DO(pool_alloc(p, &a.kv, n_seqs, n_tokens));
    PROBE_DO(probe_words(p, lengths, n_seqs, &a.ctx_len));
    PROBE_DO(probe_elements(p, (void **)&a.q, (size_t)n_seqs * a.n_heads * HEAD_DIM, 12));
    PROBE_DO(probe_elements(p, (void **)&a.out, (size_t)n_seqs * a.n_heads * HEAD_DIM, 13));
    PROBE_DO(probe_device_alloc(p, (void **)&a.partial, decode_attention_scratch(&a)));
    for (a.split_tokens = 256; a.split_tokens <= 1024; a.split_tokens *= 2) {
        double us;
        PROBE_DO(probe_time(p, {decode_work, &a}, 3, 9, &us));
        probe_number(p, us, "%s_split%u_us", key, a.split_tokens);
        best_us = best_us == 0.0 || us < best_us ? us : best_us;
    }
    const double token = type == KV_TYPE_I8 ? 2.0 * (HEAD_DIM + 4) : 4.0 * HEAD_DIM;
    const double bytes = token * a.kv.n_kv_heads * n_seqs * (double)n_tokens;
    probe_number(p, 100.0 * probe_gbps(bytes, best_us) / gbps, "%s_pct", key);
    return 0;
}

static int measure_decode_gqa8(struct probe *p)
{
    return decode_share(p, 64, 4096, 8, KV_TYPE_BF16, "decode_attn");
}
static int measure_decode_gqa4(struct probe *p)
{
    return decode_share(p, 64, 4096, 4, KV_TYPE_BF16, "decode_attn_gqa4");
}
static int measure_decode_32k(struct probe *p)
{
    return decode_share(p, 8, 32768, 8, KV_TYPE_BF16, "decode_attn_32k");
}
static int measure_decode_i8(struct probe *p)
{
    return decode_share(p, 64, 4096, 8, KV_TYPE_I8, "decode_attn_i8");
}

static cudaError_t prefill_work(void *arg, unsigned, cudaStream_t stream)
{
    return (cudaError_t)prefill_attention((const struct prefill_attention *)arg, stream);
}

static int measure_prefill(struct probe *p)
{
    const double n = 4096.0;
    struct prefill_attention a = {};
    struct prefill_chunk chunk = {0, 4096, 0, 0};
    double us, tflops;
    a.n_chunks = 1;
    a.rows_max = chunk.n_rows;
    a.n_heads = 32;
    a.kv.n_kv_heads = 8;
    a.kv.type = KV_TYPE_BF16;
    a.scale = 1.0f / sqrtf(HEAD_DIM);
    PROBE_DO(probe_earlier(p, "gemm_bf16_tflops", &tflops));
    PROBE_DO(pool_alloc(p, &a.kv, 1, chunk.n_rows));
    PROBE_DO(probe_words(p, &chunk, 4, (const uint32_t **)&a.chunk));
    PROBE_DO(probe_elements(p, (void **)&a.q, (size_t)chunk.n_rows * a.n_heads * HEAD_DIM, 12));
    PROBE_DO(probe_elements(p, (void **)&a.out, (size_t)chunk.n_rows * a.n_heads * HEAD_DIM, 13));
    const double flops = 4.0 * HEAD_DIM * a.n_heads * n * (n + 1.0) / 2.0;
    double best = 0.0;
    for (a.groups = 1; a.groups <= 2; a.groups++) {
        PROBE_DO(probe_time(p, {prefill_work, &a}, 5, 9, &us));
        probe_number(p, flops / us / 1e6, "prefill_attn_groups%u_tflops", a.groups);
        best = flops / us / 1e6 > best ? flops / us / 1e6 : best;
    }
    probe_number(p, best, "prefill_attn_tflops");
    probe_number(p, 100.0 * best / tflops, "prefill_attn_pct");
    return 0;
}

/* ---- GEMV ---------------------------------------------------------------------------------------------------- */

static cudaError_t gemv_work(void *arg, unsigned, cudaStream_t stream)
{
    return (cudaError_t)gemv((const struct gemv *)arg, stream);
}

/* 28,672 x 8,192: 470 MB of weights. */
static int measure_gemv(struct probe *p)
{
    struct gemv a = {};
    double gbps, us;
    a.n_out = 28672;
    a.n_in = 8192;
    a.type = KV_TYPE_BF16;
    PROBE_DO(probe_bandwidth(p, &gbps));
    PROBE_DO(probe_elements(p, (void **)&a.w, (size_t)a.n_out * a.n_in, 14));
    PROBE_DO(probe_elements(p, (void **)&a.x, (size_t)GEMV_ROWS_MAX * a.n_in, 15));
    PROBE_DO(probe_elements(p, (void **)&a.out, (size_t)GEMV_ROWS_MAX * a.n_out, 16));
    for (a.n_rows = 1; a.n_rows <= GEMV_ROWS_MAX; a.n_rows *= 2) {
        PROBE_DO(probe_time(p, {gemv_work, &a}, 5, 9, &us));
        probe_number(p, 100.0 * probe_gbps(2.0 * a.n_out * a.n_in, us) / gbps, "gemv_rows%u_pct",
                     a.n_rows);
    }
    return 0;
}

/* ---- Sampling ------------------------------------------------------------------------------------------------ */

enum { SAMPLED_ROWS = 64, VOCAB = 128256 };

static cudaError_t sampling_work(void *arg, unsigned, cudaStream_t stream)
{
    return (cudaError_t)sampling((const struct sampling *)arg, stream);
}

/* Rows that are all drawn alike. */
static int sampling_time(struct probe *p, struct sampling *a, struct sampling_row how,
                         const char *key)
{
    struct sampling_row rows[SAMPLED_ROWS];
    double us;
    for (uint32_t i = 0; i < SAMPLED_ROWS; i++) {
        rows[i] = how;
        rows[i].seed = i;
    }
    PROBE_DO(probe_words(p, rows, sizeof rows / 4, (const uint32_t **)&a->row));
    for (a->rows.n = 1; a->rows.n <= SAMPLED_ROWS; a->rows.n *= SAMPLED_ROWS) {
        PROBE_DO(probe_time_in_graph(p, {sampling_work, a}, 20, &us));
        probe_number(p, us, "sampling_%s_rows%u_us", key, a->rows.n);
    }
    return 0;
}

/* 128k tokens; logits as two bf16 in a float: some +-0.25 to 2. */
static int measure_sampling(struct probe *p)
{
    struct sampling a = {};
    struct sampling_row greedy = {}, top_p = {}, top_k = {};
    const size_t scratch = sampling_scratch(SAMPLED_ROWS, VOCAB, 0);
    a.n_vocab = VOCAB;
    a.scratch_rows = SAMPLED_ROWS;
    greedy.top_p = 1.0f;
    top_p.temperature = top_k.temperature = 0.1f;
    top_p.top_p = top_k.top_p = 0.9f;
    top_k.top_k = 50;
    PROBE_DO(probe_elements(p, (void **)&a.logits, (size_t)SAMPLED_ROWS * VOCAB * 2, 17));
    PROBE_DO(probe_device_alloc(p, (void **)&a.tokens, SAMPLED_ROWS * 4));
    PROBE_DO(probe_device_alloc(p, (void **)&a.logprobs, SAMPLED_ROWS * 4));
    PROBE_DO(probe_device_alloc(p, &a.scratch, scratch));
    PROBE_TRY(p, cudaMemset(a.scratch, 0, scratch));
    PROBE_DO(sampling_time(p, &a, greedy, "greedy"));
    PROBE_DO(sampling_time(p, &a, top_p, "top_p"));
    return sampling_time(p, &a, top_k, "top_k");
}

/* ---- Pick ---------------------------------------------------------------------------------------------------- */

enum { PICK_SLOTS = 400, PICK_BACK = 8 };

/* The step changes its slots: each launch is preceded by a copy that undoes it, timed apart. */
struct pick_work {
    struct pick_step step;
    struct pick_slot *fresh;
    bool only_undo;
};

static cudaError_t pick_work_launch(void *arg, unsigned, cudaStream_t stream)
{
    const struct pick_work *w = (const struct pick_work *)arg;
    const cudaError_t rc = cudaMemcpyAsync(w->step.slots, w->fresh, PICK_SLOTS * sizeof *w->fresh,
                                           cudaMemcpyDeviceToDevice, stream);
    return rc != cudaSuccess || w->only_undo ? rc : (cudaError_t)pick_step(&w->step, stream);
}

static int pick_outputs(struct probe *p, struct pick_step *a)
{
    PROBE_DO(probe_device_alloc(p, (void **)&a->slots, PICK_SLOTS * sizeof *a->slots));
    PROBE_DO(probe_device_alloc(p, (void **)&a->owner, PICK_SLOTS * sizeof *a->owner));
    PROBE_TRY(p, cudaMemset((void *)a->owner, 0, PICK_SLOTS * sizeof *a->owner));
    PROBE_DO(probe_device_alloc(p, (void **)&a->n_live, 4));
    PROBE_DO(probe_device_alloc(p, (void **)&a->row_slot, PICK_SLOTS * 4));
    PROBE_DO(probe_device_alloc(p, (void **)&a->source, PICK_SLOTS * 4));
    PROBE_DO(probe_device_alloc(p, (void **)&a->generation, PICK_SLOTS * 4));
    PROBE_DO(probe_device_alloc(p, (void **)&a->row, PICK_SLOTS * sizeof *a->row));
    PROBE_DO(probe_pinned_alloc(p, (void **)&a->picked, PICK_STEP_ROWS_MAX * 4));
    return probe_pinned_alloc(p, (void **)&a->log, sizeof *a->log);
}

static int pick_inputs(struct probe *p, struct pick_work *w)
{
    struct pick_slot slots[PICK_SLOTS] = {};
    struct pick_ask *ask;
    uint32_t **done;
    uint8_t **job_slots;
    PROBE_DO(probe_pinned_alloc(p, (void **)&job_slots, sizeof *job_slots));
    PROBE_DO(probe_pinned_alloc(p, (void **)&job_slots[0], PICK_SLOTS * CUDA_SLOT_BYTES));
    PROBE_DO(probe_pinned_alloc(p, (void **)&ask, sizeof *ask));
    PROBE_DO(probe_pinned_alloc(p, (void **)&done, sizeof *done));
    PROBE_DO(probe_pinned_alloc(p, (void **)&done[0], PICK_SLOTS * 4));
    memset(job_slots[0], 0, PICK_SLOTS * CUDA_SLOT_BYTES);
    *ask = {9, UINT64_MAX, 0, PICK_BACK, 0, 0, PICK_ANY_BATCH};
    for (uint32_t s = 0; s < PICK_SLOTS; s++) {
        slots[s].generation = 7;
        slots[s].state = PICK_SLOT_POSTED;
        slots[s].n_q = 1;
        slots[s].layer = s % (PICK_SLOTS / PICK_BACK);
        done[0][s] = 7;
    }
    PROBE_DO(probe_words(p, slots, sizeof slots / 4, (const uint32_t **)&w->fresh));
    w->step.ask = ask;
    w->step.done = (const uint32_t *const *)done;
    w->step.job_slots = (const uint8_t *const *)job_slots;
    w->step.slots_per_worker = w->step.n_slots = PICK_SLOTS;
    w->step.n_q_max = 1;
    return 0;
}

static int measure_pick(struct probe *p)
{
    struct pick_work w = {};
    double both_us, undo_us;
    PROBE_DO(pick_outputs(p, &w.step));
    PROBE_DO(pick_inputs(p, &w));
    PROBE_DO(probe_time(p, {pick_work_launch, &w}, 20, 15, &both_us));
    if (w.step.log->n_picked != PICK_BACK)
        return probe_fail(p, "picked %u of %d", w.step.log->n_picked, PICK_BACK);
    w.only_undo = true;
    PROBE_DO(probe_time(p, {pick_work_launch, &w}, 20, 15, &undo_us));
    probe_number(p, both_us - undo_us, "pick_us");
    return 0;
}

static const struct probe_measurement measurements[] = {
    {"kernel_checks", measure_checks},
    {"decode_attn_pct", measure_decode_gqa8},
    {"decode_attn_gqa4_pct", measure_decode_gqa4},
    {"decode_attn_32k_pct", measure_decode_32k},
    {"decode_attn_i8_pct", measure_decode_i8},
    {"prefill_attn_pct", measure_prefill},
    {"gemv_rows1_pct", measure_gemv},
    {"sampling_greedy_rows1_us", measure_sampling},
    {"pick_us", measure_pick},
};

const struct probe_part part_kernels = {"kernels", "the CUDA device's kernels: right, and how fast",
                                        60, sizeof measurements / sizeof measurements[0],
                                        measurements};
