/* run_request.h - one request of `omni run`: what is asked, what has come, how it is shown. */
#ifndef OMNI_PROTO_CLI_RUN_REQUEST_H
#define OMNI_PROTO_CLI_RUN_REQUEST_H

#include "proto/cli/json_record.h"

enum run_state {
    RUN_WAITING, /* not sent yet, or refused and to be sent again at not_before_ns */
    RUN_ACTIVE,
    RUN_ENDED,
};

struct run_request {
    enum run_state state;
    struct message_generate ask;
    struct chat_turn turn; /* of a prompt with --chat */
    json_t *line;          /* owns the strings of ask; NULL for a raw prompt */
    struct json_pool pool;
    uint64_t not_before_ns;
    uint32_t n_retries;

    uint32_t *ids; /* output so far */
    uint32_t n_ids, ids_cap;
    float *logprobs; /* of ids; as long as n_logprobs says, 0 where none were asked for */
    uint32_t n_logprobs, logprobs_cap;
    uint32_t *top_ids; /* alternatives, ask.logprobs for each id */
    float *top_logprobs;
    uint32_t n_top, top_ids_cap, top_logprobs_cap;
    char *text;
    size_t text_bytes, text_cap;
    struct message_done done; /* RUN_ENDED; reason error also where no done came */
    bool failed;
    enum error_code code;
    bool retryable;
    char reason[256];
};

/* Appends what is new in an item (after a resume some may have been seen).  0 or -ENOMEM. */
int run_request_append(struct run_request *r, const struct token_item *item);

void run_request_end(struct run_request *r, const struct message_done *done);
void run_request_fail(struct run_request *r, enum error_code code, bool retryable, struct str why);

/* One JSON object on one line; 0 or -ENOMEM. */
int run_request_print_json(const struct run_request *r, FILE *out);

void run_request_fini(struct run_request *r);

#endif
