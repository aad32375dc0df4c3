/* omni chat - one question, or a conversation; the answer streams to the terminal.
 *
 * The conversation is kept here and sent whole with each turn.  Ctrl-C ends an answer; at the
 * prompt it ends the chat. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/cli/commands.h"
#include "proto/cli/files.h"
#include "proto/cli/group.h"
#include "proto/cli/sampling.h"

enum { EVENT_MS = 100, TURNS_MAX = 1024, QUESTION_BYTES_MAX = 8 << 20 };

struct chat {
    struct client *c;
    struct message_generate ask;
    struct chat_turn turns[TURNS_MAX];
    uint32_t n_turns;
    char *answer; /* of the turn that is being taken */
    size_t answer_bytes;
};

static void add_turn(struct chat *chat, const char *role, char *text, size_t n)
{
    chat->turns[chat->n_turns++] =
        (struct chat_turn){.role = str_of(role), .content = {.data = text, .n = (uint32_t)n}};
}

static int keep_answer(struct chat *chat, struct str text)
{
    char *larger = realloc(chat->answer, chat->answer_bytes + text.n + 1);

    if (larger == NULL)
        return -ENOMEM;
    chat->answer = larger;
    memcpy(larger + chat->answer_bytes, text.data != NULL ? text.data : "", text.n);
    chat->answer_bytes += text.n;
    return 0;
}

static int on_tokens(struct chat *chat, const struct message_tokens *tokens)
{
    for (uint32_t i = 0; i < tokens->items.n; i++) {
        const struct token_item *item = &tokens->items.data[i];

        if (!request_id_equal(&item->id, &chat->ask.id))
            continue;
        if (item->text.n != 0)
            fwrite(item->text.data, 1, item->text.n, stdout);
        if (keep_answer(chat, item->text) != 0)
            return -ENOMEM;
    }
    fflush(stdout);
    return 0;
}

/* 1: goes on; 0: the answer is complete; else -errno, and the reason was printed. */
static int on_message(struct chat *chat, const struct message *m)
{
    if (m->type == MESSAGE_TOKENS)
        return on_tokens(chat, &m->tokens) == 0 ? 1 : -ENOMEM;
    if (m->type == MESSAGE_DONE && request_id_equal(&m->done.id, &chat->ask.id))
        return 0;
    if (m->type != MESSAGE_ERROR)
        return 1;
    fprintf(stderr, "omni chat: %s: %.*s\n", error_code_name(m->error.code),
            (int)m->error.message.n, m->error.message.data);
    return -EREMOTEIO;
}

static int take_answer(struct chat *chat)
{
    struct client_event event;
    bool cancelled = false;
    int going = 1;

    command_catch_interrupt();
    while (going == 1) {
        int err = client_next_event(chat->c, EVENT_MS, &event);

        if (err == 0 && event.kind == CLIENT_LOST) {
            fprintf(stderr, "\nomni chat: %s\n", event.text);
            return -ENOTCONN;
        }
        if (err == 0)
            going = on_message(chat, event.message);
        if (command_interrupts() != 0 && !cancelled) {
            cancelled = true;
            client_cancel(chat->c, &chat->ask.id);
        }
    }
    printf("\n");
    return going;
}

/* Takes over text.  0 or -errno; the reason was printed. */
static int ask(struct chat *chat, char *text, size_t n)
{
    struct error why;

    if (chat->n_turns + 2 > TURNS_MAX) {
        free(text);
        fprintf(stderr, "omni chat: the conversation is too long\n");
        return -EMSGSIZE;
    }
    add_turn(chat, "user", text, n);
    chat->answer = NULL;
    chat->answer_bytes = 0;
    client_id_new(&chat->ask.id);
    chat->ask.has_messages = true;
    chat->ask.messages = (struct chat_turn_list){.data = chat->turns, .n = chat->n_turns};
    int err = client_generate(chat->c, &chat->ask, &why);

    if (err != 0)
        fprintf(stderr, "omni chat: %s\n", why.text);
    else
        err = take_answer(chat);
    add_turn(chat, "assistant", chat->answer, chat->answer_bytes);
    return err;
}

