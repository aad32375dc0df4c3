#include "router/engine_link.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "router/deliver.h"
#include "router/dispatch.h"
#include "router/lifecycle.h"

/* The longest prompt twice (see pair_has_room), as msgpack, and an end for every request. */
enum { TOKEN_BYTES = 5, SMALL_MESSAGES_BYTES = 1 << 20, SUBMIT_ANSWER_MS = 10000 };

const char *engine_state_name(enum engine_state state)
{
    static const char *const names[] = {"absent", "ready", "lost", "refused"};

    return names[state];
}

/* ---- Opening, liveness ----------------------------------------------------------------------- */

int engine_open(struct router *router, uint32_t index, uint64_t now_ns)
{
    struct engine_link *e = &router->engines[index];
    const size_t outbox_bytes =
        2 * ((size_t)router->text.n_ctx * TOKEN_BYTES + SMALL_MESSAGES_BYTES);
    char url[WIRE_URL_BYTES];
    int n = snprintf(url, sizeof url, "ipc://%s/engine-%u.sock", router->dir, index);

    *e = (struct engine_link){.index = index, .pair.socket = -1};
    if (n < 0 || (size_t)n >= sizeof url)
        return -ENAMETOOLONG;
    return pair_open(&e->pair, &router->poller, (struct poll_key){POLL_ENGINE, index, 0}, url,
                     outbox_bytes, now_ns);
}

void engine_close(struct engine_link *e)
{
    pair_close(&e->pair);
}

static void send_or_lose(struct router *router, struct engine_link *e, const struct message *m);

/* Ends what the engine had.  A stopped request has all its output, and a cancelled one wants none:
 * they end as asked, without the engine's counts. */
static void end_requests_of(struct router *router, const struct engine_link *e, const char *message)
{
    for (uint32_t i = 0; i < router->requests.n_max; i++) {
        struct request *r = request_at(&router->requests, i);

        if (r->engine != e->index)
            continue;
        if (r->state == REQUEST_ENDING)
            lifecycle_finish(router, r, &(struct request_end){.reason = r->end.reason});
        else
            lifecycle_fail(router, r, ERROR_ENGINE_LOST, true, 0, message);
    }
}

static void lose(struct router *router, struct engine_link *e, const char *reason)
{
    log_warn("engine_lost", "engine=%u pid=%u reason=\"%s\" outstanding=%u", e->index, e->pid,
             reason, e->n_outstanding);
    router->counters.values[COUNTER_ENGINES_LOST]++;
    e->state = ENGINE_LOST;
    e->greeted_ns = 0;
    end_requests_of(router, e, "the engine that served the request is lost");
    memset(e->workers, 0, sizeof e->workers);
    e->waiting = e->running = e->offloaded = e->kv_blocks_free = 0;
    /* What waits for it was meant for the lost one; the next one gets a fresh outbox. */
    outbox_init(&e->pair.outbox, e->pair.outbox_data, e->pair.outbox.cap);
    pair_flush(&e->pair, clock_now_ns());
}

static void send_or_lose(struct router *router, struct engine_link *e, const struct message *m)
{
    if (pair_send(&e->pair, m, clock_now_ns()) == -ENOBUFS && e->state == ENGINE_READY)
        lose(router, e, "does not read");
}

/* An engine that is there without being ready missed the router's start, or its own loss. */
static void greet(struct router *router, struct engine_link *e, uint64_t now_ns)
{
    const struct message m = {.type = MESSAGE_ROUTER_HELLO,
                              .router_hello = {.version = PROTO_VERSION, .epoch = router->epoch}};

    if (e->greeted_ns != 0 && now_ns < e->greeted_ns + WIRE_PING_MS * NS_PER_MS)
        return;
    e->greeted_ns = now_ns;
    send_or_lose(router, e, &m);
}

/* A submit is answered within a millisecond; one that never is was lost with a connection. */
static void end_unanswered(struct router *router, struct engine_link *e, uint64_t now_ns)
{
    for (uint32_t i = 0; i < router->requests.n_max; i++) {
        struct request *r = request_at(&router->requests, i);
        const struct request_id id = r->id;

        if (r->engine != e->index || r->state != REQUEST_SUBMITTED ||
            now_ns < r->submitted_ns + SUBMIT_ANSWER_MS * NS_PER_MS)
            continue;
        lifecycle_fail(router, r, ERROR_ENGINE_LOST, true, 0, "the engine did not answer");
        engine_send_end(router, e, &id, false);
    }
}

