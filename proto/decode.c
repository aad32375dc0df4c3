/* The decoding half of codec.h: one pass over the bytes, driven by the field tables. */
#include <errno.h>
#include <float.h>
#include <string.h>

#include "proto/cursor.h"
#include "proto/field.h"

struct decoder {
    struct cursor in;
    struct codec_arena *arena;
    struct field_path path;
    struct codec_error *error;
};

void codec_arena_init(struct codec_arena *arena, void *data, size_t cap)
{
    *arena = (struct codec_arena){.data = data, .cap = cap};
}

static void *arena_take(struct codec_arena *arena, size_t n, size_t bytes_each)
{
    size_t misfit = ((uintptr_t)arena->data + arena->used) % sizeof(uint64_t);
    size_t pad = misfit != 0 ? sizeof(uint64_t) - misfit : 0;
    size_t left = arena->cap - arena->used;

    if (pad > left || n > (left - pad) / bytes_each)
        return NULL;
    void *taken = arena->data + arena->used + pad;

    arena->used += pad + n * bytes_each;
    return taken;
}

static int fail(struct decoder *d, enum codec_fault fault, const struct field_info *field)
{
    return field_fail(d->error, fault, &d->path, field->name, (uint32_t)strlen(field->name));
}

/* The fault that a cursor's error means. */
static enum codec_fault cursor_fault(int err)
{
    if (err == 0)
        return CODEC_OK;
    return err == -ENODATA ? CODEC_TRUNCATED : CODEC_WRONG_TYPE;
}

static bool is_negative_integer(const struct cursor *in)
{
    struct cursor probe = *in;
    double value;

    return cursor_double(&probe, &value) == 0 && value < 0;
}

static enum codec_fault read_uint(struct decoder *d, uint64_t *value)
{
    enum codec_fault fault = cursor_fault(cursor_uint(&d->in, value));

    if (fault == CODEC_WRONG_TYPE && is_negative_integer(&d->in))
        return CODEC_BAD_VALUE;
    return fault;
}

static enum codec_fault read_u32(struct decoder *d, uint32_t *out)
{
    uint64_t value;
    enum codec_fault fault = read_uint(d, &value);

    if (fault == CODEC_OK && value > UINT32_MAX)
        return CODEC_TOO_BIG;
    if (fault == CODEC_OK)
        *out = (uint32_t)value;
    return fault;
}

static enum codec_fault read_str(struct decoder *d, struct str *out)
{
    return cursor_fault(cursor_str(&d->in, &out->data, &out->n));
}

static enum codec_fault read_id(struct decoder *d, const struct field_info *field,
                                struct request_id *out)
{
    const uint8_t *data;
    uint32_t n;
    enum codec_fault fault = cursor_fault(cursor_bin(&d->in, &data, &n));

    if (fault != CODEC_OK)
        return fault;
    if (n != field->bound)
        return n > field->bound ? CODEC_TOO_BIG : CODEC_BAD_VALUE;
    memcpy(out->bytes, data, sizeof out->bytes);
    if (d->path.list == NULL) {
        d->error->has_id = true;
        d->error->id = *out;
    }
    return CODEC_OK;
}

/* Reads the head of an array of elements that take at least bytes_min each on the wire, and
 * bytes_each here; so a count that the message cannot hold costs nothing. */
static enum codec_fault read_array(struct decoder *d, const struct field_info *field,
                                   size_t bytes_min, size_t bytes_each, void **out, uint32_t *n)
{
    enum codec_fault fault = cursor_fault(cursor_array(&d->in, n));

    if (fault != CODEC_OK)
        return fault;
    if (*n > field->bound)
        return CODEC_TOO_BIG;
    if (*n > cursor_left(&d->in) / bytes_min)
        return CODEC_TRUNCATED;
    *out = arena_take(d->arena, *n, bytes_each);
    return *out != NULL ? CODEC_OK : CODEC_NO_ROOM;
}

static enum codec_fault read_u32s(struct decoder *d, const struct field_info *field,
                                  struct u32_array *out)
{
    void *data;
    uint32_t n;
    enum codec_fault fault = read_array(d, field, 1, sizeof *out->data, &data, &n);

