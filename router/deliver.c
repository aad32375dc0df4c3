#include "router/deliver.h"

#include <errno.h>
#include <string.h>

#include "common/base/invariant.h"
#include "common/base/log.h"
#include "router/lifecycle.h"

/* Upper bounds of what msgpack needs for an item, beside its text. */
enum { ITEM_BYTES = 128, TOKEN_BYTES = 5, LOGPROB_BYTES = 5, MESSAGE_BYTES = 32 };

void deliver_mark(struct router *router, struct request *r)
{
    struct session *s = lifecycle_session(router, r);

    if (!s || r->dirty)
        return;
    r->dirty = true;
    r->next_dirty = REQUEST_NONE;
    if (s->last_dirty == REQUEST_NONE)
        s->first_dirty = r->index;
    else
        request_at(&router->requests, s->last_dirty)->next_dirty = r->index;
    s->last_dirty = r->index;
}

static bool has_output(const struct request *r)
{
    return r->n_output > r->n_sent || r->stream.n_pending > 0;
}

/* Text that belongs to no token: given out when the output ended. */
static size_t tail_bytes(const struct request *r)
{
    size_t of_tokens = 0;

    for (uint32_t i = r->n_sent; i < r->n_output; i++)
        of_tokens += r->text_bytes[i];
    return r->stream.n_pending - of_tokens;
}

static size_t logprob_bytes(const struct request *r)
{
    return r->params.has_logprobs
               ? LOGPROB_BYTES + (size_t)r->params.n_logprobs * (TOKEN_BYTES + LOGPROB_BYTES)
               : 0;
}

/* Of the n tokens from n_sent on. */
static void fill_logprobs(const struct request *r, uint32_t n, struct token_item *item)
{
    const size_t n_top = r->params.n_logprobs;

    if (!r->params.has_logprobs || n == 0)
        return;
    item->has_logprobs = true;
    item->logprobs = (struct f32_array){.data = r->logprobs + r->n_sent, .n = n};
    item->has_top_ids = item->has_top_logprobs = n_top > 0;
    item->top_ids =
        (struct u32_array){.data = r->top_ids + r->n_sent * n_top, .n = n * (uint32_t)n_top};
    item->top_logprobs =
        (struct f32_array){.data = r->top_logprobs + r->n_sent * n_top, .n = n * (uint32_t)n_top};
}

/* Takes tokens while they fit; whoever comes back for the rest from an index must find the text cut
 * at that same token.  At least one token if at_least_one.  The bytes it may take on the wire. */
static size_t fill_item(const struct request *r, size_t budget, bool at_least_one,
                        struct token_item *item)
{
    size_t bytes = ITEM_BYTES, text = 0;
    uint32_t n = 0;
    const uint32_t n_new = r->n_output > r->n_sent ? r->n_output - r->n_sent : 0;

    while (n < n_new) {
        const size_t more = TOKEN_BYTES + logprob_bytes(r) + r->text_bytes[r->n_sent + n];

        if (bytes + more > budget && !(at_least_one && n == 0))
            break;
        bytes += more;
        text += r->text_bytes[r->n_sent + n];
        n++;
    }
    const size_t tail = n == n_new ? tail_bytes(r) : 0;

    if (bytes + tail <= budget || (at_least_one && n == 0)) {
        text += tail;
        bytes += tail;
    }
    *item = (struct token_item){.id = r->id,
                                .index = n_new > 0 ? r->n_sent : r->n_output,
                                .ids = {.data = r->output + (n_new > 0 ? r->n_sent : 0), .n = n},
                                .text = {.data = r->stream.pending, .n = (uint32_t)text}};
    fill_logprobs(r, n, item);
    return bytes;
}

/* Items of the dirty requests, as many as fit into one message.  Their number. */
static uint32_t fill_message(struct router *router, const struct session *s)
{
    size_t left = s->pair.outbox.cap / 4 - MESSAGE_BYTES;
    uint32_t n = 0;

    for (uint32_t i = s->first_dirty; i != REQUEST_NONE && n < ROUTER_ITEMS_MAX;) {
        struct request *r = request_at(&router->requests, i);

        i = r->next_dirty;
        if (!has_output(r))
            continue;
        const size_t used = fill_item(r, left, n == 0, &router->items[n]);

        if (router->items[n].ids.n == 0 && router->items[n].text.n == 0)
            break;
        n++;
        if (used >= left)
            break;
        left -= used;
    }
    return n;
}

static void consume_items(struct router *router, uint32_t n_items)
{
    for (uint32_t i = 0; i < n_items; i++) {
        const struct token_item *item = &router->items[i];
        struct request *r = request_find(&router->requests, &item->id);

        r->n_sent += item->ids.n;
        stream_consume(&r->stream, item->text.n);
    }
}

