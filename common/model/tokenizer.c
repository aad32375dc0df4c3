#include "common/model/tokenizer.h"

#include "common/model/tokenizer_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool is_text(struct gguf_string s, const char *text)
{
    return s.len == strlen(text) && memcmp(s.data, text, s.len) == 0;
}

static int read_kind(const struct gguf *g, enum vocab_kind *out, struct gguf_error *err)
{
    struct gguf_string model;
    const int rc = gguf_get_string(g, "tokenizer.ggml.model", &model, err);

    if (rc)
        return rc == -ENOENT ? -EINVAL : rc;
    *out = is_text(model, "gpt2") ? VOCAB_BYTES : VOCAB_CHARS;
    if (*out == VOCAB_BYTES || is_text(model, "llama"))
        return 0;
    gguf_error_at_key(err, g, "tokenizer.ggml.model",
                      "%.*s is not known (known: gpt2, byte-level BPE; llama, SentencePiece's BPE)",
                      (int)(model.len < 48 ? model.len : 48), model.data);
    return -ENOTSUP;
}

static int open_pretokenizer(struct tokenizer *t, const struct gguf *g, struct gguf_error *err)
{
    struct gguf_string pre = {"default", 7};
    struct gguf_error why = {"out of memory"};
    int rc = gguf_get_string(g, "tokenizer.ggml.pre", &pre, err);

    if (rc && rc != -ENOENT)
        return rc;
    rc = pretokenizer_open(pre, &t->pretokenizer, &why);
    if (rc)
        gguf_error_at_key(err, g, "tokenizer.ggml.pre", "%s", why.text);
    return rc;
}

/* Phi-3 with Llama's vocabulary; no key says so. */
static bool has_stripping_tokens(const struct gguf *g)
{
    struct gguf_string arch;

    return gguf_get_string(g, "general.architecture", &arch, NULL) == 0 && is_text(arch, "phi3");
}

/* What a file that says nothing means: as in llama.cpp. */
static void set_defaults(struct tokenizer *t, const struct gguf *g)
{
    const bool chars = t->vocab.kind == VOCAB_CHARS;

    t->add_space = chars;
    t->strips = chars && has_stripping_tokens(g);
    t->add_bos = chars || pretokenizer_whole_words(t->pretokenizer);
}

/* A token id that may be absent; one that is out of range is an error. */
static int read_id(const struct tokenizer *t, const struct gguf *g, const char *key, uint32_t *out,
                   struct gguf_error *err)
{
    const int rc = gguf_get_u32(g, key, out, err);

    if (rc == -ENOENT) {
        *out = TOKENIZER_NONE;
        return 0;
    }
    if (rc)
        return rc;
    if (*out < t->vocab.n_tokens)
        return 0;
    gguf_error_at_key(err, g, key, "expected an id below %u, found %u", t->vocab.n_tokens, *out);
    return -EINVAL;
}

static int read_flag(const struct gguf *g, const char *key, bool *out, struct gguf_error *err)
{
    const int rc = gguf_get_bool(g, key, out, err);

    return rc == -ENOENT ? 0 : rc;
}

static int read_special(struct tokenizer *t, const struct gguf *g, struct gguf_error *err)
{
    uint32_t ends[3] = {TOKENIZER_NONE, TOKENIZER_NONE, TOKENIZER_NONE};
    int rc = read_id(t, g, "tokenizer.ggml.bos_token_id", &t->bos, err);

    if (!rc)
        rc = read_id(t, g, "tokenizer.ggml.eos_token_id", &ends[0], err);
    if (!rc)
        rc = read_id(t, g, "tokenizer.ggml.eot_token_id", &ends[1], err);
    if (!rc)
        rc = read_id(t, g, "tokenizer.ggml.eom_token_id", &ends[2], err);
    if (!rc)
        rc = read_flag(g, "tokenizer.ggml.add_bos_token", &t->add_bos, err);
    if (!rc)
        rc = read_flag(g, "tokenizer.ggml.add_eos_token", &t->add_eos, err);
    if (!rc && t->add_space)
        rc = read_flag(g, "tokenizer.ggml.add_space_prefix", &t->add_space, err);
    if (rc)
        return rc;
    t->eos = ends[0];
    for (int i = 0; i < 3; i++)
        if (ends[i] != TOKENIZER_NONE)
            t->vocab.tokens[ends[i]].is_eog = true;
    t->add_bos = t->add_bos && t->bos != TOKENIZER_NONE;
    t->add_eos = t->add_eos && t->eos != TOKENIZER_NONE;
    return 0;
}

