#include "device_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/hash.h"
#include "gpu-engine/exchange_delay.h"

enum { BLOCKS_DEFAULT = 256, ARENA_BLOCKS = 256, EMPTY_SWEEPS_MAX = 5000, FILLER_TOKENS = 128 };

/* ---- Life ------------------------------------------------------------------------------------ */

static void open_model(struct device_fixture *f, const struct fixture_options *o)
{
    char path[64] = "/tmp/omni-device-test-XXXXXX";
    struct gguf_error err;
    int fd = -1;

    if (o->path == NULL) {
        fd = mkstemp(path);
        assert_true(fd >= 0);
        assert_int_equal(model_random_write(path, o->model), 0);
    }
    if (model_open(o->path != NULL ? o->path : path, &f->model, &err) != 0)
        fail_msg("%s", err.text);
    if (fd >= 0) {
        close(fd);
        unlink(path); /* the mapping stays */
    }
}

static void open_geometry(struct device_fixture *f, const struct fixture_options *o)
{
    struct kv_layer_spec layers[KV_LAYERS_MAX];
    const struct kv_geometry_config config = {
        .type = o->kv, .block_tokens = FIXTURE_BLOCK_TOKENS, .n_groups = o->n_groups, .n_ranks = 1};
    const char *field;

    for (uint32_t l = 0; l < f->model->n_layers; l++) {
        const struct attention_desc *a = &f->model->layers[l].attn;
        layers[l] = (struct kv_layer_spec){.attention = a->window != 0 ? KV_ATTENTION_WINDOW
                                                                       : KV_ATTENTION_FULL,
                                           .n_heads = a->n_heads,
                                           .n_kv_heads = a->n_kv_heads,
                                           .dk = a->k_width,
                                           .dv = a->v_width,
                                           .window = a->window,
                                           .n_sinks = a->n_sinks,
                                           .scale = a->scale};
    }
    assert_int_equal(geometry_init(&f->geometry, &config, layers, f->model->n_layers, &field), 0);
}

static void nobody(void *arg)
{
    (void)arg;
}

static void open_device(struct device_fixture *f, const struct fixture_options *o)
{
    const struct device_config config = {.model = f->model,
                                         .geometry = &f->geometry,
                                         .exchange = f->exchange,
                                         .n_kv_blocks = f->n_free,
                                         .rows_max = FIXTURE_ROWS,
                                         .returned_rows_max = FIXTURE_RETURNED,
                                         .seqs_max = FIXTURE_SEQS,
                                         .context_max = FIXTURE_CONTEXT,
                                         .n_threads = o->n_threads,
                                         .copies_max = 2,
                                         .notify = nobody};

    assert_int_equal(device_cpu.open(&f->device, &config), 0);
}

/* In an order that is neither ascending nor descending. */
static void fill_free_blocks(struct device_fixture *f, uint32_t n)
{
    assert_true(n <= sizeof f->free_blocks / sizeof *f->free_blocks && n % 7 != 0);
    for (uint32_t i = 0; i < n; i++)
        f->free_blocks[i] = i * 7 % n;
    f->n_free = n;
}

void fixture_open(struct device_fixture *f, const struct fixture_options *o)
{
    uint32_t tokens[FILLER_TOKENS];

    memset(f, 0, sizeof *f);
    open_model(f, o);
    open_geometry(f, o);
    fill_free_blocks(f, o->n_kv_blocks != 0 ? o->n_kv_blocks : (uint32_t)BLOCKS_DEFAULT);
    f->local = local_exchange_create(&f->geometry, FIXTURE_SLOTS, FIXTURE_N_Q, ARENA_BLOCKS,
                                     FIXTURE_TABLE);
    f->exchange = local_exchange_base(f->local);
    if (o->delay > 0)
        assert_int_equal(exchange_delay_create(&f->exchange, f->exchange, o->delay), 0);
    open_device(f, o);
    for (uint32_t l = 0; l < KV_LAYERS_MAX; l++)
        f->picks[l].p_max = FIXTURE_RETURNED;
    for (uint32_t i = 0; i < 2; i++) {
        fixture_prompt(f, 1000 + i, tokens, FILLER_TOKENS);
        fixture_request_init(f, &f->filler[i], tokens, FILLER_TOKENS, FILLER_TOKENS);
    }
    f->n_requests = 0;
}

void fixture_close(struct device_fixture *f)
{
    device_cpu.close(f->device);
    f->exchange->ops->destroy(f->exchange);
    model_close(f->model);
}

