#include "tests/bench/load_run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/invariant.h"

enum { EVENT_MS = 50, CANCEL_S = 10, ERRORS_MAX = 1000, ERRORS_SHOWN = 5, PAUSE_MS = 100 };

/* Below a millisecond the door cannot wait; looking again so often costs nothing and is late by
 * no more than this. */
#define NAP_NS (100 * NS_PER_US)

/* Prompts of arrivals do not depend on how many of the backlog came before them. */
#define CONTENT_BACKLOG (UINT64_C(1) << 32)

/* ---- Books ----------------------------------------------------------------------------------- */

static bool in_window(const struct load *l, uint64_t ns)
{
    return ns >= l->window_ns && ns < l->end_ns;
}

static struct load_second *second_of(struct load *l, uint64_t now)
{
    uint64_t i = (now - l->begin_ns) / NS_PER_S;

    return &l->bins[i < l->n_bins ? i : l->n_bins - 1];
}

static struct load_record *add_record(struct load *l, const struct load_ask *ask)
{
    if (l->n_records == l->n_records_max) {
        uint32_t n_max = l->n_records_max == 0 ? 1024 : 2 * l->n_records_max;
        struct load_record *records = reallocarray(l->records, n_max, sizeof *records);

        if (records == NULL)
            return NULL;
        l->records = records;
        l->n_records_max = n_max;
    }
    struct load_record *r = &l->records[l->n_records++];
    *r = (struct load_record){.ask = ask};
    return r;
}

/* Nothing is measured without memory for it: the run ends rather than that it forgets gaps. */
static void add_gap(struct load *l, uint64_t ns)
{
    if (l->n_gaps == l->n_gaps_max) {
        l->n_gaps_max = l->n_gaps_max == 0 ? 65536 : 2 * l->n_gaps_max;
        l->gaps_ms = reallocarray(l->gaps_ms, l->n_gaps_max, sizeof *l->gaps_ms);
        invariant(l->gaps_ms != NULL);
    }
    l->gaps_ms[l->n_gaps++] = (float)((double)ns / 1e6);
}

static void end_record(struct load *l, struct load_record *r, enum load_outcome outcome)
{
    invariant(r->outcome == OUTCOME_IN_FLIGHT && outcome != OUTCOME_IN_FLIGHT);
    r->outcome = outcome;
    r->end_ns = clock_now_ns();
    l->n_measured_active -= r->is_measured;
    l->n_backlog_active -= r->is_backlog;
}

/* ---- Sending --------------------------------------------------------------------------------- */

/* -EAGAIN: the door is blocked.  Any other error is the request's outcome. */
static int send_record(struct load *l, const struct load_record *r)
{
    static uint32_t prompt[LOAD_PROMPT_MAX];
    uint64_t seed = l->o.seed + r->content * UINT64_C(0x632be59bd9b4e019);
    bool is_ls = ask_is_ls(r->ask);
    struct error err = {.text = ""};

    for (uint32_t i = 0; i < r->ask->prompt; i++)
        prompt[i] = (uint32_t)(plan_random(&seed) % l->o.vocab);
    struct load_send ask = {.number = (uint32_t)(r - l->records),
                            .class_name = r->ask->class_name,
                            .prompt = prompt,
                            .n_prompt = r->ask->prompt,
                            .n_output = r->ask->output,
                            .ttft_slo_ms = is_ls ? l->o.ttft_slo_ms : 0,
                            .tpot_slo_ms = is_ls ? l->o.tpot_slo_ms : 0};
    int rc = l->door->ops->send(l->door, &ask, &err);
    if (rc != 0 && rc != -EAGAIN)
        fprintf(stderr, "omni-bench-load: %s\n", err.text);
    return rc;
}

