/* The codec against every message of the list, and against msgpack-c as an independent reader and
 * writer: faults are made by unpacking a good message with msgpack-c, changing one thing, and
 * packing it again. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#include <msgpack.h>
#pragma GCC diagnostic pop

#include "proto/codec.h"
#include "proto/field.h"
#include "proto/message_doc.h"
#include "tests/unit/proto_samples.h"

enum { SAMPLE_BYTES_MAX = 1 << 16, FAULT_BYTES_MAX = MESSAGE_BYTES_MAX };

static unsigned char *arena_memory;
static struct codec_error error;

static int decode(const void *bytes, size_t n, struct message *m)
{
    struct codec_arena arena;

    codec_arena_init(&arena, arena_memory,
                     (size_t)CODEC_ARENA_FACTOR * FAULT_BYTES_MAX + CODEC_ARENA_BYTES_EXTRA);
    return message_decode(bytes, n, m, &arena, &error);
}

/* A copy of exactly n bytes on the heap, so that a read past its end is seen by asan. */
static unsigned char *exact_copy(const void *bytes, size_t n)
{
    unsigned char *copy = malloc(n != 0 ? n : 1);

    assert_non_null(copy);
    memcpy(copy, bytes, n);
    return copy;
}

static size_t sample_bytes(enum message_type type, enum sample_kind kind, unsigned char *buf)
{
    struct message m;

    sample_make(type, kind, &m);
    ssize_t n = message_encode(&m, buf, SAMPLE_BYTES_MAX, &error);

    if (n <= 0)
        fail_msg("%s: %s", message_name(type), error.text);
    return (size_t)n;
}

#define FOR_EACH_SAMPLE(type, kind)                                                                \
    for (enum message_type type = MESSAGE_NONE + 1; type < N_MESSAGES; type++)                     \
        for (enum sample_kind kind = 0; kind < N_SAMPLE_KINDS; kind++)

static void test_round_trip(void **state)
{
    static unsigned char buf[SAMPLE_BYTES_MAX];
    struct message sent, got;

    (void)state;
    FOR_EACH_SAMPLE(type, kind)
    {
        size_t n = sample_bytes(type, kind, buf);

        sample_make(type, kind, &sent);
        if (decode(buf, n, &got) != 0)
            fail_msg("%s: %s", message_name(type), error.text);
        assert_true(sample_equal(&sent, &got));
    }
}

static void test_truncation(void **state)
{
    static unsigned char buf[SAMPLE_BYTES_MAX];
    struct message got;

    (void)state;
    FOR_EACH_SAMPLE(type, kind)
    {
        size_t n = sample_bytes(type, kind, buf);

        for (size_t cut = 0; cut < n; cut++) {
            unsigned char *copy = exact_copy(buf, cut);

            assert_int_equal(decode(copy, cut, &got), -EBADMSG);
            assert_int_equal(error.fault, CODEC_TRUNCATED);
            free(copy);
        }
    }
}

/* Whatever one changed byte makes of a message: refused with a reason, or a valid message, which
 * then also encodes and comes back the same. */
static void check_mutant(const unsigned char *bytes, size_t n)
{
    static unsigned char again[SAMPLE_BYTES_MAX], arena2_memory[8 * SAMPLE_BYTES_MAX];
    struct codec_arena arena2;
    struct message m, back;

    if (decode(bytes, n, &m) != 0) {
        assert_int_not_equal(error.fault, CODEC_OK);
        assert_true(error.text[0] != '\0');
        return;
    }
    ssize_t n_again = message_encode(&m, again, sizeof again, &error);

    assert_true(n_again > 0);
    codec_arena_init(&arena2, arena2_memory, sizeof arena2_memory);
    assert_int_equal(message_decode(again, (size_t)n_again, &back, &arena2, &error), 0);
    assert_true(sample_equal(&m, &back));
}

static void test_mutation(void **state)
{
    static unsigned char buf[SAMPLE_BYTES_MAX];
    static const unsigned char values[] = {0x00, 0x7f, 0x80, 0x90, 0xa0, 0xc0, 0xc4,
                                           0xcb, 0xcf, 0xd3, 0xdb, 0xdd, 0xdf, 0xff};

    (void)state;
    FOR_EACH_SAMPLE(type, kind)
    {
        size_t n = sample_bytes(type, kind, buf);
        unsigned char *copy = exact_copy(buf, n);

        for (size_t at = 0; at < n; at++) {
            for (unsigned bit = 0; bit < 8; bit++) {
                copy[at] = (unsigned char)(buf[at] ^ 1u << bit);
                check_mutant(copy, n);
            }
            for (size_t v = 0; v < sizeof values; v++) {
                copy[at] = values[v];
                check_mutant(copy, n);
            }
            copy[at] = buf[at];
        }
        free(copy);
    }
}

