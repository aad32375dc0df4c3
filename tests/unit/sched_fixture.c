#include "tests/unit/sched_fixture.h"

#include <math.h>
#include <string.h>

static const uint64_t ms = 1000000, now = UINT64_C(1000000) * 1000000;

uint32_t fixture_below(struct sched_fixture *f, uint32_t n)
{
    uint64_t z = f->random += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    z ^= z >> 31;
    return (uint32_t)((z >> 32) * n >> 32);
}

static bool chance(struct sched_fixture *f, uint32_t pct)
{
    return fixture_below(f, 100) < pct;
}

/* ---- Model ----------------------------------------------------------------------------------- */

static void steps(struct latency_stairs *s, double base_ns, double step_ns)
{
    s->n = 0;
    for (uint32_t rows = 0; rows < 2048 && s->n + 2 <= LATENCY_STEPS_MAX; rows += 64) {
        s->rows[s->n] = rows + 1;
        s->ns[s->n++] = base_ns + step_ns * floor(rows / 64.0);
        s->rows[s->n] = rows + 64;
        s->ns[s->n] = s->ns[s->n - 1];
        s->n++;
    }
}

void fixture_model(struct latency_model *m, uint32_t n_kinds)
{
    latency_init(m, 32);
    m->n_kinds = n_kinds;
    for (uint32_t k = 0; k < n_kinds; k++) {
        m->kind[k] = (struct latency_kind){.window = k == 0 ? 0 : 1024,
                                           .pre_share = 0.3,
                                           .pa_a = 0.02,
                                           .pa_h = 2,
                                           .pa_b = 5000,
                                           .da_a = 1,
                                           .da_h = 500,
                                           .da_b = 10000};
        steps(&m->kind[k].dense, 400000, 30000.0 + 5000 * k);
    }
    for (uint32_t l = 0; l < m->n_layers; l++)
        latency_set_kind(m, l, l % n_kinds);
    steps(&m->head, 300000, 20000);
    m->fixed_ns = 50000;
    m->row_ns = 100;
    for (uint32_t w = 0; w < FIXTURE_WORKERS_MAX; w++)
        m->worker[w] = (struct latency_worker){.bytes_per_ns = 200, .fixed_ns = 20000};
}

/* ---- Bounds ---------------------------------------------------------------------------------- */

static void random_params(struct sched_fixture *f)
{
    f->limits.params =
        (struct sched_params){.offload = (enum sched_offload)fixture_below(f, 3),
                              .auto_free_pct = fixture_below(f, 30),
                              .slo_use_pct = 50 + fixture_below(f, 51),
                              .token_budget = chance(f, 50) ? 0 : 16 + fixture_below(f, 1024),
                              .headroom_pct = fixture_below(f, 50),
                              .without = chance(f, 70) ? 0 : fixture_below(f, 256)};
}

static void random_limits(struct sched_fixture *f)
{
    struct sched_limits *l = &f->limits;

    l->block_tokens = 8U << fixture_below(f, 3);
    l->n_groups = 1 + fixture_below(f, 3);
    l->rows_max = 1 + fixture_below(f, chance(f, 20) ? 8 : 1024);
    l->seqs_max = 1 + fixture_below(f, l->rows_max);
    l->chunk_max = chance(f, 10) ? fixture_below(f, 4) : fixture_below(f, 2048);
    l->returned_max = fixture_below(f, 32);
    l->copies_max = fixture_below(f, 9);
    l->n_blocks = l->n_groups * (16 + fixture_below(f, 4000));
    l->kv_token_bytes = 32 * 4096;
    l->n_workers = fixture_below(f, FIXTURE_WORKERS_MAX + 1);
    l->two_batch = chance(f, 50);
    l->checkpoints = chance(f, 50);
    l->host_bytes_per_ns = chance(f, 50) ? 25 : 0;
    l->elsewhere_max = fixture_below(f, 8);
    l->tpot_slo_ns = chance(f, 20) ? 0 : 50 * ms;
    l->sweep_max_ns = chance(f, 50) ? 0 : 100 * ms;
    l->be_starved_ns = chance(f, 40) ? 0 : 1000 * ms;
    l->be_settle_ns = fixture_below(f, 2) * 500 * ms;
    random_params(f);
}

