/* Rows that leave the batch and come back: rotary embedding with pool and jobs, the pick step, the
 * gather.  Only rotation rounds (two products and a sum in float, then 16 bits); all else is bytes. */
#include <math.h>
#include <string.h>

#include "gpu-engine/device/cuda/element.h"
#include "gpu-engine/device/cuda/gather.h"
#include "gpu-engine/device/cuda/pick_step.h"
#include "gpu-engine/device/cuda/rotary_write.h"
#include "tests/gpu/checks/checks.h"

enum { WORKERS = 2, PER_WORKER = 3, SLOTS = WORKERS * PER_WORKER, N_Q = 2, POSITIONS = 150 };

/* Slots and payload of two workers; all bytes of the payload are 0xa5 before. */
static int jobs_make(struct check_run *r, struct cuda_jobs *j, uint32_t q_width, uint32_t k_width)
{
    uint8_t **slots, **in, **out;

    *j = (struct cuda_jobs){.slots_per_worker = PER_WORKER,
                            .q_width = q_width + 16,
                            .k_width = k_width + 8,
                            .v_width = k_width + 8,
                            .out_width = q_width + 16,
                            .epoch = 5};
    j->k_off = N_Q * j->q_width * 2;
    j->v_off = j->k_off + N_Q * j->k_width * 2;
    j->in_stride = j->v_off + N_Q * j->v_width * 2;
    j->out_stride = N_Q * j->out_width * 2;
    CHECK_ALLOC(r, slots, CHECK_PINNED, WORKERS);
    CHECK_ALLOC(r, in, CHECK_PINNED, WORKERS);
    CHECK_ALLOC(r, out, CHECK_PINNED, WORKERS);
    for (uint32_t w = 0; w < WORKERS; w++) {
        CHECK_ALLOC(r, slots[w], CHECK_PINNED, PER_WORKER * CUDA_SLOT_BYTES);
        CHECK_ALLOC(r, in[w], CHECK_PINNED, PER_WORKER * j->in_stride);
        CHECK_ALLOC(r, out[w], CHECK_PINNED, PER_WORKER * j->out_stride);
        memset(in[w], 0xa5, PER_WORKER * j->in_stride);
        check_fill(r, KV_TYPE_F16, (uint16_t *)(void *)out[w], PER_WORKER * j->out_stride / 2,
                   1.0f);
    }
    j->slots = slots;
    j->in = in;
    j->out = out;
    return 0;
}

static int owners_make(struct check_run *r, const struct cuda_job_owner **out)
{
    struct cuda_job_owner *owner;

    CHECK_ALLOC(r, owner, CHECK_POOL, SLOTS);
    for (uint32_t s = 0; s < SLOTS; s++)
        owner[s] = (struct cuda_job_owner){
            .seq_idx = 40 + s, .seq_gen = 3 * s, .pos = 17 * s + 1, .n_q = 1 + s % N_Q};
    *out = owner;
    return 0;
}

/* ---- Rotary embedding, pool and jobs ----------------------------------------------------------- */

/* Three common rows, a job of two rows, a job of one, and a row that is not there. */
static int rows_fill(struct check_run *r, struct rotary_write *a)
{
    static const struct rotary_row ROWS[] = {
        {.pos = 31, .table = 1, .slot = CUDA_SLOT_NONE, .n_q = 1},
        {.pos = 32, .table = 1, .slot = CUDA_SLOT_NONE, .n_q = 1},
        {.pos = 0, .table = 0, .slot = CUDA_SLOT_NONE, .n_q = 1},
        {.pos = 52, .slot = 3, .n_q = 2},
        {.pos = 52, .slot = 3, .n_q = 0},
        {.pos = 69, .slot = 4, .n_q = 1},
        {.pos = 1, .slot = 0, .n_q = 1},
    };
    struct rotary_row *row;
    uint32_t *n_live;

    CHECK_ALLOC(r, row, CHECK_POOL, sizeof ROWS / sizeof ROWS[0]);
    CHECK_ALLOC(r, n_live, CHECK_POOL, 1);
    memcpy(row, ROWS, sizeof ROWS);
    a->row = row;
    a->rows.n = sizeof ROWS / sizeof ROWS[0];
    *n_live = a->rows.n - 1;
    a->rows.n_live = n_live;
    return 0;
}

static int angles_fill(struct check_run *r, struct rotary_write *a)
{
    float *angles;
    size_t n = (size_t)POSITIONS * a->n_dims / 2;

    CHECK_ALLOC(r, angles, CHECK_POOL, 2 * n + 1);
    for (size_t i = 0; i < n; i++) {
        double angle = (double)check_uniform(r, -3.0f, 3.0f);
        angles[2 * i] = (float)cos(angle);
        angles[2 * i + 1] = (float)sin(angle);
    }
    a->angles = angles;
    return 0;
}