static void ping(struct router *router, struct engine_link *e, uint64_t now_ns)
{
    const struct message m = {.type = MESSAGE_PING, .ping = {.epoch = router->epoch}};

    if (now_ns < e->pinged_ns + WIRE_PING_MS * NS_PER_MS)
        return;
    e->pinged_ns = now_ns;
    end_unanswered(router, e, now_ns);
    send_or_lose(router, e, &m);
}

void engine_tick(struct router *router, struct engine_link *e, uint64_t now_ns)
{
    const bool connected = pair_connected(&e->pair);
    const bool broken = pair_flush(&e->pair, now_ns) < 0;

    if (e->state != ENGINE_READY) {
        if (connected && e->state != ENGINE_REFUSED)
            greet(router, e, now_ns);
    } else if (!connected || broken) {
        lose(router, e, broken ? "socket error" : "disconnected");
    } else if (now_ns > e->pair.heard_ns + ENGINE_SILENT_MS * NS_PER_MS) {
        lose(router, e, "silent");
    } else {
        ping(router, e, now_ns);
    }
}

/* ---- Hello ----------------------------------------------------------------------------------- */

static const char *find_mismatch(const struct router *router, const struct engine_link *e,
                                 const struct message_engine_hello *h)
{
    if (h->version != PROTO_VERSION)
        return "protocol version";
    if (h->engine != e->index)
        return "engine index";
    if (h->model_hash != router->text.model_hash)
        return "model";
    if (h->requests_max == 0 || h->block_tokens == 0)
        return "requests_max or block_tokens is 0";
    if (h->n_workers > ENGINE_WORKERS_MAX)
        return "too many workers";
    return NULL;
}

static bool holds(const struct message_engine_hello *h, const struct request *r)
{
    for (uint32_t i = 0; i < h->held.n; i++) {
        if (request_id_equal(&h->held.data[i].id, &r->id))
            return true;
    }
    return false;
}

/* The same engine says hello again: a connection was lost in between, and perhaps messages with it.
 * A request that was accepted must be held.  One that is not answered yet may still be on its way;
 * lost tokens show as a gap when the next ones come. */
static void check_held(struct router *router, const struct engine_link *e,
                       const struct message_engine_hello *h)
{
    for (uint32_t i = 0; i < router->requests.n_max; i++) {
        struct request *r = request_at(&router->requests, i);

        if (r->engine == e->index && r->state == REQUEST_RUNNING && !holds(h, r))
            lifecycle_fail(router, r, ERROR_ENGINE_LOST, true, 0,
                           "the connection to the engine was lost");
    }
}

/* Whatever it holds that is not its own any more is of a router before, or was given up. */
static void cancel_strangers(struct router *router, struct engine_link *e,
                             const struct message_engine_hello *h)
{
    for (uint32_t i = 0; i < h->held.n; i++) {
        const struct request *r = request_find(&router->requests, &h->held.data[i].id);

        if (!r || r->engine != e->index)
            engine_send_end(router, e, &h->held.data[i].id, false);
    }
}

static void take_hello(struct router *router, struct engine_link *e,
                       const struct message_engine_hello *h)
{
    e->state = ENGINE_READY;
    e->greeted_ns = 0;
    e->epoch = h->epoch;
    e->pid = h->pid;
    e->n_ctx = h->n_ctx;
    e->kv_blocks_total = h->kv_blocks_total;
    e->block_tokens = h->block_tokens;
    e->n_workers = h->n_workers;
    e->requests_max = h->requests_max;
    if (h->n_ctx < router->text.n_ctx)
        router->text.n_ctx = h->n_ctx;
}

void engine_on_hello(struct router *router, struct engine_link *e, const struct message *m)
{
    const struct message_engine_hello *h = &m->engine_hello;
    const char *mismatch = find_mismatch(router, e, h);

    if (mismatch) {
        log_error("engine_refused", "engine=%u pid=%u mismatch=\"%s\"", e->index, h->pid, mismatch);
        if (e->state == ENGINE_READY)
            lose(router, e, "replaced by one that does not fit");
        e->state = ENGINE_REFUSED;
        return;
    }
    if (e->state == ENGINE_READY && h->epoch != e->epoch)
        lose(router, e, "restarted");
    const bool again = e->state == ENGINE_READY;

    take_hello(router, e, h);
    /* It is greeted until it answers, and answers each greeting: news is the first hello only. */
    log_write(again ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO, "engine_ready",
              "engine=%u pid=%u epoch=%" PRIu64 " requests_max=%u held=%u", e->index, e->pid,
              e->epoch, e->requests_max, h->held.n);
    if (again)
        check_held(router, e, h);
    cancel_strangers(router, e, h);
}