/* ---- Requests -------------------------------------------------------------------------------- */

static void take_blocks(struct device_fixture *f, struct fixture_request *r)
{
    assert_true(f->n_free >= r->n_blocks * f->geometry.n_groups);
    for (uint32_t g = 0; g < f->geometry.n_groups; g++) {
        for (uint32_t i = 0; i < r->n_blocks; i++)
            r->blocks[g * FIXTURE_TABLE + i] = f->free_blocks[--f->n_free];
    }
}

static void give_blocks(struct device_fixture *f, struct fixture_request *r)
{
    for (uint32_t g = 0; g < f->geometry.n_groups; g++) {
        for (uint32_t i = 0; i < r->n_blocks; i++)
            f->free_blocks[f->n_free++] = r->blocks[g * FIXTURE_TABLE + i];
    }
}

void fixture_request_init(struct device_fixture *f, struct fixture_request *r,
                          const uint32_t *prompt, uint32_t n_prompt, uint32_t n_max)
{
    memset(r, 0, sizeof *r);
    assert_true(f->n_requests < LOCAL_SEQUENCES && n_max <= FIXTURE_CONTEXT);
    r->idx = f->n_requests++;
    memcpy(r->tokens, prompt, n_prompt * sizeof *prompt);
    r->n_tokens = n_prompt;
    r->sampling.top_p = 1;
    r->slot = FIXTURE_ON_DEVICE;
    r->n_blocks = geometry_blocks_for(&f->geometry, n_max);
    take_blocks(f, r);
}

void fixture_request_fini(struct device_fixture *f, struct fixture_request *r)
{
    give_blocks(f, r);
    if (r->slot != FIXTURE_ON_DEVICE)
        f->slot_owner[r->slot] = NULL;
    f->n_requests--;
}

void fixture_prompt(const struct device_fixture *f, uint32_t seed, uint32_t *tokens, uint32_t n)
{
    uint64_t h = HASH_SEED + seed;

    for (uint32_t i = 0; i < n; i++) {
        h = hash_bytes(h, &i, sizeof i);
        tokens[i] = (uint32_t)((h >> 20) % f->model->n_vocab);
    }
}

void fixture_rewind(struct fixture_request *r, uint32_t n_kv, uint32_t n_tokens)
{
    r->n_kv = n_kv;
    r->n_tokens = n_tokens;
}

/* ---- Building a sweep ------------------------------------------------------------------------ */

static void add_rows(struct device_fixture *f, struct fixture_request *r, uint32_t n)
{
    assert_true(f->n_seqs < FIXTURE_SEQS && n > 0 && r->n_kv + n <= r->n_tokens);
    f->seqs[f->n_seqs] = (struct device_seq){.n_rows = n,
                                             .pos = r->n_kv,
                                             .tokens = r->tokens + r->n_kv,
                                             .tables = r->blocks,
                                             .table_stride = FIXTURE_TABLE,
                                             .sample = r->n_kv + n == r->n_tokens,
                                             .sampling = r->sampling};
    f->members[f->n_seqs++] = r;
    f->n_rows += n;
}

void fixture_add(struct device_fixture *f, struct fixture_request *r, uint32_t n)
{
    assert_int_equal(r->slot, FIXTURE_ON_DEVICE);
    add_rows(f, r, n);
}

void fixture_add_each(struct device_fixture *f, struct fixture_request *r, uint32_t n)
{
    uint32_t n_kv = r->n_kv;

    for (uint32_t i = 0; i < n; i++) {
        add_rows(f, r, 1);
        f->seqs[f->n_seqs - 1].sample = 1;
        r->n_kv++;
    }
    r->n_kv = n_kv;
}

const float *fixture_logits(const struct device_fixture *f, uint32_t i)
{
    return f->device->buffers.logits + (size_t)i * f->model->n_vocab;
}

void fixture_add_filler(struct device_fixture *f, uint32_t which, uint32_t n)
{
    if (n == 0)
        return;
    fixture_rewind(&f->filler[which], 0, FILLER_TOKENS);
    add_rows(f, &f->filler[which], n);
}

