#include "gpu-engine/ledger.h"

#include <string.h>

static bool has_entry(const struct engine *e, const struct sequence *s)
{
    return e->directory != NULL && s->ref.gen != 0;
}

static uint32_t flags_of(const struct sequence *s)
{
    return (s->n_stop_tokens == 0 ? SEQUENCE_IGNORE_EOS : 0U) |
           (s->adjust.n_biases > 0 ? SEQUENCE_HAS_LISTS : 0U);
}

int ledger_open(struct engine *e, struct sequence *s)
{
    struct sequence_info info = {.prompt = s->tokens,
                                 .prompt_len = s->n_prompt,
                                 .admitted_ns = e->ops->now(e->device),
                                 .params = {.seed = s->sampling.seed,
                                            .temperature = s->sampling.temperature,
                                            .top_p = s->sampling.top_p,
                                            .min_p = s->sampling.min_p,
                                            .top_k = s->sampling.top_k,
                                            .max_tokens = s->max_tokens,
                                            .ttft_slo_ns = s->ttft_slo_ns,
                                            .tpot_slo_ns = s->tpot_slo_ns,
                                            .flags = flags_of(s),
                                            .repetition = s->adjust.repetition,
                                            .presence = s->adjust.presence,
                                            .frequency = s->adjust.frequency,
                                            .min_tokens = s->adjust.min_tokens,
                                            .class_idx = s->class_idx}};

    if (e->directory == NULL)
        return 0;
    memcpy(info.request_id, s->id.bytes, sizeof info.request_id);
    return directory_acquire(e->directory, &info, &s->ref);
}

void ledger_commit(struct engine *e, const struct sequence *s)
{
    if (!has_entry(e, s))
        return;
    directory_log_token(e->directory, s->ref, s->n_tokens - 1, s->tokens[s->n_tokens - 1]);
    directory_commit(e->directory, s->ref, s->n_kv);
}

void ledger_drop(struct engine *e, const struct sequence *s)
{
    if (has_entry(e, s))
        directory_commit(e->directory, s->ref, 0);
}

void ledger_commit_kv(struct engine *e, const struct sequence *s)
{
    if (has_entry(e, s))
        directory_commit(e->directory, s->ref, s->n_kv);
}

void ledger_set_state(struct engine *e, const struct sequence *s, enum directory_state state)
{
    for (uint32_t g = 0; has_entry(e, s) && g < e->geometry.n_groups; g++)
        directory_set_state(e->directory, s->ref, g, state);
}

void ledger_set_place(struct engine *e, const struct sequence *s)
{
    if (!has_entry(e, s))
        return;
    for (uint32_t g = 0; g < e->geometry.n_groups; g++)
        directory_set_blocks(e->directory, s->ref, g, s->worker, s->arena_blocks + g * e->table_max,
                             s->n_arena_blocks);
    directory_set_slot(e->directory, s->ref, s->slot);
}

void ledger_close(struct engine *e, struct sequence *s)
{
    if (has_entry(e, s))
        directory_release(e->directory, s->ref);
    s->ref.gen = 0;
}