/* ---- One thing changed, by msgpack-c --------------------------------------------------------- */

enum change { CHANGE_OMIT, CHANGE_DOUBLE, CHANGE_NIL, CHANGE_TOO_BIG, CHANGE_ADD_UNKNOWN };

/* Which map is changed: the message itself (list NULL), or element 0 of one of its lists. */
struct target {
    const struct field_info *list;
    const struct field_info *field;
    enum change change;
};

static bool key_is(const msgpack_object_kv *pair, const char *name)
{
    return pair->key.via.str.size == strlen(name) &&
           memcmp(pair->key.via.str.ptr, name, strlen(name)) == 0;
}

static void pack_name(msgpack_packer *pk, const char *name)
{
    msgpack_pack_str_with_body(pk, name, strlen(name));
}

static void pack_filled(msgpack_packer *pk, size_t n, bool text)
{
    char *filler = calloc(1, n);

    assert_non_null(filler);
    if (text)
        msgpack_pack_str_with_body(pk, filler, n);
    else
        msgpack_pack_bin_with_body(pk, filler, n);
    free(filler);
}

static void pack_too_big(msgpack_packer *pk, const struct field_info *field)
{
    switch (field->type) {
    case FIELD_U32:
    case FIELD_U64:
        msgpack_pack_uint64(pk, field->bound + 1);
        break;
    case FIELD_F64:
    case FIELD_SF64:
        msgpack_pack_double(pk, (double)field->bound * 2);
        break;
    case FIELD_STR:
        pack_filled(pk, field->bound + 1, true);
        break;
    case FIELD_ID:
        pack_filled(pk, field->bound + 1, false);
        break;
    case FIELD_U32S:
    case FIELD_STRS:
    case FIELD_F32S:
    case FIELD_LIST:
        msgpack_pack_array(pk, field->bound + 1);
        for (uint64_t i = 0; i < field->bound + 1; i++)
            msgpack_pack_uint8(pk, 0);
        break;
    case FIELD_BOOL:
    case FIELD_ENUM:
        fail();
    }
}

static void pack_changed_value(msgpack_packer *pk, const msgpack_object_kv *pair,
                               const struct target *target)
{
    if (target->change == CHANGE_NIL)
        msgpack_pack_nil(pk);
    else if (target->change == CHANGE_TOO_BIG)
        pack_too_big(pk, target->field);
    else
        msgpack_pack_object(pk, pair->val);
}

static void pack_changed_map(msgpack_packer *pk, const msgpack_object_map *map,
                             const struct target *target)
{
    enum change change = target->change;
    bool adds = change == CHANGE_DOUBLE || change == CHANGE_ADD_UNKNOWN;

    msgpack_pack_map(pk, map->size + adds - (change == CHANGE_OMIT));
    for (uint32_t i = 0; i < map->size; i++) {
        const msgpack_object_kv *pair = &map->ptr[i];
        bool hit = target->field != NULL && key_is(pair, target->field->name);

        if (hit && change == CHANGE_OMIT)
            continue;
        for (int times = hit && change == CHANGE_DOUBLE ? 2 : 1; times > 0; times--) {
            msgpack_pack_object(pk, pair->key);
            if (hit)
                pack_changed_value(pk, pair, target);
            else
                msgpack_pack_object(pk, pair->val);
        }
    }
    if (change == CHANGE_ADD_UNKNOWN) {
        pack_name(pk, "surprise");
        msgpack_pack_uint8(pk, 1);
    }
}

static void pack_changed_list(msgpack_packer *pk, const msgpack_object_map *map,
                              const struct target *target)
{
    msgpack_pack_map(pk, map->size);
    for (uint32_t i = 0; i < map->size; i++) {
        const msgpack_object_kv *pair = &map->ptr[i];

        msgpack_pack_object(pk, pair->key);
        if (!key_is(pair, target->list->name)) {
            msgpack_pack_object(pk, pair->val);
            continue;
        }
        msgpack_pack_array(pk, pair->val.via.array.size);
        pack_changed_map(pk, &pair->val.via.array.ptr[0].via.map, target);
        for (uint32_t j = 1; j < pair->val.via.array.size; j++)
            msgpack_pack_object(pk, pair->val.via.array.ptr[j]);
    }
}

