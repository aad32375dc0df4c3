/* request.h - the table of requests: everything the router knows of one, from arrival until its
 * result is forgotten.
 *
 * DESIGN.  A request belongs to nobody but this table.  A session that has it is where its output
 * goes; it may change (a generate with a known id attaches) or end.  The output's token ids are
 * kept from the first one on, so a client can come back for them from any index; their text is not
 * kept but made again (stream.h).  Lists are linked through the slots: the requests of a session,
 * those of a session with output to send, and the finished ones in the order of finishing.
 *
 *   QUEUED -> SUBMITTED -> RUNNING -> ENDING -> FINISHED -> FREE
 *      ^__________|  (refused for now)       shorter ways: see request.c
 *
 * Memory per request: 4 bytes per token of prompt (freed at the end), 8 per token of max_tokens
 * (with log-probabilities 12, and 8 per alternative), and the text not yet sent; the number of slots
 * bounds the whole.  Finished ones are forgotten
 * after result_keep_s, or earlier, oldest first, when a slot is needed.  One thread. */
#ifndef OMNI_ROUTER_REQUEST_H
#define OMNI_ROUTER_REQUEST_H

#include "router/id_map.h"
#include "router/request_params.h"
#include "router/stream.h"

#define REQUEST_NONE UINT32_MAX /* no slot, no session, no engine, no worker, no class */

enum request_state {
    REQUEST_FREE,
    REQUEST_QUEUED,    /* waits in the queue of its class; no engine has it */
    REQUEST_SUBMITTED, /* sent to an engine, which has not answered */
    REQUEST_RUNNING,   /* accepted by the engine */
    REQUEST_ENDING,    /* the engine was told to end it; its last word is awaited */
    REQUEST_FINISHED,  /* ended; the result is kept */
    N_REQUEST_STATES,
};

/* How it ended. */
struct request_end {
    bool failed; /* an error message is its last, else done */
    enum finish_reason reason;
    enum error_code code;
    bool retryable;
    uint32_t retry_after_ms; /* 0: not said */
    char message[160];
    uint32_t device_tokens, worker_tokens;
    uint64_t ridealong_jobs, parked_jobs;
};

struct request {
    enum request_state state;
    uint32_t index;
    struct request_id id;
    uint32_t class_idx;
    uint32_t tenant; /* of router.tenants */
    struct request_params params;
    uint32_t *prompt; /* owned; NULL once it has ended */
    uint32_t n_prompt;
    uint32_t *output;     /* owned, [params.max_tokens] */
    uint32_t *text_bytes; /* owned, likewise: bytes of pending text that came with the token */
    uint32_t n_output;
    struct token_bias *biases; /* owned, [n_biases] */
    uint32_t n_biases;
    float *logprobs;   /* owned, [params.max_tokens] if wanted, else NULL */
    uint32_t *top_ids; /* owned, [params.max_tokens][params.n_logprobs], likewise */
    float *top_logprobs;
    struct stream stream;
    bool stop_found; /* a stop string is complete: what the engine still sends is dropped */
    bool abandoned;  /* cancelled because its client was gone, not because it asked */
    bool orphan;     /* its session was closed by us: cancelled unless somebody attaches in time */
    uint64_t arrival_ns, submitted_ns, first_token_ns, last_token_ns, finished_ns, orphan_since_ns;
    struct request_end end; /* FINISHED; in ENDING its reason is what was asked for */

    /* Where it runs; REQUEST_NONE while it does not. */
    uint32_t engine, worker, n_blocks;

    /* Where its output goes. */
    uint32_t session;   /* index, or REQUEST_NONE */
    uint32_t n_sent;    /* tokens below are sent, or not wanted */
    bool dirty;         /* in the session's list of those with output to send */
    bool end_delivered; /* the last message is in a session's outbox */
    uint32_t canceller, canceller_generation; /* another session that awaits its end, or NONE */
    uint32_t next_of_session, prev_of_session, next_dirty;
    uint32_t next_finished, prev_finished;
};

struct request_table {
    const struct text *text;
    uint32_t n_max, n_free;
    uint32_t n_in_state[N_REQUEST_STATES];
    uint32_t first_free;                    /* linked by next_of_session */
    uint32_t first_finished, last_finished; /* oldest first */
    struct request *requests;               /* [n_max], owned */
    struct id_map ids;
};

/* 0 or -errno; fini is safe after a failed init. */
int request_table_init(struct request_table *t, const struct text *text, uint32_t n_max);
void request_table_fini(struct request_table *t);

struct request *request_at(struct request_table *t, uint32_t index);

/* NULL if no request has the id. */
struct request *request_find(struct request_table *t, const struct request_id *id);

enum request_result { REQUEST_CREATED, REQUEST_TABLE_FULL, REQUEST_NO_MEMORY, REQUEST_BAD_STOP };

/* Takes a slot (forgetting a delivered result if need be), in state QUEUED and in no session.
 * REQUEST_CREATED: the table owns prompt.  Else the caller still does. */
enum request_result request_create(struct request_table *t, const struct request_id *id,
                                   const struct request_params *params,
                                   const struct request_lists *lists, uint32_t *prompt,
                                   uint32_t n_prompt, uint64_t now_ns, struct request **out);

/* Checked against the transitions that are allowed. */
void request_set_state(struct request_table *t, struct request *r, enum request_state state);

/* The request has ended as `end` says; its prompt is freed.  It stays in its session. */
void request_finish(struct request_table *t, struct request *r, const struct request_end *end,
                    uint64_t now_ns);

/* Forgets a finished request that is in no session. */
void request_forget(struct request_table *t, struct request *r);

/* The oldest finished request that ended before the given time, or NULL. */
struct request *request_oldest_finished(struct request_table *t, uint64_t finished_before_ns);

/* Adds an output token, index n_output.  STREAM_BAD_TOKEN also for one beyond max_tokens. */
enum stream_result request_add_token(struct request *r, uint32_t token, uint64_t now_ns);

/* Keeps what came with output token `at`, number i of the item.  False: the item lacks it. */
bool request_add_logprobs(struct request *r, uint32_t at, const struct engine_token_item *item,
                          uint32_t i);

/* Makes ready to send the output from token `from` on, as if it were new.  0 or -ENOMEM. */
int request_rewind(struct request *r, uint32_t from);

/* Negative: there is none yet. */
double request_ttft_ms(const struct request *r);
double request_tpot_ms(const struct request *r);

const char *request_state_name(enum request_state state);

#endif