static int rotary_inputs(struct check_run *r, struct rotary_write *a)
{
    size_t n_qkv;
    uint16_t *qkv;
    uint32_t *generation;
    uint64_t *deadline;

    CHECK_DO(rows_fill(r, a));
    CHECK_DO(angles_fill(r, a));
    CHECK_DO(owners_make(r, &a->owner));
    CHECK_DO(
        jobs_make(r, &a->jobs, a->n_heads * a->kv.head_dim, a->kv.n_kv_heads * a->kv.head_dim));
    n_qkv = (size_t)a->rows.n * (a->n_heads + 2 * a->kv.n_kv_heads) * a->kv.head_dim;
    CHECK_ALLOC(r, qkv, CHECK_POOL, n_qkv);
    CHECK_ALLOC(r, a->q, CHECK_POOL, (size_t)a->rows.n * a->n_heads * a->kv.head_dim);
    CHECK_ALLOC(r, generation, CHECK_POOL, SLOTS);
    CHECK_ALLOC(r, deadline, CHECK_POOL, 1);
    check_fill(r, a->kv.type, qkv, n_qkv, 2.0f);
    for (uint32_t s = 0; s < SLOTS; s++)
        generation[s] = 100 + s;
    *deadline = UINT64_C(0x123456789a);
    a->qkv = qkv;
    a->generation = generation;
    a->deadline_ns = deadline;
    return 0;
}

/* The slots but posted_ns, which must be a time. */
static int compare_slots(struct check_run *r, const struct rotary_write *got,
                         const struct rotary_write *want)
{
    const size_t at = sizeof(uint64_t) + offsetof(struct cuda_job_head, posted_ns);

    for (uint32_t s = 0; s < SLOTS; s++) {
        uint8_t *line = cuda_job_slot(&got->jobs, s), *expected = cuda_job_slot(&want->jobs, s);
        uint64_t posted_ns, word;
        memcpy(&posted_ns, line + at, sizeof posted_ns);
        memcpy(&word, expected, sizeof word);
        if ((posted_ns != 0) != (word != 0))
            return check_fail(r, "slot %u: posted at %llu", s, (unsigned long long)posted_ns);
        memset(line + at, 0, sizeof posted_ns);
        CHECK_DO(check_bytes(r, "job slot", line, expected, CUDA_SLOT_BYTES));
    }
    return 0;
}

static int compare_rotary(struct check_run *r, const struct rotary_write *got,
                          const struct rotary_write *want, size_t pool_bytes)
{
    const uint32_t type = got->kv.type;
    const double rounding = 2.1 * element_epsilon(type);
    size_t n_q = (size_t)got->rows.n * got->n_heads * got->kv.head_dim;

    CHECK_DO(check_elements(r, "q", type, got->q, want->q, n_q, rounding, 0.05));
    for (uint32_t s = 0; s < SLOTS; s++)
        CHECK_DO(check_elements(r, "payload", type,
                                (const uint16_t *)(const void *)cuda_job_in(&got->jobs, s),
                                (const uint16_t *)(const void *)cuda_job_in(&want->jobs, s),
                                got->jobs.in_stride / 2, rounding, 0.05));
    const uint16_t *a = (const uint16_t *)(const void *)got->kv.pool,
                   *b = (const uint16_t *)(const void *)want->kv.pool;
    for (size_t i = 0; i < pool_bytes / 2; i++) {
        if (b[i] == 0xffff && a[i] != 0xffff)
            return check_fail(r, "the pool was written at %zu", 2 * i);
        if (b[i] != 0xffff)
            CHECK_DO(check_elements(r, "pool", type, a + i, b + i, 1, rounding, 0.05));
    }
    return compare_slots(r, got, want);
}