static int decode_changed(enum message_type type, const struct target *target)
{
    static unsigned char buf[SAMPLE_BYTES_MAX];
    size_t n = sample_bytes(type, SAMPLE_TYPICAL, buf), off = 0;
    msgpack_sbuffer out;
    msgpack_packer pk;
    msgpack_unpacked in;
    struct message m;

    msgpack_sbuffer_init(&out);
    msgpack_packer_init(&pk, &out, msgpack_sbuffer_write);
    msgpack_unpacked_init(&in);
    assert_int_equal(msgpack_unpack_next(&in, (const char *)buf, n, &off), MSGPACK_UNPACK_SUCCESS);
    assert_int_equal(off, n);
    assert_int_equal(in.data.type, MSGPACK_OBJECT_MAP);
    assert_true(key_is(&in.data.via.map.ptr[0], "t"));
    if (target->list == NULL)
        pack_changed_map(&pk, &in.data.via.map, target);
    else
        pack_changed_list(&pk, &in.data.via.map, target);
    unsigned char *copy = exact_copy(out.data, out.size);
    int err = decode(copy, out.size, &m);

    free(copy);
    msgpack_unpacked_destroy(&in);
    msgpack_sbuffer_destroy(&out);
    return err;
}

static void expect_fault(enum message_type type, struct target target, enum codec_fault fault)
{
    char where[64];
    const char *name = target.field != NULL ? target.field->name : "surprise";

    if (target.list != NULL)
        snprintf(where, sizeof where, "%s[0].%s", target.list->name, name);
    else
        snprintf(where, sizeof where, "%s", name);
    int err = decode_changed(type, &target);

    if (err != -EBADMSG || error.fault != fault || strcmp(error.field, where) != 0 ||
        strncmp(error.text, where, strlen(where)) != 0)
        fail_msg("%s.%s change %d: err %d fault %d field '%s' text '%s'", message_name(type), where,
                 target.change, err, error.fault, error.field, error.text);
}

static bool can_be_too_big(const struct field_info *field)
{
    if (field->type == FIELD_U64)
        return field->bound < UINT64_MAX;
    return field->type != FIELD_BOOL && field->type != FIELD_ENUM;
}

static void check_field_faults(enum message_type type, const struct field_info *list,
                               const struct field_info *field)
{
    struct target target = {.list = list, .field = field, .change = CHANGE_OMIT};

    if (field->flag_off == FIELD_NO_FLAG)
        expect_fault(type, target, CODEC_MISSING);
    else
        assert_int_equal(decode_changed(type, &target), 0);
    target.change = CHANGE_DOUBLE;
    expect_fault(type, target, CODEC_DUPLICATE_KEY);
    target.change = CHANGE_NIL;
    expect_fault(type, target, CODEC_WRONG_TYPE);
    target.change = CHANGE_TOO_BIG;
    if (can_be_too_big(field))
        expect_fault(type, target, CODEC_TOO_BIG);
}

static void check_record_faults(enum message_type type, const struct field_info *list,
                                const struct record_info *info)
{
    struct target unknown = {.list = list, .change = CHANGE_ADD_UNKNOWN};

    expect_fault(type, unknown, CODEC_UNKNOWN_KEY);
    for (uint32_t i = 0; i < info->n_fields; i++) {
        const struct field_info *field = &info->fields[i];

        check_field_faults(type, list, field);
        if (field->type == FIELD_LIST) {
            assert_null(list);
            check_record_faults(type, field, field->record);
        }
    }
}

static void test_every_field_fault_is_named(void **state)
{
    (void)state;
    for (enum message_type type = MESSAGE_NONE + 1; type < N_MESSAGES; type++)
        check_record_faults(type, NULL, &message_info(type)->record);
}

/* ---- Single cases ---------------------------------------------------------------------------- */

