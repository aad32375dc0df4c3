#include "tests/bench/load_report.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "common/base/clock.h"

enum { PRECISION = 8, CLASSES_MAX = 16 };

static const char *const OUTCOME_NAMES[OUTCOME_N] = {[OUTCOME_IN_FLIGHT] = "unfinished",
                                                     [OUTCOME_DONE] = "done",
                                                     [OUTCOME_REFUSED] = "refused",
                                                     [OUTCOME_FAILED] = "failed",
                                                     [OUTCOME_CANCELLED] = "cancelled"};

static double ms(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (double)(to_ns - from_ns) / 1e6 : 0;
}

/* ---- Lateness -------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;

    return (left > right) - (left < right);
}

static json_t *lateness(const struct load *l)
{
    double *late = calloc(l->n_records + 1, sizeof *late);
    size_t n = 0;

    for (uint32_t i = 0; late != NULL && i < l->n_records; i++) {
        if (!l->records[i].is_backlog)
            late[n++] = ms(l->records[i].start_ns, l->records[i].sent_ns);
    }
    if (n > 0)
        qsort(late, n, sizeof *late, by_value);
    json_t *out =
        late == NULL
            ? NULL
            : json_pack("{s:I, s:f, s:f, s:f}", "n", (json_int_t)n, "p50", late[n / 2], "p99",
                        late[n * 99 / 100 < n ? n * 99 / 100 : 0], "max", late[n > 0 ? n - 1 : 0]);
    free(late);
    return out;
}

static double cpu_pct(const struct load *l, uint64_t now)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    double s = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
               (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
    return 100 * s / (ms(l->begin_ns, now) / 1e3);
}

/* ---- Books ----------------------------------------------------------------------------------- */

static void count(json_t *books, const char *key, const char *outcome)
{
    json_t *book = json_object_get(books, key);
    const char *both[] = {"offered", outcome};

    if (book == NULL) {
        book = json_object();
        json_object_set_new(book, "offered", json_integer(0));
        for (int i = 0; i < OUTCOME_N; i++)
            json_object_set_new(book, OUTCOME_NAMES[i], json_integer(0));
        json_object_set_new(books, key, book);
    }
    for (int i = 0; i < 2; i++) {
        json_int_t n = json_integer_value(json_object_get(book, both[i]));
        json_object_set_new(book, both[i], json_integer(n + 1));
    }
}

static json_t *books(const struct load *l)
{
    json_t *out = json_object();

    for (uint32_t i = 0; i < l->n_records; i++) {
        const struct load_record *r = &l->records[i];

        count(out, r->ask->class_name, OUTCOME_NAMES[r->outcome]);
        if (r->is_measured && ask_is_ls(r->ask))
            count(out, "ls_measured", OUTCOME_NAMES[r->outcome]);
    }
    return out;
}

/* ---- Requests, gaps, seconds ----------------------------------------------------------------- */

static json_t *one_request(const struct load *l, const struct load_record *r)
{
    bool began = r->n_tokens > 0;

    return json_pack(
        "{s:s, s:s, s:f, s:f, s:f, s:o, s:o, s:f, s:i, s:i, s:i, s:i}", "class", r->ask->class_name,
        "outcome", OUTCOME_NAMES[r->outcome], "at_ms", ms(l->begin_ns, r->start_ns), "late_ms",
        ms(r->start_ns, r->sent_ns), "end_ms", ms(l->begin_ns, r->end_ns), "ttft_ms",
        began ? json_real(ms(r->start_ns, r->first_ns)) : json_null(), "tpot_ms",
        r->n_tokens > 1 ? json_real(ms(r->first_ns, r->last_ns) / (r->n_tokens - 1)) : json_null(),
        "gap_max_ms", (double)r->gap_max_ns / 1e6, "prompt", (int)r->ask->prompt, "output",
        (int)r->n_tokens, "asked", (int)r->ask->output, "retry_after_ms", (int)r->retry_after_ms);
}

static json_t *requests(const struct load *l)
{
    json_t *out = json_array();

    for (uint32_t i = 0; i < l->n_records; i++) {
        if (l->records[i].is_measured)
            json_array_append_new(out, one_request(l, &l->records[i]));
    }
    return out;
}

static json_t *gaps(const struct load *l)
{
    json_t *out = json_array();

    for (uint32_t i = 0; i < l->n_gaps; i++)
        json_array_append_new(out, json_real((double)l->gaps_ms[i]));
    return out;
}

static void append(json_t *lists, const char *key, double value)
{
    json_t *list = json_object_get(lists, key);

    if (list == NULL) {
        list = json_array();
        json_object_set_new(lists, key, list);
    }
    json_array_append_new(list, json_real(value));
}

static json_t *per_second(const struct load *l, uint64_t now)
{
    json_t *out = json_object();
    uint64_t n = (now - l->begin_ns) / NS_PER_S + 1;

    for (uint64_t i = 0; i < n && i < l->n_bins; i++) {
        const struct load_second *s = &l->bins[i];

        append(out, "ls_arrivals", s->ls_arrivals);
        append(out, "ls_tokens", s->ls_tokens);
        append(out, "ls_gap_mean_ms", s->n_gaps ? (double)s->gaps_ns / 1e6 / s->n_gaps : 0);
        append(out, "be_decode_tokens", s->be_decode_tokens);
        append(out, "be_prefill_tokens", s->be_prefill_tokens);
    }
    return out;
}

static json_t *window(const struct load *l)
{
    struct load_places p = {0};

    for (uint32_t i = 0; i < l->n_records; i++) {
        const struct load_record *r = &l->records[i];

        if (ask_is_ls(r->ask))
            continue;
        p.device_tokens += r->places.device_tokens;
        p.worker_tokens += r->places.worker_tokens;
        p.ridealong_jobs += r->places.ridealong_jobs;
        p.parked_jobs += r->places.parked_jobs;
    }
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "be_decode_tokens",
                     (json_int_t)l->decode_tokens, "be_prefill_tokens",
                     (json_int_t)l->prefill_tokens, "be_device_tokens", (json_int_t)p.device_tokens,
                     "be_worker_tokens", (json_int_t)p.worker_tokens, "be_ridealong_jobs",
                     (json_int_t)p.ridealong_jobs, "be_parked_jobs", (json_int_t)p.parked_jobs);
}

int load_report(const struct load *l, FILE *out)
{
    uint64_t now = clock_now_ns();
    json_t *all = json_pack(
        "{s:f, s:f, s:f, s:f, s:o, s:o, s:o, s:o, s:o, s:o}", "warm_up_s", l->o.warm_up_s,
        "seconds", l->o.seconds, "wall_s", ms(l->begin_ns, now) / 1e3, "generator_cpu_pct",
        cpu_pct(l, now), "lateness_ms", lateness(l), "books", books(l), "window", window(l),
        "requests", requests(l), "ls_gaps_ms", gaps(l), "per_second", per_second(l, now));
    int rc = all == NULL ? -ENOMEM : json_dumpf(all, out, JSON_REAL_PRECISION(PRECISION));

    fputc('\n', out);
    json_decref(all);
    return rc == 0 ? 0 : -ENOMEM;
}