static int rotary_shape(struct check_run *r, uint32_t head_dim, uint32_t n_dims, uint32_t is_neox,
                        uint32_t type)
{
    struct rotary_write a = {
        .layer = 6,
        .sweep = 77,
        .n_heads = 4,
        .n_dims = n_dims,
        .is_neox = is_neox,
        .kv = {.block_tokens = 32, .n_kv_heads = 2, .head_dim = head_dim, .type = type}};

    CHECK_DO(check_kv(r, &a.kv, 2, 64));
    CHECK_DO(rotary_inputs(r, &a));

    struct rotary_write want = a;
    size_t pool_bytes = 7 * a.kv.block_bytes; /* as check_kv makes it: 2 * 2 + 3 */
    size_t q_bytes = (size_t)a.rows.n * a.n_heads * head_dim * sizeof *a.q;
    CHECK_DO(jobs_make(r, &want.jobs, a.n_heads * head_dim, a.kv.n_kv_heads * head_dim));
    want.q = check_copy(r, a.q, q_bytes);
    want.kv.pool = check_copy(r, a.kv.pool, pool_bytes);
    if (want.q == NULL || want.kv.pool == NULL)
        return -1;
    rotary_write_ref(&want);
    CHECK_DO(check_wait(r, "rotary_write", rotary_write(&a, r->stream)));
    return compare_rotary(r, &a, &want, pool_bytes);
}

int check_rotary_write(struct check_run *r)
{
    CHECK_DO(rotary_shape(r, 128, 128, 1, KV_TYPE_BF16));
    CHECK_DO(rotary_shape(r, 64, 64, 0, KV_TYPE_F16));
    CHECK_DO(rotary_shape(r, 64, 32, 1, KV_TYPE_BF16));
    return rotary_shape(r, 128, 0, 0, KV_TYPE_F16);
}

/* ---- Picking and gathering ---------------------------------------------------------------------- */

enum { PICK_COMMON = 5, PICK_SLOTS_MAX = 900 };

/* Slots in random states: layers, ages, batches, back or not. */
static void slots_fill(struct check_run *r, struct pick_step *a, struct cuda_job_owner *owner,
                       uint32_t *const done[])
{
    for (uint32_t s = 0; s < a->n_slots; s++) {
        uint32_t n_q = 1 + check_below(r, 8) / 7;
        a->slots[s] = (struct pick_slot){.generation = check_below(r, 1000),
                                         .layer = check_below(r, 3),
                                         .age = 50 + check_below(r, 6),
                                         .state = (uint16_t)(check_below(r, 5) > 0),
                                         .n_q = (uint16_t)n_q,
                                         .batch = check_below(r, 2)};
        owner[s] = (struct cuda_job_owner){.pos = s, .n_q = n_q};
        done[s / a->slots_per_worker][s % a->slots_per_worker] =
            a->slots[s].generation - check_below(r, 2);
    }
}

static int pick_make(struct check_run *r, struct pick_step *a)
{
    uint32_t **done;
    struct cuda_job_owner *owner;
    size_t n_rows = PICK_COMMON + PICK_STEP_ROWS_MAX;

    CHECK_ALLOC(r, a->slots, CHECK_POOL, a->n_slots);
    CHECK_ALLOC(r, owner, CHECK_POOL, a->n_slots);
    CHECK_ALLOC(r, done, CHECK_PINNED, a->n_slots / a->slots_per_worker + 1);
    for (uint32_t w = 0; w < a->n_slots / a->slots_per_worker + 1; w++)
        CHECK_ALLOC(r, done[w], CHECK_PINNED, a->slots_per_worker);
    CHECK_ALLOC(r, a->log, CHECK_PINNED, 1);
    CHECK_ALLOC(r, a->n_live, CHECK_POOL, 1);
    CHECK_ALLOC(r, a->row_slot, CHECK_POOL, n_rows);
    CHECK_ALLOC(r, a->row, CHECK_POOL, n_rows);
    CHECK_ALLOC(r, a->source, CHECK_POOL, n_rows);
    CHECK_ALLOC(r, a->generation, CHECK_POOL, a->n_slots);
    slots_fill(r, a, owner, done);
    a->owner = owner;
    a->done = (const uint32_t *const *)done;
    return 0;
}

/* Copies of all that the step writes. */
static int pick_copy(struct check_run *r, const struct pick_step *a, struct pick_step *to)
{
    size_t n_rows = PICK_COMMON + PICK_STEP_ROWS_MAX;

    *to = *a;
    to->slots = check_copy(r, a->slots, a->n_slots * sizeof *a->slots);
    to->log = check_copy(r, a->log, sizeof *a->log);
    to->n_live = check_copy(r, a->n_live, sizeof *a->n_live);
    to->row_slot = check_copy(r, a->row_slot, n_rows * sizeof *a->row_slot);
    to->row = check_copy(r, a->row, n_rows * sizeof *a->row);
    to->source = check_copy(r, a->source, n_rows * sizeof *a->source);
    to->generation = check_copy(r, a->generation, a->n_slots * sizeof *a->generation);
    return to->generation == NULL ? -1 : 0;
}

