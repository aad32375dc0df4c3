#include "proto/cli/run_input.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/client.h"

enum { FILE_BYTES_MAX = 1 << 30 };

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), n_end = strlen(end);

    return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

static void apply_chat(struct run_request *r)
{
    if (!r->ask.has_prompt)
        return;
    r->turn = (struct chat_turn){.role = str_of("user"), .content = r->ask.prompt};
    r->ask.has_prompt = false;
    r->ask.has_messages = true;
    r->ask.messages = (struct chat_turn_list){.data = &r->turn, .n = 1};
}

static int read_raw(struct run_input *in, bool chat, const struct message_generate *given,
                    struct error *error)
{
    in->requests = calloc(1, sizeof *in->requests);
    if (in->requests == NULL || in->file.n > UINT32_MAX)
        return error_set(error, -ENOMEM, "out of memory");
    struct run_request *r = &in->requests[in->n++];

    if (chat) /* a raw prompt is byte for byte what the file holds */
        file_bytes_chomp(&in->file);
    r->ask = *given;
    client_id_new(&r->ask.id);
    r->ask.has_prompt = true;
    r->ask.prompt = (struct str){.data = in->file.data, .n = (uint32_t)in->file.n};
    if (chat)
        apply_chat(r);
    return 0;
}

/* The command line goes before the file.  An optional field lies right before its flag. */
static void overlay(struct message_generate *ask, const struct message_generate *given)
{
    const struct record_info *info = &message_info(MESSAGE_GENERATE)->record;

    for (uint32_t i = 0; i < info->n_fields; i++) {
        const struct field_info *field = &info->fields[i];
        size_t off = field->off;

        if (field->flag_off != FIELD_NO_FLAG && ((const bool *)given)[field->flag_off])
            memcpy((unsigned char *)ask + off, (const unsigned char *)given + off,
                   field->flag_off + sizeof(bool) - off);
    }
    if (given->class.n != 0)
        ask->class = given->class;
}

static bool has_one_prompt(const struct message_generate *g)
{
    return g->has_prompt + g->has_messages + g->has_tokens == 1;
}

static int read_line(struct run_request *r, const char *line, size_t n, bool chat,
                     const struct message_generate *given, struct error *error)
{
    json_error_t why;
    struct request_id none = {{0}};

    r->line = json_loadb(line, n, JSON_REJECT_DUPLICATES, &why);
    if (r->line == NULL)
        return error_set(error, -EINVAL, "not JSON: %s", why.text);
    int err =
        json_to_record(r->line, &message_info(MESSAGE_GENERATE)->record, &r->ask, &r->pool, error);

    overlay(&r->ask, given);
    if (err == 0 && !has_one_prompt(&r->ask))
        err = error_set(error, -EINVAL, "needs exactly one of prompt, messages, tokens");
    if (err == 0 && chat)
        apply_chat(r);
    if (err == 0 && request_id_equal(&r->ask.id, &none))
        client_id_new(&r->ask.id);
    return err;
}

static uint32_t count_lines(const struct file_bytes *file)
{
    uint32_t n = 1;

    for (size_t i = 0; i < file->n; i++)
        n += file->data[i] == '\n';
    return n;
}

static bool is_blank(const char *line, size_t n)
{
    return strspn(line, " \t\r") >= n;
}

static int read_lines(struct run_input *in, const char *path, bool chat,
                      const struct message_generate *given, struct error *error)
{
    const char *line = in->file.data, *end = in->file.data + in->file.n;
    struct error why = {""};

    in->requests = calloc(count_lines(&in->file), sizeof *in->requests);
    if (in->requests == NULL)
        return error_set(error, -ENOMEM, "out of memory");
    for (uint32_t number = 1; line < end; number++) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        size_t n = (size_t)((stop != NULL ? stop : end) - line);

        if (!is_blank(line, n)) {
            int err = read_line(&in->requests[in->n++], line, n, chat, given, &why);

            if (err != 0)
                return error_set(error, err, "%s:%u: %s", path, number, why.text);
        }
        line += n + 1;
    }
    return in->n != 0 ? 0 : error_set(error, -EINVAL, "%s: no request in it", path);
}

/* The answers to one prompt are requests like others, with seeds that follow each other. */
static void copy_answer(struct run_request *to, const struct run_request *from, uint32_t k)
{
    *to = (struct run_request){.ask = from->ask, .turn = from->turn};
    to->ask.has_n = false;
    to->ask.seed += k;
    if (k > 0)
        client_id_new(&to->ask.id);
    if (from->ask.messages.data == &from->turn)
        to->ask.messages.data = &to->turn;
    if (k == 0) { /* the first owns what all point to */
        to->line = from->line;
        to->pool = from->pool;
    }
}

static int expand_answers(struct run_input *in, struct error *error)
{
    size_t n = 0, at = 0;

    for (uint32_t i = 0; i < in->n; i++)
        n += in->requests[i].ask.has_n && in->requests[i].ask.n > 1 ? in->requests[i].ask.n : 1;
    struct run_request *all = calloc(n, sizeof *all);

    if (all == NULL || n > UINT32_MAX) {
        free(all);
        return error_set(error, -ENOMEM, "out of memory");
    }
    for (uint32_t i = 0; i < in->n; i++) {
        const struct run_request *r = &in->requests[i];
        uint32_t n_answers = r->ask.has_n && r->ask.n > 1 ? r->ask.n : 1;

        for (uint32_t k = 0; k < n_answers; k++)
            copy_answer(&all[at++], r, k);
    }
    free(in->requests);
    in->requests = all;
    in->n = (uint32_t)n;
    return 0;
}

int run_input_read(struct run_input *in, const char *path, bool jsonl, bool chat,
                   const struct message_generate *given, struct error *error)
{
    *in = (struct run_input){.n = 0};
    int err = file_read_all(path, FILE_BYTES_MAX, &in->file, error);

    if (err == 0 && (jsonl || ends_with(path, ".jsonl")))
        err = read_lines(in, path, chat, given, error);
    else if (err == 0)
        err = read_raw(in, chat, given, error);
    if (err == 0)
        err = expand_answers(in, error);
    if (err != 0)
        run_input_fini(in);
    return err;
}

void run_input_fini(struct run_input *in)
{
    for (uint32_t i = 0; i < in->n; i++)
        run_request_fini(&in->requests[i]);
    free(in->requests);
    file_bytes_free(&in->file);
    *in = (struct run_input){.n = 0};
}
