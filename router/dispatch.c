#include "router/dispatch.h"

#include <string.h>

#include "common/base/clock.h"
#include "router/lifecycle.h"

enum {
    KEPT_DIVISOR = 8, /* one of so many places of an engine is kept for the first class */
    PLACELESS_RETRY_MS = 500
};

bool dispatch_class_waits(uint32_t class_idx)
{
    return class_idx > 0;
}

static uint32_t blocks_for(const struct engine_link *e, uint32_t n_tokens)
{
    return e->block_tokens == 0 ? 0 : (n_tokens + e->block_tokens - 1) / e->block_tokens;
}

static uint32_t largest_kv(const struct engine_link *e, uint32_t class_idx)
{
    uint32_t blocks = e->kv_blocks_total;

    for (uint32_t w = 0; dispatch_class_waits(class_idx) && w < e->n_workers; w++) {
        if (e->workers[w].blocks_total > blocks)
            blocks = e->workers[w].blocks_total;
    }
    return blocks;
}

uint32_t dispatch_tokens_max(const struct router *router, uint32_t class_idx)
{
    uint64_t tokens_max = 0;
    bool any_ready = false;

    for (uint32_t i = 0; i < router->n_engines; i++) {
        const struct engine_link *e = &router->engines[i];
        const uint64_t tokens = (uint64_t)largest_kv(e, class_idx) * e->block_tokens;

        if (e->state != ENGINE_READY)
            continue;
        any_ready = true;
        tokens_max = tokens > tokens_max ? tokens : tokens_max;
    }
    return !any_ready || tokens_max > UINT32_MAX ? UINT32_MAX : (uint32_t)tokens_max;
}

static double load_of(const struct engine_link *e, uint32_t n_blocks)
{
    const double places = (double)(e->n_outstanding + 1) / e->requests_max;
    const double kv = e->kv_blocks_total == 0 ? 0
                                              : ((double)e->blocks_claimed + (double)n_blocks) /
                                                    (double)e->kv_blocks_total;

    return places > kv ? places : kv;
}

/* Places that requests of this class may fill, outstanding ones of every class counted: the later
 * classes are many and long, and the first must not wait for one of them to end. */
static uint32_t places(const struct engine_link *e, uint32_t class_idx)
{
    if (!dispatch_class_waits(class_idx) || e->requests_max <= 1)
        return e->requests_max;
    return e->requests_max - (e->requests_max + KEPT_DIVISOR - 1) / KEPT_DIVISOR;
}

struct engine_link *dispatch_pick_engine(struct router *router, uint32_t class_idx,
                                         uint32_t n_tokens)
{
    struct engine_link *best = NULL;
    double best_load = 0;

    for (uint32_t i = 0; i < router->n_engines; i++) {
        struct engine_link *e = &router->engines[i];

        if (e->state != ENGINE_READY || e->n_outstanding >= places(e, class_idx) ||
            !pair_has_room(&e->pair))
            continue;
        const double load = load_of(e, blocks_for(e, n_tokens));

        if (!best || load < best_load) {
            best = e;
            best_load = load;
        }
    }
    return best;
}

uint32_t dispatch_pick_worker(const struct engine_link *e, uint32_t n_blocks)
{
    uint32_t best = REQUEST_NONE, best_left = 0, best_resident = 0;

    for (uint32_t w = 0; w < e->n_workers; w++) {
        const struct engine_worker *worker = &e->workers[w];

        if (worker->health != WORKER_READY || worker->blocks_total < n_blocks)
            continue;
        /* Free now, and not yet promised: the engine's report is up to 250 ms old. */
        const uint32_t unclaimed = worker->blocks_total > worker->blocks_claimed
                                       ? worker->blocks_total - worker->blocks_claimed
                                       : 0;
        const uint32_t left = unclaimed < worker->blocks_free ? unclaimed : worker->blocks_free;

        if (best == REQUEST_NONE || left > best_left ||
            (left == best_left && worker->resident < best_resident)) {
            best = w;
            best_left = left;
            best_resident = worker->resident;
        }
    }
    return best;
}

static struct message submit_message(const struct request *r)
{
    const struct request_params *p = &r->params;

    return (struct message){
        .type = MESSAGE_SUBMIT,
        .submit = {.id = r->id,
                   .class_index = r->class_idx,
                   .tokens = {.data = r->prompt, .n = r->n_prompt},
                   .max_tokens = p->max_tokens,
                   .temperature = p->temperature,
                   .top_k = p->top_k,
                   .top_p = p->top_p,
                   .min_p = p->min_p,
                   .repetition_penalty = p->repetition_penalty,
                   .presence_penalty = p->presence_penalty,
                   .frequency_penalty = p->frequency_penalty,
                   .has_logit_bias = r->n_biases > 0,
                   .logit_bias = {.data = r->biases, .n = r->n_biases},
                   .min_tokens = p->min_tokens,
                   .has_n_logprobs = p->has_logprobs,
                   .n_logprobs = p->n_logprobs,
                   .seed = p->seed,
                   .stop_tokens = {.data = p->stop_tokens, .n = p->n_stop_tokens},
                   .has_adapter = p->adapter[0] != '\0',
                   .adapter = str_of(p->adapter),
                   .has_tenant = p->tenant[0] != '\0',
                   .tenant = str_of(p->tenant),
                   .has_worker = r->worker != REQUEST_NONE,
                   .worker = r->worker,
                   .has_ttft_slo_ms = p->has_ttft_slo,
                   .ttft_slo_ms = p->ttft_slo_ms,
                   .has_tpot_slo_ms = p->has_tpot_slo,
                   .tpot_slo_ms = p->tpot_slo_ms,
                   .arrival_ns = r->arrival_ns}};
}

