#include "router/service.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "router/deliver.h"
#include "router/dispatch.h"
#include "router/lifecycle.h"
#include "router/status.h"

enum {
    MAX_TOKENS_DEFAULT = 1024, /* of a request that names none; cut to what the context leaves */
    QUEUE_FULL_RETRY_MS = 1000,
    CANCEL_RETRY_MS = 100, /* an engine answers within a sweep */
};

/* ---- generate: a new request ----------------------------------------------------------------- */

/* Why a request is refused; retry_after_ms 0: never retry. */
struct refusal {
    enum error_code code;
    const char *field;
    uint32_t retry_after_ms;
    char message[200];
};

static void refuse(struct router *router, struct session *s, const struct message_generate *g,
                   const struct refusal *why, uint32_t class_idx)
{
    if (class_idx < router->n_classes)
        router->counters.of_class[class_idx][CLASS_REFUSED]++;
    deliver_error(s, &g->id, why->code, why->field, why->retry_after_ms > 0, why->retry_after_ms,
                  why->message, clock_now_ns());
}

static uint32_t find_class(const struct router *router, struct str name)
{
    for (uint32_t c = 0; c < router->n_classes; c++) {
        if (str_equal(name, router->class_names[c]))
            return c;
    }
    return REQUEST_NONE;
}

static uint64_t random_seed(void)
{
    uint64_t seed;

    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        seed = clock_now_ns();
    return seed >> 11; /* 53 bits: exact wherever a number is a double, as in JSON */
}

/* The client's, and the model's unless they are to be ignored. */
static void take_stop_tokens(const struct router *router, const struct message_generate *g,
                             struct request_params *p)
{
    const bool ignore_eos = g->has_ignore_eos && g->ignore_eos;

    static_assert(TEXT_STOP_TOKENS_MAX + 32 <= REQUEST_STOP_TOKENS_MAX, "both lists have room");
    for (uint32_t i = 0; g->has_stop_tokens && i < g->stop_tokens.n; i++)
        p->stop_tokens[p->n_stop_tokens++] = g->stop_tokens.data[i];
    for (uint32_t i = 0; !ignore_eos && i < router->text.n_stop_tokens; i++)
        p->stop_tokens[p->n_stop_tokens++] = router->text.stop_tokens[i];
}

/* Everything but max_tokens, which depends on the prompt. */
static struct request_params params_of(const struct router *router,
                                       const struct message_generate *g, uint64_t default_seed)
{
    struct request_params p = {
        .temperature = g->has_temperature ? g->temperature : 0,
        .top_k = g->has_top_k ? g->top_k : 0,
        .top_p = g->has_top_p ? g->top_p : 1,
        .min_p = g->has_min_p ? g->min_p : 0,
        .seed = g->has_seed ? g->seed : default_seed,
        .repetition_penalty = g->has_repetition_penalty ? g->repetition_penalty : 1,
        .presence_penalty = g->has_presence_penalty ? g->presence_penalty : 0,
        .frequency_penalty = g->has_frequency_penalty ? g->frequency_penalty : 0,
        .min_tokens = g->has_min_tokens ? g->min_tokens : 0,
        .has_logprobs = g->has_logprobs,
        .n_logprobs = g->has_logprobs ? g->logprobs : 0,
        .has_ttft_slo = g->has_ttft_slo_ms,
        .ttft_slo_ms = g->ttft_slo_ms,
        .has_tpot_slo = g->has_tpot_slo_ms,
        .tpot_slo_ms = g->tpot_slo_ms,
    };

    take_stop_tokens(router, g, &p);
    if (g->has_adapter)
        snprintf(p.adapter, sizeof p.adapter, "%.*s", (int)g->adapter.n, g->adapter.data);
    if (g->has_tenant)
        snprintf(p.tenant, sizeof p.tenant, "%.*s", (int)g->tenant.n, g->tenant.data);
    return p;
}

static int refuse_tokens(struct refusal *why, enum error_code code, uint32_t n_prompt,
                         uint32_t max_tokens, const char *what, uint32_t limit)
{
    why->code = code;
    why->field = "max_tokens";
    snprintf(why->message, sizeof why->message,
             "%u prompt tokens and max_tokens %u exceed %s of %u tokens", n_prompt, max_tokens,
             what, limit);
    return -EINVAL;
}