/* Makes a record and sends it.  -EAGAIN: it was not sent and is no record; -ENOMEM. */
static int start_request(struct load *l, const struct load_ask *ask, bool is_backlog,
                         uint64_t start_ns)
{
    struct load_record *r = add_record(l, ask);

    if (r == NULL)
        return -ENOMEM;
    r->start_ns = start_ns;
    r->is_backlog = is_backlog;
    r->content = is_backlog ? CONTENT_BACKLOG + l->next_backlog : l->next_arrival;
    r->is_measured = !is_backlog && in_window(l, start_ns);
    int rc = send_record(l, r);
    if (rc == -EAGAIN) {
        l->n_records--;
        return rc;
    }
    r->sent_ns = clock_now_ns();
    l->n_measured_active += r->is_measured;
    l->n_backlog_active += is_backlog;
    if (ask_is_ls(ask))
        second_of(l, start_ns)->ls_arrivals++;
    if (rc != 0) {
        end_record(l, r, OUTCOME_FAILED);
        l->n_errors++;
    }
    return 0;
}

static uint64_t next_arrival_ns(const struct load *l)
{
    return l->next_arrival < l->plan->arrivals.n
               ? l->begin_ns + l->plan->arrivals.asks[l->next_arrival].at_ns
               : UINT64_MAX;
}

/* 0 or -ENOMEM. */
static int start_what_is_due(struct load *l, uint64_t now)
{
    const struct load_list *backlog = &l->plan->backlog;
    int rc = 0;

    while (rc == 0 && next_arrival_ns(l) <= now) {
        rc = start_request(l, &l->plan->arrivals.asks[l->next_arrival], false, next_arrival_ns(l));
        l->next_arrival += rc == 0;
    }
    while (rc == 0 && backlog->n > 0 && l->n_backlog_active < l->o.n_backlog &&
           now >= l->backlog_pause_ns && l->n_errors < ERRORS_MAX) {
        rc = start_request(l, &backlog->asks[l->next_backlog % backlog->n], true, now);
        l->next_backlog += rc == 0;
    }
    return rc == -EAGAIN ? 0 : rc;
}

/* ---- What comes back ------------------------------------------------------------------------- */

static void on_ls_tokens(struct load *l, struct load_record *r, uint32_t n, uint64_t now)
{
    struct load_second *second = second_of(l, now);

    second->ls_tokens += n;
    if (r->n_tokens == 0)
        return;
    uint64_t gap = now - r->last_ns;
    second->n_gaps++;
    second->gaps_ns += gap;
    r->gap_max_ns = gap > r->gap_max_ns ? gap : r->gap_max_ns;
    if (r->is_measured)
        add_gap(l, gap);
}

/* A request's first token comes out of its prefill, and counts there. */
static void on_be_tokens(struct load *l, const struct load_record *r, uint32_t n, uint64_t now)
{
    uint32_t prefill = r->n_tokens == 0 ? r->ask->prompt : 0;
    uint32_t decode = r->n_tokens == 0 ? n - 1 : n;

    second_of(l, now)->be_prefill_tokens += prefill;
    second_of(l, now)->be_decode_tokens += decode;
    if (in_window(l, now)) {
        l->prefill_tokens += prefill;
        l->decode_tokens += decode;
    }
}

static void on_tokens(struct load *l, struct load_record *r, uint32_t n, uint64_t now)
{
    if (n == 0)
        return;
    if (ask_is_ls(r->ask))
        on_ls_tokens(l, r, n, now);
    else
        on_be_tokens(l, r, n, now);
    if (r->n_tokens == 0)
        r->first_ns = now;
    r->n_tokens += n;
    r->last_ns = now;
}

/* A backlog that is refused waits as long as it was told before it asks again. */
static void on_refused(struct load *l, struct load_record *r, const struct load_event *event)
{
    uint32_t ms = event->retry_after_ms > 0 ? event->retry_after_ms : PAUSE_MS;

    r->retry_after_ms = event->retry_after_ms;
    if (r->is_backlog)
        l->backlog_pause_ns = clock_now_ns() + ms * NS_PER_MS;
    end_record(l, r, OUTCOME_REFUSED);
}

static void on_failed(struct load *l, struct load_record *r, const struct load_event *event)
{
    if (l->n_errors++ < ERRORS_SHOWN)
        fprintf(stderr, "omni-bench-load: %s\n", event->text);
    end_record(l, r, OUTCOME_FAILED);
}