static int pick_compare(struct check_run *r, const struct pick_step *a,
                        const struct pick_step *want)
{
    size_t n_rows = PICK_COMMON + PICK_STEP_ROWS_MAX;

    if (a->log->n_picked != want->log->n_picked || a->log->n_rows != want->log->n_rows ||
        a->log->n_ridden != want->log->n_ridden || *a->n_live != *want->n_live)
        return check_fail(r, "picked %u (%u rows, %u rode), expected %u (%u, %u)", a->log->n_picked,
                          a->log->n_rows, a->log->n_ridden, want->log->n_picked, want->log->n_rows,
                          want->log->n_ridden);
    CHECK_DO(check_bytes(r, "picked", a->log->picked, want->log->picked,
                         a->log->n_picked * sizeof(uint32_t)));
    CHECK_DO(check_bytes(r, "slots", a->slots, want->slots, a->n_slots * sizeof *a->slots));
    CHECK_DO(check_bytes(r, "row_slot", a->row_slot, want->row_slot, n_rows * sizeof(uint32_t)));
    CHECK_DO(check_bytes(r, "row", a->row, want->row, n_rows * sizeof *a->row));
    CHECK_DO(check_bytes(r, "source", a->source, want->source, n_rows * sizeof(uint32_t)));
    return check_bytes(r, "generation", a->generation, want->generation,
                       a->n_slots * sizeof *a->generation);
}

static int pick_shape(struct check_run *r, uint32_t n_slots, const struct pick_ask *values,
                      uint32_t is_last)
{
    struct pick_step a = {.slots_per_worker = 200,
                          .n_slots = n_slots,
                          .n_common = PICK_COMMON,
                          .layer = 1,
                          .is_last = is_last,
                          .n_q_max = 8,
                          .residual_first = 64};
    struct pick_step want;
    struct pick_ask *ask;

    CHECK_ALLOC(r, ask, CHECK_PINNED, 1);
    *ask = *values;
    a.ask = ask;
    CHECK_DO(pick_make(r, &a));
    CHECK_DO(pick_copy(r, &a, &want));
    pick_step_ref(&want);
    CHECK_DO(check_wait(r, "pick_step", pick_step(&a, r->stream)));
    if (ask->wait_ns > 0 && ask->want == UINT32_MAX &&
        (a.log->waited_ns < ask->wait_ns || a.log->waited_ns > UINT64_C(1000000000)))
        return check_fail(r, "waited %llu ns of %u", (unsigned long long)a.log->waited_ns,
                          ask->wait_ns);
    return pick_compare(r, &a, &want);
}

int check_pick_step(struct check_run *r)
{
    const struct pick_ask all = {.sweep = 55, .age_max = UINT64_MAX, .p_max = 512, .batches = 3};
    struct pick_ask few = all, old = all, patient = all;

    few.p_max = 9;
    old.age_max = 54;
    old.batches = 2;
    old.p_max = 40;
    patient.p_max = 30;
    patient.wait_ns = 200000;
    patient.want = UINT32_MAX; /* never enough: the clock must end it */
    CHECK_DO(pick_shape(r, PICK_SLOTS_MAX, &all, 0));
    CHECK_DO(pick_shape(r, PICK_SLOTS_MAX, &few, 0));
    CHECK_DO(pick_shape(r, 257, &old, 1));
    CHECK_DO(pick_shape(r, 1, &all, 0));
    return pick_shape(r, 400, &patient, 0);
}

int check_gather(struct check_run *r)
{
    static const uint32_t SOURCE[] = {4 << 8, 1 << 8 | 1, 1 << 8, 5 << 8 | 1, 0};
    struct gather a = {.n_common = 3, .rows_max = 5, .width = 1096}, want;
    size_t n = (size_t)(a.n_common + a.rows_max) * a.width;
    uint32_t *source, *n_live;

    CHECK_DO(jobs_make(r, &a.jobs, a.width, 64));
    CHECK_ALLOC(r, a.out, CHECK_POOL, n);
    CHECK_ALLOC(r, source, CHECK_POOL, a.rows_max);
    CHECK_ALLOC(r, n_live, CHECK_POOL, 1);
    memcpy(source, SOURCE, sizeof SOURCE);
    *n_live = a.n_common + 4;
    a.source = source;
    a.n_live = n_live;
    want = a;
    if ((want.out = check_copy(r, a.out, n * sizeof *a.out)) == NULL)
        return -1;
    gather_ref(&want);
    CHECK_DO(check_wait(r, "gather", gather(&a, r->stream)));
    return check_bytes(r, "gather", a.out, want.out, n * sizeof *a.out);
}
