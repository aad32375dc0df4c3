/* One layer's MLP: gated, its matrices separate or fused, or routed experts. */
#include "common/model/model_loader.h"

/* Gate and up apart, or (Phi-3) one matrix with the rows of gate, then those of up. */
static int load_gate_up(struct model_loader *l, uint32_t layer)
{
    struct model_layer *y = &l->model->layers[layer];
    const uint64_t n_embd = l->model->n_embd, n_ff = y->mlp.n_ff;
    struct weight_view both;
    int rc;

    if (loader_layer_has(l, layer, "ffn_gate.weight")) {
        rc = loader_layer_view(l, layer, "ffn_gate.weight", 1, n_ff, n_embd, &y->ffn_gate);
        return rc ? rc : loader_layer_view(l, layer, "ffn_up.weight", 1, n_ff, n_embd, &y->ffn_up);
    }
    rc = loader_layer_view(l, layer, "ffn_up.weight", 1, 2 * n_ff, n_embd, &both);
    if (rc)
        return rc;
    y->ffn_gate = weight_rows(&both, 0, n_ff);
    y->ffn_up = weight_rows(&both, n_ff, n_ff);
    return 0;
}

static int load_gated(struct model_loader *l, uint32_t layer)
{
    struct model_layer *y = &l->model->layers[layer];
    const uint64_t n_embd = l->model->n_embd;
    int rc;

    y->mlp.kind = MLP_GATED;
    rc = loader_layer_u32(l, "feed_forward_length", layer, 1, FF_MAX, REQUIRED, &y->mlp.n_ff);
    if (!rc)
        rc = load_gate_up(l, layer);
    if (!rc)
        rc = loader_layer_view(l, layer, "ffn_down.weight", 1, n_embd, y->mlp.n_ff, &y->ffn_down);
    return rc;
}

/* The hidden width of an expert has a key of its own; where it is missing, the common one counts.
 */
static int load_expert_sizes(struct model_loader *l, uint32_t layer, struct mlp_desc *mlp)
{
    const char *const own = "expert_feed_forward_length";
    const char *key = loader_has(l, own) ? own : "feed_forward_length";
    bool normalised = true;
    int rc = loader_layer_u32(l, key, layer, 1, FF_MAX, REQUIRED, &mlp->n_ff);

    mlp->kind = MLP_EXPERTS;
    if (!rc)
        rc = loader_u32(l, "expert_count", 2, EXPERTS_MAX, REQUIRED, &mlp->n_experts);
    if (!rc)
        rc = loader_u32(l, "expert_used_count", 1, mlp->n_experts, REQUIRED, &mlp->n_used);
    if (!rc)
        rc = loader_bool(l, "expert_weights_norm", true, &normalised);
    mlp->order = normalised ? EXPERTS_TOPK_THEN_SOFTMAX : EXPERTS_SOFTMAX_THEN_TOPK;
    return rc;
}

static int load_experts(struct model_loader *l, uint32_t layer)
{
    struct model_layer *y = &l->model->layers[layer];
    const uint64_t n_embd = l->model->n_embd;
    const struct mlp_desc *mlp = &y->mlp;
    int rc = load_expert_sizes(l, layer, &y->mlp);

    if (!rc)
        rc = loader_layer_view(l, layer, "ffn_gate_inp.weight", 1, mlp->n_experts, n_embd,
                               &y->ffn_router);
    if (!rc)
        rc = loader_layer_view(l, layer, "ffn_gate_exps.weight", mlp->n_experts, mlp->n_ff, n_embd,
                               &y->ffn_gate);
    if (!rc)
        rc = loader_layer_view(l, layer, "ffn_up_exps.weight", mlp->n_experts, mlp->n_ff, n_embd,
                               &y->ffn_up);
    if (!rc)
        rc = loader_layer_view(l, layer, "ffn_down_exps.weight", mlp->n_experts, n_embd, mlp->n_ff,
                               &y->ffn_down);
    return rc;
}

int model_mlp_load(struct model_loader *l, uint32_t layer)
{
    struct model_layer *y = &l->model->layers[layer];
    const int rc =
        loader_layer_view(l, layer, "ffn_norm.weight", 1, 1, l->model->n_embd, &y->ffn_norm);

    if (rc)
        return rc;
    return loader_layer_has(l, layer, "ffn_gate_inp.weight") ? load_experts(l, layer)
                                                             : load_gated(l, layer);
}
