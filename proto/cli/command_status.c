/* omni status - the state of the group: the router's answer, or, where none answers, what the
 * statistics pages in shared memory say (exit status 3); with --jobs, what lies in the job slots
 * and the sequence directory, whoever lives. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "proto/cli/commands.h"
#include "proto/cli/group.h"
#include "proto/cli/status_jobs.h"
#include "proto/cli/status_pages.h"
#include "proto/cli/status_print.h"

enum { OPEN_MS = 1000, ANSWER_MS = 2000, WATCH_MS = 1000 };

/* The router's reply to one question; NULL and error if none comes. */
static json_t *ask(struct client *c, struct error *error)
{
    struct client_event event;
    json_error_t why;
    uint64_t deadline_ns = clock_now_ns() + ANSWER_MS * NS_PER_MS;

    error_set(error, 0, "the router did not answer in %d ms", ANSWER_MS);
    if (client_status(c, 1) != 0)
        return NULL;
    while (clock_now_ns() < deadline_ns) {
        if (client_next_event(c, 100, &event) != 0)
            continue;
        if (event.kind == CLIENT_LOST) {
            error_set(error, 0, "%s", event.text);
            return NULL;
        }
        if (event.message->type != MESSAGE_STATUS_REPLY)
            continue;
        struct str json = event.message->status_reply.json;
        json_t *state = json_loadb(json.data, json.n, 0, &why);

        if (state == NULL)
            error_set(error, 0, "the router's reply is not JSON: %s", why.text);
        return state;
    }
    return NULL;
}

static json_t *ask_group(const struct group *group, struct error *error)
{
    struct client *c;

    if (group_open(group, OPEN_MS, &c, error) != 0)
        return NULL;
    json_t *state = ask(c, error);

    client_close(c);
    return state;
}

static void show(const json_t *state, bool json)
{
    if (json) {
        json_dumpf(state, stdout, JSON_INDENT(2));
        printf("\n");
    } else {
        status_print(state, stdout);
    }
    fflush(stdout);
}

static void clear_screen(void)
{
    printf("\033[H\033[2J");
}

static int jobs_once(const struct group *group, bool json, bool clear)
{
    bool found;
    json_t *state = status_jobs_json(&group->config, &found);

    if (clear)
        clear_screen();
    if (state == NULL || !found)
        fprintf(stderr, "omni status: the group has no job slots in shared memory\n");
    else
        show(state, json);
    json_decref(state);
    return found ? EXIT_DONE : EXIT_NOBODY;
}

static int status_once(const struct group *group, bool json, bool clear)
{
    struct error error;
    json_t *state = ask_group(group, &error);
    int status = EXIT_DONE;

    if (clear)
        clear_screen();
    if (state == NULL) {
        fprintf(stderr, "omni status: %s\n", error.text);
        fprintf(stderr, "omni status: from shared memory:\n");
        state = status_pages_json(&group->config);
        status = EXIT_NOBODY;
    }
    if (state != NULL)
        show(state, json);
    json_decref(state);
    return status;
}

int command_status(int argc, char **argv)
{
    struct group_options group_options = {0};
    bool json = false, watch = false, jobs = false;
    const struct option_row rows[] = {
        {"json", OPTION_FLAG, &json, NULL, NULL, "one JSON object"},
        {"jobs", OPTION_FLAG, &jobs, NULL, NULL,
         "job slots and sequences, out of shared memory: asks no program, changes nothing"},
        {"watch", OPTION_FLAG, &watch, NULL, NULL, "again every second, until Ctrl-C"},
        GROUP_OPTION_ROWS(&group_options),
        {0}};
    const struct option_row *const tables[] = {rows, NULL};
    const struct option_command command = {.usage = "omni status [options]",
                                           .summary =
                                               "Processes, model, queues, KV use. Exit status 3: "
                                               "no router answers (--jobs: no segments).",
                                           .tables = tables};
    struct group group;
    struct error error;
    int n_operands;
    enum option_result result = options_parse(&command, argc, argv, &n_operands);

    if (result != OPTIONS_RUN)
        return result == OPTIONS_HELP ? EXIT_DONE : EXIT_USAGE;
    if (group_resolve(&group, &group_options, &error) != 0)
        return command_fail("status", &error);
    if (!watch)
        return jobs ? jobs_once(&group, json, false) : status_once(&group, json, false);
    command_catch_interrupt();
    int status = EXIT_DONE;

    while (command_interrupts() == 0) {
        status = jobs ? jobs_once(&group, json, !json) : status_once(&group, json, !json);
        clock_sleep_ns(WATCH_MS * NS_PER_MS);
    }
    return status;
}