static void expect_bytes(const char *bytes, size_t n, enum codec_fault fault, const char *field)
{
    struct message m;
    unsigned char *copy = exact_copy(bytes, n);

    assert_int_equal(decode(copy, n, &m), -EBADMSG);
    assert_int_equal(error.fault, fault);
    assert_string_equal(error.field, field);
    free(copy);
}

#define EXPECT(bytes, fault, field) expect_bytes(bytes, sizeof(bytes) - 1, fault, field)

static void test_not_messages(void **state)
{
    (void)state;
    EXPECT("", CODEC_TRUNCATED, "t");
    EXPECT("\xc0", CODEC_NOT_A_MESSAGE, "t");
    EXPECT("\x80", CODEC_NOT_A_MESSAGE, "t");
    EXPECT("\x81\xa1x\x01", CODEC_NOT_A_MESSAGE, "t");
    EXPECT("\x81\xa1t\x01", CODEC_NOT_A_MESSAGE, "t");
    EXPECT("\x81\xa1t\xa4what", CODEC_UNKNOWN_MESSAGE, "t");
    EXPECT("\x82\xa1t\xa4ping\xa5"
           "epoch\x01\x01",
           CODEC_TRAILING, "");
    EXPECT("\x82\xa1t\xa4ping\x05\x01", CODEC_WRONG_TYPE, "");
    /* The type key itself may not come twice either. */
    EXPECT("\x83\xa1t\xa4ping\xa5"
           "epoch\x01\xa1t\xa4ping",
           CODEC_UNKNOWN_KEY, "t");
}

static void test_numbers(void **state)
{
    struct message m;

    (void)state;
    EXPECT("\x82\xa1t\xa4ping\xa5"
           "epoch\xff",
           CODEC_BAD_VALUE, "epoch");
    EXPECT("\x82\xa1t\xa4ping\xa5"
           "epoch\xca\x3f\x80\x00\x00",
           CODEC_WRONG_TYPE, "epoch");
    /* Every width that holds the value is good, signed ones too. */
    static const char wide[] = "\x82\xa1t\xa4ping\xa5"
                               "epoch\xd3\x00\x00\x00\x00\x00\x00\x00\x07";

    assert_int_equal(decode(wide, sizeof wide - 1, &m), 0);
    assert_int_equal(m.ping.epoch, 7);
}

/* A list of 4294967295 elements in a message of a few bytes costs nothing but the refusal. */
static void test_hostile_counts(void **state)
{
    (void)state;
    EXPECT("\x82\xa1t\xa6tokens\xa5items\xdd\xff\xff\xff\xff", CODEC_TOO_BIG, "items");
    EXPECT("\x82\xa1t\xa6tokens\xa5items\xdc\x10\x00", CODEC_TRUNCATED, "items");
    EXPECT("\x82\xa1t\xa6tokens\xa5items\x91\x91\x91", CODEC_TRUNCATED, "items");
    EXPECT("\xdf\xff\xff\xff\xff\xa1t\xa6"
           "cancel",
           CODEC_TRUNCATED, "");
}

static void encode_fails(struct message m, const char *field)
{
    static unsigned char buf[SAMPLE_BYTES_MAX];

    assert_int_equal(message_encode(&m, buf, sizeof buf, &error), -EINVAL);
    assert_string_equal(error.field, field);
}

static void test_encoder_keeps_the_same_bounds(void **state)
{
    struct str bad_stop[] = {{.data = "", .n = 0}};
    struct token_item item = {.index = 16777217};
    struct message generate = {.type = MESSAGE_GENERATE, .generate = {.class = str_of("ls")}};

    (void)state;
    generate.generate.prompt = str_of("\xff");
    generate.generate.has_prompt = true;
    encode_fails(generate, "prompt");
    generate.generate.has_prompt = false;
    generate.generate.temperature = -1;
    generate.generate.has_temperature = true;
    encode_fails(generate, "temperature");
    generate.generate.temperature = (double)NAN;
    encode_fails(generate, "temperature");
    generate.generate.has_temperature = false;
    generate.generate.stop = (struct str_array){.data = bad_stop, .n = 1};
    generate.generate.has_stop = true;
    encode_fails(generate, "stop");
    encode_fails((struct message){.type = MESSAGE_TOKENS, .tokens.items = {.data = &item, .n = 1}},
                 "items[0].index");
    encode_fails((struct message){.type = MESSAGE_NONE}, "t");
    encode_fails((struct message){.type = MESSAGE_DONE, .done.reason = (enum finish_reason)99},
                 "reason");
}