void engine_on_ping(struct router *router, struct engine_link *e, const struct message *m)
{
    const struct message pong = {.type = MESSAGE_PONG, .pong = {.epoch = router->epoch}};

    if (e->state == ENGINE_READY && m->ping.epoch != e->epoch)
        lose(router, e, "restarted");
    send_or_lose(router, e, &pong);
    if (e->state == ENGINE_ABSENT || e->state == ENGINE_LOST)
        greet(router, e, clock_now_ns());
}

void engine_on_pong(struct router *router, struct engine_link *e, const struct message *m)
{
    if (e->state == ENGINE_READY && m->pong.epoch != e->epoch)
        lose(router, e, "restarted");
    if (e->state == ENGINE_ABSENT || e->state == ENGINE_LOST)
        greet(router, e, clock_now_ns());
}

/* ---- Requests -------------------------------------------------------------------------------- */

void engine_send_end(struct router *router, struct engine_link *e, const struct request_id *id,
                     bool stop)
{
    const struct message m = stop ? (struct message){.type = MESSAGE_STOP, .stop = {.id = *id}}
                                  : (struct message){.type = MESSAGE_CANCEL, .cancel = {.id = *id}};

    send_or_lose(router, e, &m);
}

/* The request with this id if it is with this engine, else NULL: the news crossed its end. */
static struct request *find_own(struct router *router, const struct engine_link *e,
                                const struct request_id *id)
{
    struct request *r = request_find(&router->requests, id);

    return e->state == ENGINE_READY && r && r->engine == e->index ? r : NULL;
}

/* The same for news of a run.  An engine answers a submit before it says anything else of that run,
 * so what comes before the answer is of an earlier run under this id: the engine was lost, the
 * client has asked again, and the engine ends what it had only now. */
static struct request *find_run(struct router *router, const struct engine_link *e,
                                const struct request_id *id)
{
    struct request *r = find_own(router, e, id);

    return r && r->state != REQUEST_SUBMITTED ? r : NULL;
}

static void refused(struct router *router, struct request *r,
                    const struct message_submit_reply *reply)
{
    const enum error_code code = reply->has_code ? reply->code : ERROR_OVERLOADED;
    const bool retryable =
        code == ERROR_OVERLOADED || code == ERROR_QUEUE_FULL || reply->has_retry_after_ms;
    const uint32_t retry_after_ms = reply->has_retry_after_ms ? reply->retry_after_ms : 0;
    char message[sizeof r->end.message];

    if (r->state == REQUEST_ENDING) {
        lifecycle_finish(router, r, &(struct request_end){.reason = r->end.reason});
        return;
    }
    if (retryable && dispatch_class_waits(r->class_idx)) {
        lifecycle_requeue(router, r, retry_after_ms);
        return;
    }
    snprintf(message, sizeof message, "%.*s", reply->has_message ? (int)reply->message.n : 0,
             reply->has_message ? reply->message.data : "");
    router->counters.of_class[r->class_idx][CLASS_REFUSED]++;
    lifecycle_fail(router, r, code, retryable, retry_after_ms,
                   message[0] != '\0' ? message : "refused by the engine");
}

void engine_on_submit_reply(struct router *router, struct engine_link *e, const struct message *m)
{
    const struct message_submit_reply *reply = &m->submit_reply;
    struct request *r = find_own(router, e, &reply->id);

    if (!r) {
        /* Given up meanwhile, or submitted by a router before. */
        if (reply->accepted)
            engine_send_end(router, e, &reply->id, false);
    } else if (!reply->accepted) {
        refused(router, r, reply);
    } else if (r->state == REQUEST_SUBMITTED) {
        request_set_state(&router->requests, r, REQUEST_RUNNING);
    }
}

static void stop_request(struct router *router, struct engine_link *e, struct request *r)
{
    r->end.reason = FINISH_STOP;
    request_set_state(&router->requests, r, REQUEST_ENDING);
    engine_send_end(router, e, &r->id, true);
}

static void fail_and_end(struct router *router, struct engine_link *e, struct request *r,
                         const char *message)
{
    const struct request_id id = r->id;

    log_error("bad_tokens", "engine=%u reason=\"%s\"", e->index, message);
    lifecycle_fail(router, r, ERROR_INTERNAL, true, 0, message);
    engine_send_end(router, e, &id, false);
}

/* One request's tokens of one sweep.  Tokens that come after the end was asked for are not output:
 * the client has cancelled, or the stop string is complete. */
