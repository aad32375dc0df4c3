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

/* The sweep's number, the clock's offset, and what the host's thread looks at. */
static int words_fill(struct check_run *r, struct rotary_write *a)
{
    uint64_t *word;

    CHECK_ALLOC(r, word, CHECK_POOL, 3);
    CHECK_ALLOC(r, a->posted, CHECK_PINNED, SLOTS);
    word[0] = 77;
    word[1] = UINT64_C(1) << 40;
    a->sweep = &word[0];
    a->clock_ns = &word[1];
    a->stamp_ns = &word[2];
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
    check_fill(r, cuda_kv_row_type(&a->kv), qkv, n_qkv, 2.0f);
    for (uint32_t s = 0; s < SLOTS; s++)
        generation[s] = 100 + s;
    *deadline = UINT64_C(0x123456789a);
    a->qkv = qkv;
    a->generation = generation;
    a->deadline_ns = deadline;
    return words_fill(r, a);
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
        if ((posted_ns > *got->clock_ns) != (word != 0))
            return check_fail(r, "slot %u: posted at %llu", s, (unsigned long long)posted_ns);
        if (got->posted[s] != word >> 32)
            return check_fail(r, "slot %u: generation %u is told", s, got->posted[s]);
        memset(line + at, 0, sizeof posted_ns);
        CHECK_DO(check_bytes(r, "job slot", line, expected, CUDA_SLOT_BYTES));
    }
    return 0;
}

/* What was not written before is not written now: all bytes ff. */
static int compare_pool(struct check_run *r, const struct rotary_write *got,
                        const struct rotary_write *want, size_t pool_bytes, double rounding)
{
    const uint16_t *a = (const uint16_t *)(const void *)got->kv.pool,
                   *b = (const uint16_t *)(const void *)want->kv.pool;

    for (size_t i = 0; i < pool_bytes / 2; i++) {
        if (b[i] == 0xffff && a[i] != 0xffff)
            return check_fail(r, "the pool was written at %zu", 2 * i);
        if (b[i] != 0xffff)
            CHECK_DO(check_elements(r, "pool", got->kv.type, a + i, b + i, 1, rounding, 0.05));
    }
    return 0;
}

/* 8 bits: an element may be off by one, where it lay between two; a scale by a rounding in float. */
static int compare_pool_i8(struct check_run *r, const struct rotary_write *got,
                           const struct rotary_write *want, uint32_t row)
{
    const struct cuda_kv *kv = &got->kv;
    uint32_t pos = got->row[row].pos, at = pos % kv->block_tokens;
    uint32_t block =
        kv->tables[(size_t)got->row[row].table * kv->table_stride + pos / kv->block_tokens];

    for (uint32_t h = 0; h < 2 * kv->n_kv_heads; h++) {
        uint32_t head = h / 2;
        uint64_t from = cuda_kv_row(kv, h % 2 ? kv->v_off : kv->k_off, block, head, at);
        uint64_t scale =
            cuda_kv_scale(kv, h % 2 ? kv->v_scale_off : kv->k_scale_off, block, head, at);
        CHECK_DO(check_floats(r, "scale", (const float *)(const void *)(got->kv.pool + scale),
                              (const float *)(const void *)(want->kv.pool + scale), 1, 1e-5, 1e-6));
        for (uint32_t e = 0; e < kv->head_dim; e++) {
            int x = (int8_t)got->kv.pool[from + e], y = (int8_t)want->kv.pool[from + e];
            if (x - y > 1 || y - x > 1)
                return check_fail(r, "row %u, head %u, element %u: %d, expected %d", row, h, e, x,
                                  y);
        }
    }
    return 0;
}

static int compare_rotary(struct check_run *r, const struct rotary_write *got,
                          const struct rotary_write *want, size_t pool_bytes)
{
    const uint32_t type = cuda_kv_row_type(&got->kv);
    const double rounding = 2.1 * fmax(element_epsilon(type), element_epsilon(got->kv.type));
    size_t n_q = (size_t)got->rows.n * got->n_heads * got->kv.head_dim;

    CHECK_DO(check_elements(r, "q", type, got->q, want->q, n_q, rounding, 0.05));
    for (uint32_t s = 0; s < SLOTS; s++)
        CHECK_DO(check_elements(r, "payload", type,
                                (const uint16_t *)(const void *)cuda_job_in(&got->jobs, s),
                                (const uint16_t *)(const void *)cuda_job_in(&want->jobs, s),
                                got->jobs.in_stride / 2, rounding, 0.05));
    if (got->kv.type != KV_TYPE_I8)
        CHECK_DO(compare_pool(r, got, want, pool_bytes, rounding));
    for (uint32_t i = 0; got->kv.type == KV_TYPE_I8 && i < *got->rows.n_live; i++) {
        if (got->row[i].slot == CUDA_SLOT_NONE)
            CHECK_DO(compare_pool_i8(r, got, want, i));
    }
    return compare_slots(r, got, want);
}

