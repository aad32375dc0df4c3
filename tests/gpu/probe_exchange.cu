/* probe_exchange.cu - what rows that leave and come back cost the sweep they leave: jobs out of and results
 * into a layer, Yi-34B's shape, few and many, over pinned memory directly and staged in device memory.
 *
 * Times are of launches inside a graph, so that only the device's side counts.  What is "added" is the
 * difference to the same graph without it. */
#include "gpu-engine/device/cuda/gather.h"
#include "gpu-engine/device/cuda/pick_step.h"
#include "gpu-engine/device/cuda/rotary_write.h"
#include "tests/gpu/probe_data.h"

#include <string.h>

enum {
    HEADS = 56,
    KV_HEADS = 8,
    WIDTH = 128,
    Q = HEADS * WIDTH,
    KV = KV_HEADS * WIDTH,
    COMMON = 64, /* LS rows beside which 8 jobs leave */
    SLOTS = 400,
    BLOCK_TOKENS = 64,
    REPEATS = 40, /* in a graph */
};

/* Slots and payload of one worker; staged: payload in device memory. */
struct exchange {
    struct cuda_jobs jobs;
    struct rotary_write out;
    struct pick_step pick;
    struct gather in;
    struct pick_slot *fresh;
    bool undo_only;
};

static int pinned_pointer(struct probe *p, uint8_t *const **out, uint8_t *to)
{
    uint8_t **words;
    PROBE_DO(probe_pinned_alloc(p, (void **)&words, sizeof *words));
    words[0] = to;
    *out = words;
    return 0;
}

static int payload_alloc(struct probe *p, uint8_t **out, size_t bytes, bool staged)
{
    return staged ? probe_elements(p, (void **)out, bytes / 2, 31)
                  : probe_pinned_alloc(p, (void **)out, bytes);
}

static int jobs_make(struct probe *p, struct cuda_jobs *j, bool staged)
{
    uint8_t *slots, *in, *out;
    memset(j, 0, sizeof *j);
    j->slots_per_worker = SLOTS;
    j->q_width = j->out_width = Q;
    j->k_width = j->v_width = KV;
    j->k_off = 2 * Q;
    j->v_off = j->k_off + 2 * KV;
    j->in_stride = j->v_off + 2 * KV;
    j->out_stride = 2 * Q;
    j->epoch = 1;
    PROBE_DO(probe_pinned_alloc(p, (void **)&slots, (size_t)SLOTS * CUDA_SLOT_BYTES));
    PROBE_DO(payload_alloc(p, &in, (size_t)SLOTS * j->in_stride, staged));
    PROBE_DO(payload_alloc(p, &out, (size_t)SLOTS * j->out_stride, staged));
    PROBE_DO(pinned_pointer(p, &j->slots, slots));
    PROBE_DO(pinned_pointer(p, &j->in, in));
    return pinned_pointer(p, &j->out, out);
}

/* n_common rows, then n_jobs jobs of one row. */
static int rows_make(struct probe *p, struct rotary_write *a, uint32_t n_common, uint32_t n_jobs)
{
    struct rotary_row rows[COMMON + SLOTS];
    for (uint32_t i = 0; i < n_common + n_jobs; i++)
        rows[i] = {i % BLOCK_TOKENS, i, i < n_common ? CUDA_SLOT_NONE : i - n_common, 1};
    a->rows.n = n_common + n_jobs;
    return probe_words(p, rows, a->rows.n * sizeof rows[0] / 4, (const uint32_t **)&a->row);
}

static int zeros(struct probe *p, void *out, size_t bytes)
{
    void *at;
    PROBE_DO(probe_device_alloc(p, &at, bytes));
    PROBE_TRY(p, cudaMemset(at, 0, bytes));
    memcpy(out, &at, sizeof at);
    return 0;
}

/* A pool of a block a row: where common rows write. */
static int pool_make(struct probe *p, struct cuda_kv *kv)
{
    uint32_t tables[COMMON + SLOTS];
    for (uint32_t i = 0; i < COMMON + SLOTS; i++)
        tables[i] = i;
    kv->block_tokens = BLOCK_TOKENS;
    kv->n_kv_heads = KV_HEADS;
    kv->head_dim = WIDTH;
    kv->type = KV_TYPE_BF16;
    kv->v_off = (uint64_t)KV * BLOCK_TOKENS * 2;
    kv->block_bytes = 2 * kv->v_off;
    kv->table_stride = 1;
    PROBE_DO(probe_words(p, tables, COMMON + SLOTS, &kv->tables));
    return zeros(p, &kv->pool, (COMMON + SLOTS) * kv->block_bytes);
}

