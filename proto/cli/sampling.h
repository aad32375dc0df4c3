/* sampling.h - the request options that chat and run share, straight into a generate message. */
#ifndef OMNI_PROTO_CLI_SAMPLING_H
#define OMNI_PROTO_CLI_SAMPLING_H

#include "proto/cli/options.h"

#define SAMPLING_ROW(g, option, TYPE, field, argument, doc)                                        \
    {                                                                                              \
        option, OPTION_##TYPE, &(g)->field, &(g)->has_##field, argument, doc                       \
    }

/* What the options gather that a message only points to; outlives the message. */
struct sampling_lists {
    struct option_strs stops;
    struct option_u32s stop_tokens;
    struct option_biases biases;
};

/* g: struct message_generate *; lists: struct sampling_lists * (see sampling_take_lists). */
#define SAMPLING_OPTION_ROWS(g, lists)                                                             \
    {"class", OPTION_STR, &(g)->class, NULL, "NAME", "service class, such as ls or be"},           \
        SAMPLING_ROW(g, "max-tokens", U32, max_tokens, "N", "most output tokens"),                 \
        SAMPLING_ROW(g, "temperature", F64, temperature, "X", "0 = greedy (default)"),             \
        SAMPLING_ROW(g, "top-k", U32, top_k, "N", "0 = off (default)"),                            \
        SAMPLING_ROW(g, "top-p", F64, top_p, "X", "1 = off (default)"),                            \
        SAMPLING_ROW(g, "min-p", F64, min_p, "X", "0 = off (default)"),                            \
        SAMPLING_ROW(g, "seed", U64, seed, "N", "of sampling (default: the router draws one)"),    \
        SAMPLING_ROW(g, "repetition-penalty", F64, repetition_penalty, "X",                        \
                     "above 1: what was said becomes less likely (1 = off)"),                      \
        SAMPLING_ROW(g, "presence-penalty", SF64, presence_penalty, "X", "0 = off (default)"),     \
        SAMPLING_ROW(g, "frequency-penalty", SF64, frequency_penalty, "X", "0 = off (default)"),   \
        {"logit-bias", OPTION_BIASES, &(lists)->biases,                                            \
         NULL,         "ID:X",        "added to a token's logit; may be given again"},             \
        SAMPLING_ROW(g, "min-tokens", U32, min_tokens, "N", "no end before so many tokens"),       \
        SAMPLING_ROW(g, "logprobs", U32, logprobs, "N",                                            \
                     "log-probabilities, and those of N alternatives (--json shows them)"),        \
        {"stop", OPTION_STRS, &(lists)->stops,                                                     \
         NULL,   "TEXT",      "end before this text; may be given again"},                         \
        {"stop-token", OPTION_U32S, &(lists)->stop_tokens,                                         \
         NULL,         "ID",        "end before this token; may be given again"},                  \
        SAMPLING_ROW(g, "ignore-eos", FLAG, ignore_eos, NULL, "go on after the end of text"),      \
        SAMPLING_ROW(g, "ttft-slo-ms", F64, ttft_slo_ms, "X",                                      \
                     "own objective for the first token"),                                         \
        SAMPLING_ROW(g, "tpot-slo-ms", F64, tpot_slo_ms, "X", "own objective per token after it"), \
        SAMPLING_ROW(g, "adapter", STR, adapter, "ID", "adapter"),                                 \
        SAMPLING_ROW(g, "tenant", STR, tenant, "ID", "whose request it is")

/* The lists as the message wants them. */
static inline void sampling_take_lists(struct message_generate *g, const struct sampling_lists *l)
{
    g->has_stop = l->stops.n != 0;
    g->stop = (struct str_array){.data = l->stops.items, .n = l->stops.n};
    g->has_stop_tokens = l->stop_tokens.n != 0;
    g->stop_tokens = (struct u32_array){.data = l->stop_tokens.items, .n = l->stop_tokens.n};
    g->has_logit_bias = l->biases.n != 0;
    g->logit_bias = (struct token_bias_list){.data = l->biases.items, .n = l->biases.n};
}

#endif