static void take_tokens(struct router *router, struct engine_link *e, struct request *r,
                        const struct engine_token_item *item, uint64_t now_ns)
{
    if (r->state != REQUEST_RUNNING)
        return;
    if (item->index != r->n_output) {
        fail_and_end(router, e, r, "the engine's tokens do not follow each other");
        return;
    }
    for (uint32_t i = 0; i < item->ids.n; i++) {
        const enum stream_result result = request_add_token(r, item->ids.data[i], now_ns);

        if (result == STREAM_BAD_TOKEN || result == STREAM_NO_MEMORY) {
            fail_and_end(router, e, r,
                         result == STREAM_BAD_TOKEN ? "bad token from the engine" : "no memory");
            return;
        }
        if (!request_add_logprobs(r, r->n_output - 1, item, i)) {
            fail_and_end(router, e, r, "the engine sends no log-probabilities");
            return;
        }
        router->counters.values[COUNTER_TOKENS_OUT]++;
        if (result == STREAM_STOPPED) {
            stop_request(router, e, r);
            break;
        }
    }
    deliver_mark(router, r);
}

void engine_on_tokens(struct router *router, struct engine_link *e, const struct message *m)
{
    const uint64_t now_ns = clock_now_ns();

    for (uint32_t i = 0; i < m->engine_tokens.items.n; i++) {
        const struct engine_token_item *item = &m->engine_tokens.items.data[i];
        struct request *r = find_run(router, e, &item->id);

        if (r)
            take_tokens(router, e, r, item, now_ns);
    }
}

/* The engine may have sampled past a stop string before it heard of it: those tokens are nobody's
 * output, and the newest ones were made where the request ran last. */
static void trim_counts(const struct request *r, struct request_end *end)
{
    const uint64_t sum = (uint64_t)end->device_tokens + end->worker_tokens;
    uint32_t surplus = sum > r->n_output ? (uint32_t)(sum - r->n_output) : 0;
    const uint32_t of_worker = surplus < end->worker_tokens ? surplus : end->worker_tokens;

    end->worker_tokens -= of_worker;
    surplus -= of_worker;
    end->device_tokens -= surplus < end->device_tokens ? surplus : end->device_tokens;
}

void engine_on_done(struct router *router, struct engine_link *e, const struct message *m)
{
    const struct message_engine_done *done = &m->engine_done;
    struct request *r = find_run(router, e, &done->id);
    struct request_end end = {.reason = done->reason,
                              .device_tokens = done->device_tokens,
                              .worker_tokens = done->worker_tokens,
                              .ridealong_jobs = done->ridealong_jobs,
                              .parked_jobs = done->parked_jobs};

    if (!r)
        return;
    if (done->reason == FINISH_ERROR) {
        lifecycle_fail(router, r, ERROR_INTERNAL, true, 0, "the engine ended with an error");
        return;
    }
    if (r->stop_found)
        end.reason = FINISH_STOP; /* also where the last token came with the engine's own end */
    trim_counts(r, &end);
    lifecycle_finish(router, r, &end);
}

void engine_on_error(struct router *router, struct engine_link *e, const struct message *m)
{
    const struct message_engine_error *error = &m->engine_error;
    char message[160];

    snprintf(message, sizeof message, "%.*s", (int)error->message.n, error->message.data);
    if (!error->has_id) {
        log_error("engine_complains", "engine=%u code=%s message=\"%s\"", e->index,
                  error_code_name(error->code), message);
        return;
    }
    struct request *r = find_run(router, e, &error->id);

    if (!r)
        return;
    /* It does not know what it was asked to end: then that has ended. */
    if (r->state == REQUEST_ENDING)
        lifecycle_finish(router, r, &(struct request_end){.reason = r->end.reason});
    else
        lifecycle_fail(router, r, error->code, error->retryable, 0, message);
}

void engine_on_state(struct router *router, struct engine_link *e, const struct message *m)
{
    const struct message_engine_state *state = &m->engine_state;

    (void)router;
    e->waiting = state->waiting;
    e->running = state->running;
    e->offloaded = state->offloaded;
    e->kv_blocks_free = state->kv_blocks_free;
    e->sweeps = state->sweeps;
    for (uint32_t i = 0; i < state->workers.n; i++) {
        const struct worker_state *w = &state->workers.data[i];

        if (w->worker >= ENGINE_WORKERS_MAX)
            continue;
        struct engine_worker *worker = &e->workers[w->worker];

        worker->health = w->health;
        worker->blocks_free = w->blocks_free;
        worker->blocks_total = w->blocks_total;
        worker->resident = w->resident;
        worker->jobs = w->jobs;
        worker->pid = w->has_pid ? w->pid : 0;
        worker->arena_bytes = w->arena_bytes;
        worker->huge_bytes = w->huge_bytes;
    }
}
