#include "router/lifecycle.h"

#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/invariant.h"
#include "common/base/log.h"
#include "router/deliver.h"
#include "router/dispatch.h"

enum { REQUEUE_MS_MIN = 20, REQUEUE_MS_MAX = 1000 };

static uint64_t *class_count(struct router *router, const struct request *r,
                             enum class_counter counter)
{
    return &router->counters.of_class[r->class_idx][counter];
}

/* ---- Session lists --------------------------------------------------------------------------- */

struct session *lifecycle_session(struct router *router, const struct request *r)
{
    return r->session == REQUEST_NONE ? NULL : &router->sessions.sessions[r->session];
}

static void link_to_session(struct router *router, struct request *r, struct session *s)
{
    r->session = s->index;
    r->orphan = false;
    r->prev_of_session = REQUEST_NONE;
    r->next_of_session = s->first_request;
    if (s->first_request != REQUEST_NONE)
        request_at(&router->requests, s->first_request)->prev_of_session = r->index;
    s->first_request = r->index;
}

static void unlink_dirty(struct router *router, struct request *r, struct session *s)
{
    uint32_t before = REQUEST_NONE;

    if (!r->dirty)
        return;
    for (uint32_t i = s->first_dirty; i != r->index;) {
        before = i;
        i = request_at(&router->requests, i)->next_dirty;
    }
    if (before == REQUEST_NONE)
        s->first_dirty = r->next_dirty;
    else
        request_at(&router->requests, before)->next_dirty = r->next_dirty;
    if (s->last_dirty == r->index)
        s->last_dirty = before;
    r->dirty = false;
}

void lifecycle_detach(struct router *router, struct request *r)
{
    struct session *s = lifecycle_session(router, r);

    if (!s)
        return;
    unlink_dirty(router, r, s);
    if (r->prev_of_session == REQUEST_NONE)
        s->first_request = r->next_of_session;
    else
        request_at(&router->requests, r->prev_of_session)->next_of_session = r->next_of_session;
    if (r->next_of_session != REQUEST_NONE)
        request_at(&router->requests, r->next_of_session)->prev_of_session = r->prev_of_session;
    r->session = REQUEST_NONE;
    r->next_of_session = r->prev_of_session = REQUEST_NONE;
}

void lifecycle_attach(struct router *router, struct request *r, struct session *s, uint32_t from)
{
    struct session *before = lifecycle_session(router, r);

    if (before && before != s)
        deliver_error(before, &r->id, ERROR_SESSION_LOST, NULL, false, 0,
                      "another session has taken the request up", clock_now_ns());
    lifecycle_detach(router, r);
    link_to_session(router, r, s);
    if (r->canceller == s->index)
        r->canceller = REQUEST_NONE; /* it will hear of the end anyway */
    router->counters.values[COUNTER_ATTACHED]++;
    if (request_rewind(r, from) < 0)
        lifecycle_fail(router, r, ERROR_INTERNAL, true, 0, "no memory");
    deliver_mark(router, r);
}

/* ---- Queue and engine ------------------------------------------------------------------------ */

bool lifecycle_enqueue(struct router *router, struct request *r, struct session *s)
{
    if (class_queue_push_for(&router->queue, r->class_idx, r->tenant,
                             r->n_prompt + r->params.max_tokens, r->index) == CLASS_QUEUE_FULL) {
        request_finish(&router->requests, r, &(struct request_end){.failed = true}, clock_now_ns());
        request_forget(&router->requests, r);
        return false;
    }
    link_to_session(router, r, s);
    (*class_count(router, r, CLASS_ACCEPTED))++;
    router->counters.values[COUNTER_TOKENS_IN] += r->n_prompt;
    return true;
}

void lifecycle_claim(struct router *router, struct request *r, struct engine_link *e,
                     uint32_t worker, uint32_t n_blocks)
{
    class_queue_serve(&router->queue, r->index);
    request_set_state(&router->requests, r, REQUEST_SUBMITTED);
    r->submitted_ns = clock_now_ns();
    r->engine = e->index;
    r->worker = worker;
    r->n_blocks = n_blocks;
    e->n_outstanding++;
    e->blocks_claimed += n_blocks;
    if (worker != REQUEST_NONE)
        e->workers[worker].blocks_claimed += n_blocks;
}

