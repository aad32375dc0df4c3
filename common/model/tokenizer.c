#include "common/model/tokenizer.h"

#include "common/model/bpe.h"
#include "common/model/pretokenizer.h"
#include "common/model/vocab.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct tokenizer {
    struct vocab vocab;
    struct pretokenizer *pretokenizer;
    bool add_bos, add_eos;
    uint32_t bos, eos;
};

/* One call of encode. */
struct encoder {
    const struct tokenizer *t;
    struct bpe bpe;
    uint32_t *ids;
    size_t cap, n;
    uint32_t *word_ids; /* scratch for a word that might not fit into what is left of ids */
    size_t word_cap;
};

static int check_model(const struct gguf *g, struct gguf_error *err)
{
    struct gguf_string model;
    const int rc = gguf_get_string(g, "tokenizer.ggml.model", &model, err);

    if (rc)
        return rc == -ENOENT ? -EINVAL : rc;
    if (model.len == 4 && memcmp(model.data, "gpt2", 4) == 0)
        return 0;
    gguf_error_set(err, "tokenizer.ggml.model: %.*s is not known (known: gpt2, byte-level BPE)",
                   (int)(model.len < 48 ? model.len : 48), model.data);
    return -ENOTSUP;
}

static int open_pretokenizer(struct tokenizer *t, const struct gguf *g, struct gguf_error *err)
{
    struct gguf_string pre = {"default", 7};
    const int rc = gguf_get_string(g, "tokenizer.ggml.pre", &pre, err);

    if (rc && rc != -ENOENT)
        return rc;
    return pretokenizer_open(pre, &t->pretokenizer, err);
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
    gguf_error_set(err, "%s: expected an id below %u, found %u", key, t->vocab.n_tokens, *out);
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
    int rc;

    *out = NULL;
    gguf_error_set(err, "out of memory");
    if (!t)
        return -ENOMEM;
    rc = check_model(g, err);
    if (!rc)
        rc = open_pretokenizer(t, g, err);
    if (!rc)
        rc = vocab_init(&t->vocab, g, err);
    if (!rc)
        rc = read_special(t, g, err);
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

static int emit(struct encoder *e, uint32_t id)
{
    if (e->n == e->cap)
        return -ENOSPC;
    e->ids[e->n++] = id;
    return 0;
}

static int reserve_word(struct encoder *e, size_t len)
{
    uint32_t *grown;

    if (len <= e->word_cap)
        return 0;
    grown = realloc(e->word_ids, 2 * len * sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    e->word_ids = grown;
    e->word_cap = 2 * len;
    return 0;
}

static int encode_word(void *context, const char *word, size_t len)
{
    struct encoder *e = context;
    int rc = reserve_word(e, len);
    int64_t n;

    if (rc)
        return rc;
    n = bpe_encode(&e->bpe, word, len, e->word_ids);
    if (n < 0)
        return (int)n;
    if ((size_t)n > e->cap - e->n)
        return -ENOSPC;
    memcpy(e->ids + e->n, e->word_ids, (size_t)n * sizeof(*e->ids));
    e->n += (size_t)n;
    return 0;
}

/* The longest special token at the beginning of text, or TOKENIZER_NONE.  User-defined ones are
 * always looked for: they are text that the vocabulary keeps whole. */
static uint32_t match_special(const struct vocab *v, const char *text, size_t len, unsigned flags)
{
    const unsigned char first = (unsigned char)*text;

    for (uint32_t i = v->special_from[first]; i < v->special_from[first + 1]; i++) {
        const uint32_t id = v->special[i];
        const struct vocab_token *t = &v->tokens[id];

        if (!(flags & TOKENIZER_PARSE_SPECIAL) && t->type != TOKEN_USER_DEFINED)
            continue;
        if (t->len <= len && memcmp(vocab_bytes(v, id), text, t->len) == 0)
            return id;
    }
    return TOKENIZER_NONE;
}

static int encode_text(struct encoder *e, const char *text, size_t len, unsigned flags)
{
    const struct vocab *v = &e->t->vocab;
    size_t done = 0, off = 0;
    int rc = 0;

    while (!rc && off < len) {
        const uint32_t id = match_special(v, text + off, len - off, flags);

        if (id == TOKENIZER_NONE) {
            off++;
            continue;
        }
        rc = pretokenizer_cut(e->t->pretokenizer, text + done, off - done, encode_word, e);
        if (!rc)
            rc = emit(e, id);
        off += v->tokens[id].len;
        done = off;
    }
    if (!rc && done < len)
        rc = pretokenizer_cut(e->t->pretokenizer, text + done, len - done, encode_word, e);
    return rc;
}

int64_t tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, unsigned flags,
                         uint32_t *ids, size_t cap)
{
    struct encoder e = {.t = t, .ids = ids, .cap = cap};
    int rc = 0;

    if (len > TOKENIZER_TEXT_MAX)
        return -E2BIG;
    bpe_init(&e.bpe, &t->vocab);
    if ((flags & TOKENIZER_ADD_SPECIAL) && t->add_bos)
        rc = emit(&e, t->bos);
    if (!rc)
        rc = encode_text(&e, text, len, flags);
    if (!rc && (flags & TOKENIZER_ADD_SPECIAL) && t->add_eos)
        rc = emit(&e, t->eos);
    bpe_fini(&e.bpe);
    free(e.word_ids);
    return rc ? rc : (int64_t)e.n;
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