static void random_workers(struct sched_fixture *f)
{
    for (uint32_t w = 0; w < f->limits.n_workers; w++) {
        struct sched_worker *k = &f->workers[w];

        k->usable = chance(f, 85);
        k->n_blocks = f->limits.n_groups * fixture_below(f, 8000);
        k->n_free_blocks = k->n_blocks;
        k->n_free_slots = fixture_below(f, 64);
    }
}

/* ---- Sequences ------------------------------------------------------------------------------- */

static uint64_t ago(struct sched_fixture *f, uint32_t most_ms)
{
    return now - fixture_below(f, most_ms) * ms;
}

static uint32_t per_group(const struct sched_fixture *f, uint32_t n_tokens)
{
    return sched_blocks(&f->limits, n_tokens) / f->limits.n_groups;
}

/* Blocks for n_tokens out of the device's, or false. */
static bool take_blocks(struct sched_fixture *f, struct sched_seq *s, uint32_t n_tokens)
{
    uint32_t n = per_group(f, n_tokens);

    if (n * f->limits.n_groups > f->state.n_free_blocks)
        return false;
    s->n_blocks = n;
    s->n_freed = n * f->limits.n_groups;
    if (s->n_freed > f->limits.n_groups && chance(f, 20)) /* some of them shared */
        s->n_freed -= fixture_below(f, s->n_freed);
    f->state.n_free_blocks -= n * f->limits.n_groups;
    return true;
}

static bool take_arena(struct sched_fixture *f, struct sched_seq *s)
{
    uint32_t n = sched_promise(&f->limits, s);

    if (f->limits.n_workers == 0)
        return false;
    s->worker = fixture_below(f, f->limits.n_workers);
    struct sched_worker *w = &f->workers[s->worker];
    if (n > w->n_free_blocks || w->n_free_slots == 0)
        return false;
    w->n_free_blocks -= n;
    w->n_free_slots--;
    return true;
}

/* Waiting, which anybody may be. */
static void random_waiting(struct sched_fixture *f, struct sched_seq *s, uint32_t class_idx)
{
    bool ls = class_idx == 0;

    *s = (struct sched_seq){
        .id = f->state.n_seqs,
        .class_idx = (uint16_t)class_idx,
        .latency_sensitive = ls,
        .place = SCHED_WAITING,
        .has_output = !ls && chance(f, 10),
        .n_todo = 1 + fixture_below(f, chance(f, 50) ? 200 : 3000),
        .n_rest = 1 + fixture_below(f, 500),
        .worker = f->limits.n_workers > 0 && chance(f, 50) ? fixture_below(f, f->limits.n_workers)
                                                           : SCHED_NONE,
        .arrival_ns = now - (FIXTURE_SEQS_MAX - f->state.n_seqs) * ms,
        .first_due_ns = ls && chance(f, 80) ? now + fixture_below(f, 2000) * ms : 0,
        .tpot_slo_ns = ls && chance(f, 80) ? (20 + fixture_below(f, 200)) * ms : 0,
        .last_run_ns = ago(f, 3000)};
    if (s->n_todo > f->limits.block_tokens && chance(f, 15))
        s->n_shared = (s->n_todo - 1) / f->limits.block_tokens * f->limits.block_tokens;
}

static void random_place(struct sched_fixture *f, struct sched_seq *s)
{
    struct sched_seq at = *s;
    uint32_t kind = fixture_below(f, s->latency_sensitive ? 3 : 7);

    at.n_shared = 0;
    at.n_kv = kind == 2 ? fixture_below(f, at.n_todo) : at.n_todo;
    at.n_todo = kind == 2 ? at.n_todo - at.n_kv : 1;
    at.has_output = kind == 2 ? at.has_output : 1;
    at.last_token_ns = at.has_output ? ago(f, 30) : 0;
    at.last_move_ns = chance(f, 30) ? ago(f, 2000) : 0;
    if (kind == 0)
        return;
    if (kind <= 2) {
        at.place = SCHED_DEVICE;
        /* A best-effort prompt that has begun holds all its blocks. */
        if (!take_blocks(f, &at,
                         kind == 2 && !at.latency_sensitive ? at.n_kv + at.n_todo + 1 : at.n_kv))
            return;
        if (!at.latency_sensitive && chance(f, 25)) {
            at.reserved = take_arena(f, &at);
            at.in_copy = at.reserved && chance(f, 30);
        }
        *s = at;
        return;
    }
    struct sched_fixture saved_books = {.state = f->state};
    struct sched_worker workers[FIXTURE_WORKERS_MAX];
    memcpy(workers, f->workers, sizeof workers);
    at.place = kind == 3 ? SCHED_LEAVING : kind == 4 ? SCHED_RETURNING : SCHED_ARENA;
    bool ok = take_arena(f, &at);
    if (ok && at.place != SCHED_ARENA) {
        ok = f->state.n_copies < f->limits.copies_max && take_blocks(f, &at, at.n_kv + 1);
        f->state.n_copies += ok;
    }
    if (!ok) {
        f->state = saved_books.state;
        memcpy(f->workers, workers, sizeof workers);
        return;
    }
    at.in_slot = at.place == SCHED_ARENA && chance(f, 50);
    f->workers[at.worker].n_resident += at.place == SCHED_ARENA;
    *s = at;
}