static void release_claim(struct router *router, struct request *r)
{
    if (r->engine == REQUEST_NONE)
        return;
    struct engine_link *e = &router->engines[r->engine];

    e->n_outstanding--;
    e->blocks_claimed -= r->n_blocks;
    if (r->worker != REQUEST_NONE)
        e->workers[r->worker].blocks_claimed -= r->n_blocks;
    r->engine = r->worker = REQUEST_NONE;
    r->n_blocks = 0;
}

void lifecycle_requeue(struct router *router, struct request *r, uint32_t retry_after_ms)
{
    uint32_t wait_ms = retry_after_ms < REQUEUE_MS_MIN ? REQUEUE_MS_MIN : retry_after_ms;

    if (wait_ms > REQUEUE_MS_MAX)
        wait_ms = REQUEUE_MS_MAX;
    release_claim(router, r);
    request_set_state(&router->requests, r, REQUEST_QUEUED);
    class_queue_push_front(&router->queue, r->class_idx, r->index);
    class_queue_set_blocked(&router->queue, r->class_idx, true);
    router->retry_ns[r->class_idx] = clock_now_ns() + wait_ms * NS_PER_MS;
    (*class_count(router, r, CLASS_REQUEUED))++;
}

/* ---- Ends ------------------------------------------------------------------------------------ */

static void count_end(struct router *router, const struct request *r, const struct request_end *end)
{
    static const enum class_counter of_reason[] = {[FINISH_STOP] = CLASS_STOP,
                                                   [FINISH_LENGTH] = CLASS_LENGTH,
                                                   [FINISH_CANCELLED] = CLASS_CANCELLED,
                                                   [FINISH_ERROR] = CLASS_FAILED};

    (*class_count(router, r, end->failed ? CLASS_FAILED : of_reason[end->reason]))++;
}

/* Objectives of the first class, as its clients see them: those that ran and were not cancelled. */
static void count_objectives(struct router *router, const struct request *r,
                             const struct request_end *end)
{
    const struct request_params *p = &r->params;
    const struct omni_config *c = &router->config;
    const double ttft_slo = p->has_ttft_slo ? p->ttft_slo_ms : c->slo_ttft_ms;
    const double tpot_slo = p->has_tpot_slo ? p->tpot_slo_ms : c->slo_tpot_ms;
    const bool ran = r->state == REQUEST_RUNNING || r->state == REQUEST_ENDING;

    if (dispatch_class_waits(r->class_idx) || !ran || end->reason == FINISH_CANCELLED)
        return;
    const bool ttft_late = r->n_output == 0 ? end->failed : request_ttft_ms(r) > ttft_slo;
    const bool tpot_late = request_tpot_ms(r) > tpot_slo;

    *class_count(router, r, CLASS_TTFT_MISSED) += ttft_late;
    *class_count(router, r, CLASS_TPOT_MISSED) += tpot_late;
    (*class_count(router, r,
                  end->failed || ttft_late || tpot_late ? CLASS_SLO_MISSED : CLASS_SLO_MET))++;
}

static struct session *find_canceller(struct router *router, const struct request *r)
{
    return r->canceller == REQUEST_NONE
               ? NULL
               : session_find(&router->sessions, r->canceller, r->canceller_generation);
}

static void tell_canceller(struct router *router, struct request *r, uint64_t now_ns)
{
    struct session *s = find_canceller(router, r);

    r->canceller = REQUEST_NONE;
    if (s && deliver_end(s, r, now_ns) < 0)
        log_warn("canceller_not_told", "session=%u", s->index);
}

/* Before the request forgets where it ran. */
static void log_end(const struct request *r, const struct request_end *end)
{
    char id[REQUEST_ID_TEXT_BYTES];

    request_id_format(&r->id, id);
    log_debug("request_ended", "id=%s class=%u engine=%d prompt=%u output=%u ttft_ms=%.1f end=%s",
              id, r->class_idx, (int)r->engine, r->n_prompt, r->n_output,
              r->n_output > 0 ? request_ttft_ms(r) : 0.0,
              end->failed ? error_code_name(end->code) : finish_reason_name(end->reason));
}