static int out_make(struct probe *p, struct exchange *x)
{
    struct rotary_write *a = &x->out;
    memset(a, 0, sizeof *a);
    a->jobs = x->jobs;
    a->n_heads = HEADS;
    a->n_dims = WIDTH;
    PROBE_DO(pool_make(p, &a->kv));
    PROBE_DO(probe_elements(p, (void **)&a->qkv, (size_t)(COMMON + SLOTS) * (Q + 2 * KV), 32));
    PROBE_DO(zeros(p, &a->q, (size_t)(COMMON + SLOTS) * Q * 2));
    PROBE_DO(zeros(p, &a->angles, (size_t)BLOCK_TOKENS * WIDTH * 4));
    PROBE_DO(zeros(p, &a->owner, SLOTS * sizeof *a->owner));
    PROBE_DO(zeros(p, &a->generation, SLOTS * 4));
    PROBE_DO(zeros(p, &a->deadline_ns, 8));
    PROBE_DO(zeros(p, &a->clock_ns, 8));
    return zeros(p, &a->sweep, 8);
}

static cudaError_t out_launch(void *arg, unsigned, cudaStream_t stream)
{
    return (cudaError_t)rotary_write(&((const struct exchange *)arg)->out, stream);
}

/* What 8 jobs add to 64 common rows, and what a number of jobs alone takes. */
static int out_time(struct probe *p, struct exchange *x, uint32_t n_common, uint32_t n_jobs,
                    double *us)
{
    PROBE_DO(rows_make(p, &x->out, n_common, n_jobs));
    return probe_time_in_graph(p, {out_launch, x}, REPEATS, us);
}

/* ---- In ------------------------------------------------------------------------------------------------ */

static int pick_make(struct probe *p, struct exchange *x)
{
    struct pick_step *a = &x->pick;
    memset(a, 0, sizeof *a);
    PROBE_DO(zeros(p, &a->slots, SLOTS * sizeof *a->slots));
    PROBE_DO(zeros(p, &a->owner, SLOTS * sizeof *a->owner));
    PROBE_DO(zeros(p, &a->n_live, 4));
    PROBE_DO(zeros(p, &a->row_slot, SLOTS * 4));
    PROBE_DO(zeros(p, &a->row, SLOTS * sizeof *a->row));
    PROBE_DO(zeros(p, &a->source, SLOTS * 4));
    PROBE_DO(zeros(p, &a->generation, SLOTS * 4));
    PROBE_DO(probe_pinned_alloc(p, (void **)&a->picked, PICK_STEP_ROWS_MAX * 4));
    PROBE_DO(probe_pinned_alloc(p, (void **)&a->log, sizeof *a->log));
    a->job_slots = (const uint8_t *const *)x->jobs.slots;
    a->slots_per_worker = a->n_slots = SLOTS;
    a->n_q_max = 1;
    return 0;
}

/* n jobs of the layer are back, the others are elsewhere. */
static int back_make(struct probe *p, struct exchange *x, uint32_t n)
{
    struct pick_slot slots[SLOTS] = {};
    struct pick_ask *ask;
    uint8_t *const *done;
    uint32_t *words;
    PROBE_DO(probe_pinned_alloc(p, (void **)&ask, sizeof *ask));
    PROBE_DO(probe_pinned_alloc(p, (void **)&words, SLOTS * 4));
    PROBE_DO(pinned_pointer(p, &done, (uint8_t *)words));
    ask->sweep = 9;
    ask->age_max = UINT64_MAX;
    ask->p_max = n;
    ask->batches = PICK_ANY_BATCH;
    for (uint32_t s = 0; s < SLOTS; s++) {
        slots[s].generation = words[s] = 7;
        slots[s].state = PICK_SLOT_POSTED;
        slots[s].n_q = 1;
        slots[s].layer = s % (SLOTS / n) == 0 ? 0 : 1;
    }
    PROBE_DO(probe_words(p, slots, sizeof slots / 4, (const uint32_t **)&x->fresh));
    x->pick.ask = ask;
    x->pick.done = (const uint32_t *const *)done;
    return 0;
}

static int in_make(struct probe *p, struct exchange *x)
{
    struct gather *a = &x->in;
    memset(a, 0, sizeof *a);
    PROBE_DO(zeros(p, &a->out, (size_t)SLOTS * Q * 2));
    PROBE_DO(zeros(p, &a->n_common, 4));
    a->source = x->pick.source;
    a->n_live = x->pick.n_live;
    a->jobs = x->jobs;
    a->width = Q;
    return 0;
}