static void test_no_room(void **state)
{
    static unsigned char buf[SAMPLE_BYTES_MAX];
    unsigned char small[8];
    struct codec_arena arena;
    struct message m;
    size_t n = sample_bytes(MESSAGE_ENGINE_STATE, SAMPLE_LARGEST, buf);

    (void)state;
    sample_make(MESSAGE_ENGINE_STATE, SAMPLE_LARGEST, &m);
    for (size_t cap = 0; cap < n; cap++) {
        unsigned char *exact = malloc(cap != 0 ? cap : 1);

        assert_int_equal(message_encode(&m, exact, cap, &error), -ENOBUFS);
        free(exact);
    }
    codec_arena_init(&arena, small, sizeof small);
    assert_int_equal(message_decode(buf, n, &m, &arena, &error), -ENOBUFS);
    assert_int_equal(error.fault, CODEC_NO_ROOM);
    assert_string_equal(error.field, "classes");
}

static void test_message_larger_than_all(void **state)
{
    struct message m = {.type = MESSAGE_TOKENS};
    struct token_item items[3] = {{.index = 0}};
    char *text = calloc(1, 8388608);
    unsigned char *buf = malloc((size_t)2 * MESSAGE_BYTES_MAX);

    (void)state;
    assert_true(text != NULL && buf != NULL);
    for (int i = 0; i < 3; i++)
        items[i].text = (struct str){.data = text, .n = 8388608};
    m.tokens.items = (struct token_item_list){.data = items, .n = 3};
    assert_int_equal(message_encode(&m, buf, (size_t)2 * MESSAGE_BYTES_MAX, &error), -EMSGSIZE);
    assert_int_equal(decode(buf, MESSAGE_BYTES_MAX + 1, &m), -EMSGSIZE);
    assert_int_equal(error.fault, CODEC_TOO_BIG);
    free(buf);
    free(text);
}

/* A router answers a malformed generate with an error for its id. */
static void test_id_survives_a_fault(void **state)
{
    const struct record_info *info = &message_info(MESSAGE_GENERATE)->record;
    struct target target = {.change = CHANGE_NIL};
    uint8_t expected[16];

    (void)state;
    for (uint32_t i = 0; i < info->n_fields; i++)
        if (strcmp(info->fields[i].name, "max_tokens") == 0)
            target.field = &info->fields[i];
    expect_fault(MESSAGE_GENERATE, target, CODEC_WRONG_TYPE);
    memset(expected, 0x80, sizeof expected);
    assert_true(error.has_id);
    assert_memory_equal(error.id.bytes, expected, sizeof expected);
}

/* The promise of CODEC_ARENA_FACTOR, at its worst: one-byte ids. */
static void test_arena_factor(void **state)
{
    enum { N = 1 << 20 };
    static uint32_t ids[N];
    static unsigned char buf[N + 4096];
    struct message m = {.type = MESSAGE_SUBMIT, .submit.tokens = {.data = ids, .n = N}};
    struct codec_arena arena;

    (void)state;
    ssize_t n = message_encode(&m, buf, sizeof buf, &error);

    assert_true(n > N);
    size_t cap = (size_t)n * CODEC_ARENA_FACTOR + CODEC_ARENA_BYTES_EXTRA;
    void *memory = malloc(cap);

    codec_arena_init(&arena, memory, cap);
    assert_int_equal(message_decode(buf, (size_t)n, &m, &arena, &error), 0);
    assert_int_equal(m.submit.tokens.n, N);
    free(memory);
}

/* Lists of the most records that so many bytes could be: found by the fuzzer, since a record of
 * engine_tokens had grown beyond CODEC_ARENA_FACTOR times what was taken for its shortest form. */
