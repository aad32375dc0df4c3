/* The router's side of a run: takes the engine's messages, and notes when each token came. */
#include <string.h>

#include "common/base/invariant.h"
#include "gpu-engine/sim/sim_run_private.h"

static struct sim_request *request_of(struct sim_run *r, const struct request_id *id)
{
    uint32_t i;

    memcpy(&i, id->bytes, sizeof i);
    invariant(i < r->n_requests);
    return &r->requests[i];
}

static struct sim_class_result *class_of(struct sim_run *r, const struct sim_request *q)
{
    return q->latency_sensitive ? &r->result->ls : &r->result->be;
}

static void note_gap(struct sim_run *r, uint64_t gap_ns)
{
    sim_histogram_add(&r->result->gaps, gap_ns);
    r->result->n_gaps_ok += (double)gap_ns <= r->options.tpot_slo_s * 1e9;
}

static void note_tokens(struct sim_run *r, struct sim_request *q, uint32_t n)
{
    uint64_t now = r->clock.now_ns;
    bool counts = sim_run_in_window(r, now);

    invariant(now >= q->last_ns);
    q->n_tokens += n;
    if (counts) {
        class_of(r, q)->n_tokens += n;
        class_of(r, q)->n_prompt_tokens += q->first_ns == 0 ? q->n_in : 0;
    }
    if (q->first_ns == 0) {
        q->first_ns = now;
        r->be_before_first -= !q->latency_sensitive;
    } else if (q->latency_sensitive && counts) {
        note_gap(r, now - q->last_ns);
    }
    q->last_ns = now;
}

static void on_token(struct sim_run *r, const struct engine_token_item *item)
{
    struct sim_request *q = request_of(r, &item->id);

    invariant(item->index == q->n_tokens);
    note_tokens(r, q, item->ids.n);
}

static void note_end(struct sim_run *r, struct sim_request *q, bool finished, bool failed)
{
    invariant(q->end_ns == 0);
    q->end_ns = r->clock.now_ns;
    q->finished = finished;
    q->failed = failed;
    r->be_open -= !q->latency_sensitive;
    r->be_before_first -= !q->latency_sensitive && q->first_ns == 0;
    r->ls_open -= q->latency_sensitive && sim_run_in_window(r, q->arrival_ns);
}

static void sink_send(void *arg, const struct message *m)
{
    struct sim_run *r = arg;

    switch (m->type) {
    case MESSAGE_ENGINE_TOKENS:
        for (uint32_t i = 0; i < m->engine_tokens.items.n; i++)
            on_token(r, &m->engine_tokens.items.data[i]);
        break;
    case MESSAGE_ENGINE_DONE:
        note_end(r, request_of(r, &m->engine_done.id), m->engine_done.reason == FINISH_LENGTH,
                 false);
        break;
    case MESSAGE_ENGINE_ERROR:
        note_end(r, request_of(r, &m->engine_error.id), false, true);
        break;
    case MESSAGE_SUBMIT_REPLY: /* intake_submit says the same */
        break;
    default:
        invariant(false);
    }
}

static bool sink_connected(void *arg)
{
    (void)arg;
    return false; /* nobody reads state messages */
}

struct engine_sink sim_run_sink(struct sim_run *r)
{
    return (struct engine_sink){.send = sink_send, .connected = sink_connected, .arg = r};
}

/* ---- The CPU-only engines -------------------------------------------------------------------- */

static uint32_t elsewhere_room(void *arg)
{
    const struct sim_run *r = arg;

    return sim_cpu_engine_room(r->cpu_engine);
}

static void elsewhere_take(void *arg, const struct request_id *id)
{
    struct sim_run *r = arg;
    const struct sim_request *q = request_of(r, id);

    /* One that lost its KV has output already. */
    const struct sim_cpu_request moved = {
        (uint32_t)(q - r->requests), {q->n_in, q->n_out}, q->n_tokens, false};

    sim_cpu_engine_take(r->cpu_engine, r->clock.now_ns, &moved);
}

struct engine_elsewhere sim_run_elsewhere(struct sim_run *r)
{
    return (struct engine_elsewhere){.room = elsewhere_room, .take = elsewhere_take, .arg = r};
}

static void elsewhere_token(void *arg, uint32_t request, uint64_t at_ns, bool last)
{
    struct sim_run *r = arg;
    struct sim_request *q = &r->requests[request];

    invariant(at_ns <= r->clock.now_ns);
    note_tokens(r, q, 1);
    if (last)
        note_end(r, q, true, false);
}

struct sim_cpu_sink sim_run_cpu_sink(struct sim_run *r)
{
    return (struct sim_cpu_sink){.token = elsewhere_token, .arg = r};
}

static void drop(void *arg, uint32_t request)
{
    struct sim_run *r = arg;

    note_end(r, &r->requests[request], false, false);
}

void sim_run_drop_elsewhere(struct sim_run *r)
{
    if (r->cpu_engine != NULL)
        sim_cpu_engine_drop_all(r->cpu_engine, drop, r);
}
