#include "proto/cli/json_record.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct json_pool_block {
    struct json_pool_block *next;
    _Alignas(16) unsigned char bytes[];
};

static void *pool_take(struct json_pool *pool, size_t n, size_t bytes_each)
{
    if (n > (SIZE_MAX - sizeof(struct json_pool_block)) / bytes_each)
        return NULL;
    struct json_pool_block *block = calloc(1, sizeof *block + n * bytes_each);

    if (block == NULL)
        return NULL;
    block->next = pool->blocks;
    pool->blocks = block;
    return block->bytes;
}

void json_pool_free(struct json_pool *pool)
{
    while (pool->blocks != NULL) {
        struct json_pool_block *block = pool->blocks;

        pool->blocks = block->next;
        free(block);
    }
}

static int take_uint(const json_t *value, uint64_t max, uint64_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return -EINVAL;
    *out = (uint64_t)json_integer_value(value);
    return *out <= max ? 0 : -EINVAL;
}

static int take_str(const json_t *value, struct str *out)
{
    size_t n = json_string_length(value);

    if (!json_is_string(value) || n > UINT32_MAX)
        return -EINVAL;
    *out = (struct str){.data = json_string_value(value), .n = (uint32_t)n};
    return 0;
}

static int take_u32s(const json_t *value, struct json_pool *pool, struct u32_array *out)
{
    size_t n = json_array_size(value);
    uint64_t number;

    if (!json_is_array(value) || n > UINT32_MAX)
        return -EINVAL;
    uint32_t *data = pool_take(pool, n, sizeof *data);

    if (data == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        if (take_uint(json_array_get(value, i), UINT32_MAX, &number) != 0)
            return -EINVAL;
        data[i] = (uint32_t)number;
    }
    *out = (struct u32_array){.data = data, .n = (uint32_t)n};
    return 0;
}

static int take_f32s(const json_t *value, struct json_pool *pool, struct f32_array *out)
{
    size_t n = json_array_size(value);

    if (!json_is_array(value) || n > UINT32_MAX)
        return -EINVAL;
    float *data = pool_take(pool, n, sizeof *data);

    if (data == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        if (!json_is_number(json_array_get(value, i)))
            return -EINVAL;
        data[i] = (float)json_number_value(json_array_get(value, i));
    }
    *out = (struct f32_array){.data = data, .n = (uint32_t)n};
    return 0;
}

static int take_strs(const json_t *value, struct json_pool *pool, struct str_array *out)
{
    size_t n = json_array_size(value);

    if (!json_is_array(value) || n > UINT32_MAX)
        return -EINVAL;
    struct str *data = pool_take(pool, n, sizeof *data);

    if (data == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        if (take_str(json_array_get(value, i), &data[i]) != 0)
            return -EINVAL;
    *out = (struct str_array){.data = data, .n = (uint32_t)n};
    return 0;
}

static int take_enum(const json_t *value, const struct enumeration *names, unsigned *out)
{
    for (unsigned i = 0; json_is_string(value) && i < names->n; i++) {
        if (strcmp(json_string_value(value), names->names[i]) == 0) {
            *out = i;
            return 0;
        }
    }
    return -EINVAL;
}

static int take_list(const json_t *value, const struct record_info *info, struct json_pool *pool,
                     void *out, struct error *error)
{
    size_t n = json_array_size(value);

    if (!json_is_array(value) || n > UINT32_MAX)
        return -EINVAL;
    unsigned char *data = pool_take(pool, n, info->bytes);

    if (data == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        int err =
            json_to_record(json_array_get(value, i), info, data + i * info->bytes, pool, error);

        if (err != 0)
            return err;
    }
    /* Every <record>_list has this form. */
    struct chat_turn_list list = {.data = (const void *)data, .n = (uint32_t)n};

    memcpy(out, &list, sizeof list);
    return 0;
}

static int take_value(const json_t *value, const struct field_info *field, void *at,
                      struct json_pool *pool, struct error *error)
{
    uint64_t number = 0;
    int err;

    switch (field->type) {
    case FIELD_U32:
        err = take_uint(value, UINT32_MAX, &number);
        *(uint32_t *)at = (uint32_t)number;
        return err;
    case FIELD_U64:
        return take_uint(value, UINT64_MAX, at);
    case FIELD_F64:
    case FIELD_SF64:
        *(double *)at = json_number_value(value);
        return json_is_number(value) ? 0 : -EINVAL;
    case FIELD_BOOL:
        *(bool *)at = json_is_true(value);
        return json_is_boolean(value) ? 0 : -EINVAL;
    case FIELD_STR:
        return take_str(value, at);
    case FIELD_ID:
        return json_is_string(value) ? request_id_parse(json_string_value(value), at) : -EINVAL;
    case FIELD_U32S:
        return take_u32s(value, pool, at);
    case FIELD_STRS:
        return take_strs(value, pool, at);
    case FIELD_F32S:
        return take_f32s(value, pool, at);
    case FIELD_ENUM:
        return take_enum(value, field->names, at);
    case FIELD_LIST:
        return take_list(value, field->record, pool, at, error);
    }
    return -EINVAL;
}

static const struct field_info *find_field(const struct record_info *info, const char *key)
{
    for (uint32_t i = 0; i < info->n_fields; i++)
        if (strcmp(info->fields[i].name, key) == 0)
            return &info->fields[i];
    return NULL;
}

int json_to_record(const json_t *object, const struct record_info *info, void *record,
                   struct json_pool *pool, struct error *error)
{
    unsigned char *bytes = record;
    const bool set = true;
    const char *key;
    json_t *value;

    if (!json_is_object(object))
        return error_set(error, -EINVAL, "expected an object");
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        const struct field_info *field = find_field(info, key);

        if (field == NULL)
            return error_set(error, -EINVAL, "unknown key \"%s\"", key);
        error->text[0] = '\0';
        int err = take_value(value, field, bytes + field->off, pool, error);

        if (err != 0 && error->text[0] == '\0')
            error_set(error, err, "bad value of \"%s\"", key);
        if (err != 0)
            return err;
        if (field->flag_off != FIELD_NO_FLAG)
            memcpy(bytes + field->flag_off, &set, sizeof set);
    }
    return 0;
}
