/* libFuzzer target: any bytes as a model file.  What is refused says why; what opens can be used to
 * its last row, and its vocabulary gives back every text whose bytes it has. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/invariant.h"
#include "common/model/chat_template.h"
#include "common/model/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { TEXT_BYTES = 64, COLUMNS_MAX = 1 << 16 };

static void use_view(const struct weight_view *w)
{
    static float row[COLUMNS_MAX];
    const struct weight_view last = weight_slice(w, w->n_slices - 1);

    if (w->n_cols <= COLUMNS_MAX)
        weight_dequant_row_ref(&last, last.n_rows - 1, row);
}

static void use_model(const struct model *m)
{
    double frequencies[2048];

    use_view(&m->token_embd);
    use_view(&m->output);
    for (uint32_t i = 0; i < m->n_layers; i++) {
        const struct model_layer *y = &m->layers[i];

        use_view(&y->attn_q);
        use_view(&y->attn_v);
        use_view(&y->ffn_up);
        use_view(&y->ffn_down);
        rope_frequencies(&y->attn.rope, m->n_ctx, frequencies);
        invariant(dense_list_cost(y->pre, y->n_pre, 3).flops > 0);
    }
}

static void use_tokenizer(const struct tokenizer *t)
{
    static const char text[] = "the <|im_start|>user\nand 12 of them\xff\xc3 ab aba";
    uint32_t ids[2 * TEXT_BYTES + 2];
    char back[sizeof(text) - 1];
    const size_t len = sizeof(back);
    const int64_t n = tokenizer_encode(t, text, len, 0, ids, tokenizer_encode_bound(len));

    invariant(n >= 0);
    for (size_t i = 0; i < len; i++)
        if (!tokenizer_has_byte(t, (unsigned char)text[i]))
            return;
    invariant(tokenizer_decode(t, ids, (size_t)n, back, sizeof(back)) == (int64_t)len);
    invariant(memcmp(back, text, len) == 0);
}

static void use_template(const struct gguf *g, const struct tokenizer *t)
{
    const struct chat_message m[] = {{"system", 6, " s ", 3}, {"user", 4, "<|im_end|>", 10}};
    struct chat_template c;
    struct gguf_error err;
    uint32_t *ids;

    if (chat_template_open(g, &c, &err) || !t)
        return;
    for (uint32_t n = 0; n <= 2; n++) {
        const size_t cap = chat_template_encode_bound(&c, m, n);

        ids = malloc(cap * sizeof(*ids));
        invariant(ids && chat_template_encode(&c, t, m, n, true, ids, cap) <= (int64_t)cap);
        free(ids);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct gguf_error err = {""};
    struct tokenizer *t = NULL;
    struct model *m = NULL;
    struct gguf *g;

    if (gguf_open_memory(data, n, &g, &err)) {
        invariant(err.text[0] != 0);
        return 0;
    }
    if (tokenizer_open(g, &t, &err) == 0)
        use_tokenizer(t);
    use_template(g, t);
    tokenizer_close(t);
    err.text[0] = 0;
    if (model_create(g, &m, &err)) {
        invariant(err.text[0] != 0);
        gguf_close(g);
        return 0;
    }
    use_model(m);
    model_close(m);
    return 0;
}