/* What is asked for must fit the context, and the KV memory of some engine; a default is cut to
 * that.  0, or -EINVAL with the refusal filled in. */
static int choose_max_tokens(const struct router *router, const struct message_generate *g,
                             uint32_t class_idx, uint32_t n_prompt, struct request_params *p,
                             struct refusal *why)
{
    const uint32_t n_ctx = router->text.n_ctx;
    const uint32_t kv = dispatch_tokens_max(router, class_idx);
    const uint32_t limit = kv < n_ctx ? kv : n_ctx;
    const uint32_t room = limit > n_prompt ? limit - n_prompt : 0;

    p->max_tokens = g->has_max_tokens ? g->max_tokens : MAX_TOKENS_DEFAULT;
    if (!g->has_max_tokens && p->max_tokens > room && room > 0)
        p->max_tokens = room;
    if (p->max_tokens == 0) {
        why->code = ERROR_BAD_REQUEST;
        why->field = "max_tokens";
        snprintf(why->message, sizeof why->message, "max_tokens must be at least 1");
        return -EINVAL;
    }
    if (p->min_tokens > p->max_tokens) {
        why->code = ERROR_BAD_REQUEST;
        why->field = "min_tokens";
        snprintf(why->message, sizeof why->message, "min_tokens %u exceeds max_tokens %u",
                 p->min_tokens, p->max_tokens);
        return -EINVAL;
    }
    if ((uint64_t)n_prompt + p->max_tokens > n_ctx)
        return refuse_tokens(why, ERROR_TOO_LONG, n_prompt, p->max_tokens, "the context", n_ctx);
    if ((uint64_t)n_prompt + p->max_tokens > kv)
        return refuse_tokens(why, ERROR_NO_CAPACITY, n_prompt, p->max_tokens,
                             "the KV memory of every engine,", kv);
    return 0;
}

static void explain_result(enum request_result result, struct refusal *why)
{
    switch (result) {
    case REQUEST_BAD_STOP:
        why->code = ERROR_BAD_REQUEST;
        why->field = "stop";
        snprintf(why->message, sizeof why->message, "a stop string is empty or too long");
        break;
    case REQUEST_TABLE_FULL:
        why->code = ERROR_QUEUE_FULL;
        why->retry_after_ms = QUEUE_FULL_RETRY_MS;
        snprintf(why->message, sizeof why->message, "no place for another request");
        break;
    default:
        why->code = ERROR_INTERNAL;
        why->retry_after_ms = QUEUE_FULL_RETRY_MS;
        snprintf(why->message, sizeof why->message, "no memory");
        break;
    }
}

/* Takes the prompt over; 0, or -EINVAL with the refusal filled in and the prompt still the
 * caller's. */
static int create(struct router *router, const struct message_generate *g, uint32_t class_idx,
                  const struct request_params *p, uint32_t *prompt, uint32_t n_prompt,
                  uint64_t arrival_ns, struct request **out, struct refusal *why)
{
    const struct request_lists lists = {.stops = g->has_stop ? g->stop : (struct str_array){0},
                                        .biases = g->has_logit_bias ? g->logit_bias
                                                                    : (struct token_bias_list){0}};
    const enum request_result result =
        request_create(&router->requests, &g->id, p, &lists, prompt, n_prompt, arrival_ns, out);

    why->field = NULL;
    if (result != REQUEST_CREATED) {
        explain_result(result, why);
        return -EINVAL;
    }
    (*out)->class_idx = class_idx;
    (*out)->tenant = config_tenant_find(&router->tenants, p->tenant, strlen(p->tenant));
    (*out)->n_sent = g->has_resume_from ? g->resume_from : 0;
    return 0;
}

