/* The encoding half of codec.h: walks the field tables and packs with msgpack-c. */
#include <errno.h>
#include <string.h>

/* msgpack-c's header code is not ours to make -Wconversion clean. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#include <msgpack/pack.h>
#pragma GCC diagnostic pop

#include "proto/field.h"

struct encoder {
    msgpack_packer packer;
    unsigned char *buf;
    size_t cap;
    size_t used;
    struct field_path path;
    struct codec_error *error;
};

static int encoder_write(void *context, const char *data, size_t n)
{
    struct encoder *e = context;

    if (n > e->cap - e->used)
        return -ENOBUFS;
    memcpy(e->buf + e->used, data, n);
    e->used += n;
    return 0;
}

static int pack_str(struct encoder *e, const char *data, uint32_t n)
{
    int err = msgpack_pack_str(&e->packer, n);

    return err != 0 || n == 0 ? err : msgpack_pack_str_body(&e->packer, data, n);
}

static int pack_text(struct encoder *e, const char *text)
{
    return pack_str(e, text, (uint32_t)strlen(text));
}

static int pack_u32s(struct encoder *e, const struct u32_array *value)
{
    int err = msgpack_pack_array(&e->packer, value->n);

    for (uint32_t i = 0; i < value->n && err == 0; i++)
        err = msgpack_pack_uint32(&e->packer, value->data[i]);
    return err;
}

static int pack_f32s(struct encoder *e, const struct f32_array *value)
{
    int err = msgpack_pack_array(&e->packer, value->n);

    for (uint32_t i = 0; i < value->n && err == 0; i++)
        err = msgpack_pack_float(&e->packer, value->data[i]);
    return err;
}

static int pack_strs(struct encoder *e, const struct str_array *value)
{
    int err = msgpack_pack_array(&e->packer, value->n);

    for (uint32_t i = 0; i < value->n && err == 0; i++)
        err = pack_str(e, value->data[i].data, value->data[i].n);
    return err;
}

static int pack_id(struct encoder *e, const struct request_id *id)
{
    int err = msgpack_pack_bin(&e->packer, sizeof id->bytes);

    return err != 0 ? err : msgpack_pack_bin_body(&e->packer, id->bytes, sizeof id->bytes);
}

static int pack_fields(struct encoder *e, const struct record_info *info, const void *record);

static uint32_t count_set(const struct record_info *info, const void *record)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < info->n_fields; i++)
        n += field_is_set(&info->fields[i], record);
    return n;
}

static int pack_list(struct encoder *e, const struct field_info *field, const void *at)
{
    struct field_view view;

    memcpy(&view, at, sizeof view);
    int err = msgpack_pack_array(&e->packer, view.n);

    for (uint32_t i = 0; i < view.n && err == 0; i++) {
        const void *item = (const unsigned char *)view.data + (size_t)i * field->record->bytes;

        e->path = (struct field_path){.list = field, .idx = i};
        err = msgpack_pack_map(&e->packer, count_set(field->record, item));
        if (err == 0)
            err = pack_fields(e, field->record, item);
    }
    e->path.list = NULL;
    return err;
}

static int pack_value(struct encoder *e, const struct field_info *field, const void *record)
{
    const void *at = field_at(field, record);

    switch (field->type) {
    case FIELD_U32:
        return msgpack_pack_uint32(&e->packer, *(const uint32_t *)at);
    case FIELD_U64:
        return msgpack_pack_uint64(&e->packer, *(const uint64_t *)at);
    case FIELD_F64:
    case FIELD_SF64:
        return msgpack_pack_double(&e->packer, *(const double *)at);
    case FIELD_BOOL:
        return *(const bool *)at ? msgpack_pack_true(&e->packer) : msgpack_pack_false(&e->packer);
    case FIELD_STR:
        return pack_str(e, ((const struct str *)at)->data, ((const struct str *)at)->n);
    case FIELD_ID:
        return pack_id(e, at);
    case FIELD_U32S:
        return pack_u32s(e, at);
    case FIELD_STRS:
        return pack_strs(e, at);
    case FIELD_F32S:
        return pack_f32s(e, at);
    case FIELD_ENUM:
        return pack_text(e, field->names->names[*(const unsigned *)at]);
    case FIELD_LIST:
        return pack_list(e, field, at);
    }
    return -EINVAL;
}

static int pack_fields(struct encoder *e, const struct record_info *info, const void *record)
{
    int err = 0;

    for (uint32_t i = 0; i < info->n_fields && err == 0; i++) {
        const struct field_info *field = &info->fields[i];

        if (!field_is_set(field, record))
            continue;
        enum codec_fault fault = field_check(field, record);

        if (fault != CODEC_OK) {
            field_fail(e->error, fault, &e->path, field->name, (uint32_t)strlen(field->name));
            return -EINVAL;
        }
        err = pack_text(e, field->name);
        if (err == 0)
            err = pack_value(e, field, record);
    }
    return err;
}

static int pack_message(struct encoder *e, const struct record_info *info, const void *record)
{
    int err = msgpack_pack_map(&e->packer, 1 + count_set(info, record));

    if (err == 0)
        err = pack_text(e, FIELD_TYPE_KEY);
    if (err == 0)
        err = pack_text(e, info->name);
    return err != 0 ? err : pack_fields(e, info, record);
}

ssize_t message_encode(const struct message *m, void *buf, size_t cap, struct codec_error *error)
{
    const struct message_info *info = message_info(m->type);
    struct encoder e = {.buf = buf, .error = error};

    if (error != NULL)
        *error = (struct codec_error){.fault = CODEC_OK};
    if (info == NULL) {
        field_fail(error, CODEC_UNKNOWN_MESSAGE, NULL, FIELD_TYPE_KEY, 1);
        return -EINVAL;
    }
    e.cap = cap < MESSAGE_BYTES_MAX ? cap : MESSAGE_BYTES_MAX;
    msgpack_packer_init(&e.packer, &e, encoder_write);
    /* The union's members all start where the union does. */
    int err = pack_message(&e, &info->record, &m->hello);

    if (err == 0)
        return (ssize_t)e.used;
    if (err == -EINVAL)
        return err;
    field_fail(error, CODEC_NO_ROOM, NULL, NULL, 0);
    return cap < MESSAGE_BYTES_MAX ? -ENOBUFS : -EMSGSIZE;
}