static void submit(struct router *router, struct request *r, struct engine_link *e, uint64_t now_ns)
{
    const uint32_t n_blocks = blocks_for(e, r->n_prompt + r->params.max_tokens);
    const uint32_t worker =
        dispatch_class_waits(r->class_idx) ? dispatch_pick_worker(e, n_blocks) : REQUEST_NONE;

    lifecycle_claim(router, r, e, worker, n_blocks);
    const struct message m = submit_message(r);

    if (pair_send(&e->pair, &m, now_ns) < 0)
        lifecycle_fail(router, r, ERROR_INTERNAL, true, 0, "the engine's link is full");
}

static void unblock_classes(struct router *router, uint64_t now_ns)
{
    for (uint32_t c = 0; c < router->n_classes; c++) {
        if (router->retry_ns[c] == 0 || now_ns < router->retry_ns[c])
            continue;
        router->retry_ns[c] = 0;
        class_queue_set_blocked(&router->queue, c, false);
    }
}

static bool any_engine_ready(const struct router *router)
{
    for (uint32_t i = 0; i < router->n_engines; i++) {
        if (router->engines[i].state == ENGINE_READY)
            return true;
    }
    return false;
}

/* The tenant's first whose time is up, while no engine is ready; each tenant's are in order of
 * arrival. */
static struct request *find_unservable(struct router *router, uint32_t class_idx, uint32_t tenant,
                                       uint64_t now_ns)
{
    const uint64_t lease_ns = router->config.router_lease_ms * NS_PER_MS;
    const uint32_t item = class_queue_head(&router->queue, class_idx, tenant);

    if (item == CLASS_QUEUE_NONE)
        return NULL;
    struct request *r = request_at(&router->requests, item);
    const uint64_t since_ns = r->arrival_ns > router->served_ns ? r->arrival_ns : router->served_ns;

    return now_ns < since_ns + lease_ns ? NULL : r;
}

/* While no engine is ready: what does not survive waiting waits one lease at most, from its arrival
 * or from when the last engine was lost. */
static void end_unservable(struct router *router, uint64_t now_ns)
{
    struct request *r;

    for (uint32_t c = 0; c < router->n_classes; c++) {
        for (uint32_t t = 0; !dispatch_class_waits(c) && t < router->tenants.n; t++) {
            while ((r = find_unservable(router, c, t, now_ns)) != NULL)
                lifecycle_fail(router, r, ERROR_ENGINE_LOST, true, 0, "no engine is ready");
        }
    }
}

/* No engine has a place for it.  A request of the first class whose first token would already be
 * late is refused; the others wait.  True: it has ended. */
static bool end_placeless(struct router *router, struct request *r, uint64_t now_ns)
{
    const struct request_params *p = &r->params;
    const double ttft_ms = p->has_ttft_slo ? p->ttft_slo_ms : router->config.slo_ttft_ms;

    if (dispatch_class_waits(r->class_idx) || (double)(now_ns - r->arrival_ns) < ttft_ms * 1e6)
        return false;
    router->counters.of_class[r->class_idx][CLASS_REFUSED]++;
    lifecycle_fail(router, r, ERROR_OVERLOADED, true, PLACELESS_RETRY_MS,
                   "every place of the engines is taken");
    return true;
}

void dispatch_run(struct router *router, uint64_t now_ns)
{
    unblock_classes(router, now_ns);
    if (!any_engine_ready(router)) {
        end_unservable(router, now_ns);
        return;
    }
    router->served_ns = now_ns;
    for (;;) {
        const uint32_t item = class_queue_front(&router->queue);

        if (item == CLASS_QUEUE_NONE)
            return;
        struct request *r = request_at(&router->requests, item);
        const uint32_t n_tokens = r->n_prompt + r->params.max_tokens;

        if (n_tokens > dispatch_tokens_max(router, r->class_idx)) {
            lifecycle_fail(router, r, ERROR_NO_CAPACITY, false, 0,
                           "prompt and max_tokens exceed the KV memory of every engine");
            continue;
        }
        struct engine_link *e = dispatch_pick_engine(router, r->class_idx, n_tokens);

        if (e)
            submit(router, r, e, now_ns);
        else if (!end_placeless(router, r, now_ns))
            return;
    }
}