static void start_with_prompt(struct router *router, struct session *s,
                              const struct message_generate *g, uint32_t class_idx,
                              uint64_t default_seed, uint32_t *prompt, uint32_t n_prompt,
                              uint64_t arrival_ns)
{
    struct request_params p = params_of(router, g, default_seed);
    struct refusal why = {0};
    struct request *r;

    if (choose_max_tokens(router, g, class_idx, n_prompt, &p, &why) < 0 ||
        create(router, g, class_idx, &p, prompt, n_prompt, arrival_ns, &r, &why) < 0) {
        free(prompt);
        refuse(router, s, g, &why, class_idx);
        return;
    }
    if (lifecycle_enqueue(router, r, s))
        return;
    why.code = ERROR_QUEUE_FULL;
    why.retry_after_ms = QUEUE_FULL_RETRY_MS;
    snprintf(why.message, sizeof why.message, "the queue of class %s is full (%u requests)",
             router->class_names[class_idx], class_queue_length(&router->queue, class_idx));
    refuse(router, s, g, &why, class_idx);
}

/* The last four bytes of the id, as a number with its first byte most significant, plus k. */
static struct request_id id_plus(struct request_id id, uint32_t k)
{
    for (size_t at = sizeof id.bytes; k > 0 && at-- > sizeof id.bytes - 4;) {
        k += id.bytes[at];
        id.bytes[at] = (uint8_t)k;
        k >>= 8;
    }
    return id;
}

static uint32_t n_answers(const struct message_generate *g)
{
    return g->has_n && g->n > 1 ? g->n : 1;
}

/* Every answer that was asked for gets an end. */
static void refuse_all(struct router *router, struct session *s, const struct message_generate *g,
                       const struct refusal *why, uint32_t class_idx)
{
    for (uint32_t k = 0; k < n_answers(g); k++) {
        struct message_generate one = *g;

        one.id = id_plus(g->id, k);
        refuse(router, s, &one, why, class_idx);
    }
}

/* Each answer is a request of its own; an id that is known already is not started again. */
static void start_answers(struct router *router, struct session *s,
                          const struct message_generate *g, uint32_t class_idx,
                          uint64_t default_seed, const uint32_t *prompt, uint32_t n_prompt,
                          uint64_t arrival_ns)
{
    struct refusal why = {.code = ERROR_INTERNAL};

    for (uint32_t k = 0; k < n_answers(g); k++) {
        struct message_generate one = *g;
        uint32_t *own = malloc(n_prompt * sizeof *own);

        one.id = id_plus(g->id, k);
        one.seed += k;
        if (!own) {
            explain_result(REQUEST_NO_MEMORY, &why);
            refuse(router, s, &one, &why, class_idx);
        } else if (request_find(&router->requests, &one.id) != NULL) {
            free(own);
        } else {
            memcpy(own, prompt, n_prompt * sizeof *own);
            start_with_prompt(router, s, &one, class_idx, default_seed + k, own, n_prompt,
                              arrival_ns);
        }
    }
}

/* What can be said of the request without its prompt; 0, or -EINVAL with the refusal filled in. */
static int check(const struct router *router, const struct message_generate *g, uint32_t class_idx,
                 struct refusal *why)
{
    const bool has_tenant = g->has_tenant && g->tenant.n > 0;

    if (class_idx == REQUEST_NONE) {
        snprintf(why->message, sizeof why->message, "no such class");
        return -EINVAL;
    }
    if (has_tenant && !config_is_plain_name(g->tenant.data, g->tenant.n)) {
        why->field = "tenant";
        snprintf(why->message, sizeof why->message,
                 "expected letters, digits, '.', '_' and '-', not beginning with '.'");
        return -EINVAL;
    }
    why->field = text_check_ids(&router->text, g, why->message, sizeof why->message);
    return why->field == NULL ? 0 : -EINVAL;
}

static void start(struct router *router, struct session *s, const struct message_generate *g,
                  uint64_t default_seed)
{
    const uint64_t arrival_ns = clock_now_ns();
    const uint32_t class_idx = find_class(router, g->class);
    struct refusal why = {.code = ERROR_BAD_REQUEST, .field = "class"};
    struct text_error wrong;
    uint32_t *prompt, n_prompt;

    if (check(router, g, class_idx, &why) < 0) {
        refuse_all(router, s, g, &why, class_idx);
        return;
    }
    int rc = text_encode(&router->text, g, &prompt, &n_prompt, &wrong);

    if (rc == 0) {
        start_answers(router, s, g, class_idx, default_seed, prompt, n_prompt, arrival_ns);
        free(prompt);
        return;
    }
    if (rc == -ENOMEM) {
        explain_result(REQUEST_NO_MEMORY, &why);
    } else {
        why.code = wrong.code;
        why.field = wrong.field;
        snprintf(why.message, sizeof why.message, "%s", wrong.message);
    }
    refuse_all(router, s, g, &why, class_idx);
}

