/* omni-bench-load: the load of the mixed benchmark, one client with both classes.
 *
 *   omni-bench-load --config F [--ls-rate R] [--be N] [--seconds S] ...   one JSON object on stdout
 *
 * LS: open loop, Poisson arrivals at R a second; a request is timed from its scheduled arrival, so
 * a load generator that falls behind shows as latency and not as less load.  BE: closed loop of N
 * requests.  Lengths vary by a quarter around the given ones; prompts are random token ids.  All
 * from one seed, so that two runs ask the same.  After `warm-up` comes the window: LS requests that
 * arrive in it are measured, BE tokens that arrive in it are counted.  BE goes on until the last
 * measured LS request has ended. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/invariant.h"
#include "proto/client.h"
#include "proto/wire.h"

enum { ACTIVE_MAX = 256, PROMPT_MAX = 8192, DRAIN_S = 60, EVENT_MS = 50, FAILURES_MAX = 1000 };

struct options {
    const char *config;
    double ls_rate, warm_up_s, seconds;
    uint32_t n_be, seed, vocab;
    uint32_t ls_prompt, ls_output, be_prompt, be_output;
};

struct flight { /* one request that is out */
    struct request_id id;
    bool in_use, is_ls, measured;
    uint32_t prompt_tokens, n_tokens;
    uint64_t start_ns, first_ns, last_ns;
};

struct load {
    struct options o;
    struct client *client;
    struct flight flights[ACTIVE_MAX];
    uint32_t n_be_active, n_measured_active, n_be_started;
    uint64_t begin_ns, window_ns, end_ns; /* begin of all, of the window; end of the window */
    uint64_t next_ls_ns;
    uint64_t ls_seed, be_seed; /* apart: LS asks the same whatever BE does */
    uint64_t decode_tokens, prefill_tokens;
    uint64_t device_tokens, worker_tokens, ridealong, parked;
    uint32_t be_finished, ls_refused, n_failures;
    FILE *ls_out, *gaps_out; /* parts of the report, put together at the end */
    char *ls_text, *gaps_text;
    size_t ls_bytes, gaps_bytes;
};

/* ---- Random numbers: splitmix64 -------------------------------------------------------------- */

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static double next_unit(uint64_t *state) /* in (0, 1] */
{
    return ((double)(next_random(state) >> 11) + 1) / 9007199254740992.0;
}

/* About n: evenly from 3/4 n to 5/4 n. */
static uint32_t about(uint64_t *state, uint32_t n)
{
    return n - n / 4 + (uint32_t)(next_random(state) % (n / 2 + 1));
}

/* ---- Requests -------------------------------------------------------------------------------- */

static struct flight *free_flight(struct load *l)
{
    for (uint32_t i = 0; i < ACTIVE_MAX; i++) {
        if (!l->flights[i].in_use)
            return &l->flights[i];
    }
    return NULL;
}

static struct flight *find_flight(struct load *l, const struct request_id *id)
{
    for (uint32_t i = 0; i < ACTIVE_MAX; i++) {
        if (l->flights[i].in_use && request_id_equal(&l->flights[i].id, id))
            return &l->flights[i];
    }
    return NULL;
}

static bool in_window(const struct load *l, uint64_t ns)
{
    return ns >= l->window_ns && ns < l->end_ns;
}

/* The first BE requests are cut to different lengths: together they would prefill and decode in
 * step for ever, and a window would see one or the other. */
static uint32_t output_tokens(struct load *l, bool is_ls, uint64_t *seed)
{
    uint32_t n = about(seed, is_ls ? l->o.ls_output : l->o.be_output);

    if (!is_ls && l->n_be_started++ < l->o.n_be)
        n = 1 + n * l->n_be_started / (l->o.n_be + 1);
    return n;
}

