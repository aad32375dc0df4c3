#include "tests/unit/proto_samples.h"

#include <float.h>
#include <string.h>

#include "common/base/invariant.h"
#include "proto/field.h"

static _Alignas(16) unsigned char pool[1 << 16];
static size_t pool_used;

static void *pool_take(size_t bytes)
{
    pool_used = (pool_used + 15) & ~(size_t)15;
    invariant(pool_used + bytes <= sizeof pool);
    void *p = pool + pool_used;

    memset(p, 0, bytes);
    pool_used += bytes;
    return p;
}

/* "grüße" again and again: the cuts fall between characters. */
static struct str make_text(enum sample_kind kind, uint64_t bound)
{
    static const char word[] = "gr\xc3\xbc\xc3\x9f"
                               "e";
    uint64_t n_words = kind == SAMPLE_SMALLEST ? 0 : kind == SAMPLE_TYPICAL ? 1 : 43;
    size_t bytes = sizeof word - 1;

    if (n_words * bytes > bound)
        n_words = bound / bytes;
    char *text = pool_take(n_words * bytes + 1);

    for (uint64_t i = 0; i < n_words; i++)
        memcpy(text + i * bytes, word, bytes);
    return (struct str){.data = text, .n = (uint32_t)(n_words * bytes)};
}

static uint64_t make_number(const struct field_info *field, enum sample_kind kind, uint64_t seed)
{
    if (kind == SAMPLE_SMALLEST)
        return 0;
    if (kind == SAMPLE_LARGEST)
        return field->bound;
    uint64_t value = 1 + seed * 131;

    return value <= field->bound ? value : field->bound;
}

static struct u32_array make_u32s(enum sample_kind kind)
{
    uint32_t n = kind == SAMPLE_SMALLEST ? 0 : 3;
    uint32_t *data = pool_take(3 * sizeof *data);

    data[0] = 7;
    data[1] = 300;
    data[2] = kind == SAMPLE_LARGEST ? UINT32_MAX : 70000;
    return (struct u32_array){.data = data, .n = n};
}

static struct f32_array make_f32s(enum sample_kind kind)
{
    float *data = pool_take(3 * sizeof *data);

    data[0] = -1.25f;
    data[1] = 0;
    data[2] = kind == SAMPLE_LARGEST ? FLT_MAX : -70000.5f;
    return (struct f32_array){.data = data, .n = kind == SAMPLE_SMALLEST ? 0 : 3};
}

static struct str_array make_strs(enum sample_kind kind)
{
    struct str *data = pool_take(2 * sizeof *data);

    data[0] = str_of("\n\n");
    data[1] = make_text(kind, STRS_ITEM_BYTES_MAX);
    return (struct str_array){.data = data, .n = kind == SAMPLE_SMALLEST ? 0 : 2};
}

static void make_record(const struct record_info *info, enum sample_kind kind, void *record);

static struct field_view make_list(const struct field_info *field, enum sample_kind kind)
{
    uint32_t n = kind == SAMPLE_SMALLEST ? 0 : 2;
    unsigned char *data = pool_take((size_t)2 * field->record->bytes);

    for (uint32_t i = 0; i < n; i++)
        make_record(field->record, kind, data + (size_t)i * field->record->bytes);
    return (struct field_view){.data = data, .n = n};
}

static void make_field(const struct field_info *field, enum sample_kind kind, uint64_t seed,
                       void *at)
{
    switch (field->type) {
    case FIELD_U32:
        *(uint32_t *)at = (uint32_t)make_number(field, kind, seed);
        break;
    case FIELD_U64:
        *(uint64_t *)at = make_number(field, kind, seed);
        break;
    case FIELD_F64:
        *(double *)at = (double)make_number(field, kind, seed) / (kind == SAMPLE_TYPICAL ? 3 : 1);
        break;
    case FIELD_SF64:
        *(double *)at = -(double)make_number(field, kind, seed) / (kind == SAMPLE_TYPICAL ? 3 : 1);
        break;
    case FIELD_F32S:
        *(struct f32_array *)at = make_f32s(kind);
        break;
    case FIELD_BOOL:
        *(bool *)at = kind != SAMPLE_SMALLEST;
        break;
    case FIELD_STR:
        *(struct str *)at = make_text(kind, field->bound);
        break;
    case FIELD_ID:
        memset(at, kind == SAMPLE_SMALLEST ? 0 : 0x80 + (int)seed, sizeof(struct request_id));
        break;
    case FIELD_U32S:
        *(struct u32_array *)at = make_u32s(kind);
        break;
    case FIELD_STRS:
        *(struct str_array *)at = make_strs(kind);
        break;
    case FIELD_ENUM:
        *(unsigned *)at = kind == SAMPLE_SMALLEST ? 0 : field->names->n - 1;
        break;
    case FIELD_LIST: {
        struct field_view view = make_list(field, kind);

        memcpy(at, &view, sizeof view);
        break;
    }
    }
}