    for (uint32_t i = 0; fault == CODEC_OK && i < n; i++)
        fault = read_u32(d, (uint32_t *)data + i);
    if (fault == CODEC_OK)
        *out = (struct u32_array){.data = data, .n = n};
    return fault;
}

static enum codec_fault read_f32s(struct decoder *d, const struct field_info *field,
                                  struct f32_array *out)
{
    void *data;
    uint32_t n;
    double value;
    enum codec_fault fault = read_array(d, field, 1, sizeof *out->data, &data, &n);

    for (uint32_t i = 0; fault == CODEC_OK && i < n; i++) {
        fault = cursor_fault(cursor_double(&d->in, &value));
        if (fault == CODEC_OK && !(value >= -FLT_MAX && value <= FLT_MAX))
            fault = CODEC_BAD_VALUE; /* also what is no number, and what no float could hold */
        if (fault == CODEC_OK)
            ((float *)data)[i] = (float)value;
    }
    if (fault == CODEC_OK)
        *out = (struct f32_array){.data = data, .n = n};
    return fault;
}

static enum codec_fault read_strs(struct decoder *d, const struct field_info *field,
                                  struct str_array *out)
{
    void *data;
    uint32_t n;
    enum codec_fault fault = read_array(d, field, 1, sizeof *out->data, &data, &n);

    for (uint32_t i = 0; fault == CODEC_OK && i < n; i++)
        fault = read_str(d, (struct str *)data + i);
    if (fault == CODEC_OK)
        *out = (struct str_array){.data = data, .n = n};
    return fault;
}

static enum codec_fault read_enum(struct decoder *d, const struct field_info *field, unsigned *out)
{
    struct str name;
    enum codec_fault fault = read_str(d, &name);

    if (fault != CODEC_OK)
        return fault;
    for (unsigned i = 0; i < field->names->n; i++) {
        if (str_equal(name, field->names->names[i])) {
            *out = i;
            return CODEC_OK;
        }
    }
    return CODEC_BAD_VALUE;
}

static enum codec_fault read_scalar(struct decoder *d, const struct field_info *field, void *at)
{
    switch (field->type) {
    case FIELD_U32:
        return read_u32(d, at);
    case FIELD_U64:
        return read_uint(d, at);
    case FIELD_F64:
    case FIELD_SF64:
        return cursor_fault(cursor_double(&d->in, at));
    case FIELD_BOOL:
        return cursor_fault(cursor_bool(&d->in, at));
    case FIELD_STR:
        return read_str(d, at);
    case FIELD_ID:
        return read_id(d, field, at);
    case FIELD_U32S:
        return read_u32s(d, field, at);
    case FIELD_STRS:
        return read_strs(d, field, at);
    case FIELD_F32S:
        return read_f32s(d, field, at);
    case FIELD_ENUM:
        return read_enum(d, field, at);
    case FIELD_LIST:
        break; /* read_list: it tells its faults itself, with the place inside */
    }
    return CODEC_WRONG_TYPE;
}

static int read_fields(struct decoder *d, const struct record_info *info, uint32_t n_pairs,
                       void *record);

static int read_list(struct decoder *d, const struct field_info *field, struct field_view *out)
{
    const struct record_info *info = field->record;
    uint32_t n, n_pairs;
    void *data;
    enum codec_fault fault =
        read_array(d, field, field_record_bytes_min(info), info->bytes, &data, &n);

    if (fault != CODEC_OK)
        return fail(d, fault, field);
    memset(data, 0, (size_t)n * info->bytes);
    for (uint32_t i = 0; i < n; i++) {
        d->path = (struct field_path){.list = field, .idx = i};
        fault = cursor_fault(cursor_map(&d->in, &n_pairs));
        if (fault != CODEC_OK)
            return field_fail(d->error, fault, &d->path, NULL, 0);
        int err = read_fields(d, info, n_pairs, (unsigned char *)data + (size_t)i * info->bytes);

        if (err != 0)
            return err;
    }
    d->path.list = NULL;
    *out = (struct field_view){.data = data, .n = n};
    return 0;
}

