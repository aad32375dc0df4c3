/* omni run - sends the requests of a file and streams or reports what comes back.
 *
 * All requests run at once in one session (up to --concurrency); output is in the order of the
 * file: the first request that has not ended streams, what the others produce waits behind it.  A
 * session that is lost is opened again and its requests resumed, if the router still lives; one of
 * which nothing has come may never have arrived, and is sent again whole. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "proto/cli/commands.h"
#include "proto/cli/group.h"
#include "proto/cli/run_input.h"
#include "proto/cli/sampling.h"

enum { EVENT_MS = 100, RETRY_MS = 500, REOPENS_MAX = 5, EXIT_INTERRUPTED = 130 };

struct run_options {
    struct group_options group;
    struct message_generate given;
    struct sampling_lists lists;
    const char *prompt_file;
    const char *json_file; /* NULL: none */
    bool jsonl, chat, json;
    uint32_t concurrency, retries;
};

struct run {
    const struct run_options *options;
    struct client *c;
    struct run_input input;
    uint32_t n_active, n_ended;
    uint32_t head;       /* first request whose output is not complete on stdout */
    size_t head_printed; /* bytes of its text that are */
    uint32_t n_reopens;
    bool cancelled;
    FILE *json_file; /* NULL: none */
};

/* ---- Output ---------------------------------------------------------------------------------- */

static void stream_head(struct run *run)
{
    const struct run_request *r = &run->input.requests[run->head];

    if (run->options->json)
        return;
    if (run->head_printed == 0 && run->input.n > 1 && r->text_bytes > 0)
        printf("== %u/%u %.*s\n", run->head + 1, run->input.n, (int)r->ask.class.n,
               r->ask.class.data);
    if (r->text_bytes > run->head_printed)
        fwrite(r->text + run->head_printed, 1, r->text_bytes - run->head_printed, stdout);
    run->head_printed = r->text_bytes;
    fflush(stdout);
}

static void show(struct run *run)
{
    while (run->head < run->input.n) {
        const struct run_request *r = &run->input.requests[run->head];

        stream_head(run);
        if (r->state != RUN_ENDED)
            return;
        if (run->options->json)
            run_request_print_json(r, stdout);
        else if (r->text_bytes > 0)
            printf("\n");
        fflush(stdout);
        if (run->json_file != NULL) {
            run_request_print_json(r, run->json_file);
            fflush(run->json_file);
        }
        run->head++;
        run->head_printed = 0;
    }
}

static void tell_failure(const struct run *run, const struct run_request *r)
{
    char id[REQUEST_ID_TEXT_BYTES];

    request_id_format(&r->ask.id, id);
    fprintf(stderr, "omni run: request %u of %u (%s) failed: %s: %s\n",
            (uint32_t)(r - run->input.requests) + 1, run->input.n, id, error_code_name(r->code),
            r->reason);
}

/* ---- The life of a request ------------------------------------------------------------------- */

static void note_end(struct run *run, struct run_request *r, bool was_active)
{
    run->n_active -= was_active;
    run->n_ended++;
    if (r->failed)
        tell_failure(run, r);
}

static void fail_request(struct run *run, struct run_request *r, enum error_code code,
                         bool retryable, const char *why)
{
    bool was_active = r->state == RUN_ACTIVE;

    run_request_fail(r, code, retryable, str_of(why));
    note_end(run, r, was_active);
}

static struct run_request *find_active(struct run *run, const struct request_id *id)
{
    for (uint32_t i = run->head; i < run->input.n; i++) {
        struct run_request *r = &run->input.requests[i];

        if (r->state == RUN_ACTIVE && request_id_equal(&r->ask.id, id))
            return r;
    }
    return NULL;
}

/* Returns false when nothing more can be sent now. */
static bool start_request(struct run *run, struct run_request *r)
{
    struct error why;
    int err = client_generate(run->c, &r->ask, &why);

    if (err == -EINVAL)
        fail_request(run, r, ERROR_BAD_REQUEST, false, why.text);
    if (err == 0) {
        r->state = RUN_ACTIVE;
        run->n_active++;
    }
    return err == 0 || err == -EINVAL;
}

static void start_requests(struct run *run)
{
    uint64_t now_ns = clock_now_ns();

    for (uint32_t i = run->head; i < run->input.n && run->n_active < run->options->concurrency;
         i++) {
        struct run_request *r = &run->input.requests[i];

        if (r->state == RUN_WAITING && r->not_before_ns <= now_ns && !start_request(run, r))
            return;
    }
}

/* ---- What comes back ------------------------------------------------------------------------- */

