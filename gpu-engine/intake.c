#include "gpu-engine/intake.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void reply(struct engine *e, const struct request_id *id,
                  const struct admission_answer *answer)
{
    struct message m = {.type = MESSAGE_SUBMIT_REPLY};

    m.submit_reply.id = *id;
    m.submit_reply.accepted = answer->accepted;
    if (!answer->accepted) {
        m.submit_reply.has_code = m.submit_reply.has_message = true;
        m.submit_reply.code = answer->code;
        m.submit_reply.message = str_of(answer->message);
        m.submit_reply.has_retry_after_ms = answer->retry_after_ms > 0;
        m.submit_reply.retry_after_ms = answer->retry_after_ms;
        engine_count(e, ENGINE_STAT_REFUSED, 1);
    }
    engine_send(e, &m);
}

static bool ids_in_vocabulary(const struct engine *e, const struct u32_array *ids)
{
    for (uint32_t i = 0; i < ids->n; i++) {
        if (ids->data[i] >= e->n_vocab)
            return false;
    }
    return true;
}

static bool biases_in_vocabulary(const struct engine *e, const struct message_submit *m)
{
    for (uint32_t i = 0; i < m->logit_bias.n; i++) {
        if (m->logit_bias.data[i].token >= e->n_vocab)
            return false;
    }
    return true;
}

/* The field that names a token beyond the vocabulary, or NULL. */
static const char *foreign_token(const struct engine *e, const struct message_submit *m)
{
    if (!ids_in_vocabulary(e, &m->tokens))
        return "tokens";
    if (!ids_in_vocabulary(e, &m->stop_tokens))
        return "stop_tokens";
    return biases_in_vocabulary(e, m) ? NULL : "logit_bias";
}

static float repetition_of(const struct message_submit *m)
{
    return m->repetition_penalty > 0 ? (float)m->repetition_penalty : 1;
}

static bool adjusts_logits(const struct message_submit *m)
{
    return repetition_of(m) != 1 || m->presence_penalty != 0 || m->frequency_penalty != 0 ||
           m->logit_bias.n > 0 || m->min_tokens > 0 || (m->has_n_logprobs && m->n_logprobs > 0);
}

/* Message and answer bounds are checked before; the lists point into the sequence. */
static void fill_adjust(struct sequence *s, const struct message_submit *m)
{
    s->wants_logprobs = m->has_n_logprobs;
    s->adjust = (struct device_adjust){.log = s->tokens,
                                       .n_prompt = s->n_prompt,
                                       .repetition = repetition_of(m),
                                       .presence = (float)m->presence_penalty,
                                       .frequency = (float)m->frequency_penalty,
                                       .n_biases = m->logit_bias.n,
                                       .biases = s->biases,
                                       .min_tokens = m->min_tokens,
                                       .n_stops = s->n_stop_tokens,
                                       .stops = s->stop_tokens,
                                       .n_top = m->has_n_logprobs ? m->n_logprobs : 0};
    for (uint32_t i = 0; i < m->logit_bias.n; i++)
        s->biases[i] = (struct device_bias){.token = m->logit_bias.data[i].token,
                                            .bias = (float)m->logit_bias.data[i].bias};
    if (adjusts_logits(m))
        s->sampling.adjust = &s->adjust;
}

static void fill(struct sequence *s, const struct message_submit *m,
                 const struct admission_answer *answer)
{
    s->tenant = answer->tenant;
    s->n_predicted = answer->n_predicted;
    s->on_budget = answer->on_budget;
    s->id = m->id;
    s->class_idx = m->class_index;
    s->latency_sensitive = m->class_index == 0;
    s->n_prompt = s->n_tokens = m->tokens.n;
    s->max_tokens = m->max_tokens;
    s->preferred_worker = m->has_worker ? m->worker : SEQUENCE_NONE;
    s->sampling = (struct device_sampling){.seed = m->seed,
                                           .temperature = (float)m->temperature,
                                           .top_p = (float)m->top_p,
                                           .min_p = (float)m->min_p,
                                           .top_k = m->top_k};
    s->n_stop_tokens =
        m->stop_tokens.n < SEQUENCE_STOP_TOKENS_MAX ? m->stop_tokens.n : SEQUENCE_STOP_TOKENS_MAX;
    for (uint32_t i = 0; i < s->n_stop_tokens; i++)
        s->stop_tokens[i] = m->stop_tokens.data[i];
    fill_adjust(s, m);
    s->arrival_ns = m->arrival_ns;
    s->ttft_slo_ns = m->has_ttft_slo_ms ? (uint64_t)(m->ttft_slo_ms * 1e6) : 0;
    s->tpot_slo_ns = m->has_tpot_slo_ms ? (uint64_t)(m->tpot_slo_ms * 1e6) : 0;
    memcpy(s->tokens, m->tokens.data, m->tokens.n * sizeof *s->tokens);
}

