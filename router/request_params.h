/* request_params.h - how a request is to be answered, as its generate message said it, with defaults
 * filled in.  Plain data; what is a list of its own goes by request_lists, whose memory is the
 * message's until request_create has copied it. */
#ifndef OMNI_ROUTER_REQUEST_PARAMS_H
#define OMNI_ROUTER_REQUEST_PARAMS_H

#include <stdbool.h>

#include "proto/messages.h"

enum { REQUEST_STOP_TOKENS_MAX = 48 };

/* Everything of a generate message that goes to the engine, defaults filled in. */
struct request_params {
    uint32_t max_tokens, top_k;
    double temperature, top_p, min_p;
    uint64_t seed;
    double repetition_penalty, presence_penalty, frequency_penalty;
    uint32_t min_tokens;
    bool has_logprobs;
    uint32_t n_logprobs; /* alternatives */
    uint32_t n_stop_tokens;
    uint32_t stop_tokens[REQUEST_STOP_TOKENS_MAX]; /* the client's, then the model's */
    bool has_ttft_slo, has_tpot_slo;
    double ttft_slo_ms, tpot_slo_ms;
    char adapter[65]; /* "" = none */
    char tenant[65];  /* "" = none */
};

/* What is copied at creation. */
struct request_lists {
    struct str_array stops;
    struct token_bias_list biases;
};

#endif
