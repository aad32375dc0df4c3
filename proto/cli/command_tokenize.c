/* omni tokenize - text on stdin to token ids on one line; reads the model file itself, also one
 * that holds a vocabulary alone, and needs no running group. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/tokenizer.h"
#include "proto/cli/commands.h"
#include "proto/cli/files.h"
#include "proto/cli/options.h"

static int print_ids(const struct tokenizer *t, const struct file_bytes *text, unsigned flags,
                     struct error *error)
{
    size_t cap = tokenizer_encode_bound(text->n);
    uint32_t *ids = malloc(cap * sizeof *ids);

    if (ids == NULL)
        return error_set(error, -ENOMEM, "out of memory");
    int64_t n = tokenizer_encode(t, text->data, text->n, flags, ids, cap);

    for (int64_t i = 0; i < n; i++)
        printf("%s%u", i != 0 ? " " : "", ids[i]);
    free(ids);
    if (n < 0)
        return error_set(error, (int)n, "cannot tokenize: %s", strerror((int)-n));
    printf("\n");
    return 0;
}

static int open_tokenizer(const char *path, struct tokenizer **out, struct error *error)
{
    struct gguf_error why = {""};
    struct gguf *g;
    int err = gguf_open(path, &g, &why);

    if (err != 0)
        return error_set(error, err, "%s: %s", path, why.text);
    err = tokenizer_open(g, out, &why);
    gguf_close(g);
    return err == 0 ? 0 : error_set(error, err, "%s: %s", path, why.text);
}

static int tokenize(const char *path, unsigned flags, struct error *error)
{
    struct file_bytes text = {0};
    struct tokenizer *t = NULL;
    int err = open_tokenizer(path, &t, error);

    if (err != 0)
        return err;
    err = file_read_all("-", TOKENIZER_TEXT_MAX, &text, error);
    if (err == 0) {
        err = print_ids(t, &text, flags, error);
        file_bytes_free(&text);
    }
    tokenizer_close(t);
    return err;
}

int command_tokenize(int argc, char **argv)
{
    const char *model = NULL;
    bool special = false;
    const struct option_row rows[] = {
        {"model", OPTION_TEXT, &model, NULL, "FILE", "model file (GGUF); a vocabulary is enough"},
        {"special", OPTION_FLAG, &special, NULL, NULL,
         "parse special text such as <|im_end|>, and add BOS and EOS as the model wants"},
        {0}};
    const struct option_row *const tables[] = {rows, NULL};
    const struct option_command command = {.usage = "omni tokenize --model FILE [--special] <TEXT",
                                           .summary = "Prints the token ids of stdin on one line.",
                                           .tables = tables};
    struct error error;
    int n_operands;
    enum option_result result = options_parse(&command, argc, argv, &n_operands);

    if (result != OPTIONS_RUN)
        return result == OPTIONS_HELP ? EXIT_DONE : EXIT_USAGE;
    if (model == NULL || n_operands != 0) {
        fprintf(stderr, "usage: %s\n", command.usage);
        return EXIT_USAGE;
    }
    unsigned flags = special ? TOKENIZER_PARSE_SPECIAL | TOKENIZER_ADD_SPECIAL : 0;

    return tokenize(model, flags, &error) == 0 ? EXIT_DONE : command_fail("tokenize", &error);
}