static void decide(struct engine *e, const struct message_submit *m,
                   struct admission_answer *answer, struct sequence *s)
{
    char names[CONFIG_CLASSES_MAX][CONFIG_CLASS_NAME_MAX];

    if (s == NULL) {
        *answer = (struct admission_answer){.code = ERROR_OVERLOADED, .retry_after_ms = 200};
        snprintf(answer->message, sizeof answer->message,
                 "the engine holds engine.max_seqs = %u sequences", e->sequences.n);
    } else if (sequence_ask(&e->sequences, &m->id, SEQUENCE_ASK_CANCEL) == 0) {
        /* A router that lost us for a moment sends it anew: two runs must not speak under one id. */
        *answer = (struct admission_answer){.code = ERROR_OVERLOADED, .retry_after_ms = 100};
        snprintf(answer->message, sizeof answer->message,
                 "an earlier run of this id is being ended");
    } else if (m->class_index >= config_classes(e->config, names)) {
        *answer = (struct admission_answer){.code = ERROR_BAD_REQUEST};
        snprintf(answer->message, sizeof answer->message,
                 "class_index: %u is none of group.classes", m->class_index);
    } else if (foreign_token(e, m) != NULL) {
        *answer = (struct admission_answer){.code = ERROR_BAD_REQUEST};
        snprintf(answer->message, sizeof answer->message, "%s: an id is not below %u",
                 foreign_token(e, m), e->n_vocab);
    } else if ((adjusts_logits(m) || m->has_n_logprobs) && !e->decide.adjusts) {
        *answer = (struct admission_answer){.code = ERROR_BAD_REQUEST};
        snprintf(answer->message, sizeof answer->message,
                 "penalties, logit_bias, min_tokens, logprobs: device %s cannot", e->ops->name);
    } else if (m->has_adapter && m->adapter.n > 0) {
        *answer = (struct admission_answer){.code = ERROR_BAD_REQUEST};
        snprintf(answer->message, sizeof answer->message, "adapter: no adapter is loaded");
    } else {
        admission_decide(e, m, answer);
    }
}

bool intake_submit(struct engine *e, const struct message_submit *m)
{
    struct sequence *s = sequence_take(&e->sequences);
    struct admission_answer answer;

    decide(e, m, &answer, s);
    reply(e, &m->id, &answer);
    if (answer.accepted) {
        fill(s, m, &answer);
        sequence_arrive(&e->sequences, s);
        admission_promise(e, s);
    } else if (s != NULL) {
        sequence_forget(&e->sequences, s);
    }
    return answer.accepted;
}

static void on_submit(void *arg, const struct message_submit *m)
{
    struct host *h = arg;

    if (intake_submit(&h->engine, m))
        host_ring(h);
}

static void ask(struct host *h, const struct request_id *id, enum sequence_ask what)
{
    /* An unknown id has just ended: the router hears of that anyway. */
    if (sequence_ask(&h->engine.sequences, id, what) == 0)
        host_ring(h);
}

static void on_cancel(void *arg, const struct request_id *id)
{
    ask(arg, id, SEQUENCE_ASK_CANCEL);
}

static void on_stop(void *arg, const struct request_id *id)
{
    ask(arg, id, SEQUENCE_ASK_STOP);
}

static void on_router_lost(void *arg)
{
    struct host *h = arg;

    sequence_ask_all(&h->engine.sequences, SEQUENCE_ASK_CANCEL);
    host_ring(h);
}

static void introduce(void *arg, struct message_engine_hello *hello)
{
    struct host *h = arg;
    struct engine *e = &h->engine;

    atomic_store_explicit(&e->state_wanted, true, memory_order_relaxed);
    *hello = (struct message_engine_hello){
        .version = PROTO_VERSION,
        .engine = e->index,
        .epoch = h->identity,
        .pid = (uint32_t)getpid(),
        .model_hash = e->geometry.model_hash,
        .n_ctx = e->context_max,
        .n_vocab = e->n_vocab,
        .kv_blocks_total = e->pool.n_blocks,
        .block_tokens = e->geometry.block_tokens,
        .n_workers = e->exchange->n_workers,
        .requests_max = e->sequences.n,
        .held = {.data = h->held, .n = sequence_list(&e->sequences, h->held, e->sequences.n)}};
}

struct control_handlers intake_handlers(struct host *h)
{
    return (struct control_handlers){.arg = h,
                                     .introduce = introduce,
                                     .submit = on_submit,
                                     .cancel = on_cancel,
                                     .stop = on_stop,
                                     .router_lost = on_router_lost};
}