void fixture_enter(struct device_fixture *f, struct fixture_request *r)
{
    struct device_enter *e = &f->enters[f->n_enters++];
    bool all = r->arena_groups == (1U << f->geometry.n_groups) - 1;

    assert_true(r->slot != FIXTURE_ON_DEVICE && f->n_enters <= FIXTURE_RETURNED);
    *e = (struct device_enter){.slot = r->slot,
                               .n_q = r->n_tokens - r->n_kv,
                               .pos = r->n_kv,
                               .seq_idx = r->idx,
                               .arena_groups = r->arena_groups,
                               .tables = all ? NULL : r->blocks,
                               .table_stride = all ? 0 : (uint32_t)FIXTURE_TABLE,
                               .sampling = r->sampling};
    assert_true(e->n_q >= 1 && e->n_q <= FIXTURE_N_Q);
    memcpy(e->tokens, r->tokens + r->n_kv, e->n_q * sizeof *e->tokens);
}

void fixture_wait(struct device_fixture *f, uint32_t total_ms, uint16_t want, uint32_t job_ms)
{
    f->wait_total_ns = total_ms * NS_PER_MS;
    f->pace = (struct device_pace){.fixed_ns = (double)job_ms * NS_PER_MS,
                                   .ns_per_byte = job_ms > 0 ? 1e-9 : 0};
    for (uint32_t l = 0; l < KV_LAYERS_MAX; l++) {
        f->picks[l].want = want;
        f->picks[l].wait_ns = (uint32_t)f->wait_total_ns;
    }
}

/* ---- Running it ------------------------------------------------------------------------------ */

static void note_hidden(const struct device_fixture *f, struct fixture_request *r, uint32_t pos,
                        const float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        r->hidden[pos + i] =
            hash_bytes(HASH_SEED, x + (size_t)i * f->model->n_embd, f->model->n_embd * sizeof *x);
}

/* The residuals of common rows lie in the order of the batch. */
static void note_common(struct device_fixture *f)
{
    const float *x = f->device->residual;

    for (uint32_t i = 0; i < f->n_seqs; i++) {
        struct fixture_request *r = f->members[i];
        note_hidden(f, r, r->n_kv, x, f->seqs[i].n_rows);
        x += (size_t)f->seqs[i].n_rows * f->model->n_embd;
        r->n_kv += f->seqs[i].n_rows;
    }
}

static void note_token(struct fixture_request *r, uint32_t pos, const struct device_token *token)
{
    assert_int_equal(token->error, 0);
    r->sampled[pos] = token->token;
    r->logprob[pos] = token->logprob;
    r->is_sampled[pos] = true;
    if (r->n_tokens == pos)
        r->tokens[r->n_tokens++] = token->token;
}

static void note_offloaded(struct device_fixture *f, const struct device_token *token)
{
    uint32_t slot = token->source & ~DEVICE_TOKEN_OFFLOADED;
    struct fixture_request *r = f->slot_owner[slot];
    uint32_t n_q = r->n_tokens - r->n_kv;

    note_hidden(f, r, r->n_kv, cpu_slot_residual(f->device, slot), n_q);
    r->n_kv += n_q;
    r->n_ridden += token->n_ridden;
    r->n_parked += token->n_parked;
    note_token(r, r->n_kv, token);
}

static void submit(struct device_fixture *f)
{
    uint32_t n_a = f->n_seqs - f->n_seqs_b;
    const struct device_sweep sweep = {
        .seq = ++f->n_sweeps,
        .p_total = UINT32_MAX,
        .batch = {{.n_seqs = n_a, .seqs = f->seqs}, {.n_seqs = f->n_seqs_b, .seqs = f->seqs + n_a}},
        .enter = f->enters,
        .n_enter = f->n_enters,
        .n_enter_b = f->n_enters_b,
        .wait_total_ns = f->wait_total_ns,
        .pace = f->pace.ns_per_byte > 0 ? &f->pace : NULL,
        .pick = f->picks,
        .arrival_ns = f->arrivals};

    assert_int_equal(device_cpu.submit(f->device, &sweep), 0);
}

uint32_t fixture_sweep(struct device_fixture *f)
{
    struct device_done done;
    uint32_t n_offloaded = 0;

    submit(f);
    device_cpu.sync(f->device);
    assert_int_equal(device_cpu.poll(f->device, &done), 1);
    assert_int_equal(done.error, 0);
    assert_int_equal(done.seq, f->n_sweeps);
    memcpy(f->layers, done.layer, f->geometry.n_layers * sizeof *f->layers);
    note_common(f);
    for (uint32_t i = 0; i < done.n_out; i++) {
        if ((done.out[i].source & DEVICE_TOKEN_OFFLOADED) != 0) {
            note_offloaded(f, &done.out[i]);
            n_offloaded++;
        } else {
            const struct device_seq *seq = &f->seqs[done.out[i].source];
            note_token(f->members[done.out[i].source], seq->pos + seq->n_rows, &done.out[i]);
        }
    }
    f->n_seqs = f->n_enters = f->n_seqs_b = f->n_enters_b = f->n_rows = 0;
    return n_offloaded;
}