/* ---- generate: a known request --------------------------------------------------------------- */

static bool has_input(const struct message_generate *g)
{
    return g->has_prompt || g->has_messages || g->has_tokens;
}

/* A result that is no answer to the client's question: it may ask again under the same id. */
static bool may_run_again(const struct request *r)
{
    return r->state == REQUEST_FINISHED && ((r->end.failed && r->end.retryable) || r->abandoned);
}

void service_on_generate(struct router *router, struct session *s, const struct message *m)
{
    const struct message_generate *g = &m->generate;
    struct request *r = request_find(&router->requests, &g->id);
    uint64_t default_seed = 0;

    if (r && !(may_run_again(r) && has_input(g))) {
        lifecycle_attach(router, r, s, g->has_resume_from ? g->resume_from : 0);
        return;
    }
    if (!r && !has_input(g)) {
        deliver_error(s, &g->id, ERROR_NOT_FOUND, "id", false, 0,
                      "no request with this id is known here", clock_now_ns());
        return;
    }
    if (r) {
        /* The same seed gives the same tokens again: what the client has of them stays true. */
        default_seed = r->params.seed;
        lifecycle_detach(router, r);
        request_forget(&router->requests, r);
    } else {
        default_seed = random_seed();
    }
    start(router, s, g, default_seed);
}

/* ---- The rest -------------------------------------------------------------------------------- */

/* Whoever knows the 16 random bytes of an id got them from whoever sent the request. */
void service_on_cancel(struct router *router, struct session *s, const struct message *m)
{
    const uint64_t now_ns = clock_now_ns();
    const struct request_id *id = &m->cancel.id;
    struct request *r = request_find(&router->requests, id);

    if (!r)
        deliver_error(s, id, ERROR_NOT_FOUND, "id", false, 0,
                      "no request with this id is known here", now_ns);
    else if (r->session == s->index)
        lifecycle_cancel(router, r);
    else if (r->state == REQUEST_FINISHED)
        deliver_end(s, r, now_ns);
    else if (!lifecycle_cancel_for(router, r, s))
        deliver_error(s, id, ERROR_OVERLOADED, "id", true, CANCEL_RETRY_MS,
                      "another session is cancelling this request", now_ns);
}

void service_on_status(struct router *router, struct session *s, const struct message *m)
{
    const uint64_t now_ns = clock_now_ns();
    char *json = status_json(router, now_ns);
    const struct message reply = {.type = MESSAGE_STATUS_REPLY,
                                  .status_reply = {.seq = m->status.seq, .json = str_of(json)}};

    if (!json || pair_send(&s->pair, &reply, now_ns) < 0)
        deliver_error(s, NULL, ERROR_INTERNAL, NULL, true, 0,
                      "the status does not fit into the session's outbox", now_ns);
    free(json);
}

void service_on_ping(struct router *router, struct session *s, const struct message *m)
{
    const struct message pong = {.type = MESSAGE_PONG, .pong = {.epoch = router->epoch}};

    (void)m;
    if (pair_send(&s->pair, &pong, clock_now_ns()) < 0)
        log_debug("pong_not_sent", "session=%u", s->index);
}

void service_on_bad_message(struct router *router, struct session *s,
                            const struct codec_error *error)
{
    const uint64_t now_ns = clock_now_ns();

    router->counters.values[COUNTER_BAD_MESSAGES]++;
    deliver_error(s, error->has_id ? &error->id : NULL, ERROR_BAD_REQUEST, error->field, false, 0,
                  error->text, now_ns);
    if (++s->n_bad_messages <= SESSION_BAD_MESSAGES)
        return;
    deliver_error(s, NULL, ERROR_SESSION_LOST, NULL, false, 0, "too many malformed messages",
                  now_ns);
    session_begin_close(s, now_ns);
}
