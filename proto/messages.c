#include "proto/messages.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/base/invariant.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* ---- Enumerations ---------------------------------------------------------------------------- */

#define ENUM_BEGIN(type)                        static const char *const type##_names[] = {
#define ENUM_VALUE(prefix, NAME, name, meaning) [prefix##_##NAME] = #name,
#define ENUM_END(type)                                                                             \
    }                                                                                              \
    ;
#include "proto/messages.def"

#define ENUM_BEGIN(type)                        static const char *const type##_meanings[] = {
#define ENUM_VALUE(prefix, NAME, name, meaning) [prefix##_##NAME] = meaning,
#define ENUM_END(type)                                                                             \
    }                                                                                              \
    ;                                                                                              \
    static const struct enumeration type##_enumeration = {                                         \
        .name = #type,                                                                             \
        .names = type##_names,                                                                     \
        .meanings = type##_meanings,                                                               \
        .n = COUNT(type##_names),                                                                  \
    };
#include "proto/messages.def"

/* The codec stores and loads an enumeration as an unsigned int. */
#define ENUM_BEGIN(type) static_assert(sizeof(enum type) == sizeof(unsigned), "enum width");
#include "proto/messages.def"

#define RECORD_BEGIN(record, meaning) static const char record##_meaning[] = meaning;
#include "proto/messages.def"

/* ---- Fields ---------------------------------------------------------------------------------- */

#define FLAG_OFF_REQ(owner, field) FIELD_NO_FLAG
#define FLAG_OFF_OPT(owner, field) offsetof(struct owner, has_##field)

#define FIELD_COMMON(owner, field, presence, text)                                                 \
    .name = #field, .meaning = text, .off = offsetof(struct owner, field),                         \
    .flag_off = FLAG_OFF_##presence(owner, field)

#define RECORD_BEGIN(record, meaning) static const struct field_info record##_fields[] = {
#define MESSAGE_BEGIN(NAME, name, senders, receivers, meaning)                                     \
    static const struct field_info message_##name##_fields[] = {
#define FIELD(owner, TYPE, field, presence, limit, text)                                           \
    {FIELD_COMMON(owner, field, presence, text), .type = FIELD_##TYPE, .bound = limit},
#define FIELD_ENUM(owner, enum_type, field, presence, text)                                        \
    {FIELD_COMMON(owner, field, presence, text), .type = FIELD_ENUM,                               \
     .names = &enum_type##_enumeration},
#define FIELD_LIST(owner, list_record, field, presence, limit, text)                               \
    {FIELD_COMMON(owner, field, presence, text), .type = FIELD_LIST, .bound = limit,               \
     .record = &list_record##_info},
#define RECORD_END(of)                                                                             \
    }                                                                                              \
    ;                                                                                              \
    static_assert(COUNT(of##_fields) <= RECORD_FIELDS_MAX, "seen fields fit a 64-bit word");       \
    static const struct record_info of##_info = {                                                  \
        .name = #of,                                                                               \
        .meaning = of##_meaning,                                                                   \
        .fields = of##_fields,                                                                     \
        .n_fields = COUNT(of##_fields),                                                            \
        .bytes = sizeof(struct of),                                                                \
    };
#define MESSAGE_END(name)                                                                          \
    }                                                                                              \
    ;                                                                                              \
    static_assert(COUNT(message_##name##_fields) <= RECORD_FIELDS_MAX, "seen fields fit");
#include "proto/messages.def"

/* ---- Messages -------------------------------------------------------------------------------- */

#define MESSAGE_BEGIN(NAME, message, from, to, text)                                               \
    [MESSAGE_##NAME] = {.record = {.name = #message,                                               \
                                   .meaning = text,                                                \
                                   .fields = message_##message##_fields,                           \
                                   .n_fields = COUNT(message_##message##_fields),                  \
                                   .bytes = sizeof(struct message_##message)},                     \
                        .senders = (from),                                                         \
                        .receivers = (to)},
static const struct message_info infos[N_MESSAGES] = {
#include "proto/messages.def"
};

const struct message_info *message_info(enum message_type type)
{
    if (type <= MESSAGE_NONE || type >= N_MESSAGES)
        return NULL;
    return &infos[type];
}

const char *message_name(enum message_type type)
{
    const struct message_info *info = message_info(type);

    return info != NULL ? info->record.name : "none";
}

bool message_may_travel(enum message_type type, enum message_role from, enum message_role to)
{
    const struct message_info *info = message_info(type);

    return info != NULL && (info->senders & from) != 0 && (info->receivers & to) != 0;
}

static const char *enumeration_name(const struct enumeration *e, unsigned value)
{
    return value < e->n ? e->names[value] : "?";
}

const char *finish_reason_name(enum finish_reason reason)
{
    return enumeration_name(&finish_reason_enumeration, reason);
}

const char *error_code_name(enum error_code code)
{
    return enumeration_name(&error_code_enumeration, code);
}

const char *worker_health_name(enum worker_health health)
{
    return enumeration_name(&worker_health_enumeration, health);
}

/* ---- Views and ids --------------------------------------------------------------------------- */

struct str str_of(const char *text)
{
    size_t n = text != NULL ? strlen(text) : 0;

    invariant(n <= UINT32_MAX);
    return (struct str){.data = text, .n = (uint32_t)n};
}

bool str_equal(struct str a, const char *text)
{
    return a.n == strlen(text) && (a.n == 0 || memcmp(a.data, text, a.n) == 0);
}

void request_id_format(const struct request_id *id, char text[REQUEST_ID_TEXT_BYTES])
{
    for (size_t i = 0; i < sizeof id->bytes; i++)
        snprintf(text + 2 * i, 3, "%02x", id->bytes[i]);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int request_id_parse(const char *text, struct request_id *out)
{
    if (strlen(text) != REQUEST_ID_TEXT_BYTES - 1)
        return -EINVAL;
    for (size_t i = 0; i < sizeof out->bytes; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);

        if (high < 0 || low < 0)
            return -EINVAL;
        out->bytes[i] = (uint8_t)(high << 4 | low);
    }
    return 0;
}

bool request_id_equal(const struct request_id *a, const struct request_id *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}