static void link_state(struct sched_fixture *f)
{
    f->state = (struct sched_state){.limits = &f->limits,
                                    .latency = &f->latency,
                                    .now_ns = now,
                                    .seqs = f->seqs,
                                    .workers = f->workers,
                                    .n_free_blocks = f->limits.n_blocks};
}

void fixture_random(struct sched_fixture *f, uint64_t seed, uint32_t n_classes)
{
    memset(f, 0, sizeof *f);
    f->random = seed;
    random_limits(f);
    fixture_model(&f->latency, 1 + fixture_below(f, 2));
    random_workers(f);
    link_state(f);
    if (chance(f, 10))
        f->state.latency = NULL;
    f->state.returned_rows = f->limits.n_workers > 0 ? fixture_below(f, 80) / 10.0 : 0;
    f->state.be_starved = chance(f, 30);
    f->state.be_stuck = chance(f, 30);
    uint32_t n = fixture_below(f, chance(f, 80) ? 60 : 600);
    for (; f->state.n_seqs < n; f->state.n_seqs++) {
        struct sched_seq *s = &f->seqs[f->state.n_seqs];

        random_waiting(f, s, fixture_below(f, n_classes));
        random_place(f, s);
    }
}

void fixture_roomy(struct sched_fixture *f)
{
    memset(f, 0, sizeof *f);
    f->limits = (struct sched_limits){.block_tokens = 16,
                                      .n_groups = 1,
                                      .rows_max = 2048,
                                      .seqs_max = 1024,
                                      .chunk_max = 2048,
                                      .returned_max = 64,
                                      .copies_max = 8,
                                      .n_blocks = 200000,
                                      .kv_token_bytes = 32 * 4096,
                                      .n_workers = 2,
                                      .tpot_slo_ns = 50 * ms,
                                      .sweep_max_ns = 100 * ms,
                                      .params = {.auto_free_pct = 5, .slo_use_pct = 90}};
    fixture_model(&f->latency, 1);
    for (uint32_t w = 0; w < 2; w++)
        f->workers[w] = (struct sched_worker){
            .usable = true, .n_blocks = 100000, .n_free_blocks = 100000, .n_free_slots = 256};
    link_state(f);
}

struct sched_seq *fixture_add(struct sched_fixture *f, uint32_t class_idx, enum sched_place place,
                              uint32_t ctx)
{
    struct sched_seq *s = &f->seqs[f->state.n_seqs++];
    bool prompt = place == SCHED_WAITING;

    *s = (struct sched_seq){.id = f->state.n_seqs - 1,
                            .class_idx = (uint16_t)class_idx,
                            .latency_sensitive = class_idx == 0,
                            .place = (uint8_t)place,
                            .has_output = !prompt,
                            .n_kv = prompt ? 0 : ctx,
                            .n_todo = prompt ? ctx : 1,
                            .n_rest = 128,
                            .worker = place == SCHED_ARENA ? 0 : SCHED_NONE,
                            .arrival_ns = now - 100 * ms,
                            .first_due_ns = class_idx == 0 ? now + 2000 * ms : 0,
                            .tpot_slo_ns = class_idx == 0 ? 50 * ms : 0,
                            .last_token_ns = prompt ? 0 : now,
                            .last_run_ns = now};
    if (place == SCHED_DEVICE) {
        s->n_blocks = per_group(f, ctx);
        s->n_freed = s->n_blocks * f->limits.n_groups;
        f->state.n_free_blocks -= s->n_freed;
    }
    if (place == SCHED_ARENA) {
        f->workers[0].n_free_blocks -= sched_promise(&f->limits, s);
        f->workers[0].n_free_slots--;
        f->workers[0].n_resident++;
    }
    return s;
}
