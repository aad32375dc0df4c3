#include "gpu-engine/setup.h"

#include <errno.h>

#include "common/base/log.h"

/* When engine.ctx_max is 0: bounds memory for models of long contexts. */
enum { CONTEXT_DEFAULT_MAX = 8192 };

static enum kv_type kv_type_of(const struct omni_config *c)
{
    switch ((enum config_kv_type)c->engine_kv_type) {
    case CONFIG_KV_BF16:
        return KV_TYPE_BF16;
    case CONFIG_KV_F32:
        return KV_TYPE_F32;
    case CONFIG_KV_INT8:
        return KV_TYPE_I8;
    case CONFIG_KV_F16:
        break;
    }
    return KV_TYPE_F16;
}

static struct kv_layer_spec layer_spec(const struct attention_desc *a)
{
    return (struct kv_layer_spec){.attention = a->kind == ATTENTION_WINDOW ? KV_ATTENTION_WINDOW
                                                                           : KV_ATTENTION_FULL,
                                  .n_heads = a->n_heads,
                                  .n_kv_heads = a->n_kv_heads,
                                  .dk = a->k_width,
                                  .dv = a->v_width,
                                  .window = a->window,
                                  .n_sinks = a->n_sinks,
                                  .scale = a->scale};
}

int setup_geometry(struct kv_geometry *g, const struct omni_config *c, const struct model *model,
                   struct error *err)
{
    struct kv_layer_spec layers[KV_LAYERS_MAX];
    struct kv_geometry_config config = {.type = kv_type_of(c),
                                        .block_tokens = c->engine_block_tokens,
                                        .n_groups = c->engine_layer_groups,
                                        .rank = 0,
                                        .n_ranks = 1,
                                        .model_hash = model->hash};
    const char *field;

    if (model->n_layers > KV_LAYERS_MAX)
        return error_set(err, -EINVAL, "model: %u layers, at most %d are supported",
                         model->n_layers, KV_LAYERS_MAX);
    for (uint32_t l = 0; l < model->n_layers; l++)
        layers[l] = layer_spec(&model->layers[l].attn);
    if (geometry_init(g, &config, layers, model->n_layers, &field) != 0)
        return error_set(err, -EINVAL, "KV geometry: %s is out of bounds", field);
    return 0;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

void setup_sizes(struct setup_sizes *s, const struct omni_config *c, const struct model *model,
                 const struct kv_geometry *g)
{
    s->context_max = c->engine_ctx_max != 0 ? c->engine_ctx_max
                                            : smaller(model->n_ctx, (uint32_t)CONTEXT_DEFAULT_MAX);
    s->table_max = geometry_blocks_for(g, s->context_max);
    s->rows_max = c->engine_batch_tokens_max;
    s->seqs_max = smaller(c->engine_max_seqs, s->rows_max);
    s->returned_max = larger(c->engine_p_max, c->worker_n_q_max);
    s->device_blocks = c->engine_kv_blocks != 0
                           ? c->engine_kv_blocks
                           : (uint32_t)(((uint64_t)c->engine_kv_mb << 20) / g->block_bytes);
}

/* cuda where it is built in and has a GPU; else cpu, and the log says why. */
static const struct device_ops *device_auto(void)
{
    const char *known;
    const struct device_ops *cuda = device_find("cuda", &known);
    char why[256] = "it is not built in";

    if (cuda != NULL && cuda->present(why, sizeof why) == 0)
        return cuda;
    log_info("device_auto", "device=cpu cuda=\"%s\"", why);
    return device_find("cpu", &known);
}

const struct device_ops *setup_device(const struct omni_config *c, struct error *err)
{
    static const char *const names[] = {"cpu", "cuda", "sim"};
    const char *known;

    if (c->engine_device == CONFIG_DEVICE_AUTO)
        return device_auto();
    const struct device_ops *ops = device_find(names[c->engine_device], &known);

    if (ops == NULL)
        error_set(err, -ENOTSUP, "engine.device = %s is not built in; known: %s",
                  names[c->engine_device], known);
    return ops;
}