static int read_value(struct decoder *d, const struct field_info *field, void *record)
{
    void *at = (unsigned char *)record + field->off;
    enum codec_fault fault;

    if (field->type == FIELD_LIST) {
        struct field_view view;
        int err = read_list(d, field, &view);

        if (err == 0)
            memcpy(at, &view, sizeof view);
        return err;
    }
    fault = read_scalar(d, field, at);
    if (fault == CODEC_OK)
        fault = field_check(field, record);
    if (fault != CODEC_OK)
        return fail(d, fault, field);
    return 0;
}

static uint32_t find_field(const struct record_info *info, struct str key)
{
    uint32_t i = 0;

    while (i < info->n_fields && !str_equal(key, info->fields[i].name))
        i++;
    return i;
}

static int check_missing(struct decoder *d, const struct record_info *info, uint64_t seen)
{
    for (uint32_t i = 0; i < info->n_fields; i++) {
        const struct field_info *field = &info->fields[i];

        if (field->flag_off == FIELD_NO_FLAG && (seen >> i & 1) == 0)
            return fail(d, CODEC_MISSING, field);
    }
    return 0;
}

static int read_fields(struct decoder *d, const struct record_info *info, uint32_t n_pairs,
                       void *record)
{
    uint64_t seen = 0;
    const bool set = true;

    for (uint32_t pair = 0; pair < n_pairs; pair++) {
        struct str key = {0};
        enum codec_fault fault = read_str(d, &key);

        if (fault != CODEC_OK)
            return field_fail(d->error, fault, &d->path, NULL, 0);
        uint32_t i = find_field(info, key);

        if (i == info->n_fields)
            return field_fail(d->error, CODEC_UNKNOWN_KEY, &d->path, key.data, key.n);
        if ((seen >> i & 1) != 0)
            return fail(d, CODEC_DUPLICATE_KEY, &info->fields[i]);
        int err = read_value(d, &info->fields[i], record);

        if (err != 0)
            return err;
        seen |= UINT64_C(1) << i;
        if (info->fields[i].flag_off != FIELD_NO_FLAG)
            memcpy((unsigned char *)record + info->fields[i].flag_off, &set, sizeof set);
    }
    return check_missing(d, info, seen);
}

/* Reads the map's head, key "t" and its value. */
static enum codec_fault read_type(struct decoder *d, enum message_type *type, uint32_t *n_pairs)
{
    struct str key = {0}, name = {0};
    enum codec_fault fault = cursor_fault(cursor_map(&d->in, n_pairs));

    if (fault == CODEC_OK && *n_pairs == 0)
        return CODEC_NOT_A_MESSAGE;
    if (fault == CODEC_OK)
        fault = read_str(d, &key);
    if (fault == CODEC_OK && !str_equal(key, FIELD_TYPE_KEY))
        return CODEC_NOT_A_MESSAGE;
    if (fault == CODEC_OK)
        fault = read_str(d, &name);
    if (fault != CODEC_OK)
        return fault == CODEC_WRONG_TYPE ? CODEC_NOT_A_MESSAGE : fault;
    for (*type = MESSAGE_NONE + 1; *type < N_MESSAGES; (*type)++)
        if (str_equal(name, message_name(*type)))
            return CODEC_OK;
    return CODEC_UNKNOWN_MESSAGE;
}

int message_decode(const void *buf, size_t len, struct message *m, struct codec_arena *arena,
                   struct codec_error *error)
{
    struct decoder d = {.in = {.at = buf}, .arena = arena, .error = error};
    enum message_type type;
    uint32_t n_pairs;

    d.in.end = d.in.at + len;
    *error = (struct codec_error){.fault = CODEC_OK};
    m->type = MESSAGE_NONE;
    if (len > MESSAGE_BYTES_MAX) {
        field_fail(error, CODEC_TOO_BIG, NULL, NULL, 0);
        return -EMSGSIZE;
    }
    enum codec_fault fault = read_type(&d, &type, &n_pairs);

    if (fault != CODEC_OK)
        return field_fail(error, fault, NULL, FIELD_TYPE_KEY, 1);
    const struct record_info *info = &message_info(type)->record;

    memset(m, 0, sizeof *m);
    m->type = type;
    int err = read_fields(&d, info, n_pairs - 1, &m->hello);

    if (err == 0 && cursor_left(&d.in) != 0)
        return field_fail(error, CODEC_TRAILING, NULL, NULL, 0);
    return err;
}