static struct message done_message(const struct request *r)
{
    const double ttft_ms = request_ttft_ms(r), tpot_ms = request_tpot_ms(r);

    return (struct message){.type = MESSAGE_DONE,
                            .done = {.id = r->id,
                                     .reason = r->end.reason,
                                     .prompt_tokens = r->n_prompt,
                                     .output_tokens = r->n_output,
                                     .has_ttft_ms = ttft_ms >= 0,
                                     .ttft_ms = ttft_ms,
                                     .has_tpot_ms = tpot_ms >= 0,
                                     .tpot_ms = tpot_ms,
                                     .device_tokens = r->end.device_tokens,
                                     .worker_tokens = r->end.worker_tokens,
                                     .ridealong_jobs = r->end.ridealong_jobs,
                                     .parked_jobs = r->end.parked_jobs,
                                     .seed = r->params.seed}};
}

static struct message failed_message(const struct request *r)
{
    return (struct message){.type = MESSAGE_ERROR,
                            .error = {.has_id = true,
                                      .id = r->id,
                                      .code = r->end.code,
                                      .message = text_clean(r->end.message),
                                      .retryable = r->end.retryable,
                                      .has_retry_after_ms = r->end.retry_after_ms > 0,
                                      .retry_after_ms = r->end.retry_after_ms}};
}

int deliver_end(struct session *s, const struct request *r, uint64_t now_ns)
{
    const struct message m = r->end.failed ? failed_message(r) : done_message(r);

    return pair_send(&s->pair, &m, now_ns);
}

/* Takes those that have nothing left to say out of the dirty list, and says the last word of the
 * finished ones; those leave the session with it. */
static void clean(struct router *router, struct session *s, uint64_t now_ns)
{
    uint32_t i = s->first_dirty;

    s->first_dirty = s->last_dirty = REQUEST_NONE;
    while (i != REQUEST_NONE) {
        struct request *r = request_at(&router->requests, i);

        i = r->next_dirty;
        r->dirty = false;
        if (has_output(r)) {
            deliver_mark(router, r);
        } else if (r->state == REQUEST_FINISHED) {
            if (deliver_end(s, r, now_ns) == -ENOBUFS)
                deliver_mark(router, r);
            else
                lifecycle_detach(router, r);
        }
    }
}

/* What fails although the outbox is empty can never be sent: the session ends, so that its client
 * knows, and can come back for the rest. */
static void give_up(struct session *s, uint64_t now_ns)
{
    log_error("tokens_not_sent", "session=%u client=\"%s\" outbox_bytes=%zu", s->index, s->client,
              s->pair.outbox.cap);
    deliver_error(s, NULL, ERROR_SESSION_LOST, NULL, true, 0, "output does not fit into a message",
                  now_ns);
    session_begin_close(s, now_ns);
}

/* One message of tokens and what it completes.  False if nothing moved. */
static bool deliver_some(struct router *router, struct session *s, uint64_t now_ns)
{
    const uint32_t n_items = fill_message(router, s);

    if (n_items > 0) {
        const struct message m = {.type = MESSAGE_TOKENS,
                                  .tokens = {.items = {.data = router->items, .n = n_items}}};

        if (pair_send(&s->pair, &m, now_ns) < 0) {
            if (s->pair.outbox.n_messages == 0)
                give_up(s, now_ns);
            return false;
        }
        consume_items(router, n_items);
    }
    clean(router, s, now_ns);
    return n_items > 0;
}

void deliver_session(struct router *router, struct session *s, uint64_t now_ns)
{
    bool moved = s->state == SESSION_BOUND || s->state == SESSION_OPEN;

    while (moved && s->first_dirty != REQUEST_NONE && pair_has_room(&s->pair))
        moved = deliver_some(router, s, now_ns);
}

void deliver_error(struct session *s, const struct request_id *id, enum error_code code,
                   const char *field, bool retryable, uint32_t retry_after_ms, const char *message,
                   uint64_t now_ns)
{
    struct message m = {.type = MESSAGE_ERROR,
                        .error = {.has_id = id != NULL,
                                  .code = code,
                                  .message = text_clean(message),
                                  .has_field = field != NULL && field[0] != '\0',
                                  .field = text_clean(field),
                                  .retryable = retryable,
                                  .has_retry_after_ms = retry_after_ms > 0,
                                  .retry_after_ms = retry_after_ms}};

    if (id)
        m.error.id = *id;
    if (pair_send(&s->pair, &m, now_ns) < 0)
        log_warn("error_not_sent", "session=%u code=%s", s->index, error_code_name(code));
}
