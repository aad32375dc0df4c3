/* options.h - the command line of one subcommand, as a table of rows.
 *
 * "--name value", "--name=value", and "--" before operands that begin with a dash.  --help prints
 * the table.  Values land in the caller's variables; `given` (may be NULL) is set when the option
 * was there, so a row can point straight into a message's field and its flag.  Pure; main thread.
 */
#ifndef OMNI_PROTO_CLI_OPTIONS_H
#define OMNI_PROTO_CLI_OPTIONS_H

#include "proto/messages.h"

enum { OPTION_STRS_MAX = 16, OPTION_U32S_MAX = 32, OPTION_BIASES_MAX = 256 };

enum option_type {
    OPTION_FLAG,   /* bool */
    OPTION_TEXT,   /* const char *, points into argv */
    OPTION_STR,    /* struct str, points into argv */
    OPTION_U32,    /* uint32_t */
    OPTION_U64,    /* uint64_t */
    OPTION_F64,    /* double, finite, not negative */
    OPTION_SF64,   /* double, finite */
    OPTION_U32S,   /* struct option_u32s, repeatable */
    OPTION_BIASES, /* struct option_biases, repeatable: "token:bias" */
    OPTION_STRS,   /* struct option_strs, repeatable */
};

struct option_strs {
    struct str items[OPTION_STRS_MAX];
    uint32_t n;
};

struct option_u32s {
    uint32_t items[OPTION_U32S_MAX];
    uint32_t n;
};

struct option_biases {
    struct token_bias items[OPTION_BIASES_MAX];
    uint32_t n;
};

struct option_row {
    const char *name; /* without dashes; NULL ends the table */
    enum option_type type;
    void *value;
    bool *given;
    const char *argument; /* shown in help, e.g. "FILE"; NULL for flags */
    const char *doc;
};

enum option_result { OPTIONS_RUN, OPTIONS_HELP, OPTIONS_BAD };

struct option_command {
    const char *usage; /* "omni run --prompt-file FILE [options]" */
    const char *summary;
    const struct option_row *const *tables; /* NULL-terminated list */
};

/* argv[0] is the subcommand.  Operands are collected into argv from index 1; *n_operands says how
 * many.  OPTIONS_HELP: the help was printed; OPTIONS_BAD: the reason was, to stderr. */
enum option_result options_parse(const struct option_command *command, int argc, char **argv,
                                 int *n_operands);

#endif
