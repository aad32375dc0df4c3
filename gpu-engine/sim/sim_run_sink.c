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

static void on_token(struct sim_run *r, const struct engine_token_item *item)
{
    struct sim_request *q = request_of(r, &item->id);
    uint64_t now = r->clock.now_ns;
    bool counts = sim_run_in_window(r, now);

    invariant(item->index == q->n_tokens && now >= q->last_ns);
    q->n_tokens += item->ids.n;
    if (counts) {
        class_of(r, q)->n_tokens += item->ids.n;
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

static void on_end(struct sim_run *r, const struct request_id *id, bool finished, bool failed)
{
    struct sim_request *q = request_of(r, id);

    invariant(q->end_ns == 0);
    q->end_ns = r->clock.now_ns;
    q->finished = finished;
    q->failed = failed;
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
        on_end(r, &m->engine_done.id, m->engine_done.reason == FINISH_LENGTH, false);
        break;
    case MESSAGE_ENGINE_ERROR:
        on_end(r, &m->engine_error.id, false, true);
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
