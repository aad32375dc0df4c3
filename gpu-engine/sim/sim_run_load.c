/* The load's side of a run: requests go in through the engine's own intake. */
#include <stdlib.h>
#include <string.h>

#include "gpu-engine/intake.h"
#include "gpu-engine/sim/sim_run_private.h"

enum { REQUESTS_FIRST = 1024 };

static struct sim_request *new_request(struct sim_run *r)
{
    if (r->n_requests == r->requests_cap) {
        uint32_t cap = r->requests_cap == 0 ? REQUESTS_FIRST : 2 * r->requests_cap;
        struct sim_request *grown = realloc(r->requests, cap * sizeof *grown);
        if (grown == NULL)
            abort(); /* a simulation may: nobody is served by it */
        r->requests = grown;
        r->requests_cap = cap;
    }
    return &r->requests[r->n_requests++];
}

static struct request_id id_of(uint32_t i)
{
    struct request_id id = {.bytes = {0}};

    memcpy(id.bytes, &i, sizeof i);
    return id;
}

/* The first tokens name the request, so that no two share a prefix. */
static void fill_prompt(struct sim_run *r, uint32_t i, uint32_t n)
{
    uint32_t base = r->engine.n_vocab;

    for (uint32_t k = 0; k < n; k++)
        r->prompt[k] = 0;
    for (uint32_t k = 0; k < n && i > 0; k++, i /= base)
        r->prompt[k] = i % base;
}

static struct sim_pair within_context(const struct sim_run *r, struct sim_pair lengths)
{
    uint32_t most = r->engine.context_max;

    if (lengths.n_out > most / 2)
        lengths.n_out = most / 2;
    if (lengths.n_in > most - lengths.n_out)
        lengths.n_in = most - lengths.n_out;
    return lengths;
}

void sim_run_note_request(struct sim_run *r, uint64_t arrival_ns, bool latency_sensitive,
                          struct sim_pair lengths)
{
    *new_request(r) = (struct sim_request){.arrival_ns = arrival_ns,
                                           .n_in = lengths.n_in,
                                           .n_out = lengths.n_out,
                                           .latency_sensitive = latency_sensitive};
}

static bool submit_for(struct sim_run *r, uint64_t arrival_ns, const char *tenant,
                       bool latency_sensitive, struct sim_pair drawn)
{
    uint32_t i = r->n_requests;
    struct sim_pair lengths = within_context(r, drawn);
    const struct message_submit m = {
        .id = id_of(i),
        .class_index = latency_sensitive ? 0 : 1,
        .tokens = {.data = r->prompt, .n = lengths.n_in},
        .max_tokens = lengths.n_out,
        .top_p = 1,
        .arrival_ns = arrival_ns,
        .has_ttft_slo_ms = latency_sensitive,
        .ttft_slo_ms = r->options.ttft_slo_s * 1e3,
        .has_tpot_slo_ms = latency_sensitive,
        .tpot_slo_ms = r->options.tpot_slo_s * 1e3,
        .has_tenant = tenant != NULL,
        .tenant = str_of(tenant != NULL ? tenant : ""),
    };

    sim_run_note_request(r, arrival_ns, latency_sensitive, lengths);
    fill_prompt(r, i, lengths.n_in);
    bool accepted = intake_submit(&r->engine, &m);
    r->requests[i].accepted = accepted;
    r->be_open += accepted && !latency_sensitive;
    r->be_before_first += accepted && !latency_sensitive;
    r->ls_open += accepted && latency_sensitive && sim_run_in_window(r, arrival_ns);
    return accepted;
}

bool sim_run_submit(struct sim_run *r, uint64_t arrival_ns, bool latency_sensitive,
                    struct sim_pair drawn)
{
    return submit_for(r, arrival_ns, NULL, latency_sensitive, drawn);
}

static void submit_extras(struct sim_run *r)
{
    for (; r->next_extra < r->n_extras && r->extras[r->next_extra].at_ns <= r->clock.now_ns;
         r->next_extra++) {
        const struct sim_extra *x = &r->extras[r->next_extra];
        submit_for(r, x->at_ns, x->tenant, x->latency_sensitive, x->lengths);
    }
}

static void submit_arrivals(struct sim_run *r, struct sim_arrivals *a, bool latency_sensitive)
{
    const struct sim_load *load = &r->options.load;
    uint64_t at;

    while ((at = sim_arrivals_next_ns(a)) <= r->clock.now_ns) {
        sim_run_submit(r, at, latency_sensitive,
                       latency_sensitive
                           ? sim_lengths_draw(&load->ls, load->seed, STREAM_LS, r->n_ls++)
                           : sim_lengths_draw(&load->be, load->seed, STREAM_BE, r->n_be++));
        sim_arrivals_pop(a);
    }
}

/* A closed loop: as one ends the next of the list comes. */
static void keep_in_flight(struct sim_run *r)
{
    const struct sim_load *load = &r->options.load;

    while (r->be_open < load->be_in_flight) {
        uint32_t before = r->be_open;
        sim_run_submit(r, r->clock.now_ns, false, load->be.pairs[r->n_be++ % load->be.n_pairs]);
        if (r->be_open == before)
            break; /* refused: the next one would be too */
    }
}

/* An endless queue: so many always wait for their first token. */
static void top_up_backlog(struct sim_run *r)
{
    const struct sim_load *load = &r->options.load;
    uint32_t reserve = r->engine.sequences.n / SIM_RESERVE_SHARE;

    if (load->be_rate > 0)
        return;
    while (r->be_before_first < load->be_backlog && r->engine.sequences.n_free > reserve) {
        uint32_t before = r->be_before_first;
        sim_run_submit(r, r->clock.now_ns, false,
                       sim_lengths_draw(&load->be, load->seed, STREAM_BE, r->n_be++));
        if (r->be_before_first == before)
            break; /* refused: the next one would be too */
    }
}

void sim_run_submit_due(struct sim_run *r)
{
    if (r->load_off)
        return;
    submit_extras(r);
    submit_arrivals(r, &r->ls_arrivals, true);
    submit_arrivals(r, &r->be_arrivals, false);
    if (r->options.be_computed)
        sim_run_feed(r);
    else if (r->options.load.be_in_flight > 0)
        keep_in_flight(r);
    else
        top_up_backlog(r);
}

uint64_t sim_run_next_arrival_ns(const struct sim_run *r)
{
    uint64_t next = sim_arrivals_next_ns(&r->ls_arrivals),
             be = sim_arrivals_next_ns(&r->be_arrivals);

    if (r->load_off)
        return UINT64_MAX;
    next = be < next ? be : next;
    if (r->next_extra < r->n_extras && r->extras[r->next_extra].at_ns < next)
        next = r->extras[r->next_extra].at_ns;
    return next;
}