/* The step changes its slots: a copy undoes that, timed apart. */
static cudaError_t in_launch(void *arg, unsigned, cudaStream_t stream)
{
    const struct exchange *x = (const struct exchange *)arg;
    int rc = cudaMemcpyAsync(x->pick.slots, x->fresh, SLOTS * sizeof *x->fresh,
                             cudaMemcpyDeviceToDevice, stream);
    if (rc == 0 && !x->undo_only)
        rc = pick_step(&x->pick, stream);
    if (rc == 0 && !x->undo_only)
        rc = gather(&x->in, stream);
    return (cudaError_t)rc;
}

/* Pick and gather of n rows, without what undoes them. */
static int in_time(struct probe *p, struct exchange *x, uint32_t n, double *us)
{
    double undo_us;
    PROBE_DO(back_make(p, x, n));
    x->in.rows_max = n;
    x->undo_only = true;
    PROBE_DO(probe_time_in_graph(p, {in_launch, x}, REPEATS, &undo_us));
    x->undo_only = false;
    PROBE_DO(probe_time_in_graph(p, {in_launch, x}, REPEATS, us));
    if (x->pick.log->n_picked != n)
        return probe_fail(p, "%u rows were picked, not %u", x->pick.log->n_picked, n);
    *us -= undo_us;
    return 0;
}

/* ---- Measurements -------------------------------------------------------------------------------------- */

static int exchange_open(struct probe *p, struct exchange *x, bool staged)
{
    memset(x, 0, sizeof *x);
    PROBE_DO(jobs_make(p, &x->jobs, staged));
    PROBE_DO(out_make(p, x));
    PROBE_DO(pick_make(p, x));
    return in_make(p, x);
}

static int measure_8(struct probe *p)
{
    struct exchange x;
    double with_us, without_us, in_us;
    PROBE_DO(exchange_open(p, &x, false));
    PROBE_DO(out_time(p, &x, COMMON, 0, &without_us));
    PROBE_DO(out_time(p, &x, COMMON, 8, &with_us));
    probe_number(p, without_us, "rotary_64_us");
    probe_number(p, with_us - without_us, "out8_us");
    PROBE_DO(in_time(p, &x, 8, &in_us));
    probe_number(p, in_us, "in8_us");
    return 0;
}

/* Against 10 us and the bytes at 0.85 of the pinned copy rate. */
static void ratio(struct probe *p, const char *key, double us, double bytes, double gbps)
{
    probe_number(p, us / (10.0 + bytes / (0.85 * gbps * 1e3)), "%s", key);
}

static int measure_400(struct probe *p)
{
    struct exchange x;
    double us, h2d, d2h;
    PROBE_DO(probe_earlier(p, "h2d_gbps", &h2d));
    PROBE_DO(probe_earlier(p, "d2h_gbps", &d2h));
    PROBE_DO(exchange_open(p, &x, false));
    PROBE_DO(out_time(p, &x, 0, SLOTS, &us));
    probe_number(p, us, "out400_us");
    ratio(p, "out400_ratio", us, (double)SLOTS * x.jobs.in_stride, d2h);
    PROBE_DO(in_time(p, &x, SLOTS, &us));
    probe_number(p, us, "in400_us");
    ratio(p, "in400_ratio", us, (double)SLOTS * x.jobs.out_stride, h2d);
    return 0;
}

/* The same with payload in device memory, and the copy engine's share of the way. */
static int measure_400_staged(struct probe *p)
{
    struct exchange x;
    double us;
    void *pinned;
    PROBE_DO(exchange_open(p, &x, true));
    PROBE_DO(out_time(p, &x, 0, SLOTS, &us));
    probe_number(p, us, "out400_staged_us");
    PROBE_DO(in_time(p, &x, SLOTS, &us));
    probe_number(p, us, "in400_staged_us");
    const size_t bytes = (size_t)SLOTS * x.jobs.in_stride;
    struct {
        void *to;
        const void *from;
        size_t bytes;
    } drain = {NULL, x.jobs.in[0], bytes};
    PROBE_DO(probe_pinned_alloc(p, &pinned, bytes));
    drain.to = pinned;
    const auto copy = [](void *arg, unsigned, cudaStream_t stream) {
        const auto *d = (decltype(drain) *)arg;
        return cudaMemcpyAsync(d->to, d->from, d->bytes, cudaMemcpyDeviceToHost, stream);
    };
    PROBE_DO(probe_time(p, {copy, &drain}, 5, 9, &us));
    probe_number(p, us, "out400_drain_us");
    return 0;
}

static const struct probe_measurement measurements[] = {
    {"out8_us", measure_8},
    {"out400_ratio", measure_400},
    {"out400_staged_us", measure_400_staged},
};

const struct probe_part part_exchange = {"exchange", "jobs out and results in, Yi-34B's shape", 30,
                                         3, measurements};