static void on_event(struct load *l, const struct load_event *event)
{
    if (event->number >= l->n_records)
        return; /* of a load before this one */
    struct load_record *r = &l->records[event->number];
    if (r->outcome != OUTCOME_IN_FLIGHT)
        return;
    switch (event->kind) {
    case LOAD_TOKENS:
        on_tokens(l, r, event->n_tokens, clock_now_ns());
        return;
    case LOAD_DONE:
    case LOAD_CANCELLED:
        r->places = event->places;
        end_record(l, r, event->kind == LOAD_DONE ? OUTCOME_DONE : OUTCOME_CANCELLED);
        return;
    case LOAD_REFUSED:
        on_refused(l, r, event);
        return;
    default:
        on_failed(l, r, event);
    }
}

/* Takes what comes until then; at least looks once.  False: the server is gone. */
static bool take_events(struct load *l, uint64_t until)
{
    struct load_event event;

    for (;;) {
        uint64_t now = clock_now_ns(), left = until > now ? until - now : 0;
        uint64_t wait_ms = left / NS_PER_MS < EVENT_MS ? left / NS_PER_MS : EVENT_MS;

        if (!l->door->ops->next(l->door, (uint32_t)wait_ms, &event)) {
            if (left == 0 || wait_ms > 0)
                return true;
            clock_sleep_ns(left < NAP_NS ? left : NAP_NS);
            continue;
        }
        if (event.kind == LOAD_GONE) {
            fprintf(stderr, "omni-bench-load: %s\n", event.text);
            return false;
        }
        on_event(l, &event);
        if (l->n_backlog_active < l->o.n_backlog && l->plan->backlog.n > 0)
            return true; /* one of the backlog may have ended */
    }
}

/* ---- The run --------------------------------------------------------------------------------- */

static bool is_over(const struct load *l, uint64_t now)
{
    return now >= l->end_ns &&
           (l->n_measured_active == 0 || now >= l->end_ns + (uint64_t)(l->o.drain_s * 1e9));
}

static bool any_in_flight(const struct load *l)
{
    for (uint32_t i = 0; i < l->n_records; i++) {
        if (l->records[i].outcome == OUTCOME_IN_FLIGHT)
            return true;
    }
    return false;
}

/* The rest ends here; the last words of those requests say where their tokens attended.  What is
 * measured and did not end in time ends here too. */
static bool cancel_rest(struct load *l)
{
    uint64_t until = clock_now_ns() + CANCEL_S * NS_PER_S;
    bool ok = true;

    l->o.n_backlog = 0;
    for (uint32_t i = 0; i < l->n_records; i++) {
        if (l->records[i].outcome == OUTCOME_IN_FLIGHT)
            l->door->ops->cancel(l->door, i);
    }
    for (uint64_t now = clock_now_ns(); ok && now < until && any_in_flight(l); now = clock_now_ns())
        ok = take_events(l, now + EVENT_MS * NS_PER_MS);
    return ok;
}

static int prepare(struct load *l)
{
    double all_s = l->o.warm_up_s + l->o.seconds + l->o.drain_s + CANCEL_S;

    l->n_bins = (uint32_t)all_s + 2;
    l->bins = calloc(l->n_bins, sizeof *l->bins);
    l->begin_ns = clock_now_ns();
    l->window_ns = l->begin_ns + (uint64_t)(l->o.warm_up_s * 1e9);
    l->end_ns = l->window_ns + (uint64_t)(l->o.seconds * 1e9);
    return l->bins == NULL ? -ENOMEM : 0;
}

int load_run(struct load *l)
{
    int rc = prepare(l);

    for (uint64_t now = clock_now_ns(); rc == 0 && !is_over(l, now); now = clock_now_ns()) {
        rc = start_what_is_due(l, now);
        uint64_t until = now + EVENT_MS * NS_PER_MS, due = next_arrival_ns(l);

        if (due <= now) /* the door is blocked */
            due = now + NS_PER_MS;
        if (rc == 0 && (l->n_errors >= ERRORS_MAX || !take_events(l, due < until ? due : until)))
            rc = -EIO;
    }
    if (rc == 0 && !cancel_rest(l))
        rc = -EIO;
    return rc;
}

void load_fini(struct load *l)
{
    free(l->records);
    free(l->gaps_ms);
    free(l->bins);
    l->records = NULL;
    l->gaps_ms = NULL;
    l->bins = NULL;
}