static void make_record(const struct record_info *info, enum sample_kind kind, void *record)
{
    for (uint32_t i = 0; i < info->n_fields; i++) {
        const struct field_info *field = &info->fields[i];
        const bool set = true;

        if (field->flag_off != FIELD_NO_FLAG && kind == SAMPLE_SMALLEST)
            continue;
        if (field->flag_off != FIELD_NO_FLAG)
            memcpy((unsigned char *)record + field->flag_off, &set, sizeof set);
        make_field(field, kind, i, (unsigned char *)record + field->off);
    }
}

void sample_make(enum message_type type, enum sample_kind kind, struct message *m)
{
    pool_used = 0;
    memset(m, 0, sizeof *m);
    m->type = type;
    make_record(&message_info(type)->record, kind, &m->hello);
}

static bool str_same(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.data, b.data, a.n) == 0);
}

static bool record_equal(const struct record_info *info, const void *a, const void *b);

static bool view_equal(const struct field_info *field, const void *a, const void *b)
{
    struct field_view va, vb;

    memcpy(&va, a, sizeof va);
    memcpy(&vb, b, sizeof vb);
    if (va.n != vb.n)
        return false;
    for (uint32_t i = 0; i < va.n; i++) {
        const unsigned char *da = va.data, *db = vb.data;

        if (field->type == FIELD_U32S &&
            ((const uint32_t *)va.data)[i] != ((const uint32_t *)vb.data)[i])
            return false;
        if (field->type == FIELD_F32S &&
            memcmp(&((const float *)va.data)[i], &((const float *)vb.data)[i], sizeof(float)) != 0)
            return false;
        if (field->type == FIELD_STRS &&
            !str_same(((const struct str *)va.data)[i], ((const struct str *)vb.data)[i]))
            return false;
        if (field->type == FIELD_LIST && !record_equal(field->record, da + i * field->record->bytes,
                                                       db + i * field->record->bytes))
            return false;
    }
    return true;
}

static bool field_equal(const struct field_info *field, const void *a, const void *b)
{
    switch (field->type) {
    case FIELD_U32:
        return *(const uint32_t *)a == *(const uint32_t *)b;
    case FIELD_U64:
        return *(const uint64_t *)a == *(const uint64_t *)b;
    case FIELD_SF64:
    case FIELD_F64: /* bit for bit: -0.0 and 0.0 differ, no value is unordered */
        return memcmp(a, b, sizeof(double)) == 0;
    case FIELD_BOOL:
        return *(const bool *)a == *(const bool *)b;
    case FIELD_STR:
        return str_same(*(const struct str *)a, *(const struct str *)b);
    case FIELD_ID:
        return request_id_equal(a, b);
    case FIELD_ENUM:
        return *(const unsigned *)a == *(const unsigned *)b;
    case FIELD_U32S:
    case FIELD_STRS:
    case FIELD_F32S:
    case FIELD_LIST:
        return view_equal(field, a, b);
    }
    return false;
}

static bool record_equal(const struct record_info *info, const void *a, const void *b)
{
    for (uint32_t i = 0; i < info->n_fields; i++) {
        const struct field_info *field = &info->fields[i];
        bool set = field_is_set(field, a);

        if (set != field_is_set(field, b))
            return false;
        if (set && !field_equal(field, field_at(field, a), field_at(field, b)))
            return false;
    }
    return true;
}

bool sample_equal(const struct message *a, const struct message *b)
{
    return a->type == b->type && record_equal(&message_info(a->type)->record, &a->hello, &b->hello);
}
