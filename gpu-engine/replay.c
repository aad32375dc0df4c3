#include "gpu-engine/replay.h"

#include "common/base/invariant.h"
#include "gpu-engine/ending.h"
#include "gpu-engine/foresight.h"
#include "gpu-engine/kv.h"
#include "gpu-engine/ledger.h"

/* ---- One token ------------------------------------------------------------------------------- */

static bool is_stop_token(const struct sequence *s, uint32_t token)
{
    for (uint32_t i = 0; i < s->n_stop_tokens; i++) {
        if (s->stop_tokens[i] == token)
            return true;
    }
    return false;
}

/* Of the token that was just put behind the others. */
static void note_token_time(const struct engine *e, struct sequence *s, uint64_t now_ns)
{
    if (s->latency_sensitive) {
        const struct objective o = admission_objective(e, s);
        struct objective_past past = admission_past(s);
        past.n_output--;
        objective_take(&o, &past, now_ns);
        s->token_late = past.token_late;
    }
    s->first_token_ns = s->first_token_ns != 0 ? s->first_token_ns : now_ns;
    s->last_token_ns = now_ns;
}

/* Item i of the sweep's message: what was drawn, and how likely it was. */
static void tell_token(struct engine *e, const struct sequence *s, const struct device_token *token,
                       uint32_t index, uint32_t i)
{
    struct engine_token_item *item = &e->items[i];
    uint32_t *top_ids = e->item_top_ids + (size_t)i * DEVICE_TOP_MAX;
    float *top_logprobs = e->item_top_logprobs + (size_t)i * DEVICE_TOP_MAX;

    e->item_ids[i] = token->token;
    e->item_logprobs[i] = token->logprob;
    *item = (struct engine_token_item){
        .id = s->id, .index = index, .ids = {.data = &e->item_ids[i], .n = 1}};
    item->has_logprobs = s->wants_logprobs;
    item->logprobs = (struct f32_array){.data = &e->item_logprobs[i], .n = 1};
    for (uint32_t t = 0; t < token->n_top; t++) {
        top_ids[t] = token->top[t].token;
        top_logprobs[t] = token->top[t].logprob;
    }
    item->has_top_ids = item->has_top_logprobs = token->n_top > 0;
    item->top_ids = (struct u32_array){.data = top_ids, .n = token->n_top};
    item->top_logprobs = (struct f32_array){.data = top_logprobs, .n = token->n_top};
}

static void accept_token(struct engine *e, struct sequence *s, const struct device_token *token,
                         uint64_t now_ns, struct message_engine_tokens *out)
{
    bool on_worker = (token->source & DEVICE_TOKEN_OFFLOADED) != 0;
    uint32_t index = sequence_n_output(s);

    s->tokens[s->n_tokens++] = token->token;
    ledger_commit(e, s);
    s->n_worker_tokens += on_worker;
    s->n_device_tokens += !on_worker;
    engine_count(e, on_worker ? ENGINE_STAT_TOKENS_WORKER : ENGINE_STAT_TOKENS_DEVICE, 1);
    note_token_time(e, s, now_ns);
    tell_token(e, s, token, index, out->items.n++);
    atomic_store_explicit(&s->n_told, index + 1, memory_order_relaxed);
}

/* ---- The sweep ------------------------------------------------------------------------------- */

static void advance_common(struct engine *e)
{
    for (uint32_t i = 0; i < e->batch.n_seqs; i++) {
        struct sequence *s = &e->sequences.all[e->batch.members[i]];

        s->n_kv += s->n_swept;
        s->n_swept = 0;
        kv_seal(e, s);
    }
}

static struct sequence *source_sequence(struct engine *e, uint32_t source)
{
    uint32_t idx = (source & DEVICE_TOKEN_OFFLOADED) != 0
                       ? e->slot_owner[source & ~DEVICE_TOKEN_OFFLOADED]
                       : e->batch.members[source];