static void send_request(struct load *l, bool is_ls, uint64_t start_ns)
{
    static uint32_t prompt[PROMPT_MAX];
    uint64_t *seed = is_ls ? &l->ls_seed : &l->be_seed;
    uint32_t n = about(seed, is_ls ? l->o.ls_prompt : l->o.be_prompt);
    struct message_generate ask = {.class = str_of(is_ls ? "ls" : "be"),
                                   .tokens = {.data = prompt, .n = n},
                                   .has_tokens = true,
                                   .max_tokens = output_tokens(l, is_ls, seed),
                                   .has_max_tokens = true,
                                   .ignore_eos = true,
                                   .has_ignore_eos = true};
    struct flight *f = free_flight(l);
    struct error err = {.text = ""};

    for (uint32_t i = 0; i < n; i++)
        prompt[i] = (uint32_t)(next_random(seed) % l->o.vocab);
    client_id_new(&ask.id);
    if (f == NULL || client_generate(l->client, &ask, &err) != 0) {
        l->n_failures++;
        return;
    }
    *f = (struct flight){.id = ask.id,
                         .in_use = true,
                         .is_ls = is_ls,
                         .measured = is_ls && in_window(l, start_ns),
                         .prompt_tokens = n,
                         .start_ns = start_ns};
    l->n_measured_active += f->measured;
    l->n_be_active += !is_ls;
}

static void end_flight(struct load *l, struct flight *f)
{
    l->n_measured_active -= f->measured;
    l->n_be_active -= !f->is_ls;
    f->in_use = false;
}

static void start_what_is_due(struct load *l, uint64_t now)
{
    while (l->o.ls_rate > 0 && l->next_ls_ns <= now && l->next_ls_ns < l->end_ns) {
        send_request(l, true, l->next_ls_ns);
        l->next_ls_ns += (uint64_t)(-log(next_unit(&l->ls_seed)) / l->o.ls_rate * 1e9);
    }
    while (l->n_be_active < l->o.n_be && l->n_failures < FAILURES_MAX)
        send_request(l, false, now);
}

/* ---- What comes back ------------------------------------------------------------------------- */

static double ms(uint64_t from_ns, uint64_t to_ns)
{
    return (double)(to_ns - from_ns) / 1e6;
}

static const char *comma(const FILE *f)
{
    return ftell((FILE *)f) > 0 ? ", " : "";
}

static void on_item(struct load *l, const struct token_item *item, uint64_t now)
{
    struct flight *f = find_flight(l, &item->id);
    uint32_t n = item->ids.n;

    if (f == NULL || n == 0)
        return;
    if (f->n_tokens == 0)
        f->first_ns = now;
    else if (f->measured)
        fprintf(l->gaps_out, "%s%.3f", comma(l->gaps_out), ms(f->last_ns, now));
    if (!f->is_ls && in_window(l, now)) {
        l->prefill_tokens += f->n_tokens == 0 ? f->prompt_tokens : 0;
        l->decode_tokens += f->n_tokens == 0 ? n - 1 : n; /* the first comes out of the prefill */
    }
    f->n_tokens += n;
    f->last_ns = now;
}

static void on_done(struct load *l, const struct message_done *done)
{
    struct flight *f = find_flight(l, &done->id);

    if (f == NULL)
        return;
    if (f->measured && f->n_tokens > 1)
        fprintf(l->ls_out,
                "%s{\"ttft_ms\": %.3f, \"tpot_ms\": %.3f, \"prompt\": %u, \"output\": %u}",
                comma(l->ls_out), ms(f->start_ns, f->first_ns),
                ms(f->first_ns, f->last_ns) / (f->n_tokens - 1), f->prompt_tokens, f->n_tokens);
    if (!f->is_ls) {
        l->be_finished += done->reason == FINISH_LENGTH;
        l->device_tokens += done->device_tokens;
        l->worker_tokens += done->worker_tokens;
        l->ridealong += done->ridealong_jobs;
        l->parked += done->parked_jobs;
    }
    end_flight(l, f);
}

