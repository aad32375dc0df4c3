#include "router/request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/invariant.h"

/* Which states may follow. */
static const unsigned followers[N_REQUEST_STATES] = {
    [REQUEST_FREE] = 1u << REQUEST_QUEUED,
    [REQUEST_QUEUED] = 1u << REQUEST_SUBMITTED | 1u << REQUEST_FINISHED,
    [REQUEST_SUBMITTED] = 1u << REQUEST_QUEUED | 1u << REQUEST_RUNNING | 1u << REQUEST_ENDING |
                          1u << REQUEST_FINISHED,
    [REQUEST_RUNNING] = 1u << REQUEST_ENDING | 1u << REQUEST_FINISHED,
    [REQUEST_ENDING] = 1u << REQUEST_FINISHED,
    [REQUEST_FINISHED] = 1u << REQUEST_FREE,
};

int request_table_init(struct request_table *t, const struct text *text, uint32_t n_max)
{
    *t = (struct request_table){.text = text,
                                .first_free = REQUEST_NONE,
                                .first_finished = REQUEST_NONE,
                                .last_finished = REQUEST_NONE};
    int rc = id_map_init(&t->ids, n_max);

    if (rc < 0)
        return rc;
    t->requests = calloc(n_max, sizeof *t->requests);
    if (!t->requests)
        return -ENOMEM;
    t->n_max = t->n_free = t->n_in_state[REQUEST_FREE] = n_max;
    for (uint32_t i = n_max; i-- > 0;) {
        t->requests[i] = (struct request){.index = i,
                                          .engine = REQUEST_NONE,
                                          .worker = REQUEST_NONE,
                                          .session = REQUEST_NONE,
                                          .next_of_session = t->first_free};
        t->first_free = i;
    }
    return 0;
}

static void free_memory(struct request *r)
{
    free(r->prompt);
    free(r->output);
    free(r->text_bytes);
    free(r->biases);
    free(r->logprobs);
    free(r->top_ids);
    free(r->top_logprobs);
    stream_fini(&r->stream);
    r->prompt = r->output = r->text_bytes = r->top_ids = NULL;
    r->logprobs = r->top_logprobs = NULL;
    r->biases = NULL;
}

void request_table_fini(struct request_table *t)
{
    for (uint32_t i = 0; t->requests && i < t->n_max; i++)
        free_memory(&t->requests[i]);
    free(t->requests);
    t->requests = NULL;
    id_map_fini(&t->ids);
}

struct request *request_at(struct request_table *t, uint32_t index)
{
    invariant(index < t->n_max);
    return &t->requests[index];
}

struct request *request_find(struct request_table *t, const struct request_id *id)
{
    uint32_t index = id_map_find(&t->ids, id);

    return index == ID_MAP_NONE ? NULL : &t->requests[index];
}

/* A slot can be had by forgetting a result that nobody waits for. */
static bool make_room(struct request_table *t)
{
    if (t->n_free > 0)
        return true;
    for (uint32_t i = t->first_finished; i != REQUEST_NONE; i = t->requests[i].next_finished) {
        if (t->requests[i].session == REQUEST_NONE) {
            request_forget(t, &t->requests[i]);
            return true;
        }
    }
    return false;
}

static bool allocate_logprobs(struct request *r)
{
    const size_t n = r->params.max_tokens, n_top = r->params.n_logprobs;

    if (!r->params.has_logprobs)
        return true;
    r->logprobs = calloc(n, sizeof *r->logprobs);
    r->top_ids = calloc(n, n_top * sizeof *r->top_ids + 1);
    r->top_logprobs = calloc(n, n_top * sizeof *r->top_logprobs + 1);
    return r->logprobs && r->top_ids && r->top_logprobs;
}

static bool copy_biases(struct request *r, const struct token_bias_list *from)
{
    r->biases = calloc(from->n + 1, sizeof *r->biases);
    if (!r->biases)
        return false;
    if (from->n > 0)
        memcpy(r->biases, from->data, from->n * sizeof *r->biases);
    r->n_biases = from->n;
    return true;
}

static enum request_result allocate(struct request_table *t, struct request *r,
                                    const struct request_lists *lists)
{
    const uint32_t max_tokens = r->params.max_tokens;
    int rc = stream_init(&r->stream, t->text, &lists->stops, r->params.min_tokens);

    if (rc < 0)
        return rc == -ENOMEM ? REQUEST_NO_MEMORY : REQUEST_BAD_STOP;
    if (!copy_biases(r, &lists->biases) || !allocate_logprobs(r))
        return REQUEST_NO_MEMORY;
    r->output = calloc(max_tokens, sizeof *r->output);
    r->text_bytes = calloc(max_tokens, sizeof *r->text_bytes);
    return r->output && r->text_bytes ? REQUEST_CREATED : REQUEST_NO_MEMORY;
}

enum request_result request_create(struct request_table *t, const struct request_id *id,
                                   const struct request_params *params,
                                   const struct request_lists *lists, uint32_t *prompt,
                                   uint32_t n_prompt, uint64_t now_ns, struct request **out)
{
    if (!make_room(t))
        return REQUEST_TABLE_FULL;
    struct request *r = &t->requests[t->first_free];
    const uint32_t next_free = r->next_of_session;

    *r = (struct request){.index = r->index,
                          .id = *id,
                          .params = *params,
                          .n_prompt = n_prompt,
                          .arrival_ns = now_ns,
                          .engine = REQUEST_NONE,
                          .worker = REQUEST_NONE,
                          .session = REQUEST_NONE,
                          .canceller = REQUEST_NONE,
                          .next_of_session = next_free,
                          .prev_of_session = REQUEST_NONE,
                          .next_dirty = REQUEST_NONE,
                          .next_finished = REQUEST_NONE,
                          .prev_finished = REQUEST_NONE};
    enum request_result result = allocate(t, r, lists);

    if (result != REQUEST_CREATED) {
        free_memory(r);
        return result;
    }
    t->first_free = next_free;
    t->n_free--;
    r->next_of_session = REQUEST_NONE;
    r->prompt = prompt;
    id_map_add(&t->ids, id, r->index);
    request_set_state(t, r, REQUEST_QUEUED);
    *out = r;
    return REQUEST_CREATED;
}