void lifecycle_finish(struct router *router, struct request *r, const struct request_end *end)
{
    const uint64_t now_ns = clock_now_ns();

    log_end(r, end);
    class_queue_remove(&router->queue, r->index);
    release_claim(router, r);
    count_end(router, r, end);
    count_objectives(router, r, end);
    request_finish(&router->requests, r, end, now_ns);
    if (!r->stop_found && stream_end(&r->stream, true) == STREAM_NO_MEMORY)
        log_warn("text_cut", "reason=\"no memory\"");
    deliver_mark(router, r);
    tell_canceller(router, r, now_ns);
}

void lifecycle_fail(struct router *router, struct request *r, enum error_code code, bool retryable,
                    uint32_t retry_after_ms, const char *message)
{
    struct request_end end = {.failed = true,
                              .reason = FINISH_ERROR,
                              .code = code,
                              .retryable = retryable,
                              .retry_after_ms = retry_after_ms};

    if (r->state == REQUEST_FINISHED)
        return;
    snprintf(end.message, sizeof end.message, "%s", message);
    lifecycle_finish(router, r, &end);
}

void lifecycle_cancel(struct router *router, struct request *r)
{
    if (r->state == REQUEST_QUEUED) {
        lifecycle_finish(router, r, &(struct request_end){.reason = FINISH_CANCELLED});
    } else if (r->state == REQUEST_SUBMITTED || r->state == REQUEST_RUNNING) {
        r->end.reason = FINISH_CANCELLED;
        request_set_state(&router->requests, r, REQUEST_ENDING);
        engine_send_end(router, &router->engines[r->engine], &r->id, false);
    }
}

bool lifecycle_cancel_for(struct router *router, struct request *r, const struct session *s)
{
    const struct session *other = find_canceller(router, r);

    if (other && other != s)
        return false;
    r->canceller = s->index;
    r->canceller_generation = s->generation;
    lifecycle_cancel(router, r);
    return true;
}

/* ---- Sessions that end, time ----------------------------------------------------------------- */

static void abandon(struct router *router, struct request *r)
{
    if (r->state == REQUEST_FINISHED || r->state == REQUEST_ENDING)
        return;
    r->abandoned = true;
    r->orphan = false;
    lifecycle_cancel(router, r);
}

void lifecycle_end_session(struct router *router, struct session *s, bool keep_for_a_lease)
{
    const uint64_t now_ns = clock_now_ns();

    while (s->first_request != REQUEST_NONE) {
        struct request *r = request_at(&router->requests, s->first_request);

        lifecycle_detach(router, r);
        if (keep_for_a_lease) {
            r->orphan = true;
            r->orphan_since_ns = now_ns;
            router->has_orphans = true;
        } else {
            abandon(router, r);
        }
    }
    session_destroy(&router->sessions, s);
}

static void tick_orphans(struct router *router, uint64_t now_ns)
{
    const uint64_t lease_ns = router->config.router_lease_ms * NS_PER_MS;

    if (!router->has_orphans)
        return;
    router->has_orphans = false;
    for (uint32_t i = 0; i < router->requests.n_max; i++) {
        struct request *r = request_at(&router->requests, i);

        if (r->state == REQUEST_FREE || !r->orphan)
            continue;
        if (now_ns > r->orphan_since_ns + lease_ns)
            abandon(router, r);
        else
            router->has_orphans = true;
    }
}

void lifecycle_tick(struct router *router, uint64_t now_ns)
{
    const uint64_t keep_ns = router->config.router_result_keep_s * NS_PER_S;
    struct request *r;

    tick_orphans(router, now_ns);
    while (now_ns > keep_ns && router->requests.first_finished != REQUEST_NONE) {
        r = request_oldest_finished(&router->requests, now_ns - keep_ns);
        if (!r || r->session != REQUEST_NONE)
            break;
        request_forget(&router->requests, r);
    }
}
