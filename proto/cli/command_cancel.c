/* omni cancel ID - ends a request, whoever sent it: whoever knows the id may.  The session that has
 * the request gets its end too, as cancelled. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "proto/cli/commands.h"
#include "proto/cli/group.h"

enum { ANSWER_MS = 5000 };

static int report_done(const struct message_done *done, const char *text)
{
    if (done->reason != FINISH_CANCELLED) {
        fprintf(stderr, "omni cancel: %s had ended already: %s\n", text,
                finish_reason_name(done->reason));
        return EXIT_FAILED;
    }
    printf("%s: cancelled after %u output tokens\n", text, done->output_tokens);
    return EXIT_DONE;
}

static int report(const struct client_event *event, const char *text)
{
    const struct message *m = event->message;

    if (event->kind == CLIENT_LOST) {
        fprintf(stderr, "omni cancel: %s\n", event->text);
        return EXIT_FAILED;
    }
    if (m->type == MESSAGE_DONE)
        return report_done(&m->done, text);
    fprintf(stderr, "omni cancel: %s: %s: %.*s\n", text, error_code_name(m->error.code),
            (int)m->error.message.n, m->error.message.data);
    return EXIT_FAILED;
}

static bool is_answer(const struct client_event *event)
{
    return event->kind == CLIENT_LOST || event->message->type == MESSAGE_ERROR ||
           event->message->type == MESSAGE_DONE;
}

static int cancel(struct client *c, const struct request_id *id, const char *text)
{
    uint64_t deadline_ns = clock_now_ns() + ANSWER_MS * NS_PER_MS;
    struct client_event event;

    client_cancel(c, id); /* fails only where the session is lost, which the next event tells */
    while (clock_now_ns() < deadline_ns) {
        int err = client_next_event(c, 100, &event);

        if (err == 0 && is_answer(&event))
            return report(&event, text);
    }
    fprintf(stderr, "omni cancel: %s: the router did not answer\n", text);
    return EXIT_FAILED;
}

int command_cancel(int argc, char **argv)
{
    struct group_options group_options = {0};
    const struct option_row rows[] = {GROUP_OPTION_ROWS(&group_options), {0}};
    const struct option_row *const tables[] = {rows, NULL};
    const struct option_command command = {
        .usage = "omni cancel ID [options]",
        .summary = "Ends the request with this id (32 hexadecimal digits, as omni run shows it).",
        .tables = tables};
    struct request_id id;
    struct error error;
    struct group group;
    struct client *c;
    int n_operands;
    enum option_result result = options_parse(&command, argc, argv, &n_operands);

    if (result != OPTIONS_RUN)
        return result == OPTIONS_HELP ? EXIT_DONE : EXIT_USAGE;
    if (n_operands != 1 || request_id_parse(argv[1], &id) != 0) {
        fprintf(stderr, "omni cancel: needs one id of 32 hexadecimal digits\n");
        return EXIT_USAGE;
    }
    int err = group_resolve(&group, &group_options, &error);

    if (err == 0)
        err = group_open(&group, 0, &c, &error);
    if (err != 0)
        return command_fail("cancel", &error);
    int status = cancel(c, &id, argv[1]);

    client_close(c);
    return status;
}
