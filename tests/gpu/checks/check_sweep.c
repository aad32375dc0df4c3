/* What begins a sweep, and what of it is sampled.  Bytes are moved, nothing is rounded. */
#include <string.h>

#include "gpu-engine/device/cuda/sweep_steps.h"
#include "tests/gpu/checks/checks.h"

enum { SLOTS = 40, ENTERS = 9, LEAVES = 5, WIDTH = 264, ROWS = 23, OUTPUTS = 64, GROUPS = 4 };

/* ---- The beginning ------------------------------------------------------------------------------- */

static int begin_inputs(struct check_run *r, struct sweep_begin *a)
{
    struct sweep_head *head;
    struct sweep_enter *enter;
    uint32_t *leave;
    uint64_t *arrival;

    CHECK_ALLOC(r, head, CHECK_POOL, 1);
    CHECK_ALLOC(r, enter, CHECK_POOL, ENTERS);
    CHECK_ALLOC(r, leave, CHECK_POOL, LEAVES);
    CHECK_ALLOC(r, arrival, CHECK_POOL, 1);
    *head = (struct sweep_head){.sweep = 88,
                                .wait_ns = 12345,
                                .clock_ns = UINT64_C(1) << 50,
                                .p = 17,
                                .n_rows = 21,
                                .n_enter = ENTERS,
                                .n_leave = LEAVES};
    *arrival = 777;
    for (uint32_t i = 0; i < ENTERS; i++)
        enter[i] = (struct sweep_enter){.owner = {.seq_idx = i, .pos = 3 * i, .n_q = 1 + i % 2},
                                        .sampling = {.seed = 5 + i, .pos = 9},
                                        .slot = 4 * i + 1,
                                        .generation = 100 + i};
    for (uint32_t i = 0; i < LEAVES; i++)
        leave[i] = 4 * i + 1; /* and some of them enter again */
    a->head = head;
    a->enter = enter;
    a->leave = leave;
    a->arrival_ns = arrival;
    return 0;
}

static int begin_outputs(struct check_run *r, struct sweep_begin *a)
{
    CHECK_ALLOC(r, a->slots, CHECK_POOL, SLOTS);
    CHECK_ALLOC(r, a->owner, CHECK_POOL, SLOTS);
    CHECK_ALLOC(r, a->generation, CHECK_POOL, SLOTS);
    CHECK_ALLOC(r, a->slot_sampling, CHECK_POOL, SLOTS);
    CHECK_ALLOC(r, a->budget, CHECK_POOL, 1);
    CHECK_ALLOC(r, a->deadline_ns, CHECK_POOL, 1);
    CHECK_ALLOC(r, a->n_live, CHECK_POOL, 1);
    CHECK_ALLOC(r, a->start_ns, CHECK_POOL, 1);
    for (uint32_t s = 0; s < SLOTS; s++)
        a->slots[s] = (struct pick_slot){.generation = s, .layer = 2, .state = PICK_SLOT_POSTED};
    return 0;
}

int check_sweep_begin(struct check_run *r)
{
    struct sweep_begin a, want;

    CHECK_DO(begin_inputs(r, &a));
    want = a;
    CHECK_DO(begin_outputs(r, &a));
    CHECK_DO(begin_outputs(r, &want));
    sweep_begin_ref(&want);
    CHECK_DO(check_wait(r, "sweep_begin", sweep_begin(&a, r->stream)));
    if (*a.start_ns == 0 || *a.deadline_ns != *a.start_ns + 777 + (UINT64_C(1) << 50))
        return check_fail(r, "sweep_begin: start %llu, deadline %llu",
                          (unsigned long long)*a.start_ns, (unsigned long long)*a.deadline_ns);
    if (a.budget->p != 17 || a.budget->wait_ns != 12345)
        return check_fail(r, "sweep_begin: the budget is not the sweep's");
    CHECK_DO(check_bytes(r, "slots", a.slots, want.slots, SLOTS * sizeof *a.slots));
    CHECK_DO(check_bytes(r, "owner", a.owner, want.owner, SLOTS * sizeof *a.owner));
    CHECK_DO(check_bytes(r, "generation", a.generation, want.generation, SLOTS * sizeof(uint32_t)));
    CHECK_DO(check_bytes(r, "sampling", a.slot_sampling, want.slot_sampling,
                         SLOTS * sizeof *a.slot_sampling));
    return check_bytes(r, "n_live", a.n_live, want.n_live, sizeof *a.n_live);
}

/* ---- What is sampled ----------------------------------------------------------------------------- */

