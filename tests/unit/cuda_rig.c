#include "cuda_rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/shm/segment.h"
#include "gpu-engine/setup.h"

enum { WAIT_S = 60, SWEEPS_MAX = 5000, SPOIL = 0x55 };

/* ---- Opening ------------------------------------------------------------------------------------- */

static void set(struct rig *r, const char *format, const char *value)
{
    char text[160];
    struct error err;

    snprintf(text, sizeof text, format, value);
    if (config_set(&r->config, text, &err) != 0)
        fail_msg("%s", err.text);
}

static void open_config(struct rig *r, const struct rig_options *o)
{
    static const char *const settings[] = {"group.name=g",           "worker.threads=1",
                                           "worker.kill_ms=0",       "worker.late_ms=5000",
                                           "engine.block_tokens=32", "engine.layer_groups=1",
                                           "engine.threads=1"};

    snprintf(r->dir, sizeof r->dir, "/dev/shm/omni-test-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    config_defaults(&r->config);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        set(r, "%s", settings[i]);
    set(r, "shm.dir=%s", r->dir);
    set(r, "engine.kv_type=%s", o->kv == KV_TYPE_BF16 ? "bf16" : "f16");
}

static void open_model(struct rig *r, const struct rig_options *o)
{
    struct gguf_error gguf_err;
    struct error err;

    snprintf(r->model_path, sizeof r->model_path, "%s/model.gguf", r->dir);
    assert_int_equal(model_random_write(r->model_path, o->model), 0);
    if (model_open(r->model_path, &r->model, &gguf_err) != 0)
        fail_msg("%s", gguf_err.text);
    if (setup_geometry(&r->geometry, &r->config, r->model, &err) != 0)
        fail_msg("%s", err.text);
}

static void *worker_main(void *arg)
{
    struct rig *r = arg;

    while (!atomic_load(&r->stop)) {
        if (atomic_load(&r->hold))
            clock_sleep_ns(NS_PER_MS);
        else
            attnd_tick(&r->worker);
    }
    attnd_shutdown(&r->worker);
    return NULL;
}

static void open_exchange(struct rig *r)
{
    char dir[SEGMENT_PATH_MAX];
    struct error err;
    struct exchange_shm_config config = {
        .dir = dir,
        .n_workers = 1,
        .slots_per_worker = RIG_SLOTS,
        .n_q_max = RIG_N_Q,
        .element = r->geometry.type == KV_TYPE_BF16 ? JOB_ELEMENT_BF16 : JOB_ELEMENT_F16,
        .arena_bytes = 16 << 20,
        .node = {SEGMENT_ANY_NODE},
        .n_sequences = RIG_SLOTS,
        .context_max = RIG_CONTEXT,
        .late_ns = NS_PER_S,
        .settle_timeout_ns = NS_PER_S,
        .geometry = &r->geometry};

    assert_int_equal(segment_dir_resolve(r->config.shm_dir, r->config.group_name, dir, sizeof dir),
                     0);
    assert_int_equal(segment_dir_prepare(dir, &err), 0);
    if (exchange_shm_create(&r->shm, &config, &err) != 0)
        fail_msg("%s", err.text);
    if (attnd_init(&r->worker, &r->config, 0, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(pthread_create(&r->worker_thread, NULL, worker_main, r), 0);
}

static void note(void *arg)
{
    struct rig *r = arg;

    atomic_fetch_add(&r->n_notified, 1);
}

int rig_open_device(struct rig *r, const struct rig_options *o)
{
    const struct device_config config = {.model = r->model,
                                         .geometry = &r->geometry,
                                         .exchange = r->shm != NULL ? &r->shm->base : NULL,
                                         .n_kv_blocks = o->n_kv_blocks,
                                         .rows_max = RIG_ROWS,
                                         .returned_rows_max = RIG_RETURNED,
                                         .seqs_max = RIG_SEQS,
                                         .context_max = RIG_CONTEXT,
                                         .n_threads = 1,
                                         .copies_max = 3,
                                         .notify = note,
                                         .notify_arg = r};

    r->ops = o->ops;
    return r->ops->open(&r->device, &config);
}

void rig_open(struct rig *r, const struct rig_options *o)
{
    struct rig_options with = *o;

    memset(r, 0, sizeof *r);
    log_set_level(LOG_LEVEL_ERROR);
    open_config(r, o);
    open_model(r, o);
    if (o->offloads)
        open_exchange(r);
    with.n_kv_blocks = o->n_kv_blocks != 0 ? o->n_kv_blocks : (uint32_t)RIG_BLOCKS;
    assert_int_equal(rig_open_device(r, &with), 0);
    for (uint32_t i = 0; i < RIG_BLOCKS; i++)
        r->free_blocks[i] = i * 7 % RIG_BLOCKS;
    r->n_free = RIG_BLOCKS;
    for (uint32_t l = 0; l < KV_LAYERS_MAX; l++)
        r->picks[l].p_max = RIG_RETURNED;
}

static void remove_dir(const char *dir)
{
    char command[160];

    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
}

void rig_close(struct rig *r)
{
    if (r->device != NULL)
        r->ops->close(r->device);
    if (r->shm != NULL) {
        atomic_store(&r->stop, true);
        pthread_join(r->worker_thread, NULL);
        r->shm->base.ops->destroy(&r->shm->base);
    }
    model_close(r->model);
    remove_dir(r->dir);
}

/* ---- Sequences ----------------------------------------------------------------------------------- */

void rig_prompt(const struct rig *r, uint32_t seed, uint32_t *tokens, uint32_t n)
{
    uint64_t h = HASH_SEED + seed;

    for (uint32_t i = 0; i < n; i++) {
        h = hash_bytes(h, &i, sizeof i);
        tokens[i] = (uint32_t)((h >> 20) % r->model->n_vocab);
    }
}

void rig_seq_init(struct rig *r, struct rig_seq *s, const uint32_t *tokens, uint32_t n)
{
    memset(s, 0, sizeof *s);
    memcpy(s->tokens, tokens, n * sizeof *tokens);
    s->n_tokens = n;
    s->sampling.top_p = 1;
    s->slot = RIG_ON_DEVICE;
    s->adjust =
        (struct device_adjust){.log = s->tokens, .n_prompt = n, .repetition = 1, .n_top = 2};
    assert_true(r->n_free >= RIG_TABLE);
    for (uint32_t i = 0; i < RIG_TABLE; i++)
        s->blocks[i] = r->free_blocks[--r->n_free];
}

void rig_add(struct rig *r, struct rig_seq *s, uint32_t n)
{
    assert_true(r->n_seqs < RIG_SEQS && n > 0 && s->n_kv + n <= s->n_tokens);
    r->seqs[r->n_seqs] = (struct device_seq){.n_rows = n,
                                             .pos = s->n_kv,
                                             .tokens = s->tokens + s->n_kv,
                                             .tables = s->blocks,
                                             .table_stride = RIG_TABLE,
                                             .sample = 1,
                                             .sampling = s->sampling};
    if (s->adjusts || r->ops == &device_cpu) /* which tells how sure it is */
        r->seqs[r->n_seqs].sampling.adjust = &s->adjust;
    r->members[r->n_seqs++] = s;
}

void rig_enter(struct rig *r, struct rig_seq *s, uint32_t n)
{
    struct device_enter *e = &r->enters[r->n_enters++];

    assert_true(r->n_enters <= RIG_RETURNED && n <= RIG_N_Q && s->n_kv + n <= s->n_tokens);
    *e = (struct device_enter){.slot = s->slot,
                               .n_q = n,
                               .pos = s->n_kv,
                               .seq_idx = s->ref.idx,
                               .seq_generation = s->ref.gen,
                               .arena_groups = 1,
                               .sampling = s->sampling};
    memcpy(e->tokens, s->tokens + s->n_kv, n * sizeof *e->tokens);
    if (s->adjusts)
        e->sampling.adjust = &s->adjust;
    s->in_slot = true;
    s->n_q = n;
}

/* ---- Sweeps -------------------------------------------------------------------------------------- */

static void answer(struct rig_seq *s, uint32_t pos, const struct device_token *token)
{
    assert_int_equal(token->error, 0);
    s->answers[pos] =
        (struct rig_answer){.token = token->token, .logprob = token->logprob, .is_there = true};
    s->answers[pos].n_top = token->n_top;
    for (uint32_t i = 0; i < token->n_top; i++)
        s->answers[pos].top[i] = token->top[i];
}

static void take_offloaded(struct rig *r, const struct device_token *token)
{
    struct rig_seq *s = r->slot_owner[token->source & ~DEVICE_TOKEN_OFFLOADED];

    assert_true(s != NULL && s->in_slot);
    assert_int_equal(token->n_ridden + token->n_parked, r->geometry.n_layers);
    s->n_ridden += token->n_ridden;
    s->n_parked += token->n_parked;
    s->n_kv += s->n_q;
    s->in_slot = false;
    answer(s, s->n_kv, token);
}

void rig_take(struct rig *r)
{
    for (uint32_t i = 0; i < r->n_seqs; i++)
        r->members[i]->n_kv += r->seqs[i].n_rows;
    for (uint32_t i = 0; i < r->done.n_out; i++) {
        const struct device_token *token = &r->done.out[i];

        if ((token->source & DEVICE_TOKEN_OFFLOADED) != 0)
            take_offloaded(r, token);
        else
            answer(r->members[token->source], r->members[token->source]->n_kv, token);
    }
    r->n_seqs = r->n_seqs_b = r->n_enters = r->n_leaves = 0;
}

struct device_sweep rig_sweep_of(struct rig *r)
{
    uint32_t n_a = r->n_seqs - r->n_seqs_b;

    return (struct device_sweep){
        .seq = ++r->n_sweeps,
        .p_total = UINT32_MAX,
        .batch = {{.n_seqs = n_a, .seqs = r->seqs}, {.n_seqs = r->n_seqs_b, .seqs = r->seqs + n_a}},
        .enter = r->enters,
        .n_enter = r->n_enters,
        .leave = r->leaves,
        .n_leave = r->n_leaves,
        .pick = r->picks,
        .no_riding = r->no_riding,
        .wait_total_ns = r->wait_total_ns,
        .pace = r->pace.ns_per_byte > 0 ? &r->pace : NULL,
        .arrival_ns = r->arrivals};
}

void rig_sweep(struct rig *r)
{
    const struct device_sweep sweep = rig_sweep_of(r);

    assert_int_equal(r->ops->submit(r->device, &sweep), 0);
    r->ops->sync(r->device);
    assert_int_equal(r->ops->poll(r->device, &r->done), 1);
    assert_int_equal(r->done.error, 0);
    assert_int_equal(r->done.seq, r->n_sweeps);
    rig_take(r);
}

void rig_prefill(struct rig *r, struct rig_seq *s, uint32_t end, uint32_t chunk)
{
    while (s->n_kv < end) {
        uint32_t left = end - s->n_kv;
        rig_add(r, s, left < chunk ? left : chunk);
        rig_sweep(r);
    }
}

void rig_until_out(struct rig *r, struct rig_seq *s)
{
    uint64_t until = clock_now_ns() + WAIT_S * NS_PER_S;
    struct device_offloaded rows;

    while (s->in_slot) {
        assert_true(clock_now_ns() < until);
        if (r->n_enters == 0 && r->n_seqs == 0 && r->ops->n_returned(r->device, &rows) == 0) {
            clock_sleep_ns(NS_PER_US * 50);
            continue;
        }
        rig_sweep(r);
    }
}

/* ---- Copies -------------------------------------------------------------------------------------- */

void rig_copy(struct rig *r, const struct rig_seq *s, enum device_copy_direction direction,
              void *const *staging, uint64_t *ticket)
{
    const struct device_copy copy = {.direction = direction,
                                     .n_blocks = geometry_blocks_for(&r->geometry, s->n_kv),
                                     .blocks = s->blocks,
                                     .staging = staging};

    assert_int_equal(r->ops->copy(r->device, &copy, ticket), 0);
}

static void copy_arena(struct rig *r, const struct rig_seq *s, enum device_copy_direction direction)
{
    void *staging[RIG_TABLE];
    uint64_t ticket;

    for (uint32_t i = 0; i < RIG_TABLE; i++)
        staging[i] = arena_block(&r->shm->arenas[0], s->arena[i]);
    rig_copy(r, s, direction, staging, &ticket);
    r->ops->sync(r->device);
    assert_int_equal(r->ops->copy_done(r->device, ticket), 1);
}

/* Whoever reads the old place afterwards is found out. */
static void spoil(struct rig *r, const struct rig_seq *s)
{
    void *memory = malloc(r->geometry.block_bytes), *staging[RIG_TABLE];
    uint64_t ticket;

    memset(memory, SPOIL, r->geometry.block_bytes);
    for (uint32_t i = 0; i < RIG_TABLE; i++)
        staging[i] = memory;
    rig_copy(r, s, DEVICE_COPY_IN, staging, &ticket);
    r->ops->sync(r->device);
    free(memory);
}

void rig_offload(struct rig *r, struct rig_seq *s, uint32_t slot)
{
    struct directory *d = &r->shm->directory;
    const struct sequence_info info = {.prompt = s->tokens, .prompt_len = s->n_tokens};

    assert_null(r->slot_owner[slot]);
    for (uint32_t i = 0; i < RIG_TABLE; i++)
        s->arena[i] = r->n_arena_used++;
    assert_true(r->n_arena_used <= r->shm->arenas[0].n_blocks);
    assert_int_equal(directory_acquire(d, &info, &s->ref), 0);
    directory_set_blocks(d, s->ref, 0, 0, s->arena, RIG_TABLE);
    directory_set_state(d, s->ref, 0, DIRECTORY_FILLING);
    copy_arena(r, s, DEVICE_COPY_OUT);
    directory_set_state(d, s->ref, 0, DIRECTORY_RESIDENT);
    spoil(r, s);
    s->slot = slot;
    r->slot_owner[slot] = s;
}

void rig_fetch(struct rig *r, struct rig_seq *s)
{
    copy_arena(r, s, DEVICE_COPY_IN);
    directory_release(&r->shm->directory, s->ref);
    r->slot_owner[s->slot] = NULL;
    s->slot = RIG_ON_DEVICE;
}