int tokenizer_open(const struct gguf *g, struct tokenizer **out, struct gguf_error *err)
{
    struct tokenizer *t = calloc(1, sizeof(*t));
    enum vocab_kind kind;
    int rc;

    *out = NULL;
    gguf_error_set(err, "out of memory");
    if (!t)
        return -ENOMEM;
    rc = read_kind(g, &kind, err);
    if (!rc && kind == VOCAB_BYTES)
        rc = open_pretokenizer(t, g, err);
    if (!rc)
        rc = vocab_init(&t->vocab, kind, g, err);
    if (!rc && t->pretokenizer && pretokenizer_whole_words(t->pretokenizer))
        rc = vocab_index_words(&t->vocab);
    if (!rc) {
        set_defaults(t, g);
        rc = read_special(t, g, err);
    }
    if (rc) {
        tokenizer_close(t);
        return rc;
    }
    *out = t;
    return 0;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t)
        return;
    pretokenizer_close(t->pretokenizer);
    vocab_fini(&t->vocab);
    free(t);
}

int tokenizer_piece(const struct tokenizer *t, uint32_t id, const char **bytes, size_t *len)
{
    if (id >= t->vocab.n_tokens)
        return -EINVAL;
    *bytes = vocab_bytes(&t->vocab, id);
    *len = t->vocab.tokens[id].len;
    return 0;
}

uint32_t tokenizer_n_vocab(const struct tokenizer *t)
{
    return t->vocab.n_tokens;
}

size_t tokenizer_piece_bytes_max(const struct tokenizer *t)
{
    return t->vocab.piece_bytes_max;
}

bool tokenizer_has_byte(const struct tokenizer *t, unsigned char byte)
{
    return t->vocab.byte_id[byte] != TOKENIZER_NONE;
}

bool tokenizer_is_control(const struct tokenizer *t, uint32_t id)
{
    if (id >= t->vocab.n_tokens)
        return false;
    return t->vocab.tokens[id].type == TOKEN_CONTROL || t->vocab.tokens[id].type == TOKEN_UNKNOWN;
}

bool tokenizer_is_eog(const struct tokenizer *t, uint32_t id)
{
    return id < t->vocab.n_tokens && t->vocab.tokens[id].is_eog;
}

bool tokenizer_strips_after(const struct tokenizer *t, uint32_t id)
{
    static const char *const not [] = {"<unk>", "<s>", "<|endoftext|>"};
    const struct vocab *v = &t->vocab;

    if (!t->strips || id >= v->n_tokens || !vocab_is_special(&v->tokens[id]))
        return false;
    for (size_t i = 0; i < sizeof(not ) / sizeof(not [0]); i++)
        if (v->tokens[id].len == strlen(not [i]) &&
            memcmp(vocab_bytes(v, id), not [i], v -> tokens[id].len) == 0)
            return false;
    return true;
}

uint32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

uint32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

uint32_t tokenizer_special_id(const struct tokenizer *t, const char *name)
{
    const struct vocab *v = &t->vocab;
    const size_t len = strlen(name);

    for (uint32_t i = 0; i < v->n_special; i++)
        if (v->tokens[v->special[i]].len == len &&
            memcmp(vocab_bytes(v, v->special[i]), name, len) == 0)
            return v->special[i];
    return TOKENIZER_NONE;
}