static void on_tokens(struct run *run, const struct message_tokens *tokens)
{
    for (uint32_t i = 0; i < tokens->items.n; i++) {
        struct run_request *r = find_active(run, &tokens->items.data[i].id);

        if (r != NULL && run_request_append(r, &tokens->items.data[i]) != 0)
            fail_request(run, r, ERROR_INTERNAL, false, "out of memory");
    }
}

/* A refusal before the first token may be sent again: nothing was begun. */
static bool try_again(struct run *run, struct run_request *r, const struct message_error *e)
{
    if (!e->retryable || r->n_ids != 0 || r->n_retries == run->options->retries || run->cancelled)
        return false;
    uint32_t after_ms = e->has_retry_after_ms ? e->retry_after_ms : RETRY_MS;

    r->n_retries++;
    r->not_before_ns = clock_now_ns() + after_ms * NS_PER_MS;
    r->state = RUN_WAITING;
    run->n_active--;
    client_id_new(&r->ask.id);
    return true;
}

static void on_error(struct run *run, const struct message_error *e)
{
    struct run_request *r = e->has_id ? find_active(run, &e->id) : NULL;

    if (r == NULL) {
        fprintf(stderr, "omni run: %s: %.*s\n", error_code_name(e->code), (int)e->message.n,
                e->message.data);
        return;
    }
    if (try_again(run, r, e))
        return;
    run_request_fail(r, e->code, e->retryable, e->message);
    note_end(run, r, true);
}

static void on_done(struct run *run, const struct message_done *done)
{
    struct run_request *r = find_active(run, &done->id);

    if (r == NULL)
        return;
    run_request_end(r, done);
    note_end(run, r, true);
}

static void fail_all(struct run *run, enum error_code code, const char *why)
{
    for (uint32_t i = run->head; i < run->input.n; i++)
        if (run->input.requests[i].state != RUN_ENDED)
            fail_request(run, &run->input.requests[i], code, true, why);
}

/* Nothing of it has come: it goes out once more, under its id, by which the router attaches it if
 * it has it, and starts it if it does not. */
static void send_again(struct run *run, struct run_request *r)
{
    r->state = RUN_WAITING;
    run->n_active--;
}

static int resume_all(struct run *run)
{
    int err = 0;

    for (uint32_t i = run->head; i < run->input.n && err == 0; i++) {
        struct run_request *r = &run->input.requests[i];
        char class_name[CLIENT_CLASS_BYTES];

        if (r->state != RUN_ACTIVE)
            continue;
        if (r->n_ids == 0) {
            send_again(run, r);
            continue;
        }
        snprintf(class_name, sizeof class_name, "%.*s", (int)r->ask.class.n, r->ask.class.data);
        err = client_resume(run->c, &r->ask.id, class_name, r->n_ids);
    }
    return err;
}

static void on_lost(struct run *run, const struct client_event *event)
{
    enum error_code code = event->code;
    char why[256];
    struct error error = {"the session cannot be resumed"};

    snprintf(why, sizeof why, "%s", event->text);
    if (code == ERROR_SESSION_LOST && run->n_reopens++ < REOPENS_MAX) {
        fprintf(stderr, "omni run: %s; connecting again\n", why);
        if (client_reopen(run->c, &error) == 0 && resume_all(run) == 0)
            return;
        snprintf(why, sizeof why, "%.200s", error.text);
    }
    fail_all(run, code, why);
}

static void on_event(struct run *run, const struct client_event *event)
{
    if (event->kind == CLIENT_LOST) {
        on_lost(run, event);
        return;
    }
    switch (event->message->type) {
    case MESSAGE_TOKENS:
        on_tokens(run, &event->message->tokens);
        break;
    case MESSAGE_DONE:
        on_done(run, &event->message->done);
        break;
    case MESSAGE_ERROR:
        on_error(run, &event->message->error);
        break;
    default: /* a status reply that nobody asked for: nothing to do */
        break;
    }
}

/* ---- The whole ------------------------------------------------------------------------------- */

static void cancel_all(struct run *run)
{
    run->cancelled = true;
    for (uint32_t i = run->head; i < run->input.n; i++) {
        struct run_request *r = &run->input.requests[i];
        struct message_done done = {.id = r->ask.id, .reason = FINISH_CANCELLED};

        if (r->state == RUN_ACTIVE)
            client_cancel(run->c, &r->ask.id);
        if (r->state == RUN_WAITING) {
            run_request_end(r, &done);
            note_end(run, r, false);
        }
    }
}