/* How a row is made: its width and rotation, the types of rows and pool, whether heads are normed. */
struct rotary_case {
    uint32_t head_dim, n_dims, is_neox, type, row_type, norms;
};

static int norms_make(struct check_run *r, struct rotary_write *a, uint32_t norms)
{
    float *weights;

    CHECK_ALLOC(r, weights, CHECK_POOL, 2 * a->kv.head_dim);
    check_fill_floats(r, weights, 2 * a->kv.head_dim, 1.5f);
    a->q_norm = norms ? weights : NULL;
    a->k_norm = norms ? weights + a->kv.head_dim : NULL;
    a->head_eps = 1e-6f;
    return 0;
}

static int rotary_shape(struct check_run *r, const struct rotary_case *c)
{
    struct rotary_write a = {.layer = 6,
                             .n_heads = 4,
                             .n_dims = c->n_dims,
                             .is_neox = c->is_neox,
                             .kv = {.block_tokens = 32,
                                    .n_kv_heads = 2,
                                    .head_dim = c->head_dim,
                                    .type = c->type,
                                    .row_type = c->row_type}};

    CHECK_DO(check_kv(r, &a.kv, 2, 64));
    CHECK_DO(rotary_inputs(r, &a));
    CHECK_DO(norms_make(r, &a, c->norms));

    struct rotary_write want = a;
    size_t pool_bytes = 7 * a.kv.block_bytes; /* as check_kv makes it: 2 * 2 + 3 */
    size_t q_bytes = (size_t)a.rows.n * a.n_heads * c->head_dim * sizeof *a.q;
    CHECK_DO(jobs_make(r, &want.jobs, a.n_heads * c->head_dim, a.kv.n_kv_heads * c->head_dim));
    want.q = check_copy(r, a.q, q_bytes);
    want.posted = check_copy(r, a.posted, SLOTS * sizeof *a.posted);
    want.kv.pool = check_copy(r, a.kv.pool, pool_bytes);
    if (want.q == NULL || want.posted == NULL || want.kv.pool == NULL)
        return -1;
    rotary_write_ref(&want);
    CHECK_DO(check_wait(r, "rotary_write", rotary_write(&a, r->stream)));
    if (*a.stamp_ns == 0)
        return check_fail(r, "rotary_write: no time stamp");
    return compare_rotary(r, &a, &want, pool_bytes);
}

int check_rotary_write(struct check_run *r)
{
    static const struct rotary_case CASES[] = {
        {128, 128, 1, KV_TYPE_BF16, 0, 0},
        {64, 64, 0, KV_TYPE_F16, 0, 0},
        {64, 32, 1, KV_TYPE_BF16, 0, 1},
        {128, 0, 0, KV_TYPE_F16, 0, 0},
        {80, 80, 0, KV_TYPE_BF16, 0, 1},
        {96, 48, 1, KV_TYPE_F16, KV_TYPE_BF16, 0},
        {256, 256, 1, KV_TYPE_BF16, KV_TYPE_F16, 1},
        {128, 128, 1, KV_TYPE_I8, KV_TYPE_BF16, 1},
        {80, 32, 0, KV_TYPE_I8, KV_TYPE_F16, 0},
        {256, 64, 1, KV_TYPE_I8, KV_TYPE_BF16, 0},
    };

    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++)
        CHECK_DO(rotary_shape(r, &CASES[i]));
    return 0;
}

/* ---- Picking and gathering ---------------------------------------------------------------------- */