static int converse(struct chat *chat)
{
    bool terminal = isatty(STDIN_FILENO);
    size_t cap = 0;
    char *line = NULL;
    int err = 0;

    if (terminal)
        fprintf(stderr, "%s; an empty line or Ctrl-D ends.\n", client_info(chat->c)->model);
    while (err == 0) {
        if (terminal)
            fprintf(stderr, "> ");
        ssize_t n = getline(&line, &cap, stdin);

        if (n > 0 && line[n - 1] == '\n')
            n--;
        if (n <= 0)
            break;
        char *text = strndup(line, (size_t)n);

        err = text != NULL ? ask(chat, text, (size_t)n) : -ENOMEM;
    }
    free(line);
    return err;
}

static int ask_once(struct chat *chat, int n_words, char **words)
{
    size_t n = 0;

    for (int i = 0; i < n_words; i++)
        n += strlen(words[i]) + 1;
    char *text = malloc(n + 1), *at = text;

    if (text == NULL)
        return -ENOMEM;
    for (int i = 0; i < n_words; i++)
        at += sprintf(at, "%s%s", i != 0 ? " " : "", words[i]);
    return ask(chat, text, (size_t)(at - text));
}

static int ask_stdin(struct chat *chat)
{
    struct file_bytes text;
    struct error error;

    if (file_read_all("-", QUESTION_BYTES_MAX, &text, &error) != 0) {
        command_fail("chat", &error);
        return -EIO;
    }
    file_bytes_chomp(&text);
    return ask(chat, text.data, text.n);
}

static int chat_with(struct chat *chat, const struct group_options *options, int n_words,
                     char **words)
{
    struct group group;
    struct error error;
    int err = group_resolve(&group, options, &error);

    if (err == 0)
        err = group_open(&group, 0, &chat->c, &error);
    if (err != 0)
        return command_fail("chat", &error);
    if (chat->ask.class.n == 0)
        chat->ask.class = str_of(client_info(chat->c)->classes[0]);
    if (n_words > 0)
        err = ask_once(chat, n_words, words);
    else
        err = isatty(STDIN_FILENO) ? converse(chat) : ask_stdin(chat);
    client_close(chat->c);
    return err == 0 ? EXIT_DONE : EXIT_FAILED;
}

int command_chat(int argc, char **argv)
{
    struct chat chat = {.n_turns = 0};
    struct group_options group_options = {0};
    struct sampling_lists lists = {.stops = {.n = 0}};
    const char *system = NULL;
    const struct option_row rows[] = {
        {"system", OPTION_TEXT, &system, NULL, "TEXT", "system message"}, {0}};
    const struct option_row sampling[] = {SAMPLING_OPTION_ROWS(&chat.ask, &lists), {0}};
    const struct option_row group[] = {GROUP_OPTION_ROWS(&group_options), {0}};
    const struct option_row *const tables[] = {rows, sampling, group, NULL};
    const struct option_command command = {
        .usage = "omni chat [options] [QUESTION]",
        .summary = "Without a question: a conversation, or, where stdin is no terminal, all of it.",
        .tables = tables};
    int n_operands;
    enum option_result result = options_parse(&command, argc, argv, &n_operands);

    if (result != OPTIONS_RUN)
        return result == OPTIONS_HELP ? EXIT_DONE : EXIT_USAGE;
    sampling_take_lists(&chat.ask, &lists);
    uint32_t n_before = 0;

    if (system != NULL) {
        add_turn(&chat, "system", (char *)(uintptr_t)system, strlen(system));
        n_before = 1;
    }
    int status = chat_with(&chat, &group_options, n_operands, argv + 1);

    for (uint32_t i = n_before; i < chat.n_turns; i++)
        free((char *)(uintptr_t)chat.turns[i].content.data);
    return status;
}