static void expect_room_for_list(const struct message_info *info, const struct field_info *list)
{
    enum { N = 200 };
    static unsigned char bytes[1 << 16];
    size_t filled = N * field_record_bytes_min(list->record);
    struct codec_arena arena;
    struct message m;

    assert_true(list->record->bytes <= CODEC_ARENA_FACTOR * field_record_bytes_min(list->record));
    /* 8x: a map of n pairs; ax: a text of n bytes; dc: an array with 2 bytes of length */
    int n = snprintf((char *)bytes, sizeof bytes, "\x82\xa1t%c%s%c%s\xdc%c%c",
                     (int)(0xa0 + strlen(info->record.name)), info->record.name,
                     (int)(0xa0 + strlen(list->name)), list->name, 'x', 'x');
    uint32_t n_records = list->bound < N ? (uint32_t)list->bound : N;

    bytes[n - 2] = 0;
    bytes[n - 1] = (unsigned char)n_records;
    memset(bytes + n, 0xc0, filled);
    size_t cap = ((size_t)n + filled) * CODEC_ARENA_FACTOR + CODEC_ARENA_BYTES_EXTRA;
    void *memory = malloc(cap);

    codec_arena_init(&arena, memory, cap);
    assert_int_equal(message_decode(bytes, (size_t)n + filled, &m, &arena, &error), -EBADMSG);
    assert_int_equal(error.fault, CODEC_WRONG_TYPE);
    assert_non_null(strstr(error.field, "[0]"));
    free(memory);
}

static void test_arena_holds_short_records(void **state)
{
    uint32_t n_lists = 0;

    (void)state;
    for (enum message_type type = MESSAGE_NONE + 1; type < N_MESSAGES; type++) {
        const struct message_info *info = message_info(type);

        for (uint32_t i = 0; i < info->record.n_fields; i++) {
            if (info->record.fields[i].type != FIELD_LIST)
                continue;
            expect_room_for_list(info, &info->record.fields[i]);
            n_lists++;
        }
    }
    assert_true(n_lists >= 8);
}

static void test_travel(void **state)
{
    (void)state;
    assert_true(message_may_travel(MESSAGE_GENERATE, ROLE_CLIENT, ROLE_ROUTER));
    assert_false(message_may_travel(MESSAGE_SUBMIT, ROLE_CLIENT, ROLE_ROUTER));
    assert_false(message_may_travel(MESSAGE_TOKENS, ROLE_CLIENT, ROLE_ROUTER));
    assert_true(message_may_travel(MESSAGE_CANCEL, ROLE_ROUTER, ROLE_ENGINE));
    assert_false(message_may_travel(MESSAGE_NONE, ROLE_CLIENT, ROLE_ROUTER));
}

static void test_request_id_text(void **state)
{
    struct request_id id, back;
    char text[REQUEST_ID_TEXT_BYTES];

    (void)state;
    for (int i = 0; i < 16; i++)
        id.bytes[i] = (uint8_t)(i * 17);
    request_id_format(&id, text);
    assert_string_equal(text, "00112233445566778899aabbccddeeff");
    assert_int_equal(request_id_parse(text, &back), 0);
    assert_true(request_id_equal(&id, &back));
    assert_int_equal(request_id_parse("0011", &back), -EINVAL);
    assert_int_equal(request_id_parse("00112233445566778899aabbccddeefg", &back), -EINVAL);
}

/* The page ends with what the list says, so that a client in another language can rely on it. */
static void test_readme_has_the_list(void **state)
{
    static char page[1 << 18], list[1 << 17];
    FILE *in = fopen(PROTO_README, "r"), *out = fmemopen(list, sizeof list, "w");

    (void)state;
    assert_true(in != NULL && out != NULL);
    size_t n = fread(page, 1, sizeof page - 1, in);

    message_doc_print(out);
    long n_list = ftell(out);

    fclose(in);
    fclose(out);
    assert_true(n_list > 0 && (size_t)n_list < sizeof list && n > (size_t)n_list);
    assert_memory_equal(page + n - (size_t)n_list, list, (size_t)n_list);
}

static int set_up(void **state)
{
    (void)state;
    arena_memory = malloc((size_t)CODEC_ARENA_FACTOR * FAULT_BYTES_MAX + CODEC_ARENA_BYTES_EXTRA);
    return arena_memory != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    free(arena_memory);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_mutation),
        cmocka_unit_test(test_every_field_fault_is_named),
        cmocka_unit_test(test_not_messages),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_hostile_counts),
        cmocka_unit_test(test_encoder_keeps_the_same_bounds),
        cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_message_larger_than_all),
        cmocka_unit_test(test_id_survives_a_fault),
        cmocka_unit_test(test_arena_factor),
        cmocka_unit_test(test_arena_holds_short_records),
        cmocka_unit_test(test_travel),
        cmocka_unit_test(test_request_id_text),
        cmocka_unit_test(test_readme_has_the_list),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