enum { PICK_COMMON = 5, PICK_SLOTS_MAX = 900, GATHER_COMMON = 3 };

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
    uint8_t **job_slots;
    uint64_t *times;
    struct cuda_job_owner *owner;
    size_t n_rows = PICK_COMMON + PICK_STEP_ROWS_MAX;

    CHECK_ALLOC(r, times, CHECK_POOL, 3);
    CHECK_ALLOC(r, a->slots, CHECK_POOL, a->n_slots);
    CHECK_ALLOC(r, owner, CHECK_POOL, a->n_slots);
    CHECK_ALLOC(r, job_slots, CHECK_PINNED, a->n_slots / a->slots_per_worker + 1);
    CHECK_ALLOC(r, done, CHECK_PINNED, a->n_slots / a->slots_per_worker + 1);
    for (uint32_t w = 0; w < a->n_slots / a->slots_per_worker + 1; w++) {
        CHECK_ALLOC(r, done[w], CHECK_PINNED, a->slots_per_worker);
        CHECK_ALLOC(r, job_slots[w], CHECK_PINNED, (size_t)a->slots_per_worker * CUDA_SLOT_BYTES);
        job_slots[w][7 * CUDA_SLOT_BYTES + CUDA_SLOT_STATUS] = 0xfe;
    }
    CHECK_ALLOC(r, a->log, CHECK_PINNED, 1);
    CHECK_ALLOC(r, a->picked, CHECK_PINNED, PICK_STEP_ROWS_MAX);
    CHECK_ALLOC(r, a->budget, CHECK_POOL, 1);
    CHECK_ALLOC(r, a->deadline_ns, CHECK_POOL, 1);
    CHECK_ALLOC(r, a->n_live, CHECK_POOL, 1);
    CHECK_ALLOC(r, a->row_slot, CHECK_POOL, n_rows);
    CHECK_ALLOC(r, a->row, CHECK_POOL, n_rows);
    CHECK_ALLOC(r, a->source, CHECK_POOL, n_rows);
    CHECK_ALLOC(r, a->generation, CHECK_POOL, a->n_slots);
    slots_fill(r, a, owner, done);
    a->owner = owner;
    a->done = (const uint32_t *const *)done;
    a->job_slots = (const uint8_t *const *)job_slots;
    *a->budget = (struct pick_budget){.p = 60, .wait_ns = 300000};
    times[0] = 1000;
    times[1] = 4000;
    times[2] = UINT64_C(1) << 40;
    a->arrival_ns = times;
    a->clock_ns = &times[2];
    return 0;
}

/* Copies of all that the step writes. */
static int pick_copy(struct check_run *r, const struct pick_step *a, struct pick_step *to)
{
    size_t n_rows = PICK_COMMON + PICK_STEP_ROWS_MAX;

    *to = *a;
    to->slots = check_copy(r, a->slots, a->n_slots * sizeof *a->slots);
    to->log = check_copy(r, a->log, sizeof *a->log);
    to->picked = check_copy(r, a->picked, PICK_STEP_ROWS_MAX * sizeof *a->picked);
    to->budget = check_copy(r, a->budget, sizeof *a->budget);
    to->n_live = check_copy(r, a->n_live, sizeof *a->n_live);
    to->row_slot = check_copy(r, a->row_slot, n_rows * sizeof *a->row_slot);
    to->row = check_copy(r, a->row, n_rows * sizeof *a->row);
    to->source = check_copy(r, a->source, n_rows * sizeof *a->source);
    to->generation = check_copy(r, a->generation, a->n_slots * sizeof *a->generation);
    return to->picked == NULL || to->budget == NULL || to->generation == NULL ? -1 : 0;
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
    if (a->budget->p != want->budget->p ||
        *a->deadline_ns != a->log->proj_ns + 3000 + (UINT64_C(1) << 40))
        return check_fail(r, "rows left %u, expected %u; deadline %llu, projection at %llu",
                          a->budget->p, want->budget->p, (unsigned long long)*a->deadline_ns,
                          (unsigned long long)a->log->proj_ns);
    CHECK_DO(
        check_bytes(r, "picked", a->picked, want->picked, a->log->n_picked * sizeof(uint32_t)));
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
                          .layer = 1,
                          .is_last = is_last,
                          .n_q_max = 8,
                          .residual_first = 64};
    struct pick_step want;
    struct pick_ask *ask;

    CHECK_ALLOC(r, ask, CHECK_PINNED, 1);
    *ask = *values;
    ask->n_common = PICK_COMMON;
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
    struct gather a = {.rows_max = 5, .width = 1096}, want;
    size_t n = (size_t)(GATHER_COMMON + a.rows_max) * a.width;
    uint32_t *source, *n_live;

    CHECK_DO(jobs_make(r, &a.jobs, a.width, 64));
    CHECK_ALLOC(r, a.out, CHECK_POOL, n);
    CHECK_ALLOC(r, source, CHECK_POOL, a.rows_max);
    CHECK_ALLOC(r, n_live, CHECK_POOL, 2);
    memcpy(source, SOURCE, sizeof SOURCE);
    n_live[1] = GATHER_COMMON;
    *n_live = GATHER_COMMON + 4;
    a.n_common = n_live + 1;
    a.source = source;
    a.n_live = n_live;
    want = a;
    if ((want.out = check_copy(r, a.out, n * sizeof *a.out)) == NULL)
        return -1;
    gather_ref(&want);
    CHECK_DO(check_wait(r, "gather", gather(&a, r->stream)));
    return check_bytes(r, "gather", a.out, want.out, n * sizeof *a.out);
}
