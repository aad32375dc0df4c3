#include "proto/cli/options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct option_row *find_row(const struct option_command *command, const char *name,
                                         size_t n)
{
    for (const struct option_row *const *table = command->tables; *table != NULL; table++)
        for (const struct option_row *row = *table; row->name != NULL; row++)
            if (strlen(row->name) == n && memcmp(row->name, name, n) == 0)
                return row;
    return NULL;
}

static void print_help(const struct option_command *command)
{
    printf("usage: %s\n%s\n\noptions:\n", command->usage, command->summary);
    for (const struct option_row *const *table = command->tables; *table != NULL; table++)
        for (const struct option_row *row = *table; row->name != NULL; row++)
            printf("  --%-20s %-8s %s\n", row->name, row->argument != NULL ? row->argument : "",
                   row->doc);
}

static int parse_u64(const char *text, uint64_t max, uint64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || *out > max)
        return -EINVAL;
    return 0;
}

static int parse_signed(const char *text, double *out)
{
    char *end;

    *out = strtod(text, &end);
    return *text == '\0' || *end != '\0' || !isfinite(*out) ? -EINVAL : 0;
}

static int parse_f64(const char *text, double *out)
{
    return parse_signed(text, out) == 0 && *out >= 0 ? 0 : -EINVAL;
}

static int append_u32(struct option_u32s *list, const char *text)
{
    uint64_t number;

    if (list->n == OPTION_U32S_MAX || parse_u64(text, UINT32_MAX, &number) != 0)
        return -EINVAL;
    list->items[list->n++] = (uint32_t)number;
    return 0;
}

/* "token:bias" */
static int append_bias(struct option_biases *list, const char *text)
{
    char *end;

    if (list->n == OPTION_BIASES_MAX || text[0] < '0' || text[0] > '9')
        return -EINVAL;
    unsigned long long token = strtoull(text, &end, 10);
    struct token_bias *b = &list->items[list->n];

    if (*end != ':' || token > UINT32_MAX || parse_signed(end + 1, &b->bias) != 0)
        return -EINVAL;
    b->token = (uint32_t)token;
    list->n++;
    return 0;
}

static int append_str(struct option_strs *list, const char *text)
{
    if (list->n == OPTION_STRS_MAX || text[0] == '\0')
        return -EINVAL;
    list->items[list->n++] = str_of(text);
    return 0;
}

static int set_value(const struct option_row *row, const char *text)
{
    uint64_t number = 0;
    int err = 0;

    switch (row->type) {
    case OPTION_FLAG:
        *(bool *)row->value = true;
        break;
    case OPTION_TEXT:
        *(const char **)row->value = text;
        break;
    case OPTION_STR:
        *(struct str *)row->value = str_of(text);
        break;
    case OPTION_U32:
        err = parse_u64(text, UINT32_MAX, &number);
        *(uint32_t *)row->value = (uint32_t)number;
        break;
    case OPTION_U64:
        err = parse_u64(text, UINT64_MAX, row->value);
        break;
    case OPTION_F64:
        err = parse_f64(text, row->value);
        break;
    case OPTION_SF64:
        err = parse_signed(text, row->value);
        break;
    case OPTION_U32S:
        err = append_u32(row->value, text);
        break;
    case OPTION_BIASES:
        err = append_bias(row->value, text);
        break;
    case OPTION_STRS:
        err = append_str(row->value, text);
        break;
    }
    if (err == 0 && row->given != NULL)
        *row->given = true;
    return err;
}

static enum option_result bad(const char *command, const char *option, const char *why)
{
    fprintf(stderr, "omni %s: %s: %s (--help lists the options)\n", command, option, why);
    return OPTIONS_BAD;
}

/* Takes the option at argv[*i]; moves *i onto its value if that is the next word. */
static enum option_result take_option(const struct option_command *command, int argc, char **argv,
                                      int *i)
{
    const char *word = argv[*i], *name = word + 2;
    const char *equals = strchr(name, '=');
    const char *value = equals != NULL ? equals + 1 : NULL;
    const struct option_row *row =
        find_row(command, name, equals != NULL ? (size_t)(equals - name) : strlen(name));

    if (row == NULL)
        return bad(argv[0], word, "no such option");
    if (row->type == OPTION_FLAG && value != NULL)
        return bad(argv[0], word, "takes no value");
    if (row->type != OPTION_FLAG && value == NULL) {
        if (*i + 1 >= argc)
            return bad(argv[0], word, "needs a value");
        value = argv[++*i];
    }
    return set_value(row, value) == 0 ? OPTIONS_RUN : bad(argv[0], word, "not a good value");
}

enum option_result options_parse(const struct option_command *command, int argc, char **argv,
                                 int *n_operands)
{
    bool only_operands = false;

    *n_operands = 0;
    for (int i = 1; i < argc; i++) {
        if (!only_operands && strcmp(argv[i], "--") == 0) {
            only_operands = true;
            continue;
        }
        if (!only_operands && (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)) {
            print_help(command);
            return OPTIONS_HELP;
        }
        if (only_operands || argv[i][0] != '-' || argv[i][1] == '\0') {
            argv[1 + (*n_operands)++] = argv[i];
            continue;
        }
        if (argv[i][1] != '-')
            return bad(argv[0], argv[i], "no such option");
        enum option_result result = take_option(command, argc, argv, &i);

        if (result != OPTIONS_RUN)
            return result;
    }
    return OPTIONS_RUN;
}