static void on_error(struct load *l, const struct message_error *e)
{
    struct flight *f = e->has_id ? find_flight(l, &e->id) : NULL;

    fprintf(stderr, "omni-bench-load: %s: %.*s\n", error_code_name(e->code), (int)e->message.n,
            e->message.data);
    if (f == NULL)
        return;
    l->ls_refused += f->is_ls;
    l->n_failures += !f->is_ls;
    end_flight(l, f);
}

/* Takes one event, waiting until `until`.  False: the session is lost. */
static bool take_event(struct load *l, uint64_t until)
{
    uint64_t now = clock_now_ns();
    uint32_t wait_ms = until > now ? (uint32_t)((until - now) / NS_PER_MS) : 0;
    struct client_event event;

    if (client_next_event(l->client, wait_ms < EVENT_MS ? wait_ms : EVENT_MS, &event) != 0)
        return true;
    now = clock_now_ns();
    if (event.kind == CLIENT_LOST) {
        fprintf(stderr, "omni-bench-load: %s\n", event.text);
        return false;
    }
    if (event.message->type == MESSAGE_TOKENS) {
        for (uint32_t i = 0; i < event.message->tokens.items.n; i++)
            on_item(l, &event.message->tokens.items.data[i], now);
    } else if (event.message->type == MESSAGE_DONE) {
        on_done(l, &event.message->done);
    } else if (event.message->type == MESSAGE_ERROR) {
        on_error(l, &event.message->error);
    }
    return true;
}

/* ---- The run --------------------------------------------------------------------------------- */

static bool is_over(const struct load *l, uint64_t now)
{
    return now >= l->end_ns + DRAIN_S * NS_PER_S || (now >= l->end_ns && l->n_measured_active == 0);
}

/* BE that is still out ends here; its done messages say where its tokens attended. */
static bool cancel_rest(struct load *l)
{
    uint64_t until = clock_now_ns() + 5 * NS_PER_S;
    bool ok = true;

    for (uint32_t i = 0; i < ACTIVE_MAX; i++) {
        if (l->flights[i].in_use)
            client_cancel(l->client, &l->flights[i].id);
    }
    while (ok && l->n_be_active > 0 && clock_now_ns() < until)
        ok = take_event(l, until);
    return ok;
}

static int run(struct load *l)
{
    uint64_t now = clock_now_ns();

    l->begin_ns = now;
    l->window_ns = now + (uint64_t)(l->o.warm_up_s * 1e9);
    l->end_ns = l->window_ns + (uint64_t)(l->o.seconds * 1e9);
    l->next_ls_ns = now;
    l->ls_seed = l->o.seed;
    l->be_seed = l->o.seed + UINT64_C(1000003);
    while (!is_over(l, now)) {
        start_what_is_due(l, now);
        uint64_t until = l->o.ls_rate > 0 && l->next_ls_ns < l->end_ns ? l->next_ls_ns
                                                                       : now + EVENT_MS * NS_PER_MS;
        if (l->n_failures >= FAILURES_MAX || !take_event(l, until))
            return -EIO;
        now = clock_now_ns();
    }
    return cancel_rest(l) ? 0 : -EIO;
}

static void report(struct load *l)
{
    fclose(l->ls_out);
    fclose(l->gaps_out);
    printf("{\"seconds\": %g, \"ls\": [%s], \"ls_gaps_ms\": [%s], \"ls_refused\": %u, "
           "\"ls_unfinished\": %u, \"be_decode_tokens\": %llu, \"be_prefill_tokens\": %llu, "
           "\"be_finished\": %u, \"be_device_tokens\": %llu, \"be_worker_tokens\": %llu, "
           "\"be_ridealong_jobs\": %llu, \"be_parked_jobs\": %llu, \"failures\": %u}\n",
           l->o.seconds, l->ls_text, l->gaps_text, l->ls_refused, l->n_measured_active,
           (unsigned long long)l->decode_tokens, (unsigned long long)l->prefill_tokens,
           l->be_finished, (unsigned long long)l->device_tokens,
           (unsigned long long)l->worker_tokens, (unsigned long long)l->ridealong,
           (unsigned long long)l->parked, l->n_failures);
    free(l->ls_text);
    free(l->gaps_text);
}