static int outputs_results(struct check_run *r, struct sweep_outputs *a)
{
    CHECK_ALLOC(r, a->out, CHECK_POOL, (size_t)OUTPUTS * WIDTH);
    CHECK_ALLOC(r, a->row, CHECK_POOL, OUTPUTS);
    CHECK_ALLOC(r, a->out_slot, CHECK_POOL, OUTPUTS);
    CHECK_ALLOC(r, a->n_outputs, CHECK_POOL, GROUPS);
    CHECK_ALLOC(r, a->stamp_ns, CHECK_POOL, 1);
    return 0;
}

/* Six picked rows behind n_common: three slots, one of which has two rows, one three. */
static int picked_make(struct check_run *r, struct sweep_outputs *a, uint32_t n_common)
{
    static const uint32_t SOURCE[] = {7 << 8, 7 << 8 | 1, 30 << 8, 2 << 8, 2 << 8 | 1, 2 << 8 | 2};
    struct cuda_job_owner *owner;
    struct sampling_row *how;
    uint32_t *words, *source;

    CHECK_ALLOC(r, owner, CHECK_POOL, SLOTS);
    CHECK_ALLOC(r, how, CHECK_POOL, SLOTS);
    CHECK_ALLOC(r, source, CHECK_POOL, 6);
    CHECK_ALLOC(r, words, CHECK_POOL, 2);
    owner[7].n_q = 2;
    owner[30].n_q = 1;
    owner[2].n_q = 3;
    for (uint32_t s = 0; s < SLOTS; s++)
        how[s].seed = 1000 + s;
    memcpy(source, SOURCE, sizeof SOURCE);
    words[0] = n_common + 6;
    words[1] = n_common;
    a->n_live = &words[0];
    a->n_common = &words[1];
    a->source = source;
    a->owner = owner;
    a->slot_sampling = how;
    return 0;
}

static int outputs_inputs(struct check_run *r, struct sweep_outputs *a, uint32_t n_out,
                          uint32_t n_out_b)
{
    struct sweep_head *head;
    uint32_t *out_row;
    struct sampling_row *how;
    uint16_t *in;

    CHECK_ALLOC(r, head, CHECK_POOL, 1);
    CHECK_ALLOC(r, out_row, CHECK_POOL, ROWS);
    CHECK_ALLOC(r, how, CHECK_POOL, ROWS);
    CHECK_ALLOC(r, in, CHECK_POOL, (size_t)ROWS * WIDTH);
    check_fill(r, KV_TYPE_F16, in, (size_t)ROWS * WIDTH, 1.0f);
    *head = (struct sweep_head){.n_out = {n_out, n_out_b}};
    for (uint32_t i = 0; i < ROWS; i++) {
        out_row[i] = ROWS - 1 - i;
        how[i].seed = i;
    }
    a->head = head;
    a->out_row = out_row;
    a->out_how = how;
    a->in = in;
    return 0;
}

static int outputs_shape(struct check_run *r, uint32_t batch, uint32_t n_out, bool picks)
{
    struct sweep_outputs a = {.batch = batch,
                              .outputs_max = n_out + (picks ? 6 : 2),
                              .groups = GROUPS,
                              .group_rows = 4,
                              .width = WIDTH},
                         want;

    CHECK_DO(outputs_inputs(r, &a, batch == 0 ? n_out : 3, batch == 0 ? 3 : n_out));
    if (picks)
        CHECK_DO(picked_make(r, &a, 11));
    want = a;
    CHECK_DO(outputs_results(r, &a));
    CHECK_DO(outputs_results(r, &want));
    sweep_outputs_ref(&want);
    CHECK_DO(check_wait(r, "sweep_outputs", sweep_outputs(&a, r->stream)));
    if ((*a.stamp_ns != 0) != (batch == 0))
        return check_fail(r, "sweep_outputs: stamped %llu", (unsigned long long)*a.stamp_ns);
    CHECK_DO(check_bytes(r, "out", a.out, want.out, (size_t)OUTPUTS * WIDTH * sizeof *a.out));
    CHECK_DO(check_bytes(r, "row", a.row, want.row, OUTPUTS * sizeof *a.row));
    CHECK_DO(check_bytes(r, "out_slot", a.out_slot, want.out_slot, OUTPUTS * sizeof(uint32_t)));
    return check_bytes(r, "n_outputs", a.n_outputs, want.n_outputs, GROUPS * sizeof(uint32_t));
}

int check_sweep_outputs(struct check_run *r)
{
    CHECK_DO(outputs_shape(r, 0, 5, true));
    CHECK_DO(outputs_shape(r, 0, 0, true));
    CHECK_DO(outputs_shape(r, 0, 4, false));
    CHECK_DO(outputs_shape(r, 0, 0, false));
    return outputs_shape(r, 1, 7, false);
}