static int run_all(struct run *run)
{
    struct client_event event;
    uint32_t n_failed = 0;

    command_catch_interrupt();
    while (run->n_ended < run->input.n) {
        if (!run->cancelled)
            start_requests(run);
        if (client_next_event(run->c, EVENT_MS, &event) == 0)
            on_event(run, &event);
        if (command_interrupts() != 0 && !run->cancelled)
            cancel_all(run);
        show(run);
    }
    show(run);
    for (uint32_t i = 0; i < run->input.n; i++)
        n_failed += run->input.requests[i].failed;
    if (n_failed != 0 && run->input.n > 1)
        fprintf(stderr, "omni run: %u of %u requests failed\n", n_failed, run->input.n);
    if (run->cancelled)
        return EXIT_INTERRUPTED;
    return n_failed == 0 ? EXIT_DONE : EXIT_FAILED;
}

/* Requests without a class get the least urgent one: what comes from a file can wait. */
static void fill_class(struct run *run)
{
    const struct client_info *info = client_info(run->c);
    const char *last = info->n_classes != 0 ? info->classes[info->n_classes - 1] : "be";

    for (uint32_t i = 0; i < run->input.n; i++)
        if (run->input.requests[i].ask.class.n == 0)
            run->input.requests[i].ask.class = str_of(last);
}

static int open_json_file(struct run *run, struct error *error)
{
    const char *path = run->options->json_file;

    if (path == NULL)
        return 0;
    run->json_file = fopen(path, "w");
    return run->json_file != NULL ? 0 : error_set(error, -errno, "%s: %s", path, strerror(errno));
}

static int run_with(struct run_options *options)
{
    struct run run = {.options = options};
    struct group group;
    struct error error;

    sampling_take_lists(&options->given, &options->lists);
    if (options->concurrency == 0)
        options->concurrency = UINT32_MAX;
    int err = group_resolve(&group, &options->group, &error);

    if (err == 0)
        err = open_json_file(&run, &error);
    if (err == 0)
        err = run_input_read(&run.input, options->prompt_file, options->jsonl, options->chat,
                             &options->given, &error);
    if (err == 0)
        err = group_open(&group, 0, &run.c, &error);
    int status = EXIT_FAILED;

    if (err == 0) {
        fill_class(&run);
        status = run_all(&run);
    } else {
        command_fail("run", &error);
    }
    client_close(run.c);
    run_input_fini(&run.input);
    if (run.json_file != NULL && fclose(run.json_file) != 0)
        status = EXIT_FAILED;
    return status;
}

int command_run(int argc, char **argv)
{
    struct run_options o = {.prompt_file = NULL};
    const struct option_row rows[] = {
        {"prompt-file", OPTION_TEXT, &o.prompt_file, NULL, "FILE",
         "*.jsonl: a request per line; else one raw prompt; -: stdin"},
        {"jsonl", OPTION_FLAG, &o.jsonl, NULL, NULL,
         "a request per line, whatever the file's name"},
        {"chat", OPTION_FLAG, &o.chat, NULL, NULL, "apply the chat template to prompts"},
        {"json", OPTION_FLAG, &o.json, NULL, NULL, "one JSON object per request, no stream"},
        {"json-file", OPTION_TEXT, &o.json_file, NULL, "FILE",
         "write the JSON objects there, beside what stdout shows"},
        {"concurrency", OPTION_U32, &o.concurrency, NULL, "N", "requests at a time (default: all)"},
        {"retries", OPTION_U32, &o.retries, NULL, "N", "send refused requests again (default: 0)"},
        {0}};
    const struct option_row sampling[] = {
        SAMPLING_OPTION_ROWS(&o.given, &o.lists),
        SAMPLING_ROW(&o.given, "n", U32, n, "N", "so many answers to every prompt"),
        {0}};
    const struct option_row group[] = {GROUP_OPTION_ROWS(&o.group), {0}};
    const struct option_row *const tables[] = {rows, sampling, group, NULL};
    const struct option_command command = {
        .usage = "omni run --prompt-file FILE [options]",
        .summary = "Sends the requests of a file; their output comes in the order of the file.",
        .tables = tables};
    int n_operands;
    enum option_result result = options_parse(&command, argc, argv, &n_operands);

    if (result != OPTIONS_RUN)
        return result == OPTIONS_HELP ? EXIT_DONE : EXIT_USAGE;
    if (o.prompt_file == NULL || n_operands != 0) {
        fprintf(stderr, "usage: %s\n", command.usage);
        return EXIT_USAGE;
    }
    return run_with(&o);
}