    invariant(idx < e->sequences.n);
    return &e->sequences.all[idx];
}

static void advance_offloaded(struct engine *e, struct sequence *s,
                              const struct device_token *token)
{
    s->in_slot = false;
    s->n_kv++;
    s->n_ridden += token->n_ridden;
    s->n_parked += token->n_parked;
    engine_count(e, ENGINE_STAT_JOBS_RIDDEN, token->n_ridden);
    engine_count(e, ENGINE_STAT_JOBS_PARKED, token->n_parked);
}

/* How a sequence ends with this token, if it does; a stop token is not part of the output. */
static bool ends_before(const struct sequence *s, const struct device_token *token)
{
    return is_stop_token(s, token->token);
}

static bool ends_after(const struct engine *e, const struct sequence *s)
{
    return sequence_n_output(s) >= s->max_tokens || s->n_tokens >= e->context_max;
}

static void replay_token(struct engine *e, const struct device_token *token, uint64_t now_ns,
                         struct message_engine_tokens *out)
{
    bool on_worker = (token->source & DEVICE_TOKEN_OFFLOADED) != 0;
    struct sequence *s = source_sequence(e, token->source);

    if (on_worker)
        advance_offloaded(e, s, token);
    if (token->error != 0) {
        engine_count(e, ENGINE_STAT_JOBS_FAILED, 1);
        ending_fail(e, s, ERROR_INTERNAL, "a worker could not compute an attention job", true);
        return;
    }
    if (!ends_before(s, token))
        accept_token(e, s, token, now_ns, out);
}

/* Endings are sent behind the tokens, so that a client has all tokens when it hears of the end. */
static void replay_endings(struct engine *e, const struct device_done *done)
{
    for (uint32_t i = 0; i < done->n_out; i++) {
        struct sequence *s = source_sequence(e, done->out[i].source);

        if (s->state == SEQUENCE_ENDED)
            continue;
        if (ends_before(s, &done->out[i]))
            ending_finish(e, s, FINISH_STOP);
        else if (ends_after(e, s))
            ending_finish(e, s, FINISH_LENGTH);
    }
}

/* Is a copy still moving bytes?  One that has ended and was not looked at yet does not count. */
static bool copy_under_way(const struct engine *e)
{
    for (uint32_t i = 0; i < e->sequences.n && e->n_copies > 0; i++) {
        const struct sequence *s = &e->sequences.all[i];
        bool device_step = s->copy == SEQUENCE_COPY_DEVICE;

        if (s->state >= SEQUENCE_WAITING && s->copy != SEQUENCE_COPY_NONE &&
            !(device_step && e->ops->copy_done(e->device, s->copy_ticket)))
            return true;
    }
    return false;
}

static void observe(struct engine *e, const struct device_done *done)
{
    foresight_observe(e, done);
    engine_count(e, ENGINE_STAT_SWEEPS, 1);
    engine_count(e, ENGINE_STAT_ROWS, e->batch.n_rows);
    engine_count(e, ENGINE_STAT_JOBS_POSTED, done->n_posted);
    engine_count(e, ENGINE_STAT_SWEEPS_IN_COPY, copy_under_way(e));
    stats_set(&e->stats, ENGINE_STAT_SWEEP_US, (done->end_ns - done->start_ns) / 1000);
}

void replay_sweep(struct engine *e, const struct device_done *done)
{
    struct message m = {.type = MESSAGE_ENGINE_TOKENS};

    invariant(done->error == 0 && done->seq == e->sweep);
    m.engine_tokens.sweep = done->seq;
    m.engine_tokens.items.data = e->items;
    observe(e, done);
    advance_common(e);
    for (uint32_t i = 0; i < done->n_out; i++)
        replay_token(e, &done->out[i], done->end_ns, &m.engine_tokens);
    if (m.engine_tokens.items.n > 0)
        engine_send(e, &m);
    replay_endings(e, done);
    e->in_flight = false;
}
