#include "common/model/model_loader.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#define KEY_MAX 128

static int check_range(struct model_loader *l, const char *key, uint64_t value, uint32_t low,
                       uint32_t high)
{
    if (value >= low && value <= high)
        return 0;
    gguf_error_at_key(l->err, l->gguf, key, "expected %u to %u, found %" PRIu64, low, high, value);
    return -EINVAL;
}

static int read_u32(struct model_loader *l, const char *key, uint32_t fallback, uint64_t *value)
{
    const int rc = gguf_get_u64(l->gguf, key, value, l->err);

    if (rc != -ENOENT || fallback == UINT32_MAX)
        return rc == -ENOENT ? -EINVAL : rc;
    *value = fallback;
    return 0;
}

int loader_u32(struct model_loader *l, const char *suffix, uint32_t low, uint32_t high,
               uint32_t fallback, uint32_t *out)
{
    char key[KEY_MAX];
    uint64_t value = 0;
    int rc;

    (void)snprintf(key, sizeof(key), "%s.%s", l->arch, suffix);
    rc = read_u32(l, key, fallback, &value);
    if (!rc)
        rc = check_range(l, key, value, low, high);
    if (!rc)
        *out = (uint32_t)value;
    return rc;
}

static int read_layer_element(struct model_loader *l, const char *key, uint32_t layer,
                              uint64_t *value)
{
    struct gguf_array a;
    const int rc = gguf_get_array(l->gguf, key, &a, l->err);

    if (rc)
        return rc;
    if (a.n != l->model->n_layers) {
        gguf_error_at_key(l->err, l->gguf, key, "expected one value per layer (%u), found %" PRIu64,
                          l->model->n_layers, a.n);
        return -EINVAL;
    }
    if (gguf_array_u64(&a, layer, value)) {
        gguf_error_at_key(l->err, l->gguf, key, "expected integers >= 0");
        return -EINVAL;
    }
    return 0;
}

int loader_layer_u32(struct model_loader *l, const char *suffix, uint32_t layer, uint32_t low,
                     uint32_t high, uint32_t fallback, uint32_t *out)
{
    char key[KEY_MAX];

    (void)snprintf(key, sizeof(key), "%s.%s", l->arch, suffix);
    return loader_layer_key_u32(l, key, layer, low, high, fallback, out);
}

bool loader_has(const struct model_loader *l, const char *suffix)
{
    char key[KEY_MAX];

    (void)snprintf(key, sizeof(key), "%s.%s", l->arch, suffix);
    return gguf_has(l->gguf, key);
}

int loader_layer_key_u32(struct model_loader *l, const char *key, uint32_t layer, uint32_t low,
                         uint32_t high, uint32_t fallback, uint32_t *out)
{
    uint64_t value = 0;
    int rc;

    if (gguf_is_array(l->gguf, key))
        rc = read_layer_element(l, key, layer, &value);
    else
        rc = read_u32(l, key, fallback, &value);
    if (!rc)
        rc = check_range(l, key, value, low, high);
    if (!rc)
        *out = (uint32_t)value;
    return rc;
}

int loader_f32(struct model_loader *l, const char *suffix, float fallback, float *out)
{
    char key[KEY_MAX];
    float value = fallback;
    int rc;

    (void)snprintf(key, sizeof(key), "%s.%s", l->arch, suffix);
    rc = gguf_get_f32(l->gguf, key, &value, l->err);
    if (rc && (rc != -ENOENT || fallback == 0))
        return rc == -ENOENT ? -EINVAL : rc;
    if (!isfinite(value) || value <= 0) {
        gguf_error_at_key(l->err, l->gguf, key, "expected a finite number above 0, found %g",
                          (double)value);
        return -EINVAL;
    }
    *out = value;
    return 0;
}

int loader_bool(struct model_loader *l, const char *suffix, bool fallback, bool *out)
{
    char key[KEY_MAX];
    int rc;

    (void)snprintf(key, sizeof(key), "%s.%s", l->arch, suffix);
    *out = fallback;
    rc = gguf_get_bool(l->gguf, key, out, l->err);
    return rc == -ENOENT ? 0 : rc;
}

static int view_type(struct model_loader *l, const struct gguf_tensor *t, bool vector,
                     enum weight_type *out)
{
    if (!weight_type_of_number(t->type, out)) {
        gguf_error_set(l->err, "tensor %s: type %s is not supported (%s are)", t->name,
                       gguf_type_name(t->type), weight_type_names());
        return -ENOTSUP;
    }
    if (!vector || *out == WEIGHT_F32)
        return 0;
    gguf_error_set(l->err, "tensor %s: expected F32 for a vector, found %s", t->name,
                   gguf_type_name(t->type));
    return -EINVAL;
}

static int check_shape(struct model_loader *l, const struct gguf_tensor *t, uint64_t n_slices,
                       uint64_t n_rows, uint64_t n_cols)
{
    if (t->dims[0] == n_cols && t->dims[1] == n_rows && t->dims[2] == n_slices && t->dims[3] == 1)
        return 0;
    gguf_error_set(l->err,
                   "tensor %s: expected [%" PRIu64 " %" PRIu64 " %" PRIu64 " 1], found [%" PRIu64
                   " %" PRIu64 " %" PRIu64 " %" PRIu64 "]",
                   t->name, n_cols, n_rows, n_slices, t->dims[0], t->dims[1], t->dims[2],
                   t->dims[3]);
    return -EINVAL;
}

int loader_view(struct model_loader *l, const char *name, uint64_t n_slices, uint64_t n_rows,
                uint64_t n_cols, struct weight_view *out)
{
    const struct gguf_tensor *t = gguf_find_tensor(l->gguf, name);
    enum weight_type type;
    int rc;

    if (!t) {
        gguf_error_set(l->err, "tensor %s: missing", name);
        return -EINVAL;
    }
    rc = check_shape(l, t, n_slices, n_rows, n_cols);
    if (!rc)
        rc = view_type(l, t, n_rows == 1 && n_slices == 1, &type);
    if (rc)
        return rc;
    *out = (struct weight_view){.type = type,
                                .n_slices = (uint32_t)n_slices,
                                .n_rows = n_rows,
                                .n_cols = n_cols,
                                .row_bytes = weight_row_bytes(type, n_cols),
                                .slice_bytes = weight_row_bytes(type, n_cols) * n_rows,
                                .data = t->data,
                                .name = t->name};
    l->used[t - gguf_tensor_at(l->gguf, 0)] = true;
    return 0;
}

static const char *layer_name(char out[KEY_MAX], uint32_t layer, const char *part)
{
    (void)snprintf(out, KEY_MAX, "blk.%u.%s", layer, part);
    return out;
}

int loader_layer_view(struct model_loader *l, uint32_t layer, const char *part, uint64_t n_slices,
                      uint64_t n_rows, uint64_t n_cols, struct weight_view *out)
{
    char name[KEY_MAX];

    return loader_view(l, layer_name(name, layer, part), n_slices, n_rows, n_cols, out);
}

bool loader_layer_has(const struct model_loader *l, uint32_t layer, const char *part)
{
    char name[KEY_MAX];

    return gguf_find_tensor(l->gguf, layer_name(name, layer, part)) != NULL;
}

int loader_check_all_used(struct model_loader *l)
{
    for (uint64_t i = 0; i < gguf_n_tensors(l->gguf); i++)
        if (!l->used[i]) {
            gguf_error_set(l->err, "tensor %s: not known for this %s model (%u layers)",
                           gguf_tensor_at(l->gguf, i)->name, l->arch, l->model->n_layers);
            return -ENOTSUP;
        }
    return 0;
}