/* ---- Options --------------------------------------------------------------------------------- */

struct number_option {
    const char *name;
    uint32_t *to;
    uint32_t min, max;
};

static bool set_number(struct options *o, const char *name, const char *text)
{
    const struct number_option rows[] = {
        {"--be", &o->n_be, 0, ACTIVE_MAX / 2},
        {"--seed", &o->seed, 0, UINT32_MAX},
        {"--vocab", &o->vocab, 1, UINT32_MAX},
        {"--ls-prompt", &o->ls_prompt, 4, PROMPT_MAX / 2},
        {"--ls-output", &o->ls_output, 4, PROMPT_MAX},
        {"--be-prompt", &o->be_prompt, 4, PROMPT_MAX / 2},
        {"--be-output", &o->be_output, 4, PROMPT_MAX},
    };
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(name, rows[i].name) != 0)
            continue;
        *rows[i].to = (uint32_t)value;
        return *end == '\0' && value >= rows[i].min && value <= rows[i].max;
    }
    return false;
}

static bool set_option(struct options *o, const char *name, const char *text)
{
    double *to = strcmp(name, "--ls-rate") == 0   ? &o->ls_rate
                 : strcmp(name, "--seconds") == 0 ? &o->seconds
                 : strcmp(name, "--warm-up") == 0 ? &o->warm_up_s
                                                  : NULL;
    char *end;

    if (strcmp(name, "--config") == 0) {
        o->config = text;
        return true;
    }
    if (to == NULL)
        return set_number(o, name, text);
    *to = strtod(text, &end);
    return *end == '\0' && *to >= 0 && *to < 1e6;
}

static bool parse(struct options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc || !set_option(o, argv[i], argv[i + 1]))
            return false;
    }
    return o->config != NULL && o->seconds > 0;
}

static int open_client(struct load *l, struct error *err)
{
    static struct omni_config config;
    char run_dir[CONFIG_STRING_MAX], url[WIRE_URL_BYTES];
    struct client_options options = {.url = url, .name = "bench", .open_timeout_ms = 5000};

    config_defaults(&config);
    int rc = config_load(&config, l->o.config, err);
    if (rc != 0)
        return rc;
    if (wire_run_dir(config.run_dir, run_dir, sizeof run_dir) != 0 ||
        wire_url_router(url, run_dir, config.group_name) != 0)
        return error_set(err, -ENAMETOOLONG, "run.dir is too long");
    return client_open(&l->client, &options, err);
}

int main(int argc, char **argv)
{
    static struct load l = {.o = {.seconds = 20,
                                  .warm_up_s = 3,
                                  .seed = 1,
                                  .vocab = 4096,
                                  .ls_prompt = 160,
                                  .ls_output = 64,
                                  .be_prompt = 600,
                                  .be_output = 96}};
    struct error err = {.text = ""};

    if (!parse(&l.o, argc, argv)) {
        fprintf(stderr, "usage: omni-bench-load --config F [--ls-rate R] [--be N] [--seconds S] "
                        "[--warm-up S] [--seed N] [--vocab N] [--ls-prompt N] [--ls-output N] "
                        "[--be-prompt N] [--be-output N]\n");
        return 2;
    }
    if (open_client(&l, &err) != 0) {
        fprintf(stderr, "omni-bench-load: %s\n", err.text);
        return 1;
    }
    l.ls_out = open_memstream(&l.ls_text, &l.ls_bytes);
    l.gaps_out = open_memstream(&l.gaps_text, &l.gaps_bytes);
    invariant(l.ls_out != NULL && l.gaps_out != NULL);
    int rc = run(&l);
    if (rc == 0)
        report(&l);
    client_close(l.client);
    return rc == 0 ? 0 : 1;
}