void fixture_prefill(struct device_fixture *f, struct fixture_request *r, uint32_t chunk)
{
    uint32_t end = r->n_tokens;

    while (r->n_kv < end) {
        fixture_add(f, r, end - r->n_kv < chunk ? end - r->n_kv : chunk);
        fixture_sweep(f);
    }
}

void fixture_decode(struct device_fixture *f, struct fixture_request *r, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t n_sweeps = 0, before = r->n_kv;

        if (r->slot == FIXTURE_ON_DEVICE)
            fixture_add(f, r, 1);
        else
            fixture_enter(f, r);
        do
            fixture_sweep(f);
        while (r->n_kv == before && ++n_sweeps < EMPTY_SWEEPS_MAX);
        assert_true(r->n_kv > before);
    }
}

/* ---- Copies ---------------------------------------------------------------------------------- */

static void copy_group(struct device_fixture *f, struct fixture_request *r, uint32_t g,
                       enum device_copy_direction direction)
{
    const uint32_t *arena = local_exchange_table(f->local, r->idx, g);
    void *staging[FIXTURE_TABLE];
    uint64_t ticket;
    struct device_copy copy = {.direction = direction,
                               .n_blocks = geometry_blocks_for(&f->geometry, r->n_kv),
                               .blocks = r->blocks + g * FIXTURE_TABLE,
                               .staging = staging};

    for (uint32_t i = 0; i < copy.n_blocks; i++)
        staging[i] = f->exchange->ops->staging(f->exchange, 0, arena[i]);
    assert_int_equal(device_cpu.copy(f->device, &copy, &ticket), 0);
    device_cpu.sync(f->device);
    assert_int_equal(device_cpu.copy_done(f->device, ticket), 1);
}

/* Whoever reads the old place afterwards is found out. */
static void spoil(struct device_fixture *f, const struct fixture_request *r, uint32_t g)
{
    for (uint32_t i = 0; i < r->n_blocks; i++)
        memset(f->device->kv + (size_t)r->blocks[g * FIXTURE_TABLE + i] * f->geometry.block_bytes,
               0x55, f->geometry.block_bytes);
}

void fixture_offload(struct device_fixture *f, struct fixture_request *r, uint32_t slot,
                     uint32_t groups)
{
    assert_null(f->slot_owner[slot]);
    for (uint32_t g = 0; g < f->geometry.n_groups; g++) {
        uint32_t *arena = local_exchange_table(f->local, r->idx, g);
        if ((groups >> g & 1) == 0)
            continue;
        for (uint32_t i = 0; i < r->n_blocks; i++)
            arena[i] = local_exchange_new_block(f->local);
        copy_group(f, r, g, DEVICE_COPY_OUT);
        spoil(f, r, g);
    }
    r->slot = slot;
    r->arena_groups = groups;
    f->slot_owner[slot] = r;
}

void fixture_fetch(struct device_fixture *f, struct fixture_request *r)
{
    for (uint32_t g = 0; g < f->geometry.n_groups; g++) {
        if ((r->arena_groups >> g & 1) != 0)
            copy_group(f, r, g, DEVICE_COPY_IN);
    }
    f->slot_owner[r->slot] = NULL;
    r->slot = FIXTURE_ON_DEVICE;
}

/* ---- Comparison ------------------------------------------------------------------------------ */

void fixture_assert_equal(const struct fixture_request *reference, const struct fixture_request *r,
                          uint32_t from)
{
    for (uint32_t pos = from; pos < r->n_kv; pos++) {
        assert_true(r->hidden[pos] != 0);
        if (r->hidden[pos] != reference->hidden[pos])
            fail_msg("hidden state of position %u differs (%u computed)", pos, r->n_kv);
        if (!r->is_sampled[pos + 1])
            continue;
        assert_true(reference->is_sampled[pos + 1]);
        assert_int_equal(r->sampled[pos + 1], reference->sampled[pos + 1]);
        assert_memory_equal(&r->logprob[pos + 1], &reference->logprob[pos + 1], sizeof(float));
    }
}
