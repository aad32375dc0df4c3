/* messages.h - every message that travels between clients, router and engines, as a struct.
 *
 * All of it is made from messages.def, the one list; read that file for the fields and their
 * meaning.  A message is one struct with a type and a union:
 *
 *     struct message m = {.type = MESSAGE_CANCEL, .cancel = {.id = id}};
 *
 * An optional field x has a flag has_x beside it.  Strings and arrays are views (pointer and count,
 * no terminating zero): whoever fills them owns the memory, see codec.h for those of a decoded
 * message.  Tables describe each struct field by field; codec.c and the tests walk them, so that a
 * message added to the list needs no code.  Pure data, any thread. */
#ifndef OMNI_PROTO_MESSAGES_H
#define OMNI_PROTO_MESSAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PROTO_VERSION = 1, /* grows when a message changes so that an older end must refuse */
    MESSAGE_BYTES_MAX = 16 << 20, /* of one encoded message; also NN_RCVMAXSIZE of every socket */
    STRS_ITEM_BYTES_MAX = 256,    /* of one string in a list of strings */
    RECORD_FIELDS_MAX = 64,       /* the decoder notes the fields it has seen in one 64-bit word */
};

/* Who may send or receive a message; a set of bits. */
enum message_role { ROLE_CLIENT = 1, ROLE_ROUTER = 2, ROLE_ENGINE = 4 };

struct request_id {
    uint8_t bytes[16];
};

struct str {
    const char *data;
    uint32_t n;
};

struct str_array {
    const struct str *data;
    uint32_t n;
};

struct u32_array {
    const uint32_t *data;
    uint32_t n;
};

struct f32_array {
    const float *data;
    uint32_t n;
};

/* ---- The structs, from the list -------------------------------------------------------------- */

#define ENUM_BEGIN(type)                        enum type {
#define ENUM_VALUE(prefix, NAME, name, meaning) prefix##_##NAME,
#define ENUM_END(type)                                                                             \
    }                                                                                              \
    ;
#include "proto/messages.def"

#define FIELD_C_U32  uint32_t
#define FIELD_C_U64  uint64_t
#define FIELD_C_F64  double
#define FIELD_C_SF64 double
#define FIELD_C_BOOL bool
#define FIELD_C_STR  struct str
#define FIELD_C_ID   struct request_id
#define FIELD_C_U32S struct u32_array
#define FIELD_C_STRS struct str_array
#define FIELD_C_F32S struct f32_array
#define FIELD_FLAG_REQ(name)
#define FIELD_FLAG_OPT(name) bool has_##name;

#define RECORD_BEGIN(record, meaning) struct record {
#define RECORD_END(record)                                                                         \
    }                                                                                              \
    ;                                                                                              \
    struct record##_list {                                                                         \
        const struct record *data;                                                                 \
        uint32_t n;                                                                                \
    };
#define MESSAGE_BEGIN(NAME, name, senders, receivers, meaning) struct message_##name {
#define MESSAGE_END(name)                                                                          \
    }                                                                                              \
    ;
#define FIELD(owner, TYPE, name, presence, bound, meaning)                                         \
    FIELD_C_##TYPE name;                                                                           \
    FIELD_FLAG_##presence(name)
#define FIELD_ENUM(owner, type, name, presence, meaning)                                           \
    enum type name;                                                                                \
    FIELD_FLAG_##presence(name)
#define FIELD_LIST(owner, record, name, presence, bound, meaning)                                  \
    struct record##_list name;                                                                     \
    FIELD_FLAG_##presence(name)
#include "proto/messages.def"

#undef FIELD_C_U32
#undef FIELD_C_U64
#undef FIELD_C_F64
#undef FIELD_C_SF64
#undef FIELD_C_BOOL
#undef FIELD_C_STR
#undef FIELD_C_ID
#undef FIELD_C_U32S
#undef FIELD_C_STRS
#undef FIELD_C_F32S
#undef FIELD_FLAG_REQ
#undef FIELD_FLAG_OPT

enum message_type {
    MESSAGE_NONE,
#define MESSAGE_BEGIN(NAME, name, senders, receivers, meaning) MESSAGE_##NAME,
#include "proto/messages.def"
    N_MESSAGES,
};

struct message {
    enum message_type type;
    union {
#define MESSAGE_BEGIN(NAME, name, senders, receivers, meaning) struct message_##name name;
#include "proto/messages.def"
    };
};

/* ---- The tables ------------------------------------------------------------------------------ */

enum field_type {
    FIELD_U32,
    FIELD_U64,
    FIELD_F64,
    FIELD_SF64,
    FIELD_BOOL,
    FIELD_STR,
    FIELD_ID,
    FIELD_U32S,
    FIELD_STRS,
    FIELD_F32S,
    FIELD_ENUM,
    FIELD_LIST,
};

enum { FIELD_NO_FLAG = UINT16_MAX }; /* flag_off of a required field */

struct enumeration {
    const char *name;
    const char *const *names;
    const char *const *meanings;
    uint32_t n;
};

struct record_info;

struct field_info {
    const char *name;
    const char *meaning;
    uint64_t bound;                   /* see messages.def */
    const struct enumeration *names;  /* FIELD_ENUM */
    const struct record_info *record; /* FIELD_LIST */
    uint16_t off;                     /* of the member in its struct */
    uint16_t flag_off;                /* of has_<name>, or FIELD_NO_FLAG */
    enum field_type type;
};

struct record_info {
    const char *name;
    const char *meaning;
    const struct field_info *fields;
    uint32_t n_fields;
    uint32_t bytes; /* sizeof the struct */
};

struct message_info {
    struct record_info record; /* name: the value of key "t" */
    unsigned senders;          /* enum message_role bits */
    unsigned receivers;
};

/* NULL for MESSAGE_NONE and anything outside the list. */
const struct message_info *message_info(enum message_type type);

/* "none" outside the list. */
const char *message_name(enum message_type type);

/* May a process of role from send it to one of role to?  A receiver refuses anything else. */
bool message_may_travel(enum message_type type, enum message_role from, enum message_role to);

/* Name as sent; "?" outside the list. */
const char *finish_reason_name(enum finish_reason reason);
const char *error_code_name(enum error_code code);
const char *worker_health_name(enum worker_health health);

/* A zero-terminated string as a view; NULL gives an empty one. */
struct str str_of(const char *text);
bool str_equal(struct str a, const char *text);

/* 32 hexadecimal digits and a zero. */
enum { REQUEST_ID_TEXT_BYTES = 33 };
void request_id_format(const struct request_id *id, char text[REQUEST_ID_TEXT_BYTES]);

/* 0, or -EINVAL unless text is 32 hexadecimal digits. */
int request_id_parse(const char *text, struct request_id *out);
bool request_id_equal(const struct request_id *a, const struct request_id *b);

#endif
