#include "proto/message_doc.h"

#include <inttypes.h>

#include "proto/messages.h"

enum { SEEN_MAX = 32 };

/* Records and enumerations are explained once, where they are first used. */
struct seen {
    const void *items[SEEN_MAX];
    uint32_t n;
};

static bool first_time(struct seen *seen, const void *item)
{
    for (uint32_t i = 0; i < seen->n; i++)
        if (seen->items[i] == item)
            return false;
    if (seen->n < SEEN_MAX)
        seen->items[seen->n++] = item;
    return true;
}

static void print_integer(FILE *out, uint64_t bound)
{
    if (bound == UINT32_MAX || bound == UINT64_MAX)
        fprintf(out, "integer of %d bits", bound == UINT32_MAX ? 32 : 64);
    else
        fprintf(out, "integer <= %" PRIu64, bound);
}

static void print_type(FILE *out, const struct field_info *field)
{
    switch (field->type) {
    case FIELD_U32:
    case FIELD_U64:
        print_integer(out, field->bound);
        break;
    case FIELD_F64:
        fprintf(out, "number <= %" PRIu64, field->bound);
        break;
    case FIELD_SF64:
        fprintf(out, "number, -%" PRIu64 " to %" PRIu64, field->bound, field->bound);
        break;
    case FIELD_BOOL:
        fprintf(out, "bool");
        break;
    case FIELD_STR:
        fprintf(out, "str <= %" PRIu64 " bytes", field->bound);
        break;
    case FIELD_ID:
        fprintf(out, "bin of %" PRIu64 " bytes", field->bound);
        break;
    case FIELD_U32S:
        fprintf(out, "array <= %" PRIu64 " of integer of 32 bits", field->bound);
        break;
    case FIELD_F32S:
        fprintf(out, "array <= %" PRIu64 " of number", field->bound);
        break;
    case FIELD_STRS:
        fprintf(out, "array <= %" PRIu64 " of str of 1 to %d bytes", field->bound,
                STRS_ITEM_BYTES_MAX);
        break;
    case FIELD_ENUM:
        fprintf(out, "str, a name of %s", field->names->name);
        break;
    case FIELD_LIST:
        fprintf(out, "array <= %" PRIu64 " of %s", field->bound, field->record->name);
        break;
    }
}

static void print_fields(FILE *out, const struct record_info *record)
{
    fprintf(out, "| key | type | | meaning |\n|---|---|---|---|\n");
    for (uint32_t i = 0; i < record->n_fields; i++) {
        const struct field_info *field = &record->fields[i];

        fprintf(out, "| `%s` | ", field->name);
        print_type(out, field);
        fprintf(out, " | %s | %s |\n", field->flag_off != FIELD_NO_FLAG ? "optional" : "",
                field->meaning);
    }
    fprintf(out, "\n");
}

static void print_names(FILE *out, const struct enumeration *names)
{
    fprintf(out, "Names of %s:\n\n", names->name);
    for (uint32_t i = 0; i < names->n; i++)
        fprintf(out, "- `%s`: %s\n", names->names[i], names->meanings[i]);
    fprintf(out, "\n");
}

static void print_parts(FILE *out, const struct record_info *record, struct seen *seen)
{
    for (uint32_t i = 0; i < record->n_fields; i++) {
        const struct field_info *field = &record->fields[i];

        if (field->type == FIELD_ENUM && first_time(seen, field->names))
            print_names(out, field->names);
        if (field->type == FIELD_LIST && first_time(seen, field->record)) {
            fprintf(out, "%s, %s:\n\n", field->record->name, field->record->meaning);
            print_fields(out, field->record);
            print_parts(out, field->record, seen);
        }
    }
}

static void print_roles(FILE *out, unsigned roles)
{
    static const char *const names[] = {"client", "router", "engine"};
    const char *gap = "";

    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        if ((roles >> i & 1) == 0)
            continue;
        fprintf(out, "%s%s", gap, names[i]);
        gap = ", ";
    }
}

void message_doc_print(FILE *out)
{
    struct seen seen = {.n = 0};

    for (enum message_type type = MESSAGE_NONE + 1; type < N_MESSAGES; type++) {
        const struct message_info *info = message_info(type);

        fprintf(out, "### %s\n\nFrom ", info->record.name);
        print_roles(out, info->senders);
        fprintf(out, " to ");
        print_roles(out, info->receivers);
        fprintf(out, ": %s.\n\n", info->record.meaning);
        print_fields(out, &info->record);
        print_parts(out, &info->record, &seen);
    }
}
