/* sampling.h - the request options that chat and run share, straight into a generate message. */
#ifndef OMNI_PROTO_CLI_SAMPLING_H
#define OMNI_PROTO_CLI_SAMPLING_H

#include "proto/cli/options.h"

#define SAMPLING_ROW(g, option, TYPE, field, argument, doc)                                        \
    {                                                                                              \
        option, OPTION_##TYPE, &(g)->field, &(g)->has_##field, argument, doc                       \
    }

/* g: struct message_generate *; stops: struct option_strs * (see sampling_take_stops). */
#define SAMPLING_OPTION_ROWS(g, stops)                                                             \
    {"class", OPTION_STR, &(g)->class, NULL, "NAME", "service class, such as ls or be"},           \
        SAMPLING_ROW(g, "max-tokens", U32, max_tokens, "N", "most output tokens"),                 \
        SAMPLING_ROW(g, "temperature", F64, temperature, "X", "0 = greedy (default)"),             \
        SAMPLING_ROW(g, "top-k", U32, top_k, "N", "0 = off (default)"),                            \
        SAMPLING_ROW(g, "top-p", F64, top_p, "X", "1 = off (default)"),                            \
        SAMPLING_ROW(g, "min-p", F64, min_p, "X", "0 = off (default)"),                            \
        SAMPLING_ROW(g, "seed", U64, seed, "N", "of sampling (default: the router draws one)"),    \
        {"stop", OPTION_STRS, stops, NULL, "TEXT", "end before this text; may be given again"},    \
        SAMPLING_ROW(g, "ignore-eos", FLAG, ignore_eos, NULL, "go on after the end of text"),      \
        SAMPLING_ROW(g, "ttft-slo-ms", F64, ttft_slo_ms, "X",                                      \
                     "own objective for the first token"),                                         \
        SAMPLING_ROW(g, "tpot-slo-ms", F64, tpot_slo_ms, "X", "own objective per token after it"), \
        SAMPLING_ROW(g, "adapter", STR, adapter, "ID", "adapter"),                                 \
        SAMPLING_ROW(g, "tenant", STR, tenant, "ID", "whose request it is")

/* The stop strings as the message wants them; stops must outlive g. */
static inline void sampling_take_stops(struct message_generate *g, const struct option_strs *stops)
{
    g->has_stop = stops->n != 0;
    g->stop = (struct str_array){.data = stops->items, .n = stops->n};
}

#endif
