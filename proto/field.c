#include "proto/field.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "proto/cursor.h"

static const char *const fault_texts[] = {
    [CODEC_OK] = "no fault",
    [CODEC_TRUNCATED] = "the message ends inside it",
    [CODEC_TRAILING] = "bytes follow the message",
    /* NOLINTNEXTLINE(bugprone-suspicious-missing-comma): three literals, one text */
    [CODEC_NOT_A_MESSAGE] = "not a map whose first key is \"" FIELD_TYPE_KEY "\"",
    [CODEC_UNKNOWN_MESSAGE] = "no message has this name",
    [CODEC_UNKNOWN_KEY] = "unknown key",
    [CODEC_DUPLICATE_KEY] = "the key comes twice",
    [CODEC_MISSING] = "missing",
    [CODEC_WRONG_TYPE] = "wrong type",
    [CODEC_TOO_BIG] = "too big",
    [CODEC_BAD_VALUE] = "bad value",
    [CODEC_NO_ROOM] = "no room to hold it",
};

static int fault_errno(enum codec_fault fault)
{
    return fault == CODEC_NO_ROOM ? -ENOBUFS : -EBADMSG;
}

/* A key comes from the sender: at most as much of it as fits, and nothing unprintable. */
static void copy_name(char *out, size_t cap, const char *name, uint32_t name_bytes)
{
    size_t n = name_bytes < cap - 1 ? name_bytes : cap - 1;

    for (size_t i = 0; i < n; i++)
        out[i] = (char)(name[i] > 0x20 && name[i] < 0x7f ? name[i] : '?');
    out[n] = '\0';
}

int field_fail(struct codec_error *error, enum codec_fault fault, const struct field_path *path,
               const char *name, uint32_t name_bytes)
{
    char last[32] = "";

    if (error == NULL)
        return fault_errno(fault);
    if (name != NULL)
        copy_name(last, sizeof last, name, name_bytes);
    if (path != NULL && path->list != NULL)
        snprintf(error->field, sizeof error->field, "%.16s[%u]%s%s", path->list->name, path->idx,
                 name != NULL ? "." : "", last);
    else
        snprintf(error->field, sizeof error->field, "%s", last);
    error->fault = fault;
    snprintf(error->text, sizeof error->text, "%s: %s",
             error->field[0] != '\0' ? error->field : "message", fault_texts[fault]);
    return fault_errno(fault);
}

bool field_is_set(const struct field_info *field, const void *record)
{
    bool set = true;

    if (field->flag_off != FIELD_NO_FLAG)
        memcpy(&set, (const unsigned char *)record + field->flag_off, sizeof set);
    return set;
}

static enum codec_fault check_number(const struct field_info *field, uint64_t value)
{
    return value > field->bound ? CODEC_TOO_BIG : CODEC_OK;
}

static enum codec_fault check_double(const struct field_info *field, double value)
{
    if (!isfinite(value) || value < 0)
        return CODEC_BAD_VALUE;
    return value > (double)field->bound ? CODEC_TOO_BIG : CODEC_OK;
}

static enum codec_fault check_signed(const struct field_info *field, double value)
{
    return isfinite(value) ? check_double(field, fabs(value)) : CODEC_BAD_VALUE;
}

static enum codec_fault check_f32s(const struct field_info *field, const struct f32_array *value)
{
    if (value->n > field->bound)
        return CODEC_TOO_BIG;
    for (uint32_t i = 0; i < value->n; i++) {
        if (!isfinite(value->data[i]))
            return CODEC_BAD_VALUE;
    }
    return CODEC_OK;
}

static enum codec_fault check_str(uint64_t bound, const struct str *value)
{
    if (value->n > bound)
        return CODEC_TOO_BIG;
    return utf8_valid(value->data, value->n) ? CODEC_OK : CODEC_BAD_VALUE;
}

static enum codec_fault check_strs(const struct field_info *field, const struct str_array *value)
{
    if (value->n > field->bound)
        return CODEC_TOO_BIG;
    for (uint32_t i = 0; i < value->n; i++) {
        if (value->data[i].n == 0)
            return CODEC_BAD_VALUE;
        enum codec_fault fault = check_str(STRS_ITEM_BYTES_MAX, &value->data[i]);

        if (fault != CODEC_OK)
            return fault;
    }
    return CODEC_OK;
}

enum codec_fault field_check(const struct field_info *field, const void *record)
{
    const void *at = field_at(field, record);

    switch (field->type) {
    case FIELD_U32:
        return check_number(field, *(const uint32_t *)at);
    case FIELD_U64:
        return check_number(field, *(const uint64_t *)at);
    case FIELD_F64:
        return check_double(field, *(const double *)at);
    case FIELD_SF64:
        return check_signed(field, *(const double *)at);
    case FIELD_F32S:
        return check_f32s(field, at);
    case FIELD_STR:
        return check_str(field->bound, at);
    case FIELD_STRS:
        return check_strs(field, at);
    case FIELD_ENUM:
        return *(const unsigned *)at < field->names->n ? CODEC_OK : CODEC_BAD_VALUE;
    case FIELD_U32S:
    case FIELD_LIST: {
        struct field_view view;

        memcpy(&view, at, sizeof view);
        return check_number(field, view.n);
    }
    case FIELD_BOOL:
    case FIELD_ID:
        break;
    }
    return CODEC_OK;
}

size_t field_record_bytes_min(const struct record_info *info)
{
    size_t bytes = 1;

    for (uint32_t i = 0; i < info->n_fields; i++) {
        const struct field_info *field = &info->fields[i];

        if (field->flag_off == FIELD_NO_FLAG)
            bytes += 1 + strlen(field->name) + 1;
    }
    return bytes;
}