void request_set_state(struct request_table *t, struct request *r, enum request_state state)
{
    invariant(followers[r->state] & 1u << state);
    t->n_in_state[r->state]--;
    t->n_in_state[state]++;
    r->state = state;
}

void request_finish(struct request_table *t, struct request *r, const struct request_end *end,
                    uint64_t now_ns)
{
    request_set_state(t, r, REQUEST_FINISHED);
    r->end = *end;
    r->finished_ns = now_ns;
    free(r->prompt);
    r->prompt = NULL;
    r->prev_finished = t->last_finished;
    if (t->last_finished == REQUEST_NONE)
        t->first_finished = r->index;
    else
        t->requests[t->last_finished].next_finished = r->index;
    t->last_finished = r->index;
}

static void unlink_finished(struct request_table *t, struct request *r)
{
    if (r->prev_finished == REQUEST_NONE)
        t->first_finished = r->next_finished;
    else
        t->requests[r->prev_finished].next_finished = r->next_finished;
    if (r->next_finished == REQUEST_NONE)
        t->last_finished = r->prev_finished;
    else
        t->requests[r->next_finished].prev_finished = r->prev_finished;
}

void request_forget(struct request_table *t, struct request *r)
{
    invariant(r->session == REQUEST_NONE && !r->dirty);
    request_set_state(t, r, REQUEST_FREE);
    unlink_finished(t, r);
    id_map_remove(&t->ids, &r->id);
    free_memory(r);
    r->next_of_session = t->first_free;
    t->first_free = r->index;
    t->n_free++;
}

struct request *request_oldest_finished(struct request_table *t, uint64_t finished_before_ns)
{
    if (t->first_finished == REQUEST_NONE)
        return NULL;
    struct request *r = &t->requests[t->first_finished];

    return r->finished_ns < finished_before_ns ? r : NULL;
}

/* Output token `at` goes through the stream; notes how much text came with it. */
static enum stream_result push_token(struct request *r, uint32_t at, uint32_t token)
{
    const size_t n_before = r->stream.n_pending;
    enum stream_result result = stream_push(&r->stream, token, at >= r->n_sent);

    r->text_bytes[at] = (uint32_t)(r->stream.n_pending - n_before);
    return result;
}

enum stream_result request_add_token(struct request *r, uint32_t token, uint64_t now_ns)
{
    if (r->n_output == r->params.max_tokens)
        return STREAM_BAD_TOKEN;
    enum stream_result result = push_token(r, r->n_output, token);

    if (result != STREAM_MORE && result != STREAM_STOPPED)
        return result;
    if (r->n_output == 0)
        r->first_token_ns = now_ns;
    r->last_token_ns = now_ns;
    r->output[r->n_output++] = token;
    r->stop_found = result == STREAM_STOPPED;
    return result;
}

bool request_add_logprobs(struct request *r, uint32_t at, const struct engine_token_item *item,
                          uint32_t i)
{
    const size_t n_top = r->params.n_logprobs;

    if (!r->params.has_logprobs)
        return true;
    if (item->logprobs.n <= i || item->top_ids.n < (i + 1) * n_top ||
        item->top_logprobs.n < (i + 1) * n_top)
        return false;
    r->logprobs[at] = item->logprobs.data[i];
    if (n_top > 0) {
        memcpy(r->top_ids + at * n_top, item->top_ids.data + i * n_top, n_top * sizeof *r->top_ids);
        memcpy(r->top_logprobs + at * n_top, item->top_logprobs.data + i * n_top,
               n_top * sizeof *r->top_logprobs);
    }
    return true;
}

int request_rewind(struct request *r, uint32_t from)
{
    int rc = stream_restart(&r->stream);

    if (rc < 0)
        return rc;
    r->n_sent = from;
    for (uint32_t i = 0; i < r->n_output; i++) {
        if (push_token(r, i, r->output[i]) == STREAM_NO_MEMORY)
            return -ENOMEM;
    }
    const bool text_ended = r->state == REQUEST_FINISHED && !r->stop_found;

    if (text_ended && stream_end(&r->stream, true) == STREAM_NO_MEMORY)
        return -ENOMEM;
    r->end_delivered = false;
    return 0;
}

static double ms_between(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (double)(to_ns - from_ns) / (double)NS_PER_MS : 0;
}

double request_ttft_ms(const struct request *r)
{
    return r->n_output == 0 ? -1 : ms_between(r->arrival_ns, r->first_token_ns);
}

double request_tpot_ms(const struct request *r)
{
    return r->n_output < 2 ? -1
                           : ms_between(r->first_token_ns, r->last_token_ns) / (r->n_output - 1);
}

const char *request_state_name(enum request_state state)
{
    static const char *const names[N_REQUEST_STATES] = {"free",    "queued", "submitted",
                                                        "running", "ending", "finished"};

    return names[state];
}
